"""
The commands status and plan: one attempt to connect, an answer on stdout, no write.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from migration_gate.commands.answers import (
    PlanLine,
    RecordedLine,
    StatusLine,
    TextFinding,
    describe_adopted,
    describe_plan,
    describe_recorded,
    describe_status,
    make_status,
    to_json,
)
from migration_gate.commands.first_rows import not_recorded, plan_first_rows
from migration_gate.commands.last_failure import find_failures, incomplete
from migration_gate.commands.steps import (
    load,
    log_plan,
    log_ready,
    looking_once,
    new_patience,
    plan_for,
    require_agreed,
    wait_for_variables,
)
from migration_gate.connection.wait import wait_for
from migration_gate.files.folder import read_scripts
from migration_gate.files.migration import AppliedMigration, Migration
from migration_gate.history.failures import Failure
from migration_gate.history.progress import find_unfinished
from migration_gate.planning.phases import (
    asked_of,
    in_phase,
    require_first_phase,
)
from migration_gate.planning.plan import Plan
from migration_gate.planning.renaming import note_begun
from migration_gate.report.errors import (
    GateError,
    HistoryError,
    MigrationFilesError,
)
from migration_gate.report.log import Log, write_line
from migration_gate.report.verdict import Tally
from migration_gate.session.session import start_session
from migration_gate.settings.database import known_parameters, shown
from migration_gate.settings.settings import HistoryTableName, Phase, Settings


if TYPE_CHECKING:
    from migration_gate.commands.page import Heading


STDOUT = 1


def show_status(
    settings: Settings, log: Log, tally: Tally, *, as_json: bool, as_html: bool
) -> None:
    """
    Print files and history side by side.

    Raises:
        IncompleteError: Something is pending, of what GATE_PHASE asks for.
        HistoryError: The settings refuse what was found.
    """
    seen = _look_once(settings, log, tally, "status", asked_of(settings.phase))
    lines = make_status(
        seen.plan, seen.history, seen.unfinished, seen.half_undone, seen.failures
    )
    tally.outcome = f"{len(seen.plan.applied)} applied, nothing pending"
    error = _find_error(seen, settings)
    if as_html:
        write_line(STDOUT, _to_page(seen, settings, tally.outcome, error, lines))
    else:
        write_line(STDOUT, to_json(lines) if as_json else describe_status(lines))
    if error is not None:
        raise error


def show_plan(settings: Settings, log: Log, tally: Tally, *, as_json: bool) -> None:
    """
    Print what migrate would do, in order, and what it would refuse.

    Raises:
        MigrationFilesError: It would refuse a file.
        HistoryError: It would refuse the history.
        IncompleteError: The phase before this one has not come to its end.
    """
    try:
        seen = _look_once(settings, log, tally, "plan", settings.phase)
    except HistoryError as error:
        _show_doubts(error, as_json=as_json)
        raise
    plan = seen.plan
    variables = wait_for_variables(settings._replace(auth_grace_s=0), log)
    lines, errors = describe_pending(plan.pending, settings, seen.name, variables)
    if seen.recorded and not as_json:
        write_line(STDOUT, describe_recorded(seen.recorded) + "\n")
    write_line(
        STDOUT, to_json((*seen.recorded, *lines)) if as_json else describe_plan(lines)
    )
    require_agreed(plan, settings)
    require_first_phase(plan)
    faults = [fault for error in errors for fault in error.faults]
    if faults:
        raise MigrationFilesError(faults)
    tally.outcome = f"{len(plan.pending)} pending, nothing was applied"


def _show_doubts(error: HistoryError, *, as_json: bool) -> None:
    """Print how far another tool's history can be taken over, where that is it."""
    from migration_gate.commands.adopt import make_doubtful_lines
    from migration_gate.planning.adoption import DoubtError

    if isinstance(error, DoubtError):
        lines = make_doubtful_lines(error)
        write_line(STDOUT, to_json(lines) if as_json else describe_adopted(lines))


def _find_error(seen: _Seen, settings: Settings) -> GateError | None:
    """Return what closes the gate; None where nothing does."""
    try:
        require_agreed(seen.plan, settings)
    except HistoryError as error:
        return error
    if seen.plan.pending:
        return incomplete(seen.plan.pending, seen.failures)
    if seen.recorded:
        return not_recorded(seen.recorded)
    return None


def _to_page(
    seen: _Seen,
    settings: Settings,
    outcome: str,
    error: GateError | None,
    lines: Sequence[StatusLine],
) -> str:
    from migration_gate.commands.page import to_html

    heading = make_heading(settings, outcome, error, server_version=seen.server_version)
    return to_html(heading, lines)


def make_heading(
    settings: Settings, outcome: str, error: GateError | None, *, server_version: str
) -> Heading:
    """Return what a page is about, and why the gate would be closed."""
    from migration_gate.commands.page import Heading

    database = shown(known_parameters(settings.database))
    return Heading(
        database=database["database"] or "the database",
        host=database["host"] or "its server",
        server_version=server_version,
        made_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S"),
        outcome=outcome,
        closed="" if error is None else str(error),
        hint="" if error is None else error.hint,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """
    What one look showed.

    ``unfinished`` are the versions that are done in part, ``half_undone`` those of them
    that a rollback has begun with; ``recorded`` is what the next
    start records before it applies anything.
    """

    plan: Plan
    name: HistoryTableName
    history: tuple[AppliedMigration, ...]
    unfinished: tuple[str, ...]
    half_undone: tuple[str, ...]
    failures: tuple[Failure, ...]
    server_version: str
    recorded: tuple[RecordedLine, ...] = ()


def _look_once(
    settings: Settings, log: Log, tally: Tally, command: str, phase: Phase
) -> _Seen:
    migrations = load(settings, log, command)
    patience = new_patience(settings._replace(auth_grace_s=0), log, timeout_s=0)
    session = wait_for(lambda: start_session(settings, must_write=False), patience)
    tally.waited_s = patience.waited_s
    with closing(session), looking_once():
        version = session.conn.info.server_version
        log_ready(version, patience, log, is_pooled=session.is_pooled)
        plan = plan_for(migrations, session)
        plan, recorded = plan_first_rows(settings, migrations, session, plan)
        table = session.seen.table
        with session.translated("read the progress of files"):
            reached = {} if table is None else find_unfinished(session.conn, table)
        plan = in_phase(plan, phase)
        if reached:
            plan = note_begun(plan, reached, session.seen.tool)
        failures = find_failures(session, plan, of_undoing=command == "status")
    log_plan(plan, log, tally)
    return _Seen(
        plan=plan,
        name=session.seen.name._replace(schema=session.seen.schema),
        history=session.seen.history,
        unfinished=tuple(reached),
        half_undone=tuple(version for version, unit in reached.items() if unit < 0),
        failures=failures,
        server_version=f"{version // 10000}.{version % 10000}",
        recorded=recorded,
    )


def describe_pending(
    pending: Sequence[Migration],
    settings: Settings,
    history: HistoryTableName,
    variables: Mapping[str, str],
) -> tuple[list[PlanLine], list[MigrationFilesError]]:
    """Return a line for each migration, and why files would be refused."""
    from migration_gate.rehearsal.wording import Reader

    lines, errors, reader = [], [], Reader()
    for migration in pending:
        try:
            (script,) = read_scripts(
                settings.migrations, [migration], history, variables
            )
        except MigrationFilesError as error:
            errors.append(error)
            lines.append(_refused(migration, error))
        else:
            lines.append(
                PlanLine(
                    version=migration.version,
                    statement_count=script.statement_count,
                    in_transaction=script.in_transaction,
                    why=script.why,
                    refused=None,
                    findings=tuple(
                        TextFinding(**told._asdict()) for told in reader.read(script)
                    ),
                )
            )
    return lines, errors


def _refused(migration: Migration, error: GateError) -> PlanLine:
    return PlanLine(
        version=migration.version,
        statement_count=None,
        in_transaction=None,
        why="",
        refused=str(error),
    )
