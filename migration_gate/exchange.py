"""
Send a message of a migration and judge its answers; nothing is left open by an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import psycopg

from psycopg import pq

from migration_gate.compose import Worker
from migration_gate.failure import (
    LocksNotFreeError,
    describe_failure,
    judge_failure,
)
from migration_gate.messages import Answers, ConnectionLostError, send_message
from migration_gate.parts import Message
from migration_gate.watch import Watch


QUERY_CANCELED: Final = "57014"
COPY_BLOCK_BYTES: Final = 1 << 18


def exchange(
    worker: Worker,
    message: Message,
    version: str,
    watch: Watch,
    *,
    blocks_queries: bool = True,
) -> Answers:
    """
    Send a message, while the lock is still held, and return its answers.

    Args:
        version: The history row's.
        blocks_queries: False for a statement behind whose lock waits nobody queues:
            it may wait as long as it takes.

    Raises:
        MigrationFailedError: A statement failed, and the transaction is rolled back.
        LocksNotFreeError: The same, and it may be tried again.
        AlreadyAppliedError: The history had the row.
        ConnectionLostError: The message may have taken effect.
    """
    watch.start(message, _lock_limit_s(worker, message) if blocks_queries else None)

    def copy_data(answered: int) -> Iterator[bytes]:
        start, end = message.copy_data(answered)
        for block in range(start, end, COPY_BLOCK_BYTES):
            yield message.script.content[block : min(block + COPY_BLOCK_BYTES, end)]

    answers = send_message(
        worker.conn,
        message.encode(),
        on_tick=watch.tick,
        tick_s=watch.tick_s,
        copy_data=copy_data,
    )
    if answers.failure is not None:
        roll_back(worker.conn)
        raise _judge(worker, message, answers, version, watch)
    if len(answers.results) != len(message.parts):
        text = "PostgreSQL gave another number of answers than there are statements"
        raise AssertionError(text)
    return answers


def _lock_limit_s(worker: Worker, message: Message) -> float:
    directive_s = message.script.directives.lock_timeout_s
    return worker.settings.ddl_lock_timeout_s if directive_s is None else directive_s


def _judge(
    worker: Worker, message: Message, answers: Answers, version: str, watch: Watch
) -> Exception:
    failure = answers.failure
    assert failure is not None  # noqa: S101  # the caller has looked
    if failure.sqlstate == QUERY_CANCELED and watch.has_cancelled:
        error = describe_failure(worker, message, failure)
        words = "waited for its locks longer than GATE_DDL_LOCK_TIMEOUT"
        return LocksNotFreeError(replace(error, error_message=words))
    return judge_failure(worker, message, failure, len(answers.results), version)


def roll_back(conn: psycopg.Connection[Any]) -> None:
    """End a transaction that is still open; PREPARE is not undone with it."""
    if conn.pgconn.transaction_status != pq.TransactionStatus.IDLE:
        answers = send_message(conn, b"ROLLBACK; DEALLOCATE ALL")
        if answers.failure is not None:
            raise ConnectionLostError(answers.failure.message or "")
