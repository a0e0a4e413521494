"""
Apply migrations, each in one transaction with its history row, in one message each.

Writes what the files write, and the history. Each migration either commits with its
row or leaves nothing.
"""

from __future__ import annotations

import random
import time

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import psycopg

from psycopg import pq

from migration_gate.compose import FINISH_PLACE, Worker, compose_message
from migration_gate.errors import MigrationBlockedError
from migration_gate.failure import LocksNotFreeError, judge_failure
from migration_gate.history_table import HistoryTable
from migration_gate.logs import (
    MIGRATION_NOTICE,
    MIGRATION_RETRY_SCHEDULED,
    MIGRATION_STARTED,
    Log,
)
from migration_gate.messages import ConnectionLostError, send_message
from migration_gate.migration import AppliedMigration
from migration_gate.script import Script
from migration_gate.settings import Settings
from migration_gate.watch import Watch


CLIENT_CHECK_MIN_VERSION: Final = 140000
FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A script to apply and the version that the history gets for it."""

    script: Script
    version: str


def start_worker(
    conn: psycopg.Connection[Any],
    settings: Settings,
    table: HistoryTable,
    login_role: str,
) -> Worker:
    """
    Make a connection ready to run files.

    One round trip, two where the server's default reads strings in the old way.
    """
    standard = conn.pgconn.parameter_status(b"standard_conforming_strings") == b"on"
    if not standard:
        send_message(conn, b"SET standard_conforming_strings = on")
    return Worker(
        conn=conn,
        settings=settings,
        table=table,
        login_role=login_role,
        watches_client=_can_watch_client(conn),
        strings_are_standard=standard,
    )


def apply_run(
    worker: Worker, tasks: Sequence[Task], watch: Watch, log: Log
) -> Iterator[AppliedMigration]:
    """
    Apply migrations in order, one transaction and one message each.

    Yields each once it is committed, so that what is applied is known whatever becomes
    of the rest. The version it yields is the history's.

    Raises:
        MigrationFailedError: Nothing of that migration is left, all of the earlier.
        MigrationBlockedError: The same; its locks were never free.
        AlreadyAppliedError: The history had its row.
        ConnectionLostError: It may have been applied: look at the history.
    """
    for task in tasks:
        with _notices_logged(worker.conn, task, log):
            yield _apply_with_patience(worker, task, watch, log)


def _apply_with_patience(
    worker: Worker, task: Task, watch: Watch, log: Log
) -> AppliedMigration:
    """Try again while the locks are not free, as long as GATE_DDL_RETRY_TIMEOUT."""
    started_s, attempt = time.monotonic(), 0
    while True:
        attempt += 1
        _log_start(task, attempt, log)
        try:
            return _apply(worker, task, watch)
        except LocksNotFreeError as blocked:
            longest_s = min(FIRST_PAUSE_S * 2 ** (attempt - 1), LONGEST_PAUSE_S)
            pause_s = longest_s * random.uniform(0.5, 1.0)  # noqa: S311  # jitter
            waited_s = time.monotonic() - started_s
            if waited_s + pause_s > worker.settings.ddl_retry_timeout_s:
                raise MigrationBlockedError(
                    blocked.error, hint=_blocked_hint(watch, waited_s)
                ) from blocked
            log.emit(
                MIGRATION_RETRY_SCHEDULED,
                version=task.script.migration.version,
                attempt=attempt,
                wait_s=round(pause_s, 3),
                sqlstate=blocked.error.sqlstate,
                reason=blocked.error.error_message,
                blockers=list(watch.blockers),
            )
            time.sleep(pause_s)


def _apply(worker: Worker, task: Task, watch: Watch) -> AppliedMigration:
    watch.require_lock()
    message = compose_message(worker, task.script, task.version)
    answers = send_message(worker.conn, message.encode(), on_tick=watch.tick)
    if answers.failure is not None:
        _roll_back(worker.conn)
        raise judge_failure(
            worker, message, answers.failure, len(answers.results), task.version
        )
    if len(answers.results) != message.after_place + len(message.after):
        text = "PostgreSQL gave another number of answers than the file has statements"
        raise AssertionError(text)
    duration_ms, applied_at = answers.rows(FINISH_PLACE)[0][:2]
    return AppliedMigration(
        version=task.version,
        checksum=task.script.migration.checksum,
        applied_at=applied_at or "",
        duration_ms=int(duration_ms or 0),
    )


def _log_start(task: Task, attempt: int, log: Log) -> None:
    log.emit(
        MIGRATION_STARTED,
        version=task.script.migration.version,
        checksum=task.script.migration.checksum,
        in_transaction=True,
        statement_count=len(task.script.statements),
        attempt=attempt,
    )


def _blocked_hint(watch: Watch, waited_s: float) -> str:
    who = f" Last in the way: {'; '.join(watch.blockers)}." if watch.blockers else ""
    return (
        f"Its locks were not free in {waited_s:.0f} s.{who} End those sessions or wait "
        "for less traffic, then start the gate again; GATE_DDL_RETRY_TIMEOUT sets how "
        "long it tries."
    )


@contextmanager
def _notices_logged(
    conn: psycopg.Connection[Any], task: Task, log: Log
) -> Iterator[None]:
    """Pass on what the file's statements raise as notices."""

    def report(notice: psycopg.errors.Diagnostic) -> None:
        log.emit(
            MIGRATION_NOTICE,
            version=task.script.migration.version,
            severity=notice.severity_nonlocalized or notice.severity,
            notice=notice.message_primary,
        )

    conn.add_notice_handler(report)
    try:
        yield
    finally:
        conn.remove_notice_handler(report)


def _can_watch_client(conn: psycopg.Connection[Any]) -> bool:
    """Tell whether the server takes client_connection_check_interval; leaves nothing."""
    if conn.info.server_version < CLIENT_CHECK_MIN_VERSION:
        return False
    trial = (
        "BEGIN; SET LOCAL client_connection_check_interval = '1s'; ROLLBACK"
    ).encode()
    answers = send_message(conn, trial)
    if answers.failure is not None:
        _roll_back(conn)
    return answers.failure is None


def _roll_back(conn: psycopg.Connection[Any]) -> None:
    if conn.pgconn.transaction_status != pq.TransactionStatus.IDLE:
        answers = send_message(conn, b"ROLLBACK")
        if answers.failure is not None:
            raise ConnectionLostError(answers.failure.message or "")


