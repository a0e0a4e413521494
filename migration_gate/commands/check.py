"""
The commands check and wait: look, and write nothing; no connection between looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Final

from migration_gate.commands.steps import (
    ALL,
    load,
    log_plan,
    log_ready,
    log_start,
    new_patience,
    plan_for,
    with_database,
)
from migration_gate.connection.asking import asking
from migration_gate.connection.causes import INCOMPLETE, NO_RIGHT, NOT_NOW, UNKNOWN
from migration_gate.connection.connect import use_first
from migration_gate.connection.limited import LimitedConnection
from migration_gate.connection.not_ready import NotReadyError
from migration_gate.connection.texts import shorten_text
from migration_gate.connection.wait import Patience, wait_for
from migration_gate.files.migration import Migration
from migration_gate.planning.agreement import require_agreement
from migration_gate.planning.phases import asked_of, in_phase
from migration_gate.planning.plan import Plan
from migration_gate.report.errors import GateError, LoginRefusedError
from migration_gate.report.log import Log
from migration_gate.report.outcomes import ConnectionLostError, RefusedForNowError
from migration_gate.report.verdict import Tally
from migration_gate.session.session import Session, not_writable, start_session
from migration_gate.settings.settings import Settings


SERVER_STATE: Final = """
SELECT pg_catalog.pg_is_in_recovery(),
       pg_catalog.current_setting('transaction_read_only'),
       pg_catalog.pg_backend_pid()
"""


def check(settings: Settings, log: Log, tally: Tally) -> None:
    """
    Wait until every migration shipped here is applied. Reads only.

    Where GATE_PHASE is before, those that wait for the deployment are not waited for.

    The database is reported as ready once, at the first look that it answers; what is
    still missing then is reported as a retry. A changed file and a database that is
    ahead are warnings.

    Raises:
        IncompleteError: Not all applied within GATE_WAIT_TIMEOUT.
        LoginRefusedError: A right is missing for longer than GATE_AUTH_GRACE.
        HistoryError: The table is another tool's.
    """
    migrations = load(settings, log, "check")
    patience = new_patience(settings, log, settings.wait_timeout_s)
    looker = _Checker(settings, migrations, patience, log)
    try:
        plan = wait_for(looker.look, patience)
    finally:
        tally.waited_s += patience.waited_s
    log_plan(plan, log, tally)
    newer = f" or newer in the database: {len(plan.left)}" if plan.left else ""
    tally.outcome = f"{len(migrations)} shipped here, all applied{newer}"
    if plan.held_back:
        tally.outcome += f"; left for after the deployment: {len(plan.held_back)}"


def wait_for_server(settings: Settings, log: Log, tally: Tally) -> None:
    """
    Wait until the database answers a query and is writable. Needs only CONNECT.

    Raises:
        DatabaseUnreachableError: Not within GATE_WAIT_TIMEOUT.
        LoginRefusedError: Refused for longer than GATE_AUTH_GRACE.
    """
    log_start(settings, log, "wait", migration_count=None)
    patience = new_patience(settings, log, settings.wait_timeout_s)

    def ask() -> None:
        use_first(
            settings.database,
            lambda conn: _ask(conn, patience, log),
            until_s=patience.until_s,
        )

    try:
        attempt = with_database(ask, settings, log, until_s=patience.until_s)
        wait_for(attempt, patience)
    finally:
        tally.waited_s += patience.waited_s
    tally.outcome = "the database answers, and can be written"


def require_applied(session: Session, migrations: Sequence[Migration]) -> Plan:
    """
    Return the plan of a history that has everything; reads only.

    Raises:
        NotReadyError: Something is missing that may still come: rows, or a right.
        HistoryError: The table is another tool's.
    """
    try:
        plan = plan_for(migrations, session)
        if session.settings.phase != ALL:
            plan = in_phase(plan, asked_of(session.settings.phase))
        if plan.pending:
            verdict = _say_incomplete(session, plan)
    except LoginRefusedError as error:
        raise NotReadyError(NO_RIGHT, str(error), error) from error
    except RefusedForNowError as error:
        raise NotReadyError(NOT_NOW, str(error), error.refusal) from error
    except ConnectionLostError as error:
        raise NotReadyError(UNKNOWN, shorten_text(str(error))) from error
    require_agreement(plan, changed="warn", out_of_order="apply", ahead="allow")
    if plan.pending:
        raise NotReadyError(INCOMPLETE, str(verdict), verdict)
    return plan


class _Checker:
    """Looks as often as it is asked to; reports the first answer of the database."""

    def __init__(
        self,
        settings: Settings,
        migrations: Sequence[Migration],
        patience: Patience,
        log: Log,
    ) -> None:
        self._settings = settings
        self._migrations = migrations
        self._patience = patience
        self._log = log
        self._is_reported = False

    def look(self) -> Plan:
        """Look once; whatever may still come is "not yet"."""
        try:
            session = start_session(
                self._settings, must_write=False, until_s=self._patience.until_s
            )
            with closing(session):
                self._report(session)
                return require_applied(session, self._migrations)
        except LoginRefusedError as error:
            raise NotReadyError(NO_RIGHT, str(error), error) from error

    def _report(self, session: Session) -> None:
        if not self._is_reported:
            self._is_reported = True
            version = session.conn.info.server_version
            log_ready(version, self._patience, self._log, is_pooled=session.is_pooled)


def _say_incomplete(session: Session, plan: Plan) -> GateError:
    from migration_gate.commands.last_failure import (
        find_failures,
        incomplete,
    )

    return incomplete(plan.pending, find_failures(session, plan))


def _ask(conn: LimitedConnection, patience: Patience, log: Log) -> None:
    with closing(conn), asking(conn, "ask for the server's state"):
        is_standby, read_only, backend_pid = conn.execute(SERVER_STATE).fetchall()[0]
        if is_standby or read_only == "on":
            raise not_writable(is_standby=is_standby)
        is_pooled = backend_pid != conn.info.backend_pid
        log_ready(conn.info.server_version, patience, log, is_pooled=is_pooled)
