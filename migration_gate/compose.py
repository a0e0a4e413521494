"""
Compose the message that applies one migration: SQL around the file's own text.

Touches no database: a connection only tells how to quote and which version it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import psycopg

from psycopg import sql

from migration_gate import __version__
from migration_gate.history_table import HistoryTable
from migration_gate.script import Script
from migration_gate.settings import Settings


TRANSACTION_TIMEOUT_MIN_VERSION: Final = 170000
CLIENT_CHECK_INTERVAL: Final = "500ms"
INSERT_PLACE: Final = 2  # BEGIN, the limits, then the history row
FINISH_PLACE: Final = -2  # the history row's end, then COMMIT


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """
    The connection that runs files, and what is the same for each of them.

    ``watches_client`` tells whether the server can notice that this client is gone;
    ``strings_are_standard`` whether its default for standard_conforming_strings is on.
    """

    conn: psycopg.Connection[Any]
    settings: Settings
    table: HistoryTable
    login_role: str
    watches_client: bool
    strings_are_standard: bool


@dataclass(frozen=True, slots=True)
class Message:
    """
    What is sent for one script: statements before it, the file, statements after it.

    The server answers each statement once, so that counting answers tells the place.
    """

    before: tuple[bytes, ...]
    script: Script
    after: tuple[bytes, ...]

    @property
    def head(self) -> bytes:
        """Return what stands before the file's text."""
        return b";\n".join(self.before) + b";\n"

    def encode(self) -> bytes:
        """Return the whole message."""
        return b"".join(
            (self.head, self.script.text, b"\n;\n", b";\n".join(self.after))
        )

    @property
    def after_place(self) -> int:
        """Return the number of answers that come before those to ``after``."""
        return len(self.before) + len(self.script.statements)


def compose_message(worker: Worker, script: Script, version: str) -> Message:
    """
    Return the message that applies a script and records it under ``version``.

    BEGIN; the limits; the history row; the role; the file; what clears up after it;
    the row's end; COMMIT.
    """
    table, role = worker.table, worker.settings.role
    row = insert_row(table, version, script.migration.checksum)
    before = [sql.SQL("BEGIN"), _limits(worker, script), row]
    if role is not None:
        before.append(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role)))
    clean_up = [sql.SQL(text) for text in CLEAN_UP]
    if not worker.strings_are_standard:
        clean_up.append(sql.SQL("SET standard_conforming_strings = on"))
    after = [*clean_up, _finish(table, version), sql.SQL("COMMIT")]
    conn = worker.conn
    return Message(
        tuple(part.as_bytes(conn) for part in before),
        script,
        tuple(part.as_bytes(conn) for part in after),
    )


# What a file leaves is cleared inside its transaction. Deferred constraints are checked
# first, while the role is still the file's. DISCARD ALL cannot run in a transaction; and
# RESET ALL undoes neither role nor session authorization.
CLEAN_UP: Final = (
    "SET CONSTRAINTS ALL IMMEDIATE",
    "CLOSE ALL",
    "UNLISTEN *",
    "DEALLOCATE ALL",
    "SET SESSION AUTHORIZATION DEFAULT",
    "RESET ROLE",
    "RESET ALL",
    "DISCARD TEMP",
    "DISCARD SEQUENCES",
    "SELECT pg_catalog.pg_advisory_unlock_all()",
)


def _limits(worker: Worker, script: Script) -> sql.Composable:
    """Set the transaction's timeouts, whatever role and database say."""
    settings, directives = worker.settings, script.directives
    lock_s = _first(directives.lock_timeout_s, settings.ddl_lock_timeout_s)
    statement_s = _first(directives.statement_timeout_s, settings.statement_timeout_s)
    limits = {
        "lock_timeout": _milliseconds(lock_s),
        "statement_timeout": _milliseconds(statement_s),
        "idle_in_transaction_session_timeout": "0",
    }
    if worker.conn.info.server_version >= TRANSACTION_TIMEOUT_MIN_VERSION:
        limits["transaction_timeout"] = "0"
    if worker.watches_client:
        limits["client_connection_check_interval"] = CLIENT_CHECK_INTERVAL
    calls = (
        sql.SQL("pg_catalog.set_config({}, {}, true)").format(name, value)
        for name, value in limits.items()
    )
    return sql.SQL("SELECT ") + sql.SQL(", ").join(calls)


def _first(directive_s: float | None, setting_s: float) -> float:
    return setting_s if directive_s is None else directive_s


def _milliseconds(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"


def insert_row(table: HistoryTable, version: str, checksum: str) -> sql.Composed:
    """Return the statement that records a version, with what columns there are."""
    values: dict[str, sql.Composable] = {
        "version": sql.Literal(version),
        "applied_at": _clock(table),
    }
    ours = {"checksum": checksum, "gate_version": __version__}
    values |= {c: sql.Literal(v) for c, v in ours.items() if c in table.our_columns}
    return sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
        sql.Identifier(table.schema, table.name),
        sql.SQL(", ").join(sql.Identifier(column) for column in values),
        sql.SQL(", ").join(values.values()),
    )


def delete_rows(table: HistoryTable, versions: Sequence[str]) -> sql.Composed:
    """Return the statement that takes versions out of the history."""
    return sql.SQL("DELETE FROM {} WHERE version IN ({})").format(
        sql.Identifier(table.schema, table.name),
        sql.SQL(", ").join(map(sql.Literal, versions)),
    )


def _clock(table: HistoryTable) -> sql.Composable:
    text = "pg_catalog.clock_timestamp()"
    return sql.SQL(text if table.has_zone else f"({text} AT TIME ZONE 'UTC')")


def _finish(table: HistoryTable, version: str) -> sql.Composable:
    """
    Fill in when the migration ended and how long it took, and read both back.

    Divides by the number of rows, so that a file that removed its own row fails.
    """
    clock = _clock(table)
    took = sql.SQL(
        "(extract(epoch FROM {} - applied_at) * 1000)::pg_catalog.int8"
    ).format(clock)
    if "duration_ms" in table.our_columns and table.can_update:
        row = sql.SQL(
            "UPDATE {table} SET applied_at = {clock}, duration_ms = {took} "
            "WHERE version = {version} RETURNING duration_ms, applied_at"
        )
    else:
        row = sql.SQL(
            "SELECT {took} AS duration_ms, applied_at FROM {table} "
            "WHERE version = {version}"
        )
    zone = sql.SQL(" AT TIME ZONE 'UTC'" if table.has_zone else "")
    return sql.SQL(
        "WITH done AS ({row}) SELECT (SELECT duration_ms FROM done), "
        "(SELECT pg_catalog.to_char(applied_at{zone}, "
        "'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') FROM done), "
        "1 / (SELECT pg_catalog.count(*) FROM done)"
    ).format(
        row=row.format(
            table=sql.Identifier(table.schema, table.name),
            clock=clock,
            took=took,
            version=sql.Literal(version),
        ),
        zone=zone,
    )


