"""What the gate asks a busy server while something waits: little, less with time."""

from __future__ import annotations

from contextlib import closing

import pytest

from tests.fix_gate import Gate
from tests.fix_postgres import Database
from tests.fix_proxy import Proxy
from tests.history_tables import TWO
from tests.own_sql import sent
from tests.session.test_lock import held


pytestmark = pytest.mark.timeout(60)
# Each copies all of the server's locks, and holds up who takes or releases one.
COSTLY = ("pg_catalog.pg_locks", "pg_catalog.pg_blocking_pids")
# Once at first, then each time that a wait has doubled, and once before it is too long.
ASKED_IN_A_WAIT = 8


def costly(proxy: Proxy) -> list[int]:
    """Return, for each question that looks at all locks, how often it does."""
    counts = [
        sum(text.count(name) for name in COSTLY)
        for link in proxy.links
        for text in sent(link)
    ]
    return [count for count in counts if count]


def test_a_wait_for_a_table_is_asked_about_a_few_times(
    gate: Gate, database: Database, proxy: Proxy
) -> None:
    """In an attempt of two seconds that looks at it all the while."""
    database.execute("CREATE TABLE t ()")
    with closing(database.connect()) as other:
        other.execute("BEGIN; LOCK TABLE t IN ACCESS SHARE MODE")
        process = gate.start(
            database=proxy.through(database),
            migrations={"1_a.sql": "ALTER TABLE t ADD n int;"},
        )
        process.wait_for("migration.started")
        before = len(costly(proxy))
        event = process.wait_for("migration.retry_scheduled")
        asked = costly(proxy)[before:]
    assert 'at table "public.t"' in event["blockers"][0]
    assert 2 <= len(asked) <= ASKED_IN_A_WAIT
    assert set(asked) == {2}, "who is in the way, and at which table"


def test_a_wait_that_blocks_nobody_is_asked_about_when_it_is_reported(
    gate: Gate, database: Database, proxy: Proxy
) -> None:
    """CREATE INDEX CONCURRENTLY may wait for an hour."""
    database.execute("CREATE TABLE t (n int)")
    with closing(database.connect()) as other:
        other.execute("BEGIN; INSERT INTO t VALUES (1)")
        process = gate.start(
            database=proxy.through(database),
            migrations={"1_a.sql": "CREATE INDEX CONCURRENTLY i ON t (n);"},
            env={"GATE_HEARTBEAT": "500ms"},
        )
        process.wait_for("migration.progress")
        before = len(costly(proxy))
        process.wait_for("migration.progress", count=5)
        asked = costly(proxy)[before:]
    assert len(asked) in {4, 5}
    assert set(asked) == {2}


def test_a_gate_in_the_queue_looks_at_the_locks_once_a_try(
    gate: Gate, database: Database, proxy: Proxy
) -> None:
    """Whether it has the lock, and whose it is, and who still works, are one look."""
    with held(database):
        process = gate.start(database=proxy.through(database), migrations=TWO)
        process.wait_for("lock.waiting")
        process.kill()
    assert set(costly(proxy)) == {1}
