"""
Signals and GATE_TIMEOUT: both end a run by raising in the main thread.

As PID 1 a process ignores SIGTERM unless it has a handler.
"""

from __future__ import annotations

import signal

from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from migration_gate.errors import DeadlineError, GateError, GateInterruptedError


SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
LONGEST_MARGIN_S: Final = 5.0
MARGIN_SHARE: Final = 0.1


class Stopped(KeyboardInterrupt):  # noqa: N818  # not an error: it is a request
    """A signal or the deadline wants the run to end; ``error`` says which."""

    def __init__(self, error: GateError) -> None:
        super().__init__(str(error))
        self.error = error


@contextmanager
def stoppable() -> Iterator[None]:
    """
    Turn signals, and the end of the time, into Stopped; the first one only.

    Handlers stay installed: what comes after the first signal, or after the block, is
    ignored while the run cleans up and writes its verdict.
    """
    is_stopping = False

    def stop(number: int, _frame: FrameType | None) -> None:
        nonlocal is_stopping
        if not is_stopping:
            is_stopping = True
            raise Stopped(_error_for(number))

    for number in (*SIGNALS, signal.SIGALRM):
        signal.signal(number, stop)
    try:
        yield
    finally:
        is_stopping = True
        signal.setitimer(signal.ITIMER_REAL, 0)


def limit_time(timeout_s: float | None) -> None:
    """
    Let a stoppable block end after GATE_TIMEOUT; None sets no limit.

    It ends a little earlier, so that the verdict is written before the platform's own
    limit.
    """
    if timeout_s is not None:
        margin_s = min(LONGEST_MARGIN_S, timeout_s * MARGIN_SHARE)
        signal.setitimer(signal.ITIMER_REAL, timeout_s - margin_s)


def _error_for(number: int) -> GateError:
    if number == signal.SIGALRM:
        return DeadlineError(
            "GATE_TIMEOUT is over",
            hint="The log above shows what took the time; raise GATE_TIMEOUT and the "
            "platform's own limit with it, or start the gate again.",
        )
    return GateInterruptedError(
        f"stopped by {signal.Signals(number).name}",
        hint="What was not applied was rolled back; start the gate again.",
    )
