"""
Watch the run from the lock's connection, and stop what waits too long for its locks.

Is the lock still held, who is in the way, how far is a statement. Reads only, but for
the one cancel that keeps promise 6 of the contract.
"""

from __future__ import annotations

import math
import time

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from migration_gate.connection.limited import limited
from migration_gate.connection.refusals import NO_ANSWER
from migration_gate.connection.waits import Halt, describe_sight
from migration_gate.execution.message import Message, Share
from migration_gate.execution.worker import Worker
from migration_gate.report.events import MIGRATION_PROGRESS
from migration_gate.report.log import Log
from migration_gate.report.outcomes import ConnectionLostError
from migration_gate.session.activity import (
    Activity,
    LockWait,
    cancel,
    find_phase,
    find_wait,
    find_workers,
    observe,
)
from migration_gate.session.session import Session


SHORTEST_TICK_S: Final = 0.02
LONGEST_TICK_S: Final = 0.5
TICKS_PER_LIMIT: Final = 8
TICKS_PER_LIMIT_WAITING: Final = 40
# By so much the clocks of gate and server may differ on how long a wait has lasted.
NOISE_S: Final = 0.02


@dataclass(slots=True)
class Attempt:
    """
    One attempt at a migration, or at a statement outside a transaction.

    ``waited_s`` is the sum of its waits for locks that are over; the one that goes on
    began at ``began_s``, not later than that, and was last seen at ``seen_s``.
    ``blockers`` are the sessions last seen in its way, each as one short text, asked
    for again when the wait has lasted until ``ask_at_s``. ``was_cancelled`` tells that
    its waits, taken together, were too long.
    """

    started_s: float
    waited_s: float = 0.0
    began_s: float | None = None
    seen_s: float = 0.0
    blockers: tuple[str, ...] = ()
    ask_at_s: float = 0.0
    was_cancelled: bool = False

    @property
    def waiting_s(self) -> float:
        """How long the wait that goes on has lasted for sure; 0 where there is none."""
        return 0.0 if self.began_s is None else self.seen_s - self.began_s

    def is_to_ask(self, now: float, *, last_s: float, unseen_s: float) -> bool:
        """
        Tell whether to ask about the wait: when it has doubled since the last time.

        Such a question holds up all who take or release a lock.

        Args:
            now: When it was seen to go on.
            last_s: When all waits together have come to that, it is asked once more.
            unseen_s: When nobody has looked for that long, it may be another wait.
        """
        if self.began_s is None:
            return True
        lasted_s = now - self.began_s
        is_last = self.waiting_s < last_s - self.waited_s <= lasted_s
        is_late = now - self.seen_s >= unseen_s
        return is_last or is_late or lasted_s >= self.ask_at_s

    def note(self, wait: LockWait, asked_s: float, answered_s: float) -> None:
        """
        Note the answer: the wait may be another one than when it was asked last.

        The server's word on how long it has lasted is taken, so that the first wait
        ends by the server's limit, which names the place. It was true at some moment
        between question and answer, however long that took: no wait is counted longer
        than it was. Where it has none, as PostgreSQL 13, a wait is counted from when
        it was first seen.
        """
        self.blockers = wait.blockers or self.blockers
        lasted_s = wait.lasted_s
        if self.began_s is None:
            self.began_s = answered_s - (lasted_s or 0.0)
        elif lasted_s is not None:
            earliest_s, latest_s = asked_s - lasted_s, answered_s - lasted_s
            if earliest_s > self.began_s + NOISE_S:  # another one
                self.waited_s += min(earliest_s, self.seen_s) - self.began_s
                self.began_s = latest_s
            self.began_s = min(self.began_s, latest_s)
        # Without a word the wait may be over since the question.
        is_known = lasted_s is not None
        self.seen_s = answered_s if is_known else max(asked_s, self.began_s)
        self.ask_at_s = 2 * self.waiting_s

    def see(self, now: float) -> None:
        """Note that a wait was seen, about which nothing was asked."""
        if self.began_s is None:
            self.began_s = now
        self.seen_s = now

    def end_wait(self) -> None:
        """Add the wait that is over, if there was one."""
        self.waited_s += self.waiting_s
        self.began_s, self.ask_at_s = None, 0.0


def no_looks() -> float:
    """Look never: nobody asks to."""
    return math.inf


class Terms(NamedTuple):
    """
    What holds for a message while it is under way.

    ``blocks_queries`` is False where nobody queues behind what waits for locks: it may
    then wait as long as it takes. ``left`` says what stays of the message when the run
    is stopped; see ``Halt``. ``looks`` is what is called beside it: it says in how many
    seconds again.
    """

    blocks_queries: bool = True
    left: str = ""
    looks: Callable[[], float] = no_looks


USUAL: Final = Terms()


@dataclass(slots=True)
class Watch:
    """What the gate's second connection sees of the first."""

    held: Session
    worker: Worker
    log: Log
    attempt: Attempt = field(default_factory=lambda: Attempt(time.monotonic()))
    terms: Terms = USUAL
    _message: Message | None = None
    _on_migration: Callable[[int], None] = lambda _: None
    _index: int = 0
    _number: int | None = None
    _line: int | None = None
    _phase: str = ""
    _ticked_s: float = 0.0
    _reported_s: float = 0.0
    _pid: int | None = None

    def clock(self) -> float:
        """Look when it is time to; return how long to wait before the next look."""
        if time.monotonic() >= self._ticked_s + self._interval_s():
            self._tick()
        left_s = self._ticked_s + self._interval_s() - time.monotonic()
        return min(left_s, self.terms.looks())

    def describe(self) -> str:
        """Say what is waited for, as in "waiting to ..."."""
        if self._message is None:
            return ""
        task = self._message.shares[self._index].task
        at = f" at statement {self._number}" if self._number else ""
        verb = "undo" if task.is_back else "apply"
        return f"{verb} {task.script.migration.version}{at}"

    def halt(self) -> Halt:
        """
        Say what a stop interrupts, as the last look has seen it.

        Sends nothing and reads no file: it may be called in the middle of either.
        """
        if self._message is None:
            return Halt("")
        share, attempt = self._message.shares[self._index], self.attempt
        script, line, number = share.task.script, self._line, self._number
        file = script.migration.file
        at = f"{file}:{line}" if line else file
        took = f"{time.monotonic() - attempt.started_s:.1f} s"
        words = f"had run for {took}"
        if number is not None:
            words = (
                f"was at statement {number} of {script.statement_count} after {took}"
            )
        blockers = () if attempt.began_s is None else attempt.blockers
        return Halt(
            f"{at} {words}{self._phase}{describe_sight((None, blockers))}",
            file=file,
            line=line,
            left=self.terms.left,
        )

    def start(
        self,
        message: Message,
        *,
        terms: Terms,
        on_migration: Callable[[int], None] = lambda _: None,
    ) -> None:
        """
        Note what is about to be sent, while the lock is still ours.

        Args:
            terms: What holds for it.
            on_migration: Called when the message is seen to have come to a migration,
                with its index in it.

        Raises:
            ConnectionLostError: The lock's connection is gone, and the lock with it.
        """
        if not self.held.is_alive:
            text = "the lock's connection was lost"
            raise ConnectionLostError(text)
        now = time.monotonic()
        if message.begins:
            self.attempt, self._reported_s = Attempt(now), now
        self.attempt.end_wait()
        self._index, self._number, self._line, self._phase = 0, None, None, ""
        self._message, self.terms = message, terms
        self._on_migration, self._ticked_s = on_migration, now
        # Through a pooler each transaction may have another backend.
        pooled = self.held.is_pooled
        self._pid = None if pooled else self.worker.conn.info.backend_pid

    def _tick(self) -> None:
        """
        Look once; cancel what has waited too long, report what takes long.

        That the lock is lost is for ``start`` to say: what runs may come to its end.
        """
        self._ticked_s = now = time.monotonic()
        if not self.held.is_alive or self._message is None:
            return
        with (
            suppress(*NO_ANSWER),
            self.held.translated("watch the run"),
            limited(self.held.conn),
        ):
            self._look(self._message, now)

    def _look(self, message: Message, now: float) -> None:
        conn = self.held.conn
        if self._pid is None:
            pids = find_workers(conn, self.worker.work_key, pooled=True)
            self._pid = pids[0] if pids else None
        if self._pid is None:
            return
        seen = observe(conn, self._pid, pooled=self.held.is_pooled)
        share = self._find_place(message, seen, now)
        waits_for = seen.waits_for
        self._phase = f", waiting for {waits_for}" if waits_for else ""
        self._end_long_wait(self._pid, seen, share, now)
        if now - self._reported_s >= self.held.settings.heartbeat_s:
            self._reported_s = now
            self._report(self._pid, seen, share, now)

    def _find_place(self, message: Message, seen: Activity, now: float) -> Share:
        """Return the migration that the message is at, and note its statement."""
        number = self._number
        if seen.mark is not None:  # there is none while the session is cleared
            index, number = seen.mark
            if self._index < index < len(message.shares):
                self._line, self._index, self.attempt = None, index, Attempt(now)
                self._on_migration(index)
        share = message.shares[self._index]
        if self._line is None or number != self._number:
            self._note_statement(share, number)
        return share

    def _note_statement(self, share: Share, number: int | None) -> None:
        """Note which statement runs; one that is alone has no mark."""
        if not share.statements:
            return
        running = [s for s in share.statements if s.number == number]
        statement = (running or share.statements)[0]
        self._number = statement.number
        self._line = share.task.script.place(statement.first)[0]

    def _end_long_wait(
        self, pid: int, seen: Activity, share: Share, now: float
    ) -> None:
        """
        Add up what the attempt has waited; cancel it when that is too much.

        A first wait ends by the server's lock_timeout; the sum of several is known to
        the length of a tick.
        """
        attempt, limit_s = self.attempt, self._limit_s(share)
        if not seen.waits_for_lock:
            attempt.end_wait()
            return
        if not self.terms.blocks_queries:
            attempt.see(now)
            return
        last_s = limit_s - self._interval_s()
        if attempt.is_to_ask(now, last_s=last_s, unseen_s=self._unseen_s()):
            attempt.note(find_wait(self.held.conn, pid), now, time.monotonic())
        else:
            attempt.see(now)
        total_s = attempt.waited_s + attempt.waiting_s
        if attempt.waited_s:
            total_s += self._interval_s()
        if total_s >= limit_s:
            attempt.was_cancelled = cancel(self.held.conn, pid)

    def _interval_s(self) -> float:
        """Return how long to wait between looks; what is not cancelled can wait."""
        if not self.terms.blocks_queries and self._line is not None:
            return self.held.settings.heartbeat_s
        is_waiting = self.attempt.began_s is not None
        return self._tick_s(TICKS_PER_LIMIT_WAITING if is_waiting else TICKS_PER_LIMIT)

    def _unseen_s(self) -> float:
        """Return for how long nobody may look before a wait may be another."""
        return max(
            2 * self._tick_s(TICKS_PER_LIMIT_WAITING), self._tick_s(TICKS_PER_LIMIT)
        )

    def _tick_s(self, ticks: int) -> float:
        limit_s = self.held.settings.ddl_lock_timeout_s
        return min(LONGEST_TICK_S, max(SHORTEST_TICK_S, limit_s / ticks))

    def _limit_s(self, share: Share) -> float:
        directive_s = share.task.script.directives.lock_timeout_s
        if directive_s is None:
            return self.held.settings.ddl_lock_timeout_s
        return directive_s or math.inf  # 0 is none, as PostgreSQL has it

    def _report(self, pid: int, seen: Activity, share: Share, now: float) -> None:
        if not share.statements:
            return
        script, conn = share.task.script, self.held.conn
        phase, percent = find_phase(conn, pid) or (None, None)
        if phase:
            self._phase = f", {phase}"
        blockers = find_wait(conn, pid).blockers if seen.waits_for_lock else ()
        self.attempt.blockers = blockers or self.attempt.blockers
        self.log.emit(
            MIGRATION_PROGRESS,
            version=script.migration.version,
            statement=self._number,
            statement_count=script.statement_count,
            line=self._line,
            elapsed_s=round(now - self.attempt.started_s, 3),
            phase=phase or seen.waits_for,
            percent=percent,
            blockers=list(blockers),
        )
