"""
Tell which tables are alike in all that they are judged by. Reads only.

One of them is judged then, for all: the catalogue's facts of a table take the server
ten times as long as a line that is the same for those that are alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import psycopg

from psycopg import sql

from migration_gate.connection.qualified import names, qualified
from migration_gate.settings.settings import HistoryTableName


# Of 8 kB: a history of some two hundred rows.
PAGES_MAX: Final = 4
# Of the row ``c`` of pg_class. What is odd about a table may differ from what is odd
# about another one: so it has its oid.
IS_ODD: Final = qualified(
    "(c.relkind <> 'r' OR c.relpersistence = 't'"
    " OR c.relhasrules OR c.relhastriggers OR c.relrowsecurity)"
)
LINE: Final = qualified(
    """
ROW(current_user, pg_catalog.pg_get_userbyid(c.relowner), c.relacl,
    pg_catalog.has_schema_privilege(c.relnamespace, 'USAGE'),
    pg_catalog.has_table_privilege(c.oid, 'SELECT'),
    c.relkind, c.relpersistence,
    CASE WHEN {is_odd} THEN c.oid END,
    (SELECT pg_catalog.array_agg(ROW(
         a.attname, a.attnum, a.atttypid, a.attnotnull, a.atthasdef, a.attidentity,
         a.attacl)::pg_catalog.text)
     FROM pg_catalog.pg_attribute a
     WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
    (SELECT pg_catalog.array_agg(ROW(
         i.indisunique, i.indisvalid, i.indnkeyatts, i.indkey,
         i.indpred IS NULL, i.indexprs IS NULL)::pg_catalog.text)
     FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid)
)::pg_catalog.text
"""
).format(is_odd=IS_ODD)
# A server that cannot be written has none.
LINES: Final = qualified(
    """
SELECT n.nspname, c.relname, c.oid::pg_catalog.int8, {line},
    c.relpages <= {pages} AND NOT c.relhassubclass
FROM (SELECT oid, nspname FROM pg_catalog.pg_namespace
      WHERE nspname = ANY ({schemas}) OFFSET 0) n,
     LATERAL (SELECT k.* FROM pg_catalog.pg_class k
              WHERE k.relnamespace = n.oid AND k.relname = ANY ({tables})
              OFFSET 0) c
WHERE c.relkind = ANY (ARRAY['r', 'v', 'm', 'f', 'p']::pg_catalog."char"[])
  AND NOT pg_catalog.pg_is_in_recovery()
  AND pg_catalog.current_setting('transaction_read_only') = 'off'
"""
)

# The name and the line of each of a schema's tables, in the order of the names.
Likeness: TypeAlias = tuple[tuple[str, str], ...]


class Found(NamedTuple):
    """
    The tables of a schema: their oids by their names, and what they are alike in.

    ``are_small`` tells that none of them had more than a few pages when it was last
    counted, and that none has others' rows.
    """

    likeness: Likeness
    oids: dict[str, int]
    are_small: bool


def ask_likeness(
    conn: psycopg.Connection[Any], name: HistoryTableName, schemas: Sequence[str]
) -> dict[str, Found]:
    """
    Ask for the tables of many schemas. One round trip.

    Schemas without one are left out; all are where the server cannot be written.

    Args:
        conn: Where to ask.
        name: The history table; its schema is not looked at.
        schemas: Those to look at.
    """
    query = LINES.format(
        line=LINE,
        pages=sql.Literal(PAGES_MAX),
        schemas=names(schemas),
        tables=names(name.tables),
    )
    found: dict[str, list[tuple[str, int, str, bool]]] = {}
    for schema, *table in conn.execute(query).fetchall():
        found.setdefault(schema, []).append(tuple(table))
    return {schema: _to_found(tables) for schema, tables in found.items()}


def _to_found(tables: list[tuple[str, int, str, bool]]) -> Found:
    tables.sort()
    return Found(
        likeness=tuple((table, line) for table, _, line, _ in tables),
        oids={table: oid for table, oid, *_ in tables},
        are_small=all(is_small for *_, is_small in tables),
    )
