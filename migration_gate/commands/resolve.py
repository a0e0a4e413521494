"""
The command resolve: a person says of migrations that they are applied, or are not.

Writes or removes their rows in the history, under the lock, all or none.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Literal, NamedTuple, TypeAlias

from psycopg import sql

from migration_gate.commands.apply import open_worker
from migration_gate.commands.calls import UsageError
from migration_gate.commands.recording import by_hand, execute, require_valid
from migration_gate.commands.steps import load, plan_for, wait_for_history
from migration_gate.execution.worker import Worker
from migration_gate.files.migration import AppliedMigration, Migration
from migration_gate.history.progress import (
    delete_units,
    find_unfinished,
    finish_unit,
    read_progress,
)
from migration_gate.history.rows import (
    declare_replaced,
    delete_rows,
    insert_row,
    replace_checksum,
)
from migration_gate.planning.naming import NO_FILE, find_keys, find_through
from migration_gate.planning.plan import Plan
from migration_gate.planning.renaming import note_begun
from migration_gate.report.events import MIGRATION_RESOLVED
from migration_gate.report.log import Log
from migration_gate.report.verdict import Tally
from migration_gate.session.session import Session
from migration_gate.session.turn import take_turn
from migration_gate.settings.settings import Settings


Said: TypeAlias = Literal["applied", "not applied", "applied as it stands now"]


class Saying(NamedTuple):
    """What a person says: of which migrations, and that they are applied or not."""

    words: Sequence[str]
    through: str | None
    is_applied: bool


class Writing(NamedTuple):
    """What is recorded of one migration; ``said`` is None where nothing was to do."""

    version: str
    said: Said | None
    statements: Sequence[sql.Composed]


def resolve(  # noqa: PLR0913  # the options of a command
    settings: Settings,
    log: Log,
    tally: Tally,
    *,
    versions: Sequence[str],
    through: str | None,
    is_applied: bool,
) -> None:
    """
    Record that migrations are applied without running them, or that they are not.

    All of them in one transaction, or none.

    Args:
        versions: Names, with or without ending, or numbers that only one file has.
        through: So named, with all that come before it, as far as they are pending.

    Raises:
        UsageError: Nothing is named, or in two ways.
        MigrationFilesError: No file here, and no row of the history, has this name; or
            several have this number.
        UnresolvedError: An index that a file builds is invalid.
        LoginRefusedError: The login role may not write the history.
        ConnectionLostError: It may or may not have been recorded.
    """
    saying = Saying(versions, through, is_applied)
    _require_usage(saying)
    migrations = load(settings, log, "resolve")
    if is_applied:
        _choose(migrations, saying)  # before the wait
    with (
        by_hand(),
        closing(wait_for_history(settings, migrations, log, tally)) as session,
        take_turn(session, lambda _: False, log, tally) as held,
    ):
        written = _resolve_under_lock(settings, log, held, migrations, saying)
    for version, said, _ in written:
        if said is not None:
            log.emit(MIGRATION_RESOLVED, **{"version": version, "as": said})
    tally.outcome = _describe(written)


def _require_usage(saying: Saying) -> None:
    if saying.through is None and saying.words:
        return
    if saying.through is not None and saying.is_applied and not saying.words:
        return
    raise UsageError(
        "command resolve does not take these arguments",
        hint="Name the migrations, or, with --applied, the last of them after "
        "--through.",
    )


def _describe(written: Sequence[Writing]) -> str:
    """Say in the verdict what was recorded."""
    said = [each for each in written if each.said is not None]
    if len(said) == 1:
        return f'"{said[0].version}" was declared {said[0].said}'
    if said:
        return f"{len(said)} were declared {said[0].said}"
    if len(written) == 1:
        return f'"{written[0].version}" is applied as it stands: nothing was to do'
    return "all are applied as they stand: nothing was to do"


def _choose(migrations: Sequence[Migration], saying: Saying) -> tuple[Migration, ...]:
    """Return the files that are said to be applied, in their order."""
    if saying.through is not None:
        return find_through(saying.through, migrations)
    ordered = sorted(migrations, key=lambda migration: migration.order)
    names = [migration.version for migration in ordered]
    keys = find_keys(saying.words, names, missing=NO_FILE)
    return tuple(m for m in ordered if m.key in keys)


def _resolve_under_lock(
    settings: Settings,
    log: Log,
    held: Session,
    migrations: Sequence[Migration],
    saying: Saying,
) -> Sequence[Writing]:
    plan, history = plan_for(migrations, held, looks_around=False), held.seen.history
    with open_worker(settings, held, log) as worker:
        with worker.translated("read the progress of files"):
            unfinished = tuple(find_unfinished(worker.conn, worker.table))
        plan = note_begun(plan, unfinished, held.seen.tool)
        if saying.is_applied:
            chosen = _choose(migrations, saying)
            if saying.through is not None:  # of what was changed it says nothing
                chosen = tuple(m for m in chosen if m in plan.pending)
            require_valid(worker, chosen)
            written = [_record(worker, plan, history, unfinished, m) for m in chosen]
        else:
            written = _remove(worker, plan, saying, history, unfinished)
        execute(worker, [part for each in written for part in each.statements])
    return written


def _find_started(worker: Worker, versions: Sequence[str]) -> tuple[str, int] | None:
    """Return version and number of the statement whose end was not seen."""
    with worker.translated("read the progress of files"):
        for version in versions:
            for row in read_progress(worker.conn, worker.table, version).values():
                # Of what is half undone, a person speaks as a whole.
                if row.state == "started" and row.number > 0:
                    return version, row.number
    return None


def _record(
    worker: Worker,
    plan: Plan,
    history: Sequence[AppliedMigration],
    unfinished: Sequence[str],
    migration: Migration,
) -> Writing:
    """Return what says that a file is applied, or its statement whose end is unseen."""
    table, version = worker.table, migration.version
    units = [v for v in unfinished if plan.key_of(v) == migration.key]
    started = _find_started(worker, units)
    if started is not None:  # the file goes on after it
        return Writing(version, "applied", [finish_unit(table, *started)])
    forget = [delete_units(table, unit) for unit in units]
    replaced = plan.find_replacement(migration)
    if replaced is not None:
        declare = declare_replaced(table, replaced, migration.checksum)
        return Writing(version, "applied as it stands now", [declare, *forget])
    if migration in (*plan.pending, *plan.left):
        recorded = plan.version_to_record(migration)
        insert = insert_row(table, recorded, migration.checksum)
        return Writing(version, "applied", [insert, *forget])
    if version not in plan.changed:
        return Writing(version, None, forget)
    rows = [r.version for r in history if plan.key_of(r.version) == migration.key]
    replace = replace_checksum(table, rows, migration.checksum)
    return Writing(version, "applied as it stands now", [replace, *forget])


def _remove(
    worker: Worker,
    plan: Plan,
    saying: Saying,
    history: Sequence[AppliedMigration],
    unfinished: Sequence[str],
) -> list[Writing]:
    """Return what says of each that it is not applied, or not its last statement."""
    table, recorded = worker.table, [row.version for row in history]
    names = (*recorded, *unfinished)
    missing = "the history has no row of this name"
    renamed = {**plan.renamed, **plan.begun}
    written = []
    for key in find_keys(saying.words, names, missing=missing, renamed=renamed):
        rows = [version for version in recorded if plan.key_of(version) == key]
        units = [version for version in unfinished if plan.key_of(version) == key]
        started = _find_started(worker, units)
        if started is not None:
            version, number = started
            statements = [delete_units(table, version, [number])]
        else:
            statements = [delete_units(table, unit) for unit in units]
            statements += [delete_rows(table, rows)] if rows else []
        written.append(Writing((*rows, *units)[0], "not applied", statements))
    return written
