"""
Compose the messages that apply a migration: SQL around the file's own text.

Touches no database: a connection only tells how to quote and which version it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import psycopg

from psycopg import sql

from migration_gate.connect import APPLICATION_NAME
from migration_gate.history_table import HistoryTable
from migration_gate.parts import Message, Own, OwnName, Part, part_end
from migration_gate.records import finish_row, insert_row
from migration_gate.script import Script
from migration_gate.settings import Settings
from migration_gate.statements import Statement


TRANSACTION_TIMEOUT_MIN_VERSION: Final = 170000
CLIENT_CHECK_INTERVAL: Final = "500ms"
MESSAGE_MAX_BYTES: Final = 1 << 20  # PostgreSQL parses a whole message before it runs
MARKS_MAX: Final = 50  # in a message
MARK: Final = "statement "


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
    work_key: int
    watches_client: bool
    strings_are_standard: bool


def compose_transaction(worker: Worker, script: Script, version: str) -> list[Message]:
    """
    Return the messages that apply a script in one transaction: one, unless it is large.

    BEGIN; the limits; the history row; the role; the file; what clears up after it;
    the row's end; COMMIT.
    """
    (unit,) = script.units
    row = insert_row(worker.table, version, script.migration.checksum)
    finish = finish_row(worker.table, version)
    return to_messages(
        worker,
        script,
        before=(
            *begin(worker, script, unit.modes),
            own(worker, "row", row),
            *become_role(worker),
        ),
        statements=unit.statements,
        after=(
            *clean_up(worker),
            own(worker, "finish", finish),
            Own("commit", b"COMMIT"),
        ),
    )


def to_messages(
    worker: Worker,
    script: Script,
    *,
    before: Sequence[Own],
    statements: Sequence[Statement],
    after: Sequence[Own],
) -> list[Message]:
    """Spread statements over as many messages as their size asks for."""
    groups = list(_cut(statements)) or [()]
    parts: list[list[Part]] = [[*_mark(worker, group)] for group in groups]
    parts[0][:0] = before
    parts[-1] += after
    return [Message(script=script, parts=tuple(each)) for each in parts]


def _cut(statements: Sequence[Statement]) -> Iterator[tuple[Statement, ...]]:
    group: list[Statement] = []
    size = 0
    for statement in statements:
        length = part_end(statement) - statement.start
        if group and size + length > MESSAGE_MAX_BYTES:
            yield tuple(group)
            group, size = [], 0
        group.append(statement)
        size += length
    if group:
        yield tuple(group)


def _mark(worker: Worker, statements: Sequence[Statement]) -> Iterator[Part]:
    """
    Put marks between statements, by which others see how far the message is.

    The server sends no answer before the message is done; a session's application_name
    is seen at once. A single statement needs none.
    """
    step = max(1, len(statements) // MARKS_MAX)
    for index, statement in enumerate(statements):
        if len(statements) > 1 and index % step == 0:
            name = f"{APPLICATION_NAME} {MARK}{statement.number}"
            yield own(
                worker,
                "mark",
                sql.SQL("SET LOCAL application_name = {}").format(name),
            )
        yield statement


def own(worker: Worker, name: OwnName, statement: sql.Composable) -> Own:
    """Return a statement of the gate's own as it is sent."""
    return Own(name, statement.as_bytes(worker.conn))


def begin(
    worker: Worker, script: Script, modes: bytes = b"", *, lock_timeout: bool = True
) -> list[Own]:
    """Begin a transaction with its limits."""
    return [
        Own("begin", b"BEGIN " + modes if modes else b"BEGIN"),
        own(
            worker,
            "limits",
            limits(worker, script, is_local=True, lock_timeout=lock_timeout),
        ),
    ]


def become_role(worker: Worker) -> list[Own]:
    """Become GATE_ROLE, where there is one."""
    role = worker.settings.role
    if role is None:
        return []
    statement = sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role))
    return [own(worker, "role", statement)]


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


def clean_up(worker: Worker) -> list[Own]:
    """Clear whatever the file's statements may have left in the session."""
    parts = [Own("clean up", text.encode()) for text in CLEAN_UP]
    if not worker.strings_are_standard:
        parts.append(Own("clean up", b"SET standard_conforming_strings = on"))
    return parts


def limits(
    worker: Worker, script: Script, *, is_local: bool, lock_timeout: bool
) -> sql.Composable:
    """
    Set the timeouts, whatever role and database say, and take the work key.

    The key is shared and never waited for: whoever holds it still works, which is how
    the next gate sees a backend that an earlier one has left.

    Args:
        is_local: For the transaction alone, else for the session.
        lock_timeout: False lets a statement wait whose waiting blocks no query.
    """
    settings, directives = worker.settings, script.directives
    lock_s = _first(directives.lock_timeout_s, settings.ddl_lock_timeout_s)
    statement_s = _first(directives.statement_timeout_s, settings.statement_timeout_s)
    values = {
        "lock_timeout": _milliseconds(lock_s if lock_timeout else 0.0),
        "statement_timeout": _milliseconds(statement_s),
        "idle_in_transaction_session_timeout": "0",
    }
    if worker.conn.info.server_version >= TRANSACTION_TIMEOUT_MIN_VERSION:
        values["transaction_timeout"] = "0"
    if worker.watches_client:
        values["client_connection_check_interval"] = CLIENT_CHECK_INTERVAL
    calls = (
        sql.SQL("pg_catalog.set_config({}, {}, {})").format(name, value, is_local)
        for name, value in values.items()
    )
    function = "pg_advisory_xact_lock_shared" if is_local else "pg_advisory_lock_shared"
    key = sql.SQL("pg_catalog.{}({})").format(sql.SQL(function), worker.work_key)
    return sql.SQL("SELECT ") + sql.SQL(", ").join([*calls, key])


def _first(directive_s: float | None, setting_s: float) -> float:
    return setting_s if directive_s is None else directive_s


def _milliseconds(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"
