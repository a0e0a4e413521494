"""A DETACH PARTITION … CONCURRENTLY that was cut short, and how it is completed."""

from __future__ import annotations

import signal

from contextlib import closing

import pytest

from tests.commands.test_stop import require_nothing_left, stop
from tests.fix_gate import Gate
from tests.fix_postgres import Database
from tests.polling import until


pytestmark = [pytest.mark.server, pytest.mark.timeout(60)]
FILES = {"001_d.sql": "ALTER TABLE t DETACH PARTITION t_1 CONCURRENTLY;"}
WAITS = """
SELECT FROM pg_stat_activity
WHERE wait_event_type = 'Lock' AND datname = current_database() AND query LIKE %s
"""
ATTACHED = "SELECT count(*) FROM pg_inherits"


@pytest.fixture
def pending(gate: Gate, database: Database) -> Database:
    """Return a database in which a killed gate has left a detach half done."""
    if database.server.version < 140000:
        pytest.skip("DETACH PARTITION CONCURRENTLY came with PostgreSQL 14")
    database.execute(
        "CREATE TABLE t (n integer) PARTITION BY RANGE (n);"
        "CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (100)"
    )
    with closing(database.connect()) as other:
        other.execute("BEGIN; INSERT INTO t VALUES (1)")
        process = gate.start(database=database, migrations=FILES)
        until(lambda: database.fetch(WAITS, ["%CONCURRENTLY%"]))
        process.kill()
        process.wait()
        until(lambda: not database.fetch(WAITS, ["%CONCURRENTLY%"]))
    assert database.fetch("SELECT inhdetachpending FROM pg_inherits") == [(True,)]
    return database


def test_it_is_completed_by_the_next_start(gate: Gate, pending: Database) -> None:
    """And recorded as applied."""
    run = gate(database=pending, migrations=FILES)
    assert (run.exit_code, run.verdict["applied"]) == (0, list(FILES)), run.output
    assert pending.fetch(ATTACHED) == [(0,)]


def test_queries_of_the_partition_wait_no_longer_than_for_any_migration(
    gate: Gate, pending: Database
) -> None:
    """FINALIZE takes the partition for itself, and what comes after it waits too."""
    with closing(pending.connect(application_name="report")) as other:
        other.execute("BEGIN; SELECT FROM t_1 LIMIT 0")
        process = gate.start(
            database=pending, migrations=FILES, env={"GATE_DDL_LOCK_TIMEOUT": "300ms"}
        )
        event = process.wait_for("migration.retry_scheduled")
        other.execute("SET statement_timeout = '10s'; SELECT FROM t_1 LIMIT 0")
        other.execute("COMMIT")
    run = process.wait()
    assert event["sqlstate"] == "55P03"
    assert "application report" in event["blockers"][0]
    assert (run.exit_code, pending.fetch(ATTACHED)) == (0, [(0,)]), run.output


def test_a_signal_ends_its_wait(gate: Gate, pending: Database) -> None:
    """It is cancelled on the server, and the start after that completes it."""
    with closing(pending.connect()) as other:
        other.execute("BEGIN; SELECT FROM t_1 LIMIT 0")
        process = gate.start(
            database=pending, migrations=FILES, env={"GATE_DDL_LOCK_TIMEOUT": "60s"}
        )
        until(lambda: pending.fetch(WAITS, ["%FINALIZE%"]))
        run = stop(process, signal.SIGTERM)
        assert run.verdict["reason"] == "interrupted"
        require_nothing_left(pending)
    assert gate(database=pending, migrations=FILES).exit_code == 0
    assert pending.fetch(ATTACHED) == [(0,)]
