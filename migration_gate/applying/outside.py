"""
Apply a file that cannot run in one transaction: unit by unit, each exactly once.

A unit that can be in a transaction commits with its progress. One that cannot has its
intent written before, and is judged from the catalogue when its end was not seen.
What undoes a migration goes the same way; the history's row goes with its first unit,
so that no gate takes for applied what is half undone.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain

from migration_gate.applying.file_run import BOTH, FileRun, writing_progress
from migration_gate.applying.finishing import forget, record
from migration_gate.applying.settings_so_far import settings_after
from migration_gate.applying.unfinished import REFUSED_INSIDE, alone, catalogue_tells
from migration_gate.applying.without_transaction import run_alone, settle
from migration_gate.execution.compose import to_messages
from migration_gate.execution.exchange import exchange
from migration_gate.execution.frame import (
    become_role,
    begin,
    clean_up,
    require_defaults,
    set_variables,
)
from migration_gate.execution.message import Message, Own, Task, single
from migration_gate.execution.retry import retry_while_locked
from migration_gate.execution.watch import Terms, Watch
from migration_gate.execution.worker import Worker, own
from migration_gate.files.migration import AppliedMigration
from migration_gate.files.script import Script, digest_unit
from migration_gate.files.units import Unit
from migration_gate.history.guarding import guarded
from migration_gate.history.progress import (
    SUFFIX,
    Progress,
    delete_units,
    ensure_progress,
    finish_finished,
    insert_finished,
    read_progress,
)
from migration_gate.history.rows import remove_rows
from migration_gate.report.errors import (
    FileFault,
    MigrationFailedError,
    MigrationFilesError,
)
from migration_gate.report.log import Log
from migration_gate.report.remedies import NEVER_INSIDE
from migration_gate.session.marks import to_mark
from migration_gate.session.session import Session
from migration_gate.statements import string_syntax_set


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
    run = FileRun(worker, task, held, watch, log)
    if task.checks_defaults:
        run.exchange(single(task, [require_defaults(worker)]))
    full = worker.settings.log_detail == "full"
    ensure_progress(worker.conn, worker.table, worker.acting_role, full=full)
    with worker.translated("read the progress of files"):
        done = read_progress(worker.conn, worker.table, task.version)
    edited = _find_edited(task, done)
    if edited and _may_begin_anew(task.script, done):
        with run.writing_progress():
            run.write(delete_units(worker.table, task.version))
        done = {}
    elif edited:
        raise MigrationFilesError(edited)
    for unit in task.script.units:
        row = done.get(task.number_of(unit))
        if row is None:
            _perform(run, unit)
        elif row.state == "started" and not settle(run, unit, row):
            _perform(run, alone(unit))
        run.row_is_gone = run.row_is_gone or run.takes_row(unit)
        run.settings_made = settings_after(run.settings_made, unit.statements)
    return forget(run) if task.is_back else record(run)


def forget_what_runs_inside(held: Session, begun: Mapping[str, Script]) -> None:
    """
    Forget what has run of repeatable files that run inside a transaction now.

    Another text of theirs is applied as a whole; were the old one to come back, it
    would go on where it failed.

    Args:
        held: Has the lock.
        begun: The files that have progress, by the version that it has there.

    Raises:
        MigrationFilesError: Another file has run in part, outside a transaction, and
            would run inside one now; lists all of them.
    """
    table = held.seen.table
    inside = {row: script for row, script in begun.items() if script.in_transaction}
    if table is None or not inside:
        return
    with held.translated("read the progress of files"):
        kept = {row: read_progress(held.conn, table, row) for row in inside}
    faults = [
        FileFault(
            file=script.migration.file,
            problem="was edited after a part of it had run, outside a transaction, and "
            "would run inside one as a whole",
            remedy="Write -- gate: no-transaction at its head, and restore what has "
            "run: it goes on after that. Or undo what has run, and say so: "
            f"resolve {script.migration.version} --not-applied.",
        )
        for row, script in inside.items()
        if not _may_begin_anew(script, kept[row])
    ]
    if faults:
        raise MigrationFilesError(faults)
    with writing_progress(held, table):
        for row in inside:
            held.conn.execute(guarded(table, (SUFFIX,), delete_units(table, row)))


def _perform(run: FileRun, unit: Unit) -> None:
    def attempt(_number: int) -> None:
        if unit.alone:
            run_alone(run, unit)
            return
        try:
            _run_in_transaction(run, unit)
        except MigrationFailedError as error:
            if not _may_run_alone(run, unit, error):
                raise
            run_alone(run, alone(unit))

    try:
        retry_while_locked(run.task.script.migration, run.watch, run.log, attempt)
    except MigrationFailedError as error:
        error.hint = _keep_what_ran(error.hint)
        raise


def _may_run_alone(run: FileRun, unit: Unit, error: MigrationFailedError) -> bool:
    """Tell whether a statement was refused only for the transaction around it."""
    is_single = len(unit.statements) == 1 and not unit.is_block
    is_refused = error.error.sqlstate in REFUSED_INSIDE
    if error.hint == NEVER_INSIDE:
        return False
    if run.task.is_back and not catalogue_tells(alone(unit)):
        return False
    return is_refused and is_single and not run.held.is_pooled


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


def _may_begin_anew(script: Script, done: Mapping[int, Progress]) -> bool:
    """Tell a repeatable migration, but not one with a statement of unknown end."""
    is_known = all(row.state == "finished" for row in done.values())
    return script.migration.is_repeatable and is_known


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


def _keep_what_ran(hint: str) -> str:
    """Say in a remedy what is left of a file that runs outside a transaction."""
    return hint.replace(
        "othing this file did remains",
        "othing this statement did remains; what ran before it stays",
    )


def _run_in_transaction(run: FileRun, unit: Unit) -> None:
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
            deletes=run.takes_row(unit),
        ),
        *([own(worker, "gone", gone)] if run.takes_row(unit) else ()),
        own(worker, "row", row),
        *set_variables(worker, script),
        *become_role(worker),
        *run.replay(),
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
