"""While a statement takes long, the log says which one, how far, and for whom."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

from contextlib import closing
from pathlib import Path

import pytest

from tests.fix_gate import ROOT, Event, Gate, Run
from tests.fix_postgres import Database


pytestmark = pytest.mark.timeout(60)
ENV = {"GATE_HEARTBEAT": "100ms"}
# A table of some pages, and a function that makes an index of it slow.
SLOW_TABLE = """
CREATE TABLE t (id int, padding text);
INSERT INTO t SELECT n, repeat('x', 400) FROM generate_series(1, 400) n;
CREATE FUNCTION slow(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
    $$ BEGIN PERFORM pg_catalog.pg_sleep(0.002); RETURN n; END $$;
"""
# VACUUM and ANALYZE rest after each page.
SLOW_PAGES = "SET vacuum_cost_delay = '30ms'; SET vacuum_cost_limit = 1;\n"


def run_slowly(gate: Gate, database: Database, text: str) -> list[Event]:
    """Apply one file; return what was reported meanwhile."""
    run = gate(database=database, migrations={"1_a.sql": text}, env=ENV)
    assert run.verdict.get("applied") == ["1_a.sql"], run.output
    return reports(run)


def reports(run: Run) -> list[Event]:
    """Return the reports, each with what every one of them must have."""
    events = run.all("migration.progress")
    for event in events:
        assert event["version"] == "1_a.sql"
        assert event["statement"] <= event["statement_count"]
        assert event["elapsed_s"] > 0
        assert event["percent"] is None or 0 <= event["percent"] <= 100
    return events


def places(events: list[Event]) -> list[tuple[int, int]]:
    """Return statement and line of each place that was reported, in order."""
    seen = [(event["statement"], event["line"]) for event in events]
    return sorted(set(seen), key=seen.index)


def phases(events: list[Event]) -> list[str]:
    """Return what was reported of the phases."""
    return [event["phase"] for event in events if event["phase"]]


@pytest.mark.server
def test_each_statement_of_a_transaction_is_found(
    gate: Gate, database: Database
) -> None:
    """The whole file is one message, and yet its place is told."""
    text = "SELECT 1;\nSELECT pg_sleep(0.7);\n\n\nSELECT 2; SELECT pg_sleep(0.7);\n"
    events = run_slowly(gate, database, text)
    assert places(events) == [(2, 2), (4, 5)]
    assert {event["statement_count"] for event in events} == {4}
    assert set(phases(events)) == {"Timeout:PgSleep"}


def test_each_statement_outside_a_transaction_is_found(
    gate: Gate, database: Database
) -> None:
    """Each is a message of its own."""
    text = (
        "-- gate: no-transaction\nSELECT pg_sleep(0.4);\nVACUUM;\nSELECT pg_sleep(0.4)"
    )
    found = places(run_slowly(gate, database, text))
    assert found[0] == (1, 2)
    assert found[-1] == (3, 4)


@pytest.mark.server
def test_a_statement_that_waits_for_a_lock_names_who_holds_it(
    gate: Gate, database: Database
) -> None:
    """Only while it waits."""
    database.execute("CREATE TABLE t ()")
    with closing(database.connect(application_name="report")) as other:
        other.execute("BEGIN; LOCK TABLE t")
        process = gate.start(
            database=database,
            migrations={"1_a.sql": "ALTER TABLE t ADD c int"},
            env=ENV,
        )
        event = process.wait_for("migration.progress")
        pid = other.info.backend_pid
        other.execute("COMMIT")
        assert process.wait().exit_code == 0
    assert event["phase"] == "Lock:relation"
    (blocker,) = event["blockers"]
    assert blocker.startswith(
        f"process {pid}, user {database.user}, application report"
    )


@pytest.mark.server
def test_an_index_concurrently_names_whom_it_waits_for(
    gate: Gate, database: Database
) -> None:
    """A transaction that has written; nobody queues behind that wait."""
    database.execute("CREATE TABLE t (id int)")
    with closing(database.connect(application_name="batch job")) as other:
        other.execute("BEGIN; INSERT INTO t VALUES (1)")
        process = gate.start(
            database=database,
            migrations={"1_a.sql": "CREATE INDEX CONCURRENTLY i ON t (id)"},
            env=ENV,
        )
        event = process.wait_for("migration.progress", count=2)
        other.execute("COMMIT")
        assert process.wait().exit_code == 0
    assert event["phase"] == "waiting for writers before build"
    (blocker,) = event["blockers"]
    assert "application batch job, idle in transaction" in blocker


@pytest.mark.server
@pytest.mark.parametrize("kind", ["INDEX", "INDEX CONCURRENTLY"])
def test_an_index_tells_phase_and_percent(
    gate: Gate, database: Database, kind: str
) -> None:
    """As pg_stat_progress_create_index has it."""
    database.execute(SLOW_TABLE)
    events = run_slowly(gate, database, f"CREATE {kind} i ON t (slow(id));")
    assert "building index: scanning table" in phases(events)
    percents = [event["percent"] for event in events if event["percent"] is not None]
    assert len(set(percents)) > 1


@pytest.mark.server
def test_vacuum_tells_phase_and_percent(gate: Gate, database: Database) -> None:
    """As pg_stat_progress_vacuum has it."""
    database.execute(f"{SLOW_TABLE} DELETE FROM t WHERE id % 2 = 0;")
    events = run_slowly(gate, database, SLOW_PAGES + "VACUUM t;")
    assert "scanning heap" in phases(events)
    assert {event["line"] for event in events} == {2}
    assert any(event["percent"] for event in events)


@pytest.mark.server
def test_analyze_tells_phase_and_percent(gate: Gate, database: Database) -> None:
    """
    As pg_stat_progress_analyze has it.

    What the index is of is computed again for each row of the sample: PostgreSQL 18 on
    a busy machine does not rest after each page that it samples.
    """
    database.execute(f"{SLOW_TABLE} CREATE INDEX i ON t (slow(id));")
    events = run_slowly(gate, database, "ANALYZE t;")
    assert "computing statistics" in phases(events)
    assert any(event["percent"] for event in events)


@pytest.mark.server
def test_cluster_tells_its_phase(gate: Gate, database: Database) -> None:
    """As pg_stat_progress_cluster has it."""
    database.execute(f"{SLOW_TABLE} CREATE INDEX i ON t (slow(id));")
    events = run_slowly(gate, database, "CLUSTER t USING i;")
    assert "rebuilding index" in phases(events)


@pytest.mark.server
def test_copy_tells_that_it_copies(gate: Gate, database: Database) -> None:
    """The data is the file's own."""
    database.execute(
        "CREATE TABLE t (id int CHECK (pg_sleep(0.005) IS NOT NULL AND id > 0))"
    )
    rows = "".join(f"{number}\n" for number in range(1, 120))
    events = run_slowly(gate, database, f"COPY t FROM stdin;\n{rows}\\.\n")
    if database.server.version >= 140000:
        assert "copying" in phases(events)
    assert places(events) == [(1, 1)]


def test_on_a_terminal_progress_is_one_line_that_changes(
    database: Database, tmp_path: Path
) -> None:
    """It is written over, and gone when the migration is applied."""
    (tmp_path / "1_a.sql").write_text("SELECT 1;\nSELECT pg_sleep(1.2);\n")
    environ = {
        **database.environ(),
        **ENV,
        "GATE_MIGRATIONS": str(tmp_path),
        "GATE_LOG_FORMAT": "console",
    }
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "entrypoint.py")],
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.PIPE,
    )
    os.close(theirs)
    shown = read_all(ours)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    (line,) = [line for line in shown.split("\r\n") if "is at statement" in line]
    *progress, last = line.split("\r")
    assert len(progress) > 1
    assert all("1_a.sql is at statement 2 of 2" in each for each in progress)
    assert re.search(r"^\x1b\[K.*Applied 1_a.sql in", last)


def read_all(terminal: int) -> str:
    """Return what was written to a terminal until its other side was closed."""
    shown = b""
    with open(terminal, "rb", buffering=0) as reading:
        while True:
            try:
                chunk = reading.read(1 << 12)
            except OSError:  # EIO: that is how a terminal ends
                return shown.decode()
            if not chunk:
                return shown.decode()
            shown += chunk


def test_a_quiet_run_reports_nothing(gate: Gate, database: Database) -> None:
    """What is done before the first heartbeat needs no report."""
    run = gate(database=database, migrations={"1_a.sql": "SELECT pg_sleep(0.3)"})
    assert run.all("migration.progress") == []
