"""How long an attempt has waited for locks, as the server and the looks at it tell."""

from __future__ import annotations

import os
import signal
import time

from contextlib import closing

import pytest

from migration_gate.execution.watch import Attempt
from migration_gate.session.activity import LockWait
from tests.fix_gate import Gate
from tests.fix_postgres import NewServer, database_of
from tests.polling import until


LIMIT_S = 2.0
STALL_S = 0.7
# A file sleeps first, so that no look at its wait comes before the stall.
SLEEPS = "SELECT pg_sleep(0.5);\n"
WORKER = """
SELECT pid FROM pg_stat_activity
WHERE application_name LIKE 'migration-gate/%' AND wait_event = 'PgSleep'
"""
WATCHER = """
SELECT pid FROM pg_stat_activity
WHERE application_name LIKE 'migration-gate/%' AND wait_event <> 'PgSleep'
"""
WAIT = """
SELECT extract(epoch FROM clock_timestamp() - waitstart)::float8
FROM pg_locks WHERE NOT granted
"""


def test_a_wait_is_as_long_as_the_server_says() -> None:
    """It was so at the question or at the answer, and the later began it later."""
    attempt = Attempt(0.0)
    attempt.note(LockWait(0.06, ()), asked_s=1.0, answered_s=1.5)
    assert (attempt.waited_s, attempt.waiting_s) == pytest.approx((0.0, 0.06))
    attempt.see(1.52)
    assert (attempt.waited_s, attempt.waiting_s) == pytest.approx((0.0, 0.08))
    attempt.note(LockWait(0.6, ("a reader",)), asked_s=1.54, answered_s=1.56)
    assert (attempt.waited_s, attempt.waiting_s) == pytest.approx((0.0, 0.6))
    attempt.note(LockWait(0.7, ()), asked_s=1.6, answered_s=1.7)
    assert (attempt.waited_s, attempt.waiting_s) == pytest.approx((0.0, 0.74))
    assert attempt.blockers == ("a reader",)


def test_a_wait_that_is_shorter_than_it_was_is_another() -> None:
    """What came before it is added up, as all of it is held to the limit."""
    attempt = Attempt(0.0)
    attempt.note(LockWait(0.1, ()), asked_s=1.0, answered_s=1.0)
    attempt.see(1.4)
    attempt.note(LockWait(0.05, ()), asked_s=1.42, answered_s=1.42)
    assert (attempt.waited_s, attempt.waiting_s) == pytest.approx((0.47, 0.05))


def test_what_nobody_saw_is_not_added_up() -> None:
    """A look that comes late asks: the wait that was seen last may be over."""
    attempt = Attempt(0.0)
    attempt.note(LockWait(1.0, ()), asked_s=1.0, answered_s=1.0)
    assert not attempt.is_to_ask(1.05, last_s=2.0, unseen_s=0.1)
    assert attempt.is_to_ask(1.5, last_s=2.0, unseen_s=0.1)
    attempt.note(LockWait(0.05, ()), asked_s=1.5, answered_s=1.5)
    assert (attempt.waited_s, attempt.waiting_s) == pytest.approx((1.0, 0.05))


def test_a_server_that_has_no_word_is_counted_from_the_first_sight() -> None:
    """PostgreSQL 13 does not say when a wait began."""
    attempt = Attempt(0.0)
    attempt.note(LockWait(None, ()), asked_s=1.0, answered_s=1.1)
    assert attempt.waiting_s == 0.0
    attempt.note(LockWait(None, ()), asked_s=1.2, answered_s=1.3)
    assert (attempt.waited_s, attempt.waiting_s) == pytest.approx((0.0, 0.1))


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("before", "sqlstate"),
    [("", "55P03"), ("SET lock_timeout = 0;\n", "57014")],
    ids=["the server's limit", "none of the server's"],
)
def test_an_answer_that_comes_late_makes_no_wait_longer(
    gate: Gate, new_server: NewServer, before: str, sqlstate: str
) -> None:
    """The backend that answers is stopped for a while: that is not counted twice."""
    database = database_of(new_server())
    database.execute("CREATE TABLE t ()")
    files = {"1_t.sql": f"{before}{SLEEPS}ALTER TABLE t ADD n int;"}
    limit = {"GATE_DDL_LOCK_TIMEOUT": f"{LIMIT_S:g}s"}
    with closing(database.connect()) as other:
        other.execute("BEGIN; LOCK TABLE t")
        process = gate.start(database=database, migrations=files, env=limit)
        until(lambda: database.fetch(WORKER))
        ((watcher,),) = database.fetch(WATCHER)
        os.kill(watcher, signal.SIGSTOP)
        try:
            until(lambda: database.fetch(WAIT))
            time.sleep(STALL_S)
            asked_s = time.monotonic()
            ((waited_s,),) = database.fetch(WAIT)
        finally:
            os.kill(watcher, signal.SIGCONT)
        retry = process.wait_for("migration.retry_scheduled")
        waited_s += time.monotonic() - asked_s
        other.execute("COMMIT")
    assert retry["sqlstate"] == sqlstate
    # A loaded machine is slow, and the event comes later than the end of the wait.
    assert LIMIT_S <= waited_s < LIMIT_S + 1
    assert process.wait().exit_code == 0
