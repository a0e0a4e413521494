"""
Make the history table, or add our columns to it: needs the lock.

Nothing is made where the role lacks a right or another transaction is in the way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import psycopg

from psycopg import sql

from migration_gate.connection.qualified import names, qualified
from migration_gate.connection.refusals import translated
from migration_gate.history.catalogue import (
    READ_COMMITTED,
    Before,
)
from migration_gate.history.companions import made_otherwise, right_to_become
from migration_gate.history.guarding import expect_trusted
from migration_gate.history.look import Look, look
from migration_gate.history.making import making
from migration_gate.history.table import OUR_COLUMNS, HistoryTable, missing_right
from migration_gate.report.errors import HistoryError, LoginRefusedError
from migration_gate.report.outcomes import AlreadyAppliedError
from migration_gate.report.quoting import quote_name
from migration_gate.settings.settings import HistoryTableName


Fill: TypeAlias = Callable[[HistoryTable], sql.Composed]

MAKE_LIMIT_S: Final = 10
# In a search path, quoted or not: the schema that has the role's name.
ROLE_NAMED: Final = "$user"
# One for the whole database: where there is no history, two gates whose search paths
# differ have locks of their own.
MAKING_KEY: Final = int.from_bytes(b"gatemake", "big")
LIMIT: Final = sql.SQL("SET LOCAL lock_timeout = {}").format(f"{MAKE_LIMIT_S}s")
TAKE_MAKING: Final = sql.SQL("{}; SELECT pg_catalog.pg_advisory_xact_lock({})").format(
    LIMIT, MAKING_KEY
)
NOT_THERE: Final = qualified(
    """
SELECT wanted FROM (
    SELECT pg_catalog.btrim(n, ' "') AS wanted
    FROM pg_catalog.unnest(pg_catalog.string_to_array(
        pg_catalog.current_setting('search_path'), ',')) n
) AS path
WHERE wanted <> '' AND wanted <> '$user' AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_namespace WHERE nspname = wanted::pg_catalog.name)
"""
)
# A second CREATE of the same name finds the first one's row in a catalogue's index.
MADE_MEANWHILE: Final = (
    psycopg.errors.DuplicateTable,
    psycopg.errors.DuplicateSchema,
    psycopg.errors.UniqueViolation,
)


class HistoryMadeError(AlreadyAppliedError):
    """Another program made the history table: what was planned is out of date."""


def ensure_history(  # noqa: PLR0913  # a table has as many sides
    conn: psycopg.Connection[Any],
    seen: Look,
    name: HistoryTableName,
    role: str | None,
    *,
    full: bool,
    fill: Fill | None = None,
) -> tuple[HistoryTable, str | None]:
    """
    Make the history table, or make it ours: needs the lock.

    It belongs to GATE_ROLE where it may: the next login role is another member of that.
    Returns the table and, where it stays without our columns, the reason.

    Args:
        name: What GATE_HISTORY_TABLE says; without a schema, a table in any counts.
        role: GATE_ROLE.
        full: GATE_LOG_DETAIL=full, PostgreSQL's words as they are.
        fill: Gives what fills a table in the transaction that makes it.

    Raises:
        HistoryError: Something keeps it from being made, or changes it as it is.
        HistoryMadeError: Another program has just made it: look again.
        LoginRefusedError: The login role may not make it, or not insert into it.
        ServerRefusedError: PostgreSQL refuses it for another reason.
    """
    require_target(seen, name)
    if seen.table is None:
        return _create(conn, seen, name, role, full=full, fill=fill), None
    table = seen.table
    if not table.can_insert:
        facts = {
            "acting_role": seen.acting_role,
            "gate_role": role,
            "owner": table.owner,
        }
        rights = "SELECT, INSERT, UPDATE"
        raise missing_right(rights, table.schema, table.name, facts)
    if role is not None and table.owner == seen.acting_role != role:
        with translated(f"let role {quote_name(role)} own the history", full=full):
            table = _hand_over(conn, table, role)
    if table.is_complete:
        return table, None
    with translated(f'add columns to table "{table.schema}.{table.name}"', full=full):
        return _add_columns(conn, table)


def require_target(seen: Look, name: HistoryTableName) -> None:
    """
    Refuse a target that is not there, and one whose files would run elsewhere.

    Raises:
        HistoryError: It is such a one.
    """
    if not name.is_target:
        return
    if name.schema == ROLE_NAMED:
        raise _unnameable()
    if not seen.schema_exists:
        raise _missing_schema(name)


def _missing_schema(name: HistoryTableName) -> HistoryError:
    """Return the error for a target that is not there."""
    return HistoryError(
        f'there is no schema "{name.schema}"',
        hint="What GATE_TARGETS lists has to be there: create the schema, or let the "
        "list leave it out.",
    )


def _unnameable() -> HistoryError:
    """Return the error for a target whose files would run in another schema."""
    return HistoryError(
        f'no search path can name schema "{ROLE_NAMED}"',
        hint="There it stands for the schema that has the name of the role. Give it "
        f'another name: ALTER SCHEMA "{ROLE_NAMED}" RENAME TO …; or let GATE_TARGETS '
        "leave it out.",
    )


def _make_schemas(conn: psycopg.Connection[Any]) -> str:
    """Say how to make what a search path names that is not there."""
    found = conn.execute(NOT_THERE).fetchall()
    made = "; ".join(f"CREATE SCHEMA {quote_name(name)}" for (name,) in found)
    return f"Where that is what is missing: {made}. Otherwise " if made else ""


def _create(  # noqa: PLR0913  # private, called once
    conn: psycopg.Connection[Any],
    seen: Look,
    name: HistoryTableName,
    role: str | None,
    *,
    full: bool,
    fill: Fill | None,
) -> HistoryTable:
    if seen.schema is None:
        acting_role = quote_name(seen.acting_role)
        raise LoginRefusedError(
            f"the search path of role {acting_role} names no schema that it may use",
            hint=f"{_make_schemas(conn)}GRANT USAGE, CREATE ON SCHEMA public TO "
            f"{acting_role}; or set GATE_HISTORY_TABLE=schema.schema_migrations or the "
            "role's search_path.",
        )
    if seen.schema.startswith("pg_temp"):
        raise LoginRefusedError(
            f"the search path of role {quote_name(seen.acting_role)} begins with "
            "pg_temp, whose tables end with the session",
            hint="Put another schema first in the search_path of the role or the "
            "database, or set GATE_HISTORY_TABLE=schema.schema_migrations.",
        )
    maker = None
    if role is not None:
        with translated("ask what GATE_ROLE may own", full=full):
            maker = role if _may_belong_to(conn, role, seen.schema) else None
    table = HistoryTable(
        schema=seen.schema,
        name=seen.name.table,
        our_columns=frozenset(OUR_COLUMNS),
        has_zone=False,
        can_insert=True,
        can_update=True,
        can_alter=True,
        owners=seen.owners,
        owner=maker or seen.acting_role,
    )
    shown = f"{table.schema}.{table.name}"
    with making(conn, table.schema, table.name, table.owner, full=full):
        try:
            creation = _creation(table, maker, exists=seen.schema_exists, fill=fill)
            if name.schema is None:
                _require_none(conn, seen, name, role)
            else:
                begin = [READ_COMMITTED, LIMIT]
                creation = sql.SQL("; ").join([*begin, creation])
            try:
                conn.execute(creation)
            except psycopg.errors.InvalidSchemaName as error:
                raise _missing_schema(name) from error
            except MADE_MEANWHILE as error:
                raise HistoryMadeError(shown) from error
        except psycopg.errors.LockNotAvailable as error:
            raise HistoryError(
                f'could not make table "{shown}" within {MAKE_LIMIT_S} s: '
                f"another transaction is making it (SQLSTATE {error.sqlstate})",
                hint="End that transaction, then start the gate again.",
            ) from error
        except psycopg.errors.InvalidTextRepresentation as error:
            raise made_otherwise(conn, shown, error) from error
    return table


def _require_none(
    conn: psycopg.Connection[Any], seen: Look, name: HistoryTableName, role: str | None
) -> None:
    """
    Begin, and look over the whole database once more: no gate makes a history now.

    Raises:
        HistoryMadeError: There is one, or it would have another name.
    """
    found = look(conn, name, role, after=Before(TAKE_MAKING))
    schema = found.schema if found.hidden_schema is None else found.hidden_schema
    if found.table is not None or found.hidden_schema or found.name != seen.name:
        raise HistoryMadeError(f"{schema}.{found.name.table}")


BELONG: Final = qualified(
    """
SELECT pg_catalog.pg_has_role(r.oid, 'USAGE')
       AND pg_catalog.pg_has_role(r.oid, {can_become})
       AND coalesce(pg_catalog.has_schema_privilege(r.oid, n.oid, 'CREATE'), true)
FROM pg_catalog.pg_roles r
LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = {schema}
WHERE r.rolname = {role}
"""
)


def _may_belong_to(conn: psycopg.Connection[Any], role: str, schema: str) -> bool:
    """Tell whether a table there may be the role's, and be used by the login role."""
    query = BELONG.format(can_become=right_to_become(conn), schema=schema, role=role)
    row = conn.execute(query).fetchone()
    return row is not None and bool(row[0])


def _creation(
    table: HistoryTable, maker: str | None, *, exists: bool, fill: Fill | None
) -> sql.Composed:
    """Return the statements that make the table, and its schema where it is to be."""
    create_schema = become = leave = sql.Composed([])
    if maker is not None:
        become = sql.SQL("SET LOCAL ROLE {};").format(sql.Identifier(maker))
        leave = sql.Composed([sql.SQL("RESET ROLE;")])
    if not exists:
        create_schema = sql.SQL("CREATE SCHEMA {} {};").format(
            sql.Identifier(table.schema),
            sql.SQL("AUTHORIZATION {}").format(sql.Identifier(maker))
            if maker
            else sql.SQL(""),
        )
    return sql.SQL(
        """
        {create_schema}
        {become}
        CREATE TABLE {table} (
            id serial PRIMARY KEY,
            version varchar(255) NOT NULL UNIQUE,
            applied_at timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP,
            checksum pg_catalog.text,
            duration_ms bigint,
            gate_version pg_catalog.text,
            superseded pg_catalog.text
        );
        {leave}
        {fill}
        SELECT {trusted};
        COMMIT
        """
    ).format(
        create_schema=create_schema,
        become=become,
        leave=leave,
        fill=sql.SQL("") if fill is None else sql.SQL("{};").format(fill(table)),
        table=sql.Identifier(table.schema, table.name),
        trusted=expect_trusted(table),
    )


def _hand_over(
    conn: psycopg.Connection[Any], table: HistoryTable, role: str
) -> HistoryTable:
    """
    Let the gate's tables belong to GATE_ROLE, unless something is in the way.

    Left to the login role, they would be closed to the next one, and keep the first
    from being dropped.
    """
    if not _may_belong_to(conn, role, table.schema):
        return table
    own = [table.name, f"{table.name}_progress", f"{table.name}_failures"]
    rows = conn.execute(
        qualified(
            "SELECT c.relname FROM pg_catalog.pg_class c "
            "JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
            "JOIN pg_catalog.pg_roles r ON r.oid = c.relowner "
            "WHERE n.nspname = {} AND r.rolname = {} AND c.relkind = 'r' "
            "AND c.relname = ANY ({})"
        ).format(table.schema, table.owner, names(own))
    ).fetchall()
    if not rows:
        return table
    changes = (
        sql.SQL("ALTER TABLE {} OWNER TO {};").format(
            sql.Identifier(table.schema, name), sql.Identifier(role)
        )
        for (name,) in rows
    )
    statement = sql.SQL("BEGIN; SET LOCAL lock_timeout = '2s'; {} COMMIT")
    try:
        conn.execute(statement.format(sql.SQL(" ").join(changes)))
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.LockNotAvailable):
        conn.execute("ROLLBACK")
        return table
    return table._replace(owner=role)


def _add_columns(
    conn: psycopg.Connection[Any], table: HistoryTable
) -> tuple[HistoryTable, str | None]:
    """Add our columns, unless the role may not or readers are in the way."""
    missing = [name for name in OUR_COLUMNS if name not in table.our_columns]
    if not table.can_alter:
        return table, f'the login role does not own table "{table.name}"'
    statement = sql.SQL(
        "BEGIN; SET LOCAL lock_timeout = '2s'; ALTER TABLE {table} {actions}; COMMIT"
    ).format(
        table=sql.Identifier(table.schema, table.name),
        actions=sql.SQL(", ").join(
            sql.SQL("ADD COLUMN IF NOT EXISTS {name} {type}").format(
                name=sql.Identifier(name), type=sql.SQL(OUR_COLUMNS[name])
            )
            for name in missing
        ),
    )
    try:
        conn.execute(statement)
    except psycopg.errors.InsufficientPrivilege:
        conn.execute("ROLLBACK")
        return table, f'the login role may not alter table "{table.name}"'
    except psycopg.errors.LockNotAvailable:
        conn.execute("ROLLBACK")
        return table, f'other sessions hold table "{table.name}"'
    return table._replace(our_columns=frozenset(OUR_COLUMNS)), None
