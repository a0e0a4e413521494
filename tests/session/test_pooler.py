"""Through a real PgBouncer: the lock holds, and nothing reaches another client."""

from __future__ import annotations

import time

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from psycopg.rows import TupleRow

from tests.fix_gate import Gate
from tests.fix_pgbouncer import Mode, PgBouncers
from tests.fix_postgres import Database
from tests.herd import ATTEMPTS, PENDING, Herd
from tests.history_tables import tables, versions
from tests.polling import until


pytestmark = pytest.mark.timeout(60)

Conn = psycopg.Connection[TupleRow]

MODES: tuple[Mode, ...] = ("session", "transaction")
POOL_SIZE = 4
# All that a session can keep of a client that is gone.
LEFT = """
SELECT (SELECT string_agg(name || '=' || setting, ' ' ORDER BY name) FROM pg_settings
        WHERE setting IS DISTINCT FROM reset_val AND name <> 'application_name'),
       current_user::text, session_user::text,
       nullif(current_setting('my.own', true), ''),
       (SELECT count(*) FROM pg_prepared_statements),
       (SELECT count(*) FROM pg_cursors WHERE is_holdable),
       (SELECT count(*) FROM pg_listening_channels()),
       (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'
        AND pid = pg_backend_pid()),
       (SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema())
"""
# A file that leaves all of it, wherever it may.
MESSY = """
SET statement_timeout = '77s'; SET lock_timeout = '78s'; SET search_path = app;
SET work_mem = '7MB'; SET my.own = 'x'; SET idle_in_transaction_session_timeout = '79s';
SET ROLE pg_database_owner; SET standard_conforming_strings = on;
PREPARE p AS SELECT 1; LISTEN news;
SELECT pg_catalog.pg_advisory_lock(1), pg_catalog.pg_advisory_lock_shared(2);
DECLARE c CURSOR WITH HOLD FOR SELECT 1;
CREATE TEMPORARY TABLE temporary (x int);
SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY;
"""
WAITS = """
SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
WHERE locktype = 'advisory' AND objid = 7 AND NOT granted
  AND datname = current_database()
"""
SLEEPS = """
SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'
AND datname = current_database()
"""
LOCK_PID = """
SELECT a.pid FROM pg_stat_activity a JOIN pg_locks l USING (pid)
WHERE l.locktype = 'advisory' AND l.mode = 'ExclusiveLock' AND l.granted
  AND a.datname = current_database() AND a.application_name LIKE 'migration-gate/%'
"""


@pytest.fixture
def herd(tmp_path: Path) -> Iterator[Herd]:
    """Return what starts many gates at the same moment."""
    with closing(Herd(tmp_path / "herd")) as made:
        yield made


def look_at_all(pooled: Database) -> list[tuple[Any, ...]]:
    """Return what each of the pool's server connections keeps."""
    seen = {}
    with ExitStack() as stack:
        for _ in range(POOL_SIZE):
            conn = stack.enter_context(closing(pooled.connect()))
            conn.execute("BEGIN")  # or the next would get the same one
            rows = conn.execute(f"SELECT pg_backend_pid(), kept.* FROM ({LEFT}) kept")
            pid, *kept = rows.fetchall()[0]
            seen[pid] = tuple(kept)
    return list(seen.values())


@pytest.mark.parametrize("mode", MODES)
def test_nothing_reaches_another_client(
    gate: Gate, database: Database, pgbouncer: PgBouncers, mode: Mode
) -> None:
    """Whatever files do, whether they are applied or fail, in or outside a block."""
    database.execute("CREATE SCHEMA app; GRANT CREATE ON SCHEMA public TO PUBLIC")
    pooler = pgbouncer(mode, database, default_pool_size=str(POOL_SIZE))
    pooled = pooler.through(database)
    before = look_at_all(pooled)
    assert len(before) == POOL_SIZE
    assert len(set(before)) == 1
    in_order = "RESET ROLE; SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE;"
    files = {
        "1_a.sql": MESSY + in_order,
        "2_b.sql": "-- gate: no-transaction\nSET work_mem = '9MB';"
        "SET search_path = app; SELECT pg_catalog.pg_advisory_lock(3);"
        "CREATE TABLE public.b ();",
    }
    assert gate(database=pooled, migrations=files).verdict.get("applied") == list(files)
    assert look_at_all(pooled) == before
    failing = {
        "3_c.sql": MESSY + "SELECT 1 / 0;",
        "4_d.sql": "CREATE TABLE d ();",
    }
    run = gate(database=pooled, migrations={**files, **failing})
    assert (run.exit_code, run.verdict["reason"]) == (1, "migration_failed")
    assert look_at_all(pooled) == before
    assert gate("check", database=pooled, migrations=files).exit_code == 0
    assert look_at_all(pooled) == before
    assert database.fetch(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
    ) == [(0,)]


def test_a_name_is_not_left_to_another_client(
    gate: Gate, database: Database, pgbouncer: PgBouncers
) -> None:
    """A client that says its name is seen under it, not under the gate's."""
    pooler = pgbouncer("transaction", database, default_pool_size="2")
    pooled = pooler.through(database)
    files = {"1_a.sql": "CREATE TABLE a (); CREATE TABLE b ();"}
    assert gate(database=pooled, migrations=files).exit_code == 0
    with ExitStack() as stack:
        for _ in range(2):
            conn = stack.enter_context(closing(pooled.connect(application_name="shop")))
            conn.execute("BEGIN")
            assert conn.execute("SHOW application_name").fetchone() == ("shop",)


@pytest.mark.parametrize("mode", MODES)
def test_a_statement_that_needs_a_session_is_refused_with_the_remedy(
    gate: Gate, database: Database, pgbouncer: PgBouncers, mode: Mode
) -> None:
    """The server's own address, for the gate only: then it works."""
    pooled = pgbouncer(mode, database).through(database)
    files = {
        "1_a.sql": "CREATE TABLE a (id int);",
        "2_b.sql": "SET work_mem = '8MB';\nCREATE INDEX CONCURRENTLY i ON a (id);",
        "3_c.sql": "VACUUM a;",
    }
    run = gate(database=pooled, migrations=files)
    assert run.one("database.ready")["pooled"] is True
    assert (run.exit_code, run.verdict["reason"]) == (1, "files")
    assert (run.verdict["file"], run.verdict["line"]) == ("2_b.sql", 2)
    assert "3_c.sql:1" in run.verdict["error_message"]
    assert "the server's own address" in run.verdict["hint"]
    assert tables(database) == []
    assert gate(database=database, migrations=files).verdict["applied"] == list(files)
    assert gate(database=pooled, migrations=files).exit_code == 0


def test_gates_on_different_routes_take_turns(
    database: Database, pgbouncer: PgBouncers, herd: Herd
) -> None:
    """Direct, through a session pooler, and a transaction pooler: each file once."""
    database.execute(ATTEMPTS)
    routes = [
        database,
        *(pgbouncer(mode, database).through(database) for mode in MODES),
    ]
    outcome = herd.run(database, PENDING, routes * 4)
    assert outcome.hows == {(0, None): 12}
    assert outcome.applied == sorted(PENDING)
    assert database.fetch("SELECT last_value FROM attempts") == [(50,)]
    assert "ERROR" not in database.log


@pytest.mark.parametrize("holder", MODES)
def test_a_lock_on_one_route_is_seen_on_the_other(
    gate: Gate, database: Database, pgbouncer: PgBouncers, holder: Mode
) -> None:
    """Whoever waits names the backend that holds it."""
    pooled = pgbouncer(holder, database).through(database)
    files = {"1_a.sql": "SELECT pg_advisory_xact_lock_shared(7); CREATE TABLE a ();"}
    env = {"GATE_DDL_LOCK_TIMEOUT": "60s"}
    with closing(database.connect()) as other:
        other.execute("SELECT pg_advisory_lock(7)")
        first = gate.start(database=pooled, migrations=files, env=env)
        first.wait_for("lock.acquired")
        second = gate.start(database=database, migrations=files, env=env)
        waits = second.wait_for("lock.waiting")
        assert waits["holder_application"].startswith("migration-gate/")
        third = gate.start(database=pooled, migrations=files, env=env)
        third.wait_for("lock.waiting")
    runs = [process.wait() for process in (first, second, third)]
    assert [run.exit_code for run in runs] == [0, 0, 0]
    assert [run.verdict["applied"] for run in runs] == [["1_a.sql"], [], []]


@pytest.mark.parametrize("route", ["direct", "transaction"])
def test_without_the_lock_nothing_more_is_sent(
    gate: Gate, database: Database, pgbouncer: PgBouncers, route: str
) -> None:
    """The statement that runs ends; the next waits until the lock is held again."""
    reached = database
    if route == "transaction":
        reached = pgbouncer("transaction", database).through(database)
    database.execute("CREATE TABLE calls (what text)")
    files = {
        "1_a.sql": "-- gate: no-transaction\nINSERT INTO calls VALUES ('1');"
        " SELECT pg_advisory_xact_lock_shared(7); INSERT INTO calls VALUES ('2');"
    }
    env = {"GATE_DDL_LOCK_TIMEOUT": "60s"}
    with closing(database.connect()) as thief:
        thief.execute("SELECT pg_advisory_lock(7)")
        process = gate.start(database=reached, migrations=files, env=env)
        until(lambda: database.fetch(WAITS) == [(1,)])
        ((pid,),) = thief.execute(LOCK_PID).fetchall()
        (key,) = lock_of(thief, pid)
        thief.execute("SELECT pg_terminate_backend(%s)", [pid])
        thief.execute("SELECT pg_advisory_lock(%s)", [key])
        thief.execute("SELECT pg_advisory_unlock(7)")
        process.wait_for("lock.waiting")
        assert database.fetch("TABLE calls") == [("1",)]
        time.sleep(0.3)  # nothing to wait for: it is what should not happen
        assert database.fetch("TABLE calls") == [("1",)]
        thief.execute("SELECT pg_advisory_unlock_all()")
    run = process.wait()
    assert run.verdict["applied"] == ["1_a.sql"], run.output
    assert len(run.all("lock.acquired")) == 2
    assert database.fetch("TABLE calls") == [("1",), ("2",)]


@pytest.mark.parametrize("mode", MODES)
def test_blockers_are_seen_and_lock_waits_are_cut_short(
    gate: Gate, database: Database, pgbouncer: PgBouncers, mode: Mode
) -> None:
    """Though the lock's connection stays in a transaction, where views stand still."""
    pooled = pgbouncer(mode, database).through(database)
    database.execute("CREATE TABLE t ()")
    files = {
        "1_a.sql": "SET lock_timeout = 0; ALTER TABLE t ADD c int; CREATE TABLE b ()"
    }
    env = {"GATE_DDL_LOCK_TIMEOUT": "500ms", "GATE_HEARTBEAT": "100ms"}
    with closing(database.connect(application_name="report")) as other:
        other.execute("BEGIN; LOCK TABLE t")
        pid = other.info.backend_pid
        who = f"process {pid}, user {database.user}, application report"
        process = gate.start(database=pooled, migrations=files, env=env)
        progress = process.wait_for("migration.progress")
        retries = [
            process.wait_for("migration.retry_scheduled", count=n) for n in (1, 2)
        ]
        other.execute("COMMIT")
        run = process.wait()
    assert run.verdict["applied"] == ["1_a.sql"], run.output
    assert (progress["statement"], progress["phase"]) == (2, "Lock:relation")
    for event in (progress, *retries):
        (blocker,) = event["blockers"]
        assert blocker.startswith(f"{who}, idle in transaction")


def test_timeouts_of_the_database_end_neither_connection(
    gate: Gate, database: Database, pgbouncer: PgBouncers
) -> None:
    """The lock's is idle in a transaction all the while."""
    limits = {
        "idle_in_transaction_session_timeout": 0,
        "statement_timeout": 0,
        "lock_timeout": 0,
        "idle_session_timeout": 140000,
        "transaction_timeout": 170000,
    }
    for name, since in limits.items():
        if database.server.version >= since:
            database.execute(f"ALTER DATABASE {database.name} SET {name} = '700ms'")
    pooled = pgbouncer("transaction", database).through(database)
    files = {f"{n}_a.sql": f"SELECT pg_sleep(1); CREATE TABLE t{n} ()" for n in (1, 2)}
    run = gate(database=pooled, migrations=files)
    assert run.verdict.get("applied") == list(files), run.output
    assert len(run.all("lock.acquired")) == 1


def lock_of(conn: Conn, pid: int) -> tuple[int]:
    """Return the key of the advisory lock that a backend holds alone."""
    row = conn.execute(
        "SELECT (classid::bigint << 32) | objid::bigint FROM pg_locks"
        " WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' AND pid = %s",
        [pid],
    ).fetchone()
    assert row is not None
    return (row[0],)


@pytest.mark.parametrize("limit_s", ["1", "120"])
def test_a_pool_of_one_closes_with_the_reason(
    gate: Gate, database: Database, pgbouncer: PgBouncers, limit_s: str
) -> None:
    """The gate needs two connections; the pooler's limit ends the wait, or its own."""
    pooled = pgbouncer(
        "transaction", database, default_pool_size="1", query_wait_timeout=limit_s
    ).through(database)
    run = gate(
        database=pooled,
        migrations={"1_a.sql": "CREATE TABLE a ();"},
        env={"GATE_WAIT_TIMEOUT": "3s"},
    )
    assert (run.exit_code, run.verdict["reason"]) == (1, "unreachable"), run.output
    assert "raise the pool's size" in run.verdict["hint"]
    assert tables(database) == []


def test_a_killed_gate_leaves_neither_lock_nor_transaction(
    gate: Gate, database: Database, pgbouncer: PgBouncers
) -> None:
    """The pooler ends the server's connections with the client's."""
    pooled = pgbouncer("transaction", database).through(database)
    files = {"1_a.sql": "CREATE TABLE a (); SELECT pg_sleep(3);"}
    first = gate.start(database=pooled, migrations=files)
    until(lambda: database.fetch(SLEEPS) == [(1,)])
    first.kill()
    run = gate(database=pooled, migrations=files)
    assert run.verdict["applied"] == ["1_a.sql"], run.output
    assert versions(database) == ["1_a.sql"]
