"""
Statements that cannot be in a transaction: what the catalogue says before and after.

Judges whether one whose end was not seen has been done. Drops nothing but an invalid
index that was not there before the gate's own attempt.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import psycopg

from psycopg import sql

from migration_gate.errors import MigrationFailedError, SqlError, UnresolvedError
from migration_gate.script import Script
from migration_gate.statements import Statement, concurrent_index, place
from migration_gate.statements.names import TokenReader
from migration_gate.units import Unit


Facts = Mapping[str, Any]
Conn = psycopg.Connection[Any]

# Whose waiting blocks no query: they take SHARE UPDATE EXCLUSIVE and wait in turn.
HARMLESS: Final = ("CONCURRENTLY", "VACUUM")
# Doing them once more changes nothing, or fails when it is done.
REPEATABLE: Final = (
    "VACUUM",
    "REINDEX",
    "CLUSTER",
    "ALTER SYSTEM",
    "DISCARD ALL",
    "ALTER DATABASE",
    "ALTER SUBSCRIPTION ... REFRESH",
    "ALTER SUBSCRIPTION ... SET",
)
# Object kinds that exist or not: the catalogue, its column of names.
NAMED: Final = {
    "DATABASE": ("pg_database", "datname"),
    "TABLESPACE": ("pg_tablespace", "spcname"),
    "SUBSCRIPTION": ("pg_subscription", "subname"),
}


def waits_harmlessly(unit: Unit) -> bool:
    """Tell whether no query queues behind the statement while it waits for locks."""
    is_full = b"full" in unit.statements[0].tokens[:8]
    return any(word in unit.alone for word in HARMLESS) and not is_full


def note_before(conn: Conn, unit: Unit) -> dict[str, Any]:
    """
    Return what the catalogue says before the statement runs. Reads only.

    Needs the session as the statement will find it: its search path finds the tables.
    """
    index = concurrent_index(unit.statements[0])
    if index is not None and index.action == "create":
        return _note_create_index(conn, index.table_schema, index.table or "")
    if index is not None and index.action == "drop":
        return {"oid": _find_oid(conn, index.schema, index.name or "")}
    if index is not None:
        oid = _find_oid(conn, index.schema, index.name) if index.name else None
        return {"oid": oid, "leftovers": _find_leftovers(conn)}
    detached = _detached_partition(unit.statements[0])
    if detached is not None:
        parent, child = detached
        return {"parent": _find_oid(conn, *parent), "child": _find_oid(conn, *child)}
    named = _named_object(unit)
    if named is not None:
        return {"existed": _exists(conn, *named)}
    return {}


def judge(conn: Conn, script: Script, unit: Unit, before: Facts) -> bool:
    """
    Tell whether a statement whose end was not seen has been done.

    What it left half done is cleared or completed, so that False means: do it again.

    Raises:
        UnresolvedError: The catalogue does not tell.
    """
    index = concurrent_index(unit.statements[0])
    if index is not None and index.action == "create":
        return _judge_created(conn, script, unit, before)
    if index is not None and index.action == "drop":
        return before["oid"] is not None and not _has_class(conn, before["oid"])
    if index is not None:
        tidy(conn, unit, before)
        oid = before["oid"]
        return oid is not None and not _has_class(conn, oid)
    if "parent" in before:
        return _judge_detached(conn, before)
    named = _named_object(unit)
    if named is not None:
        creates = unit.statements[0].tokens[:1] == (b"create",)
        return before["existed"] != creates and _exists(conn, *named) == creates
    if unit.alone.startswith(REPEATABLE):
        return False
    raise _unresolved(script, unit, f"{unit.alone} may or may not have been done")


def tidy(conn: Conn, unit: Unit, before: Facts) -> None:
    """Drop the invalid indexes that the statement left, none that was there before."""
    index = concurrent_index(unit.statements[0])
    if index is None or index.action == "drop":
        return
    if index.action == "create":
        leftovers = [oid for oid, valid in _new_indexes(conn, before) if not valid]
    else:
        leftovers = [o for o in _find_leftovers(conn) if o not in before["leftovers"]]
    for oid in leftovers:
        _drop_index(conn, oid)


def require_valid(conn: Conn, script: Script, unit: Unit, before: Facts) -> None:
    """
    Refuse an index that IF NOT EXISTS found and that is not valid.

    Raises:
        MigrationFailedError: Somebody else's index of this name is invalid.
    """
    index = concurrent_index(unit.statements[0])
    if index is None or not index.if_not_exists or index.name is None:
        return
    row = conn.execute(
        "SELECT i.indisvalid FROM pg_catalog.pg_index i "
        "JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid "
        "JOIN pg_catalog.pg_class t ON t.oid = %s AND t.relnamespace = c.relnamespace "
        "WHERE c.relname = %s",
        (before["table"], index.name),
    ).fetchone()
    if row is not None and not row[0]:
        line, column = place(script.content, unit.statements[0].first)
        version = script.migration.version
        error = SqlError(
            version=version,
            file=version,
            sqlstate=None,
            error_message=f'index "{index.name}" exists and is invalid',
            line=line,
            column=column,
        )
        raise MigrationFailedError(
            error,
            hint="The gate drops no index that was there before: drop it with "
            "DROP INDEX CONCURRENTLY, then start the gate again.",
        )


def _note_create_index(conn: Conn, schema: str | None, table: str) -> dict[str, Any]:
    oid = _find_oid(conn, schema, table)
    rows = conn.execute(
        "SELECT indexrelid::int8 FROM pg_catalog.pg_index WHERE indrelid = %s", (oid,)
    ).fetchall()
    return {"table": oid, "indexes": [row[0] for row in rows]}


def _judge_created(conn: Conn, script: Script, unit: Unit, before: Facts) -> bool:
    found = _new_indexes(conn, before)
    index = concurrent_index(unit.statements[0])
    if index is not None and index.name is None and len(found) > 1:
        raise _unresolved(
            script, unit, "its table has several new indexes, and it names none"
        )
    tidy(conn, unit, before)
    if index is not None and index.name is not None:
        return any(valid and _class_name(conn, o) == index.name for o, valid in found)
    return any(valid for _, valid in found)


def _new_indexes(conn: Conn, before: Facts) -> list[tuple[int, bool]]:
    rows = conn.execute(
        "SELECT indexrelid::int8, indisvalid FROM pg_catalog.pg_index "
        "WHERE indrelid = %s",
        (before["table"],),
    ).fetchall()
    return [(oid, valid) for oid, valid in rows if oid not in before["indexes"]]


def _find_leftovers(conn: Conn) -> list[int]:
    """Return the invalid indexes that REINDEX CONCURRENTLY leaves when it is cut."""
    rows = conn.execute(
        "SELECT i.indexrelid::int8 FROM pg_catalog.pg_index i "
        "JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid "
        "WHERE NOT i.indisvalid AND c.relname ~ '_cc(new|old)[0-9]*$'"
    ).fetchall()
    return [row[0] for row in rows]


def _drop_index(conn: Conn, oid: int) -> None:
    row = conn.execute(
        "SELECT n.nspname, c.relname FROM pg_catalog.pg_class c "
        "JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = %s",
        (oid,),
    ).fetchone()
    if row is not None:
        name = sql.Identifier(*row)
        conn.execute(sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(name))


def _judge_detached(conn: Conn, before: Facts) -> bool:
    row = conn.execute(
        "SELECT inhdetachpending FROM pg_catalog.pg_inherits "
        "WHERE inhparent = %s AND inhrelid = %s",
        (before["parent"], before["child"]),
    ).fetchone()
    if row is None:
        return before["child"] is not None
    if row[0]:
        names = [_qualified_name(conn, before[part]) for part in ("parent", "child")]
        conn.execute(
            sql.SQL("ALTER TABLE {} DETACH PARTITION {} FINALIZE").format(*names)
        )
    return bool(row[0])


def _detached_partition(
    statement: Statement,
) -> tuple[tuple[str | None, str], tuple[str | None, str]] | None:
    """Return parent and partition of DETACH PARTITION … CONCURRENTLY."""
    reader = TokenReader(statement.tokens)
    if not reader.take_words("alter table"):
        return None
    reader.take_words("if exists")
    reader.take_words("only")
    parent = reader.take_table()
    reader.take_words("*")
    if not reader.take_words("detach partition"):
        return None
    child = reader.take_table()
    return (parent, child) if parent and child else None


def _named_object(unit: Unit) -> tuple[str, str] | None:
    """Return kind and name of the object that CREATE or DROP is about."""
    reader = TokenReader(unit.statements[0].tokens)
    if not reader.take_any("create", "drop"):
        return None
    kind = reader.take().decode().upper()
    reader.take_words("if exists")
    name = reader.take_name()
    return (kind, name) if kind in NAMED and name else None


def _exists(conn: Conn, kind: str, name: str) -> bool:
    catalogue, column = NAMED[kind]
    query = sql.SQL("SELECT EXISTS (SELECT FROM pg_catalog.{} WHERE {} = {})").format(
        sql.Identifier(catalogue), sql.Identifier(column), name
    )
    row = conn.execute(query).fetchone()
    return row is not None and bool(row[0])


def _find_oid(conn: Conn, schema: str | None, name: str) -> int | None:
    """Return the oid of a relation as the session's search path finds it."""
    parts = sql.Identifier(schema, name) if schema else sql.Identifier(name)
    row = conn.execute(
        "SELECT pg_catalog.to_regclass(%s)::oid::int8", (parts.as_string(conn),)
    ).fetchone()
    return None if row is None else row[0]


def _has_class(conn: Conn, oid: int) -> bool:
    return _class_name(conn, oid) is not None


def _class_name(conn: Conn, oid: int) -> str | None:
    row = conn.execute(
        "SELECT relname FROM pg_catalog.pg_class WHERE oid = %s", (oid,)
    ).fetchone()
    return None if row is None else str(row[0])


def _qualified_name(conn: Conn, oid: int) -> sql.Identifier:
    row = conn.execute(
        "SELECT n.nspname, c.relname FROM pg_catalog.pg_class c "
        "JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = %s",
        (oid,),
    ).fetchone()
    return sql.Identifier(*(row or ("", "")))


def _unresolved(script: Script, unit: Unit, why: str) -> UnresolvedError:
    line, _ = place(script.content, unit.statements[0].first)
    version = script.migration.version
    return UnresolvedError(
        f"{version}:{line}: statement {unit.number} is unfinished: {why}",
        hint=f"Look whether it was done, then say so: resolve {version} --applied when "
        "it was, resolve --not-applied when it is to run again.",
    )
