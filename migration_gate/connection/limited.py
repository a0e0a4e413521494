"""
A connection whose wait for an answer can be limited, and can be interrupted.
"""

from __future__ import annotations

import logging
import math

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from types import MappingProxyType
from typing import Any, Final

import psycopg

from psycopg import pq

from migration_gate.connection.waits import (
    NoAnswerError,
    Steps,
    Stopped,
    T,
    awaiting_an_answer,
    drive,
    ending,
)


ANSWER_TIMEOUT_S: Final = 10.0
# Together less than signals.UNWIND_S.
CANCEL_TIMEOUT_S: Final = 1.0
LAST_ANSWER_TIMEOUT_S: Final = 1.0

# psycopg warns through logging, which writes to stderr where nobody listens.
logging.getLogger("psycopg").addHandler(logging.NullHandler())


class LimitedConnection(psycopg.Connection[Any]):
    """
    A connection whose wait for an answer can be limited, in seconds.

    ``until_s`` is when the wait ends that it was made in; None where that has no end.
    ``opened_with`` are its parameters; ``target_count`` is for how many targets of a
    fleet it has been used. ``defaults`` is the hash of the defaults of role and
    database that its session began with, once it was asked for, and ``is_outdated``
    tells that they are others now. ``is_usual`` tells that nothing it began with is in
    the way of files, and ``watches_client`` that the server notices when this client is
    gone, once that was asked. ``history_table`` is that of the last target that it held
    the lock of, and still does where ``is_held``; None where that is unknown, or a
    pooler may stand between. ``is_behind`` is the schema and the name of a history that
    a glance has seen to lack something; None where it has not.
    """

    answer_timeout_s: float = math.inf
    until_s: float | None = None
    opened_with: Mapping[str, str] = MappingProxyType({})
    target_count: int = 0
    defaults: str | None = None
    is_outdated: bool = False
    is_usual: bool = False
    watches_client: bool = False
    history_table: str | None = None
    is_held: bool = False
    is_behind: tuple[str, str] | None = None

    def wait(
        self,
        gen: Steps[T],
        interval: float = 0.0,  # noqa: ARG002  # psycopg's, who looks for signals so
        timeout: float | None = None,
    ) -> T:
        """
        Wait as the gate does; what is not waited for any more is cancelled.

        Raises:
            NoAnswerError: It took longer than the limit.
            Stopped: The run is to stop.
        """
        limit_s = self.answer_timeout_s if timeout is None else timeout
        try:
            with awaiting_an_answer():
                return drive(gen, self.pgconn.socket, limit_s=limit_s)
        except (NoAnswerError, Stopped):
            self._give_up(gen)
            raise

    def _give_up(self, gen: Steps[T]) -> None:
        """Let the server end what nobody waits for any more, if it can be reached."""
        limit_s = LAST_ANSWER_TIMEOUT_S
        with suppress(psycopg.Error), ending():
            self.cancel_safe(timeout=CANCEL_TIMEOUT_S)
            drive(gen, self.pgconn.socket, limit_s=limit_s)
        if self.pgconn.transaction_status == pq.TransactionStatus.ACTIVE:
            self.close()


@contextmanager
def limited(
    conn: LimitedConnection, timeout_s: float = ANSWER_TIMEOUT_S
) -> Iterator[None]:
    """
    Wait for an answer no longer than this.

    Raises:
        NoAnswerError: It took longer, and is cancelled.
    """
    before, conn.answer_timeout_s = conn.answer_timeout_s, timeout_s
    try:
        yield
    finally:
        conn.answer_timeout_s = before
