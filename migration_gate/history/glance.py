"""
Glance at a history that is plainly the gate's own: one round trip, and little to do.

A look asks the catalogue of a new session for all that may matter, which costs more
than connecting. Where a single thing is out of the ordinary, a glance shows nothing.
"""

from __future__ import annotations

from itertools import groupby
from typing import Any, Final

import psycopg

from psycopg import sql

from migration_gate.connection.qualified import qualified
from migration_gate.history.plain_rows import Row, to_row
from migration_gate.settings.settings import HistoryTableName


# An error keeps the rows from being read: a planted view would run its functions.
PLAIN: Final = qualified(
    """
SELECT CASE WHEN c.relkind = 'r' AND c.relpersistence <> 't'
        AND NOT c.relhasrules AND NOT c.relhastriggers AND NOT c.relrowsecurity
        AND pg_catalog.pg_get_userbyid(c.relowner) = ANY (
            ARRAY[session_user, current_user, {role}]::pg_catalog.name[])
        AND NOT pg_catalog.pg_is_in_recovery()
        AND pg_catalog.current_setting('transaction_read_only') = 'off'
    THEN 'on' ELSE 'gate:not plain' END::pg_catalog.bool, c.oid::pg_catalog.int8,
    (SELECT n.nspname FROM pg_catalog.pg_namespace n WHERE n.oid = c.relnamespace)
FROM pg_catalog.pg_class c WHERE c.oid = {table}::pg_catalog.regclass
"""
)
# A view has no tableoid. A new session is slow to sort by more, or to call functions.
ROWS: Final = sql.SQL(
    "SELECT tableoid::pg_catalog.int8, version, checksum, superseded, gate_version, "
    "applied_at::pg_catalog.text FROM {} WHERE version IS NOT NULL ORDER BY applied_at"
)


def glance(
    conn: psycopg.Connection[Any], name: HistoryTableName, role: str | None
) -> tuple[str, tuple[Row, ...]]:
    """
    Return the schema of a history, and its rows as ``to_history_of`` takes them.

    They come oldest first, and none has a time or a duration, so that many histories
    have the same.

    Args:
        conn: In autocommit.
        name: The history table; without a schema, the search path's first one.
        role: GATE_ROLE, which may own it.

    Raises:
        psycopg.Error: There is something that needs a look.
    """
    parts = [name.table] if name.schema is None else [name.schema, name.table]
    table = sql.Identifier(*parts)
    plain = PLAIN.format(role=role, table=table.as_string())
    cursor = conn.execute(sql.SQL("; ").join([plain, ROWS.format(table)]))
    ((_, oid, schema),) = cursor.fetchall()
    cursor.nextset()
    found = cursor.fetchall()
    if any(at != oid for at, *_ in found):
        raise psycopg.errors.UndefinedTable
    rows: list[Row] = []
    for _, alike in groupby(found, key=lambda row: row[-1]):
        told = (to_row(*row) for _, *row, _ in alike)
        rows += sorted(told, key=lambda row: str(row[0]))
    return schema, tuple(rows)
