"""
Glance at a history that is plainly the gate's own: one round trip, and little to do.

A look asks the catalogue of a new session for all that may matter, which costs more
than connecting. Where a single thing is out of the ordinary, a glance shows nothing.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import psycopg

from psycopg import sql

from migration_gate.connection.qualified import names, qualified
from migration_gate.files.migration import AppliedMigration
from migration_gate.history.look import to_tool
from migration_gate.history.many import ORIGIN, History
from migration_gate.settings.settings import HistoryTableName


Row: TypeAlias = tuple[Any, ...]
# An error keeps the rows from being read: a planted view would run its functions.
PLAIN: Final = qualified(
    """
SELECT CASE WHEN c.relkind = 'r' AND c.relpersistence <> 't'
        AND NOT c.relhasrules AND NOT c.relhastriggers AND NOT c.relrowsecurity
        AND pg_catalog.pg_get_userbyid(c.relowner) = ANY (
            ARRAY[session_user, current_user]::pg_catalog.name[] || {roles})
        AND NOT pg_catalog.pg_is_in_recovery()
        AND pg_catalog.current_setting('transaction_read_only') = 'off'
    THEN 'on' ELSE 'gate:not plain' END::pg_catalog.bool, c.oid::pg_catalog.int8
FROM pg_catalog.pg_class c WHERE c.oid = {table}::pg_catalog.regclass
"""
)
# A view has no tableoid.
ROWS: Final = sql.SQL(
    "SELECT tableoid::pg_catalog.int8, version, checksum, superseded, {origin} "
    "FROM {table} WHERE version IS NOT NULL "
    'ORDER BY applied_at, version COLLATE pg_catalog."C"'
)


def glance(
    conn: psycopg.Connection[Any], name: HistoryTableName, role: str | None
) -> tuple[Row, ...]:
    """
    Return the rows of a history, oldest first, as ``to_history_of`` takes them.

    None of them has a time or a duration, so that many histories have the same.

    Args:
        conn: In autocommit.
        name: The history table; without a schema, the search path's first one.
        role: GATE_ROLE, which may own it.

    Raises:
        psycopg.Error: There is something that needs a look.
    """
    parts = [name.table] if name.schema is None else [name.schema, name.table]
    table = sql.Identifier(*parts)
    plain = PLAIN.format(
        roles=names([] if role is None else [role]), table=table.as_string()
    )
    rows = ROWS.format(origin=ORIGIN, table=table)
    cursor = conn.execute(sql.SQL("; ").join([plain, rows]))
    ((_, oid),) = cursor.fetchall()
    cursor.nextset()
    found = cursor.fetchall()
    if any(at != oid for at, *_ in found):
        raise psycopg.errors.UndefinedTable
    return tuple(tuple(row) for _, *row in found)


def to_history_of(rows: tuple[Row, ...]) -> History:
    """Make a history of what a glance has shown."""
    history = tuple(
        AppliedMigration(
            version=version,
            checksum=checksum,
            applied_at="",
            duration_ms=None,
            superseded=superseded or "",
        )
        for version, checksum, superseded, _ in rows
    )
    origins = [origin for *_, origin in rows if origin is not None]
    return History("", history, to_tool(min(origins, default=None)))
