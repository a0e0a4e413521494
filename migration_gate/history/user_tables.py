"""
Tell a database that has tables from one that is new. Reads only.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import psycopg

from psycopg import sql

from migration_gate.connection.qualified import names, qualified
from migration_gate.history.catalogue import OWNER_IS_TRUSTED, ROLES, tables_of
from migration_gate.settings.settings import HistoryTableName


SHOWN_MAX: Final = 5
COMPANIONS: Final = ("", "_progress", "_failures")
FIRST_OWN_OID: Final = 16384  # access/transam.h: FirstNormalObjectId
# What a provider puts into each new database without an extension.
PLATFORM_SCHEMAS: Final = (
    *("auth", "storage", "realtime", "_realtime", "vault", "graphql", "pgsodium"),
    *("supabase_functions", "supabase_migrations", "_analytics", "neon_auth"),
    *("hdb_catalog", "metric_helpers", "cron"),
)
TABLES: Final = qualified(
    """
WITH RECURSIVE {roles}
SELECT pg_catalog.concat(n.nspname, '.', c.relname),
       (n.nspname = {schema} OR n.nspname = ANY (pg_catalog.current_schemas(false)))
       AND {owner_is_trusted}
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = ANY (ARRAY['r', 'p', 'f']::pg_catalog."char"[])
  AND c.relpersistence <> 't' AND c.oid::pg_catalog.int8 >= {first_own}
  AND n.nspname <> ALL ({platform}) AND c.relname <> ALL ({own})
  {within}
  AND NOT EXISTS (
      SELECT FROM pg_catalog.pg_depend d
      WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
        AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY 2 DESC, 1 LIMIT {limit}
"""
)


class UserTables(NamedTuple):
    """
    The first few tables that no extension, provider or gate has made, by name.

    ``near`` are in the schemas of the search path, or the history's, and of a role that
    the gate trusts; ``far`` are all others, which anybody may have made.
    """

    near: tuple[str, ...]
    far: tuple[str, ...]


def find_user_tables(
    conn: psycopg.Connection[Any],
    name: HistoryTableName,
    schema: str | None,
    role: str | None,
) -> UserTables:
    """
    Look for tables.

    Args:
        name: The history's; it and what stands beside it do not count.
        schema: The history's.
        role: GATE_ROLE, whose tables are trusted too.
    """
    own = [f"{table}{e}" for table in name.tables for e in COMPANIONS]
    query = TABLES.format(
        roles=ROLES.format(role=role),
        owner_is_trusted=OWNER_IS_TRUSTED,
        schema=sql.SQL("{}::pg_catalog.name").format(schema),
        within=tables_of(schema if name.is_target else None),
        first_own=sql.Literal(FIRST_OWN_OID),
        platform=names(PLATFORM_SCHEMAS),
        own=names(own),
        limit=sql.Literal(SHOWN_MAX),
    )
    rows = conn.execute(query).fetchall()
    return UserTables(
        near=tuple(table for table, is_near in rows if is_near),
        far=tuple(table for table, is_near in rows if not is_near),
    )
