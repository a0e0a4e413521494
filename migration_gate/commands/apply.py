"""
What is done under the lock: the worker is opened, what is pending is applied.

Loaded by a start that finds something pending, and by no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import TypeAlias

from migration_gate.applying.outside import forget_what_runs_inside
from migration_gate.applying.runs import Applier
from migration_gate.applying.settlement import Settlement
from migration_gate.applying.without_transaction import require_no_session
from migration_gate.commands.last_failure import failures_kept
from migration_gate.commands.steps import (
    agree,
    new_patience,
    require_kept,
    wait_for_variables,
)
from migration_gate.connection.causes import NO_CONNECTION_LEFT, TWO_NEEDED
from migration_gate.connection.connect import open_connection, open_second_connection
from migration_gate.connection.limited import LimitedConnection
from migration_gate.connection.not_ready import NotReadyError
from migration_gate.connection.spares import keep_or_close
from migration_gate.connection.wait import wait_for
from migration_gate.connection.waits import interruptible
from migration_gate.execution.ready import note_defaults, start_worker
from migration_gate.execution.watch import Watch
from migration_gate.execution.worker import Worker
from migration_gate.files.library import Shelf
from migration_gate.files.migration import Migration
from migration_gate.files.script import leaves_session
from migration_gate.history.creation import Fill, HistoryMadeError
from migration_gate.history.look import Look
from migration_gate.history.progress import find_begun
from migration_gate.history.writing import require_replaceable
from migration_gate.planning.phases import in_phase
from migration_gate.planning.plan import Plan, Step, make_plan
from migration_gate.report.errors import UnresolvedError
from migration_gate.report.events import HANDED_OVER, NOT_ALTERED
from migration_gate.report.log import Log
from migration_gate.report.outcomes import (
    ConnectionLostError,
    DefaultsChangedError,
    NoRoomError,
)
from migration_gate.report.verdict import Tally
from migration_gate.session.session import Session, make_history
from migration_gate.session.turn import take_turn
from migration_gate.settings.settings import Settings


ApplySteps: TypeAlias = Callable[[Applier, Sequence[Step]], None]


def take_turn_and_apply(  # noqa: PLR0913, PLR0917  # what a run has found out so far
    settings: Settings,
    migrations: Sequence[Migration],
    session: Session,
    log: Log,
    tally: Tally,
    apply_steps: ApplySteps | None = None,
) -> None:
    """Go through steps 4 to 7 of ``migrate``; raises what it does."""

    def is_done(seen: Look) -> bool:
        plan = make_plan(migrations, seen.history, tool=seen.tool)
        return not in_phase(plan, settings.phase).pending

    if session.seen.history:
        from migration_gate.commands.adopt import warn_of_growth

        # Through a pooler not under the lock: an error would end that.
        warn_of_growth(migrations, session, log)
    variables = wait_for_variables(settings, log)
    with take_turn(session, is_done, log, tally) as held:
        require_kept(held, tally)
        if not held.seen.history:
            _require_nothing_to_record(settings, migrations, held)
        plan = agree(settings, migrations, held)
        # Where nothing is left, another gate has done it, and may have the lock.
        if plan.pending:
            with failures_kept(held, plan.pending, tally, tally.applied, log.clean):
                apply_pending(plan, held, log, tally, variables, apply_steps)


def _require_nothing_to_record(
    settings: Settings, migrations: Sequence[Migration], held: Session
) -> None:
    """
    Start anew where another tool has a history now.

    Raises:
        HistoryMadeError: What GATE_ADOPT says has to be asked again.
    """
    if settings.adopt.tool is None:
        return
    from migration_gate.commands.adopt import find_adopted

    if find_adopted(settings, migrations, held).adopted:
        raise HistoryMadeError(held.seen.name.table)


def apply_pending(  # noqa: PLR0913, PLR0917  # what a run has found out so far
    plan: Plan,
    held: Session,
    log: Log,
    tally: Tally,
    variables: Mapping[str, str],
    apply_steps: ApplySteps | None = None,
) -> None:
    """Go through steps 5 to 7 of ``migrate``, holding the lock."""
    plan = _find_progress(held, plan)
    # In a file, a table of that name in another schema is not the history.
    history = held.seen.name._replace(schema=held.seen.schema)
    shelf = Shelf(held.settings.migrations, history, variables)
    with interruptible():
        shelf.require_fit(plan.pending)
        pending = {migration.version: migration for migration in plan.pending}
        begun = {
            row: shelf.take(pending[version]) for row, version in plan.begun.items()
        }
    if begun:
        forget_what_runs_inside(held, begun)
    if held.is_pooled:
        require_no_session(map(shelf.take, plan.pending))
    # Only where it matters: what is long would be split once more.
    is_shared = held.settings.shares_sessions and held.seen.is_shareable
    with open_worker(
        held.settings,
        held,
        log,
        variables=variables,
        is_kept=is_shared and all(map(leaves_session, map(shelf.take, plan.pending))),
    ) as worker:
        if any(map(plan.find_replacement, plan.pending)):
            require_replaceable(worker.table, worker.acting_role)
        watch = Watch(held, worker, log)
        settlement = Settlement(tally, log)
        applier = Applier(worker, held, shelf, watch, settlement, log)
        (apply_steps or Applier.apply_all)(applier, plan.steps)


def _find_progress(held: Session, plan: Plan) -> Plan:
    """
    Return a plan that knows what of the pending has run in part.

    Raises:
        UnresolvedError: A rollback has undone a part.
    """
    table = held.seen.table
    if table is None or not table.has_progress:
        return plan
    with held.translated("read the progress of files"):
        lowest = find_begun(held.conn, table)
    if not lowest:
        return plan
    from migration_gate.planning.renaming import note_begun

    plan = note_begun(plan, lowest, held.seen.tool)
    half_undone = {file for row, file in plan.begun.items() if lowest[row] < 0}
    for migration in plan.pending:
        if migration.version in half_undone:
            raise UnresolvedError(
                f'the rollback of "{migration.version}" has not come to its end',
                hint="Give the command rollback again: it goes on where it was. Or do "
                "the rest by hand, and say so: "
                f"resolve {migration.version} --not-applied.",
                version=migration.version,
            )
    return plan


@contextmanager
def open_worker(  # noqa: PLR0913  # what a run has found out so far
    settings: Settings,
    held: Session,
    log: Log,
    fill: Fill | None = None,
    variables: Mapping[str, str] = MappingProxyType({}),
    *,
    is_kept: bool = False,
) -> Iterator[Worker]:
    """
    Open the connection that runs the files, and make the history table ours.

    Args:
        is_kept: The connection may be one that another schema has had, and the next
            gets it: no file changes what a session keeps. The path is then set for each
            file; else its session begins with it.
    """
    settings, own = _take_path(settings, held, is_kept=is_kept)
    if is_kept:
        note_defaults(held)
    patience = new_patience(settings, log, settings.wait_timeout_s)
    opened = open_second_connection if held.is_pooled else open_connection

    def connect() -> LimitedConnection:
        # What a lock protects is the server that it is held on.
        if not held.is_alive:
            text = "the lock's connection was lost"
            raise ConnectionLostError(text)
        parameters = {**held.address, **own}
        try:
            return opened(settings.database, until_s=patience.until_s, **parameters)
        except NotReadyError as error:
            if error.cause in NO_CONNECTION_LEFT:
                if settings.gives_room:
                    raise NoRoomError from error
                raise NotReadyError(TWO_NEEDED, str(error)) from error
            raise

    conn = wait_for(connect, patience)
    with _leaving(conn, held, is_kept=is_kept):
        table, reason = make_history(conn, held, fill)
        before = held.seen.table
        if before is not None and before.owner != table.owner:
            name = f"{table.schema}.{table.name}"
            log.emit(HANDED_OVER, table=name, owner=table.owner)
        if reason is not None:
            log.emit(NOT_ALTERED, reason=reason)
        yield start_worker(conn, held, table, settings, variables)


def _take_path(
    settings: Settings, held: Session, *, is_kept: bool
) -> tuple[Settings, dict[str, str]]:
    """
    Return the settings, and the parameters of a session that begins with the path.

    The path is that of now: a file may give role and database another one.
    """
    if held.only is None:
        return settings, {}
    path = held.path
    if settings.options is None or is_kept:
        return settings._replace(search_path=path), {}
    escaped = "".join(f"\\{c}" if c == "\\" or c.isspace() else c for c in path)
    options = f"{settings.options} -c search_path={escaped}".strip()
    return settings, {"options": options}


@contextmanager
def _leaving(
    conn: LimitedConnection, held: Session, *, is_kept: bool
) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        conn.close()
        # The session that has the lock is as old, or older.
        held.conn.is_outdated |= isinstance(error, DefaultsChangedError)
        raise
    if is_kept:
        keep_or_close(conn)
    else:
        conn.close()
