"""
The last failure of each migration, in a table beside the history.

Says to a pod that waits, and to a person, why the last attempt elsewhere failed. It
decides nothing: what cannot be written or read is left out, and nothing waits for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from psycopg import sql

from migration_gate import __version__
from migration_gate.connection.asking import asking
from migration_gate.connection.limited import LimitedConnection
from migration_gate.connection.not_ready import NotReadyError
from migration_gate.connection.qualified import qualified
from migration_gate.files.migration import version_to_key
from migration_gate.history.companions import (
    companion_name,
    create_beside,
    look_beside,
    read_beside,
)
from migration_gate.history.guarding import guarded
from migration_gate.history.table import HistoryTable
from migration_gate.report.cleaning import clean_message
from migration_gate.report.errors import (
    GateError,
    MigrationFailedError,
    MigrationFilesError,
)


SUFFIX: Final = "_failures"
# What a message begins with that is of an attempt to undo.
UNDOING: Final = "rollback: "
LIMIT_S: Final = 2.0
MESSAGE_MAX_CHARACTERS: Final = 1000
SHOWN_MAX: Final = 100
COLUMNS: Final = sql.SQL(
    """
    version varchar(255) PRIMARY KEY,
    failed_at timestamp NOT NULL,
    sqlstate pg_catalog.text,
    line integer,
    "column" integer,
    message pg_catalog.text NOT NULL,
    hint pg_catalog.text,
    gate_version pg_catalog.text
    """
)
# Nobody waits for a standby's word here: a row that is lost was no more than a help.
LIMITS: Final = sql.SQL(
    "BEGIN; SET LOCAL lock_timeout = '500ms'; SET LOCAL statement_timeout = '1500ms'; "
    "SET LOCAL synchronous_commit = off; SET LOCAL search_path = pg_catalog, pg_temp; "
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """
    How the last attempt at a migration failed.

    ``message`` is cleaned, whatever GATE_LOG_DETAIL says: other roles read it.
    ``failed_at`` is ISO 8601 in UTC; empty before it is written.
    """

    version: str
    message: str
    hint: str = ""
    sqlstate: str | None = None
    line: int | None = None
    column: int | None = None
    failed_at: str = ""

    def __str__(self) -> str:
        place = ":".join(
            str(part) for part in (self.version, self.line, self.column) if part
        )
        code = f" (SQLSTATE {self.sqlstate})" if self.sqlstate else ""
        return f"{place}: {self.message}{code}"


def to_failure(error: GateError, versions: Mapping[str, str]) -> Failure | None:
    """
    Return what is kept of an error; None where it is about no migration.

    Args:
        versions: Of what is pending, by its file.
    """
    if isinstance(error, MigrationFailedError):
        told = error.error
        return Failure(
            version=told.version,
            message=clean_message(told.sqlstate, told.error_message),
            hint=error.hint,
            sqlstate=told.sqlstate,
            line=told.line,
            column=told.column,
        )
    if isinstance(error, MigrationFilesError):
        first = error.faults[0]
        return Failure(
            version=versions.get(first.file, first.file),
            message=first.problem,
            hint=first.remedy,
            line=first.line,
            column=first.column,
        )
    if error.version is None:
        return None
    return Failure(version=error.version, message=str(error), hint=error.hint)


def keep_failure(
    conn: LimitedConnection, table: HistoryTable, failure: Failure
) -> bool:
    """
    Write the failure down, in the place of the one before; tell whether that was done.

    Never raises for what the server says, and ends within LIMIT_S a statement.
    """
    try:
        with asking(conn, "look at the last failures", timeout_s=LIMIT_S):
            seen = look_beside(conn, table, SUFFIX)
            if seen.exists and (seen.faults or not seen.can_write):
                return False
            if not seen.exists and not (seen.can_create or seen.maker):
                return False
            write: sql.Composable = _upsert(table, failure)
            if seen.exists:
                write = guarded(table, (SUFFIX,), write)
            else:
                write = create_beside(table, SUFFIX, seen, COLUMNS) + write
            conn.execute(LIMITS + write + sql.SQL("; COMMIT"))
    except NotReadyError:
        return False
    return True


def read_failures(
    conn: LimitedConnection, table: HistoryTable, pending: Iterable[str]
) -> tuple[Failure, ...]:
    """
    Return the last failures of what is pending, the newest first. Reads only.

    Args:
        pending: Versions; a row of any other tells of an attempt before it was applied.
    """
    keys = {version_to_key(version) for version in pending}
    try:
        with asking(conn, "look at the last failures", timeout_s=LIMIT_S):
            seen = look_beside(conn, table, SUFFIX)
            if not seen.exists or seen.faults or not seen.can_read:
                return ()
            rows = read_beside(conn, table, SUFFIX, _select(table))
    except NotReadyError:
        return ()
    failures = (
        Failure(
            version=version,
            failed_at=failed_at,
            sqlstate=sqlstate,
            line=line,
            column=column,
            message=message,
            hint=hint or "",
        )
        for version, failed_at, sqlstate, line, column, message, hint in rows
    )
    return tuple(
        failure for failure in failures if version_to_key(failure.version) in keys
    )


def forget_failures(
    conn: LimitedConnection, table: HistoryTable, versions: Iterable[str]
) -> None:
    """Take out the rows of what is applied; never raises for what the server says."""
    delete = qualified(
        "DELETE FROM {} WHERE version = ANY (ARRAY[{}]::pg_catalog.text[])"
    ).format(
        companion_name(table, SUFFIX),
        sql.SQL(", ").join(map(sql.Literal, versions)),
    )
    try:
        with asking(conn, "look at the last failures", timeout_s=LIMIT_S):
            seen = look_beside(conn, table, SUFFIX)
            if seen.exists and seen.can_write and not seen.faults:
                write = guarded(table, (SUFFIX,), delete)
                conn.execute(LIMITS + write + sql.SQL("; COMMIT"))
    except NotReadyError:
        return


def _to_text(words: str) -> str:
    """Return what a column takes: not too much, and no zero byte."""
    return words[:MESSAGE_MAX_CHARACTERS].replace("\0", "")


def _upsert(table: HistoryTable, failure: Failure) -> sql.Composed:
    values: dict[str, str | int | sql.Composable | None] = {
        "version": failure.version,
        "failed_at": sql.SQL("(pg_catalog.clock_timestamp() AT TIME ZONE 'UTC')"),
        "sqlstate": failure.sqlstate,
        "line": failure.line,
        "column": failure.column,
        "message": _to_text(failure.message),
        "hint": _to_text(failure.hint) or None,
        "gate_version": __version__,
    }
    others = [sql.Identifier(name) for name in values if name != "version"]
    return sql.SQL(
        "INSERT INTO {table} ({names}) VALUES ({values}) "
        "ON CONFLICT (version) DO UPDATE SET {changes}"
    ).format(
        table=companion_name(table, SUFFIX),
        names=sql.SQL(", ").join(map(sql.Identifier, values)),
        values=sql.SQL(", ").join(values.values()),
        changes=sql.SQL(", ").join(
            sql.SQL("{name} = excluded.{name}").format(name=name) for name in others
        ),
    )


def _select(table: HistoryTable) -> sql.Composed:
    return sql.SQL(
        "SELECT version, pg_catalog.to_char(failed_at, "
        '\'YYYY-MM-DD"T"HH24:MI:SS"Z"\'), sqlstate, line, "column", message, hint '
        "FROM {} ORDER BY failed_at DESC LIMIT {}"
    ).format(companion_name(table, SUFFIX), SHOWN_MAX)
