"""
Look at the histories of many schemas of one database in few round trips. Reads only.

Tables that are alike are judged once, and rows that are alike are read once. Where a
history is not plainly one of the gate's own, or is changed, locked or damaged, nothing
is said of it: that schema is looked at by itself.
"""

from __future__ import annotations

import threading

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any, Final, TypeVar

import psycopg

from psycopg import pq, sql

from migration_gate.history.catalogue import Facts, ask_catalogue, ask_many
from migration_gate.history.choice import choose_history
from migration_gate.history.copied import Copied, Place, read_copies, to_rows
from migration_gate.history.likeness import Likeness, ask_likeness
from migration_gate.history.look import to_history, to_tool
from migration_gate.history.plain_rows import History, Row, to_history_of
from migration_gate.history.rows import ADOPTED_FROM, read_rows, require_same
from migration_gate.history.table import HistoryTable, may_be_foreign, recognise_table
from migration_gate.report.errors import GateError
from migration_gate.settings.settings import HistoryTableName


T = TypeVar("T")
# Where the server has room for few locks, or others hold many, it is tried with less.
FEWER: Final = 4
# No table is looked for where only the server is asked about itself.
NO_SCHEMA: Final = ""
# Which takes the server less than one statement for all, and less than one for each.
TABLES_EACH: Final = 25
BEGIN: Final = sql.SQL(
    "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; SET LOCAL lock_timeout = '500ms'; "
)
COMMIT: Final = sql.SQL("; COMMIT")
# A transaction that is read-only by itself would look as a server that is.
ONE_MOMENT: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ"
# The session after what was refused.
GOES_ON: Final = frozenset({pq.TransactionStatus.IDLE, pq.TransactionStatus.INERROR})
# What a plan depends on, in the order of the rows' age; the times themselves differ.
DIGEST: Final = sql.SQL(
    " AS number, pg_catalog.encode(pg_catalog.sha256("
    "pg_catalog.textsend(pg_catalog.string_agg("
    "ROW(version, {checksum}, {superseded}, {origin})::pg_catalog.text, ',' "
    "ORDER BY applied_at, version COLLATE pg_catalog.\"C\"))), 'hex') AS digest FROM "
)
SELECT: Final = sql.SQL("SELECT ")
OR: Final = sql.SQL(" UNION ALL ")
NEXT: Final = sql.SQL("; ")
WHERE: Final = sql.SQL(" WHERE version IS NOT NULL")
ORIGIN: Final = sql.SQL(
    "CASE WHEN pg_catalog.starts_with(gate_version, {}) THEN gate_version END"
).format(ADOPTED_FROM)


class Histories:
    """
    Looks at histories, on any number of connections to the database of all of them.

    What is judged or read of one is known of all that are like it.
    """

    def __init__(self, name: HistoryTableName, role: str | None) -> None:
        """
        Make ready to look.

        Args:
            name: The history table; its schema is each that is looked at.
            role: GATE_ROLE, whose tables are trusted too.
        """
        self._name = name
        self._role = role
        self._server: Facts | None = None
        self._judged: dict[Likeness, HistoryTable | None] = {}
        self._known: dict[str, History] = {}
        self._copied: dict[Copied, History | None] = {}
        self._alike: dict[tuple[Row, ...], History] = {}
        self._asking = threading.Lock()

    def look(
        self, conn: psycopg.Connection[Any], schemas: Sequence[str], each: int
    ) -> Iterator[tuple[str, History]]:
        """
        Yield the schemas whose histories are seen, each with its history.

        Args:
            conn: In autocommit.
            schemas: Those to look at.
            each: How many tables a transaction reads, which locks all of them.
        """
        places, small = self._find_tables(conn, schemas)
        for schema, history in _in_lots(self._read, conn, small, each):
            if history is None:
                places[schema] = small[schema]
            else:
                yield schema, history
        yield from _in_lots(self._digest, conn, places, each)

    def _read(
        self, conn: psycopg.Connection[Any], tables: Mapping[str, Place]
    ) -> Iterator[tuple[str, History | None]]:
        """Yield None for what the server has to compare."""
        try:
            copies = read_copies(conn, tables)
        except psycopg.errors.InvalidColumnReference:  # of a generated column
            conn.execute("ROLLBACK")
            copies = ((schema, None) for schema in tables)
        for schema, copied in copies:
            if copied is None:
                yield schema, None
                continue
            if copied not in self._copied:
                with self._asking:
                    self._copied[copied] = self._to_known(to_rows(copied))
            known = self._copied[copied]
            if known is not None:
                yield schema, known

    def _to_known(self, rows: tuple[Row, ...]) -> History | None:
        """Return the history of rows, the same for the same; None where none are."""
        if rows and rows not in self._alike:
            digest = f"{len(self._alike)} read before"
            self._alike[rows] = to_history_of(rows, digest)
        return self._alike.get(rows)

    def _digest(
        self, conn: psycopg.Connection[Any], tables: Mapping[str, Place]
    ) -> Iterator[tuple[str, History]]:
        for schema, digest in _ask_digests(conn, tables):
            yield schema, self._to_history(conn, tables[schema], digest)

    def _find_tables(
        self, conn: psycopg.Connection[Any], schemas: Sequence[str]
    ) -> tuple[dict[str, Place], dict[str, Place]]:
        """Return the tables that are plainly histories, by schema, and the small."""
        found = ask_likeness(conn, self._name, schemas)
        with self._asking:
            one_of_each = {
                tables.likeness: schema
                for schema, tables in found.items()
                if tables.likeness not in self._judged
            }
            if one_of_each:
                self._judge(conn, one_of_each)
        places: dict[str, Place] = {}
        small: dict[str, Place] = {}
        for schema, tables in found.items():
            table = self._judged.get(tables.likeness)
            if table is not None:
                of_these = small if tables.are_small else places
                oid = tables.oids[table.name]
                of_these[schema] = table._replace(schema=schema), oid
        return places, small

    def _judge(
        self, conn: psycopg.Connection[Any], one_of_each: Mapping[Likeness, str]
    ) -> None:
        """
        Judge the tables of one schema of each likeness.

        Both are asked for of one moment: another table may be there by now.
        """
        if self._server is None:
            name = self._name._replace(schema=NO_SCHEMA)
            self._server = ask_catalogue(conn, name, self._role)
        schemas = list(one_of_each.values())
        conn.execute(ONE_MOMENT)
        found = ask_likeness(conn, self._name, schemas)
        facts = ask_many(conn, self._server, self._name, schemas, self._role)
        conn.execute("COMMIT")
        for schema, tables in found.items():
            table = _find_table(facts[schema], self._name)
            self._judged[tables.likeness] = table

    def _to_history(
        self, conn: psycopg.Connection[Any], place: Place, digest: str
    ) -> History:
        with self._asking:
            if digest not in self._known:
                self._known[digest] = _ask_history(conn, *place, digest)
            return self._known[digest]


def _in_lots(
    read: Callable[
        [psycopg.Connection[Any], Mapping[str, Place]], Iterator[tuple[str, T]]
    ],
    conn: psycopg.Connection[Any],
    tables: Mapping[str, Place],
    each: int,
) -> Iterator[tuple[str, T]]:
    """Read so many tables at once; of a lot of which one cannot be read, none is."""
    left = list(tables)
    while left:
        lot = {schema: tables[schema] for schema in left[:each]}
        try:
            yield from read(conn, lot)
        except psycopg.errors.OutOfMemory:
            conn.execute("ROLLBACK")
            if len(lot) > 1:
                each = max(1, len(lot) // FEWER)
                continue
        except psycopg.Error as error:
            if not _is_refusal(conn, error):
                raise
            conn.execute("ROLLBACK")
        del left[: len(lot)]


def _is_refusal(conn: psycopg.Connection[Any], error: psycopg.Error) -> bool:
    """Tell what the server has met in one table from a session that has ended."""
    return error.sqlstate is not None and conn.info.transaction_status in GOES_ON


def _find_table(facts: Facts, name: HistoryTableName) -> HistoryTable | None:
    """Return the table that is plainly the history of a schema, if one is."""
    with suppress(GateError):
        _, choice = choose_history(facts, name._replace(schema=facts.schema))
        if choice.table is not None and not may_be_foreign(choice.table):
            return recognise_table(choice.table)
    return None


@cache
def _ask_digest(our_columns: frozenset[str]) -> sql.SQL:
    ours = {
        name: sql.Identifier(name) if name in our_columns else sql.NULL
        for name in ("checksum", "superseded")
    }
    origin = ORIGIN if "gate_version" in our_columns else sql.NULL
    return sql.SQL(DIGEST.format(**ours, origin=origin).as_string())


def _digest(table: HistoryTable, number: int) -> list[sql.Composable]:
    """Return the parts of a query; there are many, and to nest them takes time."""
    name = sql.Identifier(table.schema, table.name)
    return [SELECT, sql.Literal(number), _ask_digest(table.our_columns), name, WHERE]


def _ask_digests(
    conn: psycopg.Connection[Any], tables: Mapping[str, Place]
) -> list[tuple[str, str]]:
    """Ask for the digest of each table that has a row. One round trip."""
    schemas = list(tables)
    judged = list(tables.values())
    asks: list[sql.Composable] = []
    for at, (table, _) in enumerate(judged):
        asks += [OR if at % TABLES_EACH else NEXT, *_digest(table, at)]
    cursor = conn.execute(sql.Composed([BEGIN, require_same(judged), *asks, COMMIT]))
    digests = []
    while cursor.nextset():
        if cursor.description is not None and len(cursor.description) > 1:
            digests += cursor.fetchall()
    return [(schemas[at], digest) for at, digest in digests if digest is not None]


def _ask_history(
    conn: psycopg.Connection[Any], table: HistoryTable, oid: int, digest: str
) -> History:
    """
    Ask for the rows of one table of those with this digest.

    Raises:
        psycopg.errors.LockNotAvailable: They are others by now.
    """
    query = sql.SQL("SELECT * FROM ({}) digest, ({}) history").format(
        sql.Composed(_digest(table, 0)), read_rows(table)
    )
    same = require_same([(table, oid)])
    cursor = conn.execute(sql.Composed([BEGIN, same, query, COMMIT]))
    answers = []
    while cursor.nextset():
        if cursor.description is not None:
            answers += cursor.fetchall()
    _, found, _, rows, origin = answers[-1]
    if found != digest:
        raise psycopg.errors.LockNotAvailable
    return History(digest, to_history(rows or ()), to_tool(origin))
