"""
Connect to one server, until a moment and no longer.

By hand: the driver's own limit is in whole seconds, two at the least, and holds for
each address anew.
"""

from __future__ import annotations

import time

from collections.abc import Mapping

import psycopg

from psycopg import pq
from psycopg.conninfo import make_conninfo
from psycopg.waiting import Wait

from migration_gate.connection.waits import is_ready


REGRESS_MODE = pq.Trace.REGRESS_MODE


class DialError(Exception):
    """
    A connection failed, for what libpq says.

    ``address`` has host, hostaddr and port of the server, as far as libpq knows them.
    """

    def __init__(self, text: str, address: Mapping[str, str]) -> None:
        super().__init__(text)
        self.address = address


def dial(
    parameters: Mapping[str, str],
    *,
    until_s: float,
    trace: int | None = None,
    shows_login: bool = False,
) -> pq.abc.PGconn:
    """
    Connect to one server.

    Args:
        parameters: Those of one server, with its address: nothing is resolved here.
        until_s: When to give up, on the monotonic clock.
        trace: A file descriptor that libpq writes its messages to, until it is in.
        shows_login: What is exchanged to log in is among them.

    Raises:
        DialError: The connection failed, or took too long.
    """
    try:
        conninfo = make_conninfo(**dict(parameters))
        pgconn = pq.PGconn.connect_start(conninfo.encode())
    except psycopg.Error as error:
        raise DialError(str(error), {}) from error
    try:
        if trace is not None:
            pgconn.trace(trace)
            # That mode hides what SCRAM exchanges.
            flags = pq.Trace.SUPPRESS_TIMESTAMPS if shows_login else REGRESS_MODE
            pgconn.set_trace_flags(flags)
        try:
            _connect(pgconn, until_s)
        finally:
            if trace is not None:
                pgconn.untrace()
    except BaseException:
        pgconn.finish()
        raise
    pgconn.nonblocking = 1
    return pgconn


def _connect(pgconn: pq.abc.PGconn, until_s: float) -> None:
    while pgconn.status != pq.ConnStatus.BAD:
        state = pgconn.connect_poll()
        if state == pq.PollingStatus.OK:
            return
        if state == pq.PollingStatus.FAILED:
            break
        reading = state == pq.PollingStatus.READING
        wanted = Wait.R if reading else Wait.W
        left_s = until_s - time.monotonic()
        # Of what never stops to send there is always something to read.
        if left_s <= 0 or not is_ready(pgconn.socket, wanted, left_s):
            raise DialError("connection timeout expired", address_of(pgconn))
    raise DialError(pgconn.get_error_message(), address_of(pgconn))


def address_of(pgconn: pq.abc.PGconn) -> dict[str, str]:
    """Return host, hostaddr and port of the server that a connection leads to."""
    found = {"host": pgconn.host, "hostaddr": pgconn.hostaddr, "port": pgconn.port}
    return {keyword: value.decode() for keyword, value in found.items() if value}
