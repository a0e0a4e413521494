"""
Find the histories of other tools, and refuse to run what they may have run. Reads only.

Asked only where the gate has no history of its own yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import psycopg

from psycopg import sql

from migration_gate.connection.limited import (
    ANSWER_TIMEOUT_S,
    LimitedConnection,
    limited,
)
from migration_gate.connection.qualified import qualified
from migration_gate.connection.waits import NoAnswerError
from migration_gate.history.catalogue import OWNER_IS_TRUSTED, ROLES, tables_of
from migration_gate.history.readers import READERS
from migration_gate.history.tools import (
    DBMATE_OR_RAILS,
    MARKS,
    NAMES,
    SCHEMAS,
    Tool,
    find_owner,
    find_tool,
)
from migration_gate.report.errors import HistoryError
from migration_gate.report.quoting import quote_name
from migration_gate.settings.settings import HistoryTableName


CANDIDATES: Final = qualified(
    """
WITH RECURSIVE {roles}
SELECT n.nspname, c.relname, c.oid::pg_catalog.int8,
       pg_catalog.pg_get_userbyid(c.relowner),
       pg_catalog.has_schema_privilege(n.oid, 'USAGE')
       AND pg_catalog.has_table_privilege(c.oid, 'SELECT'),
       pg_catalog.row_security_active(c.oid),
       {owner_is_trusted},
       EXISTS (SELECT FROM pg_catalog.pg_class r WHERE r.relnamespace = n.oid
           AND r.relname = 'ar_internal_metadata'),
       pg_catalog.json_object_agg(a.attname, CASE WHEN tn.nspname = 'pg_catalog'
           THEN t.typname::pg_catalog.text ELSE pg_catalog.concat('.', t.typname) END)
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
JOIN pg_catalog.pg_namespace tn ON tn.oid = t.typnamespace
WHERE c.relkind = 'r' AND c.relpersistence <> 't'
  AND a.attnum > 0 AND NOT a.attisdropped
  AND n.nspname = ANY ({path}ARRAY[{schemas}]::pg_catalog.name[])
  AND (c.relname = ANY (ARRAY[{tables}]) OR EXISTS (
      SELECT FROM pg_catalog.pg_attribute m
      WHERE m.attrelid = c.oid AND m.attname = ANY (ARRAY[{marks}])))
  {within}
GROUP BY n.nspname, c.relname, c.oid, c.relowner, n.oid
ORDER BY n.nspname, c.relname
"""
)
SEARCH_PATH: Final = qualified("pg_catalog.current_schemas(false) || ")
ROWS: Final = sql.SQL(
    "SELECT pg_catalog.count(*), "
    "(pg_catalog.array_agg({newest} ORDER BY {order}))[pg_catalog.count(*)]"
    "::pg_catalog.text FROM ONLY {table} WHERE {counts}"
)
# An error keeps the rows from being read: a planted view would run its functions.
SAME: Final = qualified(
    """
LOCK TABLE ONLY {table} IN ACCESS SHARE MODE;
SELECT CASE WHEN c.oid = {oid}::pg_catalog.oid AND c.relkind = 'r'
        AND NOT pg_catalog.row_security_active(c.oid)
    THEN 'on' ELSE 'gate:replaced' END::pg_catalog.bool
FROM pg_catalog.pg_class c WHERE c.oid = {name}::pg_catalog.regclass;
"""
)
REPLACED: Final = "gate:replaced"
RECORD: Final = (
    "record those first, up to the last one: GATE_BASELINE=VERSION, or the command "
    "baseline VERSION"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """
    Another tool's history.

    ``oid`` is that of the table that was judged. ``unread`` says why its rows are not
    read; then how many they are is not known, and ``count`` is None. ``is_of_rails``
    tells that Rails has run there, whose migrations are no SQL.
    """

    tool: str
    schema: str
    table: str
    oid: int
    count: int | None = None
    newest: str | None = None
    unread: str = ""
    is_of_rails: bool = False

    @property
    def rows(self) -> str:
        """Say how many rows it has, and which is the newest."""
        if self.count is None:
            return self.unread
        if self.count == 0:
            return "no row"
        rows = f"{self.count} row" + "s" * (self.count != 1)
        return f"{rows}, the newest {self.newest}"


def find_foreign(
    conn: LimitedConnection,
    role: str | None = None,
    *,
    limit_s: float = ANSWER_TIMEOUT_S,
) -> Foreign | None:
    """Return the first one of ``iter_foreign``."""
    return next(iter_foreign(conn, role, limit_s=limit_s), None)


def iter_foreign(
    conn: LimitedConnection,
    role: str | None,
    named: HistoryTableName | None = None,
    *,
    only: str | None = None,
    limit_s: float = ANSWER_TIMEOUT_S,
) -> Iterator[Foreign]:
    """
    Yield each history of another tool that has rows that may have run.

    Whoever owns a table can put a view in its place between two questions, and whoever
    writes its policies has their functions run by the role that reads it: so only
    those rows are read that the gate's own history could have.

    Args:
        role: GATE_ROLE, whose tables are trusted too.
        named: A table that may have another name than its tool gives it.
        only: The one schema that is looked at; None for the search path's and those
            that tools make.
        limit_s: How long each table may be waited for.
    """
    schemas, tables = set(SCHEMAS), set(NAMES)
    if named is not None:
        tables.add(named.table)
        schemas.update([named.schema] if named.schema else [])
    query = CANDIDATES.format(
        roles=ROLES.format(role=role),
        owner_is_trusted=OWNER_IS_TRUSTED,
        path=SEARCH_PATH if only is None else sql.SQL(""),
        within=tables_of(only),
        schemas=_listed(sorted(schemas) if only is None else [only]),
        tables=_listed(sorted(tables)),
        marks=_listed(MARKS),
    )
    for schema, table, oid, *rights, is_rails, types in conn.execute(query).fetchall():
        is_named = _is_named(named, schema, table)
        owner = find_tool(table, types, is_named=is_named)
        if owner is None:
            continue
        found = Foreign(
            tool=owner.name,
            schema=schema,
            table=table,
            oid=oid,
            unread=_why_unread(*rights),
            is_of_rails=is_rails and owner.name == DBMATE_OR_RAILS,
        )
        if not found.unread:
            found = _count(conn, owner, found, limit_s)
        if found.count != 0:
            yield found


def _is_named(named: HistoryTableName | None, schema: str, table: str) -> bool:
    return named is not None and named.table == table and named.schema in {None, schema}


def find_adopted(
    conn: LimitedConnection,
    role: str | None,
    tool: str,
    named: HistoryTableName | None,
    *,
    only: str | None = None,
) -> Foreign | None:
    """
    Return the history that is to be taken over; None where there is none with rows.

    Args:
        role: GATE_ROLE, whose tables are trusted too.
        tool: Its name in ``tools.TOOLS``.
        named: Where it is, if a person has said so.
        only: As for ``iter_foreign``.

    Raises:
        HistoryError: Another one is there too, or it cannot be read.
    """
    found = tuple(iter_foreign(conn, role, named, only=only))
    ours = [one for one in found if one.tool == tool]
    if named is not None:
        ours = [one for one in ours if _is_named(named, one.schema, one.table)]
    for one in found:
        if one not in ours:
            raise _may_have_run(one)
    if len(ours) > 1:
        tables = " and ".join(f'"{one.schema}.{one.table}"' for one in ours)
        raise HistoryError(
            f"{tool} has two histories in this database: {tables}",
            hint="Say which one has these files: GATE_ADOPT=TOOL:schema.table.",
        )
    if ours and ours[0].count is None:
        where = f'"{ours[0].schema}.{ours[0].table}"'
        login = quote_name(conn.info.user)
        raise HistoryError(
            f"cannot take over table {where}: it has {ours[0].unread}",
            hint="Nothing was written. "
            f"GRANT USAGE ON SCHEMA {quote_name(ours[0].schema)} TO {login}; "
            f"GRANT SELECT ON {quote_name(ours[0].schema)}.{quote_name(ours[0].table)} "
            f"TO {login}; and set GATE_ROLE to its owner, or start the gate as that; "
            "where another session has it locked, let that end first.",
        )
    return ours[0] if ours else None


def _why_unread(
    owner: str, may_select: object, has_policies: object, is_trusted: object
) -> str:
    if not may_select:
        return "rows that the role may not read"
    if has_policies:
        return "row security, which may hide its rows from the role"
    if not is_trusted:
        return f"an owner who is not trusted, {quote_name(owner)}: it is not read"
    return ""


def require_no_foreign(
    conn: LimitedConnection,
    role: str | None,
    *,
    only: str | None = None,
    only_adoptable: bool = False,
) -> None:
    """
    Refuse to run files where another tool has a history.

    Args:
        role: GATE_ROLE, whose tables are trusted too.
        only: As for ``iter_foreign``.
        only_adoptable: One that cannot be taken over is no matter.

    Raises:
        HistoryError: It may have run them.
    """
    tools = {reader.tool for reader in READERS.values()}
    for found in iter_foreign(conn, role, only=only):
        is_adoptable = found.tool in tools and not found.is_of_rails
        if is_adoptable or not only_adoptable:
            raise _may_have_run(found)


def _may_have_run(found: Foreign) -> HistoryError:
    table = f"{quote_name(found.schema)}.{quote_name(found.table)}"
    tool, way = found.tool, RECORD
    names = [name for name, reader in READERS.items() if reader.tool == found.tool]
    if found.is_of_rails:
        tool = "Rails"
        way += "; where dbmate goes on by that table, set GATE_ADOPT=dbmate"
    elif names:
        way = (
            f"set GATE_ADOPT={names[0]}, or give the command adopt --from {names[0]}: "
            "its history is taken over"
        )
    return HistoryError(
        f"{tool} has a history in this database, and the gate has none: table "
        f"{table} has {found.rows}",
        hint="Nothing was written. Where the files here are new to this database, set "
        f"GATE_ADOPT=none; where the other tool has run some of them, {way}.",
    )


def _count(
    conn: LimitedConnection, tool: Tool, found: Foreign, limit_s: float
) -> Foreign:
    """Count the rows that may have run, where no other session keeps the table."""
    try:
        with limited(conn, limit_s):
            return _ask(conn, tool, found)
    except NoAnswerError:
        return replace(found, unread="rows that another session keeps from being read")


def _ask(conn: psycopg.Connection[Any], tool: Tool, found: Foreign) -> Foreign:
    query = ROWS.format(
        newest=sql.SQL(tool.newest),
        order=sql.SQL(tool.order),
        table=sql.Identifier(found.schema, found.table),
        counts=qualified(tool.counts),
    )
    count, newest = read_same(conn, found, query)[0]
    return replace(found, count=count, newest=newest)


def read_same(
    conn: psycopg.Connection[Any], found: Foreign, query: sql.Composed
) -> list[tuple[Any, ...]]:
    """
    Return the rows that a query of a table gives, if it is the one that was judged.

    Whoever owns its schema may drop it, and make a view of its name, while it is waited
    for.

    Raises:
        HistoryError: It is another one.
    """
    table = sql.Identifier(found.schema, found.table)
    same = SAME.format(
        table=table, name=sql.Literal(table.as_string()), oid=sql.Literal(found.oid)
    )
    try:
        cursor = conn.execute(same + query)
    except psycopg.errors.InvalidTextRepresentation as error:
        if REPLACED not in (error.diag.message_primary or ""):
            raise
        raise HistoryError(
            f'table "{found.schema}.{found.table}" was replaced while it was looked at',
            hint="Nothing was written. Find out who does that, and start the gate "
            "again when it is done.",
        ) from None
    while cursor.nextset():
        pass
    return cursor.fetchall()


def require_not_foreign(
    conn: psycopg.Connection[Any], facts: Mapping[str, Any]
) -> None:
    """
    Refuse a table that another tool keeps its history in.

    Args:
        facts: As ``recognise_table`` takes them.

    Raises:
        HistoryError: It is one.
    """
    tool = find_owner(facts)
    if tool is None:
        return
    unread = _why_unread(
        facts["owner"],
        facts["is_usable"] and facts["can_read_all"],
        facts["row_security"] is not None,
        facts["owner_is_trusted"],
    )
    schema, name = str(facts["schema"]), str(facts["name"])
    found = Foreign(
        tool=tool.name, schema=schema, table=name, oid=int(facts["oid"]), unread=unread
    )
    if not unread:
        found = _ask(conn, tool, found)
    raise HistoryError(
        f'table "{schema}.{name}" belongs to {tool.name}: it has {found.rows}',
        hint="Nothing was written. Leave GATE_HISTORY_TABLE unset, or name a table of "
        "the gate's own in it, e.g. gate_schema_migrations.",
    )


def _listed(names: Iterable[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Literal, names))
