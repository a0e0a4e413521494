"""
The command migrate over a fleet.
"""

from __future__ import annotations

from migration_gate.commands.fleet.run import Fleet
from migration_gate.commands.migrate import apply_all
from migration_gate.commands.steps import load
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

    Fleet(settings, log, tally, step).run()
