"""
Which command does what over a fleet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from migration_gate.commands.calls import Call, UsageError
from migration_gate.commands.fleet.looking import (
    check_fleet,
    show_fleet_plan,
    show_fleet_status,
)
from migration_gate.commands.fleet.migrate import migrate_fleet
from migration_gate.commands.fleet.recording import (
    adopt_fleet,
    baseline_fleet,
    roll_fleet_back,
)
from migration_gate.commands.fleet.targets import find_target
from migration_gate.report.log import Log
from migration_gate.report.verdict import Tally
from migration_gate.settings.settings import Settings


OVER_ALL: Final[dict[str, Callable[..., None]]] = {
    "migrate": migrate_fleet,
    "check": check_fleet,
    "status": show_fleet_status,
    "plan": show_fleet_plan,
    "adopt": adopt_fleet,
    "baseline": baseline_fleet,
    "rollback": roll_fleet_back,
}


def perform(call: Call, settings: Settings, log: Log, tally: Tally) -> None:
    """
    Perform a command for all targets, or for the one that GATE_TARGET names.

    Raises:
        UsageError: It is a command for one target at a time.
    """
    if settings.target is not None:
        target = find_target(settings, log, tally)
        call.command.load()(target.settings, log, tally, **call.options)
        return
    over_all = OVER_ALL.get(call.name)
    if over_all is None:
        raise UsageError(
            f"the command {call.name} is about one target at a time",
            hint="Name one of GATE_TARGETS in GATE_TARGET. Those for all of them are: "
            f"{', '.join(OVER_ALL)}.",
        )
    over_all(settings, log, tally, **call.options)
