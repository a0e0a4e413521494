"""
Say what went wrong in a message: whose statement it was, where, and what to do.

Judges answers that came; sends nothing.
"""

from __future__ import annotations

import re

from typing import Final

from migration_gate.cleaning import clean_failure
from migration_gate.compose import INSERT_PLACE, Message, Worker
from migration_gate.errors import (
    GateError,
    HistoryError,
    LoginRefusedError,
    MigrationFailedError,
    SettingFault,
    SettingsError,
    SqlError,
    SqlFailure,
)
from migration_gate.history_table import missing_right, quote_name
from migration_gate.remedies import find_remedy
from migration_gate.statements import place


LOCK_STATES: Final = frozenset({"55P03", "40P01", "40001"})
COPY_LINE: Final = re.compile(r"COPY [^,]+,\D*(\d+)")


class AlreadyAppliedError(Exception):
    """The history has the row: another gate was faster, or a lost COMMIT happened."""


class LocksNotFreeError(Exception):
    """The migration was rolled back because it could not get its locks."""

    def __init__(self, error: SqlError) -> None:
        super().__init__(error.error_message)
        self.error = error


def judge_failure(
    worker: Worker, message: Message, failure: SqlFailure, answered: int, version: str
) -> Exception:
    """
    Turn the first error of a message into the exception that says what to do.

    Args:
        answered: How many answers came before the error.
        version: The history row's, for the errors that are about it.
    """
    offset = _offset_in_file(message, failure)
    if answered < len(message.before) and offset is None:
        return _judge_own(worker, message, failure, answered, version)
    line, column = _find_place(message, failure, answered, offset)
    full = worker.settings.log_detail == "full"
    error = SqlError(
        version=message.script.migration.version,
        file=message.script.migration.version,
        sqlstate=failure.sqlstate,
        line=line,
        column=column,
        **clean_failure(failure, full=full),  # type: ignore[arg-type]  # error_message is always a text
    )
    if failure.sqlstate in LOCK_STATES:
        return LocksNotFreeError(error)
    if message.after and answered == message.finish_place and offset is None:
        return HistoryError(
            f'migration "{version}" removes its own row from the history, or the table',
            hint="Take that out of the file: the history is the gate's to write.",
        )
    return MigrationFailedError(error, hint=find_remedy(failure))


def _judge_own(
    worker: Worker, message: Message, failure: SqlFailure, answered: int, version: str
) -> Exception:
    """Judge an error in a statement of the gate's own, before the file's first."""
    table, role = worker.table, worker.settings.role
    if answered == INSERT_PLACE:
        if failure.sqlstate == "23505":
            return AlreadyAppliedError(version)
        if failure.sqlstate == "42501":
            facts = {"login_role": worker.login_role}
            error = missing_right("SELECT, INSERT, UPDATE", table.schema, table.name, facts)
            if failure.message and "sequence" in failure.message:
                error.hint += _sequence_grant(worker)
            return error
        if failure.sqlstate in LOCK_STATES:
            return LocksNotFreeError(_own_error(message, failure))
        return HistoryError(
            f'could not write to table "{table.schema}.{table.name}": '
            f"{failure.message} (SQLSTATE {failure.sqlstate})",
            hint="Look at the table: it may have been dropped or altered meanwhile.",
        )
    if role is not None and answered == len(message.before) - 1:
        return _judge_role(role, failure, worker.login_role)
    return MigrationFailedError(_own_error(message, failure), hint=find_remedy(failure))


def _sequence_grant(worker: Worker) -> str:
    schema, role = worker.table.schema, worker.login_role
    return (
        f" GRANT USAGE ON ALL SEQUENCES IN SCHEMA {quote_name(schema)} "
        f"TO {quote_name(role)};"
    )


def _judge_role(role: str, failure: SqlFailure, login_role: str) -> GateError:
    if failure.sqlstate == "42501":
        return LoginRefusedError(
            f'role "{login_role}" may not become role "{role}" (GATE_ROLE)',
            hint=f"GRANT {quote_name(role)} TO {quote_name(login_role)};",
        )
    fault = SettingFault(
        name="GATE_ROLE",
        rule="names a role that does not exist",
        remedy="Create the role, or correct GATE_ROLE.",
    )
    return SettingsError([fault])


def _own_error(message: Message, failure: SqlFailure) -> SqlError:
    version = message.script.migration.version
    return SqlError(
        version=version,
        file=version,
        sqlstate=failure.sqlstate,
        error_message=failure.message or "",
    )


def _offset_in_file(message: Message, failure: SqlFailure) -> int | None:
    """
    Return the byte offset in the file that PostgreSQL's position points to.

    PostgreSQL counts characters of the whole message, from 1.
    """
    if failure.position is None:
        return None
    characters = failure.position - 1 - len(message.head.decode())
    if characters < 0:
        return None
    for start, end in message.spans:
        text = message.script.content[start:end].decode()
        if characters <= len(text):
            return start + len(text[:characters].encode())
        characters -= len(text)
    return None


def _find_place(
    message: Message, failure: SqlFailure, answered: int, offset: int | None
) -> tuple[int | None, int | None]:
    """
    Return line and column in the file.

    Where PostgreSQL gives no position, the line of COPY's data, or else the start of
    the failing statement, found by counting the answers before the error; None for an
    error at COMMIT.
    """
    content = message.script.content
    if offset is not None:
        return place(content, offset)
    index = answered - len(message.before)
    if not 0 <= index < len(message.statements):
        return None, None
    statement = message.statements[index]
    data_line = COPY_LINE.match(failure.context or "")
    if statement.copy_data and data_line:
        line, _ = place(content, statement.copy_data[0])
        return line + int(data_line[1]) - 1, 1
    return place(content, statement.first)
