"""What a run says that was stopped: where it was, for how long, and what stays."""

from __future__ import annotations

import re
import signal

from collections.abc import Mapping
from contextlib import closing

import pytest

from dev.postgres import find_free_port
from tests.commands.test_stop import is_sleeping, lock_taken
from tests.fix_gate import Event, Gate, Process, Run
from tests.fix_postgres import Database
from tests.polling import until


pytestmark = pytest.mark.timeout(60)
# A look at once, so that the test need not wait until the statement is known.
ENV = {"GATE_HEARTBEAT": "100ms", "GATE_DDL_LOCK_TIMEOUT": "10s"}
SHORT = {**ENV, "GATE_TIMEOUT": "3s"}
STEPS = """
CREATE TABLE t (n int);
CREATE PROCEDURE steps() LANGUAGE plpgsql AS
  'BEGIN INSERT INTO t VALUES (1); COMMIT; PERFORM pg_sleep(60); END';
"""
CALL = {"001_call.sql": "-- gate: no-transaction\nSELECT 1;\nCALL steps();"}


def stop(process: Process) -> Event:
    """Send SIGTERM and return the verdict."""
    process.signal(signal.SIGTERM)
    run = process.wait()
    assert run.exit_code == 1
    return run.verdict


def told(verdict: Event) -> str:
    """Return the message, with a sign for each time and each process."""
    text = re.sub(r"\d+\.\d s\b", "N s", verdict["error_message"])
    return re.sub(r"for \d+ s\b", "for N s", re.sub(r"process \d+", "process P", text))


def place(verdict: Event) -> tuple[object, ...]:
    """Return file and line."""
    return verdict.get("file"), verdict.get("line")


def test_a_long_statement_is_named(gate: Gate, database: Database) -> None:
    """File, line, statement, for how long, and what it waits for."""
    files = {"001_a.sql": "SELECT 1;\n\nSELECT pg_sleep(60);\nSELECT 2;"}
    process = gate.start(database=database, migrations=files, env=ENV)
    process.wait_for("migration.progress")
    verdict = stop(process)
    assert told(verdict) == (
        "stopped by SIGTERM: 001_a.sql:3 was at statement 2 of 3 after N s, "
        "waiting for Timeout:PgSleep"
    )
    assert place(verdict) == ("001_a.sql", 3)
    assert verdict["hint"].startswith(
        "Nothing this file did remains; those before it stay applied. Start the gate "
        "again."
    )


def test_who_is_in_the_way_of_a_statement_is_named(
    gate: Gate, database: Database
) -> None:
    """It waits for a lock when GATE_TIMEOUT is over."""
    database.execute("CREATE TABLE t ()")
    with closing(database.connect(application_name="report")) as other:
        other.execute("BEGIN; LOCK TABLE t")
        files = {"001_a.sql": "ALTER TABLE t ADD n int;"}
        run = gate(database=database, migrations=files, env=SHORT)
    assert told(run.verdict) == (
        "GATE_TIMEOUT is over: 001_a.sql:1 was at statement 1 of 1 after N s, "
        f"waiting for Lock:relation; in its way: process P, user {database.user}, "
        'application report, idle in transaction for N s, at table "public.t"'
    )
    assert place(run.verdict) == ("001_a.sql", 1)
    assert (
        "Where nobody needs what was in its way: SELECT pg_terminate"
        in run.verdict["hint"]
    )


def test_who_is_in_the_way_of_an_index_is_named(gate: Gate, database: Database) -> None:
    """Nobody queues behind it, so that it waits as long as it takes."""
    database.execute("CREATE TABLE t (n int)")
    with closing(database.connect(application_name="batch job")) as other:
        other.execute("BEGIN; INSERT INTO t VALUES (1)")
        files = {"001_i.sql": "CREATE INDEX CONCURRENTLY i ON t (n);"}
        process = gate.start(database=database, migrations=files, env=ENV)
        process.wait_for("migration.progress", count=2)
        verdict = stop(process)
    assert (
        "s, waiting for writers before build; in its way: process"
        in verdict["error_message"]
    )
    assert "application batch job" in verdict["error_message"]
    assert verdict["hint"].startswith(
        "What ran of this file before this statement stays. The next start looks what "
        "became of the statement: it drops an index that is half built, and runs it "
        "again."
    )
    assert gate(database=database, migrations=files).exit_code == 0


def test_the_pause_before_another_attempt_is_named(
    gate: Gate, database: Database
) -> None:
    """Between two attempts at locks nothing runs."""
    database.execute("CREATE TABLE t ()")
    env = {**ENV, "GATE_DDL_LOCK_TIMEOUT": "100ms"}
    with closing(database.connect(application_name="report")) as other:
        other.execute("BEGIN; LOCK TABLE t")
        files = {"001_a.sql": "ALTER TABLE t ADD n int;"}
        process = gate.start(database=database, migrations=files, env=env)
        process.wait_for("migration.retry_scheduled", count=3)
        verdict = stop(process)
    assert place(verdict) == ("001_a.sql", 1)
    assert "application report" in verdict["error_message"]


def test_another_gate_is_named(gate: Gate, database: Database) -> None:
    """Its process is the one to look at."""
    files = {"001_a.sql": "CREATE TABLE a ();"}
    with lock_taken(database):
        process = gate.start(database=database, migrations=files, env=ENV)
        process.wait_for("lock.waiting", count=2)
        verdict = stop(process)
    assert told(verdict).startswith(
        "stopped by SIGTERM: had waited N s for another gate (process P"
    )
    assert verdict["hint"].startswith(
        "Nothing was being applied by this gate. Look for its container, by "
        "client_addr in pg_stat_activity"
    )


@pytest.mark.parametrize("env", [ENV, SHORT], ids=["signal", "deadline"])
def test_the_database_that_was_waited_for_is_named(
    gate: Gate, env: Mapping[str, str]
) -> None:
    """With what was last heard of it."""
    port = find_free_port()
    url = f"postgresql://u:p@127.0.0.1:{port}/d"
    process = gate.start(
        env={"DATABASE_URL": url, **env}, migrations={"001_a.sql": "SELECT 1;"}
    )
    process.wait_for("database.retry_scheduled")
    verdict = stop(process) if env is ENV else process.wait().verdict
    message = told(verdict)
    assert ": had waited N s for a usable" in message
    assert f'a usable PostgreSQL at "127.0.0.1:{port}" (' in message
    assert "Connection refused" in message
    assert "Nothing listens there: check host and port" in verdict["hint"]


@pytest.mark.parametrize("env", [ENV, SHORT], ids=["signal", "deadline"])
def test_a_procedure_that_commits_is_no_rollback(
    gate: Gate, database: Database, env: Mapping[str, str]
) -> None:
    """A part of it stays, and the next start asks: so says the verdict."""
    database.execute(STEPS)
    process = gate.start(database=database, migrations=CALL, env=env)
    process.wait_for("migration.progress")
    until(lambda: is_sleeping(database))
    verdict = stop(process) if env is ENV else process.wait().verdict
    assert told(verdict).partition(": ")[2] == (
        "001_call.sql:3 was at statement 2 of 2 after N s, waiting for Timeout:PgSleep"
    )
    assert "rolled back" not in verdict["hint"]
    assert verdict["hint"].startswith(
        "It may have committed a part of its work, so that the next start stays closed "
        "until a person has said what it did."
    )
    assert "resolve 001_call.sql --applied" in verdict["hint"]
    assert database.fetch("SELECT count(*) FROM t") == [(1,)]
    asked: Run = gate(database=database, migrations=CALL)
    assert asked.verdict["reason"] == "unresolved"
