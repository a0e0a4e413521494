"""
The main path: from settings to an open gate.

Knows every step and does none of them itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Final

from migration_gate import __version__
from migration_gate.applying.outside import require_no_session
from migration_gate.applying.runs import Applier
from migration_gate.applying.settlement import Settlement, settle_doubts
from migration_gate.connection.connect import (
    current_parameters,
    open_connection,
    open_second_connection,
)
from migration_gate.connection.simple_query import ConnectionLostError
from migration_gate.connection.wait import Patience, wait_for
from migration_gate.execution.failure import AlreadyAppliedError
from migration_gate.execution.ready import start_worker
from migration_gate.execution.watch import Watch
from migration_gate.execution.worker import Worker
from migration_gate.files.folder import check_texts, read_folder
from migration_gate.files.library import Shelf
from migration_gate.files.migration import Migration
from migration_gate.history.look import Look, require_readable
from migration_gate.planning.plan import (
    Plan,
    find_shared_numbers,
    make_plan,
    require_agreement,
)
from migration_gate.report.errors import (
    DatabaseUnreachableError,
    GateError,
    HistoryError,
)
from migration_gate.report.log import (
    CHANGED_MIGRATIONS,
    DATABASE_READY,
    FILES_SHARED_NUMBER,
    GATE_STARTED,
    NOT_ALTERED,
    OUT_OF_ORDER,
    PLAN_MADE,
    UNKNOWN_VERSIONS,
    Log,
)
from migration_gate.report.verdict import Tally
from migration_gate.session.create_database import with_database
from migration_gate.session.session import Session, make_history, start_session
from migration_gate.session.turn import take_turn
from migration_gate.settings.database import shown
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


def load(settings: Settings, log: Log, command: str) -> tuple[Migration, ...]:
    """Read the migrations folder, say what starts, and what is odd about the folder."""
    migrations = read_folder(settings.migrations, allow_empty=settings.allow_empty)
    log_start(settings, log, command, migration_count=len(migrations))
    shared = find_shared_numbers(migrations)
    if shared:
        log.emit(FILES_SHARED_NUMBER, versions=list(shared))
    return migrations


def log_start(
    settings: Settings, log: Log, command: str, *, migration_count: int | None
) -> None:
    """Report what starts, and for which database. Raises SettingsError."""
    log.emit(
        GATE_STARTED,
        command=command,
        gate_version=__version__,
        migrations=str(settings.migrations),
        migration_count=migration_count,
        **shown(current_parameters(settings.database)),
    )


def new_patience(settings: Settings, log: Log, timeout_s: float) -> Patience:
    """Start the clock of one wait for the database."""
    return Patience(
        database=settings.database,
        timeout_s=timeout_s,
        grace_s=settings.auth_grace_s,
        heartbeat_s=settings.heartbeat_s,
        log=log,
    )


def wait_for_history(
    settings: Settings, migrations: Sequence[Migration], log: Log, tally: Tally
) -> Session:
    """
    Wait until the database can be written, and look at its history.

    A file that no database is needed to refuse is refused before the wait, but not
    where the database answers at once: then the history tells whether the file is
    applied already, and nothing more is asked of it.
    """
    patience = new_patience(settings, log, settings.wait_timeout_s)

    def refuse_texts() -> None:
        check_texts(settings.migrations, migrations)

    try:
        session = wait_for(
            with_database(
                lambda: start_session(settings, must_write=True),
                settings,
                log,
                before_creating=refuse_texts,
            ),
            patience,
            before_waiting=refuse_texts,
        )
    finally:
        tally.waited_s += patience.waited_s
    version = session.conn.info.server_version
    log_ready(version, patience, log, is_pooled=session.is_pooled)
    return session


def log_ready(
    server_version: int, patience: Patience, log: Log, *, is_pooled: bool
) -> None:
    """Report the database that answered; ``server_version`` as in 170010 for 17.10."""
    log.emit(
        DATABASE_READY,
        attempt=patience.attempts + 1,
        waited_s=round(patience.waited_s, 3),
        server_version=f"{server_version // 10000}.{server_version % 10000}",
        pooled=is_pooled,
    )


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


def log_plan(plan: Plan, log: Log) -> None:
    """Report the plan and every disagreement that the settings allow."""
    log.emit(
        PLAN_MADE,
        applied_count=len(plan.applied),
        pending_count=len(plan.pending),
        pending=[migration.version for migration in plan.pending],
    )
    if plan.changed:
        log.emit(CHANGED_MIGRATIONS, versions=list(plan.changed))
    if plan.unknown:
        log.emit(UNKNOWN_VERSIONS, versions=list(plan.unknown))
    if plan.out_of_order:
        log.emit(OUT_OF_ORDER, versions=list(plan.out_of_order))


@contextmanager
def open_worker(settings: Settings, held: Session, log: Log) -> Iterator[Worker]:
    """Open the connection that runs the files, and make the history table ours."""
    opened = open_second_connection if held.is_pooled else open_connection
    conn = wait_for(
        lambda: opened(settings.database),
        new_patience(settings, log, settings.wait_timeout_s),
    )
    with closing(conn):
        table, reason = make_history(conn, held)
        if reason is not None:
            log.emit(NOT_ALTERED, reason=reason)
        yield start_worker(conn, held, table)


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
