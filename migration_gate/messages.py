"""
Send one message of the simple protocol and keep every answer.

psycopg's Cursor.execute drops the answers that came before an error; the gate counts
them to know which statement failed. A signal cancels the statement on the server.
"""

from __future__ import annotations

import select

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import psycopg

from psycopg import pq

from migration_gate.errors import SqlFailure


CANCEL_TIMEOUT_S: Final = 2.0
TICK_S: Final = 0.5
DRAIN_TICKS: Final = 4
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
            tuple(_text(result.get_value(row, column)) for column in range(result.nfields))
            for row in range(result.ntuples)
        )


def send_message(
    conn: psycopg.Connection[Any],
    message: bytes,
    *,
    on_tick: Callable[[], None] = lambda: None,
) -> Answers:
    """
    Send a message and wait for all of its answers.

    Args:
        on_tick: Called about twice a second while PostgreSQL works.

    Raises:
        ConnectionLostError: Whether the message took effect is not known.
    """
    pgconn = conn.pgconn
    try:
        pgconn.send_query(message)
        _flush(pgconn)
        return _to_answers(_collect(pgconn, on_tick))
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
    pgconn: pq.abc.PGconn, on_tick: Callable[[], None]
) -> list[pq.abc.PGresult]:
    results = []
    while True:
        while pgconn.is_busy():
            if _wait(pgconn, select.POLLIN, TICK_S):
                pgconn.consume_input()
            else:
                on_tick()
            _deliver_notices(pgconn)
        result = pgconn.get_result()
        if result is None:
            break
        results.append(result)
        if result.status in COPY_STATES:
            message = "a COPY with the client reached the server"
            raise AssertionError(message)
    if pgconn.status != pq.ConnStatus.OK:
        last = results[-1].error_message if results else b""
        raise psycopg.OperationalError(last.decode("utf-8", "replace"))
    return results


COPY_STATES: Final = frozenset(
    {pq.ExecStatus.COPY_IN, pq.ExecStatus.COPY_OUT, pq.ExecStatus.COPY_BOTH}
)


def _deliver_notices(pgconn: pq.abc.PGconn) -> None:
    """Let LISTEN's notifications go: nothing here waits for them."""
    while pgconn.notifies():
        pass


def _to_answers(results: list[pq.abc.PGresult]) -> Answers:
    failed = [r for r in results if r.status == pq.ExecStatus.FATAL_ERROR]
    done = tuple(r for r in results if r.status != pq.ExecStatus.FATAL_ERROR)
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
        for _ in range(DRAIN_TICKS):
            if not conn.pgconn.is_busy():
                break
            if _wait(conn.pgconn, select.POLLIN, TICK_S):
                conn.pgconn.consume_input()
    except psycopg.Error:
        return  # unreachable: client_connection_check_interval ends it there
    finally:
        conn.close()


def _wait(pgconn: pq.abc.PGconn, events: int, timeout_s: float) -> int:
    """Wait for the socket; return the events that came, 0 for none."""
    poll = select.poll()
    poll.register(pgconn.socket, events)
    ready = poll.poll(timeout_s * 1000)
    return ready[0][1] if ready else 0
