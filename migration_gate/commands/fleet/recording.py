"""
The commands adopt, baseline and rollback over a fleet: each target by itself.
"""

from __future__ import annotations

import json

from contextlib import suppress
from functools import partial
from typing import Any

from migration_gate.commands.adopt import adopt
from migration_gate.commands.baseline import baseline
from migration_gate.commands.calls import UsageError
from migration_gate.commands.fleet.outcomes import Step
from migration_gate.commands.fleet.run import Fleet, Glances
from migration_gate.commands.recording import HasRowsError
from migration_gate.commands.rollback import rollback
from migration_gate.report.log import Log
from migration_gate.report.verdict import Tally
from migration_gate.settings.settings import Settings


def adopt_fleet(settings: Settings, log: Log, tally: Tally, **options: Any) -> None:  # noqa: ANN401  # the command's
    """
    Take over another tool's history in each target that has none of the gate's.

    Raises:
        GateError: It could not be, in one of them.
    """
    step = _unless_begun(partial(adopt, **options))
    _go_over(settings, log, tally, step, as_json=options["as_json"])


def baseline_fleet(settings: Settings, log: Log, tally: Tally, **options: Any) -> None:  # noqa: ANN401  # the command's
    """
    Record every migration up to one as applied, in each target without a history.

    Raises:
        GateError: It could not be, in one of them.
    """
    step = _unless_begun(partial(baseline, **options))
    _go_over(settings, log, tally, step, as_json=options["as_json"])


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
    step = partial(rollback, **options)
    starts = "" if options["is_dry_run"] else "the rollback"
    _go_over(settings, log, tally, step, as_json=options["as_json"], starts=starts)


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
    *,
    as_json: bool,
    starts: str = "the gate",
) -> None:
    fleet = Fleet(settings, log, tally, step, Glances())
    fleet.score.starts = starts
    try:
        fleet.run()
    finally:
        answers = fleet.score.answers
        if as_json:
            log.answer(json.dumps({n: json.loads(a[-1]) for n, a in answers.items()}))
        elif answers:
            log.answer("\n".join(f"{n}:\n{a[-1]}\n" for n, a in answers.items()))
