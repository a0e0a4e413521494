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

from migration_gate.errors import MigrationFailedError, SqlError, UnresolvedError
from migration_gate.script import Script
from migration_gate.statements import (
    ConcurrentIndex,
    Statement,
    concurrent_index,
    place,
)
from migration_gate.statements.names import TokenReader, is_string, string_value
from migration_gate.units import Unit


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
        return _note_create_index(conn, index.table_schema, index.table or "")
    if index is not None and index.action == "drop":
        return {"oid": _find_oid(conn, index.schema, index.name or "")}
    if index is not None:
        return _note_reindex(conn, index)
    detached = _detached_partition(unit.statements[0])
    if detached is not None:
        return _note_detach(conn, *detached)
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
        invalid = [oid for oid, valid in _new_indexes(conn, before) if not valid]
        leftovers = [o for o in invalid if _is_ours(conn, o, index.name, before)]
    else:
        found = _find_leftovers(conn, before["tables"])
        leftovers = [oid for oid in found if oid not in before["leftovers"]]
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


def _note_reindex(conn: Conn, index: ConcurrentIndex) -> dict[str, Any]:
    """Return the index, and the tables that matter: None for all of the database's."""
    oid, tables = None, None
    if index.name is not None:
        oid = _find_oid(conn, index.schema, index.name)
        tables = [row[0] for row in conn.execute(OF_INDEX, (oid, oid))]
    elif index.table is not None:
        oids = _find_oid(conn, index.table_schema, index.table)
        tables = [row[0] for row in conn.execute(WITH_PARTS, (oids, oids))]
    elif index.schema is not None:
        tables = [row[0] for row in conn.execute(IN_SCHEMA, (index.schema,))]
    return {"oid": oid, "tables": tables, "leftovers": _find_leftovers(conn, tables)}


# A partitioned index, or table, is reindexed partition by partition; a TOAST table
# along with its own.
OF_INDEX: Final = """
SELECT indrelid::int8 FROM pg_catalog.pg_index
WHERE indexrelid = %s
   OR indexrelid IN (SELECT relid FROM pg_catalog.pg_partition_tree(%s::oid))
"""
WITH_PARTS: Final = """
WITH part AS (
    SELECT %s::oid AS oid UNION
    SELECT relid FROM pg_catalog.pg_partition_tree(%s::oid)
)
SELECT oid::int8 FROM part WHERE oid IS NOT NULL
UNION ALL
SELECT c.reltoastrelid::int8 FROM part JOIN pg_catalog.pg_class c USING (oid)
WHERE c.reltoastrelid <> 0
"""
IN_SCHEMA: Final = """
WITH part AS (
    SELECT c.oid, c.reltoastrelid FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = %s AND c.relkind IN ('r', 'm', 'p')
)
SELECT oid::int8 FROM part
UNION ALL
SELECT reltoastrelid::int8 FROM part WHERE reltoastrelid <> 0
"""
# Whoever builds an index of a table holds this lock on it; so does autovacuum, which is
# of no role.
BUSY_TABLES: Final = """
SELECT l.relation
FROM pg_catalog.pg_locks l
JOIN pg_catalog.pg_database d ON d.oid = l.database
JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
WHERE d.datname = pg_catalog.current_database() AND l.granted
  AND l.mode = 'ShareUpdateExclusiveLock' AND a.usesysid IS NOT NULL
  AND l.pid <> pg_catalog.pg_backend_pid()
"""
LEFTOVERS: Final = sql.SQL(
    """
SELECT i.indexrelid::int8
FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
WHERE NOT i.indisvalid AND c.relname ~ '_cc(new|old)[0-9]*$'
  AND ({tables}::int8[] IS NULL OR i.indrelid = ANY ({tables}::int8[]))
  AND i.indrelid NOT IN ({busy})
"""
)


def _find_leftovers(conn: Conn, tables: list[int] | None) -> list[int]:
    """
    Return the invalid indexes that REINDEX CONCURRENTLY leaves when it is cut.

    Leaves out a table where somebody else is at work: they are not left over yet.
    """
    query = LEFTOVERS.format(tables=sql.Literal(tables), busy=sql.SQL(BUSY_TABLES))
    rows = conn.execute(query).fetchall()
    return [row[0] for row in rows]


def _is_ours(conn: Conn, oid: int, name: str | None, before: Facts) -> bool:
    """
    Tell whether a new invalid index is what a statement has left.

    It has the name that the statement gives it; where it gives none, nobody else is
    building an index of that table.
    """
    if name is not None:
        return _class_name(conn, oid) == name
    query = sql.SQL("SELECT {} IN ({})").format(before["table"], sql.SQL(BUSY_TABLES))
    row = conn.execute(query).fetchone()
    return row is not None and not row[0]


def _drop_index(conn: Conn, oid: int) -> None:
    row = conn.execute(
        "SELECT n.nspname, c.relname FROM pg_catalog.pg_class c "
        "JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = %s",
        (oid,),
    ).fetchone()
    if row is not None:
        name = sql.Identifier(*row)
        conn.execute(sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(name))


def _note_detach(conn: Conn, parent: Name, child: Name) -> dict[str, Any]:
    parent_oid, child_oid = _find_oid(conn, *parent), _find_oid(conn, *child)
    row = conn.execute(
        "SELECT FROM pg_catalog.pg_inherits WHERE inhparent = %s AND inhrelid = %s",
        (parent_oid, child_oid),
    ).fetchone()
    is_attached = row is not None
    return {"parent": parent_oid, "child": child_oid, "is_attached": is_attached}


def _judge_detached(conn: Conn, before: Facts) -> bool:
    row = conn.execute(
        "SELECT inhdetachpending FROM pg_catalog.pg_inherits "
        "WHERE inhparent = %s AND inhrelid = %s",
        (before["parent"], before["child"]),
    ).fetchone()
    if row is None:
        return bool(before["is_attached"])
    if row[0]:
        names = [_qualified_name(conn, before[part]) for part in ("parent", "child")]
        conn.execute(
            sql.SQL("ALTER TABLE {} DETACH PARTITION {} FINALIZE").format(*names)
        )
    return bool(row[0])


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
    query = (
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
