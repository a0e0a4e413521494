"""
The main path: from settings to an open gate.

Knows every step and does none of them itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Final

from migration_gate.applying.outside import require_no_session
from migration_gate.applying.runs import Applier
from migration_gate.applying.settlement import Settlement, settle_doubts
from migration_gate.commands.steps import load, log_plan, open_worker, wait_for_history
from migration_gate.execution.watch import Watch
from migration_gate.files.library import Shelf
from migration_gate.files.migration import Migration
from migration_gate.history.look import Look, require_readable
from migration_gate.planning.plan import (
    Plan,
    make_plan,
    require_agreement,
)
from migration_gate.report.errors import (
    DatabaseUnreachableError,
    GateError,
    HistoryError,
)
from migration_gate.report.log import Log
from migration_gate.report.outcomes import AlreadyAppliedError, ConnectionLostError
from migration_gate.report.verdict import Tally
from migration_gate.session.session import Session
from migration_gate.session.turn import take_turn
from migration_gate.settings.settings import Settings


LOSSES_MAX: Final = 3


def migrate(settings: Settings, log: Log, tally: Tally) -> None:
    """
    Bring the database to what is shipped here, or raise.

    1. Read the folder: names and checksums.
    2. Wait for a database that can be written, and look at its history.
    3. Plan; nothing pending: done, and no lock was taken.
    4. Take the lock; look and plan again.
    5. Read and split every pending file.
    6. Make the history table ours.
    7. Apply each pending migration with its history row.

    A lost connection goes back to step 2: what was committed is in the history.

    Raises:
        GateError: The gate stays closed.
    """
    migrations = load(settings, log, "migrate")
    losses = 0
    while True:
        applied_before = len(tally.applied)
        try:
            bring_up_to_date(settings, migrations, log, tally)
        except (ConnectionLostError, AlreadyAppliedError) as error:
            losses = 1 if len(tally.applied) > applied_before else losses + 1
            if losses > LOSSES_MAX:
                raise _in_vain(error, tally) from error
        else:
            return


def bring_up_to_date(
    settings: Settings, migrations: Sequence[Migration], log: Log, tally: Tally
) -> None:
    """
    Go once through steps 2 to 7 of ``migrate``.

    Raises:
        GateError: The gate stays closed.
        ConnectionLostError: The last migration sent may or may not be applied.
        AlreadyAppliedError: The history has a row that it did not have under the lock.
    """
    with closing(wait_for_history(settings, migrations, log, tally)) as session:
        plan = agree(settings, migrations, session, log, tally)
        log_plan(plan, log)
        if not plan.pending:
            return

        def is_done(seen: Look) -> bool:
            return not make_plan(migrations, seen.history).pending

        with take_turn(session, is_done, log, tally) as current:
            plan = agree(settings, migrations, current, log, tally)
            # Where nothing is left, another gate has done it, and may have the lock.
            if plan.pending:
                apply_pending(plan, current, log, tally)


def apply_pending(plan: Plan, held: Session, log: Log, tally: Tally) -> None:
    """Go through steps 5 to 7 of ``migrate``, holding the lock."""
    shelf = Shelf(held.settings.migrations, held.settings.history_table)
    shelf.judge(plan.pending)
    if held.is_pooled:
        require_no_session(shelf.take(migration) for migration in plan.pending)
    with open_worker(held.settings, held, log) as worker:
        watch = Watch(held, worker, log)
        settlement = Settlement(tally, log)
        Applier(worker, held, shelf, watch, settlement, log).apply_all(plan)


def agree(
    settings: Settings,
    migrations: Sequence[Migration],
    session: Session,
    log: Log,
    tally: Tally,
) -> Plan:
    """
    Plan, and refuse what the settings do not allow.

    A migration whose COMMIT was not answered is settled here: its row says that it is
    applied.
    """
    require_readable(session.seen)
    plan = make_plan(migrations, session.seen.history)
    require_agreement(
        plan,
        changed=settings.changed,
        out_of_order=settings.out_of_order,
        ahead=settings.ahead,
    )
    settle_doubts(session.seen.history, tally, log)
    return plan


def _in_vain(
    error: ConnectionLostError | AlreadyAppliedError, tally: Tally
) -> GateError:
    """Say what kept the run from going on, however often it began anew."""
    if isinstance(error, AlreadyAppliedError):
        return HistoryError(
            f'could not record "{error.version}": duplicate key value violates unique '
            f'constraint "{error.constraint}", but the history has no such row',
            hint="The sequence of column id may be behind its rows, as after a restore "
            "of the data alone: set it with setval() to the highest id.",
        )
    versions = tuple(tally.in_doubt)
    during = f' while applying "{versions[0]}"' if versions else ""
    return DatabaseUnreachableError(
        f"the connection was lost {LOSSES_MAX + 1} times in a row{during}",
        hint="Look at the server's log: this migration may end its session, or the "
        "network or a pooler's time limit may cut it.",
    )
