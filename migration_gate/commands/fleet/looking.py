"""
The commands check, status and plan over a fleet: they look, and write nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal

from migration_gate.commands.answers import (
    RecordedLine,
    describe_plan,
    describe_recorded,
)
from migration_gate.commands.fleet.groups import describe_groups
from migration_gate.commands.fleet.outcomes import Outcome, Score, to_error
from migration_gate.commands.fleet.overview import (
    Asked,
    Overview,
    Sight,
    warn_of_targets,
)
from migration_gate.commands.fleet.run import LISTS_MAX, require_some
from migration_gate.commands.fleet.target_lines import (
    State,
    TargetLine,
    describe_missing,
    describe_status,
    to_json,
)
from migration_gate.commands.fleet.targets import list_targets
from migration_gate.commands.last_failure import incomplete
from migration_gate.commands.status import describe_pending, make_heading
from migration_gate.commands.steps import (
    find_disagreements,
    load,
    new_patience,
    require_agreed,
    wait_for_variables,
)
from migration_gate.connection.causes import INCOMPLETE
from migration_gate.connection.not_ready import NotReadyError
from migration_gate.connection.wait import wait_for
from migration_gate.files.migration import Migration
from migration_gate.planning.adoption import DoubtError
from migration_gate.planning.phases import asked_of, require_first_phase
from migration_gate.planning.plan import Plan
from migration_gate.report.errors import GateError, MigrationFilesError
from migration_gate.report.log import Log, write_line
from migration_gate.report.verdict import Tally
from migration_gate.settings.settings import HistoryTableName, Phase, Settings


STDOUT: Final = 1
# What no wait changes.
NEVER: Final = frozenset({"history", "settings", "files", "internal"})


def check_fleet(settings: Settings, log: Log, tally: Tally) -> None:
    """
    Wait until every migration shipped here is applied in every target. Reads only.

    Raises:
        GateError: Not within GATE_WAIT_TIMEOUT.
    """
    migrations = load(settings, log, "check")
    patience = new_patience(settings, log, settings.wait_timeout_s)
    score = Score(starts="")
    tally.fleet = score.fields

    def look() -> None:
        left_s = max(0.0, patience.timeout_s - patience.waited_s)
        home = settings._replace(wait_timeout_s=left_s)
        _look_for_all(home, migrations, log, tally, score)

    try:
        wait_for(look, patience)
    finally:
        tally.waited_s += patience.waited_s
    tally.outcome = f"{score.describe()}, {len(migrations)} shipped here"


def _look_for_all(
    settings: Settings,
    migrations: Sequence[Migration],
    log: Log,
    tally: Tally,
    score: Score,
) -> None:
    """
    Look once at each target that is not known to be done, those that are new included.

    Raises:
        NotReadyError: Something is missing that may still come.
        GateError: Something is wrong that no wait changes.
    """
    once = settings._replace(wait_timeout_s=0.0, auth_grace_s=0.0)
    for _ in range(LISTS_MAX):
        listing = list_targets(settings, log, tally)
        require_some(listing.names, settings, log, tally)
        score.target_count = len(listing.names)
        score.begin_anew(listing.names, listing.identities)
        score.keep_only(listing.names)
        left = [name for name in listing.names if name not in score.done]
        if not left:
            break
        overview = Overview(
            Asked(once, listing, migrations, log, asked_of(settings.phase))
        )
        seen = overview.look(left)
        sights = {name: seen[name] for name in left if name in seen}
        _note(sights, score, log, tally)
        error = to_error(score)
        if error is None:
            continue
        if score.reasons <= NEVER:
            # What is not there may have been dropped since it was listed.
            listed = frozenset(list_targets(settings, log, tally).names)
            if listed.issuperset(score.failed):
                raise error
        raise NotReadyError(INCOMPLETE, str(error), error)


def _note(sights: Mapping[str, Sight], score: Score, log: Log, tally: Tally) -> None:
    plans: dict[str, Plan] = {}
    for name, sight in sights.items():
        error = sight.error
        if sight.plan is not None and sight.plan.pending:
            error = error or incomplete(sight.plan.pending)
        elif sight.plan is not None:
            plans[name] = sight.plan
        state: Literal["done", "failed"] = "failed" if error else "done"
        score.take(Outcome(name, state, error))
    warn_of_targets(plans.items(), log, tally)


def show_fleet_status(
    settings: Settings, log: Log, tally: Tally, *, as_json: bool, as_html: bool
) -> None:
    """
    Print how many targets are at which version, and who is behind and why.

    Raises:
        GateError: A target is behind, or is refused.
    """
    _, sights = _look_once(settings, log, tally, "status", asked_of(settings.phase))
    lines = [_to_line(name, sight, settings) for name, sight in sights.items()]
    _warn(sights, lines, log, tally)
    score = _count(sights, lines, settings, tally)
    if as_html:
        write_line(STDOUT, _to_page(settings, score, lines))
    else:
        write_line(STDOUT, to_json(lines) if as_json else describe_status(lines))
    _close(score, tally)


def show_fleet_plan(
    settings: Settings, log: Log, tally: Tally, *, as_json: bool
) -> None:
    """
    Print what migrate would do, and in which targets, and what it would refuse.

    Raises:
        MigrationFilesError: It would refuse a file.
        GateError: It would refuse a target.
    """
    _, sights = _look_once(settings, log, tally, "plan", settings.phase)
    lines = [_to_line(name, sight, settings) for name, sight in sights.items()]
    _warn(sights, lines, log, tally)
    pending = {
        migration.version: migration
        for sight in sights.values()
        if sight.plan is not None
        for migration in sight.plan.pending
    }
    variables = wait_for_variables(settings._replace(auth_grace_s=0), log)
    files, errors = describe_pending(
        sorted(pending.values(), key=lambda migration: migration.order),
        settings,
        HistoryTableName(None, settings.history_table.table),
        variables,
    )
    if as_json:
        write_line(STDOUT, to_json(lines))
    else:
        recorded = {line.target: line.recorded for line in lines}
        told = describe_groups(recorded, describe_recorded)
        tables = [told, describe_plan(files), describe_missing(lines)]
        write_line(STDOUT, "\n\n".join(filter(None, tables)))
    faults = [fault for error in errors for fault in error.faults]
    if faults:
        raise MigrationFilesError(faults)
    if any(line.state == "refused" for line in lines):
        others = [line for line in lines if line.state != "behind"]
        _close(_count(sights, others, settings, tally), tally)
    behind = sum(line.state == "behind" for line in lines)
    tally.outcome = (
        f"{len(pending)} pending in {behind} of {len(lines)} targets, nothing was "
        "applied"
    )


def _look_once(
    settings: Settings, log: Log, tally: Tally, command: str, phase: Phase
) -> tuple[Sequence[Migration], Mapping[str, Sight]]:
    migrations = load(settings, log, command)
    once = settings._replace(wait_timeout_s=0.0, auth_grace_s=0.0)
    listing = list_targets(once, log, tally)
    require_some(listing.names, settings, log, tally)
    overview = Overview(Asked(once, listing, migrations, log, phase))
    seen = overview.look(listing.names, explains=True)
    return migrations, {name: seen[name] for name in listing.names if name in seen}


def _to_line(name: str, sight: Sight, settings: Settings) -> TargetLine:
    error, plan = sight.error, sight.plan
    pending = None if plan is None else tuple(m.version for m in plan.pending)
    refusal = _refusal(plan, settings) if plan is not None else error
    state: State = "behind" if pending or sight.recorded else "up to date"
    if refusal is not None:
        state, error = "refused", refusal
    reason = None if error is None else str(error)
    if error is None and plan is not None:
        reason = "; ".join(_tell_disagreements(plan)) or None
    return TargetLine(
        target=name,
        state=state,
        version=sight.newest,
        pending=pending,
        reason=reason,
        recorded=_find_recorded(sight),
    )


def _tell_disagreements(plan: Plan) -> Iterator[str]:
    """Say what the log warns of, as it stands after other words."""
    for event, versions in find_disagreements(plan).items():
        said = event.message.format(versions=", ".join(versions))
        yield f"{said[0].lower()}{said[1:]}"


def _warn(
    sights: Mapping[str, Sight], lines: Sequence[TargetLine], log: Log, tally: Tally
) -> None:
    """Warn of what is odd about targets, but of those whose refusal says it."""
    seen = [(line, sights[line.target].plan) for line in lines]
    plans = [(line.target, p) for line, p in seen if p and line.state != "refused"]
    warn_of_targets(plans, log, tally)


def _find_recorded(sight: Sight) -> tuple[RecordedLine, ...]:
    if not isinstance(sight.error, DoubtError):
        return sight.recorded
    from migration_gate.commands.adopt import make_doubtful_lines

    return make_doubtful_lines(sight.error)


def _refusal(plan: Plan, settings: Settings) -> GateError | None:
    """Return why migrate would refuse a target; None where it would not."""
    try:
        require_agreed(plan, settings)
        require_first_phase(plan)
    except GateError as error:
        return error
    return None


def _count(
    sights: Mapping[str, Sight],
    lines: Sequence[TargetLine],
    settings: Settings,
    tally: Tally,
) -> Score:
    """
    Return how many targets are up to date, and why the others are not.

    Those that have no line are left.
    """
    score = Score(starts="")
    score.target_count = len(sights)
    tally.fleet = score.fields
    for line in lines:
        if line.state == "up to date":
            score.take(Outcome(line.target, "done"))
            continue
        sight = sights[line.target]
        error = sight.error
        if sight.plan is not None:
            error = _refusal(sight.plan, settings) or error
            error = error or incomplete(sight.plan.pending)
        score.take(Outcome(line.target, "failed", error))
    return score


def _close(score: Score, tally: Tally) -> None:
    """Raise what says how many targets are not up to date."""
    error = to_error(score)
    if error is not None:
        raise error
    tally.outcome = score.describe()


def _to_page(settings: Settings, score: Score, lines: Sequence[TargetLine]) -> str:
    from migration_gate.commands.fleet.board import to_board

    error = to_error(score)
    outcome = score.describe()
    return to_board(make_heading(settings, outcome, error, server_version=""), lines)
