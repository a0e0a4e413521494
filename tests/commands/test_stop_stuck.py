"""
A stop that Python alone cannot see to: a resolver that blocks, PID 1, a dead stdout.

Signals reach the process from outside its namespaces, as a runtime sends them.
"""

from __future__ import annotations

import ast
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from dev.postgres import find_free_port
from tests.bare import (
    NAMESPACE,
    SLOW,
    STOP_LIMIT_S,
    Bare,
    child_of,
    end,
    needs_namespaces,
    read_until,
    signal_child,
)
from tests.fix_gate import ROOT
from tests.fix_postgres import Database
from tests.polling import until


# Servers of their own, and waiting: a loaded machine needs longer.
pytestmark = pytest.mark.timeout(60)
# Of each process its own: tests run side by side.
RESOLVER = f"127.53.{os.getpid() // 250 % 250}.{os.getpid() % 250 + 2}"


@pytest.fixture
def bare(tmp_path: Path) -> Bare:
    """Return what starts a gate without the usual pipes."""
    return Bare(tmp_path)


@contextmanager
def silent_resolver() -> Iterator[socket.socket]:
    """Take questions for names and never answer."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as resolver:
        try:
            resolver.bind((RESOLVER, 53))
        except PermissionError:
            pytest.skip("port 53 is root's here")
        yield resolver


@needs_namespaces
@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (signal.SIGTERM, "interrupted"),
        (signal.SIGINT, "interrupted"),
        (None, "deadline"),
    ],
    ids=["SIGTERM", "SIGINT", "GATE_TIMEOUT"],
)
def test_a_stop_while_a_name_is_resolved_ends_in_time(
    bare: Bare, number: signal.Signals | None, reason: str
) -> None:
    """The resolver waits ten seconds for an answer, and no handler runs meanwhile."""
    resolv_conf = bare.folder / "resolv.conf"
    resolv_conf.write_text(f"nameserver {RESOLVER}\n", "utf-8")
    script = f'mount --bind {resolv_conf} /etc/resolv.conf && exec "$@"'
    environ = {"DATABASE_URL": "postgresql://u:Xq7-Zv9.kR2@db.example/d"}
    if number is None:
        environ["GATE_TIMEOUT"] = "3s"
    with silent_resolver() as resolver:
        process = bare.start(environ, before=(*NAMESPACE, "sh", "-c", script, "sh"))
        assert select.select([resolver], [], [], 10)[0], "nobody asked for the name"
        started_at = time.monotonic()
        if number is not None:
            signal_child(process, number)
        assert end(process) == 1
    assert time.monotonic() - started_at < STOP_LIMIT_S
    assert bare.verdict["reason"] == reason
    assert bare.verdict["duration_ms"] < (5000 if number else 3000)


@needs_namespaces
def test_as_pid_1_a_signal_while_it_loads_is_kept(bare: Bare) -> None:
    """Sent as soon as Python runs, it ends the gate when that is ready."""
    url = f"postgresql://u:p@127.0.0.1:{find_free_port()}/d"
    process = bare.start({"DATABASE_URL": url}, before=NAMESPACE)
    until(lambda: holds_sigterm(process.pid))
    signal_child(process, signal.SIGTERM)
    assert end(process) == 1
    assert bare.verdict["reason"] == "interrupted"


def test_nothing_is_loaded_before_signals_are_held() -> None:
    """Until then PID 1 loses them, and each module takes its milliseconds."""
    module = ast.parse((ROOT / "entrypoint.py").read_text("utf-8"))
    first = [node for node in module.body if isinstance(node, ast.Import)]
    names = {alias.name for node in first for alias in node.names}
    assert names - {"os"} <= set(sys.builtin_module_names)  # os is there already
    assert not [node for node in module.body if isinstance(node, ast.ImportFrom)]


def holds_sigterm(pid: int) -> bool:
    """Whether the child of unshare is Python, and holds SIGTERM back."""
    try:
        process = Path(f"/proc/{child_of(pid)}")
        program = (process / "cmdline").read_bytes().split(b"\0")[0]
        status = (process / "status").read_text("ascii")
    except (OSError, ValueError):
        return False
    # Before that it is unshare's own, which holds it back for a moment, too.
    if program != sys.executable.encode():
        return False
    blocked = int(status.split("SigBlk:")[1].split()[0], 16)
    return bool(blocked >> (signal.SIGTERM - 1) & 1)


def full_pipe() -> tuple[int, int]:
    """Return a pipe that nobody reads and that takes no more."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    try:
        while True:
            os.write(writing, b"\n" * select.PIPE_BUF)
    except BlockingIOError:
        os.set_blocking(writing, True)
    return reading, writing


def test_a_pipe_that_nobody_reads_changes_nothing(
    bare: Bare, database: Database
) -> None:
    """The work is done, the gate open; the verdict is in the termination log."""
    reading, writing = full_pipe()
    process = bare.start(database.environ(), stdout=writing)
    os.close(writing)
    assert end(process, timeout=10) == 0
    os.close(reading)
    assert bare.verdict["event"] == "gate.opened"
    assert database.fetch("SELECT version FROM schema_migrations") == [
        ("001_create.sql",)
    ]


def test_a_signal_with_a_pipe_that_nobody_reads_ends_in_time(
    bare: Bare, database: Database
) -> None:
    """Neither the log nor the verdict can be written there."""
    reading, writing = full_pipe()
    process = bare.start(database.environ(), stdout=writing, migrations=SLOW)
    os.close(writing)
    sleeping = "SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    until(lambda: database.fetch(f"{sleeping} AND datname = current_database()"))
    process.send_signal(signal.SIGTERM)
    assert end(process) == 1
    os.close(reading)
    assert bare.verdict["reason"] == "interrupted"


ENDS = {
    "gate.opened": ("CREATE TABLE made (id int);", 0),
    "gate.closed": ("SELECT 1/0;", 1),
}


@contextmanager
def full_fifo(path: Path) -> Iterator[None]:
    """Make a named pipe in the place of a file; it takes no more."""
    path.unlink()
    os.mkfifo(path)
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writing = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"\n" * select.PIPE_BUF)
    yield
    os.close(writing)
    os.close(reading)


def has_open(pid: int, path: Path) -> bool:
    """Whether a process has a file open."""
    with suppress(OSError):
        files = Path(f"/proc/{pid}/fd").iterdir()
        return any(file.readlink() == path for file in files)
    return False


@needs_namespaces
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("event", ENDS)
def test_a_signal_while_the_verdict_is_written_changes_nothing(
    bare: Bare, database: Database, number: signal.Signals, event: str
) -> None:
    """What was done is done; the termination log takes a second to be given up."""
    file, exit_code = ENDS[event]
    with full_fifo(bare.termination_log):
        process = bare.start(
            database.environ(), before=NAMESPACE, migrations={"001_a.sql": file}
        )
        gate = child_of_when_there(process)
        until(lambda: has_open(gate, bare.termination_log))
        os.kill(gate, number)
        os.kill(gate, signal.SIGTERM)
        assert process.stdout is not None
        verdict = json.loads(process.stdout.readlines()[-1])
        assert end(process) == exit_code
    assert verdict["event"] == event
    assert verdict.get("reason") in {None, "migration_failed"}


def child_of_when_there(process: subprocess.Popen[bytes]) -> int:
    """Return the gate that unshare starts; wait for it."""

    def is_there() -> bool:
        with suppress(ValueError):
            return child_of(process.pid) > 0
        return False

    until(is_there)
    return child_of(process.pid)


def test_a_full_disk_behind_stdout_changes_nothing(
    bare: Bare, database: Database
) -> None:
    """Every write fails; the code and the termination log tell."""
    with Path("/dev/full").open("wb") as full:
        assert end(bare.start(database.environ(), stdout=full.fileno()), 10) == 0
    assert bare.verdict["event"] == "gate.opened"


@pytest.mark.parametrize("closed", ["1", "2", "1 2"])
def test_closed_outputs_change_nothing(
    bare: Bare, database: Database, closed: str
) -> None:
    """A connection must not get their numbers either."""
    redirections = " ".join(f"{fd}>&-" for fd in closed.split())
    before = ("sh", "-c", f'exec "$@" {redirections}', "sh")
    assert end(bare.start(database.environ(), before=before), 10) == 0
    assert bare.verdict["event"] == "gate.opened"
    assert database.fetch("SELECT version FROM schema_migrations") == [
        ("001_create.sql",)
    ]


def test_a_reader_that_goes_away_changes_nothing(
    bare: Bare, database: Database
) -> None:
    """`gate | head -1` closes the pipe."""
    reading, writing = os.pipe()
    process = bare.start(database.environ(), stdout=writing)
    os.close(writing)
    os.close(reading)
    assert end(process, 10) == 0
    assert bare.verdict["event"] == "gate.opened"


def test_hangup_is_ignored_where_it_was_before(bare: Bare) -> None:
    """`nohup` asks for that; SIGTERM ends it."""
    url = f"postgresql://u:p@127.0.0.1:{find_free_port()}/d"
    before = ("sh", "-c", 'trap "" HUP; exec "$@"', "sh")
    environ = {"DATABASE_URL": url, "GATE_HEARTBEAT": "100ms"}
    process = bare.start(environ, before=before)
    read_until(process, "database.retry_scheduled")
    process.send_signal(signal.SIGHUP)
    read_until(process, "database.retry_scheduled")
    process.send_signal(signal.SIGTERM)
    assert end(process) == 1
    assert bare.verdict["error_message"].startswith("stopped by SIGTERM: ")


@needs_namespaces
def test_hangup_ends_a_first_process_that_was_started_without_it(bare: Bare) -> None:
    """An engine that nohup has started hands that on to some of its containers."""
    url = f"postgresql://u:p@127.0.0.1:{find_free_port()}/d"
    before = ("sh", "-c", 'trap "" HUP; exec "$@"', "sh", *NAMESPACE)
    process = bare.start({"DATABASE_URL": url}, before=before)
    read_until(process, "database.retry_scheduled")
    os.kill(child_of(process.pid), signal.SIGHUP)
    assert end(process) == 1
    assert bare.verdict["error_message"].startswith("stopped by SIGHUP: ")


def test_the_line_on_stderr_is_as_short_as_the_verdict(bare: Bare) -> None:
    """Compose shows the tail of stderr, and a folder can have thousands of faults."""
    files = {f"fault-{number}.sql": "SELECT 1;" for number in range(1000)}
    process = bare.start({"POSTGRES_HOST": "h", "POSTGRES_USER": "u"}, migrations=files)
    _, stderr = process.communicate(timeout=STOP_LIMIT_S)
    assert stderr.startswith(b"migration-gate: closed: ")
    assert len(stderr) < 2048
    assert stderr.count(b"\n") == 1
