"""
Say what went wrong in a message: whose statement it was, where, and what to do.

Judges answers that came; asks the server only whether an index is invalid.
"""

from __future__ import annotations

import re

from contextlib import suppress
from typing import Final

from migration_gate.connection.refusals import NO_ANSWER
from migration_gate.execution.at_commit import explain_at_commit
from migration_gate.execution.describing import LOCK_STATES, describe_failure
from migration_gate.execution.invalid import find_named, tell_invalid
from migration_gate.execution.message import Origin, Own
from migration_gate.execution.own_failure import explain_own
from migration_gate.execution.stumble import missing_semicolon, name_token
from migration_gate.execution.worker import Worker
from migration_gate.report.errors import MigrationFailedError, SqlError, SqlFailure
from migration_gate.report.outcomes import LocksNotFreeError
from migration_gate.report.remedies import find_remedy
from migration_gate.statements import Statement, created_index, find


SYNTAX_ERROR: Final = "42601"
DUPLICATE_TABLE: Final = "42P07"
DEFERRED: Final = b"SET CONSTRAINTS ALL IMMEDIATE"  # and COMMIT: the file's own
# A character that the database's encoding does not have; bytes that are none.
UNCONVERTIBLE: Final = frozenset({"22P05", "22021"})
BYTES: Final = re.compile(r"\b0x([0-9a-f]{2})\b")
NAME_REACH: Final = 128
UNSET: Final = re.compile(rb":['\"]?([A-Za-z_]\w*)")
COPY_LINE: Final = re.compile(r"COPY [^,]+,\D*(\d+)")


def explain_failure(worker: Worker, found: Origin, failure: SqlFailure) -> Exception:
    """
    Turn the error of a statement into the exception that says what to do.

    Args:
        found: Whose statement it is, and the byte that PostgreSQL points to.
    """
    if isinstance(found.part, Own) and not _is_of_the_file(found.part, failure):
        return explain_own(worker, found.share.task, found.part, failure)
    line, column = _find_place(found, failure)
    script = found.share.task.script
    is_filled_in = found.offset is not None and script.filled.is_filled_in(found.offset)
    error = describe_failure(
        worker, script, failure, line=line, column=column, is_filled_in=is_filled_in
    )
    if failure.sqlstate in LOCK_STATES:
        return LocksNotFreeError(error)
    hint = find_remedy(
        failure,
        outside=not script.in_transaction,
        full=worker.settings.log_detail == "full",
        role=worker.settings.role,
    )
    hint = hint.replace("VERSION", script.migration.version)
    if isinstance(found.part, Own) and found.part.name != "begin":
        error, hint = explain_at_commit(found.share, failure, error, hint)
    if is_filled_in:
        hint = f"PostgreSQL points into the value of a variable. {hint}"
    elif failure.sqlstate == SYNTAX_ERROR and isinstance(found.part, Statement):
        error, began = _name_stumble(found.part, found, failure, error)
        hint = began + hint
    if failure.sqlstate == DUPLICATE_TABLE and isinstance(found.part, Statement):
        error, hint = _name_invalid(worker, found.part, error, hint)
    return MigrationFailedError(error, hint=hint)


def _name_invalid(
    worker: Worker, statement: Statement, error: SqlError, hint: str
) -> tuple[SqlError, str]:
    """Tell an invalid index that is in the way from an object that was made before."""
    created = created_index(statement)
    index = None
    if created is not None and created.name is not None:
        with suppress(*NO_ANSWER), worker.translated("ask whether the index is valid"):
            index = find_named(worker.conn, created)
    if index is None:
        return error, hint
    message, hint = tell_invalid(index)
    return error._replace(error_message=message), hint


def _name_stumble(
    statement: Statement, found: Origin, failure: SqlFailure, error: SqlError
) -> tuple[SqlError, str]:
    """Say what PostgreSQL stumbled on, where it said so, and where that began."""
    script, said = found.share.task.script, error.error_message
    offset = statement.end if found.offset is None else found.offset
    first_in_file, in_file = map(script.filled.to_source, (statement.first, offset))
    began = missing_semicolon(script.source, first_in_file, in_file)
    unset = UNSET.match(script.source[in_file : in_file + NAME_REACH])
    if unset:
        name = unset[1].decode()
        began += f"Variable {name} is not set: GATE_VAR_{name} would fill it in. "
    token = name_token(script.content, statement.first, offset)
    if token is None or said == failure.message:  # it quoted nothing
        return error, began
    near = " at or near" if said == "syntax error" else ""
    return error._replace(error_message=f"{said}{near} {token}"), began


def _is_of_the_file(part: Own, failure: SqlFailure) -> bool:
    """
    Tell whether a statement of the gate's own fails by what the file does or holds.

    The server converts a message whole, before it begins with the first statement.
    """
    if part.name == "begin":
        return failure.sqlstate in UNCONVERTIBLE
    return part.name == "commit" or part.text == DEFERRED


def _find_place(found: Origin, failure: SqlFailure) -> tuple[int | None, int | None]:
    """
    Return line and column in the file.

    Where PostgreSQL gives no position, the line of COPY's data, or else the start of
    the failing statement. None for an error at COMMIT, which has none; of a text that
    the server cannot convert, which it does not begin with, that of the first character
    of its bytes.
    """
    part, script = found.part, found.share.task.script
    if isinstance(part, Own):
        said = BYTES.findall(failure.message or "") if part.name == "begin" else []
        written = bytes(int(byte, 16) for byte in said)
        offset = find(script.content, written) if written else -1
        return script.place(offset) if offset >= 0 else (None, None)
    data_line = COPY_LINE.match(failure.context or "")
    if part.copy_data and data_line:
        line, _ = script.place(part.copy_data[0])
        return line + int(data_line[1]) - 1, 1
    return script.place(part.first if found.offset is None else found.offset)
