"""
The commands adopt, baseline and rollback over a fleet: each target by itself.
"""

from __future__ import annotations

import json

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from typing import Any, Final, NamedTuple

from migration_gate.commands.adopt import adopt
from migration_gate.commands.answers import (
    AdoptedLine,
    BaselineLine,
    UndoLine,
    describe_adopted,
    describe_baseline,
    describe_undoing,
)
from migration_gate.commands.baseline import baseline
from migration_gate.commands.calls import UsageError
from migration_gate.commands.fleet.groups import describe_groups
from migration_gate.commands.fleet.outcomes import Step
from migration_gate.commands.fleet.run import Fleet, Glances
from migration_gate.commands.recording import HasRowsError
from migration_gate.commands.rollback import rollback
from migration_gate.report.log import Log
from migration_gate.report.verdict import Tally
from migration_gate.settings.settings import Settings


# So each target answers, whatever is printed: what is alike is found by it.
AS_JSON: Final = {"as_json": True}


class _Telling(NamedTuple):
    """
    How it is told what came of a command.

    ``line`` is what one target's answer is made of, ``describe`` makes a table of such,
    and ``outcome`` goes after how many there are in all. ``starts`` is what does the
    rest when it is started again.
    """

    line: Callable[..., Any]
    describe: Callable[[Sequence[Any]], str]
    outcome: str
    starts: str = "the gate"


ADOPTED: Final = _Telling(
    AdoptedLine, describe_adopted, "taken over, nothing was applied"
)
RECORDED: Final = _Telling(
    BaselineLine, describe_baseline, "recorded as applied, nothing was applied"
)
UNDONE: Final = _Telling(
    UndoLine, partial(describe_undoing, is_done=True), "undone", "the rollback"
)
TO_UNDO: Final = _Telling(
    UndoLine,
    partial(describe_undoing, is_done=False),
    "to undo, nothing was undone",
    starts="",
)


def adopt_fleet(settings: Settings, log: Log, tally: Tally, **options: Any) -> None:  # noqa: ANN401  # the command's
    """
    Take over another tool's history in each target that has none of the gate's.

    Raises:
        GateError: It could not be, in one of them.
    """
    step = _unless_begun(partial(adopt, **options | AS_JSON))
    _go_over(settings, log, tally, step, ADOPTED, as_json=options["as_json"])


def baseline_fleet(settings: Settings, log: Log, tally: Tally, **options: Any) -> None:  # noqa: ANN401  # the command's
    """
    Record every migration up to one as applied, in each target without a history.

    Raises:
        GateError: It could not be, in one of them.
    """
    step = _unless_begun(partial(baseline, **options | AS_JSON))
    _go_over(settings, log, tally, step, RECORDED, as_json=options["as_json"])


def roll_fleet_back(settings: Settings, log: Log, tally: Tally, **options: Any) -> None:  # noqa: ANN401  # the command's
    """
    Undo in each target all that was applied after one migration.

    Raises:
        UsageError: That one is not named: a second start would undo more than a first.
        GateError: It could not be, in one of them.
    """
    if options["to"] is None:
        raise UsageError(
            "the rollback of a fleet has to name where it ends",
            hint="Give the version that stays as the newest: rollback --to VERSION. So "
            "a second start undoes only what is left.",
        )
    telling = TO_UNDO if options["is_dry_run"] else UNDONE
    step = partial(rollback, **options | AS_JSON)
    _go_over(settings, log, tally, step, telling, as_json=options["as_json"])


def _unless_begun(step: Step) -> Step:
    """Let what an earlier start has recorded be no failure of this one."""

    def perform(settings: Settings, log: Log, tally: Tally) -> None:
        with suppress(HasRowsError):
            step(settings, log, tally)
            return
        tally.outcome = "it has a history already"

    return perform


def _go_over(  # noqa: PLR0913  # how it is told, by name
    settings: Settings,
    log: Log,
    tally: Tally,
    step: Step,
    telling: _Telling,
    *,
    as_json: bool,
) -> None:
    fleet = Fleet(settings, log, tally, step, Glances())
    fleet.score.starts = telling.starts
    try:
        fleet.run()
    finally:
        told = _to_lines(fleet, telling)
        if told and as_json:
            rows = {name: [*map(asdict, lines)] for name, lines in told.items()}
            log.answer(json.dumps(rows, ensure_ascii=False, indent=2))
        elif told:
            log.answer(describe_groups(told, telling.describe))
    count = sum(map(len, told.values()))
    tally.outcome = f"{fleet.score.describe()}, {count} {telling.outcome}"


def _to_lines(fleet: Fleet, telling: _Telling) -> dict[str, list[Any]]:
    """Return what the targets in which something was done answered, as listed."""
    answers = fleet.score.answers
    names = dict.fromkeys([*fleet.names, *answers])
    lines = {n: json.loads(answers[n][-1]) for n in names if n in answers}
    return {n: [telling.line(**each) for each in lines[n]] for n in lines if lines[n]}
