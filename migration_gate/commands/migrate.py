"""
The main path: from settings to an open gate.

Knows every step and does none of them itself. What a start with nothing pending does
not need is imported where it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Final

from migration_gate.commands.steps import (
    agree,
    load,
    log_plan,
    plan_for,
    require_kept,
    wait_for_history,
)
from migration_gate.files.migration import Migration
from migration_gate.history.creation import HistoryMadeError
from migration_gate.planning.phases import asked_of, in_phase
from migration_gate.report.errors import (
    DatabaseUnreachableError,
    GateError,
    HistoryError,
)
from migration_gate.report.events import DATABASE_STANDBY
from migration_gate.report.log import Log
from migration_gate.report.outcomes import (
    AlreadyAppliedError,
    ConnectionLostError,
    DefaultsChangedError,
    PathLeftError,
    RefusedForNowError,
)
from migration_gate.report.verdict import Tally
from migration_gate.session.session import Session
from migration_gate.settings.settings import Settings


if TYPE_CHECKING:
    from migration_gate.commands.apply import ApplySteps

LOSSES_MAX: Final = 3
STARTS_ANEW: Final = (
    ConnectionLostError,
    RefusedForNowError,
    AlreadyAppliedError,
    DefaultsChangedError,
    PathLeftError,
)


def migrate(settings: Settings, log: Log, tally: Tally) -> None:
    """
    Bring the database to what is shipped here, or raise.

    1. Read the folder: names and checksums.
    2. Wait for a database that can be written, and look at its history. Where
       GATE_STANDBY is check, a hot standby that has every migration ends it here.
       Where GATE_ADOPT names a tool, its history is taken over first, under the lock;
       else what GATE_BASELINE says is recorded.
    3. Plan; nothing pending: done, and no lock was taken.
    4. Take the lock; look and plan again.
    5. Read and split every pending file.
    6. Make the history table ours.
    7. Apply each pending migration with its history row.

    A lost connection goes back to step 2: what was committed is in the history. So
    does a migration that changed the defaults of the role or the database: the next one
    begins in a session that has them, as it would in a release of its own.

    Raises:
        GateError: The gate stays closed.
    """
    apply_all(settings, load(settings, log, "migrate"), log, tally)


def apply_all(
    settings: Settings,
    migrations: Sequence[Migration],
    log: Log,
    tally: Tally,
    apply_steps: ApplySteps | None = None,
) -> None:
    """
    Go through steps 2 to 7 of ``migrate`` until all is done; raises what it does.

    Args:
        apply_steps: How steps are applied, where it is not as ever.
    """
    losses = 0
    while True:
        applied_before = len(tally.applied)
        try:
            bring_up_to_date(settings, migrations, log, tally, apply_steps)
        except STARTS_ANEW as error:
            if isinstance(error, PathLeftError):
                settings = settings._replace(shares_sessions=False)
            losses = 1 if len(tally.applied) > applied_before else losses + 1
            if losses > LOSSES_MAX:
                raise _in_vain(error, tally) from error
        else:
            return


def bring_up_to_date(
    settings: Settings,
    migrations: Sequence[Migration],
    log: Log,
    tally: Tally,
    apply_steps: ApplySteps | None = None,
) -> None:
    """
    Go once through steps 2 to 7 of ``migrate``.

    Raises:
        GateError: The gate stays closed.
        ConnectionLostError: The last migration sent may or may not be applied.
        AlreadyAppliedError: The history has a row that it did not have under the lock.
        DefaultsChangedError: What is left belongs in a session with the new defaults.
        PathLeftError: It belongs in one that begins with the target's search path.
    """
    use_standby = _check_standby(migrations) if settings.standby == "check" else None
    with closing(
        wait_for_history(
            settings,
            migrations,
            log,
            tally,
            use_standby=use_standby,
            locks=_goes_straight(settings),
            creates=True,
        )
    ) as session:
        if session.seen.is_standby:
            log.emit(DATABASE_STANDBY)
            plan = in_phase(plan_for(migrations, session), asked_of(settings.phase))
            log_plan(plan, log, tally)
            return None
        require_kept(session, tally)
        if settings.adopt.tool is not None and not session.seen.history:
            from migration_gate.commands.adopt import take_over

            if take_over(settings, migrations, session, log, tally) is not None:
                return bring_up_to_date(settings, migrations, log, tally, apply_steps)
        if settings.baseline is not None and not session.seen.history:
            from migration_gate.commands.baseline import take_baseline

            if take_baseline(settings, migrations, session, log, tally):
                return bring_up_to_date(settings, migrations, log, tally, apply_steps)
        plan = agree(settings, migrations, session, is_last=False)
        if tally.in_doubt:
            from migration_gate.applying.settlement import settle_doubts

            settle_doubts(plan.applied, session.seen.history, tally, log)
        log_plan(plan, log, tally)
        if plan.pending:
            from migration_gate.commands.apply import take_turn_and_apply

            take_turn_and_apply(settings, migrations, session, log, tally, apply_steps)
    return None


def _goes_straight(settings: Settings) -> bool:
    """Tell whether a target that is begun takes the lock, with nothing before it."""
    waits = settings.variables or settings.standby == "check"
    records = settings.adopt.tool is not None or settings.baseline is not None
    return settings.gives_room and not waits and not records


def _check_standby(migrations: Sequence[Migration]) -> Callable[[Session], object]:
    from migration_gate.commands.check import require_applied

    return lambda session: require_applied(session, migrations)


def _in_vain(error: Exception, tally: Tally) -> GateError:
    """Say what kept the run from going on, however often it began anew."""
    if isinstance(error, RefusedForNowError):
        return error.refusal.noted(f"{LOSSES_MAX + 1} times in a row")
    if isinstance(error, HistoryMadeError):
        return HistoryError(
            f'table "{error.version}" was made or moved by others '
            f"{LOSSES_MAX + 1} times in a row",
            hint="Let what makes it come to its end, then start the gate again.",
        )
    if isinstance(error, AlreadyAppliedError):
        named = f' "{error.constraint}"' if error.constraint else ""
        return HistoryError(
            f'could not record "{error.version}": duplicate key value violates unique '
            f"constraint{named} (SQLSTATE 23505), but the history has no such row",
            hint="The sequence of column id may be behind its rows, as after a restore "
            "of the data alone: set it with setval() to the highest id.",
        )
    if isinstance(error, DefaultsChangedError):
        return DatabaseUnreachableError(
            f"the defaults of a session changed {LOSSES_MAX + 1} times in a row",
            hint="Somebody alters role or database at this moment, or a pooler "
            "leads to servers that differ: look at ALTER ROLE and DATABASE … SET.",
        )
    versions = tuple(tally.in_doubt)
    during = f' while applying "{versions[0]}"' if versions else ""
    return DatabaseUnreachableError(
        f"the connection was lost {LOSSES_MAX + 1} times in a row{during}: {error}",
        hint="Look at the server's log: this migration may end its session, or the "
        "network or a pooler's time limit may cut it.",
    )
