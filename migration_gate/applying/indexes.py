"""
Indexes that a statement has left invalid, and those that were there before it.

Drops nothing but what it is told to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import psycopg

from psycopg import sql

from migration_gate.applying.catalogue import class_name, find_oid
from migration_gate.connection.qualified import integers, qualified
from migration_gate.statements import ConcurrentIndex


Facts = Mapping[str, Any]
Conn = psycopg.Connection[Any]

# A partitioned index, or table, is reindexed partition by partition; a TOAST table
# along with its own.
OF_INDEX: Final = qualified(
    """
SELECT indrelid::pg_catalog.int8 FROM pg_catalog.pg_index
WHERE indexrelid = %s OR indexrelid = ANY (ARRAY(
    SELECT relid::pg_catalog.oid
    FROM pg_catalog.pg_partition_tree(%s::pg_catalog.oid)))
"""
)
WITH_PARTS: Final = qualified(
    """
WITH part AS (
    SELECT %s::pg_catalog.oid AS oid UNION
    SELECT relid::pg_catalog.oid FROM pg_catalog.pg_partition_tree(%s::pg_catalog.oid)
)
SELECT oid::pg_catalog.int8 FROM part WHERE oid IS NOT NULL
UNION ALL
SELECT c.reltoastrelid::pg_catalog.int8
FROM part JOIN pg_catalog.pg_class c ON c.oid = part.oid
WHERE c.reltoastrelid <> 0
"""
)
IN_SCHEMA: Final = qualified(
    """
WITH part AS (
    SELECT c.oid, c.reltoastrelid FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = %s
      AND c.relkind = ANY (ARRAY['r', 'm', 'p']::pg_catalog."char"[])
)
SELECT oid::pg_catalog.int8 FROM part
UNION ALL
SELECT reltoastrelid::pg_catalog.int8 FROM part WHERE reltoastrelid <> 0
"""
)
# Whoever builds an index of a table holds this lock on it; so does autovacuum, which is
# of no role.
BUSY_TABLES: Final = qualified(
    """
SELECT l.relation
FROM pg_catalog.pg_locks l
JOIN pg_catalog.pg_database d ON d.oid = l.database
JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
WHERE d.datname = pg_catalog.current_database() AND l.granted
  AND l.mode = 'ShareUpdateExclusiveLock' AND a.usesysid IS NOT NULL
  AND l.pid <> pg_catalog.pg_backend_pid() AND l.relation IS NOT NULL
"""
)
# The columns of an index, those aside that it only includes; NULL for an expression.
KEYS: Final = qualified(
    """
SELECT ARRAY(
    SELECT (SELECT a.attname::pg_catalog.text FROM pg_catalog.pg_attribute a
            WHERE a.attrelid = i.indrelid AND a.attnum = i.indkey[g] AND a.attnum > 0)
    FROM pg_catalog.generate_series(0, i.indnkeyatts - 1) g ORDER BY g)
FROM pg_catalog.pg_index i WHERE i.indexrelid = %s
"""
)
LEFTOVERS: Final = qualified(
    """
SELECT i.indexrelid::pg_catalog.int8
FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
WHERE NOT i.indisvalid AND c.relname ~ '_cc(new|old)[0-9]*$'
  AND ({tables} IS NULL OR i.indrelid = ANY ({tables}))
  AND i.indrelid <> ALL (ARRAY({busy}))
"""
)


def note_create_index(conn: Conn, schema: str | None, table: str) -> dict[str, Any]:
    """Return the table, as the search path finds it, and the indexes that it has."""
    oid = find_oid(conn, schema, table)
    rows = conn.execute(
        qualified(
            "SELECT indexrelid::pg_catalog.int8 FROM pg_catalog.pg_index "
            "WHERE indrelid = %s"
        ),
        (oid,),
    ).fetchall()
    return {"table": oid, "indexes": [row[0] for row in rows]}


def new_indexes(conn: Conn, before: Facts) -> list[tuple[int, bool]]:
    """Return the indexes that were not there before, and whether each is valid."""
    rows = conn.execute(
        qualified(
            "SELECT indexrelid::pg_catalog.int8, indisvalid FROM pg_catalog.pg_index "
            "WHERE indrelid = %s"
        ),
        (before["table"],),
    ).fetchall()
    return [(oid, valid) for oid, valid in rows if oid not in before["indexes"]]


def note_reindex(conn: Conn, index: ConcurrentIndex) -> dict[str, Any]:
    """Return the index, and the tables that matter: None for all of the database's."""
    oid, tables = None, None
    if index.name is not None:
        oid = find_oid(conn, index.schema, index.name)
        tables = [row[0] for row in conn.execute(OF_INDEX, (oid, oid))]
    elif index.table is not None:
        oids = find_oid(conn, index.table_schema, index.table)
        tables = [row[0] for row in conn.execute(WITH_PARTS, (oids, oids))]
    elif index.schema is not None:
        tables = [row[0] for row in conn.execute(IN_SCHEMA, (index.schema,))]
    return {"oid": oid, "tables": tables, "leftovers": find_leftovers(conn, tables)}


def find_leftovers(conn: Conn, tables: list[int] | None) -> list[int]:
    """
    Return the invalid indexes that REINDEX CONCURRENTLY leaves when it is cut.

    Leaves out a table where somebody else is at work: they are not left over yet.
    """
    listed = sql.SQL("NULL::pg_catalog.int8[]") if tables is None else integers(tables)
    query = LEFTOVERS.format(tables=listed, busy=BUSY_TABLES)
    rows = conn.execute(query).fetchall()
    return [row[0] for row in rows]


def is_ours(conn: Conn, oid: int, index: ConcurrentIndex) -> bool:
    """
    Tell whether a new index is what a statement has built, or left.

    It has the name that the statement gives it; where it gives none, its columns.
    """
    if index.name is not None:
        return class_name(conn, oid) == index.name
    row = conn.execute(KEYS, (oid,)).fetchone()
    if row is None:
        return False
    keys, named = tuple(row[0]), index.columns
    return keys[: len(named)] == named and (index.has_more or len(keys) == len(named))


def is_busy(conn: Conn, before: Facts) -> bool:
    """Tell whether somebody else is building an index of the table."""
    query = qualified("SELECT {} = ANY (ARRAY({}))").format(
        before["table"], BUSY_TABLES
    )
    row = conn.execute(query).fetchone()
    return row is None or bool(row[0])


def drop_index(conn: Conn, oid: int) -> None:
    """Drop an index, so that no query has to wait."""
    row = conn.execute(
        qualified(
            "SELECT n.nspname, c.relname FROM pg_catalog.pg_class c "
            "JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = %s"
        ),
        (oid,),
    ).fetchone()
    if row is not None:
        name = sql.Identifier(*row)
        conn.execute(sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(name))
