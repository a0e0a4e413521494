"""Many gates at once: all open or close as one would, and nothing is done twice."""

from __future__ import annotations

import re
import time

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.fix_pgbouncer import PgBouncers
from tests.fix_postgres import Database, NewServer, database_of
from tests.herd import ATTEMPTS, FAILING, PENDING, POLL_S, Census, Herd
from tests.history_tables import ONE
from tests.session.test_lock import held


pytestmark = pytest.mark.timeout(90)

LATE = r'"event": "lock.waiting".*"waited_s": ([5-9]|1[0-9])\.'


@pytest.fixture
def herd(tmp_path: Path) -> Iterator[Herd]:
    """Return what starts many gates at the same moment."""
    with closing(Herd(tmp_path / "herd")) as made:
        yield made


@pytest.fixture
def waiting(tmp_path: Path) -> Iterator[Herd]:
    """Return what starts more of them later."""
    with closing(Herd(tmp_path / "waiting")) as made:
        yield made


def test_fifty_gates_apply_fifty_migrations_once(
    database: Database, herd: Herd
) -> None:
    """All open; each migration is attempted once; the server logs no error."""
    database.execute(ATTEMPTS)
    outcome = herd.run(database, PENDING, [database] * 50)
    assert outcome.hows == {(0, None): 50}
    assert outcome.applied == sorted(PENDING)
    assert database.fetch("SELECT count(*), count(DISTINCT what) FROM calls") == [
        (50, 50)
    ]
    assert database.fetch("SELECT last_value FROM attempts") == [(50,)]
    assert [line for line in database.log.splitlines() if "ERROR" in line] == []
    assert "FATAL" not in database.log


@pytest.mark.thorough
def test_two_hundred_gates_with_nothing_pending_share_a_hundred_connections(
    new_server: NewServer, herd: Herd
) -> None:
    """A gate that gets no connection waits for its turn."""
    database = database_of(new_server(settings={"max_connections": "100"}))
    files = {"1_a.sql": "CREATE TABLE a ();"}
    herd.run(database, files, [database])
    outcome = herd.run(database, files, [database] * 200)
    assert outcome.hows == {(0, None): 200}
    assert outcome.applied == []


def test_a_file_that_fails_closes_every_gate_in_turn(
    database: Database, herd: Herd
) -> None:
    """One attempt at a time, at most one by each; what came before stays."""
    database.execute(ATTEMPTS)
    outcome = herd.run(database, FAILING, [database] * 30)
    assert outcome.hows == {(1, "migration_failed"): 30}
    assert {each.verdict["sqlstate"] for each in outcome.ended} == {"22012"}
    assert outcome.applied == ["001_x.sql"]
    assert database.fetch("SELECT what FROM calls") == [("1",)]
    assert database.fetch("SELECT last_value FROM attempts") == [(31,)]


@pytest.mark.thorough
def test_gates_that_wait_long_give_their_connections_back(
    database: Database, herd: Herd
) -> None:
    """Their looks are far apart by then, and short."""
    count = 20
    with held(database):
        herd.start(ONE, [database] * count, GATE_HEARTBEAT="1s")
        while not all(re.search(LATE, herd.log(number)) for number in range(count)):
            time.sleep(POLL_S)
        with Census(database) as census:
            time.sleep(2.0)  # some looks of each
    assert sum(census.counts) / len(census.counts) < count / 4
    assert herd.wait(database).hows == {(0, None): count}


def test_an_index_is_built_concurrently_while_twenty_wait(
    database: Database, herd: Herd, waiting: Herd, pgbouncer: PgBouncers
) -> None:
    """On whatever route they came: none holds a transaction that it would wait for."""
    pooled = pgbouncer("transaction", database).through(database)
    database.execute("CREATE TABLE t (id int)")
    files = {"1_a.sql": "CREATE INDEX CONCURRENTLY i ON t (id);"}
    with closing(database.connect()) as blocker:
        blocker.execute("BEGIN; INSERT INTO t VALUES (1)")
        herd.start(files, [database])
        builds = "SELECT count(*) FROM pg_stat_progress_create_index"
        while database.fetch(builds) == [(0,)]:
            time.sleep(POLL_S)
        waiting.start(files, [database, pooled] * 10)
        while not all("lock.waiting" in waiting.log(n) for n in range(20)):
            time.sleep(POLL_S)
        blocker.execute("COMMIT")
        (builder,) = herd.wait(database).ended
    assert builder.applied == ["1_a.sql"], builder.story
    assert waiting.wait(database).hows == {(0, None): 20}
    assert "deadlock" not in database.log
