"""
Signals and GATE_TIMEOUT: both ask a run to stop; where it waits, it does.

As PID 1 a process ignores SIGTERM unless it has a handler: until there is one,
``entrypoint.py`` has signals blocked. A thread watches for what Python cannot act on:
while the resolver or a write blocks, no handler runs.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from migration_gate.connection.waits import (
    ask_to_stop,
    check_stop,
    expect_stop,
    see_as_main_thread,
    what_halts,
    wish_to_stop,
)
from migration_gate.report.errors import DeadlineError, GateError, GateInterruptedError


SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
HANDLED: Final = frozenset({*SIGNALS, signal.SIGALRM})
# Cancelling and writing the verdict take less; a stop must be over within 5 s.
UNWIND_S: Final = 3.0
LONGEST_MARGIN_S: Final = 5.0
SHORTEST_MARGIN_S: Final = 1.0
MARGIN_SHARE: Final = 0.1
UNWIND_SHARE: Final = 0.8
ALARMS: Final = 2
FIRST_PROCESS: Final = 1
ROLLED_BACK: Final = "Nothing this file did remains; those before it stay applied."
NOTHING_SENT: Final = "Nothing was being applied by this gate."
# What a wait is known by, and who can end it.
SIGNS: Final = (
    (
        "; in its way: ",
        (
            "Where nobody needs what was in its way: SELECT "
            "pg_terminate_backend(PROCESS); which rolls back its open transaction. "
        ),
    ),
    (
        "IPC:SyncRep",
        (
            "PostgreSQL waited for a synchronous standby, which pg_stat_replication "
            "shows when it is connected: bring it back. Only where it is accepted that "
            "a failover loses commits, take it out of synchronous_standby_names. "
        ),
    ),
)
AGAIN: Final = "Start the gate again."
LONGER: Final = (
    "{}raise GATE_TIMEOUT and the platform's own limit with it; then start the gate "
    "again."
)
BY_PLATFORM: Final = (
    "Where the platform ended it for taking too long, raise the platform's limit above "
    "what it needs, and set GATE_TIMEOUT a little below that limit."
)


@contextmanager
def stoppable(leave: Callable[[GateError], None]) -> Iterator[None]:
    """
    Let signals, and the end of the time, stop the block; the first one only.

    A signal that was blocked since the start raises Stopped before the block begins.

    Handlers stay installed: what comes after the first signal, or after the block, is
    ignored while the run cleans up and writes its verdict. ``leave`` is called in
    another thread when the main one has not come to an end some seconds after a
    signal; it must end the process.
    """
    is_over = False

    def stop(number: int, _frame: FrameType | None) -> None:
        if not is_over:
            ask_to_stop(_error_for(number))

    expect_stop()
    _watch_signals(leave)
    for number in HANDLED:
        is_ignored = signal.getsignal(number) == signal.SIG_IGN
        # What nohup asks for. A container's first process may have it from an engine
        # that was started by nohup, which is nobody's wish.
        is_wanted = is_ignored and os.getpid() != FIRST_PROCESS
        if number != signal.SIGHUP or not is_wanted:
            signal.signal(number, stop)
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        check_stop()
        yield
    finally:
        is_over = True


def ignore_signals() -> None:
    """
    Let nothing change an exit code that is decided.

    Python puts back the default action of a handled signal when it ends, but not of an
    ignored one.
    """
    for number in HANDLED:
        signal.signal(number, signal.SIG_IGN)


def limit_time(timeout_s: float | None) -> None:
    """
    Let a stoppable block end after GATE_TIMEOUT; None sets no limit.

    It ends a little earlier, so that the verdict is written before the platform's own
    limit. A second alarm tells the watching thread that the margin is nearly over.
    """
    if timeout_s is None:
        return
    share_s = max(timeout_s * MARGIN_SHARE, min(SHORTEST_MARGIN_S, timeout_s / 2))
    margin_s = min(LONGEST_MARGIN_S, share_s)
    signal.setitimer(signal.ITIMER_REAL, timeout_s - margin_s, margin_s * UNWIND_SHARE)


def _watch_signals(leave: Callable[[GateError], None]) -> None:
    """
    Start the thread that ends a process whose main thread is stuck.

    When all goes well the process ends under it.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

    def watch() -> None:
        numbers = _handled(os.read(reading, 1))
        while not numbers:
            numbers = _handled(os.read(reading, 1))
        deadline_s = time.monotonic() + UNWIND_S
        while numbers.count(signal.SIGALRM) < ALARMS:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0 or not select.select([reading], [], [], left_s)[0]:
                break
            numbers += _handled(os.read(reading, 1))
        see_as_main_thread()
        leave(wish_to_stop() or _error_for(numbers[0]))

    threading.Thread(target=watch, name="watch-signals", daemon=True).start()


def _handled(numbers: bytes) -> list[int]:
    return [number for number in numbers if number in HANDLED]


def _error_for(number: int) -> GateError:
    halt = what_halts()
    found = f": {halt.words}" if halt.words else ""
    is_in_file = halt.file is not None or not halt.words
    left = halt.left or (ROLLED_BACK if is_in_file else NOTHING_SENT)
    known = next((say for sign, say in SIGNS if sign in halt.words), "")
    remedy = f"{halt.remedy} " if halt.remedy else known
    if number == signal.SIGALRM:
        longer = LONGER.format("Or " if remedy else "Find out what took the time, or ")
        hint = f"{left} {remedy}{longer}"
        return DeadlineError(
            f"GATE_TIMEOUT is over{found}", hint=hint, file=halt.file, line=halt.line
        )
    name = signal.Signals(number).name
    again = "" if AGAIN in left else f"{AGAIN} "
    hint = f"{left} {remedy}{again}{BY_PLATFORM}"
    return GateInterruptedError(
        f"stopped by {name}{found}", hint=hint, file=halt.file, line=halt.line
    )
