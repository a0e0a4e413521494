"""
Statements that cannot be in a transaction: what the catalogue says before and after.

Judges whether one whose end was not seen has been done. Drops nothing but an invalid
index that was not there before the gate's own attempt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import psycopg

from psycopg import sql

from migration_gate.applying.catalogue import (
    NAMED,
    find_oid,
    has_class,
    object_exists,
    qualified_name,
)
from migration_gate.applying.indexes import (
    drop_index,
    find_leftovers,
    is_busy,
    is_ours,
    new_indexes,
    note_create_index,
    note_reindex,
)
from migration_gate.connection.qualified import qualified
from migration_gate.execution.invalid import InvalidIndex
from migration_gate.execution.own_failure import refuse_invalid
from migration_gate.files.script import Script
from migration_gate.files.units import Unit
from migration_gate.report.errors import (
    UnresolvedError,
    ask_to_resolve,
)
from migration_gate.statements import (
    Statement,
    concurrent_index,
)
from migration_gate.statements.names import TokenReader, is_string, string_value


Facts = Mapping[str, Any]
Conn = psycopg.Connection[Any]
Name = tuple[str | None, str]

# Whose waiting blocks no query: they take SHARE UPDATE EXCLUSIVE and wait in turn.
HARMLESS: Final = ("CONCURRENTLY", "VACUUM")
# Doing them once more changes nothing, or fails when it is done.
REPEATABLE: Final = (
    "VACUUM",
    "REINDEX",
    "CLUSTER",
    "SET",
    "ALTER SYSTEM",
    "DISCARD ALL",
    "ALTER DATABASE",
    "ALTER SUBSCRIPTION ... REFRESH",
    "ALTER SUBSCRIPTION ... SET",
)
# What may end transactions of its own: an error does not mean that nothing was done.
IN_STEPS: Final = ("CALL", "DO")
# SQLSTATE: active_sql_transaction, invalid_transaction_termination
REFUSED_INSIDE: Final = frozenset({"25001", "2D000"})


def waits_harmlessly(unit: Unit) -> bool:
    """Tell whether no query queues while the statement waits for its locks."""
    is_full = b"full" in unit.statements[0].tokens[:8]
    return any(word in unit.alone for word in HARMLESS) and not is_full


def alone(unit: Unit) -> Unit:
    """
    Return a unit as one that runs alone.

    PostgreSQL has refused its one statement in a transaction, though its text does not
    show why: REINDEX or CLUSTER of a partitioned table, a procedure that commits.
    """
    reason = unit.statements[0].tokens[0].decode(errors="replace").upper()
    return unit if unit.alone else replace(unit, alone=reason)


def is_done_in_steps(unit: Unit) -> bool:
    """Tell whether a part of the statement may stay though the rest of it fails."""
    return unit.alone in IN_STEPS


def note_before(conn: Conn, unit: Unit) -> dict[str, Any]:
    """
    Return what the catalogue says before the statement runs. Reads only.

    Needs the session as the statement will find it: its search path finds the tables.
    """
    index = concurrent_index(unit.statements[0])
    if index is not None and index.action == "create":
        return note_create_index(conn, index.table_schema, index.table or "")
    if index is not None and index.action == "drop":
        return {"oid": find_oid(conn, index.schema, index.name or "")}
    if index is not None:
        return note_reindex(conn, index)
    detached = _detached_partition(unit.statements[0])
    if detached is not None:
        return _note_detach(conn, *detached)
    named = _named_object(unit)
    if named is not None:
        return {"existed": object_exists(conn, *named)}
    return {}


def catalogue_tells(unit: Unit) -> bool:
    """Tell whether the next start finds out by itself how far the statement came."""
    statement = unit.statements[0]
    return (
        concurrent_index(statement) is not None
        or _detached_partition(statement) is not None
        or _named_object(unit) is not None
        or unit.alone.startswith(REPEATABLE)
    )


def was_done(conn: Conn, script: Script, unit: Unit, before: Facts) -> bool:
    """
    Tell whether a statement whose end was not seen has been done.

    What it left half done is cleared or completed, so that False means: do it again.

    Raises:
        UnresolvedError: The catalogue does not tell.
    """
    index = concurrent_index(unit.statements[0])
    if index is not None and index.action == "create":
        return _was_created(conn, script, unit, before)
    if index is not None and index.action == "drop":
        return before["oid"] is not None and not has_class(conn, before["oid"])
    if index is not None:
        tidy(conn, unit, before)
        oid = before["oid"]
        return oid is not None and not has_class(conn, oid)
    if "parent" in before:
        return _was_detached(conn, before)
    named = _named_object(unit)
    if named is not None:
        creates = unit.statements[0].tokens[:1] == (b"create",)
        return before["existed"] != creates and object_exists(conn, *named) == creates
    gid = _prepared_transaction(unit)
    if unit.alone.startswith(REPEATABLE) or (gid and _is_prepared(conn, gid)):
        return False
    raise _unresolved(script, unit, f"{unit.alone} may or may not have been done")


def tidy(conn: Conn, unit: Unit, before: Facts) -> None:
    """Drop the invalid indexes that the statement left, none that was there before."""
    index = concurrent_index(unit.statements[0])
    if index is None or index.action == "drop":
        return
    if index.action == "create":
        found = new_indexes(conn, before)
        leftovers = [o for o, valid in found if not valid and is_ours(conn, o, index)]
        if index.name is None and leftovers and is_busy(conn, before):
            return
    else:
        left = find_leftovers(conn, before["tables"])
        leftovers = [oid for oid in left if oid not in before["leftovers"]]
    for oid in leftovers:
        drop_index(conn, oid)


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
        qualified(
            "SELECT n.nspname, t.relname FROM pg_catalog.pg_index i "
            "JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid "
            "JOIN pg_catalog.pg_class t ON t.oid = %s "
            "AND t.relnamespace = c.relnamespace "
            "JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
            "WHERE c.relname = %s AND NOT i.indisvalid"
        ),
        (before["table"], index.name),
    ).fetchone()
    if row is not None:
        found = InvalidIndex(schema=row[0], table=row[1], name=index.name)
        raise refuse_invalid(script, unit.statements[0], found)


def _was_created(conn: Conn, script: Script, unit: Unit, before: Facts) -> bool:
    index = concurrent_index(unit.statements[0])
    assert index is not None  # noqa: S101  # it creates one
    new = new_indexes(conn, before)
    found = [(oid, valid) for oid, valid in new if is_ours(conn, oid, index)]
    if len(found) > 1:
        raise _unresolved(
            script, unit, "its table has several new indexes, and it names none"
        )
    tidy(conn, unit, before)
    return any(valid for _, valid in found)


def _note_detach(conn: Conn, parent: Name, child: Name) -> dict[str, Any]:
    parent_oid, child_oid = find_oid(conn, *parent), find_oid(conn, *child)
    row = conn.execute(
        qualified(
            "SELECT FROM pg_catalog.pg_inherits WHERE inhparent = %s AND inhrelid = %s"
        ),
        (parent_oid, child_oid),
    ).fetchone()
    is_attached = row is not None
    return {"parent": parent_oid, "child": child_oid, "is_attached": is_attached}


def _was_detached(conn: Conn, before: Facts) -> bool:
    row = conn.execute(
        qualified(
            "SELECT FROM pg_catalog.pg_inherits WHERE inhparent = %s AND inhrelid = %s"
        ),
        (before["parent"], before["child"]),
    ).fetchone()
    return row is None and bool(before["is_attached"])


def find_completion(conn: Conn, before: Facts) -> sql.Composed | None:
    """
    Return the statement that completes a DETACH which was cut short; None without one.

    It takes the partition for itself: queries of that wait while it waits.
    """
    if "parent" not in before:
        return None
    is_pending = conn.execute(
        qualified(
            "SELECT FROM pg_catalog.pg_inherits "
            "WHERE inhparent = %s AND inhrelid = %s AND inhdetachpending"
        ),
        (before["parent"], before["child"]),
    ).fetchone()
    if is_pending is None:
        return None
    names = [qualified_name(conn, before[part]) for part in ("parent", "child")]
    return sql.SQL("ALTER TABLE {} DETACH PARTITION {} FINALIZE").format(*names)


def _detached_partition(statement: Statement) -> tuple[Name, Name] | None:
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


def _prepared_transaction(unit: Unit) -> str | None:
    """Return the name of the transaction that COMMIT or ROLLBACK PREPARED ends."""
    reader = TokenReader(unit.statements[0].tokens)
    if not reader.take_any("commit prepared", "rollback prepared"):
        return None
    return string_value(reader.take()) if is_string(reader.peek()) else None


def _is_prepared(conn: Conn, gid: str) -> bool:
    query = qualified(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_prepared_xacts WHERE gid = %s "
        "AND database = pg_catalog.current_database())"
    )
    row = conn.execute(query, (gid,)).fetchone()
    return row is not None and bool(row[0])


def _named_object(unit: Unit) -> tuple[str, str] | None:
    """Return kind and name of the object that CREATE or DROP is about."""
    reader = TokenReader(unit.statements[0].tokens)
    if not reader.take_any("create", "drop"):
        return None
    kind = reader.take().decode().upper()
    reader.take_words("if exists")
    name = reader.take_name()
    return (kind, name) if kind in NAMED and name else None


def _unresolved(script: Script, unit: Unit, why: str) -> UnresolvedError:
    line, _ = script.place(unit.statements[0].first)
    version = script.migration.version
    return UnresolvedError(
        f"{script.migration.file}:{line}: statement {unit.number} is unfinished: {why}",
        hint=f"Look whether it was done. {ask_to_resolve(version)}",
        version=version,
    )
