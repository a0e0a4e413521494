"""
Backends that an earlier gate has left working: name them, and wait for their end.

A killed gate's statement runs on where the server does not watch its clients, and may
still commit.
"""

from __future__ import annotations

import time

from typing import Final

import psycopg

from migration_gate.logs import LOCK_WAITING, Log
from migration_gate.messages import ConnectionLostError
from migration_gate.monitor import find_key_holders
from migration_gate.session import Session, translated_loss


POLL_S: Final = 0.25
WHO: Final = """
SELECT application_name,
       pg_catalog.to_char(backend_start AT TIME ZONE 'UTC',
                          'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
       wait_event_type || ':' || wait_event
FROM pg_catalog.pg_stat_get_activity(%s)
"""


def wait_for_orphans(held: Session, work_key: int, log: Log) -> None:
    """
    Wait until no other backend runs a migration of this history.

    Under the lock there can be no other gate, so whoever holds the work key is left
    over. Its end is waited for as long as it works: GATE_TIMEOUT bounds it.

    Raises:
        ConnectionLostError: The lock's connection is gone.
    """
    started_s = time.monotonic()
    logged_s = float("-inf")
    with translated_loss():
        while pids := find_key_holders(held.conn, work_key):
            now = time.monotonic()
            if now - logged_s >= held.settings.heartbeat_s:
                logged_s = now
                _report(held, pids[0], now - started_s, log)
            time.sleep(POLL_S)
            if not held.is_alive:
                text = "the lock's connection was lost"
                raise ConnectionLostError(text)


def _report(held: Session, pid: int, waited_s: float, log: Log) -> None:
    conn: psycopg.Connection[tuple[str | None, ...]] = held.conn
    row = conn.execute(WHO, (pid,)).fetchone() or (None, None, None)
    log.emit(
        LOCK_WAITING,
        waited_s=round(waited_s, 3),
        holder_pid=pid,
        holder_application=row[0],
        holder_since=row[1],
        holder_waits_for=row[2],
    )
