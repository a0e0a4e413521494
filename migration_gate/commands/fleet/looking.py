"""
The commands check, status and plan over a fleet: they look, and write nothing.
"""

from __future__ import annotations

import json

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
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
from migration_gate.report.tables import table
from migration_gate.report.verdict import Tally
from migration_gate.settings.settings import HistoryTableName, Phase, Settings


STDOUT: Final = 1
NONE: Final = "(none)"
UNSEEN: Final = "?"
# What no wait changes.
NEVER: Final = frozenset({"history", "settings", "files", "internal"})

State = Literal["up to date", "behind", "refused"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetLine:
    """
    One target in the answer to status and plan.

    ``version`` is what was applied there last; ``pending`` is None where that is not
    known; ``reason`` why it is refused, why the last attempt at what is pending failed,
    or what is odd about its history; ``recorded`` what the next start records before it
    applies anything, or why it does not.
    """

    target: str
    state: State
    version: str | None
    pending: tuple[str, ...] | None
    reason: str | None
    recorded: tuple[RecordedLine, ...] = ()


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
        if error is not None and score.reasons <= NEVER:
            raise error
        if error is not None:
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
        write_line(STDOUT, to_json(lines) if as_json else _describe_status(lines))
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
        tables = [told, describe_plan(files), _describe_pending(lines)]
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


def to_json(lines: Sequence[TargetLine]) -> str:
    """Return the lines as a JSON array."""
    return json.dumps([asdict(line) for line in lines], ensure_ascii=False, indent=2)


def _describe_status(lines: Sequence[TargetLine]) -> str:
    """Return the tables that a person reads: of versions, then of who is behind."""
    counts = Counter((_newest(line), line.state) for line in lines)
    rows = [("TARGETS", "STATE", "LAST APPLIED")]
    rows += [
        (str(count), state, version)
        for (version, state), count in sorted(counts.items(), key=lambda item: -item[1])
    ]
    others = [("TARGET", "STATE", "LAST APPLIED", "PENDING", "WHY")]
    others += [
        (
            line.target,
            line.state,
            _newest(line),
            UNSEEN if line.pending is None else str(len(line.pending)),
            line.reason or "",
        )
        for line in lines
        if line.state != "up to date"
    ]
    odd: dict[str, list[str]] = {}
    for line in lines:
        if line.state == "up to date" and line.reason is not None:
            odd.setdefault(line.reason, []).append(line.target)
    look = [("TARGETS", "WORTH A LOOK", "FIRST OF THEM")]
    look += [(str(len(names)), reason, names[0]) for reason, names in odd.items()]
    more = [table(found) for found in (others, look) if found[1:]]
    return "\n\n".join([table(rows), *more])


def _newest(line: TargetLine) -> str:
    return UNSEEN if line.pending is None else line.version or NONE


def _describe_pending(lines: Sequence[TargetLine]) -> str:
    """Return the table that a person reads: which targets lack what."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for line in lines:
        pending = UNSEEN if line.pending is None else ", ".join(line.pending) or NONE
        refused = line.reason or "" if line.state == "refused" else ""
        recorded = "" if line.pending is None else str(len(line.recorded))
        alike.setdefault((recorded, pending, refused), []).append(line.target)
    width = 1 if any(line.recorded for line in lines) else 0
    rows = [("TARGETS", *["TO RECORD"][:width], "PENDING", "REFUSED", "FIRST OF THEM")]
    rows += [
        (str(len(targets)), *[recorded][:width], *said, targets[0])
        for (recorded, *said), targets in alike.items()
    ]
    return table(rows)
