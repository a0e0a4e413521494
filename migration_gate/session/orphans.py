"""
Backends that an earlier gate has left working: name them, and wait for their end.

A killed gate's statement runs on where the server does not watch its clients, and may
still commit.
"""

from __future__ import annotations

import time

from typing import Final

from migration_gate.connection.simple_query import ConnectionLostError
from migration_gate.report.log import LOCK_WAITING, Log
from migration_gate.session.activity import find_workers, observe
from migration_gate.session.session import Session, translated_loss


POLL_S: Final = 0.25


def wait_for_orphans(held: Session, log: Log) -> None:
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
        while pids := find_workers(held.conn, held.keys().work, pooled=held.is_pooled):
            now = time.monotonic()
            if now - logged_s >= held.settings.heartbeat_s:
                logged_s = now
                _report(held, pids[0], now - started_s, log)
            time.sleep(POLL_S)
            if not held.is_alive:
                text = "the lock's connection was lost"
                raise ConnectionLostError(text)


def _report(held: Session, pid: int, waited_s: float, log: Log) -> None:
    seen = observe(held.conn, pid, pooled=held.is_pooled)
    log.emit(
        LOCK_WAITING,
        waited_s=round(waited_s, 3),
        holder_pid=pid,
        holder_application=seen.application,
        holder_since=seen.since,
        holder_waits_for=seen.waits_for,
    )
