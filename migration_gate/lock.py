"""
One gate at a time: an advisory lock on a connection of its own, polled.

Runs no file. Works on a direct connection and through a transaction pooler, and both
kinds exclude each other.
"""

from __future__ import annotations

import hashlib

from dataclasses import dataclass
from typing import Any, Final

import psycopg

from psycopg import sql


IDLE_SESSION_TIMEOUT_MIN_VERSION: Final = 140000
TRANSACTION_TIMEOUT_MIN_VERSION: Final = 170000


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who holds the lock; None where the role may not see it."""

    pid: int | None
    application: str | None
    since: str | None
    waits_for: str | None
    works: bool


def lock_key(schema: str, table: str) -> int:
    """Return the advisory lock's key for a history table: a signed 64-bit number."""
    name = f"migration-gate:{schema}.{table}".encode()
    return int.from_bytes(hashlib.sha256(name).digest()[:8], "big", signed=True)


def work_key(schema: str, table: str) -> int:
    """Return the key that a backend holds, shared, while it runs a migration."""
    return lock_key(schema, f"{table}:work")


def try_lock(conn: psycopg.Connection[Any], key: int, *, pooled: bool) -> bool:
    """
    Try once to take the lock; never waits inside PostgreSQL.

    A statement that waits in pg_advisory_lock() holds a snapshot, and CREATE INDEX
    CONCURRENTLY in the session that holds the lock would wait for it while it waits
    for us (golang-migrate#960).

    Through a pooler a session's lock would stay with a server connection that goes to
    a stranger next, so there the lock lives in a transaction that stays open. It is
    READ COMMITTED and idle, holds no snapshot, and so stops no CONCURRENTLY.
    """
    version = conn.info.server_version
    if pooled:
        limits = ["idle_in_transaction_session_timeout"]
        if version >= TRANSACTION_TIMEOUT_MIN_VERSION:
            limits.append("transaction_timeout")
        conn.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
        taken = _call(conn, "pg_try_advisory_xact_lock", key, limits, local=True)
        if not taken:
            conn.execute("ROLLBACK")
        return taken
    limits = ["idle_in_transaction_session_timeout"]
    if version >= IDLE_SESSION_TIMEOUT_MIN_VERSION:
        limits.append("idle_session_timeout")
    return _call(conn, "pg_try_advisory_lock", key, limits, local=False)


def _call(
    conn: psycopg.Connection[Any],
    function: str,
    key: int,
    limits: list[str],
    *,
    local: bool,
) -> bool:
    """Take the lock and lift, in the same query, the timeouts that would end it."""
    lifted = sql.SQL("").join(
        sql.SQL(", pg_catalog.set_config({}, '0', {})").format(name, local)
        for name in limits
    )
    query = sql.SQL("SELECT pg_catalog.{function}({key}){lifted}").format(
        function=sql.SQL(function), key=sql.Literal(key), lifted=lifted
    )
    row = conn.execute(query).fetchone()
    return row is not None and bool(row[0])


# The holder's own connection is idle; another of its name does the work. Gates that
# wait have that name too: their looks are short, the holder's short messages show as
# rows of the history.
HOLDER = """
WITH worker AS (
    SELECT datname, wait_event_type, wait_event FROM pg_catalog.pg_stat_activity
    WHERE state = 'active' AND pid <> pg_catalog.pg_backend_pid()
      AND application_name LIKE 'migration-gate/%%'
      AND query_start < pg_catalog.clock_timestamp() - interval '200 ms'
)
SELECT l.pid, a.application_name,
       pg_catalog.to_char(a.backend_start AT TIME ZONE 'UTC',
                          'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
       (SELECT pg_catalog.min(w.wait_event_type || ':' || w.wait_event)
        FROM worker w WHERE w.datname = a.datname),
       EXISTS (SELECT FROM worker w WHERE w.datname = a.datname)
FROM pg_catalog.pg_locks l
LEFT JOIN pg_catalog.pg_stat_activity a USING (pid)
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
  AND l.database = (SELECT oid FROM pg_catalog.pg_database
                    WHERE datname = pg_catalog.current_database())
  AND l.classid = %s AND l.objid = %s
"""


def find_holder(conn: psycopg.Connection[Any], key: int) -> Holder | None:
    """Return who holds the lock, as far as the role may see it. Reads only."""
    unsigned = key & 0xFFFF_FFFF_FFFF_FFFF
    parts = (unsigned >> 32, unsigned & 0xFFFF_FFFF)
    row = conn.execute(HOLDER, parts).fetchone()
    if row is None:
        return None
    return Holder(
        pid=row[0], application=row[1], since=row[2], waits_for=row[3], works=row[4]
    )
