"""
Send a message of migrations and judge its answers; nothing is left open by an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import psycopg

from psycopg import pq

from migration_gate.connection.refusals import translated
from migration_gate.connection.simple_query import Answers, send_message
from migration_gate.execution.failure import describe_failure, judge_failure
from migration_gate.execution.frame import keep_calls, select
from migration_gate.execution.message import Message, Share, find_own
from migration_gate.execution.watch import Watch
from migration_gate.execution.worker import Worker
from migration_gate.report.outcomes import LocksNotFreeError
from migration_gate.statements import blocks


QUERY_CANCELED: Final = "57014"
COPY_BLOCK_BYTES: Final = 1 << 18
ROLL_BACK: Final = (
    b"ROLLBACK; DEALLOCATE ALL; DISCARD SEQUENCES; "
    b"SELECT pg_catalog.pg_advisory_unlock_all()"
)

Row = tuple[str | None, ...]


class UnparsedError(Exception):
    """
    PostgreSQL could not read a message of several migrations, and has done none of it.

    ``place`` is that of the migration at fault; None where PostgreSQL does not say.
    """

    def __init__(self, place: int | None) -> None:
        super().__init__("the message was not read")
        self.place = place


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """
    What is called while a message is under way.

    ``on_sent`` once, while PostgreSQL works. ``on_place`` when the message is seen to
    have come to a migration, with its place in it. ``on_commit`` for each migration as
    soon as its COMMIT is answered, with the row that its "finish" gave.
    """

    on_sent: Callable[[], None] = lambda: None
    on_place: Callable[[int], None] = lambda _: None
    on_commit: Callable[[Share, Row], None] | None = None


NO_HOOKS: Final = Hooks()


def exchange(
    worker: Worker,
    message: Message,
    watch: Watch,
    hooks: Hooks = NO_HOOKS,
    *,
    blocks_queries: bool = True,
) -> None:
    """
    Send a message, while the lock is still held.

    Args:
        blocks_queries: False for a statement behind whose lock waits nobody queues:
            it may wait as long as it takes.

    Raises:
        MigrationFailedError: A statement failed, and its transaction is rolled back;
            the migrations before it are committed, and perhaps not yet flushed.
        LocksNotFreeError: The same, and it may be tried again.
        AlreadyAppliedError: The history had the row.
        UnparsedError: Nothing of a message of several migrations was done.
        ConnectionLostError: What has not been told of as committed may be.
    """

    def copy_data(answered: int) -> Iterator[bytes]:
        share, (start, end) = message.copy_data(answered)
        content = share.task.script.content
        for _, block in blocks(content, start, end, COPY_BLOCK_BYTES):
            yield block

    watch.start(message, blocks_queries=blocks_queries, on_place=hooks.on_place)
    commits = _Commits(message, hooks.on_commit)
    answers = send_message(
        worker.conn,
        message.encode(),
        ticks=watch.ticks,
        copy_data=copy_data,
        on_answer=commits.take,
        on_sent=hooks.on_sent,
    )
    if answers.failure is not None:
        roll_back(worker.conn)
        raise _judge(worker, message, answers, watch)
    if len(answers.results) != message.answer_count:
        text = "PostgreSQL gave another number of answers than there are statements"
        raise AssertionError(text)


class _Commits:
    """Tells of each migration whose last answer has come."""

    def __init__(
        self, message: Message, on_commit: Callable[[Share, Row], None] | None
    ) -> None:
        self._shares = iter(message.shares if on_commit is not None else ())
        self._on_commit = on_commit
        self._start = self._end = 0
        self._share: Share | None = None
        self._next()

    def take(self, answers: Answers) -> None:
        if self._share is None or len(answers.results) < self._end:
            return
        share, finish = self._share, find_own(self._share.parts, "finish")
        row = answers.rows(self._start + finish)[0]
        self._next()
        if self._on_commit is not None:
            self._on_commit(share, row)

    def _next(self) -> None:
        self._share = next(self._shares, None)
        self._start = self._end
        self._end += 0 if self._share is None else len(self._share.parts)


def _judge(
    worker: Worker, message: Message, answers: Answers, watch: Watch
) -> Exception:
    failure, answered = answers.failure, len(answers.results)
    assert failure is not None  # noqa: S101  # the caller has looked
    encoding = worker.conn.pgconn.parameter_status(b"server_encoding")
    found = message.locate(failure.position, in_bytes=encoding == b"SQL_ASCII")
    if not answered and len(message.shares) > 1:
        place = None if found is None else message.shares.index(found.share)
        return UnparsedError(place)
    found = found or message.part_after(answered)
    if failure.sqlstate == QUERY_CANCELED and watch.attempt.was_cancelled:
        error = describe_failure(worker, found.share.task.script, failure)
        words = "waited for its locks longer than GATE_DDL_LOCK_TIMEOUT"
        return LocksNotFreeError(error._replace(error_message=words))
    return judge_failure(worker, found, failure)


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
