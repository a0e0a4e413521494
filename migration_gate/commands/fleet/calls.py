"""
Which command does what over a fleet.
"""

from __future__ import annotations

from importlib import import_module
from typing import Final

from migration_gate.commands.calls import Call, UsageError
from migration_gate.commands.fleet.targets import find_target
from migration_gate.report.log import Log
from migration_gate.report.verdict import Tally
from migration_gate.settings.settings import Settings


# Each with the module of this room that is loaded for it, and its function.
OVER_ALL: Final = {
    "migrate": ("migrate", "migrate_fleet"),
    "check": ("looking", "check_fleet"),
    "status": ("looking", "show_fleet_status"),
    "plan": ("looking", "show_fleet_plan"),
    "adopt": ("recording", "adopt_fleet"),
    "baseline": ("recording", "baseline_fleet"),
    "rollback": ("recording", "roll_fleet_back"),
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
    if call.name not in OVER_ALL:
        raise UsageError(
            f"the command {call.name} is about one target at a time",
            hint="Name one of GATE_TARGETS in GATE_TARGET. Those for all of them are: "
            f"{', '.join(OVER_ALL)}.",
        )
    module, function = OVER_ALL[call.name]
    loaded = import_module(f"migration_gate.commands.fleet.{module}")
    getattr(loaded, function)(settings, log, tally, **call.options)
