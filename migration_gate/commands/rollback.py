"""
The command rollback: undo what was applied last, by the files that lead back.

Under the gates' lock; refused as a whole before anything is touched. Never a part of
migrate.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Final, NamedTuple

from migration_gate.applying.runs import Applier
from migration_gate.applying.settlement import Settlement, settle_undone
from migration_gate.applying.unfinished import catalogue_tells
from migration_gate.applying.without_transaction import require_no_session
from migration_gate.commands.answers import UndoLine, describe_undoing, to_json
from migration_gate.commands.apply import open_worker
from migration_gate.commands.last_failure import failures_kept
from migration_gate.commands.steps import (
    load,
    log_ready,
    looking_once,
    new_patience,
    plan_for,
    wait_for_history,
    wait_for_variables,
)
from migration_gate.connection.wait import wait_for
from migration_gate.connection.waits import interruptible
from migration_gate.execution.watch import Watch
from migration_gate.files.folder import read_scripts
from migration_gate.files.library import Shelf
from migration_gate.files.migration import (
    AppliedMigration,
    Migration,
    version_to_key,
)
from migration_gate.files.script import Script
from migration_gate.files.undoing import find_back_files, find_way_back
from migration_gate.history.failures import UNDOING
from migration_gate.history.progress import find_half_undone
from migration_gate.planning.plan import Step, listed, require_agreement
from migration_gate.planning.undoing import Undoing, plan_undoing, still_to_undo
from migration_gate.report.errors import (
    DatabaseUnreachableError,
    FileFault,
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


class Wish(NamedTuple):
    """
    What a person asks for, and the folder that it is asked of.

    ``files`` are those that go back, by the version that each undoes; ``to`` is the
    migration that stays as the newest, None for the one before the newest.
    ``variables`` are the values that files may ask for.
    """

    settings: Settings
    migrations: Sequence[Migration]
    files: Mapping[str, Sequence[str]]
    to: str | None
    variables: Mapping[str, str]

    def __repr__(self) -> str:
        """Show none of the values."""
        return f"Wish(to={self.to!r})"


class WaysBack(NamedTuple):
    """What is to be undone, with the file that does it, and what speaks against it."""

    order: tuple[Undoing, ...]
    steps: tuple[Step, ...]
    lines: tuple[UndoLine, ...]
    faults: tuple[FileFault, ...]


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
    run = _Run(wish, log, tally)
    try:
        run.undo_all()
    except GateError as error:
        _tell_both(error, tally.undone)
        raise
    finally:
        lines = [line for line in run.lines if line.version in tally.undone]
        if lines:
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
        order, half_undone = _choose(wish, session)
        found = _find_ways_back(wish, session, order, half_undone)
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
            order, half_undone = _choose(self._wish, session)
        else:
            half_undone = _look_half_undone(session)
            order = still_to_undo(self._chosen, session.seen.history, half_undone)
            self._settle_doubts(order)
        return _find_ways_back(self._wish, session, order, half_undone)

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


def _choose(wish: Wish, session: Session) -> tuple[tuple[Undoing, ...], frozenset[str]]:
    """
    Return what is to be undone, and which versions are half undone.

    Raises:
        HistoryError: Nothing is applied; or another table may be the history; or a file
            is not what was applied.
    """
    plan = plan_for(wish.migrations, session, looks_around=False)
    session.require_sole(plan.applied, plan.applied)
    half_undone = _look_half_undone(session)
    history = session.seen.history
    order = plan_undoing(
        wish.migrations, history, half_undone, to=wish.to, key_of=plan.key_of
    )
    if not order and not history:
        raise HistoryError(
            "nothing is applied: there is nothing to undo",
            hint="Check that this is the database, and that GATE_HISTORY_TABLE names "
            "its history; the command status shows it.",
        )
    undone = {undoing.migration.version for undoing in order}
    changes = tuple(each for each in plan.changes if each.file.version in undone)
    require_agreement(
        plan._replace(changes=changes, lookalikes=(), halves=()),
        changed=wish.settings.changed,
        out_of_order="apply",
        ahead="allow",
    )
    return order, half_undone


def _look_half_undone(session: Session) -> frozenset[str]:
    table = session.seen.table
    if table is None:
        return frozenset()
    with session.translated("read the progress of files"):
        return find_half_undone(session.conn, table)


def _find_ways_back(
    wish: Wish,
    session: Session,
    order: Sequence[Undoing],
    half_undone: frozenset[str],
) -> WaysBack:
    """Find what undoes each migration, and everything that speaks against it."""
    folder = wish.settings.migrations
    spelled = {version_to_key(version): version for version in half_undone}
    history = session.seen.name._replace(schema=session.seen.schema)
    # The next start brings its own texts: those here may lean on what goes.
    repeated = tuple(_find_repeated(wish.migrations, session.seen.history))
    steps: list[Step] = []
    lines = []
    faults: list[FileFault] = []
    for undoing in order:
        migration = undoing.migration
        rows = tuple(row.version for row in undoing.rows)
        is_begun = migration.key in spelled
        script, file = None, ""
        try:
            with interruptible():
                found = wish.files.get(migration.version, ())
                back = find_way_back(folder, migration, found)
                file = back.file
                (script,) = read_scripts(folder, [back], history, wish.variables)
            _require_safe(script, is_begun=is_begun, is_pooled=session.is_pooled)
        except MigrationFilesError as error:
            faults += error.faults
            lines.append(_to_line(migration, file, script, error))
            continue
        version = spelled[migration.key] if is_begun else rows[0]
        undoes = rows if steps else (*rows, *repeated)
        steps.append(Step(back, version, undoes=undoes))
        lines.append(_to_line(migration, file, script, None))
    return WaysBack(tuple(order), tuple(steps), tuple(lines), tuple(faults))


def _find_repeated(
    migrations: Sequence[Migration], history: Sequence[AppliedMigration]
) -> Iterator[str]:
    """Yield the rows of repeatable migrations that have a file here."""
    keys = {migration.key for migration in migrations if migration.is_repeatable}
    for row in history:
        if version_to_key(row.version) in keys:
            yield row.version


def _to_line(
    migration: Migration, file: str, script: Script | None, error: GateError | None
) -> UndoLine:
    return UndoLine(
        version=migration.version,
        file=file,
        statement_count=None if script is None else script.statement_count,
        in_transaction=None if script is None else script.in_transaction,
        why="" if script is None else script.why,
        refused=None if error is None else str(error),
    )


def _require_safe(script: Script, *, is_begun: bool, is_pooled: bool) -> None:
    """
    Refuse what could be left half done without anybody being able to tell.

    Raises:
        MigrationFilesError: Lists every such statement.
    """
    migration = script.migration
    faults = []
    if is_begun and script.in_transaction:
        problem = "was edited after a part of it had run, outside a transaction"
        remedy = (
            "Restore it; or do the rest by hand, and say so: "
            f"resolve {migration.version} --not-applied."
        )
        faults.append(FileFault(migration.file, problem, remedy))
    for unit in script.units:
        if unit.alone and not catalogue_tells(unit):
            line, column = script.place(unit.statements[0].first)
            faults.append(
                FileFault(
                    file=migration.file,
                    line=line,
                    column=column,
                    problem=f"{unit.alone} in what undoes a migration: were it cut "
                    "short, nothing would tell how far it came",
                    remedy="Undo the migration by hand, and say so: "
                    f"resolve {migration.version} --not-applied.",
                )
            )
    if faults:
        raise MigrationFilesError(faults)
    if is_pooled:
        require_no_session([script])


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
