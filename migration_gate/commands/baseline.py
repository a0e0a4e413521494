"""
Record what a database has already, without running it: the command, and GATE_BASELINE.

For databases whose migrations were run by hand, or by a tool that the gate cannot take
over. Writes only the first rows of the history, under the lock.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

from migration_gate.commands.answers import BaselineLine, describe_baseline, to_json
from migration_gate.commands.recording import by_hand, has_rows, record_first
from migration_gate.commands.steps import load, wait_for_history
from migration_gate.files.migration import AppliedMigration, Migration
from migration_gate.history.look import require_readable
from migration_gate.history.user_tables import find_user_tables
from migration_gate.planning.agreement import listed
from migration_gate.planning.naming import find_through
from migration_gate.report.errors import HistoryError
from migration_gate.report.events import BASELINE
from migration_gate.report.log import Log
from migration_gate.report.verdict import Tally
from migration_gate.session.session import Session
from migration_gate.session.turn import take_turn
from migration_gate.settings.settings import Settings


def baseline(
    settings: Settings, log: Log, tally: Tally, *, version: str, as_json: bool
) -> None:
    """
    Record every migration up to one as applied, and apply nothing.

    A person says so: whether the database has tables is not asked.

    Raises:
        MigrationFilesError: No file has this name, or several have this number.
        HistoryError: The history has rows.
    """
    migrations = load(settings, log, "baseline")
    chosen = find_through(version, migrations)  # before the wait
    with (
        by_hand(),
        closing(wait_for_history(settings, migrations, log, tally)) as session,
    ):
        _require_sure(session, migrations)
        is_first = not session.seen.history and _record(session, chosen, log, tally)
    if not is_first:
        raise has_rows("a baseline is its beginning")
    lines = make_lines(chosen)
    log.answer(to_json(lines) if as_json else describe_baseline(lines))
    tally.outcome = f"{len(chosen)} recorded as applied, nothing was applied"


def take_baseline(
    settings: Settings,
    migrations: Sequence[Migration],
    session: Session,
    log: Log,
    tally: Tally,
) -> bool:
    """
    Record what GATE_BASELINE says, where the database has tables and no history.

    Returns whether it was recorded, be it by another gate; then the session is closed.

    Raises:
        HistoryError: It is not sure whether the tables are of these files.
        MigrationFilesError: No file has this name, or several have this number.
    """
    chosen = find_baseline(settings, migrations, session)
    if chosen:
        _record(session, chosen, log, tally)
    return bool(chosen)


def find_baseline(
    settings: Settings, migrations: Sequence[Migration], session: Session
) -> tuple[Migration, ...]:
    """
    Return what GATE_BASELINE says is there; nothing where it does not hold. Reads only.

    Raises:
        HistoryError: It is not sure whether the tables are of these files.
        MigrationFilesError: No file has this name, or several have this number.
    """
    if settings.baseline is None or session.seen.history:
        return ()
    chosen = find_through(settings.baseline, migrations)
    _require_sure(session, migrations)
    session.require_no_foreign(migrations)
    seen = session.seen
    with session.translated("look for tables"):
        tables = find_user_tables(session.conn, seen.name, seen.schema, settings.role)
    if tables.far and not tables.near:
        raise HistoryError(
            "GATE_BASELINE is set, and it is not sure whether this database is new: it "
            f"has tables, as {listed(tables.far)}, and none in a schema that the "
            "search path names and of a role that the gate trusts",
            hint="Nothing was written. Where they are this application's, put their "
            "schema into the search path of the role, and their owner into GATE_ROLE, "
            "or give the command baseline once; where they are another's, set "
            "GATE_BASELINE=none here.",
        )
    return chosen if tables.near else ()


def make_lines(migrations: Sequence[Migration]) -> tuple[BaselineLine, ...]:
    """Return a line for each file that a baseline stands for."""
    last = migrations[-1].version
    return tuple(BaselineLine(version=m.version, baseline=last) for m in migrations)


def to_history(
    migrations: Sequence[Migration],
) -> list[tuple[AppliedMigration, str]]:
    """Return the rows of a baseline, each with its origin."""
    origin = f"baseline {migrations[-1].version}"
    return [
        (AppliedMigration(version=m.version, checksum=m.checksum), origin)
        for m in migrations
    ]


def _require_sure(session: Session, migrations: Sequence[Migration]) -> None:
    """Refuse where a table that is not seen may be the history."""
    require_readable(session.seen)
    session.require_sole((), migrations)


def _record(
    session: Session, chosen: Sequence[Migration], log: Log, tally: Tally
) -> bool:
    """Record the first rows of a history; return whether they are the first."""
    with take_turn(session, lambda seen: bool(seen.history), log, tally) as held:
        if held.seen.history:
            return False
        record_first(held, to_history(chosen), log, require_valid_of=chosen)
    log.emit(
        BASELINE,
        baseline=chosen[-1].version,
        row_count=len(chosen),
        versions=[m.version for m in chosen],
    )
    return True
