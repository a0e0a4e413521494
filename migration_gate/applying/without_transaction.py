"""
Run one statement that PostgreSQL refuses in a transaction, and judge one left behind.

Its intent is written before, and what the catalogue says then; where its end was not
seen, the catalogue is asked again, and a person where that cannot tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from types import MappingProxyType
from typing import Final

from psycopg import sql

from migration_gate.applying.file_run import BOTH, GOES_ON_BACK, FileRun
from migration_gate.applying.unfinished import (
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
from migration_gate.connection.refusals import NO_ANSWER
from migration_gate.connection.waits import Stopped, check_stop, ending
from migration_gate.execution.exchange import exchange
from migration_gate.execution.frame import (
    require_schema,
    select,
    session_limits,
    set_config,
    set_variables,
)
from migration_gate.execution.message import single
from migration_gate.execution.observer import Looks
from migration_gate.execution.retry import retry_while_locked
from migration_gate.execution.watch import Terms, no_looks
from migration_gate.execution.worker import own
from migration_gate.files.script import Script, digest_unit
from migration_gate.files.units import Unit
from migration_gate.history.progress import (
    Progress,
    begin_undoing,
    delete_units,
    finish_unit,
    give_up_undoing,
    write_intent,
)
from migration_gate.report.errors import (
    FileFault,
    GateError,
    MigrationFailedError,
    MigrationFilesError,
    ServerRefusedError,
    ask_to_resolve,
)
from migration_gate.report.outcomes import LocksNotFreeError, RefusedForNowError


# DROP INDEX CONCURRENTLY waits for each transaction that is older.
CLEARING: Final = MappingProxyType({"statement_timeout": "10s", "lock_timeout": "0"})
MAY_BE_DONE: Final = "It may have committed a part of its work."
ASKED: Final = (
    "It may have committed a part of its work, so that the next start stays closed "
    "until a person has said what it did."
)
BUILT_ANEW: Final = (
    "What ran of this file before this statement stays. The next start looks what "
    "became of the statement: it drops an index that is half built, and runs it again."
)


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


def run_alone(run: FileRun, unit: Unit) -> None:
    """
    Run the one statement that PostgreSQL refuses in a transaction.

    The intent is written through the lock's connection, which keeps the login role.
    """
    worker, version = run.worker, run.task.version
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
            run.clear_session()
            raise _leave_unfinished(error, version) from error
        try:
            with _clearing(run):
                tidy(worker.conn, unit, before)
        except ServerRefusedError as refusal:
            raise _left_over(error, refusal) from error
        _take_back(run, number)
        run.clear_session()
        raise
    with run.writing_progress():
        run.write(finish_unit(worker.table, version, number))
    run.clear_session()


def settle(run: FileRun, unit: Unit, row: Progress) -> bool:
    """
    Judge a statement whose end was not seen, and finish what it left.

    Returns:
        Whether it is done; else it is to be run again.

    Raises:
        UnresolvedError: It cannot be judged.
    """
    worker, version = run.worker, run.task.version
    unit = alone(unit)
    migration = run.task.script.migration
    retry_while_locked(
        migration, run.watch, run.log, lambda _: _prepare_session(run, unit)
    )
    with _clearing(run):
        completion = find_completion(worker.conn, row.before)
    if completion is not None:
        # As a file's own: queries that come after it wait while it waits.
        limits = session_limits(worker, run.task.script, lock_timeout=True)
        run.exchange(single(run.task, [own(worker, "limits", limits)]))
        run.exchange(single(run.task, [own(worker, "complete", completion)]))
    with _clearing(run):
        is_done = was_done(worker.conn, run.task.script, unit, row.before)
    if is_done:
        with run.writing_progress():
            number = run.task.number_of(unit)
            run.write(finish_unit(worker.table, version, number))
    run.clear_session()
    return is_done


def _watched(run: FileRun, unit: Unit) -> AbstractContextManager[Looks]:
    """Have the statement watched, where this is a rehearsal."""
    observer = run.worker.observer
    if observer is None:
        return nullcontext(no_looks)
    pid = run.worker.conn.info.backend_pid
    return observer.watching(run.task, unit.statements[0], pid)


def _declare(run: FileRun, unit: Unit, intent: Progress) -> None:
    """
    Write down what is about to be sent.

    A wish to stop is acted on when it is known to be written: only then is it sure that
    it can be taken back, and nobody is asked about a statement that never ran.

    Raises:
        Stopped: The run is to stop, and nothing was sent.
    """
    table, version = run.worker.table, run.task.version
    with ending(), run.writing_progress():
        if run.takes_row(unit):
            begun = begin_undoing(table, version, intent, run.task.undoes)
            run.write(begun, writes=BOTH)
        else:
            run.write(write_intent(table, version, intent))
    try:
        check_stop()
    except Stopped:
        # What the catalogue tells of keeps what it said before an earlier attempt.
        if not catalogue_tells(unit):
            with ending(), suppress(*NO_ANSWER):
                _take_back(run, intent.number)
        raise


def _take_back(run: FileRun, number: int) -> None:
    """Remove what was written of a statement that has left nothing."""
    table, version = run.worker.table, run.task.version
    with run.writing_progress():
        if run.task.is_back:
            given_up = give_up_undoing(table, version, number)
            run.write(given_up, writes=BOTH)
        else:
            run.write(delete_units(table, version, [number]))


@contextmanager
def _clearing(run: FileRun) -> Iterator[None]:
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


def _left_by(run: FileRun) -> str:
    return GOES_ON_BACK if run.task.is_back else BUILT_ANEW


def _ask(why: str, version: str) -> str:
    """Return the question that only a person can answer."""
    return f"{why} Look what it has done. {ask_to_resolve(version)}"


def _prepare_session(run: FileRun, unit: Unit) -> None:
    """Give the session the limits, the role and the settings of the file so far."""
    worker, script = run.worker, run.task.script
    waits = waits_harmlessly(unit)
    limits = session_limits(worker, script, lock_timeout=not waits)
    parts = [own(worker, "limits", limits)]
    parts += set_variables(worker, script, is_local=False)
    role = worker.settings.role
    if role is not None:
        become = sql.SQL("SET ROLE {}").format(sql.Identifier(role))
        parts += [own(worker, "role", become), *require_schema(worker)]
    exchange(worker, single(run.task, [*parts, *run.replay()]), run.watch)
