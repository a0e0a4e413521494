"""
The gate as a process: what a container would run, in an environment that is clean.

`gate(...)` runs it to its end; `gate.start(...)` returns it running, for signals and
for many at once. It is a fork of a process that has imported it already, unless what it
is given acts on the interpreter's own start, or its command line is looked at.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any, Final, Protocol, TypeAlias, cast

import pytest

from tests.fix_postgres import Database
from tests.forked import be_gate
from tests.log_schema import find_faults


Event: TypeAlias = dict[str, Any]
Files: TypeAlias = Mapping[str, str | bytes] | Path

ROOT = Path(__file__).resolve().parent.parent
# SPEC.md, section 2: these print nothing but the log on stdout.
LOGGING_COMMANDS = {"migrate", "check", "wait", "resolve"}
# Set by the coverage tool, for its subprocesses, while it measures.
COVERAGE_VARIABLE = "COVERAGE_PROCESS_CONFIG"
TIMEOUT_S = 20.0
# What the interpreter or a library reads when it starts, not when the gate does.
EARLY: Final = ("PYTHON", "COVERAGE", "LD_", "LC_", "LANG", "OPENSSL", "TZ")
FORKS: Final = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload([be_gate.__module__])


@dataclass(frozen=True, kw_only=True)
class Run:
    """A gate that ended; `exit_code` is minus the signal's number if one ended it."""

    argv: tuple[str, ...]
    exit_code: int
    stdout: str
    stderr: str
    termination_log: str
    events: list[Event] = field(repr=False)

    @property
    def verdict(self) -> Event:
        """The last event."""
        assert self.events, f"no event was logged; stderr:\n{self.stderr}"
        return self.events[-1]

    @property
    def names(self) -> list[str]:
        """The names of the events, in order."""
        return [event["event"] for event in self.events]

    @property
    def output(self) -> str:
        """All that was ever written: stdout, stderr, termination log."""
        return f"{self.stdout}\n{self.stderr}\n{self.termination_log}"

    def all(self, name: str) -> list[Event]:
        """Return the events of one name."""
        return [event for event in self.events if event["event"] == name]

    def one(self, name: str) -> Event:
        """Return the only event of that name."""
        (event,) = self.all(name)
        return event


class Lines:
    """One output of a running process, collected by a thread."""

    def __init__(self, stream: IO[bytes], news: threading.Condition) -> None:
        self._stream = stream
        self._news = news
        self._lines: list[bytes] = []
        self._thread = threading.Thread(target=self._collect, daemon=True)
        self._thread.start()

    @property
    def text(self) -> str:
        """All lines so far."""
        return b"".join(self._lines).decode()

    def join(self) -> None:
        """Wait for the end of the output."""
        self._thread.join()

    def _collect(self) -> None:
        with self._stream:
            for line in self._stream:
                with self._news:
                    self._lines.append(line)
                    self._news.notify_all()


class Child(Protocol):
    """What is asked of a process, however it was started."""

    stdout: IO[bytes]
    stderr: IO[bytes]

    @property
    def pid(self) -> int:
        """Its id."""

    def poll(self) -> int | None:
        """Return the exit code, once there is one; minus the signal's number."""

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code, or raise ``subprocess.TimeoutExpired``."""

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""


def spawn(argv: Sequence[str], environ: Mapping[str, str], folder: Path) -> Child:
    """Start the gate as a process of its own, from nothing."""
    return cast(
        "Child",
        subprocess.Popen(
            [sys.executable, str(ROOT / "entrypoint.py"), *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environ,
            cwd=folder,
        ),
    )


class Fork:
    """A gate that is a fork of a process that has imported it."""

    def __init__(
        self, argv: Sequence[str], environ: Mapping[str, str], folder: Path
    ) -> None:
        stdout, their_stdout = FORKS.Pipe(duplex=False)
        stderr, their_stderr = FORKS.Pipe(duplex=False)
        outputs = their_stdout, their_stderr
        self._process = FORKS.Process(
            target=be_gate, args=(tuple(argv), dict(environ), str(folder), *outputs)
        )
        self._process.start()
        for end in outputs:
            end.close()
        self.stdout = to_file(stdout)
        self.stderr = to_file(stderr)

    @property
    def pid(self) -> int:
        """Its id."""
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        """Return the exit code, once there is one; minus the signal's number."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code, or raise ``subprocess.TimeoutExpired``."""
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired("gate", timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


def to_file(end: Connection) -> IO[bytes]:
    """Return a file in place of a pipe's end."""
    with end:
        return os.fdopen(os.dup(end.fileno()), "rb")


class Process:
    """A gate that runs."""

    def __init__(
        self,
        argv: tuple[str, ...],
        environ: Mapping[str, str],
        folder: Path,
        *,
        is_fork: bool,
    ) -> None:
        self.argv = argv
        self.started_at = time.monotonic()
        self._is_json = environ.get("GATE_LOG_FORMAT", "json") == "json" and (
            not argv or argv[0] in LOGGING_COMMANDS
        )
        self._termination_log = Path(environ["GATE_TERMINATION_LOG"])
        self._news = threading.Condition()
        self._process: Child = (
            Fork(argv, environ, folder) if is_fork else spawn(argv, environ, folder)
        )
        self._stdout = Lines(self._process.stdout, self._news)
        self._stderr = Lines(self._process.stderr, self._news)

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """How it ended, as a `Run` says it; None while it runs."""
        return self._process.poll()

    @property
    def stderr(self) -> str:
        """What it has written to stderr so far: of some commands that is the log."""
        return self._stderr.text

    @property
    def output(self) -> str:
        """What it has written so far, to both."""
        return f"{self._stdout.text}\n{self._stderr.text}"

    @property
    def events(self) -> list[Event]:
        """The events logged so far; empty for a command that answers a person."""
        if not self._is_json or {"--help", "--version"} & set(self.argv):
            return []
        # A killed process may leave a part of a line.
        lines = self._stdout.text.splitlines(keepends=True)
        return [parse_event(line) for line in lines if line.endswith("\n")]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self._process.send_signal(signal.SIGKILL)

    def wait_for(
        self, name: str, timeout: float = TIMEOUT_S, *, count: int = 1
    ) -> Event:
        """Return the `count`-th event of that name as soon as it is logged."""

        def found() -> list[Event]:
            return [event for event in self.events if event["event"] == name]

        deadline = time.monotonic() + timeout
        with self._news:
            while len(events := found()) < count:
                left = deadline - time.monotonic()
                assert left > 0, self._complaint(f"no {name} within {timeout:g} s")
                ended = not self.is_running
                self._news.wait(min(left, 0.1))
                if ended and len(found()) < count:
                    pytest.fail(self._complaint(f"ended without {name}"))
        return events[count - 1]

    def wait(self, timeout: float = TIMEOUT_S) -> Run:
        """
        Wait for its end; one that goes on too long is killed, and a failure.

        So is a line of its log that is not what docs/log.schema.json says.
        """
        try:
            exit_code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()
            pytest.fail(self._complaint(f"still running after {timeout:g} s"))
        finally:
            self.kill()  # pytest-timeout may have ended the wait
            self._stdout.join()
            self._stderr.join()
        events = self.events
        assert [fault for event in events for fault in find_faults(event)] == []
        return Run(
            argv=self.argv,
            exit_code=exit_code,
            stdout=self._stdout.text,
            stderr=self._stderr.text,
            termination_log=self._termination_log.read_text("utf-8"),
            events=events,
        )

    def close(self) -> None:
        """Kill it if it is still there."""
        self.kill()
        self._process.wait()
        self._stdout.join()
        self._stderr.join()

    def _complaint(self, what: str) -> str:
        return (
            f"gate {' '.join(self.argv)}: {what}\n"
            f"stdout:\n{self._stdout.text}\nstderr:\n{self._stderr.text}"
        )


def parse_event(line: str) -> Event:
    """Read a line of stdout, which is one JSON object with an `event` and no more."""
    try:
        event = json.loads(line)
    except json.JSONDecodeError:
        pytest.fail(f"a line of stdout is not JSON: {line!r}")
    assert isinstance(event, dict), f"a line of stdout is not an object: {line!r}"
    assert isinstance(event.get("event"), str), f"a line without an event: {line!r}"
    return event


class Gate:
    """Runs the gate; see `gate`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._numbers = itertools.count(1)
        self._processes: list[Process] = []

    def __call__(
        self,
        *argv: str,
        env: Mapping[str, str] | None = None,
        database: Database | None = None,
        migrations: Files | None = None,
        timeout: float = TIMEOUT_S,
    ) -> Run:
        """Run the gate to its end; the arguments are those of `start`."""
        process = self.start(*argv, env=env, database=database, migrations=migrations)
        return process.wait(timeout)

    def start(
        self,
        *argv: str,
        env: Mapping[str, str] | None = None,
        database: Database | None = None,
        migrations: Files | None = None,
        is_fork: bool = True,
    ) -> Process:
        """
        Start the gate, in a folder of its own.

        Args:
            argv: the command and its options; none is `migrate`.
            env: settings, on top of the others; nothing else is in its environment
                but PATH and GATE_TERMINATION_LOG.
            database: named to it by POSTGRES_HOST and the like.
            migrations: a folder, or files to write into one; GATE_MIGRATIONS names it.
            is_fork: of a process that has imported it, if nothing in `env` forbids it.
        """
        folder = self.folder / f"gate-{next(self._numbers)}"
        folder.mkdir()
        termination_log = folder / "termination-log"
        termination_log.touch()
        environ = {
            "PATH": os.environ.get("PATH", os.defpath),
            "GATE_TERMINATION_LOG": str(termination_log),
        }
        if COVERAGE_VARIABLE in os.environ:
            environ[COVERAGE_VARIABLE] = os.environ[COVERAGE_VARIABLE]
        if database is not None:
            environ |= database.environ()
        if isinstance(migrations, Path):
            environ["GATE_MIGRATIONS"] = str(migrations)
        elif migrations is not None:
            written = write_migrations(folder / "migrations", migrations)
            environ["GATE_MIGRATIONS"] = str(written)
        environ |= env or {}
        is_fork = is_fork and not any(name.startswith(EARLY) for name in environ)
        process = Process(argv, environ, folder, is_fork=is_fork)
        self._processes.append(process)
        return process

    def close(self) -> None:
        """End whatever a test left running."""
        for process in self._processes:
            process.close()


def write_migrations(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    """Write migration files, text as UTF-8 with the line ends it has."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        encoded = content.encode() if isinstance(content, str) else content
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(encoded)
    return folder


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """Return what runs the gate."""
    runner = Gate(tmp_path)
    try:
        yield runner
    finally:
        runner.close()
