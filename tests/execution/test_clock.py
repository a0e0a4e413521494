"""Whatever is sent, the clock goes on: reports, notices, and the wish to stop."""

from __future__ import annotations

import signal

from contextlib import closing

import pytest

from tests.commands.test_stop import (
    require_nothing_left,
    stop,
)
from tests.fix_gate import Gate
from tests.fix_postgres import Database
from tests.polling import until


pytestmark = pytest.mark.timeout(60)
ENV = {"GATE_HEARTBEAT": "100ms"}
CANCELLED = "canceling statement due to user request"
LEFT = "connection to client lost"
# More than what sockets between the gate and the server hold.
ROWS = ("x" * 999 + "\n") * 24_000
TALKATIVE = """
CREATE TABLE made ();
DO $$ BEGIN LOOP RAISE NOTICE 'a row is done'; END LOOP; END $$;
"""


def test_a_signal_among_endless_notices_cancels_the_statement(
    gate: Gate, database: Database
) -> None:
    """The driver's callback loses what is raised in it: nothing is."""
    files = {"001_loop/up.sql": TALKATIVE}
    process = gate.start(database=database, migrations=files)
    process.wait_for("migration.notice")
    run = stop(process, signal.SIGTERM)
    assert ": 001_loop/up.sql" in run.verdict["error_message"], run.output
    require_nothing_left(database)
    assert "canceling statement due to user request" in database.log


def test_the_time_is_over_among_endless_notices(gate: Gate, database: Database) -> None:
    """GATE_TIMEOUT is a signal too."""
    env = {"GATE_TIMEOUT": "4s"}
    files = {"001_loop.sql": TALKATIVE}
    run = gate(database=database, env=env, migrations=files)
    assert run.verdict["reason"] == "deadline"
    assert run.stderr.count("\n") == 1
    require_nothing_left(database)
    # A server that waits for its notices to be taken is told when nobody will.
    assert any(words in database.log for words in (CANCELLED, LEFT))


def test_notices_leave_time_for_reports(gate: Gate, database: Database) -> None:
    """They come more often than anybody looks."""
    file = """
    DO $$ BEGIN FOR i IN 1..150 LOOP
      RAISE NOTICE 'a row is done'; PERFORM pg_sleep(0.005);
    END LOOP; END $$;
    """
    run = gate(database=database, migrations={"001_loop.sql": file}, env=ENV)
    assert len(run.all("migration.notice")) == 150
    assert len(run.all("migration.progress")) > 2


def test_data_on_its_way_leaves_time_for_reports(
    gate: Gate, database: Database
) -> None:
    """PostgreSQL takes no more of it while it waits for a lock, and that is seen."""
    database.execute(
        "CREATE TABLE busy (); CREATE TABLE t (line text);"
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN LOCK TABLE busy; RETURN NEW; END';"
        "CREATE TRIGGER wait BEFORE INSERT ON t EXECUTE FUNCTION wait()"
    )
    with closing(database.connect(application_name="report")) as other:
        other.execute("BEGIN; LOCK TABLE busy")
        process = gate.start(
            database=database,
            migrations={"001_copy.sql": f"COPY t FROM stdin;\n{ROWS}\\.\n"},
            env={**ENV, "GATE_DDL_LOCK_TIMEOUT": "30s"},
        )
        event = process.wait_for("migration.progress", count=3)
        other.execute("COMMIT")
        assert process.wait().exit_code == 0
    assert "application report" in event["blockers"][0]


@pytest.mark.parametrize("trigger", ["pg_sleep(60)", "pg_sleep(0)"])
def test_a_signal_ends_data_on_its_way(
    gate: Gate, database: Database, trigger: str
) -> None:
    """Also while PostgreSQL takes none."""
    database.execute(
        "CREATE TABLE t (line text); CREATE FUNCTION wait() RETURNS trigger"
        f" LANGUAGE plpgsql AS 'BEGIN PERFORM {trigger}; RETURN NEW; END';"
        "CREATE TRIGGER wait BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION wait()"
    )
    file = f"CREATE TABLE made (); COPY t FROM stdin;\n{ROWS}\\.\nSELECT pg_sleep(60);"
    process = gate.start(database=database, migrations={"001_copy.sql": file})
    copies = (
        "SELECT FROM pg_locks WHERE relation = 't'::regclass"
        " AND mode = 'RowExclusiveLock'"
    )
    until(lambda: database.fetch(copies))
    stop(process, signal.SIGTERM)
    require_nothing_left(database)
    assert database.fetch("SELECT count(*) FROM t") == [(0,)]
