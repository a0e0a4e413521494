"""
How large tables are in the real database. One question, in a read-only transaction.
"""

from __future__ import annotations

from typing import Any, Final

import psycopg

from migration_gate.connection.qualified import qualified
from migration_gate.rehearsal.facts import Size, Sizes


# Nothing is left in a session, which a pooler may give to the application next.
ONLY_READ: Final = """
BEGIN READ ONLY;
SET LOCAL statement_timeout = '30s';
SET LOCAL lock_timeout = '1s'
"""
# Of a partitioned table, what its partitions have together; of one that is dropped
# meanwhile, nothing.
SIZES: Final = qualified(
    """
WITH leaf AS (
    SELECT c.oid AS root, c.oid AS oid FROM pg_catalog.pg_class c
    WHERE c.relkind = ANY (ARRAY['r', 'm']::pg_catalog."char"[])
      AND c.oid >= 16384::pg_catalog.oid
    UNION ALL
    SELECT p.oid, t.relid::pg_catalog.oid FROM pg_catalog.pg_class p,
        LATERAL pg_catalog.pg_partition_tree(p.oid) t
    WHERE p.relkind = 'p'::pg_catalog."char" AND t.isleaf
)
SELECT n.nspname, r.relname,
    coalesce(pg_catalog.sum(pg_catalog.pg_table_size(leaf.oid)), 0)::pg_catalog.int8,
    coalesce(pg_catalog.sum(pg_catalog.pg_indexes_size(leaf.oid)), 0)::pg_catalog.int8,
    pg_catalog.sum(greatest(c.reltuples, 0))::pg_catalog.int8
FROM leaf
JOIN pg_catalog.pg_class r ON r.oid = leaf.root
JOIN pg_catalog.pg_namespace n ON n.oid = r.relnamespace
JOIN pg_catalog.pg_class c ON c.oid = leaf.oid
GROUP BY n.nspname, r.relname
"""
)


def read_sizes(conn: psycopg.Connection[Any]) -> Sizes:
    """Return the size of each table, by schema and name. Reads only."""
    conn.execute(ONLY_READ)
    rows = conn.execute(SIZES).fetchall()
    conn.execute("COMMIT")
    return {(schema, name): Size(*size) for schema, name, *size in rows}
