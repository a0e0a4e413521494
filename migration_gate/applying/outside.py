"""
Apply a file that cannot run in one transaction: unit by unit, each exactly once.

A unit that can be in a transaction commits with its progress. One that cannot has its
intent written before, and is judged from the catalogue when its end was not seen.
What undoes a migration goes the same way; the history's row goes with its first unit,
so that no gate takes for applied what is half undone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from itertools import chain
from types import MappingProxyType
from typing import Final

from psycopg import sql

from migration_gate.applying.settings_so_far import settings_after
from migration_gate.applying.unfinished import (
    REFUSED_INSIDE,
    alone,
    catalogue_tells,
    find_completion,
    is_done_in_steps,
    note_before,
    require_valid,
    tidy,
    waits_harmlessly,
    was_done,
)
from migration_gate.connection.qualified import qualified
from migration_gate.connection.refusals import NO_ANSWER
from migration_gate.connection.simple_query import Row
from migration_gate.connection.waits import Stopped, check_stop, ending
from migration_gate.execution.compose import to_messages
from migration_gate.execution.exchange import (
    NO_HOOKS,
    Hooks,
    exchange,
    keep_settings,
    roll_back,
)
from migration_gate.execution.frame import (
    become_role,
    begin,
    clean_up,
    require_defaults,
    restore,
    select,
    session_limits,
    set_config,
    set_variables,
)
from migration_gate.execution.message import Message, Own, Task, single
from migration_gate.execution.observer import Looks
from migration_gate.execution.retry import retry_while_locked
from migration_gate.execution.watch import Terms, Watch, no_looks
from migration_gate.execution.worker import Worker, own
from migration_gate.files.migration import AppliedMigration
from migration_gate.files.script import Script, digest_unit
from migration_gate.files.units import Unit
from migration_gate.history.guarding import guarded
from migration_gate.history.progress import (
    SUFFIX,
    Progress,
    begin_undoing,
    delete_units,
    ensure_progress,
    finish_finished,
    finish_unit,
    give_up_undoing,
    insert_finished,
    progress_table,
    read_progress,
    write_intent,
)
from migration_gate.history.rows import (
    insert_row,
    remove_rows,
    replace_row,
    to_text,
)
from migration_gate.history.writing import explain_progress
from migration_gate.report.errors import (
    FileFault,
    GateError,
    MigrationFailedError,
    MigrationFilesError,
    ServerRefusedError,
    ask_to_resolve,
)
from migration_gate.report.log import Log
from migration_gate.report.outcomes import LocksNotFreeError, RefusedForNowError
from migration_gate.report.remedies import NEVER_INSIDE
from migration_gate.session.marks import to_mark
from migration_gate.session.session import Session
from migration_gate.statements import (
    Statement,
    setting_changed,
    string_syntax_set,
)


# DROP INDEX CONCURRENTLY waits for each transaction that is older.
CLEARING: Final = MappingProxyType({"statement_timeout": "10s", "lock_timeout": "0"})
BOTH: Final = ("", SUFFIX)  # history and progress
MAY_BE_DONE: Final = "It may have committed a part of its work."
ASKED: Final = (
    "It may have committed a part of its work, so that the next start stays closed "
    "until a person has said what it did."
)
GOES_ON: Final = (
    "What ran of this file before this statement stays; the next start goes on with "
    "the statement itself."
)
GOES_ON_BACK: Final = (
    "What was undone before this statement stays undone; the command rollback goes on "
    "with the statement itself, and no gate opens before that."
)
BUILT_ANEW: Final = (
    "What ran of this file before this statement stays. The next start looks what "
    "became of the statement: it drops an index that is half built, and runs it again."
)


@dataclass(slots=True)
class _Run:
    """One file's way through its units."""

    worker: Worker
    task: Task
    held: Session
    watch: Watch
    log: Log
    settings_made: tuple[Statement, ...] = ()
    row_is_gone: bool = False

    @property
    def goes_on(self) -> str:
        """Return what stays when the run ends, and what goes on with it."""
        return GOES_ON_BACK if self.task.is_back else GOES_ON

    def takes_row(self, unit: Unit) -> bool:
        """Tell whether the history's row goes with this unit: the first to undo."""
        is_setting = all(setting_changed(statement) for statement in unit.statements)
        return bool(self.task.undoes) and not self.row_is_gone and not is_setting

    @property
    def file(self) -> str:
        return self.task.script.migration.version


def apply_outside(
    worker: Worker, task: Task, held: Session, watch: Watch, log: Log
) -> AppliedMigration:
    """
    Go on where the file's progress ends, and record the migration after its last unit.

    Raises:
        MigrationFailedError: A unit failed; the finished ones stay finished.
        MigrationFilesError: A finished unit was edited since.
        UnresolvedError: An unfinished statement cannot be judged.
        ConnectionLostError: The unit that ran may have been done.
        DefaultsChangedError: Nothing was done: the session is older than its defaults.
    """
    run = _Run(worker, task, held, watch, log)
    if task.checks_defaults:
        _exchange(run, single(task, [require_defaults(worker)]))
    full = worker.settings.log_detail == "full"
    ensure_progress(worker.conn, worker.table, worker.acting_role, full=full)
    with worker.translated("read the progress of files"):
        done = read_progress(worker.conn, worker.table, task.version)
    edited = _find_edited(task, done)
    if edited and _may_begin_anew(task, done):
        with _writing_progress(held, worker):
            _write(held, worker, delete_units(worker.table, task.version))
        done = {}
    elif edited:
        raise MigrationFilesError(edited)
    for unit in task.script.units:
        row = done.get(task.number_of(unit))
        if row is None:
            _perform(run, unit)
        elif row.state == "started":
            _settle(run, unit, row)
        run.row_is_gone = run.row_is_gone or run.takes_row(unit)
        run.settings_made = settings_after(run.settings_made, unit.statements)
    return _forget(run) if task.is_back else _record(run)


def require_no_session(scripts: Iterable[Script]) -> None:
    """
    Refuse, through a pooler, statements that need a session of their own.

    Raises:
        MigrationFilesError: Lists every such statement.
    """
    faults = []
    for script in scripts:
        for unit in script.units:
            if unit.alone:
                line, column = script.place(unit.statements[0].first)
                faults.append(
                    FileFault(
                        file=script.migration.file,
                        line=line,
                        column=column,
                        problem=f"{unit.alone} cannot run safely through a pooler",
                        remedy="Name the server's own address and port instead of the "
                        "pooler's, for the gate only.",
                    )
                )
    if faults:
        raise MigrationFilesError(faults)


def _find_edited(task: Task, done: Mapping[int, Progress]) -> list[FileFault]:
    """Return what of the finished or started statements is not what it was."""
    script = task.script
    faults = []
    unseen = set(done)
    for unit in script.units if done else ():
        number = task.number_of(unit)
        row = done.get(number)
        if row is not None and row.digest != digest_unit(script, unit):
            line, column = script.place(unit.statements[0].first)
            faults.append(_edited(task, line, column))
        unseen.discard(number)
    if unseen:
        faults.append(_edited(task, None, None))
    return faults


def _may_begin_anew(task: Task, done: Mapping[int, Progress]) -> bool:
    """Tell a repeatable migration, but not one with a statement of unknown end."""
    is_known = all(row.state == "finished" for row in done.values())
    return task.script.migration.is_repeatable and is_known


def _edited(task: Task, line: int | None, column: int | None) -> FileFault:
    return FileFault(
        file=task.script.migration.file,
        line=line,
        column=column,
        problem="statement was edited or moved after it had run",
        remedy="Restore what has run as it was and change only what follows; or say "
        "with resolve VERSION --not-applied that "
        + ("all of it is undone." if task.is_back else "nothing of the file has run."),
    )


def _perform(run: _Run, unit: Unit) -> None:
    def attempt(_number: int) -> None:
        if unit.alone:
            _run_alone(run, unit)
            return
        try:
            _run_in_transaction(run, unit)
        except MigrationFailedError as error:
            if not _may_run_alone(run, unit, error):
                raise
            _run_alone(run, alone(unit))

    try:
        retry_while_locked(run.file, run.watch, run.log, attempt)
    except MigrationFailedError as error:
        error.hint = _keep_what_ran(error.hint)
        raise


def _may_run_alone(run: _Run, unit: Unit, error: MigrationFailedError) -> bool:
    """Tell whether a statement was refused only for the transaction around it."""
    is_single = len(unit.statements) == 1 and not unit.is_block
    is_refused = error.error.sqlstate in REFUSED_INSIDE
    if error.hint == NEVER_INSIDE:
        return False
    if run.task.is_back and not catalogue_tells(alone(unit)):
        return False
    return is_refused and is_single and not run.held.is_pooled


def _keep_what_ran(hint: str) -> str:
    """Say in a remedy what is left of a file that runs outside a transaction."""
    return hint.replace(
        "othing this file did remains",
        "othing this statement did remains; what ran before it stays",
    )


def _run_in_transaction(run: _Run, unit: Unit) -> None:
    """Do a unit and record it in one transaction; nothing of its session is left."""
    worker, script, version = run.worker, run.task.script, run.task.version
    digest = digest_unit(script, unit)
    number = run.task.number_of(unit)
    row = insert_finished(worker.table, version, number, digest)
    finish = finish_finished(worker.table, version, number)
    gone = remove_rows(worker.table, run.task.undoes)
    before = (
        *begin(
            worker,
            script,
            unit.modes,
            mark=to_mark(0, unit.number),
            writes=BOTH if run.takes_row(unit) else (SUFFIX,),
        ),
        *([own(worker, "gone", gone)] if run.takes_row(unit) else ()),
        own(worker, "row", row),
        *set_variables(worker, script),
        *become_role(worker),
        *_replay(run),
    )
    messages: list[Message] = []
    if any(map(string_syntax_set, run.settings_made)):
        # How strings are read is settled for a whole message when it is parsed.
        messages.append(single(run.task, before))
        before = ()
    following = to_messages(
        worker,
        run.task,
        before=before,
        statements=unit.statements,
        after=(
            *clean_up(worker, script),
            own(worker, "finish", finish),
            Own("commit", b"COMMIT"),
        ),
    )
    for message in chain(messages, following):
        exchange(worker, message, run.watch, terms=Terms(left=run.goes_on))


def _replay(run: _Run) -> Iterator[Own]:
    """Make the settings that the file has made so far, with its own statements."""
    content = run.task.script.content
    for statement in run.settings_made:
        text = content[statement.first : statement.end].rstrip().removesuffix(b";")
        yield Own("setting", text)
    yield from restore(run.worker, run.settings_made)


def _run_alone(run: _Run, unit: Unit) -> None:
    """
    Run the one statement that PostgreSQL refuses in a transaction.

    The intent is written through the lock's connection, which keeps the login role.
    """
    worker, held, version = run.worker, run.held, run.task.version
    number = run.task.number_of(unit)
    _prepare_session(run, unit)
    with worker.translated("ask what is there before the statement"):
        before = note_before(worker.conn, unit)
    intent = Progress(
        number=number,
        digest=digest_unit(run.task.script, unit),
        state="started",
        before=before,
    )
    _declare(run, unit, intent)
    try:
        message = single(run.task, unit.statements)
        with _watched(run, unit) as looks:
            terms = Terms(
                blocks_queries=not waits_harmlessly(unit),
                left=_left_by(run) if catalogue_tells(unit) else _ask(ASKED, version),
                looks=looks,
            )
            exchange(worker, message, run.watch, terms=terms)
        with worker.translated("ask whether the index is valid"):
            require_valid(worker.conn, run.task.script, unit, before)
    except (GateError, LocksNotFreeError) as error:
        if is_done_in_steps(unit):
            _forget_session(worker)
            raise _leave_unfinished(error, version) from error
        try:
            with _clearing(run):
                tidy(worker.conn, unit, before)
        except ServerRefusedError as refusal:
            raise _left_over(error, refusal) from error
        _take_back(run, number)
        _forget_session(worker)
        raise
    with _writing_progress(held, worker):
        _write(held, worker, finish_unit(worker.table, version, number))
    _forget_session(worker)


def _watched(run: _Run, unit: Unit) -> AbstractContextManager[Looks]:
    """Have the statement watched, where this is a rehearsal."""
    observer = run.worker.observer
    if observer is None:
        return nullcontext(no_looks)
    pid = run.worker.conn.info.backend_pid
    return observer.watching(run.task, unit.statements[0], pid)


def _declare(run: _Run, unit: Unit, intent: Progress) -> None:
    """
    Write down what is about to be sent.

    A wish to stop is acted on when it is known to be written: only then is it sure that
    it can be taken back, and nobody is asked about a statement that never ran.

    Raises:
        Stopped: The run is to stop, and nothing was sent.
    """
    held, table, version = run.held, run.worker.table, run.task.version
    with ending(), _writing_progress(held, run.worker):
        if run.takes_row(unit):
            begun = begin_undoing(table, version, intent, run.task.undoes)
            _write(held, run.worker, begun, writes=BOTH)
        else:
            _write(held, run.worker, write_intent(table, version, intent))
    try:
        check_stop()
    except Stopped:
        # What the catalogue tells of keeps what it said before an earlier attempt.
        if not catalogue_tells(unit):
            with ending(), suppress(*NO_ANSWER):
                _take_back(run, intent.number)
        raise


def _take_back(run: _Run, number: int) -> None:
    """Remove what was written of a statement that has left nothing."""
    table, version = run.worker.table, run.task.version
    with _writing_progress(run.held, run.worker):
        if run.task.is_back:
            given_up = give_up_undoing(table, version, number)
            _write(run.held, run.worker, given_up, writes=BOTH)
        else:
            _write(run.held, run.worker, delete_units(table, version, [number]))


def _write(
    held: Session,
    worker: Worker,
    statement: sql.Composed,
    *,
    writes: tuple[str, ...] = (SUFFIX,),
) -> None:
    """Write progress, and perhaps the history, by the lock's connection."""
    held.conn.execute(guarded(worker.table, writes, statement))


@contextmanager
def _writing_progress(held: Session, worker: Worker) -> Iterator[None]:
    """
    Translate what PostgreSQL says to the writing of progress.

    Raises:
        HistoryRefusedError: The table is not what it was.
        ServerRefusedError: It refused for another reason.
    """
    try:
        with held.translated("write the progress of files"):
            yield
    except ServerRefusedError as refusal:
        raise explain_progress(held.conn, worker.table, refusal) from refusal


@contextmanager
def _clearing(run: _Run) -> Iterator[None]:
    """
    Clear up after a statement under limits of the gate's own, whatever the file's are.

    Raises:
        ServerRefusedError: It cannot be now: what was left stays for the next start.
    """
    limits = select(
        set_config(name, value, is_local=False) for name, value in CLEARING.items()
    )
    try:
        with (
            run.held.overseeing(run.worker.conn),
            run.worker.translated("clear up after an unfinished statement"),
        ):
            run.worker.conn.execute(limits)
            yield
    except RefusedForNowError as error:
        error.refusal.hint = (
            "A transaction that is open on its table keeps what it left from being "
            "dropped: end that one; the next start drops it first."
        )
        raise error.refusal from error


def _left_over(
    error: GateError | LocksNotFreeError, refusal: ServerRefusedError
) -> GateError:
    """Return the error of a statement that has left something, with both causes."""
    if isinstance(error, LocksNotFreeError):
        error = MigrationFailedError(error.error, hint="")
    left = f"What it left stays for now ({refusal.message}). {refusal.hint}"
    error.hint = f"{error.hint} {left}".lstrip()
    return error


def _leave_unfinished(error: GateError | LocksNotFreeError, version: str) -> GateError:
    """Return the error of a statement that may have committed a part of its work."""
    if not isinstance(error, LocksNotFreeError | MigrationFailedError):
        return error
    return MigrationFailedError(
        error.error,
        hint=_ask(MAY_BE_DONE, version),
    )


def _left_by(run: _Run) -> str:
    return GOES_ON_BACK if run.task.is_back else BUILT_ANEW


def _ask(why: str, version: str) -> str:
    """Return the question that only a person can answer."""
    return f"{why} Look what it has done. {ask_to_resolve(version)}"


def _prepare_session(run: _Run, unit: Unit) -> None:
    """Give the session the limits, the role and the settings of the file so far."""
    worker, script = run.worker, run.task.script
    waits = waits_harmlessly(unit)
    limits = session_limits(worker, script, lock_timeout=not waits)
    parts = [own(worker, "limits", limits)]
    parts += set_variables(worker, script, is_local=False)
    role = worker.settings.role
    if role is not None:
        become = sql.SQL("SET ROLE {}").format(sql.Identifier(role))
        parts.append(own(worker, "role", become))
    exchange(worker, single(run.task, [*parts, *_replay(run)]), run.watch)


def _forget_session(worker: Worker) -> None:
    """Clear everything that the file has left in the session."""
    roll_back(worker.conn)
    with worker.translated("clear the session after a statement"):
        worker.conn.execute("DISCARD ALL")
    keep_settings(worker)


def _exchange(run: _Run, message: Message, hooks: Hooks = NO_HOOKS) -> None:
    """Send statements of the gate's own, again while their locks are not free."""

    def attempt(_number: int) -> None:
        exchange(run.worker, message, run.watch, hooks)

    retry_while_locked(run.file, run.watch, run.log, attempt)


def _settle(run: _Run, unit: Unit, row: Progress) -> None:
    """Judge a statement whose end was not seen, and finish what it left."""
    worker, held, version = run.worker, run.held, run.task.version
    unit = alone(unit)
    retry_while_locked(
        run.file, run.watch, run.log, lambda _: _prepare_session(run, unit)
    )
    with _clearing(run):
        completion = find_completion(worker.conn, row.before)
    if completion is not None:
        # As a file's own: queries that come after it wait while it waits.
        limits = session_limits(worker, run.task.script, lock_timeout=True)
        _exchange(run, single(run.task, [own(worker, "limits", limits)]))
        _exchange(run, single(run.task, [own(worker, "complete", completion)]))
    with _clearing(run):
        is_done = was_done(worker.conn, run.task.script, unit, row.before)
    if is_done:
        with _writing_progress(held, worker):
            number = run.task.number_of(unit)
            _write(held, worker, finish_unit(worker.table, version, number))
    _forget_session(worker)
    if not is_done:
        _perform(run, unit)


def _forget(run: _Run) -> AppliedMigration:
    """Forget the progress, and the row of a migration of which nothing was to undo."""
    worker, task, table = run.worker, run.task, run.worker.table
    duration = qualified(
        "SELECT coalesce(pg_catalog.sum(duration_ms), 0)::pg_catalog.int8 FROM {} "
        "WHERE version = {}"
    ).format(progress_table(table), task.version)
    gone, is_gone = remove_rows(table, task.undoes), run.row_is_gone
    message = single(
        task,
        [
            *begin(worker, task.script, writes=BOTH),
            own(worker, "finish", duration),
            own(worker, "forget", delete_units(table, task.version)),
            *([own(worker, "gone", gone)] if task.undoes and not is_gone else ()),
            Own("commit", b"COMMIT"),
        ],
    )
    rows: list[Row] = []
    _exchange(run, message, Hooks(on_commit=lambda _, row: rows.append(row)))
    ((duration_ms, *_),) = rows
    return AppliedMigration(version=task.version, duration_ms=int(duration_ms or 0))


def _record(run: _Run) -> AppliedMigration:
    """Write the history row and forget the progress, in one transaction."""
    worker, task, table = run.worker, run.task, run.worker.table
    duration = qualified(
        "(SELECT coalesce(pg_catalog.sum(duration_ms), 0)::pg_catalog.int8 FROM {} "
        "WHERE version = {})"
    ).format(progress_table(table), task.version)
    read_back = qualified("SELECT {}, {} FROM {} WHERE version = {}").format(
        duration,
        to_text(has_zone=table.has_zone),
        sql.Identifier(table.schema, table.name),
        task.version,
    )
    checksum = task.script.migration.checksum
    if task.replaced is not None:
        row = replace_row(table, task.replaced, checksum, duration)
    else:
        row = insert_row(table, task.version, checksum, duration)
    message = single(
        task,
        [
            *begin(worker, task.script, writes=BOTH),
            own(worker, "row", row),
            own(worker, "finish", read_back),
            own(worker, "forget", delete_units(table, task.version)),
            Own("commit", b"COMMIT"),
        ],
    )
    rows: list[Row] = []
    hooks = Hooks(on_commit=lambda _, row: rows.append(row))
    _exchange(run, message, hooks)
    ((duration_ms, applied_at),) = rows
    return AppliedMigration(
        version=task.version,
        checksum=checksum,
        applied_at=applied_at or "",
        duration_ms=int(duration_ms or 0),
    )
