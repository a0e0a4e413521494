"""
Refuse to take nothing over where a history is there that cannot be seen. Reads only.

A tool's table may be in a schema that the search path does not name, a view may have
its name, or somebody may have altered it. GATE_ADOPT says that there is one somewhere:
to run every file then would run what the tool has run.
"""

from __future__ import annotations

from typing import Final

from psycopg import sql

from migration_gate.connection.limited import LimitedConnection
from migration_gate.connection.qualified import names, qualified
from migration_gate.history.readers import Reader
from migration_gate.history.tools import SCHEMAS, find_tool
from migration_gate.report.errors import HistoryError
from migration_gate.settings.settings import HistoryTableName


KINDS: Final = {
    "v": "a view",
    "m": "a materialized view",
    "f": "a foreign table",
    "p": "a partitioned table",
}
FIRST_OWN_OID: Final = 16384
NAMED: Final = qualified(
    """
SELECT n.nspname, c.relname, c.relkind::pg_catalog.text,
       n.nspname = ANY (pg_catalog.current_schemas(false) || {near}),
       pg_catalog.json_object_agg(a.attname, CASE WHEN tn.nspname = 'pg_catalog'
           THEN t.typname::pg_catalog.text ELSE pg_catalog.concat('.', t.typname) END)
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
JOIN pg_catalog.pg_namespace tn ON tn.oid = t.typnamespace
WHERE c.relkind = ANY (ARRAY['r', 'v', 'm', 'f', 'p']::pg_catalog."char"[])
  AND c.relpersistence <> 't' AND c.oid::pg_catalog.int8 >= {first_own}
  AND a.attnum > 0 AND NOT a.attisdropped
  AND c.relname = {table} AND ({schema} IS NULL OR n.nspname = {schema})
GROUP BY n.nspname, c.relname, c.relkind
ORDER BY n.nspname
"""
)


def require_none_hidden(
    conn: LimitedConnection, word: str, reader: Reader, named: HistoryTableName | None
) -> None:
    """
    Refuse where nothing with rows was found, and something may be it.

    Args:
        conn: Where to ask.
        word: The tool, as GATE_ADOPT names it.
        reader: How its history is read.
        named: Where it is, if a person has said so.

    Raises:
        HistoryError: A relation has the history's name.
    """
    where = named or HistoryTableName(reader.schema, reader.table)
    schema = sql.SQL("{}::pg_catalog.name").format(where.schema)
    query = NAMED.format(
        near=names([*SCHEMAS, *([where.schema] if where.schema else [])]),
        first_own=sql.Literal(FIRST_OWN_OID),
        table=where.table,
        schema=schema,
    )
    for found_schema, table, kind, is_near, types in conn.execute(query).fetchall():
        tool = find_tool(table, types, is_named=named is not None)
        is_tools = tool is not None and tool.name == reader.tool
        is_known = tool is not None or {"version", "applied_at"} <= set(types)
        # An empty one, another program's, or of what only another one knows.
        if kind == "r" and (is_near if is_tools else is_known or not is_near):
            continue
        if kind != "r" and not is_near:
            continue
        raise _hidden(word, f"{found_schema}.{table}", kind, is_near=is_near)


def _hidden(word: str, table: str, kind: str, *, is_near: bool) -> HistoryError:
    if not is_near:
        return HistoryError(
            f'{word} has a table "{table}", in a schema that the search path does not '
            "name",
            hint="Nothing was written. Where it is the history of these files: "
            f"GATE_ADOPT={word}:{table}; where it is another application's, set "
            "GATE_ADOPT=none.",
        )
    what = KINDS.get(kind, f"a table with other columns than {word} gives it")
    return HistoryError(
        f'"{table}" has the name of the history of {word}, and is {what}',
        hint="Nothing was written. Name the table itself, with its schema: "
        f"GATE_ADOPT={word}:schema.table; where these files are new to this database, "
        "set GATE_ADOPT=none.",
    )
