"""
Threads that work at targets, each at one after the other, and who waits for them.

A target's thread waits by itself, and a wish to stop wakes all of them. The main thread
begins them, is told what came of each target, and reports how far the fleet is.
"""

from __future__ import annotations

import threading
import time

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, Generic, Protocol, TypeVar

from migration_gate.commands.fleet.outcomes import Outcome
from migration_gate.connection.scram import Memory
from migration_gate.connection.spares import keeping
from migration_gate.connection.waits import Bell, Stopped, ending
from migration_gate.history.recall import remembering


# A stop must be over within 5 s: signals.UNWIND_S is when the verdict is taken over.
UNWIND_S: Final = 2.6


class Named(Protocol):
    """A target, or what else is worked at."""

    @property
    def name(self) -> str:
        """What the outcome is called by."""


Item = TypeVar("Item", bound=Named)


class Crew(Generic[Item]):
    """
    Works at targets, or at lots of them, some beside each other.

    ``running`` are the names of those under way.
    """

    def __init__(self, at_once: int, work: Callable[[Item], Outcome]) -> None:
        self.at_once = at_once
        self.running: dict[str, None] = {}
        self._work = work
        self._waiting: deque[Item] = deque()
        self._threads: set[threading.Thread] = set()
        self._fault: BaseException | None = None
        self._handing = threading.Lock()
        self._bell = Bell()
        self._scram = Memory()

    def run(
        self,
        targets: Iterable[Item],
        take: Callable[[Outcome], None],
        *,
        may_begin: Callable[[], bool] = lambda: True,
        every: Callable[[], float],
    ) -> None:
        """
        Work at targets until none is left, or none may be begun.

        Args:
            targets: In the order in which they are begun.
            take: Told of each outcome, by one thread at a time.
            may_begin: Whether another target may be begun.
            every: Called now and again; returns the seconds until it has to be again.

        Raises:
            Stopped: The run is to stop; what was under way has ended, if it could.
            Exception: What a thread has met that is no outcome; no other target was
                begun then, and what was under way has ended.
        """
        self._waiting.extend(targets)
        if not may_begin():
            self._waiting.clear()
        for _ in range(min(self.at_once, len(self._waiting))):
            thread = threading.Thread(
                target=self._go_on, args=(take, may_begin), name="target", daemon=True
            )
            self._threads.add(thread)
            try:
                thread.start()
            except RuntimeError:  # the system gives no more of them
                self._threads.discard(thread)
                if not self._threads and self._waiting:
                    raise
                break
        try:
            while self._threads:
                self._bell.wait(every())
        except Stopped:
            self._waiting.clear()
            with ending():
                self._let_end()
            raise
        fault, self._fault = self._fault, None
        if fault is not None:
            self.running.clear()
            raise fault

    def _go_on(
        self, take: Callable[[Outcome], None], may_begin: Callable[[], bool]
    ) -> None:
        """Work at one target after the other, in a thread of its own."""
        try:
            with keeping(self._scram), remembering():
                while (target := self._next()) is not None:
                    outcome = self._work(target)
                    with self._handing:
                        del self.running[target.name]
                        take(outcome)
                        if not may_begin():
                            self._waiting.clear()
        except BaseException as fault:  # noqa: BLE001  # raised by who waits for it
            self._waiting.clear()
            self._fault = self._fault or fault
        finally:
            self._threads.discard(threading.current_thread())
            self._bell.ring()

    def _next(self) -> Item | None:
        with self._handing:
            if not self._waiting:
                return None
            target = self._waiting.popleft()
            self.running[target.name] = None
            return target

    def _let_end(self) -> None:
        """Wait for what is under way: the statements on each server are cancelled."""
        until_s = time.monotonic() + UNWIND_S
        for thread in list(self._threads):
            thread.join(max(0.0, until_s - time.monotonic()))
