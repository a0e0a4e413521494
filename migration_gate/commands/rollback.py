"""
The command rollback: undo what was applied last, by the files that lead back.

Under the gates' lock; refused as a whole before anything is touched. Never a part of
migrate.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Final

from migration_gate.applying.runs import Applier
from migration_gate.applying.settlement import Settlement, settle_undone
from migration_gate.commands.answers import UndoLine, describe_undoing, to_json
from migration_gate.commands.apply import open_worker
from migration_gate.commands.last_failure import failures_kept
from migration_gate.commands.rollback_plan import (
    WaysBack,
    Wish,
    choose,
    find_ways_back,
    look_half_undone,
)
from migration_gate.commands.steps import (
    load,
    log_ready,
    looking_once,
    new_patience,
    wait_for_history,
    wait_for_variables,
)
from migration_gate.connection.wait import wait_for
from migration_gate.connection.waits import interruptible
from migration_gate.execution.watch import Watch
from migration_gate.files.library import Shelf
from migration_gate.files.migration import version_to_key
from migration_gate.files.undoing import find_back_files
from migration_gate.history.failures import UNDOING
from migration_gate.planning.agreement import listed
from migration_gate.planning.plan import Step
from migration_gate.planning.undoing import Undoing, still_to_undo
from migration_gate.report.errors import (
    DatabaseUnreachableError,
    GateError,
    HistoryError,
    MigrationFilesError,
    UnresolvedError,
)
from migration_gate.report.events import ROLLBACK_PLANNED
from migration_gate.report.log import Log
from migration_gate.report.outcomes import (
    ConnectionLostError,
    DefaultsChangedError,
    NotAppliedError,
    RefusedForNowError,
)
from migration_gate.report.verdict import Tally
from migration_gate.session.session import Session, start_session
from migration_gate.session.turn import take_turn
from migration_gate.settings.settings import Settings


LOSSES_MAX: Final = 3
STARTS_ANEW: Final = (
    ConnectionLostError,
    DefaultsChangedError,
    NotAppliedError,
    RefusedForNowError,
)


def rollback(  # noqa: PLR0913  # the options of a command
    settings: Settings,
    log: Log,
    tally: Tally,
    *,
    to: str | None,
    is_dry_run: bool,
    as_json: bool,
) -> None:
    """
    Undo the newest migration, or all that were applied after one, newest first.

    1. Read the folder; wait for a database that can be written, and look.
    2. Find what is to be undone, and what undoes it; refuse all of it, or nothing.
    3. Take the lock; look again: it has to be the same.
    4. Undo each, with the removal of its row; with the first, the rows of repeatable
       ones go too, so that the next start applies them again.

    A lost connection goes back to step 1, with what was chosen: what the history no
    longer has is undone, and nothing else is chosen instead.

    Args:
        to: The migration that stays as the newest; None for the one before the newest.

    Raises:
        GateError: What is undone stays undone, and the rest stays applied.
    """
    migrations = load(settings, log, "rollback")
    files = find_back_files(settings.migrations)
    wish = Wish(settings, migrations, files, to, wait_for_variables(settings, log))
    tally.undone = []
    if is_dry_run:
        _show(wish, log, tally, as_json=as_json)
        return
    run, is_done = _Run(wish, log, tally), False
    try:
        run.undo_all()
        is_done = True
    except GateError as error:
        _tell_both(error, tally.undone)
        raise
    finally:
        lines = [line for line in run.lines if line.version in tally.undone]
        if lines or is_done:
            text = describe_undoing(lines, is_done=True)
            log.answer(to_json(lines) if as_json else text)
    tally.outcome = f"{len(tally.undone)} undone"
    if not tally.undone:
        tally.outcome = f'nothing was applied after "{to}": nothing was to undo'


def _show(wish: Wish, log: Log, tally: Tally, *, as_json: bool) -> None:
    """Print what would be undone, in one attempt to connect; raises what it would."""
    settings = wish.settings
    patience = new_patience(settings._replace(auth_grace_s=0), log, timeout_s=0)
    session = wait_for(lambda: start_session(settings, must_write=False), patience)
    with closing(session), looking_once():
        version = session.conn.info.server_version
        log_ready(version, patience, log, is_pooled=session.is_pooled)
        order, half_undone = choose(wish, session)
        found = find_ways_back(wish, session, order, half_undone)
    text = describe_undoing(found.lines, is_done=False)
    log.answer(to_json(found.lines) if as_json else text)
    if found.faults:
        raise MigrationFilesError(found.faults)
    tally.outcome = f"{len(order)} to undo, nothing was undone"


class _Run:
    """One rollback: what was chosen, and how often it had to begin anew."""

    def __init__(self, wish: Wish, log: Log, tally: Tally) -> None:
        self._wish = wish
        self._log = log
        self._tally = tally
        self._chosen: tuple[Undoing, ...] | None = None
        self._undone = tally.undone if tally.undone is not None else []
        self.lines: tuple[UndoLine, ...] = ()

    def undo_all(self) -> None:
        """Undo what is chosen, however often the connection is lost."""
        losses = 0
        while True:
            before = len(self._undone)
            try:
                self._undo_once()
            except STARTS_ANEW as error:
                losses = 1 if len(self._undone) > before else losses + 1
                if losses > LOSSES_MAX:
                    raise _in_vain(error) from error
            else:
                return

    def _undo_once(self) -> None:
        settings, log, tally = self._wish.settings, self._log, self._tally
        with closing(wait_for_history(settings, (), log, tally)) as session:
            found = self._find(session)
            if not found.order:
                return
            if found.faults:
                raise MigrationFilesError(found.faults)
            if self._chosen is None:
                self.lines = found.lines
                names = [undoing.migration.version for undoing in found.order]
                log.emit(ROLLBACK_PLANNED, undo_count=len(names), undo=names)
            with take_turn(session, lambda _: False, log, tally) as held:
                again = self._find(held)
                if self._chosen is None and again.order != found.order:
                    raise _has_changed(found.order, again.order)
                self._chosen = self._chosen or again.order
                migrations = [step.migration for step in again.steps]
                with failures_kept(
                    held,
                    migrations,
                    tally,
                    self._undone,
                    self._log.clean,
                    doing=UNDOING,
                ):
                    self._undo(held, again.steps)

    def _find(self, session: Session) -> WaysBack:
        """Find what is to be undone: what was chosen, as far as it is left."""
        if self._chosen is None:
            order, half_undone = choose(self._wish, session)
        else:
            half_undone = look_half_undone(self._wish, session)
            order = still_to_undo(self._chosen, session.seen.history, half_undone)
            self._settle_doubts(order)
        return find_ways_back(self._wish, session, order, half_undone)

    def _settle_doubts(self, left: Sequence[Undoing]) -> None:
        """Report what is gone from the history though no answer said so."""
        keys = {undoing.migration.key for undoing in left}
        for version in tuple(self._tally.in_doubt):
            if version_to_key(version) in keys:
                continue
            line = next(line for line in self.lines if line.version == version)
            migration = next(m for m in self._wish.migrations if m.version == version)
            by = migration._replace(path=line.file)
            settle_undone(by, None, self._tally, self._log)
        self._tally.in_doubt.clear()

    def _undo(self, held: Session, steps: Sequence[Step]) -> None:
        """Undo, holding the lock."""
        settings = self._wish.settings
        history = held.seen.name._replace(schema=held.seen.schema)
        variables = self._wish.variables
        shelf = Shelf(settings.migrations, history, variables)
        with interruptible():
            shelf.require_fit(step.migration for step in steps)
        with open_worker(settings, held, self._log, variables=variables) as worker:
            watch = Watch(held, worker, self._log)
            settlement = Settlement(self._tally, self._log)
            applier = Applier(worker, held, shelf, watch, settlement, self._log)
            applier.apply_all(steps)


def _has_changed(before: Sequence[Undoing], after: Sequence[Undoing]) -> HistoryError:
    first, then = (
        listed([undoing.migration.version for undoing in order], most=3) or "nothing"
        for order in (before, after)
    )
    return HistoryError(
        "the history changed while this command waited for its turn: to undo was "
        f"{first}, and is {then}; nothing was undone",
        hint="Look with the command status, and give the command again.",
    )


def _tell_both(error: GateError, undone: Sequence[str]) -> None:
    """Say in the verdict what stays undone, and that the rest stays."""
    error.hint = error.hint.replace("tart the gate again", "tart the rollback again")
    if isinstance(error, UnresolvedError) and error.version is not None:
        error.hint = (
            "Look what it has done and do the rest of its file by hand, then say so: "
            f"resolve {error.version} --not-applied."
        )
    if undone:
        is_one = len(undone) == 1
        verbs = ("was", "stays") if is_one else ("were", "stay")
        error.noted(
            f"{listed(undone, most=3)} {verbs[0]} undone before it and {verbs[1]} "
            "undone; the rest stays applied"
        )


def _in_vain(error: Exception) -> GateError:
    """Say what kept the run from going on, however often it began anew."""
    if isinstance(error, RefusedForNowError):
        return error.refusal.noted(f"{LOSSES_MAX + 1} times in a row")
    if isinstance(error, NotAppliedError):
        return HistoryError(
            f'the row of "{error}" was taken out of the history by somebody else',
            hint="Look with the command status, and give the command again.",
        )
    return DatabaseUnreachableError(
        f"the connection was lost {LOSSES_MAX + 1} times in a row: {error}",
        hint="Look at the server's log: what undoes the migration may end its session, "
        "or the network or a pooler's time limit may cut it. Then give the command "
        "again.",
    )
