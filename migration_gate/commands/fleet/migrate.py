"""
The command migrate over a fleet.
"""

from __future__ import annotations

import threading

from collections.abc import Collection, Sequence

from migration_gate.commands.fleet.overview import Asked, Glancer, warn_of_targets
from migration_gate.commands.fleet.run import Fleet, Glances
from migration_gate.commands.fleet.targets import Listing, Target
from migration_gate.commands.migrate import apply_all
from migration_gate.commands.steps import load, require_agreed
from migration_gate.files.library import sharing_scripts
from migration_gate.files.migration import Migration
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

    glances = _Glances(settings, migrations, log, tally)
    try:
        with sharing_scripts():
            Fleet(settings, log, tally, step, glances).run()
    finally:
        glances.warn()


class _Glances(Glances):
    """Tells of targets that they have nothing pending, and are not to be refused."""

    def __init__(
        self,
        settings: Settings,
        migrations: Sequence[Migration],
        log: Log,
        tally: Tally,
    ) -> None:
        self._settings = settings
        self._migrations = migrations
        self._log = log
        self._tally = tally
        self._judged: dict[int, tuple[Plan, bool]] = {}
        self._done: dict[str, Plan] = {}
        self._judging = threading.Lock()
        self._glancer = self._new_glancer(Listing(()))

    def find_done(
        self, listing: Listing, names: Sequence[str], /
    ) -> Collection[str] | None:
        targets = self._settings.targets
        if targets is None or targets.kind != "schemas":
            return None
        self._glancer = self._new_glancer(listing)
        seen = self._glancer.look(names)
        done = {
            name: sight.plan
            for name, sight in seen.items()
            if sight.plan is not None and self._judge(sight.plan)
        }
        warn_of_targets(done.items(), self._log, self._tally)
        return done

    def is_done(self, target: Target, /) -> bool:
        if target.settings.history_table.is_target:
            return False
        sight = self._glancer.glance_at(target, keeps=True)
        if sight is None or sight.plan is None or not self._judge(sight.plan):
            return False
        self._done[target.name] = sight.plan
        return True

    def warn(self) -> None:
        """Warn of what is odd about those that were glanced at each by itself."""
        warn_of_targets(list(self._done.items()), self._log, self._tally)

    def _new_glancer(self, listing: Listing) -> Glancer:
        settings = self._settings
        return Glancer(
            Asked(settings, listing, self._migrations, self._log, settings.phase)
        )

    def _judge(self, plan: Plan) -> bool:
        """Judge a plan, which many targets have, once."""
        with self._judging:
            if id(plan) not in self._judged:
                self._judged[id(plan)] = plan, _is_done(plan, self._settings)
            return self._judged[id(plan)][1]


def _is_done(plan: Plan, settings: Settings) -> bool:
    try:
        require_agreed(plan, settings)
    except HistoryError:
        return False
    return not plan.pending and not plan.overdue
