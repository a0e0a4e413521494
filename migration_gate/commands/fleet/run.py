"""
The course of a fleet: canaries, then all others, then what came or was left meanwhile.
"""

from __future__ import annotations

import sys
import time

from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

from migration_gate.commands.fleet.away import AwayServers
from migration_gate.commands.fleet.crew import Crew
from migration_gate.commands.fleet.lines import fault
from migration_gate.commands.fleet.outcomes import (
    Outcome,
    Score,
    Step,
    to_error,
    work_at,
)
from migration_gate.commands.fleet.targets import (
    CONNECTIONS_EACH,
    Listing,
    Target,
    list_targets,
    to_target,
)
from migration_gate.connection.waits import Halt, halting
from migration_gate.report.events import (
    FLEET_EMPTY,
    FLEET_LOOKED,
    FLEET_POOLED,
    FLEET_PROGRESS,
    FLEET_STARTED,
    TARGET_GONE,
    Event,
)
from migration_gate.report.log import Log
from migration_gate.report.verdict import Tally
from migration_gate.settings.settings import Settings


LISTS_MAX: Final = 20
NAMES_SHOWN: Final = 5
# Of a target: two connections, and what it has open for a moment.
DESCRIPTORS_EACH: Final = 3
OTHER_DESCRIPTORS: Final = 32
# Any number of workers begins far from each other so, each knowing only its own index.
GOLDEN_RATIO: Final = 0.6180339887498949
NONE_LISTED: Final = (
    "Correct the query or the file; where there may be none yet, GATE_ALLOW_EMPTY=true."
)
INDEX_FIELD: Final = "job_completion_index"
UNDER_WAY: Final = (
    "Of each target that was under way, whole migrations are applied and nothing else."
)


class Glances:
    """Tells of targets that there is nothing to do, where that is plainly seen."""

    def find_done(
        self, _listing: Listing, _names: Sequence[str], /
    ) -> Collection[str] | None:
        """Return those of many of which it is; None where each is looked at alone."""
        return None

    def is_done(self, _target: Target, /) -> bool:
        """Return whether it is so of one; called by the thread that works at it."""
        return False


class Fleet:
    """
    One run over all targets of a list.

    A failing target stops no other one. Exit code 0 means that every target that was
    listed at the end has come to its own end well.
    """

    def __init__(
        self,
        settings: Settings,
        log: Log,
        tally: Tally,
        step: Step,
        glances: Glances,
    ) -> None:
        """
        Make ready for a run.

        Args:
            step: What is done for each target.
            glances: Tells which targets it has nothing to do for.
        """
        self.score = Score()
        self._glances = glances
        self._settings = settings
        self._log = log
        self._tally = tally
        self._step = step
        self._listing = Listing(())
        self._away = AwayServers()
        self._canaries: frozenset[str] = frozenset()
        self._reported_s = time.monotonic()
        # What a look over many has found done says nothing of how fast others are.
        self._found_count = 0
        self._work_began_s: float | None = None
        tally.fleet = self.score.fields

    @property
    def names(self) -> Sequence[str]:
        """Return the targets as they were listed last."""
        return self._listing.names

    def run(self) -> None:
        """
        Go over the whole fleet.

        1. List the targets.
        2. The canaries, alone; where one of them fails, no other target is begun.
        3. All others. One that another gate has is passed over.
        4. List again: what is new, or another one of its name by now, is done in the
           same way, and so is what was passed over or not begun.

        Raises:
            GateError: Not every target is up to date.
        """
        names = self._list()
        begins_at = _begins_at(self._settings, len(names))
        crew = Crew(
            at_once(self._settings, self._listing),
            self._work_at,
        )
        self._report_start(crew, names, begins_at)
        with halting(partial(self._halt, crew)):
            self._go_over(crew, names, begins_at)
            for _ in range(LISTS_MAX):
                left = self._list()
                if not left or not self._may_begin():
                    break
                self._go_over(crew, left, waits=True)
        error = to_error(self.score, self._why_left())
        if error is not None:
            raise error
        warnings = [*self._tally.warnings, *self.score.warnings]
        self._tally.warnings = list(dict.fromkeys(warnings))
        self._tally.outcome = (
            f"{self.score.describe()}, {self.score.applied_count} applied"
        )

    def _list(self) -> Sequence[str]:
        """List the targets, and return those that are neither done nor failed."""
        self._listing = list_targets(
            self._settings,
            self._log,
            self._tally,
            so_far=self.score.describe() if self.score.target_count else "",
        )
        names, score = self._listing.names, self.score
        require_some(names, self._settings, self._log, self._tally)
        if self._listing.home is not None and self._listing.home.keeps:
            _warn_once(FLEET_POOLED, self._log, self._tally)
        self._let_go(names)
        score.begin_anew(names, self._listing.identities)
        # One that is gone has shown nothing of its kind: the next one does it.
        canaries = self._canaries.difference(score.gone)
        others = [name for name in names if name not in canaries]
        more = max(0, self._settings.canaries - len(canaries))
        self._canaries = canaries.union(others[:more])
        score.target_count = len({*names, *score.done, *score.failed, *score.gone})
        return [n for n in names if n not in score.done and n not in score.failed]

    def _go_over(
        self,
        crew: Crew[Target],
        names: Sequence[str],
        begins_at: int = 0,
        *,
        waits: bool = False,
    ) -> None:
        canaries = [name for name in names if name in self._canaries]
        ordered = [*names[begins_at:], *names[:begins_at]]
        self._work(crew, canaries, waits=True)
        others = [name for name in ordered if name not in self._canaries]
        self._work(crew, others, waits=waits)

    def _report_start(
        self, crew: Crew[Target], names: Sequence[str], begins_at: int
    ) -> None:
        self._log.emit(
            FLEET_STARTED,
            target_count=len(names),
            at_once=crew.at_once,
            canary_count=len(self._canaries),
            begins_at=begins_at,
        )

    def _work(self, crew: Crew[Target], names: Sequence[str], *, waits: bool) -> None:
        if not names or not self._may_begin():
            return
        started_s, before = time.monotonic(), self.score.at_once_count
        done = self._glances.find_done(self._listing, names)
        for name in done or ():
            self.score.take(Outcome(name, "done", at_once=True))
        self._found_count += len(done or ())
        if done is not None:
            self._report_glances(len(names), before, started_s)
        left = [name for name in names if name not in self.score.done]
        self._work_began_s = self._work_began_s or time.monotonic()
        crew.run(
            [self._to_target(name, waits=waits) for name in left],
            self.score.take,
            may_begin=self._may_begin,
            every=partial(self._report, crew),
        )
        if done is None:
            self._report_glances(len(names), before, started_s)

    def _work_at(self, target: Target) -> Outcome:
        fitted = self._away.fit(target)
        # Where nothing answers, each attempt lasts as long as it may: no glance first.
        glances = self._glances if fitted is target else Glances()
        outcome = work_at(fitted, self._step, self._log, glances.is_done)
        self._away.note(target, outcome)
        return outcome

    def _report_glances(self, count: int, before: int, started_s: float) -> None:
        """Say how many of some targets had nothing to be done, if any had."""
        found = self.score.at_once_count - before
        if found:
            self._log.emit(
                FLEET_LOOKED,
                target_count=count,
                up_to_date_count=found,
                duration_ms=round((time.monotonic() - started_s) * 1000),
            )

    def _to_target(self, name: str, *, waits: bool) -> Target:
        target = to_target(self._settings, name, self._listing)
        settings = target.settings._replace(waits_for_turn=waits)
        return target._replace(settings=settings)

    def _may_begin(self) -> bool:
        failed = len(self.score.failed)
        allowed = self._settings.failures_max.allows(failed, self.score.target_count)
        return allowed and self._canaries.isdisjoint(self.score.failed)

    def _why_left(self) -> str:
        if not self._canaries.isdisjoint(self.score.failed):
            return "a canary failed, and no other target was begun"
        return "" if self._may_begin() else "more failed than GATE_FAILURES_MAX allows"

    def _let_go(self, listed: Sequence[str]) -> None:
        """Forget of a failure what is not listed any more: somebody has dropped it."""
        known = frozenset(listed)
        for name in [*self.score.failed, *self.score.passed_over]:
            if name not in known:
                outcome = self.score.failed.pop(name, None)
                self.score.passed_over.pop(name, None)
                self.score.gone[name] = None
                self._log.for_target(name).emit(
                    TARGET_GONE,
                    target=name,
                    error_message=str(outcome.error) if outcome else "",
                )

    def _halt(self, crew: Crew[Target]) -> Halt:
        running = list(crew.running)
        shown = ", ".join(running[:NAMES_SHOWN])
        more = len(running) - NAMES_SHOWN
        at = f"; at work: {shown}" if shown else ""
        at += f" and {more} more" if more > 0 else ""
        return Halt(f"{self.score.describe()}{at}", left=UNDER_WAY)

    def _report(self, crew: Crew[Target]) -> float:
        """Report how far the fleet is, when it is time to."""
        now, heartbeat_s = time.monotonic(), self._settings.heartbeat_s
        if now - self._reported_s >= heartbeat_s:
            self._reported_s = now
            self._log.emit(FLEET_PROGRESS, **self._progress(len(crew.running), now))
        return self._reported_s + heartbeat_s - now

    def _progress(self, running: int, now: float) -> dict[str, object]:
        """Return the fields of a report, and the sentence that tells them."""
        score = self.score
        done, failed = len(score.done), len(score.failed)
        left = max(0, score.left_count - running)
        minutes = (now - (self._work_began_s or now)) / 60
        worked_at = score.ended_count - self._found_count
        per_minute = worked_at / minutes if minutes else 0.0
        ends_at = _ends_at(score.left_count, per_minute)
        message = f"{done} done, {failed} failed, {running} running, {left} left, "
        message += f"{per_minute:.0f}/min"
        message += f", end {ends_at:%H:%M}" if ends_at else ""
        return {
            "message": message,
            "done_count": done,
            "failed_count": failed,
            "running_count": running,
            "left_count": left,
            "per_minute": round(per_minute),
            "ends_at": ends_at and ends_at.isoformat().replace("+00:00", "Z"),
        }


def at_once(settings: Settings, listing: Listing) -> int:
    """Return how many targets are worked at beside each other."""
    most = min(settings.targets_at_once, _descriptors() // DESCRIPTORS_EACH)
    if listing.room is not None:
        most = min(most, listing.room // CONNECTIONS_EACH)
    return max(1, most)


def _descriptors() -> int:
    """Return how many files and sockets the process may have open for targets."""
    try:
        import resource
    except ImportError:  # no such limit on this system
        return sys.maxsize
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    is_limited = limit != resource.RLIM_INFINITY
    return limit - OTHER_DESCRIPTORS if is_limited else sys.maxsize


def require_some(
    names: Sequence[str], settings: Settings, log: Log, tally: Tally
) -> None:
    """
    Refuse a list without a target, or warn of it where that is allowed.

    Raises:
        SettingsError: The list is empty, as one with a slip of the pen is.
    """
    if not names and not settings.allow_empty:
        raise fault("lists no target", NONE_LISTED)
    if not names:
        _warn_once(FLEET_EMPTY, log, tally)


def _warn_once(event: Event, log: Log, tally: Tally) -> None:
    if event.name not in tally.warnings:
        tally.warnings = [*tally.warnings, event.name]
        log.emit(event)


def _begins_at(settings: Settings, target_count: int) -> int:
    """Return where in the list this worker begins: at its start, where it is alone."""
    index = dict(settings.pod_fields).get(INDEX_FIELD, "0")
    if not index.isdecimal():
        return 0
    return int(int(index) * GOLDEN_RATIO % 1 * target_count)


def _ends_at(left: int, per_minute: float) -> datetime | None:
    if not per_minute:
        return None
    end = datetime.now(UTC) + timedelta(minutes=left / per_minute)
    return end.replace(microsecond=0)
