"""
Glance at a history that is plainly the gate's own: one round trip, and little to do.

A look asks the catalogue of a new session for all that may matter, which costs more
than connecting. Where a single thing is out of the ordinary, a glance shows nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any, Final

import psycopg

from psycopg import sql

from migration_gate.connection.qualified import qualified
from migration_gate.history.plain_rows import Row, to_row
from migration_gate.history.table import Column, find_form_fault
from migration_gate.report.quoting import quote_name
from migration_gate.settings.settings import HistoryTableName


# An error keeps the rows from being read: a planted view would run its functions. What
# a look says of columns is told of each. A new session is slow to plan a query of
# pg_index, so that the index that makes versions unique is known by its name.
PLAIN: Final = qualified(
    """
SELECT CASE WHEN c.relkind = 'r' AND c.relpersistence = 'p'
        AND NOT c.relhasrules AND NOT c.relhastriggers AND NOT c.relrowsecurity
        AND pg_catalog.pg_get_userbyid(c.relowner) = ANY (
            ARRAY[session_user, current_user, {role}]::pg_catalog.name[])
        AND NOT pg_catalog.pg_is_in_recovery()
        AND pg_catalog.current_setting('transaction_read_only') = 'off'
    THEN 'on' ELSE 'gate:not plain' END::pg_catalog.bool, c.oid::pg_catalog.int8,
    (SELECT n.nspname FROM pg_catalog.pg_namespace n WHERE n.oid = c.relnamespace),
    (SELECT pg_catalog.concat_ws(E'\\n', {indexes})),
    a.attname, a.atttypid::pg_catalog.int8,
    NOT a.attnotnull OR a.atthasdef OR a.attidentity <> ''
FROM pg_catalog.pg_class c, pg_catalog.pg_attribute a
WHERE c.oid = {table}::pg_catalog.regclass
  AND a.attrelid = {table}::pg_catalog.regclass AND a.attnum > 0
  AND NOT a.attisdropped
"""
)
INDEX: Final = qualified(
    "pg_catalog.pg_get_indexdef(pg_catalog.to_regclass({})::pg_catalog.oid)"
)
SUFFIXES: Final = ("_version_key", "_pkey")
UNIQUE: Final = "CREATE UNIQUE INDEX {} ON {}.{} USING btree (version)"
# A view has no tableoid. A new session is slow to sort by more, or to call functions.
# What is not used of it is asked for since a look has to have the right to it.
ROWS: Final = sql.SQL(
    "SELECT tableoid::pg_catalog.int8, version::pg_catalog.text, checksum, superseded, "
    "gate_version, duration_ms, applied_at::pg_catalog.text FROM {} "
    "WHERE version IS NOT NULL ORDER BY applied_at"
)


def glance(
    conn: psycopg.Connection[Any], name: HistoryTableName, role: str | None
) -> tuple[str, tuple[Row, ...]]:
    """
    Return the schema of a history, and its rows as ``to_history_of`` takes them.

    They come oldest first, and none has a time or a duration, so that many histories
    have the same.

    Args:
        conn: In autocommit.
        name: The history table; without a schema, the search path's first one.
        role: GATE_ROLE, which may own it.

    Raises:
        psycopg.Error: There is something that needs a look.
    """
    parts = [name.table] if name.schema is None else [name.schema, name.table]
    table = sql.Identifier(*parts)
    keys = [f"{name.table}{suffix}" for suffix in SUFFIXES]
    indexes = [
        INDEX.format(sql.Identifier(*parts[:-1], key).as_string()) for key in keys
    ]
    plain = PLAIN.format(
        role=role,
        table=table.as_string(),
        indexes=sql.SQL(", ").join(indexes),
    )
    cursor = conn.execute(sql.SQL("; ").join([plain, ROWS.format(table)]))
    facts = cursor.fetchall()
    _, oid, schema, made, *_ = facts[0]
    place = quote_name(schema), quote_name(name.table)
    wanted = {UNIQUE.format(quote_name(key), *place) for key in keys}
    is_unique = not wanted.isdisjoint(made.split("\n"))
    _require_form(facts, is_unique=is_unique)
    cursor.nextset()
    found = cursor.fetchall()
    if any(at != oid for at, *_ in found):
        raise psycopg.errors.UndefinedTable
    # The index may be invalid: one that was built beside writers, and cut short.
    if len({version for _, version, *_ in found}) < len(found):
        raise psycopg.errors.UniqueViolation
    rows: list[Row] = []
    for _, alike in groupby(found, key=lambda row: row[-1]):
        told = (to_row(*row) for _, *row, _, _ in alike)
        rows += sorted(told, key=lambda row: row[0])
    return schema, tuple(rows)


def _require_form(facts: Sequence[Sequence[Any]], *, is_unique: bool) -> None:
    """Refuse the columns that a look would refuse. Raises psycopg.Error."""
    columns = [
        Column(name, _name_type(type_oid), is_optional)
        for *_, name, type_oid, is_optional in facts
    ]
    if find_form_fault(columns, is_unique=is_unique) is not None:
        raise psycopg.errors.WrongObjectType


def _name_type(oid: int) -> str:
    """Return the name of a type of PostgreSQL's own, as far as psycopg knows it."""
    known = psycopg.adapters.types.get(oid)
    return "" if known is None else known.name
