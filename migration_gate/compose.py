"""
Compose the messages that apply a migration: SQL around the file's own text.

Touches no database: a connection only tells how to quote and which version it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg

from psycopg import sql

from migration_gate.history_table import HistoryTable
from migration_gate.migration import BYTE_ORDER_MARK, Content
from migration_gate.records import finish_row, insert_row
from migration_gate.script import Script
from migration_gate.settings import Settings
from migration_gate.statements import Statement


TRANSACTION_TIMEOUT_MIN_VERSION: Final = 170000
CLIENT_CHECK_INTERVAL: Final = "500ms"
MESSAGE_MAX_BYTES: Final = 1 << 20  # PostgreSQL parses a whole message before it runs
INSERT_PLACE: Final = 2  # BEGIN, the limits, then the row
FINISH_PLACE: Final = -2  # the row's end, then COMMIT


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
    is_pooled: bool
    watches_client: bool
    strings_are_standard: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """
    What is sent at once: statements before, some of a file's, statements after.

    The server answers each statement once, so that counting answers tells the place.
    """

    script: Script
    statements: tuple[Statement, ...]
    before: tuple[bytes, ...] = field(default=(), repr=False)
    after: tuple[bytes, ...] = field(default=(), repr=False)

    @property
    def head(self) -> bytes:
        """Return what stands before the file's text."""
        return b"".join(statement + b";\n" for statement in self.before)

    @property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """Return the ranges of the file's bytes that are sent, in order."""
        return tuple(_find_spans(self.statements, self.script.content))

    @property
    def answer_count(self) -> int:
        """Return how many answers a message without an error has."""
        return len(self.before) + len(self.statements) + len(self.after)

    @property
    def finish_place(self) -> int:
        """Return the number of answers that come before that to the row's end."""
        return self.answer_count + FINISH_PLACE

    def encode(self) -> bytes:
        """Return the whole message."""
        content = self.script.content
        body = b"".join(content[start:end] for start, end in self.spans)
        return b"".join((self.head, body, b"\n;\n", b";\n".join(self.after)))

    def copy_data(self, answered: int) -> tuple[int, int]:
        """Return the file's range of data for the COPY after this many answers."""
        data = self.statements[answered - len(self.before)].copy_data
        if data is None:
            text = "PostgreSQL asks for data that the file does not have"
            raise AssertionError(text)
        return data


def _find_spans(
    statements: Sequence[Statement], content: Content
) -> Iterator[tuple[int, int]]:
    """Join the pieces that lie side by side; leave COPY data and a mark out."""
    start = end = -1
    for statement in statements:
        piece_start = statement.start
        if piece_start == 0 and content[:3] == BYTE_ORDER_MARK:
            piece_start = len(BYTE_ORDER_MARK)
        piece_end = statement.copy_data[0] if statement.copy_data else statement.end
        if piece_start != end:
            if start >= 0:
                yield start, end
            start = piece_start
        end = piece_end
        if statement.copy_data:
            yield start, end
            start = end = -1
    if start >= 0:
        yield start, end


def compose_transaction(worker: Worker, script: Script, version: str) -> list[Message]:
    """
    Return the messages that apply a script in one transaction: one, unless it is large.

    BEGIN; the limits; the history row; the role; the file; what clears up after it;
    the row's end; COMMIT.
    """
    (unit,) = script.units
    before = begin(worker, script, unit.modes)
    before.append(insert_row(worker.table, version, script.migration.checksum))
    before += become_role(worker)
    after = [*clean_up(worker), finish_row(worker.table, version), sql.SQL("COMMIT")]
    return to_messages(worker, script, unit.statements, before, after)


def to_messages(
    worker: Worker,
    script: Script,
    statements: Sequence[Statement],
    before: Sequence[sql.Composable],
    after: Sequence[sql.Composable],
) -> list[Message]:
    """Spread statements over as many messages as their size asks for."""
    parts = list(_cut(statements)) or [()]
    last = len(parts) - 1
    return [
        Message(
            script=script,
            statements=part,
            before=_to_bytes(worker, before) if index == 0 else (),
            after=_to_bytes(worker, after) if index == last else (),
        )
        for index, part in enumerate(parts)
    ]


def _cut(statements: Sequence[Statement]) -> Iterator[tuple[Statement, ...]]:
    part: list[Statement] = []
    size = 0
    for statement in statements:
        text_end = statement.copy_data[0] if statement.copy_data else statement.end
        if part and size + text_end - statement.start > MESSAGE_MAX_BYTES:
            yield tuple(part)
            part, size = [], 0
        part.append(statement)
        size += text_end - statement.start
    if part:
        yield tuple(part)


def _to_bytes(
    worker: Worker, statements: Sequence[sql.Composable]
) -> tuple[bytes, ...]:
    return tuple(statement.as_bytes(worker.conn) for statement in statements)


def begin(
    worker: Worker, script: Script, modes: bytes = b"", *, lock_timeout: bool = True
) -> list[sql.Composable]:
    """Begin a transaction with its limits."""
    words = sql.SQL("BEGIN {}").format(sql.SQL(modes.decode())) if modes else None
    return [
        words or sql.SQL("BEGIN"),
        limits(worker, script, is_local=True, lock_timeout=lock_timeout),
    ]


def become_role(worker: Worker) -> list[sql.Composable]:
    """Become GATE_ROLE, where there is one."""
    role = worker.settings.role
    if role is None:
        return []
    return [sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role))]


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


def clean_up(worker: Worker) -> list[sql.Composable]:
    """Clear whatever the file's statements may have left in the session."""
    texts: list[sql.Composable] = [sql.SQL(text) for text in CLEAN_UP]
    if not worker.strings_are_standard:
        texts.append(sql.SQL("SET standard_conforming_strings = on"))
    return texts


def limits(
    worker: Worker, script: Script, *, is_local: bool, lock_timeout: bool
) -> sql.Composable:
    """
    Set the timeouts, whatever role and database say.

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
    return sql.SQL("SELECT ") + sql.SQL(", ").join(calls)


def _first(directive_s: float | None, setting_s: float) -> float:
    return setting_s if directive_s is None else directive_s


def _milliseconds(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"
