"""
Talk to PostgreSQL in messages of the simple protocol: send one, take each answer.

psycopg's Cursor.execute drops the answers that came before an error; the gate counts
them to know which statement failed. Rows are let go as they come. A wish to stop
cancels the statement on the server.
"""

from __future__ import annotations

import math
import time

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, NamedTuple, TypeAlias

import psycopg

from psycopg import pq
from psycopg.waiting import Ready, Wait

from migration_gate.connection.room import send_query
from migration_gate.connection.waits import (
    Clock,
    Steps,
    Stopped,
    T,
    awaiting_an_answer,
    drive,
    ending,
    heartbeat,
    is_ready,
)
from migration_gate.report.errors import SqlFailure
from migration_gate.report.outcomes import ConnectionLostError


# Together less than signals.UNWIND_S.
CANCEL_TIMEOUT_S: Final = 1.5
DRAIN_TIMEOUT_S: Final = 1.0
FIELDS: Final = {
    "sqlstate": pq.DiagnosticField.SQLSTATE,
    "message": pq.DiagnosticField.MESSAGE_PRIMARY,
    "detail": pq.DiagnosticField.MESSAGE_DETAIL,
    "hint": pq.DiagnosticField.MESSAGE_HINT,
    "context": pq.DiagnosticField.CONTEXT,
    "constraint": pq.DiagnosticField.CONSTRAINT_NAME,
    "table": pq.DiagnosticField.TABLE_NAME,
    "source": pq.DiagnosticField.SOURCE_FUNCTION,
    "severity": pq.DiagnosticField.SEVERITY_NONLOCALIZED,
    "position": pq.DiagnosticField.STATEMENT_POSITION,
}
ROW: Final = pq.ExecStatus.SINGLE_TUPLE
OTHER_COPY_STATES: Final = frozenset({pq.ExecStatus.COPY_OUT, pq.ExecStatus.COPY_BOTH})
COPY_STATES: Final = OTHER_COPY_STATES | {pq.ExecStatus.COPY_IN}

Row: TypeAlias = tuple[str | None, ...]


class Notice(NamedTuple):
    """What a statement says while it works, as its author wrote it."""

    severity: str | None
    text: str | None


class Answer(NamedTuple):
    """
    What PostgreSQL answers to one statement: that it is done, or a wish for data.

    Only the first row is kept of what it returns.
    """

    result: pq.abc.PGresult
    first: pq.abc.PGresult | None

    @property
    def wants_data(self) -> bool:
        """Return whether the statement is a COPY FROM STDIN that waits for its data."""
        return self.result.status == pq.ExecStatus.COPY_IN

    @property
    def row(self) -> Row:
        """Return the first row, values as text; empty where there is none."""
        first = self.first
        if first is None:
            return ()
        return tuple(_text(first.get_value(0, at)) for at in range(first.nfields))


class Answers(NamedTuple):
    """All that a message was answered with: in order, then perhaps an error."""

    done: tuple[Answer, ...]
    failure: SqlFailure | None


class Conversation:
    """
    A message and its answers, each as it comes; ``failure`` is the error at its end.

    When the run is to stop, what runs is cancelled, and the answers that are under way
    are taken still: a commit among them has happened.
    """

    def __init__(
        self,
        conn: psycopg.Connection[Any],
        clock: Clock,
        on_notice: Callable[[Notice], None],
    ) -> None:
        self.failure: SqlFailure | None = None
        # What has come, in its order. Notices come in the driver's callback, where an
        # exception would be lost: there they are noted, and acted on in their turn.
        self._news: deque[Answer | Notice] = deque()
        self._conn = conn
        self._pgconn = conn.pgconn
        self._work = clock
        self._on_notice = on_notice
        self._first: pq.abc.PGresult | None = None
        self._stopped: Stopped | None = None
        self._drained_s = 0.0
        self._last_words = ""

    def hear(self, notice: psycopg.errors.Diagnostic) -> None:
        """Note a notice, of which nothing is left after the driver's callback."""
        severity = notice.severity_nonlocalized or notice.severity
        self._news.append(Notice(severity, notice.message_primary))

    def send(self, message: bytes) -> None:
        """Send a message; PostgreSQL then works at it."""
        send_query(self._pgconn, message)
        self._pgconn.set_single_row_mode()
        self._run(_flush(self._pgconn))

    def answers(self) -> Iterator[Answer]:
        """
        Yield what each statement is answered with; a wish for data has to be met.

        Raises:
            Stopped: The run is to stop, and all that came has been yielded.
            psycopg.OperationalError: The connection is lost.
        """
        is_over = False
        while not is_over:
            is_over = self._run(self._take())
            while self._news:
                news = self._news.popleft()
                if not isinstance(news, Answer):
                    self._on_notice(news)
                elif self._is_answer(news):
                    yield news
        self.require_wanted()
        if self._pgconn.status != pq.ConnStatus.OK:
            raise psycopg.OperationalError(self._last_words)

    def send_data(self, blocks: Iterable[bytes]) -> None:
        """Send the data of one COPY; an error of the server's comes as its answer."""
        self._run(_send_data(self._pgconn, blocks, lambda: self._stopped is not None))

    def require_wanted(self) -> None:
        """Raise Stopped where the run is to stop."""
        if self._stopped is not None:
            raise self._stopped

    def _run(self, steps: Steps[T]) -> T:
        """Take steps to their end; cancel what runs, once, when the run is to stop."""
        socket = self._pgconn.socket
        if self._stopped is None:
            try:
                return drive(steps, socket, self._clock)
            except Stopped as stopped:
                self._stopped = stopped
                self._conn.cancel_safe(timeout=CANCEL_TIMEOUT_S)
                self._drained_s = time.monotonic() + DRAIN_TIMEOUT_S
        left_s = self._drained_s - time.monotonic()
        with ending():
            return drive(steps, socket, self._clock, limit_s=left_s)

    def _clock(self) -> float:
        """Tell of notices, however many come, and do what is due."""
        while self._news:
            news = self._news[0]
            if isinstance(news, Answer):
                break
            self._news.popleft()
            self._on_notice(news)
        return self._work() if self._stopped is None else math.inf

    def _is_answer(self, answer: Answer) -> bool:
        """Tell the answer to a statement from an error, and from what a rule shows."""
        result = answer.result
        if result.status == pq.ExecStatus.FATAL_ERROR:
            self._last_words = result.error_message.decode("utf-8", "replace")
            self.failure = self.failure or result_to_failure(result)
            return False
        if result.status in OTHER_COPY_STATES:
            text = "PostgreSQL sends the data of a COPY"
            raise AssertionError(text)
        # DO ALSO SELECT of a rule comes without a tag.
        return answer.wants_data or bool(result.command_status)

    def _take(self) -> Steps[bool]:
        """Take what comes at once; True at the end of the message."""
        pgconn, taken = self._pgconn, len(self._news)
        while True:
            while pgconn.is_busy():
                if len(self._news) > taken:
                    return False
                while not (yield Wait.R):
                    pass
                pgconn.consume_input()
                while pgconn.notifies():  # LISTEN's: nothing here waits for them
                    pass
            result = pgconn.get_result()
            if result is None:
                return True
            if result.status == ROW:
                self._first = self._first or result
                continue
            self._news.append(Answer(result, self._first))
            self._first = None
            if result.status in COPY_STATES:
                return False


@contextmanager
def conversation(
    conn: psycopg.Connection[Any],
    clock: Clock = heartbeat,
    on_notice: Callable[[Notice], None] = lambda _: None,
) -> Iterator[Conversation]:
    """
    Talk to PostgreSQL in a block; one that ends early leaves nothing running.

    Args:
        clock: Called at each turn.
        on_notice: Called in the loop, in the order in which notices and answers come.

    Raises:
        ConnectionLostError: Whether the rest of the message took effect is not known.
        Stopped: The run is to stop, and the connection is closed.
    """
    talk = Conversation(conn, clock, on_notice)
    conn.add_notice_handler(talk.hear)
    try:
        yield talk
    except psycopg.Error as error:
        conn.close()  # client_connection_check_interval ends what still runs there
        talk.require_wanted()
        if not isinstance(error, psycopg.OperationalError):
            raise
        raise _to_loss(talk.failure, error) from error
    except BaseException:
        if conn.pgconn.transaction_status == pq.TransactionStatus.ACTIVE:
            with suppress(psycopg.Error):
                conn.cancel_safe(timeout=CANCEL_TIMEOUT_S)
        conn.close()
        raise
    finally:
        conn.remove_notice_handler(talk.hear)


def send_message(conn: psycopg.Connection[Any], message: bytes) -> Answers:
    """
    Send a message of a few statements, and keep what each is answered with.

    Raises:
        ConnectionLostError: Whether the rest of the message took effect is not known.
    """
    with awaiting_an_answer(), conversation(conn) as talk:
        talk.send(message)
        done = tuple(talk.answers())
    return Answers(done, talk.failure)


def _to_loss(
    failure: SqlFailure | None, error: psycopg.OperationalError
) -> ConnectionLostError:
    """Return the loss with the server's last word, where it said one."""
    if failure is None or not failure.ends_session:
        return ConnectionLostError(" ".join(str(error).split()))
    from migration_gate.report.cleaning import (  # noqa: PLC0415  # most lose nothing
        clean_failure,
    )

    words = clean_failure(failure, full=False)["error_message"] or ""
    return ConnectionLostError(words, failure.sqlstate)


def copy_out(
    conn: psycopg.Connection[Any], message: bytes, bytes_max: int
) -> list[list[bytes] | None]:
    """
    Send a message, and return the lines of each COPY … TO STDOUT in it.

    None stands for more than ``bytes_max``: that is let go as it comes.

    Raises:
        psycopg.Error: The server has refused one of its statements.
    """
    conn.pgconn.send_query(message)
    # The driver's name for what it waits for.
    steps: Any = _take_copies(conn.pgconn, bytes_max)
    taken: list[list[bytes] | None] = conn.wait(steps)
    return taken


def is_alive(conn: psycopg.Connection[Any]) -> bool:
    """
    Tell, without a round trip, whether the server has ended an idle connection.

    Its last word comes before its locks are free, and before the end of the stream:
    libpq takes an error that answers nothing for a notice.
    """
    pgconn = conn.pgconn
    if pgconn.status != pq.ConnStatus.OK:
        return False
    if not is_ready(pgconn.socket):
        return True
    last_words: list[str | None] = []

    def listen(notice: psycopg.errors.Diagnostic) -> None:
        last_words.append(notice.severity_nonlocalized)

    conn.add_notice_handler(listen)
    try:
        pgconn.consume_input()
        pgconn.is_busy()  # reads what has come
    except psycopg.OperationalError:
        return False
    finally:
        conn.remove_notice_handler(listen)
    return pgconn.status == pq.ConnStatus.OK and "FATAL" not in last_words


def result_to_failure(result: pq.abc.PGresult) -> SqlFailure:
    """Return the fields of an error, as PostgreSQL gave them."""
    said = {name: _text(result.error_field(f)) for name, f in FIELDS.items()}
    position = said.pop("position")
    return SqlFailure(**said, position=int(position) if position else None)


def _flush(pgconn: pq.abc.PGconn) -> Steps[None]:
    while pgconn.flush():
        while not (ready := (yield Wait.RW)):
            pass
        if ready & Ready.R:
            pgconn.consume_input()


def _take_copies(
    pgconn: pq.abc.PGconn, bytes_max: int
) -> Steps[list[list[bytes] | None]]:
    yield from _flush(pgconn)
    copies: list[list[bytes] | None] = []
    refusal: pq.abc.PGresult | None = None
    while True:
        while pgconn.is_busy():
            yield from _consume(pgconn)
        result = pgconn.get_result()
        if result is None:
            break
        if result.status == pq.ExecStatus.COPY_OUT:
            copies.append((yield from _take_lines(pgconn, bytes_max)))
        elif result.status == pq.ExecStatus.FATAL_ERROR:
            refusal = refusal or result
    if refusal is not None:
        raise psycopg.errors.error_from_result(refusal)
    return copies


def _take_lines(pgconn: pq.abc.PGconn, bytes_max: int) -> Steps[list[bytes] | None]:
    lines: list[bytes] = []
    left = bytes_max
    while True:
        length, line = pgconn.get_copy_data(1)
        if length > 0:
            left -= length
            if left >= 0:
                lines.append(bytes(line))
            else:
                lines.clear()
        elif length == 0:  # more is under way
            yield from _consume(pgconn)
        else:
            return lines if left >= 0 else None


def _consume(pgconn: pq.abc.PGconn) -> Steps[None]:
    while not (yield Wait.R):
        pass
    pgconn.consume_input()


def _send_data(
    pgconn: pq.abc.PGconn, blocks: Iterable[bytes], is_stopping: Callable[[], bool]
) -> Steps[None]:
    for block in blocks:
        while pgconn.put_copy_data(block) == 0:  # the buffer is full
            yield from _flush(pgconn)
        yield from _flush(pgconn)
        yield Wait.W  # a turn for the clock, though the server takes all at once
        if is_stopping():
            break
    why = b"the gate is to stop" if is_stopping() else None
    while pgconn.put_copy_end(why) == 0:
        yield from _flush(pgconn)
    yield from _flush(pgconn)


def _text(value: bytes | memoryview | None) -> str | None:
    return None if value is None else bytes(value).decode("utf-8", "replace")
