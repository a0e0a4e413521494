"""
The commands status and plan: one attempt to connect, an answer on stdout, no write.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import replace

from migration_gate.commands.answers import (
    PlanLine,
    describe_plan,
    describe_status,
    make_status,
    to_json,
)
from migration_gate.commands.steps import (
    incomplete,
    load,
    log_plan,
    log_ready,
    new_patience,
    plan_for,
)
from migration_gate.connection.wait import wait_for
from migration_gate.files.folder import read_scripts
from migration_gate.files.migration import Migration
from migration_gate.history.look import Look
from migration_gate.history.progress import find_unfinished
from migration_gate.planning.plan import Plan, require_agreement
from migration_gate.report.errors import GateError, MigrationFilesError
from migration_gate.report.log import Log, write_line
from migration_gate.report.verdict import Tally
from migration_gate.session.session import start_session
from migration_gate.settings.settings import HistoryTableName, Settings


STDOUT = 1


def show_status(settings: Settings, log: Log, tally: Tally, *, as_json: bool) -> None:
    """
    Print files and history side by side.

    Raises:
        IncompleteError: Something is pending.
        HistoryError: The settings refuse what was found.
    """
    plan, seen, unfinished = _look_once(settings, log, tally, "status")
    lines = make_status(plan, seen.history, unfinished)
    write_line(STDOUT, to_json(lines) if as_json else describe_status(lines))
    _require_agreement(plan, settings)
    if plan.pending:
        raise incomplete(plan.pending)
    tally.outcome = f"{len(plan.applied)} applied, nothing pending"


def show_plan(settings: Settings, log: Log, tally: Tally, *, as_json: bool) -> None:
    """
    Print what migrate would do, in order, and what it would refuse.

    Raises:
        MigrationFilesError: It would refuse a file.
        HistoryError: It would refuse the history.
    """
    plan, seen, _ = _look_once(settings, log, tally, "plan")
    history = replace(settings.history_table, schema=seen.schema)
    lines, errors = _describe_pending(plan.pending, settings, history)
    write_line(STDOUT, to_json(lines) if as_json else describe_plan(lines))
    _require_agreement(plan, settings)
    faults = [fault for error in errors for fault in error.faults]
    if faults:
        raise MigrationFilesError(faults)
    tally.outcome = f"{len(plan.pending)} pending, nothing was applied"


def _look_once(
    settings: Settings, log: Log, tally: Tally, command: str
) -> tuple[Plan, Look, Iterable[str]]:
    """Return the plan, the look, and the versions that are done in part."""
    migrations = load(settings, log, command)
    patience = new_patience(replace(settings, auth_grace_s=0), log, timeout_s=0)
    session = wait_for(lambda: start_session(settings, must_write=False), patience)
    tally.waited_s = patience.waited_s
    with closing(session):
        version = session.conn.info.server_version
        log_ready(version, patience, log, is_pooled=session.is_pooled)
        plan = plan_for(migrations, session)
        table = session.seen.table
        unfinished = () if table is None else find_unfinished(session.conn, table)
    log_plan(plan, log, tally)
    return plan, session.seen, unfinished


def _require_agreement(plan: Plan, settings: Settings) -> None:
    require_agreement(
        plan,
        changed=settings.changed,
        out_of_order=settings.out_of_order,
        ahead=settings.ahead,
    )


def _describe_pending(
    pending: Sequence[Migration], settings: Settings, history: HistoryTableName
) -> tuple[list[PlanLine], list[MigrationFilesError]]:
    lines, errors = [], []
    for migration in pending:
        try:
            script = read_scripts(settings.migrations, [migration], history)[0]
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
