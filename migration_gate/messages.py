"""
Send one message of the simple protocol and keep every answer.

psycopg's Cursor.execute drops the answers that came before an error; the gate counts
them to know which statement failed. A signal cancels the statement on the server.
"""

from __future__ import annotations

import select
import time

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import psycopg

from psycopg import pq

from migration_gate.errors import SqlFailure


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
    "position": pq.DiagnosticField.STATEMENT_POSITION,
}


class ConnectionLostError(Exception):
    """The connection ended before the answer came: what was sent may have happened."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What a message was answered with: results in order, then perhaps an error."""

    results: tuple[pq.abc.PGresult, ...]
    failure: SqlFailure | None

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
    """What to call while PostgreSQL works, and how often."""

    call: Callable[[], None]
    interval_s: float


def no_data(_answered: int) -> Iterator[bytes | memoryview]:
    """Give no data to a COPY: there is none in the message."""
    text = "PostgreSQL asks for data that nobody has"
    raise AssertionError(text)


def send_message(
    conn: psycopg.Connection[Any],
    message: bytes,
    *,
    on_tick: Callable[[], None] = lambda: None,
    tick_s: float = TICK_S,
    copy_data: Callable[[int], Iterable[bytes | memoryview]] = no_data,
) -> Answers:
    """
    Send a message and wait for all of its answers.

    Args:
        on_tick: Called now and then while PostgreSQL works.
        tick_s: How long after the last answer or call.
        copy_data: Gives the data for a COPY FROM STDIN, told how many answers came
            before it.

    Raises:
        ConnectionLostError: Whether the message took effect is not known.
    """
    pgconn = conn.pgconn
    try:
        pgconn.send_query(message)
        _flush(pgconn)
        ticks = Ticks(on_tick, tick_s)
        return _to_answers(_collect(pgconn, ticks, copy_data))
    except psycopg.OperationalError as error:
        raise ConnectionLostError(str(error)) from error
    except BaseException:
        _cancel(conn)
        raise


def is_alive(conn: psycopg.Connection[Any]) -> bool:
    """Tell, without a round trip, whether the server has closed an idle connection."""
    pgconn = conn.pgconn
    if pgconn.status != pq.ConnStatus.OK:
        return False
    if not _wait(pgconn, select.POLLIN, 0):
        return True
    try:
        pgconn.consume_input()
    except psycopg.OperationalError:
        return False
    return pgconn.status == pq.ConnStatus.OK


def _flush(pgconn: pq.abc.PGconn) -> None:
    while pgconn.flush():
        events = _wait(pgconn, select.POLLIN | select.POLLOUT, TICK_S)
        if events & select.POLLIN:
            pgconn.consume_input()


def _collect(
    pgconn: pq.abc.PGconn,
    ticks: Ticks,
    copy_data: Callable[[int], Iterable[bytes | memoryview]],
) -> list[pq.abc.PGresult]:
    results: list[pq.abc.PGresult] = []
    while True:
        while pgconn.is_busy():
            if _wait(pgconn, select.POLLIN, ticks.interval_s):
                pgconn.consume_input()
            else:
                ticks.call()
            _deliver_notices(pgconn)
        result = pgconn.get_result()
        if result is None:
            break
        if result.status == pq.ExecStatus.COPY_IN:
            _send_data(pgconn, copy_data(len(results)))
        elif result.status in OTHER_COPY_STATES:
            text = "PostgreSQL sends the data of a COPY"
            raise AssertionError(text)
        else:
            results.append(result)
    if pgconn.status != pq.ConnStatus.OK:
        last = results[-1].error_message if results else b""
        raise psycopg.OperationalError(last.decode("utf-8", "replace"))
    return results


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


def _to_answers(results: list[pq.abc.PGresult]) -> Answers:
    failed = [r for r in results if r.status == pq.ExecStatus.FATAL_ERROR]
    # What a rule of DO ALSO SELECT shows comes first, without a command's tag.
    done = tuple(r for r in results if r not in failed and r.command_status)
    return Answers(done, result_to_failure(failed[0]) if failed else None)


def result_to_failure(result: pq.abc.PGresult) -> SqlFailure:
    """Return the fields of an error, as PostgreSQL gave them."""
    said = {name: _text(result.error_field(f)) for name, f in FIELDS.items()}
    position = said.pop("position")
    return SqlFailure(**said, position=int(position) if position else None)


def _text(value: bytes | memoryview | None) -> str | None:
    return None if value is None else bytes(value).decode("utf-8", "replace")


def _cancel(conn: psycopg.Connection[Any]) -> None:
    """Cancel what runs, and wait a little for its end, so that nothing is left."""
    try:
        conn.cancel_safe(timeout=CANCEL_TIMEOUT_S)
        _drain(conn.pgconn)
    except psycopg.Error:
        return  # unreachable: client_connection_check_interval ends it there
    finally:
        conn.close()


def _drain(pgconn: pq.abc.PGconn) -> None:
    """Let the answers go until the server has rolled back."""
    deadline_s = time.monotonic() + DRAIN_TIMEOUT_S
    while (left_s := deadline_s - time.monotonic()) > 0:
        if pgconn.is_busy():
            if _wait(pgconn, select.POLLIN, left_s):
                pgconn.consume_input()
            continue
        result = pgconn.get_result()
        if result is None or result.status in ALL_COPY_STATES:
            return


def _wait(pgconn: pq.abc.PGconn, events: int, timeout_s: float) -> int:
    """Wait for the socket; return the events that came, 0 for none."""
    poll = select.poll()
    poll.register(pgconn.socket, events)
    ready = poll.poll(timeout_s * 1000)
    return ready[0][1] if ready else 0
