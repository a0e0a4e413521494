"""A fleet of many targets, or on a server that has room for few of anything."""

from __future__ import annotations

from contextlib import closing, suppress

import psycopg
import pytest

from psycopg.rows import TupleRow

from tests.commands.test_fleet import FILES, counts, schemas
from tests.fix_gate import Gate
from tests.fix_postgres import Database, NewServer, database_of
from tests.fix_proxy import Proxy
from tests.polling import until


FEW_LOCKS = {"max_connections": "20", "max_locks_per_transaction": "10"}
LEFT_FREE = 60


def hold_locks(conn: psycopg.Connection[TupleRow]) -> None:
    """Hold nearly all locks that the server has room for."""
    held = 0
    with suppress(psycopg.errors.OutOfMemory):
        for held in range(10_000):
            conn.execute("SELECT pg_advisory_lock(%s)", [held])
    for number in range(held - LEFT_FREE, held):
        conn.execute("SELECT pg_advisory_unlock(%s)", [number])


@pytest.mark.timeout(60)
def test_schemas_are_seen_together_where_there_is_room_for_few_locks(
    gate: Gate, new_server: NewServer
) -> None:
    """A look at many histories holds locks on each: fewer are looked at together."""
    home = database_of(new_server(settings=FEW_LOCKS))
    names = [f"t{number}" for number in range(60)]
    env = schemas(home, names)
    files = {"001_orders.sql": FILES["001_orders.sql"]}
    assert gate(database=home, migrations=files, env=env, timeout=40).exit_code == 0
    with closing(home.connect()) as conn:
        hold_locks(conn)
        run = gate(database=home, migrations=files, env=env)
    assert (run.exit_code, counts(run)) == (0, [60, 60, 0, 0, 0])
    assert run.one("fleet.looked")["up_to_date_count"] == 60
    assert run.verdict["applied_count"] == 0
    assert "out of shared memory" in home.log


@pytest.mark.thorough
@pytest.mark.timeout(120)
def test_a_query_may_give_a_hundred_thousand_names(
    gate: Gate, database: Database
) -> None:
    """Those that have nothing pending are found among them, and the last is short."""
    names = ["t1", "t500", "t100000"]
    env = schemas(database, names)
    assert gate(database=database, migrations=FILES, env=env).exit_code == 0
    query = "SELECT 't' || n FROM generate_series(1, 100000) n"
    env = {"GATE_TARGETS": f"schemas:{query}", "GATE_FAILURES_MAX": "0"}
    run = gate(database=database, migrations=FILES, env=env, timeout=100)
    target, done, failed, left, gone = counts(run)
    assert (run.exit_code, target, done, gone) == (1, 100_000, 3, 0)
    assert 1 <= failed <= 8
    assert left == target - done - failed
    assert run.one("fleet.looked")["up_to_date_count"] == 3
    assert "more failed than GATE_FAILURES_MAX allows" in run.verdict["message"]
    assert len(run.stdout.splitlines()[-1].encode()) < 2048


@pytest.mark.timeout(60)
def test_a_server_that_goes_away_is_waited_for_once(
    gate: Gate, database: Database, proxy: Proxy
) -> None:
    """Not by each of four hundred lots of schemas that are left to look at."""
    query = "SELECT 't' || n FROM generate_series(1, 100000) n"
    env = {"GATE_TARGETS": f"schemas:{query}", "GATE_WAIT_TIMEOUT": "1s"}
    far = proxy.through(database)
    process = gate.start(database=far, migrations=FILES, env=env)
    until(lambda: len(proxy.sessions) > 1)
    proxy.stop()
    run = process.wait(30)
    assert run.exit_code == 1
    assert run.verdict["duration_ms"] < 20_000
