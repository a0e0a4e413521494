"""Statements of the gate's own say what they wait for, and end in their time."""

from __future__ import annotations

import signal

from contextlib import closing

import psycopg
import pytest

from psycopg.rows import TupleRow

from migration_gate.connection.connect import open_connection
from migration_gate.connection.limited import limited
from migration_gate.connection.waits import NoAnswerError
from migration_gate.session.session import LOOKING
from migration_gate.settings.environment import from_environ
from tests.commands.test_stop import SESSIONS, lock_taken, stop
from tests.fix_gate import Gate, Process
from tests.fix_postgres import Database, NewServer, database_of
from tests.polling import until


pytestmark = pytest.mark.timeout(60)
ENV = {"GATE_HEARTBEAT": "100ms"}
ONE = {"001_a.sql": "CREATE TABLE a ();"}
TWO = {**ONE, "002_b.sql": "CREATE TABLE b ();"}
# Its build takes a moment and then fails; an invalid index is left.
FAILING_INDEX = {"001_i.sql": "CREATE UNIQUE INDEX CONCURRENTLY i ON t (slow(id));"}
DUPLICATES = """
CREATE TABLE t (id int);
INSERT INTO t SELECT n FROM generate_series(1, 100) n; INSERT INTO t VALUES (1);
CREATE FUNCTION slow(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
    $$ BEGIN PERFORM pg_catalog.pg_sleep(0.005); RETURN n; END $$;
"""
BUILDING = """
SELECT FROM pg_stat_progress_create_index WHERE phase LIKE 'building index%%'
"""
INDEXES = "SELECT FROM pg_index WHERE indrelid = 't'::regclass"
DOING = 'make table "public.schema_migrations"'


def test_a_look_under_the_lock_says_that_it_waits(
    gate: Gate, database: Database
) -> None:
    """Somebody has locked the history."""
    gate(database=database, migrations=ONE)
    with closing(database.connect()) as other:
        with lock_taken(database):
            process = gate.start(database=database, migrations=TWO, env=ENV)
            process.wait_for("lock.waiting")
            other.execute("BEGIN; LOCK TABLE schema_migrations")
        event = process.wait_for("database.waiting")
        other.execute("ROLLBACK")
    assert event["doing"] == LOOKING.format(database.name, database.user)
    assert event["waited_s"] > 0
    assert process.wait().exit_code == 0


def test_what_is_asked_ends_in_its_time(database: Database) -> None:
    """Here and on the server; the connection is of use still."""
    settings = from_environ(database.environ())
    with closing(open_connection(settings.database)) as conn:
        with (
            pytest.raises(NoAnswerError, match=r"no answer within 0\.2 s"),
            limited(conn, 0.2),
        ):
            conn.execute("SELECT pg_sleep(60)")
        assert conn.execute("SELECT 1").fetchall() == [(1,)]


def test_the_history_table_waits_for_a_standby_and_says_so(
    gate: Gate, new_server: NewServer
) -> None:
    """One that is not there; the deadline's hint names it."""
    database = database_of(new_server(settings={"synchronous_standby_names": "nobody"}))
    env = {**ENV, "GATE_TIMEOUT": "3s"}
    run = gate(database=database, migrations=ONE, env=env)
    # The last look may see what the cancel has ended already.
    *events, _ = run.all("database.waiting")
    assert len(events) > 5
    assert {event["doing"] for event in events} == {DOING}
    assert {event["phase"] for event in events} == {"IPC:SyncRep"}
    assert run.verdict["reason"] == "deadline"
    message = run.verdict["error_message"]
    assert message.startswith("GATE_TIMEOUT is over: had waited ")
    assert message.endswith(f" s to {DOING}, waiting for IPC:SyncRep")
    assert "synchronous_standby_names" in run.verdict["hint"]


@pytest.fixture
def clearing(
    gate: Gate, database: Database
) -> tuple[Process, psycopg.Connection[TupleRow]]:
    """Start a gate whose index fails while somebody uses the table."""
    database.execute(DUPLICATES)
    process = gate.start(database=database, migrations=FAILING_INDEX, env=ENV)
    until(lambda: database.fetch(BUILDING))
    other = database.connect(application_name="report")
    other.execute("BEGIN; SELECT FROM t LIMIT 0")
    return process, other


def test_an_invalid_index_that_cannot_be_dropped_yet_is_told_of(
    database: Database, clearing: tuple[Process, psycopg.Connection[TupleRow]]
) -> None:
    """DROP INDEX CONCURRENTLY waits for who uses the table."""
    process, other = clearing
    with closing(other):
        event = process.wait_for("database.waiting")
        assert event["doing"] == "clear up after an unfinished statement"
        assert event["phase"] == "Lock:virtualxid"
        assert "application report" in event["blockers"][0]
        other.execute("ROLLBACK")
    assert process.wait().verdict["sqlstate"] == "23505"
    assert database.fetch(INDEXES) == []


def test_a_signal_ends_the_clearing(
    database: Database, clearing: tuple[Process, psycopg.Connection[TupleRow]]
) -> None:
    """It is cancelled on the server; the next start takes it up."""
    process, other = clearing
    with closing(other):
        process.wait_for("database.waiting")
        stop(process, signal.SIGTERM)
        until(lambda: not database.fetch(SESSIONS), timeout_s=2)
