"""
Take turns: wait for the lock while another gate applies, or until it has done it all.

A backend that a killed gate has left working is waited for too: where the server does
not watch its clients, a statement runs on, and may still commit.
Holds no transaction while it waits, and no connection between looks that are far apart.
"""

from __future__ import annotations

import random
import time

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from migration_gate.connection.wait import Patience, wait_for
from migration_gate.connection.waits import Halt, halting, pause
from migration_gate.history.creation import HistoryMadeError
from migration_gate.history.look import Look
from migration_gate.report.errors import LockTimeoutError
from migration_gate.report.events import LOCK_ACQUIRED, LOCK_WAITING
from migration_gate.report.log import Log
from migration_gate.report.outcomes import ConnectionLostError, TurnTakenError
from migration_gate.report.verdict import Tally
from migration_gate.session.activity import find_workers, observe
from migration_gate.session.lock import Holder, Keys, Trial
from migration_gate.session.session import Session, start_session
from migration_gate.settings.settings import Settings


FIRST_PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 5.0
SHORTEST_LONG_PAUSE_S: Final = 1.0
PAUSE_PER_WAITED: Final = 0.1
PAUSE_PER_TRY: Final = 20
LONGEST_CROWDED_S: Final = 0.25
LONGEST_ASK_INTERVAL_S: Final = 1.0
KEEP_CONNECTION_S: Final = 0.3
ORPHAN_PAUSE_S: Final = 0.25


@contextmanager
def take_turn(
    session: Session, is_done: Callable[[Look], bool], log: Log, tally: Tally
) -> Iterator[Session]:
    """
    Hold the lock for the block, unless another gate has meanwhile done it all.

    The session that is given back has looked again, and may be another one than was
    given: it is given up at the end, and the lock goes with it, or with the next look
    of a fleet's thread; see ``Session.hand_on``. It holds the lock where
    ``is_done`` is false for what it saw.

    Args:
        is_done: Tells from a look whether there is nothing left to do.

    Raises:
        LockTimeoutError: The holder showed no progress for GATE_LOCK_WAIT_TIMEOUT.
        ConnectionLostError: The connection was lost while waiting.
        HistoryMadeError: The history is in another schema now, and has another lock.
        TurnTakenError: Another gate has the lock, and is not to be waited for.
    """
    queue = _Queue(session, is_done, log)
    try:
        try:
            with halting(queue.halt):
                queue.wait()
        finally:
            tally.lock_waited_s += queue.waited_s
        yield queue.session
        queue.session.hand_on()
    finally:
        queue.session.close()


class _Queue:
    """One gate's place in the queue for the lock."""

    def __init__(
        self, session: Session, is_done: Callable[[Look], bool], log: Log
    ) -> None:
        self.session = session
        self._settings: Settings = session.settings
        self._is_done = is_done
        self._log = log
        self._started_s = time.monotonic()
        self._progress_s = self._looked_s = self._started_s
        self._asked_s = self._logged_s = float("-inf")
        self._ask_interval_s = min(
            LONGEST_ASK_INTERVAL_S,
            self._settings.heartbeat_s / 2,
            self._settings.lock_wait_timeout_s / 4,
        )
        self._rows = len(session.seen.history)
        self._holder_pid: int | None = None
        self._holder: Holder | None = None
        self._tried_for_s = 0.0

    @property
    def waited_s(self) -> float:
        return time.monotonic() - self._started_s

    def halt(self) -> Halt:
        """Say what a stop interrupts."""
        return _halt(self.waited_s, self._holder)

    def wait(self) -> None:
        keys = self.session.keys()
        trial, seen = self._try_first()
        while True:
            if trial.taken and not self.session.gives_way():
                if trial.orphans:
                    wait_for_orphans(self.session, self._log)
                if trial.orphans or seen is None:
                    keys = self.session.keys()
                    self.session.look_again()
                self._require_same(keys)
                self._log.emit(LOCK_ACQUIRED, waited_s=round(self.waited_s, 3))
                return
            if not self._settings.waits_for_turn:
                raise TurnTakenError
            if self._is_worth_a_look(trial.holder_pid) and seen is None:
                self._looked_s = time.monotonic()
                seen = self.session.look_again()
            if seen is not None and self._is_done(seen):
                return
            self._require_progress()
            seen = self._pause()
            if seen is not None and self._is_done(seen):
                return
            trial, seen = self._try(), None

    def _require_same(self, keys: Keys) -> None:
        """Require that the lock is that of the table which was seen behind it."""
        if self.session.keys() != keys:
            table = self.session.settings.history_table.table
            raise HistoryMadeError(f"{self.session.seen.schema}.{table}")

    def _try_first(self) -> tuple[Trial, Look | None]:
        """Try; look in the same round trip where the lock is nearly always free."""
        if self._settings.gives_room:  # a target of a fleet
            return self.session.try_lock_and_look()
        return self._try(), None

    def _try(self) -> Trial:
        started_s = time.monotonic()
        trial = self.session.try_lock()
        self._tried_for_s = time.monotonic() - started_s
        return trial

    def _is_worth_a_look(self, holder_pid: int | None) -> bool:
        """
        Tell whether the history may be another one by now.

        A look costs the server six times what a try does, and a gate applies all it
        has before it lets go of the lock.
        """
        before, self._holder_pid = self._holder_pid, holder_pid
        if before is not None and holder_pid != before:
            return True
        return time.monotonic() - self._looked_s >= self._ask_interval_s

    def _require_progress(self) -> None:
        """
        Report whom the gate waits for; give up when nothing has moved for long.

        Asks for the holder only now and then: most waits are short, and many.
        """
        now, rows = time.monotonic(), len(self.session.seen.history)
        if rows != self._rows:
            self._progress_s, self._rows = now, rows
        if now - self._asked_s < self._ask_interval_s:
            return
        self._asked_s = now
        holder = self._holder = self.session.find_holder()
        if holder is None or holder.works:
            self._progress_s = now
        if now - self._progress_s > self._settings.lock_wait_timeout_s:
            raise LockTimeoutError(
                f"{_name(holder)} kept the gates' lock without progress for "
                f"{self._settings.lock_wait_timeout_s:g} s",
                hint=_remedy(holder),
            )
        if now - self._logged_s >= self._settings.heartbeat_s:
            self._logged_s = now
            self._report(holder)

    def _report(self, holder: Holder | None) -> None:
        self._log.emit(
            LOCK_WAITING,
            waited_s=round(self.waited_s, 3),
            holder_pid=holder and holder.pid,
            holder_application=holder and holder.application,
            holder_since=holder and holder.since,
            holder_waits_for=holder and holder.waits_for,
        )

    def _pause(self) -> Look | None:
        """Pause; return what a new connection saw, where there had to be one."""
        pause_s = pause_before_next_try(self.waited_s, self._tried_for_s)
        pause_s = min(pause_s, _longest_pause_s(self._settings))
        pause_s *= random.uniform(0.8, 1.2)  # noqa: S311  # jitter, not a secret
        if pause_s <= KEEP_CONNECTION_S:
            pause(pause_s)
            return None
        rivals, awaited = self.session.rivals, self.session.awaited
        self.session.conn.close()
        pause(pause_s)
        settings = self._settings
        patience = Patience(
            database=settings.database,
            timeout_s=settings.wait_timeout_s,
            grace_s=settings.auth_grace_s,
            heartbeat_s=settings.heartbeat_s,
            log=self._log,
        )
        self.session = wait_for(
            lambda: start_session(settings, must_write=True, until_s=patience.until_s),
            patience,
        )
        self.session.rivals, self.session.awaited = rivals, awaited
        self._looked_s = time.monotonic()
        return self.session.seen


def _halt(waited_s: float, holder: Holder | None) -> Halt:
    """Say for whom a stop finds the gate waiting."""
    return Halt(
        f"had waited {waited_s:.1f} s for {_name(holder)}", remedy=_remedy(holder)
    )


def _name(holder: Holder | None) -> str:
    if holder is None or holder.pid is None:
        return "another gate"
    known = [f"process {holder.pid}"]
    known += [f"application {holder.application}"] if holder.application else []
    known += [f"connected since {holder.since}"] if holder.since else []
    known += [f"waiting for {holder.waits_for}"] if holder.waits_for else []
    return f"another gate ({', '.join(known)})"


def _remedy(holder: Holder | None) -> str:
    pid = "pid" if holder is None or not holder.pid else holder.pid
    return (
        "Look for its container, by client_addr in pg_stat_activity: one that runs may "
        "be at work though this session is idle; its log says at what. Only where "
        f"there is none any more: SELECT pg_terminate_backend({pid});"
    )


def pause_before_next_try(waited_s: float, tried_for_s: float) -> float:
    """
    Return a pause in proportion to the time waited, in seconds.

    A try that takes long tells of a herd, and the gate that applies is in it; of a
    server far away at the least. So the pause is in proportion to that too.
    """
    crowded_s = min(tried_for_s * PAUSE_PER_TRY, LONGEST_CROWDED_S)
    return max(
        FIRST_PAUSE_S, crowded_s, min(waited_s * PAUSE_PER_WAITED, LONGEST_PAUSE_S)
    )


def _longest_pause_s(settings: Settings) -> float:
    """Return how long a pause may be, so that the wait is reported in time."""
    return max(SHORTEST_LONG_PAUSE_S, settings.heartbeat_s / 2)


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
    with held.translated("ask who still runs a migration"):
        while pids := find_workers(held.conn, held.keys().work, pooled=held.is_pooled):
            now = time.monotonic()
            if now - logged_s >= held.settings.heartbeat_s:
                logged_s = now
                _report_orphan(held, pids[0], now - started_s, log)
            pause_s = max(ORPHAN_PAUSE_S, pause_before_next_try(now - started_s, 0.0))
            pause(min(pause_s, _longest_pause_s(held.settings)))
            if not held.is_alive:
                text = "the lock's connection was lost"
                raise ConnectionLostError(text)


def _report_orphan(held: Session, pid: int, waited_s: float, log: Log) -> None:
    seen = observe(held.conn, pid, pooled=held.is_pooled)
    log.emit(
        LOCK_WAITING,
        waited_s=round(waited_s, 3),
        holder_pid=pid,
        holder_application=seen.application,
        holder_since=seen.since,
        holder_waits_for=seen.waits_for,
    )
