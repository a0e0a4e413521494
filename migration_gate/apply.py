"""
Apply migrations: each in one transaction with its history row, or outside one.

Writes what the files write, and the history.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

import psycopg

from migration_gate.compose import Worker, compose_transaction
from migration_gate.exchange import exchange, roll_back
from migration_gate.history_table import HistoryTable
from migration_gate.lock import work_key
from migration_gate.logs import MIGRATION_NOTICE, MIGRATION_STARTED, Log
from migration_gate.messages import send_message
from migration_gate.migration import AppliedMigration
from migration_gate.outside import apply_outside
from migration_gate.parts import find_own
from migration_gate.preamble import leave_out_unknown
from migration_gate.retry import retry_while_locked
from migration_gate.script import Script
from migration_gate.session import Session
from migration_gate.task import Task
from migration_gate.watch import Watch


CLIENT_CHECK_MIN_VERSION: Final = 140000


def start_worker(
    conn: psycopg.Connection[Any], held: Session, table: HistoryTable
) -> Worker:
    """
    Make a connection ready to run files.

    One round trip, two where the server's default reads strings in the old way.

    Args:
        held: The session that holds the lock.
    """
    standard = conn.pgconn.parameter_status(b"standard_conforming_strings") == b"on"
    if not standard:
        send_message(conn, b"SET standard_conforming_strings = on")
    return Worker(
        conn=conn,
        settings=held.settings,
        table=table,
        login_role=held.seen.login_role,
        work_key=work_key(table.schema, table.name),
        watches_client=_can_watch_client(conn),
        strings_are_standard=standard,
    )


def apply_run(
    worker: Worker, tasks: Sequence[Task], held: Session, watch: Watch, log: Log
) -> Iterator[AppliedMigration]:
    """
    Apply migrations in order.

    Yields each once it is committed, so that what is applied is known whatever becomes
    of the rest. The version it yields is the history's.

    Raises:
        MigrationFailedError: Nothing of a transactional migration is left, and all of
            the earlier ones.
        MigrationBlockedError: The same; its locks were never free.
        UnresolvedError: An unfinished statement cannot be judged.
        AlreadyAppliedError: The history had its row.
        ConnectionLostError: It may have been applied: look at the history.
    """
    for task in tasks:
        script = leave_out_unknown(worker, task.script, log)
        fitting = replace(task, script=script)
        with _notices_logged(worker.conn, script, log):
            if script.in_transaction:
                yield _apply_with_patience(worker, fitting, watch, log)
            else:
                log_migration_start(script, 1, log)
                yield apply_outside(worker, fitting, held, watch, log)


def _apply_with_patience(
    worker: Worker, task: Task, watch: Watch, log: Log
) -> AppliedMigration:
    def attempt(number: int) -> AppliedMigration:
        log_migration_start(task.script, number, log)
        return _apply(worker, task, watch)

    version = task.script.migration.version
    return retry_while_locked(worker, version, watch, log, attempt)


def _apply(worker: Worker, task: Task, watch: Watch) -> AppliedMigration:
    for message in compose_transaction(worker, task.script, task.version):
        answers = exchange(worker, message, task.version, watch)
    finish = find_own(message.parts, "finish")
    duration_ms, applied_at = answers.rows(finish)[0][:2]
    return AppliedMigration(
        version=task.version,
        checksum=task.script.migration.checksum,
        applied_at=applied_at or "",
        duration_ms=int(duration_ms or 0),
    )


def log_migration_start(script: Script, attempt: int, log: Log) -> None:
    """Report an attempt at a migration."""
    log.emit(
        MIGRATION_STARTED,
        version=script.migration.version,
        checksum=script.migration.checksum,
        in_transaction=script.in_transaction,
        statement_count=script.statement_count,
        attempt=attempt,
    )


@contextmanager
def _notices_logged(
    conn: psycopg.Connection[Any], script: Script, log: Log
) -> Iterator[None]:
    """Pass on what the file's statements raise as notices."""

    def report(notice: psycopg.errors.Diagnostic) -> None:
        log.emit(
            MIGRATION_NOTICE,
            version=script.migration.version,
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
    trial = b"BEGIN; SET LOCAL client_connection_check_interval = '1s'; ROLLBACK"
    answers = send_message(conn, trial)
    roll_back(conn)
    return answers.failure is None
