"""
What the next start records before it applies anything, by GATE_ADOPT or GATE_BASELINE.

Looks, and writes nothing: for those who show what would be done.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from migration_gate.files.migration import Migration
from migration_gate.planning.plan import Plan, make_plan
from migration_gate.report.errors import IncompleteError
from migration_gate.session.session import Session
from migration_gate.settings.settings import Settings


if TYPE_CHECKING:
    from migration_gate.commands.answers import RecordedLine


def plan_first_rows(
    settings: Settings, migrations: Sequence[Migration], session: Session, plan: Plan
) -> tuple[Plan, tuple[RecordedLine, ...]]:
    """
    Plan as if what is recorded first had been, and return a line for each row of it.

    Args:
        settings: What they say is taken over, or is there.
        migrations: Those that are shipped here.
        session: What it has seen.
        plan: The one that holds where nothing is recorded first.

    Raises:
        HistoryError: A doubt is left.
        MigrationFilesError: GATE_BASELINE names no file, or several.
    """
    recorded: tuple[RecordedLine, ...] = ()
    if settings.adopt.tool is not None and not session.seen.history:
        plan, recorded = _plan_adoption(settings, migrations, session)
    if settings.baseline is not None and not recorded:
        plan, recorded = _plan_baseline(settings, migrations, session, plan)
    return plan, recorded


def not_recorded(recorded: Sequence[RecordedLine]) -> IncompleteError:
    """Return the error that says that what counts as applied has no rows yet."""
    return IncompleteError(
        f"{len(recorded)} migrations count as applied, and are not recorded",
        hint="The command migrate records them first; plan says why they count.",
    )


def _plan_adoption(
    settings: Settings, migrations: Sequence[Migration], session: Session
) -> tuple[Plan, tuple[RecordedLine, ...]]:
    """Plan as if the other tool's history had been taken over."""
    from migration_gate.commands.adopt import (
        find_adopted,
        make_lines,
        to_history,
    )

    _, adopted = find_adopted(settings, migrations, session)
    rows = [row for row, _ in to_history(settings, adopted)]
    return make_plan(migrations, rows), make_lines(adopted)


def _plan_baseline(
    settings: Settings, migrations: Sequence[Migration], session: Session, plan: Plan
) -> tuple[Plan, tuple[RecordedLine, ...]]:
    """Plan as if what GATE_BASELINE says had been recorded, where it holds."""
    from migration_gate.commands.baseline import (
        find_baseline,
        make_lines,
        to_history,
    )

    chosen = find_baseline(settings, migrations, session)
    if not chosen:
        return plan, ()
    rows = [row for row, _ in to_history(chosen)]
    return make_plan(migrations, rows), make_lines(chosen)
