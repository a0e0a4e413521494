"""
Say what went wrong in a message: whose statement it was, where, and what to do.

Judges answers that came; sends nothing.
"""

from __future__ import annotations

import re

from typing import Final

from migration_gate.execution.frame import OUTDATED
from migration_gate.execution.message import Own, Place, Task
from migration_gate.execution.worker import Worker
from migration_gate.files.fitness import find_removal
from migration_gate.files.script import Script
from migration_gate.history.table import missing_right
from migration_gate.report.cleaning import clean_failure
from migration_gate.report.errors import (
    GateError,
    HistoryError,
    LoginRefusedError,
    MigrationFailedError,
    SettingFault,
    SettingsError,
    SqlError,
    SqlFailure,
)
from migration_gate.report.outcomes import (
    AlreadyAppliedError,
    ConnectionLostError,
    DefaultsChangedError,
    LocksNotFreeError,
)
from migration_gate.report.quoting import quote_name
from migration_gate.report.remedies import find_remedy
from migration_gate.statements import place


LOCK_STATES: Final = frozenset({"55P03", "40P01", "40001"})
AT_COMMIT: Final = frozenset({"clean up", "commit"})  # deferred constraints
# No such table or column; nothing was recorded, in this session or this transaction;
# division by the number of rows.
ROW_GONE: Final = frozenset({"42P01", "42703", "42704", "22P02", "22012"})
COPY_LINE: Final = re.compile(r"COPY [^,]+,\D*(\d+)")


def judge_failure(worker: Worker, found: Place, failure: SqlFailure) -> Exception:
    """
    Turn the error of a statement into the exception that says what to do.

    Args:
        found: Whose statement it is, and the byte that PostgreSQL points to.
    """
    if isinstance(found.part, Own) and found.part.name not in AT_COMMIT:
        return _judge_own(worker, found.share.task, found.part, failure)
    line, column = _find_place(found, failure)
    script = found.share.task.script
    error = describe_failure(worker, script, failure, line=line, column=column)
    if failure.sqlstate in LOCK_STATES:
        return LocksNotFreeError(error)
    return MigrationFailedError(error, hint=find_remedy(failure))


def describe_failure(
    worker: Worker,
    script: Script,
    failure: SqlFailure,
    *,
    line: int | None = None,
    column: int | None = None,
) -> SqlError:
    """Return what may be told of an error, with its place."""
    version = script.migration.version
    cleaned = clean_failure(failure, full=worker.settings.log_detail == "full")
    return SqlError(
        version=version,
        file=version,
        sqlstate=failure.sqlstate,
        line=line,
        column=column,
        **cleaned,  # type: ignore[arg-type]  # error_message is always a text
    )


def _judge_own(worker: Worker, task: Task, part: Own, failure: SqlFailure) -> Exception:
    """Judge an error in a statement of the gate's own."""
    error = describe_failure(worker, task.script, failure)
    if failure.sqlstate in LOCK_STATES:
        return LocksNotFreeError(error)
    if part.name == "defaults" and failure.sqlstate == OUTDATED:
        return DefaultsChangedError()
    if part.name == "row":
        return _judge_row(worker, failure, task.version)
    if part.name == "role" and worker.settings.role is not None:
        return _judge_role(worker.settings.role, failure, worker.login_role)
    if part.name in {"finish", "finished"} and failure.sqlstate in ROW_GONE:
        return _judge_removal(worker, task)
    return MigrationFailedError(error, hint=find_remedy(failure))


def _judge_removal(worker: Worker, task: Task) -> GateError:
    script = task.script
    statements = [each for unit in script.units for each in unit.statements]
    removal = find_removal(script.content, statements, worker.table.name)
    line, column = place(script.content, removal.first) if removal else (None, None)
    at = f":{line}" if line else ""
    return HistoryError(
        f"{task.version}{at}: the migration removes the history table, or its own row",
        hint="Take that out of the file: the history is the gate's to write.",
        file=task.version,
        line=line,
        column=column,
    )


def _judge_row(worker: Worker, failure: SqlFailure, version: str) -> Exception:
    table = worker.table
    if failure.sqlstate == "23505":
        return AlreadyAppliedError(version, failure.constraint)
    if failure.sqlstate == "25006":
        return ConnectionLostError("the database has turned read-only")
    if failure.sqlstate == "42501":
        facts = {"login_role": worker.login_role}
        right = missing_right("SELECT, INSERT, UPDATE", table.schema, table.name, facts)
        if failure.message and "sequence" in failure.message:
            right.hint += _sequence_grant(worker)
        return right
    return HistoryError(
        f'could not write to table "{table.schema}.{table.name}": '
        f"{failure.message} (SQLSTATE {failure.sqlstate})",
        hint="Look at the table: it may have been dropped or altered meanwhile.",
    )


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


def _find_place(found: Place, failure: SqlFailure) -> tuple[int | None, int | None]:
    """
    Return line and column in the file.

    Where PostgreSQL gives no position, the line of COPY's data, or else the start of
    the failing statement; None for an error at COMMIT.
    """
    part, content = found.part, found.share.task.script.content
    if isinstance(part, Own):
        return None, None
    data_line = COPY_LINE.match(failure.context or "")
    if part.copy_data and data_line:
        line, _ = place(content, part.copy_data[0])
        return line + int(data_line[1]) - 1, 1
    return place(content, part.first if found.offset is None else found.offset)
