"""
Send a message of migrations and judge its answers; nothing is left open by an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import psycopg

from psycopg import pq

from migration_gate.connection.refusals import translated
from migration_gate.connection.simple_query import (
    Answer,
    Notice,
    Row,
    conversation,
)
from migration_gate.connection.waits import Stopped, awaiting, halting
from migration_gate.execution.describing import describe_failure
from migration_gate.execution.failure import explain_failure
from migration_gate.execution.frame import keep_calls, select
from migration_gate.execution.message import Message, Own, Share
from migration_gate.execution.watch import USUAL, Terms, Watch
from migration_gate.execution.worker import Worker
from migration_gate.report.errors import SqlFailure
from migration_gate.report.events import MIGRATION_NOTICE
from migration_gate.report.outcomes import LocksNotFreeError
from migration_gate.statements import blocks


QUERY_CANCELED: Final = "57014"
COPY_BLOCK_BYTES: Final = 1 << 18
ROLL_BACK: Final = (
    b"ROLLBACK; DEALLOCATE ALL; DISCARD SEQUENCES; "
    b"SELECT pg_catalog.pg_advisory_unlock_all()"
)


class UnparsedError(Exception):
    """
    PostgreSQL could not read a message of several migrations, and has done none of it.

    ``index`` is that of the migration at fault; None where PostgreSQL does not say.
    """

    def __init__(self, index: int | None) -> None:
        super().__init__("the message was not read")
        self.index = index


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """
    What is called while a message is under way.

    ``on_sent`` once, while PostgreSQL works. ``on_migration`` when the message is seen
    to have come to a migration, with its index in it. ``on_commit`` for each migration
    as soon as its COMMIT is answered, with the row that its "finish" gave.
    """

    on_sent: Callable[[], None] = lambda: None
    on_migration: Callable[[int], None] = lambda _: None
    on_commit: Callable[[Share, Row], None] | None = None


NO_HOOKS: Final = Hooks()


def exchange(
    worker: Worker,
    message: Message,
    watch: Watch,
    hooks: Hooks = NO_HOOKS,
    *,
    terms: Terms = USUAL,
) -> None:
    """
    Send a message, while the lock is still held.

    Args:
        terms: What holds for it while it is under way.

    Raises:
        MigrationFailedError: A statement failed, and its transaction is rolled back;
            the migrations before it are committed, and perhaps not yet flushed.
        LocksNotFreeError: The same, and it may be tried again.
        AlreadyAppliedError: The history had the row.
        UnparsedError: Nothing of a message of several migrations was done.
        ConnectionLostError: What was not reported as committed may be committed.
    """
    watch.start(message, terms=terms, on_migration=hooks.on_migration)
    course = _Course(message, watch, hooks)
    if worker.observer is not None:
        worker.observer.on_sent()
    with (
        awaiting(watch.describe, reports=False),
        halting(watch.halt),
        conversation(worker.conn, watch.clock, course.tell) as talk,
    ):
        talk.send(message.encode())
        with suppress(Stopped):  # the conversation sees it too
            hooks.on_sent()
        for answer in talk.answers():
            if answer.wants_data:
                talk.send_data(course.copy_data())
            else:
                course.take(answer)
    if talk.failure is not None:
        roll_back(worker.conn)
        raise _explain(worker, message, talk.failure, course.answered, watch)
    if course.answered != message.answer_count:
        text = "PostgreSQL gave another number of answers than there are statements"
        raise AssertionError(text)


class _Course:
    """The course of a message: what has been answered, and whose turn it is."""

    def __init__(self, message: Message, watch: Watch, hooks: Hooks) -> None:
        self.answered = 0
        self._message = message
        self._log = watch.log
        self._observer = watch.worker.observer
        self._hooks = hooks
        self._index = 0
        self._share = message.shares[0]
        self._share_answered = 0
        self._finish: Row = ()

    def take(self, answer: Answer) -> None:
        """Count an answer; tell of a migration when its last one has come."""
        parts = self._share.parts
        part = parts[self._share_answered]
        self.answered += 1
        self._share_answered += 1
        if self._observer is not None:
            self._observer.on_answer(self._share.task, part, answer)
        if isinstance(part, Own) and part.name == "finish":
            self._finish = answer.row
        if self._share_answered == len(parts):
            if self._hooks.on_commit is not None:
                self._hooks.on_commit(self._share, self._finish)
            self._next_share()

    def copy_data(self) -> Iterator[bytes]:
        """Yield the data that a COPY asks for, block by block."""
        share, (start, end) = self._message.copy_data(self.answered)
        script = share.task.script
        for _, block in blocks(script.content, start, end, COPY_BLOCK_BYTES):
            yield block

    def tell(self, notice: Notice) -> None:
        """Pass on what the file's statements raise as a notice."""
        self._hooks.on_migration(self._index)
        self._log.emit(
            MIGRATION_NOTICE,
            version=self._share.task.script.migration.version,
            severity=notice.severity,
            notice=notice.text,
        )

    def _next_share(self) -> None:
        shares = self._message.shares
        if self._index + 1 < len(shares):
            self._index += 1
            self._share, self._share_answered = shares[self._index], 0


def _explain(
    worker: Worker, message: Message, failure: SqlFailure, answered: int, watch: Watch
) -> Exception:
    encoding = worker.conn.pgconn.parameter_status(b"server_encoding")
    found = message.locate(failure.position, in_bytes=encoding == b"SQL_ASCII")
    if not answered and len(message.shares) > 1:
        index = None if found is None else message.shares.index(found.share)
        return UnparsedError(index)
    found = found or message.part_after(answered)
    if failure.sqlstate == QUERY_CANCELED and watch.attempt.was_cancelled:
        error = describe_failure(worker, found.share.task.script, failure)
        words = "waited for its locks longer than GATE_DDL_LOCK_TIMEOUT"
        return LocksNotFreeError(error._replace(error_message=words))
    return explain_failure(worker, found, failure)


def roll_back(conn: psycopg.Connection[Any]) -> None:
    """End a transaction that is still open, and clear what a rollback does not undo."""
    if conn.pgconn.transaction_status != pq.TransactionStatus.IDLE:
        with translated("roll back"):
            conn.execute(ROLL_BACK)


def keep_settings(worker: Worker) -> None:
    """Bring back what holds in the worker's session, not its defaults."""
    calls = keep_calls(worker)
    if calls:
        with worker.translated("keep the settings of the session"):
            worker.conn.execute(select(calls))
