"""
What came of each target of a fleet, and the verdict over all of them.
"""

from __future__ import annotations

import random
import re
import time

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from migration_gate.commands.calls import UsageError
from migration_gate.commands.fleet.hints import name_target, start_again
from migration_gate.commands.main import error_of, judge, report_wait
from migration_gate.connection.spares import drop_spares
from migration_gate.connection.waits import (
    Stopped,
    pause,
    report_waits,
    wish_to_stop,
)
from migration_gate.planning.naming import NotNamedError
from migration_gate.report.errors import GateError, SettingsError
from migration_gate.report.events import (
    TARGET_CLOSED,
    TARGET_OPENED,
    TARGET_PASSED_OVER,
)
from migration_gate.report.log import Log
from migration_gate.report.outcomes import NoRoomError, TurnTakenError
from migration_gate.report.verdict import Tally
from migration_gate.settings.settings import Settings


if TYPE_CHECKING:
    from migration_gate.commands.fleet.targets import Target

NO_ROOM_PAUSES_S: Final = (0.1, 0.8)
# What was given is wrong, and would be so again.
GIVEN_WRONGLY: Final = (NotNamedError, SettingsError, UsageError)

# What the words of one cause differ in: when it was, and how often it was tried.
DIFFERING: Final = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z|\d+ attempts? in \d+ s")

Step = Callable[[Settings, Log, Tally], None]
State = Literal["done", "failed", "passed over", "stopped"]


class Outcome(NamedTuple):
    """
    What came of one target; ``error`` says why it failed, and is None otherwise.

    ``applied`` are the versions that this run has applied there, and ``undone`` those
    that it has undone; ``answers`` is what the command has to say of it. ``at_once``
    tells that a glance showed that there was nothing to do.
    """

    name: str
    state: State
    error: GateError | None = None
    applied: tuple[str, ...] = ()
    undone: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    at_once: bool = False


def work_at(
    target: Target, step: Step, log: Log, is_done: Callable[[Target], bool]
) -> Outcome:
    """
    Perform a step for one target, in a thread that does nothing else meanwhile.

    Returns what came of it, whatever that is: one target's trouble is its own.

    Args:
        is_done: Tells at a glance that there is nothing to do.
    """
    tally, answers = Tally(), list[str]()
    own_log = log.for_target(target.name, answers)
    started_s = time.monotonic()
    error: GateError | None = None
    report_waits(partial(report_wait, own_log), target.settings.heartbeat_s)
    try:
        if is_done(target):
            return Outcome(target.name, "done", at_once=True)
        _perform(step, target.settings, own_log, tally)
    except TurnTakenError:
        own_log.emit(TARGET_PASSED_OVER, target=target.name)
        return Outcome(target.name, "passed over", applied=tuple(tally.applied))
    except Stopped as stop:
        return _to_outcome(target, "stopped", stop.error, tally, answers)
    except GateError as closing_error:
        error = closing_error
    except Exception as failure:  # noqa: BLE001  # a verdict for every end
        # Cleaning up after a stop may have failed in its own way.
        wish = wish_to_stop()
        if wish is not None:
            return _to_outcome(target, "stopped", wish, tally, answers)
        error = error_of(failure, own_log)
    verdict = judge(error, tally, started_s, own_log)
    event = TARGET_OPENED if verdict.is_open else TARGET_CLOSED
    fields = dict(verdict.fields)
    if "hint" in fields:
        fields["hint"] = name_target(fields["hint"], target.name)
    own_log.emit(event, target=target.name, message=verdict.message, **fields)
    return _to_outcome(
        target, "done" if verdict.is_open else "failed", error, tally, answers
    )


def _perform(step: Step, settings: Settings, log: Log, tally: Tally) -> None:
    """
    Perform a step, and let others have room for it where the server has too little.

    Targets that each wait for a second connection would wait for each other.
    """
    until_s = time.monotonic() + settings.wait_timeout_s
    giving = settings._replace(gives_room=True)
    while time.monotonic() < until_s:
        try:
            return step(giving, log, tally)
        except NoRoomError:
            drop_spares()  # the one that it has is among them
            pause(random.uniform(*NO_ROOM_PAUSES_S))  # noqa: S311  # not a secret
    return step(settings._replace(wait_timeout_s=0.0), log, tally)  # it has waited


def _to_outcome(
    target: Target,
    state: State,
    error: GateError | None,
    tally: Tally,
    answers: Sequence[str],
) -> Outcome:
    return Outcome(
        name=target.name,
        state=state,
        error=error,
        applied=tuple(tally.applied),
        undone=tuple(tally.undone or ()),
        answers=tuple(answers),
        warnings=tuple(tally.warnings),
    )


class FleetError(GateError):
    """Not every target is up to date; ``reason`` and place are the first failure's."""

    def __init__(self, message: str, first: GateError | None, *, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.first = first
        if first is not None:
            self.reason = first.reason  # type: ignore[misc]  # each instance has its own

    def fields(self) -> dict[str, object]:
        """Return the place of the first failure."""
        if self.first is None:
            return super().fields()
        return {**self.first.fields(), "error_message": self.message}


class Score:
    """
    How far a fleet is: each target's last outcome, in the order of their ends.

    ``starts`` is what does the rest when it is started again; empty where nothing does.
    """

    def __init__(self, starts: str = "the gate") -> None:
        self.starts = starts
        self.target_count = 0
        self.done: dict[str, None] = {}
        self.failed: dict[str, Outcome] = {}
        self.passed_over: dict[str, None] = {}
        self.gone: dict[str, None] = {}
        self.stopped: dict[str, None] = {}
        self.applied: dict[str, None] = {}
        self.applied_count = 0
        self.at_once_count = 0
        self.undone: dict[str, None] = {}
        self.undone_count = 0
        self.warnings: dict[str, None] = {}
        self.answers: dict[str, tuple[str, ...]] = {}
        self._identities: dict[str, int | None] = {}

    @property
    def ended_count(self) -> int:
        """Return how many targets are done, or have failed."""
        return len(self.done) + len(self.failed)

    @property
    def left_count(self) -> int:
        """Return how many targets are neither done nor failed, nor gone."""
        return self.target_count - self.ended_count - len(self.gone)

    @property
    def reasons(self) -> frozenset[str]:
        """Return why targets failed."""
        errors = [outcome.error for outcome in list(self.failed.values())]
        return frozenset(error.reason for error in errors if error is not None)

    def take(self, outcome: Outcome) -> None:
        """Note what came of a target; what was noted of it before is out of date."""
        for noted in (self.failed, self.passed_over, self.stopped):
            noted.pop(outcome.name, None)
        if outcome.state == "failed":
            self.failed[outcome.name] = outcome
        else:
            by_state = {
                "done": self.done,
                "passed over": self.passed_over,
                "stopped": self.stopped,
            }
            by_state[outcome.state][outcome.name] = None
        self.applied.update(dict.fromkeys(outcome.applied))
        self.applied_count += len(outcome.applied)
        self.at_once_count += outcome.at_once
        self.undone.update(dict.fromkeys(outcome.undone))
        self.undone_count += len(outcome.undone)
        self.warnings.update(dict.fromkeys(outcome.warnings))
        if outcome.answers:
            self.answers[outcome.name] = outcome.answers

    def begin_anew(
        self, names: Iterable[str], identities: Mapping[str, int | None]
    ) -> None:
        """
        Forget what came of targets that are listed again, or are others now.

        Args:
            names: All that are listed.
            identities: What tells a target from another one of its name, where known.
        """
        for name in names:
            identity = identities.get(name)
            is_another = self._identities.get(name, identity) != identity
            if is_another or name in self.gone:
                self.forget(name)
        self._identities.update(identities)

    def keep_only(self, names: Iterable[str]) -> None:
        """Forget all others: they are not listed any more."""
        for name in {*self.done, *self.failed}.difference(names):
            self.forget(name)

    def forget(self, name: str) -> None:
        """Let a target be one that was never begun."""
        for noted in (self.done, self.failed, self.passed_over, self.gone):
            noted.pop(name, None)

    def fields(self) -> dict[str, Any]:
        """Return what the verdict says of the fleet."""
        return {
            "applied": list(self.applied),
            "applied_count": self.applied_count,
            **self._undone(),
            "target_count": self.target_count,
            "done_count": len(self.done),
            "failed_count": len(self.failed),
            "left_count": self.left_count,
            "gone_count": len(self.gone),
            "failed": [_name_place(outcome) for outcome in list(self.failed.values())],
        }

    def _undone(self) -> dict[str, object]:
        if not self.undone_count:
            return {}
        return {"undone": list(self.undone), "undone_count": self.undone_count}

    def describe(self) -> str:
        """Say in a sentence's part how far the fleet is."""
        said = [f"{len(self.done)} of {self.target_count} targets done"]
        counts = {"failed": len(self.failed), "left": self.left_count}
        said += [f"{count} {what}" for what, count in counts.items() if count]
        if self.gone:
            said.append(f"{len(self.gone)} not listed any more")
        return ", ".join(said)


def to_error(score: Score, why_left: str = "") -> FleetError | None:
    """
    Return what closes the gate; None where every target is up to date.

    Args:
        why_left: Why targets were not begun, where there are any.
    """
    first = next(iter(score.failed.values()), None)
    if first is None and not score.left_count:
        return None
    message, hint = score.describe(), ""
    if why_left and score.left_count:
        message += f" ({why_left})"
    error = None if first is None else first.error
    if first is not None and error is not None:
        alike = sum(_why(each) == _why(first) for each in score.failed.values()) - 1
        others = f", and {alike} alike" if alike else ""
        message += f"; first {first.name}{others}: {error}"
        hint = name_target(error.hint, first.name)
    if score.starts and not isinstance(error, GIVEN_WRONGLY):
        hint = start_again(hint, score.starts)
    return FleetError(message, error, hint=hint)


def _why(outcome: Outcome) -> tuple[object, ...]:
    """Return what failures of one cause have in common: a place, or all the words."""
    error = outcome.error
    if error is None:
        return ()
    fields = error.fields()
    place = tuple(fields.get(name) for name in ("file", "line", "column"))
    words = DIFFERING.sub("", error.message)
    said = fields.get("sqlstate") if place[0] else words
    return error.reason, *place, said


def _name_place(outcome: Outcome) -> str:
    """Name a target that failed, with the place that it failed at, as far as known."""
    error = outcome.error
    if error is None:
        return outcome.name
    fields = error.fields()
    place = ":".join(
        str(fields[name]) for name in ("file", "line", "column") if fields.get(name)
    )
    why = fields.get("sqlstate") or error.reason
    return f"{outcome.name}: {place} ({why})" if place else f"{outcome.name}: {why}"
