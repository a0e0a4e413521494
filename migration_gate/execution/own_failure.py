"""
What a statement of the gate's own failed by, around a file: who did that, and how.

Judges answers that came; asks the server only which right lacks, or what became of the
history.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Final

from migration_gate.connection.qualified import qualified
from migration_gate.connection.refusals import NO_ANSWER, refuse
from migration_gate.execution.describing import LOCK_STATES, describe_failure
from migration_gate.execution.frame import OUTDATED
from migration_gate.execution.invalid import (
    InvalidIndex,
    find_invalid,
    is_built,
    tell_invalid,
)
from migration_gate.execution.message import Own, OwnName, Task
from migration_gate.execution.worker import Worker
from migration_gate.files.fitness import find_removal
from migration_gate.files.script import Script
from migration_gate.history.trust import find_marked
from migration_gate.history.writing import (
    WRITING,
    explain_write,
    find_alteration,
    find_trigger,
    may_write,
)
from migration_gate.report.cleaning import is_raised
from migration_gate.report.errors import (
    GateError,
    HistoryError,
    LoginRefusedError,
    MigrationFailedError,
    ServerRefusedError,
    SettingFault,
    SettingsError,
    SqlError,
    SqlFailure,
)
from migration_gate.report.outcomes import (
    AlreadyAppliedError,
    DefaultsChangedError,
    LocksNotFreeError,
    NotAppliedError,
    PathLeftError,
)
from migration_gate.report.quoting import quote_name
from migration_gate.statements import Statement, created_index


UNIQUE_VIOLATION: Final = "23505"
DIVISION_BY_ZERO: Final = "22012"
# No such table, column or schema; division by the number of rows. Nothing was recorded,
# in this session or this transaction.
ROW_GONE: Final[Mapping[OwnName, frozenset[str]]] = MappingProxyType(
    {
        "kept": frozenset({"42P01", "3F000", "22012"}),
        "trusted": frozenset({"42P01", "3F000", "22P02"}),
        "finish": frozenset({"42P01", "3F000", "42703", "22012"}),
        "finished": frozenset({"42704", "22P02"}),
    }
)
NO_ROLE: Final = frozenset({"22023", "42704"})
# What comes after a file, and what its statements can take from that: a right, or that
# their transaction writes.
AFTER_FILE: Final = frozenset({"kept", "clean up", "trusted", "finish", "finished"})
NO_RIGHT: Final = "42501"
READ_ONLY: Final = "25006"
WRITES_HISTORY: Final = frozenset({"lock", "row", "gone", "finish", "finished"})
RIGHTS_TO_UNDO: Final = ("SELECT", "DELETE")
DOING: Final[Mapping[OwnName, str]] = MappingProxyType(
    {
        "begin": 'begin a transaction for migration "{version}"',
        "defaults": 'compare the defaults of the session for migration "{version}"',
        "path": 'ask for the search path after migration "{version}"',
        "lock": 'lock table "{table}" for migration "{version}"',
        "limits": 'set the limits of migration "{version}"',
        "variables": 'set the variables of migration "{version}"',
        "row": 'write migration "{version}" to table "{table}"',
        "gone": 'take migration "{version}" out of table "{table}"',
        "noted": 'note what was written in table "{table}"',
        "kept": 'ask what was written in table "{table}"',
        "role": 'become GATE_ROLE for migration "{version}"',
        "schema": 'ask whether GATE_ROLE finds the schema of "{version}"',
        "setting": 'bring back the settings of migration "{version}"',
        "mark": 'tell how far migration "{version}" is',
        "valid": 'ask whether an index of migration "{version}" is valid',
        "asked": 'ask what migration "{version}" has locked',
        "clean up": 'clear the session after migration "{version}"',
        "trusted": 'clear the session after migration "{version}"',
        "complete": 'complete what migration "{version}" has begun',
        "forget": 'forget the progress of migration "{version}"',
        "finish": 'finish migration "{version}" in table "{table}"',
        "finished": 'finish migration "{version}" in table "{table}"',
        "commit": 'commit migration "{version}"',
    }
)
# From then on a member may become the role only WITH SET TRUE, as a GRANT says it.
SET_OPTION_MIN_VERSION: Final = 160000
MEMBERSHIP: Final = qualified(
    "SELECT pg_catalog.pg_has_role(session_user, {role}, 'MEMBER'), "
    "pg_catalog.pg_has_role(session_user, {role}, {option})"
)


def explain_own(
    worker: Worker, task: Task, part: Own, failure: SqlFailure
) -> Exception:
    """Judge an error in a statement of the gate's own."""
    outcome = _find_outcome(worker, task, part, failure)
    return outcome or _refuse_own(worker, task, part, failure)


def _find_outcome(
    worker: Worker, task: Task, part: Own, failure: SqlFailure
) -> Exception | None:
    """Return what the run acts on, or knows the reason of."""
    if failure.sqlstate in LOCK_STATES:
        return LocksNotFreeError(describe_failure(worker, task.script, failure))
    known = _find_required(worker, part, failure)
    known = known or _find_faster(worker, task, part, failure)
    if known is not None:
        return known
    if part.name == "role" and worker.settings.role is not None:
        return _explain_role(worker, worker.settings.role, failure)
    return _find_doing(worker, task, part, failure)


def _find_required(worker: Worker, part: Own, failure: SqlFailure) -> Exception | None:
    """Return what a session lacks that the file belongs in."""
    if failure.sqlstate != OUTDATED:
        return None
    if part.name == "schema":
        return _explain_hidden(worker)
    if part.name == "path":
        return PathLeftError()
    return DefaultsChangedError() if part.name == "defaults" else None


def _find_doing(
    worker: Worker, task: Task, part: Own, failure: SqlFailure
) -> GateError | None:
    """Return what the file has done to the history, or taken from the gate."""
    if _is_row_gone(part, failure):
        return _explain_removal(worker, task, find_marked(failure.message))
    if part.name in AFTER_FILE and failure.sqlstate in {NO_RIGHT, READ_ONLY}:
        return _explain_taken(worker, task, failure)
    return None


def _find_faster(
    worker: Worker, task: Task, part: Own, failure: SqlFailure
) -> Exception | None:
    """Return what tells that the history is not what it was."""
    # The row of a repeatable one has another text than it had.
    is_there = DIVISION_BY_ZERO if task.replaced else UNIQUE_VIOLATION
    if part.name == "row" and failure.sqlstate == is_there:
        return AlreadyAppliedError(task.version, failure.constraint)
    if part.name == "gone" and failure.sqlstate == DIVISION_BY_ZERO:
        return NotAppliedError(task.version)
    if part.name == "limits" and find_marked(failure.message):
        with suppress(*NO_ANSWER):
            return find_trigger(worker.conn, worker.table)
    return None


def _refuse_own(
    worker: Worker, task: Task, part: Own, failure: SqlFailure
) -> Exception:
    doing, table = DOING[part.name], f"{worker.table.schema}.{worker.table.name}"
    refusal = refuse(
        doing.format(version=task.version, table=table),
        failure,
        full=worker.settings.log_detail == "full",
    )
    if part.name == "valid" and failure.sqlstate == DIVISION_BY_ZERO:
        with suppress(*NO_ANSWER), worker.translated("ask which index is invalid"):
            return _find_invalid(worker, task) or refusal
    if part.name in WRITES_HISTORY and isinstance(refusal, ServerRefusedError):
        with suppress(*NO_ANSWER):
            return explain_write(
                worker.conn,
                worker.table,
                worker.acting_role,
                refusal,
                rights=RIGHTS_TO_UNDO if part.name == "gone" else WRITING,
            )
    return refusal


def refuse_invalid(
    script: Script, statement: Statement, index: InvalidIndex
) -> MigrationFailedError:
    """Return the error for an invalid index that a statement's IF NOT EXISTS found."""
    message, hint = tell_invalid(index)
    line, column = script.place(statement.first)
    error = SqlError(
        version=script.migration.version,
        file=script.migration.file,
        sqlstate=None,
        error_message=message,
        line=line,
        column=column,
    )
    return MigrationFailedError(error, hint=hint)


def _find_invalid(worker: Worker, task: Task) -> MigrationFailedError | None:
    """Return the error for the invalid index that IF NOT EXISTS passed over."""
    script, found = task.script, find_invalid(worker.conn)
    for statement in (each for unit in script.units for each in unit.statements):
        created = created_index(statement)
        if created is None or not created.if_not_exists:
            continue
        for index in found:
            if is_built(index, [created]):
                return refuse_invalid(script, statement, index)
    return None


def _explain_removal(worker: Worker, task: Task, left_with: str | None) -> GateError:
    """Tell what the file did to the history from what others did to it meanwhile."""
    with suppress(*NO_ANSWER):
        alteration = find_alteration(worker.conn, worker.table)
        if alteration is not None:
            return alteration
    script = task.script
    statements = (each for unit in script.units for each in unit.statements)
    removal = find_removal(script.content, statements, worker.table.name)
    line, column = script.place(removal.first) if removal else (None, None)
    file = script.migration.file
    at = f":{line}" if line else ""
    name = worker.table.name
    message = (
        f"{file}{at}: the migration removes the history table, or writes rows of it"
    )
    hint = (
        "Take that out of the file: the history is the gate's to write. Where an older "
        "table of that name is meant, set GATE_HISTORY_TABLE to another."
    )
    if left_with is not None:
        message = (
            f"{file}{at}: the migration leaves the history table "
            f'"{name}" with {left_with}'
        )
        hint = (
            "No later start would trust it. Leave the gate's tables out of what the "
            f"file does to all, e.g. WHERE relname NOT LIKE '{name}%', and of what an "
            "event trigger does."
        )
    return HistoryError(
        message,
        hint=f"{hint} {_what_remains(script)}",
        version=task.version,
        file=file,
        line=line,
        column=column,
    )


def _explain_taken(worker: Worker, task: Task, failure: SqlFailure) -> GateError | None:
    """Say what the file has taken from the gate; None where that is not back again."""
    if is_raised(failure):
        return None
    is_back = False
    with suppress(*NO_ANSWER):
        is_back = may_write(worker.conn, worker.table)
    if not is_back:
        return None
    script, table = task.script, worker.table
    file, said = script.migration.file, describe_failure(worker, script, failure)
    if failure.sqlstate == READ_ONLY:
        message = f"{file}: the migration makes the transaction read-only in which it"
        hint = "Take that out of the file."
    else:
        message = f"{file}: the migration takes a right from the login role by which it"
        hint = (
            f"Leave table {quote_name(table.schema)}.{quote_name(table.name)}, those "
            "whose names begin so, and their schema out of what it revokes."
        )
    return HistoryError(
        f"{message} is recorded: {said.error_message} (SQLSTATE {failure.sqlstate})",
        hint=f"{hint} {_what_remains(script)}",
        version=task.version,
        file=file,
    )


def _what_remains(script: Script) -> str:
    if script.in_transaction:
        return "Nothing this file did remains."
    return "Nothing this statement did remains; what ran before it stays."


def _is_row_gone(part: Own, failure: SqlFailure) -> bool:
    """Tell the row's end from an error inside a trigger, which has a context."""
    return failure.sqlstate in ROW_GONE.get(part.name, ()) and not failure.context


def _explain_role(worker: Worker, role: str, failure: SqlFailure) -> GateError | None:
    if failure.sqlstate == "42501":
        return _explain_membership(worker, role)
    if failure.sqlstate not in NO_ROLE:
        return None
    fault = SettingFault(
        name="GATE_ROLE",
        rule="names a role that does not exist",
        remedy="Create the role, or correct GATE_ROLE.",
    )
    return SettingsError([fault])


def _explain_hidden(worker: Worker) -> GateError:
    """Name the GRANT without which files would work on the schema after it."""
    role, schema = worker.settings.role or "", worker.table.schema
    return LoginRefusedError(
        f'role "{role}" (GATE_ROLE) lacks USAGE on schema "{schema}": its files would '
        "work on the next schema of the search path",
        hint=f"GRANT USAGE ON SCHEMA {quote_name(schema)} TO {quote_name(role)};",
    )


def _explain_membership(worker: Worker, role: str) -> GateError | None:
    """Name the GRANT that lacks; None where it does not, and somebody else refused."""
    has_set = worker.conn.info.server_version >= SET_OPTION_MIN_VERSION
    query = MEMBERSHIP.format(role=role, option="SET" if has_set else "MEMBER")
    is_member = False
    with suppress(*NO_ANSWER), worker.translated("ask which role it may become"):
        is_member, may_become = worker.conn.execute(query).fetchone() or (False, False)
        if may_become:
            return None
    acting_role = worker.acting_role
    option = " WITH SET TRUE" if is_member else ""
    return LoginRefusedError(
        f'role "{acting_role}" may not become role "{role}" (GATE_ROLE)',
        hint=f"GRANT {quote_name(role)} TO {quote_name(acting_role)}{option};",
    )
