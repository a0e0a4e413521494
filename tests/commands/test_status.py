"""The commands status and plan: what they answer, when they open, what they leave."""

from __future__ import annotations

import json
import re

from typing import Any

import pytest

from tests.fix_gate import Gate, Run
from tests.fix_postgres import Database, NewServer, database_of
from tests.fix_proxy import Proxy
from tests.history_tables import TWO, traces


APPLIED = {
    "001_a.sql": "CREATE TABLE a ();",
    "002_b.up.sql": "CREATE TABLE b ();",
    "010_i.sql": "CREATE INDEX CONCURRENTLY ON old (id);",
}
# Everything that files and history can be to each other.
LATER = {
    "001_a.sql": "CREATE TABLE a ();",
    "002_b.up.sql": "CREATE TABLE b (changed int);",
    "005_late.sql": "SELECT 1;\nSELECT 2;",
    "010_i.sql": "CREATE INDEX CONCURRENTLY ON old (id);",
    "011_bad.sql": "SELECT 1;\nROLLBACK;",
    "012_vacuum.sql": "VACUUM;",
    "013_asked.sql": "-- gate: no-transaction\nSELECT 1;",
}
STATES = [
    ("001_a.sql", "applied"),
    ("002_b.up.sql", "changed"),
    ("005_late.sql", "out of order"),
    ("010_i.sql", "applied"),
    ("011_bad.sql", "pending"),
    ("012_vacuum.sql", "pending"),
    ("013_asked.sql", "pending"),
    ("009_gone.sql", "unknown"),
]


def prepare(gate: Gate, database: Database) -> None:
    """Apply a few files, and leave a row that none explains."""
    database.execute("CREATE TABLE old (id int)")
    assert gate(database=database, migrations=APPLIED).exit_code == 0
    database.execute(
        "INSERT INTO schema_migrations (version, applied_at)"
        " VALUES ('009_gone.sql', '2025-10-20 16:05:04.5')"
    )


def answer(run: Run) -> Any:  # noqa: ANN401 -- JSON
    """Return what a command with --json answered."""
    return json.loads(run.stdout)


def log_of(run: Run) -> list[dict[str, Any]]:
    """Return the log, which such a command writes to stderr."""
    lines = run.stderr.splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


@pytest.mark.server
def test_status_puts_files_and_history_side_by_side(
    gate: Gate, database: Database
) -> None:
    """For a program, whole; for a person, the same as a table."""
    prepare(gate, database)
    before = traces(database, "schema_migrations")
    run = gate("status", "--json", database=database, migrations=LATER)
    lines = answer(run)
    assert [(line["version"], line["state"]) for line in lines] == STATES
    assert lines[-1] == {
        "version": "009_gone.sql",
        "state": "unknown",
        "applied_at": "2025-10-20T16:05:04.500Z",
        "duration_ms": None,
        "failed_at": None,
        "failure": None,
    }
    for line in lines[:-1]:
        is_applied = line["state"] in {"applied", "changed"}
        assert (line["applied_at"] is not None) == is_applied
        assert (line["duration_ms"] is not None) == is_applied
    shown = gate("status", database=database, migrations=LATER)
    text = re.sub(r"\d+ ms", "N ms", shown.stdout)
    text = re.sub(r"20(?!25)\d\d-\d\d-\d\d \d\d:\d\d:\d\d", "TIME", text)
    assert [re.split(r"  +", line.strip()) for line in text.splitlines()] == [
        ["STATE", "APPLIED AT (UTC)", "TOOK", "MIGRATION"],
        ["applied", "TIME", "N ms", "001_a.sql"],
        ["changed", "TIME", "N ms", "002_b.up.sql"],
        ["out of order", "005_late.sql"],
        ["applied", "TIME", "N ms", "010_i.sql"],
        ["pending", "011_bad.sql"],
        ["pending", "012_vacuum.sql"],
        ["pending", "013_asked.sql"],
        ["unknown", "2025-10-20 16:05:04", "009_gone.sql"],
    ]
    assert traces(database, "schema_migrations") == before


def test_status_closes_while_something_is_pending_or_refused(
    gate: Gate, database: Database
) -> None:
    """And opens else; its verdict is on stderr, like the rest of its log."""
    pending = gate("status", database=database, migrations=TWO)
    verdict = log_of(pending)[-1]
    assert (pending.exit_code, verdict["reason"], verdict["error_message"]) == (
        1,
        "incomplete",
        'not applied: "1_a.sql", "2_b.sql"',
    )
    gate(database=database, migrations=TWO)
    done = gate("status", database=database, migrations=TWO)
    assert done.exit_code == 0
    assert [event["event"] for event in log_of(done)] == [
        "gate.started",
        "database.ready",
        "plan.made",
        "gate.opened",
    ]
    changed = TWO | {"2_b.sql": "SELECT 1;"}
    refused = gate("status", database=database, migrations=changed)
    assert (refused.exit_code, log_of(refused)[-1]["reason"]) == (1, "history")
    env = {"GATE_CHANGED": "warn"}
    warned = gate("status", database=database, migrations=changed, env=env)
    assert warned.exit_code == 0
    assert "changed" in warned.stdout


def test_a_file_done_in_part_is_shown_as_unfinished(
    gate: Gate, database: Database
) -> None:
    """Some of its statements are done; `migrate` goes on after them."""
    files = {"1_x.sql": "-- gate: no-transaction\nCREATE TABLE x ();\nSELECT 1/0;"}
    assert gate(database=database, migrations=files).exit_code == 1
    (line,) = answer(gate("status", "--json", database=database, migrations=files))
    assert (line["version"], line["state"]) == ("1_x.sql", "unfinished")


@pytest.mark.server
def test_plan_tells_what_migrate_would_do(gate: Gate, database: Database) -> None:
    """In its order, with the side of the transaction and why; refused files too."""
    prepare(gate, database)
    before = traces(database, "schema_migrations")
    env = {"GATE_CHANGED": "warn"}
    run = gate("plan", "--json", database=database, migrations=LATER, env=env)
    assert [tuple(line.values())[:5] for line in answer(run)] == [
        ("005_late.sql", 2, True, "", None),
        ("011_bad.sql", None, None, "", "011_bad.sql:2: ROLLBACK in a migration"),
        ("012_vacuum.sql", 1, False, "VACUUM", None),
        ("013_asked.sql", 1, False, "directive no-transaction", None),
    ]
    assert list(answer(run)[0]) == [
        "version",
        "statement_count",
        "in_transaction",
        "why",
        "refused",
        "findings",
    ]
    verdict = log_of(run)[-1]
    assert (run.exit_code, verdict["reason"]) == (1, "files")
    assert (verdict["file"], verdict["line"]) == ("011_bad.sql", 2)
    shown = gate("plan", database=database, migrations=LATER, env=env)
    assert [re.split(r"  +", line.strip()) for line in shown.stdout.splitlines()] == [
        ["MIGRATION", "STATEMENTS", "TRANSACTION", "REFUSED"],
        ["005_late.sql", "2", "inside"],
        ["011_bad.sql", "011_bad.sql:2: ROLLBACK in a migration"],
        ["012_vacuum.sql", "1", "outside: VACUUM"],
        ["013_asked.sql", "1", "outside: directive no-transaction"],
    ]
    assert traces(database, "schema_migrations") == before


def test_plan_opens_when_migrate_would_not_refuse(
    gate: Gate, database: Database
) -> None:
    """Pending files are no fault; what the history forbids is."""
    run = gate("plan", database=database, migrations=TWO)
    assert run.exit_code == 0
    assert database.fetch("SELECT FROM pg_class WHERE relname = 'a'") == []
    gate(database=database, migrations=TWO)
    done = gate("plan", database=database, migrations=TWO)
    assert (done.exit_code, done.stdout) == (0, "nothing pending\n")
    assert answer(gate("plan", "--json", database=database, migrations=TWO)) == []
    changed = gate("plan", database=database, migrations=TWO | {"1_a.sql": "SELECT;"})
    assert (changed.exit_code, log_of(changed)[-1]["reason"]) == (1, "history")


@pytest.mark.parametrize("command", ["status", "plan"])
def test_they_try_to_connect_once(gate: Gate, proxy: Proxy, command: str) -> None:
    """A person waits at the terminal: no second attempt, whatever the settings say."""
    proxy.stop()
    env = {
        "POSTGRES_HOST": "127.0.0.1",
        "POSTGRES_PORT": str(proxy.port),
        "POSTGRES_USER": "u",
    }
    run = gate(command, migrations=TWO, env=env)
    assert (run.exit_code, run.stdout) == (1, "")
    assert log_of(run)[-1]["reason"] == "unreachable"
    assert "database.retry_scheduled" not in run.stderr


@pytest.mark.parametrize("command", ["status", "plan"])
def test_they_work_on_a_hot_standby_for_a_role_that_may_only_read(
    gate: Gate, new_server: NewServer, command: str
) -> None:
    """As `check`: USAGE on the schema and SELECT on the table."""
    primary = database_of(new_server())
    gate(database=primary, migrations=TWO)
    primary.execute(
        "CREATE ROLE reader LOGIN PASSWORD 'r';"
        "GRANT SELECT ON schema_migrations TO reader"
    )
    assert primary.server.embedded is not None
    standby = database_of(new_server(standby_of=primary.server.embedded))
    reader = standby.changed(user="reader", password="r")
    run = gate(command, database=reader, migrations=TWO)
    assert run.exit_code == 0, run.stderr
