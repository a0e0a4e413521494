"""
Make the database that the settings name, where it does not exist.

Goes through a database that every server has; many gates may do it at once.
"""

from __future__ import annotations

import math

from contextlib import closing
from typing import Final

import psycopg

from psycopg import sql

from migration_gate.connection.asking import asking
from migration_gate.connection.causes import (
    BEING_CREATED,
    NO_RIGHT,
    TEMPLATE_IN_USE,
    Cause,
)
from migration_gate.connection.connect import current_parameters, use_first
from migration_gate.connection.limited import LimitedConnection
from migration_gate.connection.not_ready import NotReadyError
from migration_gate.connection.qualified import qualified
from migration_gate.report.events import DATABASE_CREATED
from migration_gate.report.log import Log
from migration_gate.report.quoting import quote_name
from migration_gate.session.lock import lock_keys
from migration_gate.session.session import not_writable
from migration_gate.settings.database import shown
from migration_gate.settings.settings import Settings


TEMPLATE: Final = "template1"
MAINTENANCE_DATABASES: Final = ("postgres", TEMPLATE)
NO_MAINTENANCE: Final = Cause(
    kind="refused",
    reason="no_maintenance_database",
    remedy="Let the role log in to database postgres or template1, or let an "
    "administrator create the database.",
)
EXISTS: Final = qualified(
    "SELECT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = %s), "
    "pg_catalog.pg_backend_pid()"
)
IS_STANDBY: Final = "SELECT pg_catalog.pg_is_in_recovery()"
# Another gate was faster.
MADE_MEANWHILE: Final = (
    psycopg.errors.DuplicateDatabase,
    psycopg.errors.UniqueViolation,
)
OBJECT_IN_USE: Final = "55006"
LOCK: Final = "SELECT pg_catalog.pg_try_advisory_lock(%s)"


def create_database(
    settings: Settings, log: Log, *, until_s: float | None = None
) -> bool:
    """
    Make the database; False where it exists already, as far as can be seen.

    Raises:
        NotReadyError: It could not be made.
    """
    name = shown(current_parameters(settings.database))["database"]
    if name is None:  # only libpq knows, from a service
        return False
    with closing(_open_maintenance(settings, name, until_s)) as conn:
        with asking(conn, f'ask whether database "{name}" exists'):
            exists, backend_pid = conn.execute(EXISTS, (name,)).fetchall()[0]
            if exists:
                return False
            if backend_pid == conn.info.backend_pid:
                _take_turn(conn, name)
        statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
        try:
            doing = f'create database "{name}"'
            with asking(conn, doing, timeout_s=math.inf):  # it copies a whole database
                try:
                    conn.execute(statement)
                except MADE_MEANWHILE:
                    return True
        except NotReadyError as error:
            if error.cause is NO_RIGHT:
                raise _no_right(conn, name) from error
            if error.sqlstate == OBJECT_IN_USE:
                raise NotReadyError(TEMPLATE_IN_USE, str(error)) from error
            raise
    log.emit(DATABASE_CREATED, database=name)
    return True


def _open_maintenance(
    settings: Settings, name: str, until_s: float | None
) -> LimitedConnection:
    """Connect to the first maintenance database that takes the login."""
    for maintenance in MAINTENANCE_DATABASES:
        try:
            return use_first(
                settings.database,
                _require_primary,
                until_s=until_s,
                dbname=maintenance,
            )
        except NotReadyError as error:
            if error.cause.kind != "refused":
                raise
            refusal = str(error)
    raise NotReadyError(
        NO_MAINTENANCE,
        f'database "{name}" does not exist, and no login to create it from: {refusal}',
    )


def _require_primary(conn: LimitedConnection) -> LimitedConnection:
    try:
        with asking(conn, "ask whether the server is a standby"):
            is_standby = conn.execute(IS_STANDBY).fetchall() == [(True,)]
    except BaseException:
        conn.close()
        raise
    if is_standby:
        conn.close()
        raise not_writable(is_standby=True)
    return conn


def _take_turn(conn: LimitedConnection, name: str) -> None:
    """
    Let one gate at a time be connected where the database is copied from.

    CREATE DATABASE waits for the others' sessions there, and fails; so would theirs.
    Through a pooler the lock would stay with a connection that is not ours.

    Raises:
        NotReadyError: It is another gate's turn.
    """
    if conn.info.dbname != TEMPLATE:
        return
    key = lock_keys(TEMPLATE, "create_database").lock
    if conn.execute(LOCK, (key,)).fetchall() != [(True,)]:
        raise NotReadyError(BEING_CREATED, f'another gate makes database "{name}"')


def _no_right(conn: LimitedConnection, name: str) -> NotReadyError:
    role = quote_name(conn.info.user)
    cause = Cause(
        kind="refused",
        reason="no_createdb_right",
        remedy=f"ALTER ROLE {role} CREATEDB; or let an administrator run "
        f"CREATE DATABASE {quote_name(name)} OWNER {role};",
    )
    return NotReadyError(
        cause, f'role {role} may not create database "{name}", which does not exist'
    )
