"""
The steps that commands share: load, wait, report, plan and agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, TypeVar

from migration_gate import __version__
from migration_gate.connection.causes import NO_DATABASE, UNKNOWN
from migration_gate.connection.connect import (
    current_parameters,
    read_file,
    read_secret_file,
)
from migration_gate.connection.not_ready import NotReadyError
from migration_gate.connection.wait import Patience, wait_for
from migration_gate.connection.waits import interruptible
from migration_gate.files.folder import check_texts, read_folder
from migration_gate.files.migration import Migration
from migration_gate.history.creation import require_target
from migration_gate.history.look import require_readable
from migration_gate.planning.agreement import require_agreement
from migration_gate.planning.phases import in_phase, require_first_phase
from migration_gate.planning.plan import Plan, find_shared_numbers, make_plan
from migration_gate.report.errors import (
    DatabaseUnreachableError,
    HistoryError,
    SettingsError,
)
from migration_gate.report.events import (
    CHANGED_MIGRATIONS,
    DATABASE_READY,
    FILES_SHARED_NUMBER,
    GATE_STARTED,
    OUT_OF_ORDER,
    PLAN_HELD_BACK,
    PLAN_MADE,
    REPEATABLES_LEFT,
    UNKNOWN_VERSIONS,
    URL_PASSED_OVER,
    Event,
)
from migration_gate.report.log import Log
from migration_gate.report.outcomes import ConnectionLostError, RefusedForNowError
from migration_gate.report.verdict import Tally
from migration_gate.session.session import Session, start_session
from migration_gate.settings.database import known_parameters, said_beside, shown
from migration_gate.settings.settings import Settings


# Nearly every start: what parts phases is not loaded then.
ALL: Final = "all"

T = TypeVar("T")


def load(settings: Settings, log: Log, command: str) -> tuple[Migration, ...]:
    """Read the migrations folder, say what starts, and what is odd about the folder."""
    with interruptible():
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
        migrations=settings.migrations,
        migration_count=migration_count,
        **shown(_parameters_so_far(settings)),
    )
    passed_over = said_beside(settings.database, read_secret_file).passed_over
    if passed_over:
        log.emit(URL_PASSED_OVER, names=list(passed_over))


def _parameters_so_far(settings: Settings) -> dict[str, str]:
    """Return libpq's parameters, without those whose file may be written yet."""
    try:
        return current_parameters(settings.database)
    except SettingsError as error:
        if not error.may_come:
            raise
        return known_parameters(settings.database)


def new_patience(settings: Settings, log: Log, timeout_s: float) -> Patience:
    """Start the clock of one wait for the database."""
    return Patience(
        database=settings.database,
        timeout_s=timeout_s,
        grace_s=settings.auth_grace_s,
        heartbeat_s=settings.heartbeat_s,
        log=log,
    )


def wait_for_history(  # noqa: PLR0913  # two are for migrate alone
    settings: Settings,
    migrations: Sequence[Migration],
    log: Log,
    tally: Tally,
    *,
    use_standby: Callable[[Session], object] | None = None,
    locks: bool = False,
    creates: bool = False,
) -> Session:
    """
    Wait until the database can be written, and look at its history.

    A hot standby will do, as long as no other server can be had, where ``use_standby``
    raises nothing.

    A file that no database is needed to refuse is refused before the wait, but not
    where the database answers at once: then the history tells whether the file is
    applied already, and nothing more is asked of it.

    Args:
        settings: Which database, and which history.
        migrations: Those that are shipped here.
        log: Takes what the wait reports.
        tally: Takes how long it was.
        use_standby: Whether a standby will do.
        locks: Whether the lock is wanted in any case; see ``start_session``.
        creates: Whether files are applied next, and a database that is not there may
            be made for them, where the settings allow it.
    """
    patience = new_patience(settings, log, settings.wait_timeout_s)

    def refuse_texts() -> None:
        with interruptible():
            check_texts(settings.migrations, migrations)

    def start() -> Session:
        session = start_session(
            settings,
            must_write=True,
            may_be_standby=use_standby is not None,
            locks=locks,
            until_s=patience.until_s,
        )
        if session.seen.is_standby and use_standby is not None:
            try:
                use_standby(session)
            except BaseException:
                session.close()
                raise
        return session

    try:
        if creates:
            start = with_database(
                start,
                settings,
                log,
                until_s=patience.until_s,
                before_creating=refuse_texts,
            )
        session = wait_for(start, patience, before_waiting=refuse_texts)
    finally:
        tally.waited_s += patience.waited_s
    version = session.conn.info.server_version
    log_ready(version, patience, log, is_pooled=session.is_pooled)
    return session


def with_database(
    attempt: Callable[[], T],
    settings: Settings,
    log: Log,
    *,
    until_s: float | None = None,
    before_creating: Callable[[], None] = lambda: None,
) -> Callable[[], T]:
    """
    Return an attempt that makes the database, where allowed, and tries again.

    Args:
        until_s: When to give up connecting, on the monotonic clock.
        before_creating: Called first; what it raises leaves the server as it is.
    """

    def attempt_or_create() -> T:
        try:
            return attempt()
        except NotReadyError as error:
            # A text in another language may say that the database does not exist.
            if not error.causes & {NO_DATABASE, UNKNOWN} or not error.address:
                raise
            from migration_gate.session.create_database import create_database

            before_creating()
            is_made = create_database(settings, log, until_s=until_s)
            if not is_made and NO_DATABASE not in error.causes:
                raise
        return attempt()

    return attempt_or_create if settings.create_database else attempt


@contextmanager
def looking_once() -> Iterator[None]:
    """
    Close the gate where an answer does not come, of a command that asks only once.

    Raises:
        DatabaseUnreachableError: The connection was lost.
        ServerRefusedError: PostgreSQL refused to answer for now.
    """
    try:
        yield
    except ConnectionLostError as error:
        raise DatabaseUnreachableError(
            f"the connection was lost: {error}",
            hint="Nothing was written. Give the command again.",
        ) from error
    except RefusedForNowError as error:
        raise error.refusal from error


def wait_for_variables(settings: Settings, log: Log) -> Mapping[str, str]:
    """
    Return the values that files may ask for; the log shows none of them from then on.

    A file that holds one and is not there yet is waited for, as a password's is.

    Raises:
        SettingsError: One cannot be read.
        LoginRefusedError: One was not there in time.
    """
    if not settings.variables:
        return {}
    from migration_gate.report.redaction import Redactor
    from migration_gate.settings.variables import variable_values

    values = wait_for(
        lambda: variable_values(settings.variables, read_file),
        new_patience(settings, log, settings.wait_timeout_s),
    )
    log.hide(Redactor(values).redact)
    return values


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


def log_plan(plan: Plan, log: Log, tally: Tally) -> None:
    """Report the plan, and warn of every disagreement that the settings allow."""
    log.emit(
        PLAN_MADE,
        applied_count=len(plan.applied),
        pending_count=len(plan.pending),
        pending=[migration.version for migration in plan.pending],
    )
    if plan.held_back:
        held_back = [migration.version for migration in plan.held_back]
        log.emit(PLAN_HELD_BACK, versions=held_back)
    log_disagreements(plan, log, tally)


def log_disagreements(plan: Plan, log: Log, tally: Tally) -> None:
    """Warn of what the settings allow, files and history not being as they should."""
    found = find_disagreements(plan)
    for event, versions in found.items():
        log.emit(event, versions=list(versions))
    tally.warnings = [event.name for event in found]


def find_disagreements(plan: Plan) -> dict[Event, tuple[str, ...]]:
    """Return the events that warn of a plan, each with the versions it is about."""
    disagreements = {
        CHANGED_MIGRATIONS: plan.changed,
        UNKNOWN_VERSIONS: plan.unknown,
        OUT_OF_ORDER: plan.below_applied,
        REPEATABLES_LEFT: tuple(migration.version for migration in plan.left),
    }
    return {event: versions for event, versions in disagreements.items() if versions}


def require_kept(session: Session, tally: Tally) -> None:
    """
    Refuse a history that has lost all of its rows since this run has looked at it.

    Every file would run once more, those of this run included. A start that sees it
    empty at first cannot know, and takes it at its word.

    Raises:
        HistoryError: It has.
    """
    had = max(tally.rows_seen, len(tally.applied))
    tally.rows_seen = len(session.seen.history)
    if had and not tally.rows_seen:
        was = "dropped or renamed" if session.seen.table is None else "emptied"
        rows = "the row" if had == 1 else f"all {had} rows"
        raise HistoryError(
            f"the history has lost {rows} since this run began: another session has "
            f"{was} it",
            hint="Bring it back as it was, then start the gate again; without it, that "
            "would run every file anew.",
        )


def agree(
    settings: Settings,
    migrations: Sequence[Migration],
    session: Session,
    *,
    is_last: bool = True,
) -> Plan:
    """
    Plan the phase that is asked for, and refuse what the settings do not allow.

    Args:
        settings: What they allow.
        migrations: Those that are shipped here.
        session: What it has seen.
        is_last: False where it is asked again under the lock: other tools' histories
            are looked for then, where the lock is hardly ever waited for.

    Raises:
        HistoryError: Files and history disagree.
        IncompleteError: The phase before this one has not come to its end.
    """
    looks_around = is_last or not settings.gives_room
    plan = plan_for(migrations, session, looks_around=looks_around)
    if settings.phase != ALL:
        plan = in_phase(plan, settings.phase)
    require_agreed(plan, settings)
    if plan.overdue:
        require_first_phase(plan)
    return plan


def require_agreed(plan: Plan, settings: Settings) -> None:
    """Refuse what the settings do not allow. Raises HistoryError."""
    require_agreement(
        plan,
        changed=settings.changed,
        out_of_order=settings.out_of_order,
        ahead=settings.ahead,
    )


def plan_for(
    migrations: Sequence[Migration], session: Session, *, looks_around: bool = True
) -> Plan:
    """
    Plan by what a session has seen, where that is surely the history of these files.

    Args:
        looks_around: False where other tools' histories are no matter, as where a
            person says what is applied.

    Raises:
        HistoryError: Another table may be the history, or the target is not there.
        LoginRefusedError: The role may not use the table's schema.
    """
    if session.only is not None:
        require_target(session.seen, session.settings.history_table)
    require_readable(session.seen)
    plan = make_plan(migrations, session.seen.history, tool=session.seen.tool)
    session.require_sole(plan.applied, plan.pending)
    if looks_around:
        session.require_no_foreign(plan.pending)
    return plan
