"""What is asked about another backend holds although it goes on meanwhile."""

from __future__ import annotations

import threading

from contextlib import closing

import psycopg
import pytest

from migration_gate.session.activity import find_wait
from tests.fix_postgres import Database


pytestmark = [pytest.mark.timeout(60), pytest.mark.server]
WAITS = 150


def test_a_blocker_is_never_named_without_its_table(database: Database) -> None:
    """Though the wait ends, or begins, in the middle of the question."""
    database.execute("CREATE TABLE busy ()")
    with (
        closing(database.connect()) as blocker,
        closing(database.connect()) as waiter,
        closing(database.connect()) as asker,
    ):
        blocker.execute("BEGIN; LOCK TABLE busy")
        waiter.execute("SET lock_timeout = '4ms'")
        pid = waiter.info.backend_pid

        def wait() -> None:
            for _ in range(WAITS):
                with pytest.raises(psycopg.errors.LockNotAvailable):
                    waiter.execute("SELECT FROM busy")

        waits = threading.Thread(target=wait)
        waits.start()
        seen = set()
        while waits.is_alive():
            seen.add(find_wait(asker, pid).blockers)
        waits.join()
        who = f"process {blocker.info.backend_pid}, "
    seen.discard(())
    assert seen
    assert {
        (
            len(found),
            found[0].startswith(who),
            found[0].endswith('at table "public.busy"'),
        )
        for found in seen
    } == {(1, True, True)}
