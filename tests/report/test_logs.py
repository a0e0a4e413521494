"""The log: events, their fields, their order, and where they are written."""

from __future__ import annotations

import contextlib
import json
import os
import re

from pathlib import Path
from string import Formatter
from typing import Any

import pytest

from migration_gate import __version__
from migration_gate.report import events
from migration_gate.report.events import EVENTS, VERDICTS
from migration_gate.report.log import Log
from tests.fix_gate import Gate, write_migrations
from tests.fix_postgres import Database


# SPEC.md, section 8, and what the gate says beside that.
SUMMARY = (
    "applied applied_count undone undone_count waited_s lock_waited_s duration_ms "
    "exit_code"
)
FLEET = "target_count done_count failed_count left_count gone_count failed"
NOT_OF_A_PLAIN_RUN = {"undone", "undone_count", "targets", *FLEET.split()}
TABLE = {
    "gate.started": (
        "info",
        "command gate_version host port database user migrations migration_count",
    ),
    "files.shared_number": ("warning", "versions"),
    "database.retry_scheduled": (
        "warning",
        "attempt wait_s waited_s reason error_message",
    ),
    "database.ready": ("info", "attempt waited_s server_version pooled"),
    "database.standby": ("info", ""),
    "plan.made": ("info", "applied_count pending_count pending"),
    "history.unknown_versions": ("warning", "versions targets"),
    "history.changed_migrations": ("warning", "versions targets"),
    "history.out_of_order": ("warning", "versions targets"),
    "history.repeatables_left": ("warning", "versions targets"),
    "history.not_altered": ("warning", "reason"),
    "lock.waiting": (
        "info",
        "waited_s holder_pid holder_application holder_since holder_waits_for",
    ),
    "lock.acquired": ("info", "waited_s"),
    "migration.started": (
        "info",
        "version checksum in_transaction statement_count attempt",
    ),
    "migration.retry_scheduled": (
        "warning",
        "version attempt wait_s sqlstate reason blockers",
    ),
    "migration.progress": (
        "info",
        "version statement statement_count line elapsed_s phase percent blockers",
    ),
    "migration.notice": ("info", "version severity notice"),
    "migration.applied": ("info", "version applied_at duration_ms statement_count"),
    "migration.resolved": ("warning", "version as"),
    "gate.opened": ("info", f"{SUMMARY} {FLEET} warnings"),
    "gate.closed": (
        "error",
        (
            f"{SUMMARY} {FLEET} reason error_message hint version file line column "
            "sqlstate error_detail error_hint error_context"
        ),
    ),
}
HEAD = ["timestamp", "level", "event", "message"]


def written(log: Path) -> list[dict[str, Any]]:
    """Return the lines of a file."""
    return [json.loads(line) for line in log.read_text("utf-8").split("\n")[:-1]]


def read_terminal(terminal: int) -> str:
    """Return all that was written at the other end, which is closed."""
    written = b""
    with open(terminal, "rb", buffering=0) as file, contextlib.suppress(OSError):
        while block := file.read(4096):
            written += block
    return written.decode()


@pytest.mark.parametrize("name", TABLE)
def test_an_event_has_the_level_and_fields_of_its_table(name: str) -> None:
    """One name, one level, one set of fields, in this order."""
    level, fields = TABLE[name]
    (event,) = (event for event in EVENTS if event.name == name)
    assert (event.level, event.fields) == (level, tuple(fields.split()))


def test_an_event_is_named_by_words_and_dots() -> None:
    """Names are constants, unique, lower case; a message tells fields only."""
    names = [event.name for event in EVENTS]
    assert len(names) == len(set(names))
    for event in EVENTS:
        assert re.fullmatch(r"[a-z]+\.[a-z_]+", event.name)
        told = {name for _, name, _, _ in Formatter().parse(event.message) if name}
        assert told <= {*event.fields, "message", "target"}


def test_a_line_begins_with_time_level_event_and_sentence(tmp_path: Path) -> None:
    """Then the fields in the order of the table; common ones stand on every line."""
    path = tmp_path / "log"
    with path.open("wb") as file:
        log = Log(fd=file.fileno(), common={"pod_name": "p"})
        log.emit(events.LOCK_ACQUIRED, waited_s=0.5)
        log.emit(
            events.MIGRATION_NOTICE, notice="b", severity="NOTICE", version="1_a.sql"
        )
    first, second = written(path)
    assert list(first) == [*HEAD, "pod_name", "waited_s"]
    assert list(second) == [*HEAD, "pod_name", "version", "severity", "notice"]
    assert first.pop("timestamp").endswith("Z")
    assert first == {
        "level": "info",
        "event": "lock.acquired",
        "message": "Holding the lock after 0.5 s",
        "pod_name": "p",
        "waited_s": 0.5,
    }


@pytest.mark.parametrize(
    ("level", "shown"),
    [("debug", "diwec"), ("info", "iwec"), ("warning", "wec"), ("error", "ec")],
)
def test_a_level_hides_what_is_below_but_no_verdict(
    tmp_path: Path, level: events.Level, shown: str
) -> None:
    """gate.opened is info, and is written at every level."""
    path = tmp_path / "log"
    with path.open("wb") as file:
        log = Log(fd=file.fileno(), level=level)
        log.emit(events.GATE_FAILED, traceback=[])
        log.emit(events.LOCK_ACQUIRED, waited_s=0.5)
        log.emit(events.NOT_ALTERED, reason="x")
        log.emit(events.GATE_OPENED, message="x", applied_count=0, duration_ms=1)
        log.emit(events.GATE_CLOSED, message="x")
    names = {
        "d": "gate.failed",
        "i": "lock.acquired",
        "w": "history.not_altered",
        "e": "gate.opened",
        "c": "gate.closed",
    }
    assert [line["event"] for line in written(path)] == [names[key] for key in shown]
    assert {event.name for event in VERDICTS} == {"gate.opened", "gate.closed"}


def test_every_text_can_be_written(tmp_path: Path) -> None:
    """Line ends, non-ASCII, and what is not UTF-8; signs for what has no shape."""
    path = tmp_path / "log"
    notice = 'ä\n"\x00\u2028\udcff'
    with path.open("wb") as file:
        Log(fd=file.fileno()).emit(events.MIGRATION_NOTICE, notice=notice, version="é")
    assert path.read_bytes().count(b"\n") == 1
    (line,) = written(path)
    assert line["notice"] == 'ä\n"\ufffd\ufffd\udcff'
    assert "é".encode() in path.read_bytes()


def test_a_log_that_cannot_be_written_raises_nothing() -> None:
    """A closed pipe or a full disk."""
    reader, writer = os.pipe()
    os.close(reader)
    Log(fd=writer).emit(events.GATE_CLOSED, message="x")
    os.close(writer)
    Log(fd=writer, log_format="console").emit(events.GATE_CLOSED, message="x")
    full = os.open("/dev/full", os.O_WRONLY)
    Log(fd=full).emit(events.GATE_CLOSED, message="x")
    os.close(full)


def test_the_console_is_for_people(tmp_path: Path) -> None:
    """Time, level and sentence; a hint on a line of its own; no colour in a file."""
    path = tmp_path / "log"
    with path.open("wb") as file:
        log = Log(fd=file.fileno(), log_format="console", common={"pod_name": "p"})
        log.emit(events.LOCK_ACQUIRED, waited_s=0.5)
        log.emit(events.GATE_CLOSED, message="why", hint="Do this.")
    text = re.sub(
        r"^\d\d:\d\d:\d\d\.\d\d\d", "TIME", path.read_text(), flags=re.MULTILINE
    )
    assert text == (
        "TIME info    Holding the lock after 0.5 s\n"
        "TIME error   Gate closed: why\n"
        "             hint    Do this.\n"
    )


def test_the_console_has_colour_on_a_terminal() -> None:
    """Warnings and errors only; each line erases what progress has left."""
    terminal, other_end = os.openpty()
    log = Log(fd=other_end, log_format="console")
    log.emit(events.LOCK_ACQUIRED, waited_s=0.5)
    log.emit(events.NOT_ALTERED, reason="x")
    os.close(other_end)
    info, warning = read_terminal(terminal).splitlines()
    assert re.fullmatch(
        r"\x1b\[K\d\d:\d\d:\d\d\.\d{3} info    Holding the lock after 0\.5 s", info
    )
    assert warning.startswith("\033[K\033[33m")
    assert warning.endswith("\033[0m")


def test_progress_is_written_over_on_a_terminal() -> None:
    """It ends without a line feed; the line that follows does not."""
    terminal, other_end = os.openpty()
    log = Log(fd=other_end, log_format="console")
    log.emit(
        events.MIGRATION_PROGRESS,
        version="1_a.sql",
        statement=1,
        statement_count=2,
        elapsed_s=10,
    )
    log.emit(events.LOCK_ACQUIRED, waited_s=0.5)
    os.close(other_end)
    progress, rest = read_terminal(terminal).split("\r", maxsplit=1)
    assert progress.endswith("1_a.sql is at statement 1 of 2 after 10 s")
    assert rest.startswith("\033[K")
    assert rest.endswith("Holding the lock after 0.5 s\r\n")


def test_a_line_is_short_enough_for_a_container_runtime(tmp_path: Path) -> None:
    """Which cuts one of more than 16 KiB in pieces that are no JSON."""
    path = tmp_path / "log"
    names = [f"{number:04}_{'é' * 200}.sql" for number in range(3000)]
    with path.open("wb") as file:
        log = Log(fd=file.fileno(), common={"pod_name": "p"})
        log.emit(
            events.PLAN_MADE, applied_count=0, pending_count=len(names), pending=names
        )
        log.emit(events.UNKNOWN_VERSIONS, versions=names)
        log.emit(events.MIGRATION_NOTICE, version="1_a.sql", notice="🦥" * 50_000)
    lengths = [len(line) for line in path.read_bytes().splitlines(keepends=True)]
    assert max(lengths) < 16 * 1024
    plan, unknown, _ = written(path)
    assert plan["pending"][-1] == f"… {3000 - len(plan['pending']) + 1} more"
    assert len(plan["pending"]) > 10
    assert unknown["versions"][0] == names[0]


def test_the_whole_log_of_a_run(gate: Gate, database: Database, tmp_path: Path) -> None:
    """Every event and field, in order, with the pod's names on each line."""
    sql = "DO $$ BEGIN RAISE NOTICE 'hello "
    folder = write_migrations(
        tmp_path / "m",
        {
            "1_a.sql": "CREATE TABLE a (); SELECT 1;",
            "1_b.sql": f"{sql}%', 'you'; END $$;",
        },
    )
    run = gate(
        database=database,
        migrations=folder,
        env={
            "POD_NAME": "app-1",
            "POD_NAMESPACE": "shop",
            "NODE_NAME": "n1",
            "JOB_COMPLETION_INDEX": "0",
        },
    )
    pod = {
        "pod_name": "app-1",
        "pod_namespace": "shop",
        "node_name": "n1",
        "job_completion_index": "0",
    }
    assert run.stderr == ""
    volatile = r"_s$|_ms$|_at$|^timestamp$|^checksum$|^server_version$|^message$"
    seen = [
        {name: v for name, v in event.items() if not re.search(volatile, name)}
        for event in run.events
    ]
    info = {"level": "info", **pod}
    started = {
        **info,
        "event": "migration.started",
        "in_transaction": True,
        "attempt": 1,
    }
    applied = {**info, "event": "migration.applied"}
    assert seen == [
        {
            **info,
            "event": "gate.started",
            "command": "migrate",
            "gate_version": __version__,
            "host": database.conninfo["host"],
            "port": database.conninfo["port"],
            "database": database.name,
            "user": database.user,
            "migrations": str(folder),
            "migration_count": 2,
        },
        {
            **pod,
            "level": "warning",
            "event": "files.shared_number",
            "versions": ["1_a.sql", "1_b.sql"],
        },
        {**info, "event": "database.ready", "attempt": 1, "pooled": False},
        {
            **info,
            "event": "plan.made",
            "applied_count": 0,
            "pending_count": 2,
            "pending": ["1_a.sql", "1_b.sql"],
        },
        {**info, "event": "lock.acquired"},
        {**started, "version": "1_a.sql", "statement_count": 2},
        {**started, "version": "1_b.sql", "statement_count": 1},
        {
            **info,
            "event": "migration.notice",
            "version": "1_b.sql",
            "severity": "NOTICE",
            "notice": "hello you",
        },
        # Both are flushed, and told of, with the last one of their message.
        {**applied, "version": "1_a.sql", "statement_count": 2},
        {**applied, "version": "1_b.sql", "statement_count": 1},
        {
            **info,
            "event": "gate.opened",
            "applied": ["1_a.sql", "1_b.sql"],
            "applied_count": 2,
            "exit_code": 0,
            "warnings": [],
        },
    ]
    for event in run.events:
        fields = set(TABLE[event["event"]][1].split()) - NOT_OF_A_PLAIN_RUN
        assert fields == set(event) - {*HEAD, *pod}
        assert re.fullmatch(
            r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event["timestamp"]
        )


def test_a_verdict_has_only_the_fields_that_are_known(gate: Gate) -> None:
    """A gate closed before anything was known."""
    run = gate("migrate", env={"GATE_LOG_LEVEL": "error"})
    assert run.names == ["gate.closed"]
    assert set(run.verdict) == {
        *HEAD,
        *set(SUMMARY.split()) - NOT_OF_A_PLAIN_RUN,
        "reason",
        "error_message",
        "hint",
    }


def test_the_termination_log_is_written_only_where_it_exists(
    gate: Gate, tmp_path: Path
) -> None:
    """The same object as the last line; no file is made, no folder is one."""
    absent = tmp_path / "absent"
    run = gate(env={"GATE_LOG_LEVEL": "error"})
    assert run.exit_code == 1
    assert json.loads(run.termination_log) == run.verdict
    process = gate.start(env={"GATE_TERMINATION_LOG": str(absent)})._process
    assert process.wait() == 1
    assert not absent.exists()


def test_a_closed_gate_says_so_in_one_plain_line_on_stderr(gate: Gate) -> None:
    """For whoever reads no JSON; where the log is sentences, they have said it."""
    run = gate("fly", env={"GATE_LOG_FORMAT": "json"})
    assert run.exit_code == 1
    assert run.stderr == (
        "migration-gate: closed: unknown command, which is the first argument. The "
        "commands are: migrate, check, wait, status, plan, rehearse, resolve, "
        "rollback, adopt, baseline, new.\n"
    )
    assert json.loads(run.termination_log)["reason"] == "settings"
