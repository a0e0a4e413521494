"""
Look at the histories of many schemas of one database in few round trips. Reads only.

Where a history is not plainly one of the gate's own, or is changed or locked meanwhile,
nothing is said of it: that schema is looked at by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

import psycopg

from psycopg import sql

from migration_gate.files.migration import AppliedMigration
from migration_gate.history.catalogue import Facts, ask_catalogue, ask_many
from migration_gate.history.choice import choose_history
from migration_gate.history.look import CHANGED, to_history, to_tool
from migration_gate.history.rows import ADOPTED_FROM, read_rows, require_same
from migration_gate.history.table import HistoryTable, may_be_foreign, recognise_table
from migration_gate.report.errors import GateError
from migration_gate.settings.settings import HistoryTableName


# A transaction holds locks on each table that it reads, of a few ten thousand in all.
SCHEMAS_EACH: Final = 250
# Where the server has room for few locks, or others hold many, it is tried with less.
FEWER: Final = 4
# No table is looked for where only the server is asked about itself.
NO_SCHEMA: Final = ""
# Which takes the server less than one statement for all, and less than one for each.
TABLES_EACH: Final = 25
BEGIN: Final = sql.SQL(
    "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; SET LOCAL lock_timeout = '500ms'"
)
COMMIT: Final = sql.SQL("COMMIT")
NOT_NOW: Final = (*CHANGED, psycopg.errors.LockNotAvailable)
# What a plan depends on, in the order of the rows' age; the times themselves differ.
DIGEST: Final = sql.SQL(
    "SELECT {number} AS number, pg_catalog.encode(pg_catalog.sha256("
    "pg_catalog.textsend(pg_catalog.string_agg("
    "ROW(version, {checksum}, {superseded}, {origin})::pg_catalog.text, ',' "
    "ORDER BY applied_at, version COLLATE pg_catalog.\"C\"))), 'hex') AS digest "
    "FROM {table} WHERE version IS NOT NULL"
)
ORIGIN: Final = sql.SQL(
    "CASE WHEN pg_catalog.starts_with(gate_version, {}) THEN gate_version END"
).format(ADOPTED_FROM)


class History(NamedTuple):
    """Rows that many schemas have alike, oldest first; ``tool`` as in ``Look``."""

    digest: str
    rows: tuple[AppliedMigration, ...]
    tool: str | None


def look_at_many(
    conn: psycopg.Connection[Any],
    name: HistoryTableName,
    schemas: Sequence[str],
    role: str | None,
) -> Iterator[tuple[str, History]]:
    """
    Yield the schemas whose histories are seen, each with its history.

    Args:
        conn: In autocommit: each batch is a transaction of its own.
        name: The history table, whose schema is each of the schemas.
        schemas: Those to look at.
        role: GATE_ROLE, whose tables are trusted too.
    """
    server = ask_catalogue(conn, name._replace(schema=NO_SCHEMA), role)
    if server.is_standby or server.is_read_only:
        return
    known: dict[str, History] = {}
    at, each = 0, SCHEMAS_EACH
    while at < len(schemas):
        batch = schemas[at : at + each]
        tables = _find_tables(ask_many(conn, server, name, batch, role), name)
        try:
            for schema, digest in _ask_digests(conn, tables) if tables else ():
                if digest not in known:
                    known[digest] = _ask_history(conn, *tables[schema], digest)
                yield schema, known[digest]
        except psycopg.errors.OutOfMemory:
            conn.execute("ROLLBACK")
            if len(batch) > 1:
                each = max(1, len(batch) // FEWER)
                continue
        except NOT_NOW:
            conn.execute("ROLLBACK")
        at += len(batch)


def _find_tables(
    found: Mapping[str, Facts], name: HistoryTableName
) -> dict[str, tuple[HistoryTable, int]]:
    """Return the tables that are plainly histories, with their oids, by schema."""
    tables = {}
    for schema, facts in found.items():
        with suppress(GateError):
            _, choice = choose_history(facts, name._replace(schema=schema))
            if choice.table is not None and not may_be_foreign(choice.table):
                table = recognise_table(choice.table)
                tables[schema] = table, choice.table["oid"]
    return tables


def _digest(table: HistoryTable, number: int) -> sql.Composed:
    ours = {
        name: sql.Identifier(name) if name in table.our_columns else sql.NULL
        for name in ("checksum", "superseded")
    }
    return DIGEST.format(
        number=number,
        **ours,
        origin=ORIGIN if "gate_version" in table.our_columns else sql.NULL,
        table=sql.Identifier(table.schema, table.name),
    )


def _ask_digests(
    conn: psycopg.Connection[Any], tables: Mapping[str, tuple[HistoryTable, int]]
) -> list[tuple[str, str]]:
    """Ask for the digest of each table that has a row. One round trip."""
    schemas = list(tables)
    judged = list(tables.values())
    queries = [_digest(table, at) for at, (table, _) in enumerate(judged)]
    statements = [
        sql.SQL(" UNION ALL ").join(queries[at : at + TABLES_EACH])
        for at in range(0, len(queries), TABLES_EACH)
    ]
    read = require_same(judged) + sql.SQL("; ").join(statements)
    cursor = conn.execute(sql.SQL("; ").join([BEGIN, read, COMMIT]))
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
        _digest(table, 0), read_rows(table)
    )
    cursor = conn.execute(require_same([(table, oid)]) + query)
    while cursor.nextset():
        pass
    _, found, _, rows, origin = cursor.fetchall()[0]
    if found != digest:
        raise psycopg.errors.LockNotAvailable
    return History(digest, to_history(rows or ()), to_tool(origin))
