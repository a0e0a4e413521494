"""
A gate whose command line, namespaces and standard output are the test's; see `Bare`.

As PID 1 of a namespace it gets signals as in a container: from outside.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import sys

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.fix_gate import ROOT, write_migrations


STOP_LIMIT_S = 5.0
FILES = {"001_create.sql": "CREATE TABLE made (id int);"}
SLOW = {"001_slow.sql": "CREATE TABLE made (id int); SELECT pg_sleep(60);"}
ENTRYPOINT = (sys.executable, str(ROOT / "entrypoint.py"))
# The path of unshare(1) and the right to use it are a matter of the machine.
NAMESPACE = ("unshare", "--map-root-user", "--mount", "--pid", "--fork", "--mount-proc")


class Bare:
    """Starts gates; the caller ends them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.termination_log = folder / "termination-log"
        self.termination_log.touch()

    def start(
        self,
        environ: Mapping[str, str],
        *,
        before: tuple[str, ...] = (),
        command: tuple[str, ...] = (),
        migrations: Mapping[str, str] = FILES,
        stdout: int = subprocess.PIPE,
    ) -> subprocess.Popen[bytes]:
        """Start one; `before` are programs that become it, or have it as a child."""
        written = write_migrations(self.folder / "migrations", dict(migrations))
        return subprocess.Popen(
            [*before, *ENTRYPOINT, *command],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            env={
                "PATH": os.environ["PATH"],
                "GATE_TERMINATION_LOG": str(self.termination_log),
                "GATE_MIGRATIONS": str(written),
                **environ,
            },
        )

    @property
    def verdict(self) -> dict[str, Any]:
        """The verdict in the termination log."""
        verdict: dict[str, Any] = json.loads(self.termination_log.read_text("utf-8"))
        return verdict


def end(process: subprocess.Popen[bytes], timeout: float = STOP_LIMIT_S) -> int:
    """Wait for its end, and return its exit code; kill one that goes on."""
    try:
        return process.wait(timeout)
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def read_until(process: subprocess.Popen[bytes], event: str) -> None:
    """Read the log up to an event."""
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line)["event"] == event:
            return
    pytest.fail(f"ended without {event}")


@functools.cache
def can_unshare() -> bool:
    """Whether this machine lets us have namespaces."""
    if shutil.which(NAMESPACE[0]) is None:
        return False
    probe = subprocess.run([*NAMESPACE, "true"], check=False, capture_output=True)
    return probe.returncode == 0


needs_namespaces = pytest.mark.skipif(
    not can_unshare(), reason="namespaces are not allowed here"
)


def child_of(pid: int) -> int:
    """Return the only child of unshare: the process that is PID 1 for itself."""
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()
    return int(child)


def signal_child(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to the gate that unshare has started, as a runtime does."""
    os.kill(child_of(process.pid), number)
