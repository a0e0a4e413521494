"""
Send a long query without the copies that libpq makes of it where it can.

PQsendQuery puts the whole text into a buffer, from which it is sent; then it keeps a
second copy, and at an error makes more of them, for messages that nobody here reads. It
says "remember the query text too, if possible" (fe-exec.c): where the process may have
no more memory, it does without. So that is how a long query is sent.
"""

from __future__ import annotations

import os
import threading

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psycopg


if TYPE_CHECKING:
    from psycopg import pq


LONG_BYTES: Final = 4 << 20
# For what else is done meanwhile; less than a long query.
SPARE_BYTES: Final = 2 << 20
STATM: Final = Path("/proc/self/statm")


def send_query(pgconn: pq.abc.PGconn, query: bytes) -> None:
    """
    Send a query, of which there are two copies when it is a long one: libpq's and ours.

    Raises:
        psycopg.OperationalError: The connection is lost.
    """
    # The limit is the whole process's: other targets of a fleet would fail by it.
    is_alone = threading.current_thread() is threading.main_thread()
    if len(query) < LONG_BYTES or not is_alone:
        pgconn.send_query(query)
        return
    # The buffer may be large enough since the last one: room for it comes second.
    for room in (SPARE_BYTES, len(query) + SPARE_BYTES):
        try:
            with _at_most(room):
                pgconn.send_query(query)
        except (psycopg.OperationalError, MemoryError):
            if pgconn.status != psycopg.pq.ConnStatus.OK:
                raise
        else:
            return
    pgconn.send_query(query)


@contextmanager
def _at_most(room: int) -> Iterator[None]:
    """Let the process have so much more address space, and no more, in a block."""
    try:
        import resource  # noqa: PLC0415  # few queries are long
    except ImportError:  # no such limit on this system
        yield
        return
    try:
        pages = int(STATM.read_text().split()[0])
    except OSError:
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * os.sysconf("SC_PAGE_SIZE") + room
    if before[0] != resource.RLIM_INFINITY:
        limit = min(limit, before[0])
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
