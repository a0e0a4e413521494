"""
Ask a server that refuses a connection for the SQLSTATE of its refusal.

psycopg and libpq keep it to themselves, and the text may be in any language. One more
attempt is made with libpq's trace on, which shows the fields of the answer.
"""

from __future__ import annotations

import os
import re
import select
import time

from collections.abc import Mapping
from typing import Final

from psycopg import Error, pq
from psycopg.conninfo import make_conninfo


TIMEOUT_S: Final = 2.0
CODE: Final = re.compile(rb'\tErrorResponse\t.*? C "([0-9A-Z]{5})"')


def ask_sqlstate(parameters: Mapping[str, str]) -> str | None:
    """
    Return the SQLSTATE with which a connection is refused; None where none came.

    Args:
        parameters: Those of one server, with its hostaddr: nothing is resolved here.
    """
    if not hasattr(os, "memfd_create"):  # Linux has it
        return None
    trace = os.memfd_create("trace")
    try:
        _connect(make_conninfo(**dict(parameters)), trace)
        os.lseek(trace, 0, os.SEEK_SET)
        found = CODE.search(os.read(trace, 65536))
    except (Error, OSError):
        return None
    finally:
        os.close(trace)
    return found[1].decode() if found else None


def _connect(conninfo: str, trace: int) -> None:
    """Go as far as the server lets; what it says is in the trace."""
    pgconn = pq.PGconn.connect_start(conninfo.encode())
    try:
        pgconn.trace(trace)
        pgconn.set_trace_flags(pq.Trace.REGRESS_MODE)  # hides what SCRAM exchanges
        deadline_s = time.monotonic() + TIMEOUT_S
        while pgconn.status != pq.ConnStatus.BAD and time.monotonic() < deadline_s:
            state = pgconn.connect_poll()
            if state not in {pq.PollingStatus.READING, pq.PollingStatus.WRITING}:
                return
            wanted = (
                select.POLLIN if state == pq.PollingStatus.READING else select.POLLOUT
            )
            poll = select.poll()
            poll.register(pgconn.socket, wanted)
            poll.poll(max(0.0, deadline_s - time.monotonic()) * 1000)
    finally:
        pgconn.untrace()
        pgconn.finish()
