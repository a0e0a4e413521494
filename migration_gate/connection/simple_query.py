"""
Send one message of the simple protocol and keep every answer.

psycopg's Cursor.execute drops the answers that came before an error; the gate counts
them to know which statement failed. A signal cancels the statement on the server.
"""

from __future__ import annotations

import select
import time

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg

from psycopg import pq

from migration_gate.report.cleaning import clean_failure
from migration_gate.report.errors import SqlFailure
from migration_gate.report.outcomes import ConnectionLostError


# Together less than stop.UNWIND_S.
CANCEL_TIMEOUT_S: Final = 1.5
DRAIN_TIMEOUT_S: Final = 1.0
TICK_S: Final = 0.5
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


@dataclass(slots=True)
class Answers:
    """What a message was answered with: results in order, then perhaps an error."""

    on_answer: Callable[[Answers], None]
    results: list[pq.abc.PGresult] = field(default_factory=list)
    failure: SqlFailure | None = None

    def take(self, result: pq.abc.PGresult) -> None:
        """Keep a result: each statement gives one, but what a rule shows beside it."""
        if result.status == pq.ExecStatus.FATAL_ERROR:
            self.failure = self.failure or result_to_failure(result)
        elif result.command_status:  # DO ALSO SELECT of a rule comes without a tag
            if result.ntuples > 1:  # a file's, that nobody reads: let the memory go
                result.clear()
            self.results.append(result)
            self.on_answer(self)

    def rows(self, index: int) -> tuple[tuple[str | None, ...], ...]:
        """Return the rows of one result, values as text."""
        result = self.results[index]
        return tuple(
            tuple(
                _text(result.get_value(row, column)) for column in range(result.nfields)
            )
            for row in range(result.ntuples)
        )


@dataclass(frozen=True, slots=True)
class Ticks:
    """What to call while PostgreSQL works, and how long after the last answer."""

    call: Callable[[], None]
    interval_s: Callable[[], float]


NO_TICKS: Final = Ticks(lambda: None, lambda: TICK_S)


def no_data(_answered: int) -> Iterator[bytes | memoryview]:
    """Give no data to a COPY: there is none in the message."""
    text = "PostgreSQL asks for data that nobody has"
    raise AssertionError(text)


def nobody_listens(_answers: Answers) -> None:
    """Let the answers that have come so far go by."""


def send_message(  # noqa: PLR0913  # what is called meanwhile, by name
    conn: psycopg.Connection[Any],
    message: bytes,
    *,
    ticks: Ticks = NO_TICKS,
    copy_data: Callable[[int], Iterable[bytes | memoryview]] = no_data,
    on_answer: Callable[[Answers], None] = nobody_listens,
    on_sent: Callable[[], None] = lambda: None,
) -> Answers:
    """
    Send a message and wait for all of its answers.

    Args:
        ticks: What to call now and then while PostgreSQL works.
        copy_data: Gives the data for a COPY FROM STDIN, told how many answers came
            before it.
        on_sent: Called once while PostgreSQL works, before any answer is taken.
        on_answer: Called at each answer, with those that have come so far; also for
            those that come while a signal ends the run.

    Raises:
        ConnectionLostError: Whether the rest of the message took effect is not known.
    """
    pgconn, answers = conn.pgconn, Answers(on_answer)
    try:
        pgconn.send_query(message)
        _flush(pgconn)
        on_sent()
        _collect(pgconn, answers, ticks, copy_data)
    except psycopg.OperationalError as error:
        raise _to_loss(answers.failure, error) from error
    except BaseException:
        _cancel(conn, answers)
        raise
    return answers


def _to_loss(
    failure: SqlFailure | None, error: psycopg.OperationalError
) -> ConnectionLostError:
    """Return the loss with the server's last word, where it said one."""
    if failure is None or not failure.ends_session:
        return ConnectionLostError(" ".join(str(error).split()))
    words = clean_failure(failure, full=False)["error_message"] or ""
    return ConnectionLostError(words, failure.sqlstate)


def is_alive(conn: psycopg.Connection[Any]) -> bool:
    """
    Tell, without a round trip, whether the server has ended an idle connection.

    Its last word comes before its locks are free, and before the end of the stream:
    libpq takes an error that answers nothing for a notice.
    """
    pgconn = conn.pgconn
    if pgconn.status != pq.ConnStatus.OK:
        return False
    if not _wait(pgconn, select.POLLIN, 0):
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


def _flush(pgconn: pq.abc.PGconn) -> None:
    while pgconn.flush():
        events = _wait(pgconn, select.POLLIN | select.POLLOUT, TICK_S)
        if events & select.POLLIN:
            pgconn.consume_input()


def _collect(
    pgconn: pq.abc.PGconn,
    answers: Answers,
    ticks: Ticks,
    copy_data: Callable[[int], Iterable[bytes | memoryview]],
) -> None:
    last_error = b""
    while True:
        while pgconn.is_busy():
            if _wait(pgconn, select.POLLIN, ticks.interval_s()):
                pgconn.consume_input()
            else:
                ticks.call()
            _deliver_notices(pgconn)
        result = pgconn.get_result()
        if result is None:
            break
        if result.status == pq.ExecStatus.COPY_IN:
            _send_data(pgconn, copy_data(len(answers.results)))
        elif result.status in OTHER_COPY_STATES:
            text = "PostgreSQL sends the data of a COPY"
            raise AssertionError(text)
        else:
            last_error = result.error_message
            answers.take(result)
    if pgconn.status != pq.ConnStatus.OK:
        raise psycopg.OperationalError(last_error.decode("utf-8", "replace"))


OTHER_COPY_STATES: Final = frozenset({pq.ExecStatus.COPY_OUT, pq.ExecStatus.COPY_BOTH})
ALL_COPY_STATES: Final = OTHER_COPY_STATES | {pq.ExecStatus.COPY_IN}


def _send_data(pgconn: pq.abc.PGconn, data: Iterable[bytes | memoryview]) -> None:
    """Stream the data of one COPY; an error of the server's comes as its answer."""
    for block in data:
        while pgconn.put_copy_data(block) == 0:  # the buffer is full
            _flush(pgconn)
        _flush(pgconn)
    while pgconn.put_copy_end() == 0:
        _flush(pgconn)
    _flush(pgconn)


def _deliver_notices(pgconn: pq.abc.PGconn) -> None:
    """Let LISTEN's notifications go: nothing here waits for them."""
    while pgconn.notifies():
        pass


def result_to_failure(result: pq.abc.PGresult) -> SqlFailure:
    """Return the fields of an error, as PostgreSQL gave them."""
    said = {name: _text(result.error_field(f)) for name, f in FIELDS.items()}
    position = said.pop("position")
    return SqlFailure(**said, position=int(position) if position else None)


def _text(value: bytes | memoryview | None) -> str | None:
    return None if value is None else bytes(value).decode("utf-8", "replace")


def _cancel(conn: psycopg.Connection[Any], answers: Answers) -> None:
    """Cancel what runs, and wait a little for its end, so that nothing is left."""
    try:
        conn.cancel_safe(timeout=CANCEL_TIMEOUT_S)
        _drain(conn.pgconn, answers)
    except psycopg.Error:
        return  # unreachable: client_connection_check_interval ends it there
    finally:
        conn.close()


def _drain(pgconn: pq.abc.PGconn, answers: Answers) -> None:
    """Take the answers that were under way, until the server has rolled back."""
    deadline_s = time.monotonic() + DRAIN_TIMEOUT_S
    while (left_s := deadline_s - time.monotonic()) > 0:
        if pgconn.is_busy():
            if _wait(pgconn, select.POLLIN, left_s):
                pgconn.consume_input()
            continue
        result = pgconn.get_result()
        if result is None or result.status in ALL_COPY_STATES:
            return
        answers.take(result)


def _wait(pgconn: pq.abc.PGconn, events: int, timeout_s: float) -> int:
    """Wait for the socket; return the events that came, 0 for none."""
    poll = select.poll()
    poll.register(pgconn.socket, events)
    ready = poll.poll(timeout_s * 1000)
    return ready[0][1] if ready else 0
