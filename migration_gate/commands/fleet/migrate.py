"""
The command migrate over a fleet.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from migration_gate.commands.fleet.overview import Asked, Glancer, Sight
from migration_gate.commands.fleet.run import Fleet
from migration_gate.commands.fleet.targets import Listing
from migration_gate.commands.migrate import apply_all
from migration_gate.commands.steps import load, log_disagreements, require_agreed
from migration_gate.planning.plan import Plan
from migration_gate.report.errors import HistoryError
from migration_gate.report.log import Log
from migration_gate.report.verdict import Tally
from migration_gate.settings.settings import Settings


def migrate_fleet(settings: Settings, log: Log, tally: Tally) -> None:
    """
    Bring every target to what is shipped here.

    Raises:
        GateError: Not every one is.
    """
    migrations = load(settings, log, "migrate")

    def step(settings: Settings, log: Log, tally: Tally) -> None:
        apply_all(settings, migrations, log, tally)

    def find_done(listing: Listing, names: Sequence[str]) -> Collection[str]:
        asked = Asked(settings, listing, migrations, log, settings.phase)
        return _find_done(Glancer(asked).look(names), settings, log, tally)

    Fleet(settings, log, tally, step, find_done).run()


def _find_done(
    seen: Mapping[str, Sight], settings: Settings, log: Log, tally: Tally
) -> Collection[str]:
    """Return the targets that have nothing pending, and no reason to be refused."""
    judged: dict[int, bool] = {}
    done = []
    for name, (plan, *_) in seen.items():
        if plan is None:
            continue
        if id(plan) not in judged:
            judged[id(plan)] = _is_done(plan, settings)
            if judged[id(plan)]:
                own = Tally()
                log_disagreements(plan, log, own)
                tally.warnings = list(dict.fromkeys([*tally.warnings, *own.warnings]))
        if judged[id(plan)]:
            done.append(name)
    return done


def _is_done(plan: Plan, settings: Settings) -> bool:
    try:
        require_agreed(plan, settings)
    except HistoryError:
        return False
    return not plan.pending and not plan.overdue
