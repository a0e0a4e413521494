"""
Watch the run from the lock's connection: is the lock still held, who is in the way, how
far is a statement, and has an attempt waited too long for its locks.

Reads only, but for the one cancel that keeps promise 6 of the contract.
"""

from __future__ import annotations

import time

from dataclasses import dataclass, field
from typing import Final

from migration_gate.logs import MIGRATION_PROGRESS, Log
from migration_gate.messages import ConnectionLostError
from migration_gate.monitor import (
    cancel,
    find_blockers,
    find_phase,
    find_worker,
    is_waiting_for_lock,
    read_mark,
)
from migration_gate.parts import Message
from migration_gate.session import Session, translated_loss
from migration_gate.statements import place


LONGEST_TICK_S: Final = 0.5
TICKS_PER_LIMIT: Final = 8


@dataclass(slots=True)
class Watch:
    """
    What the gate's second connection sees of the first.

    ``blockers`` are the sessions last seen in the way, each as one short text;
    ``has_cancelled`` tells that the last attempt was cancelled since its lock waits,
    taken together, were too long.
    """

    held: Session
    log: Log
    worker_pid: int | None
    work_key: int
    blockers: tuple[str, ...] = ()
    has_cancelled: bool = False
    _message: Message | None = None
    _limit_s: float | None = None
    _waited_s: float = 0.0
    _started_s: float = 0.0
    _ticked_s: float = 0.0
    _reported_s: float = 0.0
    _pid: int | None = field(default=None, repr=False)

    @property
    def tick_s(self) -> float:
        """Return how often to look while PostgreSQL works."""
        limit_s = self.held.settings.ddl_lock_timeout_s
        return min(LONGEST_TICK_S, limit_s / TICKS_PER_LIMIT)

    def start(self, message: Message, limit_s: float | None) -> None:
        """
        Note what is about to be sent, while the lock is still ours.

        Args:
            limit_s: How long the attempt may wait for locks; None for as long as it
                takes, since nobody queues behind it.

        Raises:
            ConnectionLostError: The lock's connection is gone, and the lock with it.
        """
        if not self.held.is_alive:
            text = "the lock's connection was lost"
            raise ConnectionLostError(text)
        now = time.monotonic()
        if message.begins:
            self._waited_s, self.has_cancelled, self.blockers = 0.0, False, ()
            self._started_s = self._reported_s = now
        self._message, self._limit_s, self._ticked_s = message, limit_s, now
        self._pid = self.worker_pid

    def tick(self) -> None:
        """Look once; cancel what has waited too long, report what takes long."""
        if not self.held.is_alive:
            return  # noticed before the next message; this one runs to its end
        now = time.monotonic()
        passed_s, self._ticked_s = now - self._ticked_s, now
        with translated_loss():
            if self._pid is None:
                self._pid = find_worker(self.held.conn, self.work_key)
            if self._pid is None:
                return
            self._judge_wait(self._pid, passed_s)
            if now - self._reported_s >= self.held.settings.heartbeat_s:
                self._reported_s = now
                self._report(self._pid, now)

    def _judge_wait(self, pid: int, passed_s: float) -> None:
        if not is_waiting_for_lock(self.held.conn, pid, pooled=self.held.is_pooled):
            return
        self._waited_s += passed_s
        self.blockers = find_blockers(self.held.conn, pid) or self.blockers
        if self._limit_s is not None and self._waited_s >= self._limit_s:
            self.has_cancelled = cancel(self.held.conn, pid)

    def _report(self, pid: int, now: float) -> None:
        message = self._message
        if message is None or not message.statements:
            return
        script, conn = message.script, self.held.conn
        number = read_mark(conn, pid) or message.statements[0].number
        running = [s for s in message.statements if s.number == number]
        first = (running or message.statements)[0].first
        phase, percent = find_phase(conn, pid)
        self.log.emit(
            MIGRATION_PROGRESS,
            version=script.migration.version,
            statement=number,
            statement_count=script.statement_count,
            line=place(script.content, first)[0],
            elapsed_s=round(now - self._started_s, 3),
            phase=phase,
            percent=percent,
            blockers=list(find_blockers(conn, pid)),
        )
