"""
Tell whether another tool is applying at this moment, by its lock. Reads only.

Its rows show what is done, not what is on its way: a history that is taken over then
would be half of one.
"""

from __future__ import annotations

import zlib

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import psycopg

from psycopg import sql

from migration_gate.connection.qualified import qualified
from migration_gate.history.foreign import Foreign


# The advisory locks of the tools, each by its source: from one key to another.
FIXED: Final = {
    "tern": [9628173550095224],  # migrate/migrate.go: lockNum
    "node-pg-migrate": [7241865325823964],  # src/runner.ts: PG_MIGRATE_LOCK_ID
    "prisma": [72707369],  # sql-schema-connector, flavour/postgres.rs
    # lock/postgres.go: DefaultLockID, before and since a correction.
    "goose": [4097083626, 5887940537704921958],
    # cmdapi/migrate.go: applyLockValue, by FNV-1 as in sql/postgres/driver.go.
    "atlas": [2686470616],
}
# PostgreSQLAdvisoryLockTemplate.java: LOCK_MAGIC_NUM, and a hash of 32 bits.
FLYWAY: Final = 77431708279161
HASH: Final = 1 << 31
# database/util.go: GenerateAdvisoryLockId; sqlx-postgres, migrate.rs: generate_lock_id.
MIGRATE_SALT: Final = 1486364155
SQLX_SALT: Final = 0x3D32AD9E
# Beside the history: a row with a mark, or any row at all.
LOCK_TABLES: Final = {
    "liquibase": ("databasechangeloglock", "locked"),
    "yoyo": ("yoyo_lock", "true"),
}

BUSY: Final = qualified(
    """
SELECT l.pid, a.application_name
FROM pg_catalog.pg_locks l
LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
WHERE l.granted AND coalesce(l.pid, 0) <> pg_catalog.pg_backend_pid()
  AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d
                    WHERE d.datname = pg_catalog.current_database())
  AND (l.relation = {table}::pg_catalog.regclass AND l.mode = ANY (ARRAY[
           'RowExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock',
           'AccessExclusiveLock'])
       OR l.locktype = 'advisory' AND l.objsubid = 1 AND ({keys}))
LIMIT 1
"""
)
KEY: Final = qualified(
    "(l.classid::pg_catalog.int8::pg_catalog.numeric * 4294967296 + "
    "l.objid::pg_catalog.int8 >= {first} AND "
    "l.classid::pg_catalog.int8::pg_catalog.numeric * 4294967296 + "
    "l.objid::pg_catalog.int8 <= {last})"
)
LOCK_TABLE: Final = qualified(
    """
SELECT EXISTS (
    SELECT FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_class h ON h.relnamespace = n.oid AND h.relname = {history}
    WHERE n.nspname = {schema} AND c.relname = {table} AND c.relkind = 'r'
      AND c.relowner = h.relowner
      AND pg_catalog.has_table_privilege(c.oid, 'SELECT')
      AND NOT pg_catalog.row_security_active(c.oid))
"""
)


class Busy(NamedTuple):
    """Who is applying; None is what is not known, as where a row is the lock."""

    pid: int | None
    application: str | None


def find_busy(conn: psycopg.Connection[Any], tool: str, found: Foreign) -> Busy | None:
    """
    Return who is applying by a tool at this moment.

    Args:
        tool: As GATE_ADOPT names it.
        found: Its history.
    """
    # Not the name that a pooler has for it.
    (database,) = conn.execute("SELECT pg_catalog.current_database()").fetchall()[0]
    ranges = _lock_ranges(tool, database, found)
    keys = [KEY.format(first=sql.Literal(a), last=sql.Literal(b)) for a, b in ranges]
    query = BUSY.format(
        table=sql.Literal(sql.Identifier(found.schema, found.table).as_string()),
        keys=sql.SQL(" OR ").join(keys) if keys else sql.SQL("false"),
    )
    row = conn.execute(query).fetchone()
    if row is not None:
        return Busy(*row)
    return Busy(None, None) if _holds_row(conn, tool, found) else None


def _lock_ranges(tool: str, database: str, found: Foreign) -> list[tuple[int, int]]:
    if tool == "flyway":
        return [(FLYWAY - HASH, FLYWAY + HASH)]
    keys: Sequence[int] = FIXED.get(tool, ())
    if tool == "golang-migrate":
        name = f"{found.schema}\0{found.table}\0{database}".encode()
        keys = [zlib.crc32(name) * MIGRATE_SALT % (1 << 32)]
    if tool == "sqlx":
        keys = [zlib.crc32(database.encode()) * SQLX_SALT]
    return [(key, key) for key in keys]


def _holds_row(conn: psycopg.Connection[Any], tool: str, found: Foreign) -> bool:
    if tool not in LOCK_TABLES:
        return False
    table, condition = LOCK_TABLES[tool]
    exists = LOCK_TABLE.format(history=found.table, schema=found.schema, table=table)
    if not conn.execute(exists).fetchall()[0][0]:
        return False
    query = sql.SQL("SELECT EXISTS (SELECT FROM ONLY {} WHERE {})").format(
        sql.Identifier(found.schema, table), sql.SQL(condition)
    )
    return bool(conn.execute(query).fetchall()[0][0])
