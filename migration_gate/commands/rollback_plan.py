"""
What a rollback would do: which migrations, by which files, and what speaks against it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from migration_gate.applying.unfinished import catalogue_tells
from migration_gate.applying.without_transaction import require_no_session
from migration_gate.commands.answers import UndoLine
from migration_gate.commands.steps import plan_for
from migration_gate.connection.waits import interruptible
from migration_gate.files.folder import read_scripts
from migration_gate.files.migration import AppliedMigration, Migration, version_to_key
from migration_gate.files.script import Script
from migration_gate.files.undoing import find_way_back
from migration_gate.history.progress import find_begun
from migration_gate.planning.agreement import require_agreement
from migration_gate.planning.plan import Step
from migration_gate.planning.renaming import pair_begun
from migration_gate.planning.undoing import Undoing, plan_undoing
from migration_gate.report.errors import (
    FileFault,
    GateError,
    HistoryError,
    MigrationFilesError,
)
from migration_gate.session.session import Session
from migration_gate.settings.settings import Settings


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


def choose(
    wish: Wish, session: Session
) -> tuple[tuple[Undoing, ...], Mapping[str, str]]:
    """
    Return what is to be undone, and what is half undone; see ``look_half_undone``.

    Raises:
        HistoryError: Nothing is applied; or another table may be the history; or a file
            is not what was applied.
    """
    plan = plan_for(wish.migrations, session, looks_around=False)
    session.require_sole(plan.applied, plan.applied)
    half_undone = look_half_undone(wish, session)
    history = session.seen.history
    order = plan_undoing(
        wish.migrations, history, half_undone, to=wish.to, renamed=plan.renamed
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
        plan._replace(changes=changes, lookalikes=(), twins=(), halves=()),
        changed=wish.settings.changed,
        out_of_order="apply",
        ahead="allow",
    )
    return order, half_undone


def look_half_undone(wish: Wish, session: Session) -> Mapping[str, str]:
    """
    Return the keys of what a rollback has undone a part of. Reads only.

    Each with the version under which that is noted.
    """
    table = session.seen.table
    if table is None:
        return {}
    with session.translated("read the progress of files"):
        begun = find_begun(session.conn, table)
    versions = [version for version, lowest in begun.items() if lowest < 0]
    files = pair_begun(wish.migrations, versions, session.seen.tool)
    return {
        files[v].key if v in files else version_to_key(v): v for v in sorted(versions)
    }


def find_ways_back(
    wish: Wish,
    session: Session,
    order: Sequence[Undoing],
    half_undone: Mapping[str, str],
) -> WaysBack:
    """Find what undoes each migration, and everything that speaks against it."""
    folder = wish.settings.migrations
    history = session.seen.name._replace(schema=session.seen.schema)
    # The next start brings its own texts: those here may lean on what goes.
    repeated = tuple(_find_repeated(wish.migrations, session.seen.history))
    steps: list[Step] = []
    lines = []
    faults: list[FileFault] = []
    for undoing in order:
        migration = undoing.migration
        rows = tuple(row.version for row in undoing.rows)
        is_begun = migration.key in half_undone
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
        version = half_undone[migration.key] if is_begun else rows[0]
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
