"""
Gates as forks of one process that has already imported them: many, and at once.

A gate takes a quarter of a second to import, and the rest of a short run less than
that. As processes of their own, two hundred would come one after the other.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import os
import select
import signal
import subprocess
import sys
import time
import traceback

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from tests.fix_gate import ROOT, Event


PR_SET_PDEATHSIG: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A gate that ended; `exit_code` is minus the signal's number if one ended it."""

    exit_code: int
    events: tuple[Event, ...]
    stderr: str
    duration_s: float

    @property
    def verdict(self) -> Event:
        """The last event; empty where there is none."""
        return self.events[-1] if self.events else {}

    @property
    def how(self) -> tuple[int, str | None]:
        """Exit code and reason."""
        return self.exit_code, self.verdict.get("reason")

    @property
    def applied(self) -> list[str]:
        """The versions that it said it applied, or undid."""
        done = {"migration.applied", "migration.undone"}
        return [e["version"] for e in self.events if e["event"] in done]

    @property
    def story(self) -> str:
        """What a person needs to see of a gate that ended as it should not."""
        return f"{self.exit_code}: {self.verdict or self.stderr}"


class StillRunningError(Exception):
    """A gate that should have ended; it is killed."""


class Forker:
    """Starts a gate, or several that are let go at the same moment."""

    def __init__(self, folder: Path) -> None:
        self.pids: list[int] = []
        self._folder = folder
        self._started_s = 0.0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.forks"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            bufsize=0,  # what a buffer holds, select() does not see
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests = io.BufferedWriter(self._process.stdin)
        self._answers = self._process.stdout

    def close(self) -> None:
        """End it, and any gate that runs."""
        self._process.kill()
        self._process.wait()
        self._requests.close()
        self._answers.close()

    def start(
        self, environs: Sequence[Mapping[str, str]], arguments: Sequence[str] = ()
    ) -> list[int]:
        """Start a gate for each environment, in a folder of its own."""
        gates = [
            {
                "arguments": arguments,
                "environ": {"PATH": os.defpath, **environ},
                "folder": str(self._at(number)),
            }
            for number, environ in enumerate(environs)
        ]
        self._started_s = time.monotonic()
        self._requests.write(json.dumps(gates).encode() + b"\n")
        self._requests.flush()
        self.pids = json.loads(self._answers.readline())
        return self.pids

    def wait(self, timeout_s: float) -> list[Ended]:
        """
        Wait until all have ended.

        Raises:
            StillRunningError: One was late; all that run are killed.
        """
        deadline = time.monotonic() + timeout_s
        ended: dict[int, Ended] = {}
        is_late = False
        while len(ended) < len(self.pids):
            left = deadline - time.monotonic()
            if not is_late and not select.select([self._answers], [], [], left)[0]:
                is_late = True
                for pid in set(self.pids) - ended.keys():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            pid, exit_code = json.loads(self._answers.readline())
            ended[pid] = self._to_ended(self.pids.index(pid), exit_code)
        if is_late:
            stuck = [each for each in ended.values() if each.exit_code < 0]
            text = f"still running after {timeout_s:g} s: {stuck[-1].events[-3:]}"
            raise StillRunningError(text)
        return [ended[pid] for pid in self.pids]

    def run(
        self,
        environs: Sequence[Mapping[str, str]],
        timeout_s: float,
        arguments: Sequence[str] = (),
    ) -> list[Ended]:
        """Start, and wait until all have ended."""
        self.start(environs, arguments)
        return self.wait(timeout_s)

    def _at(self, number: int) -> Path:
        folder = self._folder / f"fork-{number}"
        folder.mkdir(exist_ok=True)
        return folder

    def _to_ended(self, number: int, exit_code: int) -> Ended:
        folder = self._at(number)
        stdout, stderr = (
            (folder / name).read_text("utf-8") for name in ("stdout", "stderr")
        )
        # A command that answers on stdout writes its log to stderr.
        log = stdout if stdout.startswith("{") else stderr
        lines = [line for line in log.splitlines(keepends=True) if line[:1] == "{"]
        return Ended(
            exit_code=exit_code,
            events=tuple(json.loads(line) for line in lines if line.endswith("\n")),
            stderr=stderr,
            duration_s=time.monotonic() - self._started_s,
        )


def end_with_parent() -> None:
    """Be killed when the parent ends, however it does: prctl(2)."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def serve() -> None:
    """For each line of stdin, fork gates; say their ids, then who ended and how."""
    end_with_parent()
    import tenacity  # noqa: F401, PLC0415  # a gate that waits would load it

    from migration_gate.commands.main import main  # noqa: PLC0415  # not in who asks
    from migration_gate.commands.signals import SIGNALS  # noqa: PLC0415

    def be_gate(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
        os.environ.clear()
        os.environ.update(environ)
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # as entrypoint.py does
        return main(arguments, os.environ)

    for line in sys.stdin:
        gates: list[dict[str, Any]] = json.loads(line)
        waiting, starting_gun = os.pipe()
        pids = []
        for gate in gates:
            pid = os.fork()
            if pid == 0:
                end_with_parent()
                os.close(starting_gun)
                os.read(waiting, 1)
                os.close(waiting)
                step = partial(be_gate, gate["arguments"], gate["environ"])
                _become(gate["folder"], step)
            pids.append(pid)
        _say(pids)
        os.close(waiting)
        os.close(starting_gun)
        for _ in pids:
            pid, status = os.wait()
            _say([pid, os.waitstatus_to_exitcode(status)])


def _become(folder: str, step: Any) -> None:  # noqa: ANN401  # never returns
    code = 99
    try:
        os.chdir(folder)
        for name, fd in (("stdout", 1), ("stderr", 2)):
            opened = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(opened, fd)
            os.close(opened)
        code = step()
    except BaseException:  # noqa: BLE001  # whatever it is is the gate's
        traceback.print_exc()
    finally:
        os._exit(code)


def _say(answer: object) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    serve()
