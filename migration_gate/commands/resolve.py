"""
The command resolve: a person says of one migration that it is applied, or is not.

Writes or removes one migration's row in the history, under the lock.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Final, Literal, TypeAlias

from psycopg import sql

from migration_gate.commands.apply import open_worker
from migration_gate.commands.steps import load, plan_for, wait_for_history
from migration_gate.connection.waits import interruptible
from migration_gate.execution.invalid import find_built
from migration_gate.execution.worker import Worker
from migration_gate.files.folder import read_statements
from migration_gate.files.migration import AppliedMigration, Migration, version_to_key
from migration_gate.history.progress import (
    delete_units,
    find_unfinished,
    finish_unit,
    read_progress,
)
from migration_gate.history.rows import delete_rows, insert_row, replace_checksum
from migration_gate.history.writing import explain_write
from migration_gate.planning.plan import Plan
from migration_gate.report.errors import (
    DatabaseUnreachableError,
    FileFault,
    MigrationFilesError,
    ServerRefusedError,
    UnresolvedError,
)
from migration_gate.report.events import MIGRATION_RESOLVED
from migration_gate.report.log import Log
from migration_gate.report.outcomes import ConnectionLostError, RefusedForNowError
from migration_gate.report.verdict import Tally
from migration_gate.session.session import Session
from migration_gate.session.turn import take_turn
from migration_gate.settings.settings import Settings
from migration_gate.statements import created_index


Said: TypeAlias = Literal["applied", "not applied", "applied as it stands now"]

RIGHTS: Final = ("SELECT", "INSERT", "UPDATE", "DELETE")


def resolve(
    settings: Settings, log: Log, tally: Tally, *, version: str, is_applied: bool
) -> None:
    """
    Record that a migration is applied without running it, or that it is not.

    Raises:
        MigrationFilesError: No file here, and no row of the history, has this name.
        UnresolvedError: An index that the file builds is invalid.
        LoginRefusedError: The login role may not write the history.
        ConnectionLostError: It may or may not have been recorded.
    """
    migrations = load(settings, log, "resolve")
    try:
        with (
            closing(wait_for_history(settings, migrations, log, tally)) as session,
            take_turn(session, lambda _: False, log, tally) as held,
        ):
            said = _resolve_under_lock(
                settings, log, held, migrations, version, is_applied
            )
    except ConnectionLostError as error:
        raise DatabaseUnreachableError(
            "the connection was lost while the history was written",
            hint="Look with the command status whether it was, or give the command "
            "again.",
        ) from error
    except RefusedForNowError as error:
        raise error.refusal from error
    if said is None:
        tally.outcome = f'"{version}" is applied as it stands: nothing was to do'
        return
    log.emit(MIGRATION_RESOLVED, **{"version": version, "as": said})
    tally.outcome = f'"{version}" was declared {said}'


def _resolve_under_lock(  # noqa: PLR0913, PLR0917  # private, called once
    settings: Settings,
    log: Log,
    held: Session,
    migrations: Sequence[Migration],
    version: str,
    is_applied: bool,  # noqa: FBT001  # private, and named at its one call
) -> Said | None:
    """Return what was recorded; None where the history said so before."""
    plan = plan_for(migrations, held, by_hand=True)
    key = version_to_key(version)
    with open_worker(settings, held, log) as worker:
        if is_applied:
            _require_valid(worker, [m for m in migrations if m.key == key])
        with worker.translated("read the progress of files"):
            unfinished = find_unfinished(worker.conn, worker.table)
        rows = tuple(v for v in unfinished if version_to_key(v) == key)
        started = _find_started(worker, rows)
        if started is not None:
            _answer(worker, *started, is_applied=is_applied)
        elif is_applied:
            said = _record(worker, plan, held.seen.history, version)
            _forget(worker, rows)
            return said
        else:
            _remove(worker, held.seen.history, version, rows)
    return "applied" if is_applied else "not applied"


def _require_valid(worker: Worker, migrations: Sequence[Migration]) -> None:
    """Refuse a word that would leave the application without an index."""
    for migration in migrations:
        with interruptible():
            statements = read_statements(worker.settings.migrations, migration)
        created = [index for s in statements if (index := created_index(s))]
        with worker.translated("ask whether the indexes are valid"):
            invalid = find_built(worker.conn, created)
        if invalid:
            verb = "is" if len(invalid) == 1 else "are"
            noun = "index" if len(invalid) == 1 else "indexes"
            raise UnresolvedError(
                f'"{migration.version}" cannot be declared applied: {noun} '
                f"{', '.join(map(str, invalid))}, which it builds, {verb} invalid",
                hint="No query uses what is invalid. Unless somebody is building it "
                f"at this moment: {' '.join(index.remedy for index in invalid)} Then "
                "start the gate, which builds it.",
                version=migration.version,
            )


def _find_started(worker: Worker, versions: Sequence[str]) -> tuple[str, int] | None:
    """Return version and number of the statement whose end was not seen."""
    with worker.translated("read the progress of files"):
        for version in versions:
            for row in read_progress(worker.conn, worker.table, version).values():
                if row.state == "started":
                    return version, row.number
    return None


def _answer(worker: Worker, version: str, number: int, *, is_applied: bool) -> None:
    """Take a person's word for one unfinished statement; the file goes on after it."""
    if is_applied:
        _execute(worker, finish_unit(worker.table, version, number))
    else:
        _execute(worker, delete_units(worker.table, version, [number]))


def _record(
    worker: Worker, plan: Plan, history: Sequence[AppliedMigration], version: str
) -> Said | None:
    key = version_to_key(version)
    named = [m for m in (*plan.applied, *plan.pending) if m.key == key]
    if not named:
        raise _unknown(version, "no file in the folder has this name")
    (migration,) = named
    if migration in plan.pending:
        recorded = plan.version_to_record(migration)
        _execute(worker, insert_row(worker.table, recorded, migration.checksum))
        return "applied"
    if migration.version not in plan.changed:
        return None
    rows = [row.version for row in history if version_to_key(row.version) == key]
    _execute(worker, replace_checksum(worker.table, rows, migration.checksum))
    return "applied as it stands now"


def _remove(
    worker: Worker,
    history: Sequence[AppliedMigration],
    version: str,
    unfinished: Sequence[str],
) -> None:
    key = version_to_key(version)
    rows = [row.version for row in history if version_to_key(row.version) == key]
    if not rows and not unfinished:
        raise _unknown(version, "the history has no row of this name")
    if rows:
        _execute(worker, delete_rows(worker.table, rows))
    _forget(worker, unfinished)


def _forget(worker: Worker, versions: Sequence[str]) -> None:
    for version in versions:
        _execute(worker, delete_units(worker.table, version))


def _execute(worker: Worker, statement: sql.Composed) -> None:
    table, role = worker.table, worker.login_role
    try:
        with worker.translated(f'write to table "{table.schema}.{table.name}"'):
            worker.conn.execute(statement)
    except ServerRefusedError as refusal:
        error = explain_write(worker.conn, table, role, refusal, rights=RIGHTS)
        raise error from refusal


def _unknown(version: str, problem: str) -> MigrationFilesError:
    remedy = "The command status lists the names."
    return MigrationFilesError(
        [FileFault(file=version, problem=problem, remedy=remedy)]
    )
