"""
One gate at a time: an advisory lock on a connection of its own, polled.

Runs no file. Works on a direct connection and through a transaction pooler, and both
kinds exclude each other.
"""

from __future__ import annotations

import hashlib

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

import psycopg

from psycopg import sql

from migration_gate.connection.qualified import qualified
from migration_gate.history.catalogue import Before
from migration_gate.session.activity import (
    ADVISORY,
    WAITS_FOR,
    holders_query,
    workers_query,
)


IDLE_SESSION_TIMEOUT_MIN_VERSION: Final = 140000
TRANSACTION_TIMEOUT_MIN_VERSION: Final = 170000
# What is composed once for each of these is kept for so many of the latest.
HISTORIES: Final = 32
# How the server notices within a minute that a client is gone without a word; until
# then its session keeps its locks. Without effect on a Unix socket. Linux goes by
# tcp_user_timeout, not by a count of probes.
SERVER_KEEPALIVES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "tcp_keepalives_idle": "20",
        "tcp_keepalives_interval": "10",
        "tcp_user_timeout": "50000",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who holds the lock; None where the role may not see it."""

    pid: int | None
    application: str | None
    since: str | None
    waits_for: str | None
    works: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """
    The keys of a history table's advisory locks: signed 64-bit numbers.

    ``lock`` is held by the gate whose turn it is; ``work``, shared, by each backend
    that runs a migration, as long as it does.
    """

    lock: int
    work: int


@lru_cache(HISTORIES)
def lock_keys(schema: str, table: str) -> Keys:
    """Return the keys of a history table."""
    return Keys(
        lock=_to_key(f"migration-gate:{schema}.{table}"),
        work=_to_key(f"migration-gate:{schema}.{table}:work"),
    )


def _to_key(name: str) -> int:
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


@dataclass(frozen=True, slots=True)
class Trial:
    """
    What came of trying to take the lock.

    ``holder_pid`` is the backend that has the lock instead, None where it has just let
    go. ``orphans`` are the backends that still run a migration: when the lock was
    taken, they are those of a gate that is gone.
    """

    taken: bool
    holder_pid: int | None
    orphans: tuple[int, ...]


def try_before(
    conn: psycopg.Connection[Any],
    keys: Keys,
    take: Callable[[Trial], object],
    *,
    lets_go: bool = False,
    may_be_pooled: bool = False,
) -> Before:
    """
    Return what tries once to take the lock, in the message that looks after it.

    Args:
        conn: It is not a pooler's, as far as is known.
        keys: Those of the history.
        take: Takes what comes of it.
        lets_go: Another lock of the session is given back first.
        may_be_pooled: Nothing is tried, and nothing comes of it, where another process
            answers than the client was told of.
    """
    pid = conn.info.backend_pid if may_be_pooled else None
    query = _compose_trial(keys, conn.info.server_version, pooled=False, only_pid=pid)
    if lets_go:
        query = sql.SQL("{}; {}").format(LET_GO, query)

    def take_all(rows: Sequence[Sequence[Any]]) -> None:
        for row in rows:
            take(_to_trial(row))

    return Before(query, take_all, ends=True)


def try_lock(conn: psycopg.Connection[Any], keys: Keys, *, pooled: bool) -> Trial:
    """
    Try once to take the lock; never waits inside PostgreSQL.

    A statement that waits in pg_advisory_lock() holds a snapshot, and CREATE INDEX
    CONCURRENTLY in the session that holds the lock would wait for it while it waits
    for us (golang-migrate#960).

    Through a pooler a session's lock would stay with a server connection that goes to
    a stranger next, so there the lock lives in a transaction that stays open. It is
    READ COMMITTED and idle, holds no snapshot, and so stops no CONCURRENTLY.
    """
    query = _trial_query(keys, conn.info.server_version, pooled=pooled)
    if pooled:
        conn.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
    row = conn.execute(query).fetchone()
    assert row is not None  # noqa: S101  # a SELECT without FROM
    trial = _to_trial(row)
    if pooled and not trial.taken:
        conn.execute("ROLLBACK")
    return trial


def _to_trial(row: Sequence[Any]) -> Trial:
    return Trial(bool(row[0]), row[1], tuple(row[2]))


def let_go(conn: psycopg.Connection[Any], *, pooled: bool) -> None:
    """Give the lock back; the session holds no other."""
    conn.execute(sql.SQL("ROLLBACK") if pooled else LET_GO)


@lru_cache(HISTORIES)
def _trial_query(keys: Keys, version: int, *, pooled: bool) -> bytes:
    """Return the query as it is sent: a gate that waits sends it many times."""
    return _compose_trial(keys, version, pooled=pooled).as_bytes()


def _compose_trial(
    keys: Keys, version: int, *, pooled: bool, only_pid: int | None = None
) -> sql.Composed:
    """
    Return the query that takes the lock, and lifts what would end the session.

    The same query tells who has it and who works.
    """
    limits = {"idle_in_transaction_session_timeout": "0", "statement_timeout": "0"}
    if not pooled:
        limits |= SERVER_KEEPALIVES
        if version >= IDLE_SESSION_TIMEOUT_MIN_VERSION:
            limits["idle_session_timeout"] = "0"
    elif version >= TRANSACTION_TIMEOUT_MIN_VERSION:
        limits["transaction_timeout"] = "0"
    lifted = sql.SQL("").join(
        sql.SQL(", pg_catalog.set_config({}, {}, {})").format(name, value, pooled)
        for name, value in limits.items()
    )
    function = "pg_try_advisory_xact_lock" if pooled else "pg_try_advisory_lock"
    return TRIAL.format(
        function=sql.SQL(function),
        key=sql.Literal(keys.lock),
        where=sql.SQL("") if only_pid is None else BY_PROCESS.format(only_pid),
        advisory=ADVISORY,
        holders=holders_query(keys.lock, "advisory"),
        workers=workers_query(keys.work, "advisory"),
        lifted=lifted,
    )


# The lock is not tried, and no setting lifted, where there is no row of the trial.
BY_PROCESS: Final = qualified(" WHERE pg_catalog.pg_backend_pid() = {}")
LET_GO: Final = sql.SQL("SELECT pg_catalog.pg_advisory_unlock_all()")
# Who has it is looked for after the trial, and who works only where it was taken. The
# holder's own connection is idle; the backend that holds the work key works. Both
# keys are in pg_locks, which every role may read in full.
TRIAL: Final = qualified(
    """
WITH trial AS MATERIALIZED (SELECT pg_catalog.{function}({key}) AS taken{where}),
advisory AS MATERIALIZED ({advisory})
SELECT taken,
       CASE WHEN NOT taken THEN ({holders} LIMIT 1) END,
       CASE WHEN taken THEN ARRAY({workers}) ELSE ARRAY[]::pg_catalog.int4[] END{lifted}
FROM trial
"""
)
HOLDER: Final = qualified(
    """
WITH advisory AS MATERIALIZED ({advisory})
SELECT l.pid, a.application_name,
       pg_catalog.to_char(a.backend_start AT TIME ZONE 'UTC',
                          'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
       (SELECT {waits_for}
        FROM pg_catalog.pg_stat_get_activity(coalesce(worker.pids[1], 0)) w),
       pg_catalog.cardinality(worker.pids) > 0
FROM (SELECT ({holders} LIMIT 1) AS pid) l
LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid,
     (SELECT ARRAY({workers}) AS pids) worker
WHERE l.pid IS NOT NULL
"""
)


def find_holder(conn: psycopg.Connection[Any], keys: Keys) -> Holder | None:
    """Return who holds the lock, as far as the role may see it. Reads only."""
    query = HOLDER.format(
        advisory=ADVISORY,
        holders=holders_query(keys.lock, "advisory"),
        workers=workers_query(keys.work, "advisory"),
        waits_for=WAITS_FOR,
    )
    row = conn.execute(query).fetchone()
    if row is None:
        return None
    return Holder(
        pid=row[0], application=row[1], since=row[2], waits_for=row[3], works=row[4]
    )
