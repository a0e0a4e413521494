"""
Recall what the catalogue has said of a table that was just like this one. Reads only.

The targets of a fleet have the same tables, and a thread asks for all there is to know
of the first one; of others it asks only whether they are alike.
"""

from __future__ import annotations

import time

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeAlias

import psycopg

from psycopg import sql

from migration_gate.connection.qualified import names, qualified
from migration_gate.history.catalogue import (
    IS_NAMED,
    TABLES_MAX,
    Before,
    Facts,
    ask_after,
    ask_catalogue,
    asking,
    in_schema,
)
from migration_gate.history.lasting import IS_LASTING
from migration_gate.history.likeness import IS_ODD, LINE
from migration_gate.history.table import may_be_foreign
from migration_gate.history.tools import MARKS, NAMES, SCHEMAS
from migration_gate.history.trust import Owners
from migration_gate.settings.settings import HistoryTableName


# What is granted or revoked meanwhile counts from then on.
REMEMBERED_S: Final = 30.0
# Of the history, and of what stands beside it.
OWN_SUFFIXES: Final = ("", "_progress", "_failures")
SERVER: Final = qualified(
    """
SELECT pg_catalog.pg_backend_pid(), pg_catalog.pg_is_in_recovery(),
    pg_catalog.current_setting('transaction_read_only') = 'on', current_user,
    (SELECT pg_catalog.pg_get_userbyid(datdba) FROM pg_catalog.pg_database
     WHERE datname = pg_catalog.current_database()),
    pg_catalog.current_setting('search_path'), {is_lasting},
    coalesce({schema}, pg_catalog.current_schema()), {schema_exists}, {has_no_other},
    {tables}
"""
)
# Of the rows ``c`` and ``n`` of pg_class and pg_namespace.
TABLES: Final = qualified(
    """
(SELECT {what}
 FROM pg_catalog.pg_class c
 JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relname = ANY ({tables})
   AND c.relkind = ANY (ARRAY['r', 'v', 'm', 'f', 'p']::pg_catalog."char"[])
   {in_schema})
"""
)
# Half of what it costs in a new session to ask what they are.
ANY: Final = qualified("pg_catalog.count(*) > 0")
LIKENESS: Final = qualified(
    """
pg_catalog.json_agg(pg_catalog.json_build_array(
    n.nspname, c.relname, c.oid::pg_catalog.int8, {place}, {is_named},
    EXISTS (SELECT FROM pg_catalog.pg_class f
            WHERE f.relnamespace = c.relnamespace
              AND f.relname = pg_catalog.concat(c.relname, '_failures')),
    EXISTS (SELECT FROM pg_catalog.pg_class f
            WHERE f.relnamespace = c.relnamespace
              AND f.relname = pg_catalog.concat(c.relname, '_progress')),
    {line}))
"""
)
PLACE: Final = qualified(
    "pg_catalog.array_position(pg_catalog.current_schemas(false), n.nspname)"
)
SCHEMA_EXISTS: Final = qualified(
    "EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = {})"
)
# What ``foreign.CANDIDATES`` would find, without the tables of our names.
NO_OTHER: Final = qualified(
    """
NOT EXISTS (SELECT FROM {tables_within}
      AND b.relkind = 'r' AND b.relpersistence <> 't' AND b.relname <> ALL ({ours})
      AND (b.relname = ANY ({tables}) OR EXISTS (
          SELECT FROM pg_catalog.pg_attribute m
          WHERE m.attrelid = b.oid AND m.attname = ANY ({marks}))))
"""
)
# The tables ``b`` of a schema: there is no index of them but by what depends on it.
IN_ONE: Final = qualified(
    """
pg_catalog.pg_depend d
    JOIN pg_catalog.pg_class b ON b.oid = d.objid
    WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
      AND d.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass
      AND d.refobjid = (
          SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = {schema})
"""
)
# Those of a database. Those that PostgreSQL makes have lower oids.
IN_ANY: Final = qualified(
    """
pg_catalog.pg_class b
    WHERE b.oid >= 16384::pg_catalog.oid AND b.relnamespace = ANY (ARRAY(
          SELECT n.oid FROM pg_catalog.pg_namespace n
          WHERE n.nspname = ANY (pg_catalog.current_schemas(false) || {schemas})))
"""
).format(schemas=names(SCHEMAS))

LIKE: Final = sql.SQL(", 'line', {line}, 'is_odd', {is_odd}").format(
    line=LINE, is_odd=IS_ODD
)

# The role that is acted as, and the owner of the database: a table may be trusted for
# the sake of either.
Who: TypeAlias = tuple[str, str]
# Host, address, port and login role: several servers may go by one name.
Server: TypeAlias = tuple[str, str, int, str]


class Table(NamedTuple):
    """A table as it is now; ``place`` is that of its schema in the search path."""

    schema: str
    name: str
    oid: int
    place: int | None
    is_named: bool
    has_failures: bool
    has_progress: bool
    line: str

    @property
    def order(self) -> tuple[bool, int, bool, bytes]:
        """Return what tables are sorted by, as the catalogue does it."""
        is_last = self.place is None
        return is_last, self.place or 0, not self.is_named, self.schema.encode()


class Memory:
    """
    What one server has said to one role.

    ``expects_none`` tells that the last target had no table.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.expects_none = False
        self._until_s = time.monotonic() + REMEMBERED_S
        self._owners: dict[Who, Owners] = {}
        self._facts: dict[tuple[Who, str], Mapping[str, Any]] = {}

    def is_of(self, server: Server) -> bool:
        """Return whether it is of this server, and not out of date."""
        return self.server == server and time.monotonic() < self._until_s

    def learn(self, who: Who, facts: Facts) -> None:
        """Remember the owners, and the tables of which nothing is out of the way."""
        self._owners[who] = facts.owners
        for table in facts.tables:
            if _is_plain(table):
                self._facts[who, table["line"]] = table

    def recall(self, who: Who, server: Facts, tables: list[Table]) -> Facts | None:
        """Return what there is to say of tables; None where one is not known."""
        owners = self._owners.get(who)
        if owners is None or len(tables) >= TABLES_MAX:
            return None
        known = []
        for table in sorted(tables, key=lambda table: table.order):
            facts = self._facts.get((who, table.line))
            if facts is None:
                return None
            known.append({**facts, **_own_facts(table)})
        return server._replace(owners=owners, tables=tuple(known))


class _Mind:
    """What one thread remembers."""

    def __init__(self) -> None:
        self._memory: Memory | None = None

    def ask(
        self,
        conn: psycopg.Connection[Any],
        name: HistoryTableName,
        role: str | None,
        *,
        after: Before | None = None,
    ) -> Facts:
        """
        Ask for the facts as ``ask_catalogue`` does, or for what they can be told by.

        One round trip, and another one where that is not enough.
        """
        info = conn.info
        server = info.host, info.hostaddr, info.port, info.user
        memory = self._memory
        if memory is None or not memory.is_of(server):
            memory = self._memory = Memory(server)
        row = ask_after(conn, _ask(name, whether=memory.expects_none), after)
        if memory.expects_none and row[-1]:
            row = ask_after(conn, _ask(name), None)
        pid, is_standby, is_read_only, acting_role, owner, *more, tables = row
        path, is_lasting, schema, schema_exists, has_no_other = more
        memory.expects_none = not tables
        who = acting_role, owner
        if pid == conn.info.backend_pid:  # else a pooler may have taken another server
            found = [Table(*table) for table in tables or ()]
            facts = Facts(
                backend_pid=pid,
                is_standby=is_standby,
                is_read_only=is_read_only,
                acting_role=acting_role,
                schema=schema,
                schema_exists=schema_exists,
                search_path=path,
                owners=Owners((), ()),
                tables=(),
                # One that is recalled is ours; of two, one may be another tool's.
                is_bare=has_no_other and len(found) <= 1,
                is_shareable=not is_lasting,
            )
            recalled = memory.recall(who, facts, found)
            if recalled is not None:
                return recalled
        full = ask_catalogue(conn, name, role, more=LIKE)
        memory.learn(who, full)
        return full._replace(is_shareable=not is_lasting)


@contextmanager
def remembering() -> Iterator[None]:
    """Let this thread remember in a block what it is told of tables."""
    asking.ask = _Mind().ask
    try:
        yield
    finally:
        del asking.ask


def _ask(name: HistoryTableName, *, whether: bool = False) -> sql.Composed:
    """
    Return what asks the server about itself and the tables.

    Args:
        name: The history table.
        whether: Only whether there is a table.
    """
    schema = sql.SQL("{}::pg_catalog.name").format(name.schema)
    anywhere = name.schema is None
    place = PLACE if anywhere else sql.SQL("1")
    likeness = LIKENESS.format(place=place, is_named=IS_NAMED, line=LINE)
    tables = TABLES.format(
        what=ANY if whether else likeness,
        tables=names(name.tables),
        in_schema=sql.SQL("") if name.schema is None else in_schema(name.schema),
    )
    return SERVER.format(
        # Only between schemas of one database a session is kept for files.
        is_lasting=IS_LASTING if name.is_target else sql.SQL("true"),
        schema=schema,
        schema_exists=sql.SQL("true") if anywhere else SCHEMA_EXISTS.format(schema),
        # The history's schema may be one of a database that is looked at as a whole.
        has_no_other=NO_OTHER.format(
            tables_within=IN_ONE.format(schema=schema) if name.is_target else IN_ANY,
            **_known_names(name.tables),
        ),
        tables=tables,
    )


@lru_cache
def _known_names(tables: tuple[str, ...]) -> dict[str, sql.SQL]:
    """Return our names, other tools' and those of their columns, each as one piece."""
    ours = [f"{table}{suffix}" for table in tables for suffix in OWN_SUFFIXES]
    listed = {"ours": ours, "tables": sorted(NAMES), "marks": MARKS}
    return {what: sql.SQL(names(words).as_string()) for what, words in listed.items()}


def _is_plain(table: Mapping[str, Any]) -> bool:
    """Tell a table that serves as the history, and that another one may be like."""
    rights = table["can_select"] and table["can_insert"] and table["can_update"]
    # Types of others' own may be other ones in another database.
    is_common = all("." not in column["type_name"] for column in table["columns"] or ())
    # What is not the gate's own is not looked for in every schema.
    is_ours = not may_be_foreign(table)
    is_trusted = not table["is_odd"] and table["owner_is_trusted"]
    return bool(is_trusted and rights and is_common and is_ours)


def _own_facts(table: Table) -> dict[str, Any]:
    """Return what is a table's own."""
    return {
        "oid": table.oid,
        "schema": table.schema,
        "name": table.name,
        "is_in_path": table.place is not None,
        "is_named": table.is_named,
        "has_failures": table.has_failures,
        "has_progress": table.has_progress,
    }
