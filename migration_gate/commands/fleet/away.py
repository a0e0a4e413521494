"""
Servers that a target of a fleet has waited for in vain.

What was not there for as long as a target may wait is not waited for by each of the
next ones again: they try once, and the first that is let in ends it.
"""

from __future__ import annotations

from typing import Final

from migration_gate.commands.fleet.outcomes import Outcome
from migration_gate.commands.fleet.targets import Target
from migration_gate.report.errors import DatabaseUnreachableError


# What tells servers apart, of what a line of a list says.
PLACE: Final = ("service", "host", "hostaddr", "port")

Place = tuple[str | None, ...]


class AwayServers:
    """Those that were away when somebody looked last; for threads beside each other."""

    def __init__(self) -> None:
        self._away: dict[Place, None] = {}

    def fit(self, target: Target) -> Target:
        """Let a target try once where its server is known to be away."""
        if _place(target) not in self._away:
            return target
        return target._replace(settings=target.settings._replace(wait_timeout_s=0.0))

    def note(self, target: Target, outcome: Outcome) -> None:
        """Note what came of a target, as far as it tells of its server."""
        error = outcome.error
        if isinstance(error, DatabaseUnreachableError) and error.is_server_away:
            self._away[_place(target)] = None
        elif outcome.state != "stopped":
            self._away.pop(_place(target), None)


def _place(target: Target) -> Place:
    said = dict(target.settings.database.instead)
    return tuple(map(said.get, PLACE))
