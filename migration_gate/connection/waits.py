"""
How the gate waits: for a socket, for a time to pass, and never past a wish to stop.

A signal's handler may run between any two steps of Python: in a callback of the
driver's, where what it raises is lost, or in the middle of a line of the log. So the
wish is noted, and wakes who waits here; it is acted on where the gate waits anyway.
"""

from __future__ import annotations

import math
import os
import select
import threading
import time

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

import psycopg

from psycopg.waiting import Ready, Wait

from migration_gate.report.errors import GateError


T = TypeVar("T")
# As the driver's own: yields what it waits for, and is sent what is ready, or nothing.
Steps: TypeAlias = Generator[int, int, T]
# Does what is due, and returns for how many seconds it may be left alone.
Clock: TypeAlias = Callable[[], float]

EVENTS: Final[Mapping[int, int]] = {
    Wait.R: select.POLLIN,
    Wait.W: select.POLLOUT,
    Wait.RW: select.POLLIN | select.POLLOUT,
}
ENDED: Final = select.POLLERR | select.POLLHUP


# What a session waits for, and who is in its way, each as one short text.
Sight: TypeAlias = tuple[str | None, tuple[str, ...]]
Look: TypeAlias = Callable[[], Sight]
Report: TypeAlias = Callable[[str, float, Sight], None]


class Halt(NamedTuple):
    """
    What a stop interrupts: in words that follow a colon, and where in which file.

    ``left`` says what stays of it, and what is to be done about that; empty where all
    of it is rolled back. ``remedy`` is what may end the wait, where that is known.
    """

    words: str
    file: str | None = None
    line: int | None = None
    left: str = ""
    remedy: str = ""


def nobody_looks() -> Sight:
    """See nothing: there is no other connection to look from."""
    return None, ()


def report_nothing(_what: str, _waited_s: float, _sight: Sight) -> None:
    """Leave it unsaid: there is no log yet."""


class Stopped(KeyboardInterrupt):  # not an error: it is a request
    """A signal or the deadline wants the run to end; ``error`` says which."""

    def __init__(self, error: GateError) -> None:
        super().__init__(str(error))
        self.error = error


class NoAnswerError(psycopg.OperationalError):
    """PostgreSQL has not answered in time; the connection is of no more use."""


class _Process:
    """
    What is the same for the whole process, as its signals are.

    ``wish`` is why it is to stop, once it is. ``woken`` is a pipe that can be read from
    then on. ``main`` is what the main thread is at.
    """

    wish: GateError | None = None
    woken: tuple[int, int] | None = None
    main: Mapping[str, Any] = MappingProxyType({})


class _State(threading.local):
    """
    What one thread is at: targets of a fleet are beside each other.

    ``raises`` tells that the wish to stop may be raised wherever it finds the main
    thread, ``heeds`` that it is acted on at all. ``doing`` says what is waited for,
    since ``since_s``, and ``look`` what another connection sees of it: ``sight`` at the
    last time. ``halt`` says what a stop interrupts, where that is more than the one
    statement that is waited for.
    """

    raises: bool = False
    heeds: bool = True
    doing: Callable[[], str] | None = None
    halt: Callable[[], Halt] | None = None
    sight: Sight = (None, ())
    look: Look = staticmethod(nobody_looks)
    since_s: float = 0.0
    reported_s: float = 0.0
    heartbeat_s: float = math.inf
    report: Report = staticmethod(report_nothing)


_process: Final = _Process()
_state: Final = _State()


def expect_stop() -> None:
    """Begin a run that may be asked to stop, in the main thread."""
    _process.main = vars(_state)
    _process.wish = None
    if _process.woken is None:
        _process.woken = os.pipe()
        os.set_blocking(_process.woken[1], False)


def ask_to_stop(error: GateError) -> None:
    """
    Note that the run is to stop, and wake it; the first wish only.

    Raises:
        Stopped: At once, where the main thread is interruptible.
    """
    if _process.wish is not None:
        return
    _process.wish = error
    if _process.woken is not None:
        os.write(_process.woken[1], b"\0")
    if _state.raises and _state.heeds:
        raise Stopped(error)


def wish_to_stop() -> GateError | None:
    """Return why the run is to stop; None where nobody has asked."""
    return _process.wish


def see_as_main_thread() -> None:
    """Let what this thread says of the run be what the main thread is at."""
    vars(_state).update(_process.main)


def check_stop() -> None:
    """
    Act on the wish to stop, where there is one.

    Raises:
        Stopped: There is.
    """
    if _process.wish is not None and _state.heeds:
        raise Stopped(_process.wish)


@contextmanager
def ending() -> Iterator[None]:
    """Wait in the block though the run is to stop, for what has to be done still."""
    before, _state.heeds = _state.heeds, False
    try:
        yield
    finally:
        _state.heeds = before


@contextmanager
def interruptible() -> Iterator[None]:
    """
    Let a wish to stop end the block wherever it is.

    For what waits in its own way, or computes for long; there must be nothing in it
    that an exception can harm, and no callback that would lose one.
    """
    before, _state.raises = _state.raises, True
    try:
        check_stop()
        yield
    finally:
        _state.raises = before


def pause(seconds: float) -> None:
    """
    Let time pass.

    Raises:
        Stopped: The run is to stop.
    """
    check_stop()
    _new_poll().poll(seconds * 1000)
    check_stop()


def report_waits(report: Report, heartbeat_s: float) -> None:
    """Report, each heartbeat, what is waited for, and for how many seconds so far."""
    _state.report, _state.heartbeat_s = report, heartbeat_s


@contextmanager
def awaiting(doing: Callable[[], str], *, reports: bool = True) -> Iterator[None]:
    """
    Say what a block does, as in "waiting to ...".

    Args:
        reports: False where something else reports it.
    """
    before = _state.doing, _state.since_s, _state.reported_s, _state.sight
    _state.since_s, _state.sight = time.monotonic(), (None, ())
    _state.reported_s = _state.since_s if reports else math.inf
    _state.doing = doing
    try:
        yield
    finally:
        _state.doing, _state.since_s, _state.reported_s, _state.sight = before


@contextmanager
def halting(halt: Callable[[], Halt]) -> Iterator[None]:
    """
    Say what a stop interrupts in the block, whatever single question is asked in it.

    ``halt`` may be called between any two steps of the block, and by another thread.
    """
    before, _state.halt = _state.halt, halt
    try:
        yield
    finally:
        _state.halt = before


@contextmanager
def seen_by(look: Look) -> Iterator[None]:
    """Let what is waited for in the block be looked at from another connection."""
    before, _state.look = _state.look, look
    try:
        yield
    finally:
        _state.look = before


@contextmanager
def awaiting_an_answer() -> Iterator[None]:
    """Say that an answer is waited for in the block, unless more is said of it."""
    if _state.doing is not None:
        yield
        return
    with awaiting(lambda: "hear from the database"):
        yield


def what_is_done() -> str:
    """Return what the run does, as in "waiting to ..."; empty where nobody said it."""
    return "" if _state.doing is None else _state.doing()


def what_halts() -> Halt:
    """Return what a stop interrupts at this moment; without words where nobody said."""
    if _state.halt is not None:
        return _state.halt()
    if _state.doing is None:
        return Halt("")
    waited_s = time.monotonic() - _state.since_s
    seen = describe_sight(_state.sight)
    return Halt(f"had waited {waited_s:.1f} s to {_state.doing()}{seen}")


def describe_sight(sight: Sight) -> str:
    """Return what was seen of a session, to be added to a sentence."""
    waits_for, blockers = sight
    seen = f", waiting for {waits_for}" if waits_for else ""
    return f"{seen}; in its way: {'; '.join(blockers)}" if blockers else seen


def heartbeat() -> float:
    """Report what is waited for, when it is time to: the clock of most statements."""
    now = time.monotonic()
    if now - _state.reported_s >= _state.heartbeat_s:
        _state.reported_s = now
        look, _state.look = _state.look, nobody_looks  # its own query is not looked at
        halt = what_halts()  # and a stop in it interrupts what is looked at
        with halting(lambda: halt):
            sight = look()
        _state.look, _state.sight = look, sight
        _state.report(what_is_done(), now - _state.since_s, sight)
    return _state.reported_s + _state.heartbeat_s - now


def drive(
    steps: Steps[T],
    socket: int,
    clock: Clock = heartbeat,
    *,
    limit_s: float = math.inf,
) -> T:
    """
    Take steps to their end; meanwhile the clock's work is done at its time.

    Args:
        clock: Called at each turn, however much there is to read.
        limit_s: How long it may take.

    Raises:
        Stopped: The run is to stop. The steps may be driven on.
        NoAnswerError: It took longer than the limit.
    """
    end_s = time.monotonic() + limit_s
    poll = _new_poll()
    try:
        wanted = next(steps)
        while True:
            left_s = end_s - time.monotonic()
            if left_s <= 0:
                text = f"no answer within {limit_s:g} s"
                raise NoAnswerError(text)
            wait_s = max(0.0, min(clock(), left_s))
            poll.register(socket, EVENTS[wanted])
            ready = _wait(poll, socket, wait_s)
            check_stop()
            wanted = steps.send(ready)
    except StopIteration as end:
        ended: T = end.value
        return ended


class Bell:
    """Rung by other threads, and waited for by this one."""

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe()
        for end in (self._reading, self._writing):
            os.set_blocking(end, False)

    def ring(self) -> None:
        """Wake who waits, now or next."""
        with suppress(BlockingIOError):  # it has rung often enough
            os.write(self._writing, b"\0")

    def wait(self, seconds: float) -> None:
        """Wait until it is rung, but no longer than this. Raises Stopped."""
        if is_ready(self._reading, wait_s=seconds):
            with suppress(BlockingIOError):
                os.read(self._reading, select.PIPE_BUF)


def is_ready(socket: int, wanted: int = Wait.R, wait_s: float = 0.0) -> bool:
    """
    Tell whether a socket is ready within a time; without one, whether it is already.

    Raises:
        Stopped: The run is to stop, and the socket was waited for.
    """
    poll = _new_poll() if wait_s > 0 else select.poll()
    poll.register(socket, EVENTS[wanted])
    ready = _wait(poll, socket, max(0.0, wait_s))
    if wait_s > 0:
        check_stop()
    return bool(ready)


def _new_poll() -> select.poll:
    poll = select.poll()
    if _state.heeds and _process.woken is not None:
        poll.register(_process.woken[0], select.POLLIN)
    return poll


def _wait(poll: select.poll, socket: int, seconds: float) -> int:
    """Return what a socket is ready for; nothing when time is over."""
    milliseconds = None if seconds == math.inf else seconds * 1000
    events = dict(poll.poll(milliseconds)).get(socket, 0)
    if events & select.POLLNVAL:
        text = "the connection's socket was closed"
        raise psycopg.OperationalError(text)
    readable = Ready.R if events & (select.POLLIN | ENDED) else Ready.NONE
    writable = Ready.W if events & (select.POLLOUT | ENDED) else Ready.NONE
    return readable | writable
