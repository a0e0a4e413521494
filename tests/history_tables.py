"""History tables as other programs make them, and what tests ask about them."""

from __future__ import annotations

from typing import Any

from tests.fix_gate import Run
from tests.fix_postgres import Database


# SPEC.md, section 5: the table the world already has.
PLAIN = """
CREATE TABLE schema_migrations (
    id         SERIAL PRIMARY KEY,
    version    VARCHAR(255) NOT NULL UNIQUE,
    applied_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP
);
"""
# The same as the gate makes it.
FULL = f"""
{PLAIN}
ALTER TABLE schema_migrations
    ADD checksum text, ADD duration_ms bigint, ADD gate_version text,
    ADD superseded text;
"""
OURS = [
    ("checksum", "text"),
    ("duration_ms", "bigint"),
    ("gate_version", "text"),
    ("superseded", "text"),
]
ONE = {"1_a.sql": "CREATE TABLE a ();"}
TWO = {**ONE, "2_b.sql": "CREATE TABLE b ();"}

COLUMNS = """
SELECT a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod),
       a.attnotnull, pg_catalog.pg_get_expr(d.adbin, d.adrelid)
FROM pg_catalog.pg_attribute a
LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = %s::text::pg_catalog.regclass AND a.attnum > 0
  AND NOT a.attisdropped
ORDER BY a.attnum
"""
# Everything that a write, a lock or a change of definition would show in.
TRACES = """
SELECT c.oid::bigint, c.relname::text, c.relkind::text, c.xmin::text,
       c.relfilenode::bigint,
       (SELECT pg_catalog.array_agg(a.attname::text ORDER BY a.attnum)
        FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid)
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname !~ '^(pg_|information_schema)'
ORDER BY 1
"""
LOCKS = """
SELECT count(*) FROM pg_catalog.pg_locks l
JOIN pg_catalog.pg_stat_activity a USING (pid)
WHERE a.datname = pg_catalog.current_database() AND pid <> pg_catalog.pg_backend_pid()
"""


def columns(database: Database, table: str) -> list[tuple[Any, ...]]:
    """Return name, type, NOT NULL and default of each column."""
    return database.fetch(COLUMNS, [table])


def versions(database: Database, table: str = "schema_migrations") -> list[str]:
    """Return what the history has, in the order of its rows."""
    rows = database.fetch(f"SELECT version FROM {table} ORDER BY applied_at, version")
    return [version for (version,) in rows]


def tables(database: Database) -> list[str]:
    """Return the tables in the schema public, but for the history."""
    rows = database.fetch(
        "SELECT tablename::text FROM pg_catalog.pg_tables WHERE schemaname = 'public'"
        " AND tablename NOT IN ('schema_migrations', 'schema_migrations_failures')"
        " ORDER BY 1"
    )
    return [table for (table,) in rows]


def traces(database: Database, *tables: str) -> list[list[tuple[Any, ...]]]:
    """Return all that a gate which touches nothing leaves as it is."""
    rows = [database.fetch(f"SELECT xmin::text, * FROM {table}") for table in tables]
    return [database.fetch(TRACES), database.fetch(LOCKS), *rows]


def why(run: Run) -> tuple[int, str, str]:
    """Return exit code, reason and message of a gate that closed."""
    return run.exit_code, run.verdict["reason"], run.verdict["error_message"]
