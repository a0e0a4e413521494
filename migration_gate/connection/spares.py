"""
Connections that a thread keeps from one target of a fleet to the next.

To open one costs more than all that a small target needs. A session that is given
back is as good as a new one: DISCARD ALL is sent at once, as poolers do it, and its
answer is awaited where the connection is used again. One that has held a lock alone
may keep it until the next target's is tried, a moment later and in the same message.
Who must have the defaults that role and database have by now asks for them.
"""

from __future__ import annotations

import threading

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

import psycopg

from psycopg import pq
from psycopg.waiting import Wait

from migration_gate.connection.limited import LimitedConnection
from migration_gate.connection.opening import keeper
from migration_gate.connection.simple_query import is_alive


if TYPE_CHECKING:
    from migration_gate.connection.scram import Memory
    from migration_gate.connection.waits import Steps

# What a session keeps in memory of each table that it has seen adds up.
TARGETS_MAX: Final = 500
ANSWER_TIMEOUT_S: Final = 5.0


class _Kept(threading.local):
    """What one thread keeps; None where it keeps nothing."""

    spares: list[LimitedConnection] | None = None


_kept: Final = _Kept()


@contextmanager
def keeping(scram: Memory) -> Iterator[None]:
    """
    Let this thread keep connections in a block; those left are closed at its end.

    Args:
        scram: What all threads of a fleet know of logins.
    """
    _kept.spares = []
    keeper.take, keeper.drop, keeper.scram = take_spare, drop_spares, scram
    try:
        yield
    finally:
        drop_spares()
        _kept.spares = None
        del keeper.take, keeper.drop, keeper.scram


def keep_or_close(
    conn: LimitedConnection, *, is_clean: bool = False, is_held: bool = False
) -> None:
    """
    Give a connection back: kept where its thread keeps any, and closed elsewhere.

    Its locks, settings and temporary tables go at once.

    Args:
        is_clean: Nothing was left in its session.
        is_held: What was left is the lock of its target and what holding it takes, and
            goes where the connection is used again.
    """
    is_idle = conn.pgconn.transaction_status == pq.TransactionStatus.IDLE
    is_worn = conn.is_outdated or conn.target_count >= TARGETS_MAX
    if _kept.spares is None or is_worn or not is_idle:
        conn.close()
        return
    try:
        if not is_clean:
            conn.target_count += 1
            conn.is_held = is_held
        if not (is_clean or is_held):
            conn.pgconn.send_query(b"DISCARD ALL")
            conn.pgconn.flush()
    except psycopg.Error:
        conn.close()
    else:
        _kept.spares.append(conn)


def take_spare(
    opened_with: Mapping[str, str],
    may_be_held: bool = False,  # noqa: FBT001, FBT002  # as opening.Keeper has it
) -> LimitedConnection | None:
    """
    Return a connection that was opened with these parameters and is as good as new.

    Where there is none, all others are closed: a target has no more than two.

    Args:
        opened_with: Its parameters.
        may_be_held: The lock of the last target may still be held, and such a
            connection is taken first.

    Raises:
        Stopped: The run is to stop.
    """
    spares = _kept.spares
    if not spares:
        return None
    for conn in sorted(spares, key=lambda conn: conn.is_held != may_be_held):
        if conn.opened_with == opened_with:
            spares.remove(conn)
            if (may_be_held and conn.is_held and is_alive(conn)) or _is_as_new(conn):
                return conn
            conn.close()
            break
    drop_spares()
    return None


def drop_spares() -> None:
    """Close what this thread keeps: it may not be what it should, or hold a lock."""
    spares = _kept.spares or []
    while spares:
        spares.pop().close()


def _is_as_new(conn: LimitedConnection) -> bool:
    conn.answer_timeout_s = ANSWER_TIMEOUT_S
    try:
        with suppress(psycopg.Error):
            if conn.is_held:
                conn.is_held = False
                conn.pgconn.send_query(b"DISCARD ALL")
            return conn.wait(_take_answer(conn.pgconn)) and is_alive(conn)
    finally:
        conn.answer_timeout_s = float("inf")
    return False


def _take_answer(pgconn: pq.abc.PGconn) -> Steps[bool]:
    """Take what DISCARD ALL is answered with, where it was sent; True for success."""
    is_done = pgconn.status == pq.ConnStatus.OK
    while pgconn.flush():
        while not (yield Wait.RW):
            pass
    while True:
        while pgconn.is_busy():
            while not (yield Wait.R):
                pass
            pgconn.consume_input()
        result = pgconn.get_result()
        if result is None:
            break
        is_done = is_done and result.status == pq.ExecStatus.COMMAND_OK
    idle = pq.TransactionStatus.IDLE
    return is_done and pgconn.transaction_status == idle
