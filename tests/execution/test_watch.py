"""How long an attempt has waited for locks, as the server and the looks at it tell."""

from __future__ import annotations

import pytest

from migration_gate.execution.watch import NOISE_S, Attempt
from migration_gate.session.activity import LockWait


def test_a_wait_is_as_long_as_the_server_says() -> None:
    """A look that comes late counts too much; the server's limit comes first."""
    attempt = Attempt(0.0, waiting_s=0.15)
    attempt.note(LockWait(0.06, ()))
    assert (attempt.waited_s, attempt.waiting_s) == (0.0, 0.06)
    attempt.waiting_s += 0.12
    attempt.note(LockWait(0.17, ("a reader",)))
    assert (attempt.waited_s, attempt.waiting_s) == (0.0, 0.17)
    assert attempt.blockers == ("a reader",)


def test_a_wait_that_is_shorter_than_it_was_is_another() -> None:
    """What came before it is added up, as all of it is held to the limit."""
    attempt = Attempt(0.0, waiting_s=0.1)
    attempt.note(LockWait(0.1, ()))
    attempt.waiting_s += 0.4
    attempt.note(LockWait(0.05, ()))
    assert (attempt.waited_s, attempt.waiting_s) == pytest.approx((0.45, 0.05))


def test_a_server_that_has_no_word_is_counted_from_the_first_sight() -> None:
    """PostgreSQL 13 does not say when a wait began."""
    attempt = Attempt(0.0, waiting_s=0.15)
    attempt.note(LockWait(None, ()))
    assert attempt.waiting_s == NOISE_S
    attempt.waiting_s += 0.1
    attempt.note(LockWait(None, ()))
    assert (attempt.waited_s, attempt.waiting_s) == (0.0, NOISE_S + 0.1)
