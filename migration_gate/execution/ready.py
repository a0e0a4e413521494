"""
Make a connection ready to run files: what its defaults are, and what has to be kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import psycopg

from psycopg import sql

from migration_gate.connection.limited import LimitedConnection, limited
from migration_gate.connection.refusals import refuse
from migration_gate.connection.simple_query import Answers, send_message
from migration_gate.execution.exchange import keep_settings, roll_back
from migration_gate.execution.frame import DEFAULTS, select
from migration_gate.execution.worker import Worker
from migration_gate.history.table import HistoryTable
from migration_gate.report.outcomes import DefaultsChangedError
from migration_gate.report.redaction import Redactor
from migration_gate.session.session import Session
from migration_gate.settings.settings import Settings


CLIENT_CHECK_MIN_VERSION: Final = 140000
TIMEOUTS: Final = (
    "lock_timeout",
    "statement_timeout",
    "idle_in_transaction_session_timeout",
    "transaction_timeout",
)


def start_worker(
    conn: LimitedConnection,
    held: Session,
    table: HistoryTable,
    settings: Settings,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> Worker:
    """
    Make a connection ready to run files.

    One round trip, two where a default of the session would get in the way. None where
    the connection has served a target before and nothing was: then the first file's
    transaction asks whether that is still so.

    Raises:
        DefaultsChangedError: The connections were kept, and other defaults hold now.

    Args:
        held: The session that holds the lock.
        settings: Those of the target.
        variables: The values that files may ask for.
    """
    is_same = conn.is_usual and conn.defaults == held.conn.defaults
    is_presumed = is_same and not held.is_pooled
    unlimited, kept = (frozenset(), {}) if is_presumed else _find_out(conn, held)
    worker = Worker(
        conn=conn,
        settings=settings,
        table=table,
        acting_role=held.seen.acting_role,
        work_key=held.keys().work,
        watches_client=conn.watches_client,
        unlimited=unlimited,
        kept_settings=kept,
        defaults=conn.defaults or "",
        is_pooled=held.is_pooled,
        is_presumed=is_presumed,
        variables=variables,
        redact=Redactor(variables).redact,
    )
    keep_settings(worker)
    return worker


def _find_out(
    conn: LimitedConnection, held: Session
) -> tuple[frozenset[str], dict[str, str]]:
    """
    Ask what a session begins with, and note on its connection what stays so.

    Returns the timeouts that its defaults leave off, and the settings that have to hold
    in it against its defaults.
    """
    answers = _ask(conn)
    defaults, strings, idle_timeout, *timeouts = answers.done[0].row
    _require_same_defaults(defaults, conn, held.conn)
    kept = {}
    if strings != "on":
        kept["standard_conforming_strings"] = "on"
    # Behind a pooler a session's setting would go to a stranger with the session.
    if idle_timeout not in {None, "0"} and not held.is_pooled:
        kept["idle_session_timeout"] = "0"
    conn.is_usual = not kept
    conn.watches_client = (
        answers.failure is None and conn.info.server_version >= CLIENT_CHECK_MIN_VERSION
    )
    unlimited = {n for n, v in zip(TIMEOUTS, timeouts, strict=True) if v == "0"}
    return frozenset() if held.is_pooled else frozenset(unlimited), kept


def note_defaults(held: Session) -> None:
    """
    Note what the defaults are before a session begins that is to be kept.

    It is asked for them only afterwards, when somebody may have changed them: a session
    that serves many targets must not be taken for one that has the new ones.
    """
    if held.conn.defaults is None:
        with (
            held.translated("ask for the defaults of the session"),
            limited(held.conn),
        ):
            ((defaults,),) = held.conn.execute(select([DEFAULTS])).fetchall()
        held.conn.defaults = str(defaults)


def _require_same_defaults(defaults: str | None, *conns: LimitedConnection) -> None:
    """
    Let connections go that began with others: a new session has those of now.

    Raises:
        DefaultsChangedError: They were kept for too long.
    """
    if any(conn.defaults not in {None, defaults} for conn in conns):
        for conn in conns:
            conn.is_outdated = True
        raise DefaultsChangedError
    for conn in conns:
        conn.defaults = defaults


def _ask(conn: psycopg.Connection[Any]) -> Answers:
    """Ask for the session's defaults, and try whether the server watches its client."""
    asked = ("standard_conforming_strings", "idle_session_timeout", *TIMEOUTS)
    calls = [
        sql.SQL("pg_catalog.current_setting({}, true)").format(name) for name in asked
    ]
    query = select([DEFAULTS, *calls]).as_bytes(conn) + b"; "
    if conn.info.server_version >= CLIENT_CHECK_MIN_VERSION:
        # Not every platform can: the setting is refused there.
        query += b"BEGIN; SET LOCAL client_connection_check_interval = '1s'; ROLLBACK"
    answers = send_message(conn, query)
    if answers.failure is not None and not answers.done:
        raise refuse("ask for the defaults of the session", answers.failure)
    roll_back(conn)
    return answers
