"""
Send a message of a migration and judge its answers; nothing is left open by an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import psycopg

from psycopg import pq

from migration_gate.compose import Message, Worker
from migration_gate.failure import judge_failure
from migration_gate.messages import Answers, ConnectionLostError, send_message
from migration_gate.watch import Watch


COPY_BLOCK_BYTES: Final = 1 << 18


def exchange(worker: Worker, message: Message, version: str, watch: Watch) -> Answers:
    """
    Send a message, while the lock is still held, and return its answers.

    Raises:
        MigrationFailedError: A statement failed, and the transaction is rolled back.
        LocksNotFreeError: The same, and it may be tried again.
        AlreadyAppliedError: The history had the row.
        ConnectionLostError: The message may have taken effect.
    """
    watch.require_lock()

    def copy_data(answered: int) -> Iterator[bytes]:
        start, end = message.copy_data(answered)
        for block in range(start, end, COPY_BLOCK_BYTES):
            yield message.script.content[block : min(block + COPY_BLOCK_BYTES, end)]

    answers = send_message(
        worker.conn, message.encode(), on_tick=watch.tick, copy_data=copy_data
    )
    if answers.failure is not None:
        roll_back(worker.conn)
        raise judge_failure(
            worker, message, answers.failure, len(answers.results), version
        )
    if len(answers.results) != message.answer_count:
        text = "PostgreSQL gave another number of answers than there are statements"
        raise AssertionError(text)
    return answers


def roll_back(conn: psycopg.Connection[Any]) -> None:
    """End a transaction that is still open."""
    if conn.pgconn.transaction_status != pq.TransactionStatus.IDLE:
        answers = send_message(conn, b"ROLLBACK")
        if answers.failure is not None:
            raise ConnectionLostError(answers.failure.message or "")
