"""
Make the history table, or add our columns to it: needs the lock.

Nothing is made where the role lacks a right or another transaction is in the way.
"""

from __future__ import annotations

from typing import Any, Final

import psycopg

from psycopg import sql

from migration_gate.connection.refusals import translated
from migration_gate.history.look import Look
from migration_gate.history.making import making
from migration_gate.history.table import OUR_COLUMNS, HistoryTable, missing_right
from migration_gate.report.errors import HistoryError, LoginRefusedError
from migration_gate.report.outcomes import AlreadyAppliedError
from migration_gate.report.quoting import quote_name
from migration_gate.settings.settings import HistoryTableName


MAKE_LIMIT_S: Final = 10
# A second CREATE of the same name finds the first one's row in a catalogue's index.
MADE_MEANWHILE: Final = (
    psycopg.errors.DuplicateTable,
    psycopg.errors.DuplicateSchema,
    psycopg.errors.UniqueViolation,
)


class HistoryMadeError(AlreadyAppliedError):
    """Another program made the history table: what was planned is out of date."""


def ensure_history(
    conn: psycopg.Connection[Any], seen: Look, name: HistoryTableName, *, full: bool
) -> tuple[HistoryTable, str | None]:
    """
    Make the history table, or add our columns to it; needs the lock.

    Returns the table and, where it stays without our columns, the reason.

    Args:
        full: GATE_LOG_DETAIL=full, PostgreSQL's words as they are.

    Raises:
        HistoryError: Another program's transaction keeps it from being made.
        HistoryMadeError: Another program has just made it: look again.
        LoginRefusedError: The login role may not make it, or not insert into it.
        ServerRefusedError: PostgreSQL refuses it for another reason.
    """
    if seen.table is None:
        return _create(conn, seen, name, full=full), None
    table = seen.table
    if not table.can_insert:
        raise missing_right(
            "SELECT, INSERT, UPDATE",
            table.schema,
            table.name,
            {"login_role": seen.login_role},
        )
    if table.is_complete:
        return table, None
    with translated(f'add columns to table "{table.schema}.{table.name}"', full=full):
        return _add_columns(conn, table)


def _create(
    conn: psycopg.Connection[Any], seen: Look, name: HistoryTableName, *, full: bool
) -> HistoryTable:
    if seen.schema is None:
        role = quote_name(seen.login_role)
        raise LoginRefusedError(
            f"the search path of role {role} names no schema that it may use",
            hint=f"GRANT USAGE, CREATE ON SCHEMA public TO {role}; or set "
            "GATE_HISTORY_TABLE=schema.schema_migrations or the role's search_path.",
        )
    table = f"{seen.schema}.{name.table}"
    with making(conn, seen.schema, name.table, seen.login_role, full=full):
        try:
            conn.execute(_creation(seen.schema, name.table, exists=seen.schema_exists))
        except MADE_MEANWHILE as error:
            raise HistoryMadeError(table) from error
        except psycopg.errors.LockNotAvailable as error:
            raise HistoryError(
                f'could not make table "{table}" within {MAKE_LIMIT_S} s: '
                f"another transaction is making it (SQLSTATE {error.sqlstate})",
                hint="End that transaction, then start the gate again.",
            ) from error
    return HistoryTable(
        schema=seen.schema,
        name=name.table,
        our_columns=frozenset(OUR_COLUMNS),
        has_zone=False,
        can_insert=True,
        can_update=True,
        can_alter=True,
    )


def _creation(schema: str, table: str, *, exists: bool) -> sql.Composed:
    """Return the statements that make the table, and its schema where it is to be."""
    create_schema = sql.SQL("" if exists else "CREATE SCHEMA {};")
    return sql.SQL(
        """
        BEGIN;
        SET LOCAL lock_timeout = '{limit_s}s';
        {create_schema}
        CREATE TABLE {table} (
            id serial PRIMARY KEY,
            version varchar(255) NOT NULL UNIQUE,
            applied_at timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP,
            checksum pg_catalog.text,
            duration_ms bigint,
            gate_version pg_catalog.text
        );
        COMMIT
        """
    ).format(
        limit_s=sql.SQL(str(MAKE_LIMIT_S)),
        create_schema=create_schema.format(sql.Identifier(schema)),
        table=sql.Identifier(schema, table),
    )


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
    return (
        HistoryTable(
            schema=table.schema,
            name=table.name,
            our_columns=frozenset(OUR_COLUMNS),
            has_zone=table.has_zone,
            can_insert=table.can_insert,
            can_update=table.can_update,
            can_alter=table.can_alter,
        ),
        None,
    )
