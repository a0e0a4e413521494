"""
The commands, and what is the same for each: log, signals, verdict, exit code.

Each command is a short path over the same steps as ``migrate``.
"""

from __future__ import annotations

import os
import threading
import time
import traceback

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from migration_gate import __version__
from migration_gate.commands.answers import HELP
from migration_gate.commands.check import check, wait_for_server
from migration_gate.commands.migrate import migrate
from migration_gate.commands.new import create_migration
from migration_gate.commands.resolve import resolve
from migration_gate.commands.signals import (
    Stopped,
    Stopping,
    ignore_signals,
    limit_time,
    stoppable,
)
from migration_gate.commands.status import show_plan, show_status
from migration_gate.report.errors import GateError
from migration_gate.report.events import (
    GATE_CLOSED,
    GATE_FAILED,
    GATE_OPENED,
    SETTINGS_UNKNOWN,
)
from migration_gate.report.log import Log, write_line
from migration_gate.report.verdict import Tally, Verdict, closed, opened, shorten
from migration_gate.settings.database import empty_variables
from migration_gate.settings.settings import from_environ, log_settings


STDOUT: Final = 1
STDERR: Final = 2
ANSWERING: Final = frozenset({"status", "plan", "new"})
FLAGS: Final[Mapping[str, frozenset[str]]] = {
    "migrate": frozenset(),
    "check": frozenset(),
    "wait": frozenset(),
    "status": frozenset({"--json"}),
    "plan": frozenset({"--json"}),
    "resolve": frozenset({"--applied", "--not-applied"}),
    "new": frozenset(),
}
OPERANDS: Final = {"resolve": "VERSION", "new": "NAME"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of the program: the command, its operand and its flags."""

    command: str
    operand: str = ""
    flags: frozenset[str] = frozenset()


class UsageError(GateError):
    """The arguments are not those of any command."""

    reason = "settings"


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run one command and return the exit code: 0 for open, 1 for closed."""
    _keep_standard_descriptors()
    if "--help" in arguments or "-h" in arguments:
        write_line(STDOUT, HELP.rstrip())
        return 0
    if "--version" in arguments:
        write_line(STDOUT, f"migration-gate {__version__}")
        return 0
    command = arguments[0] if arguments else "migrate"
    wanted = log_settings(environ)
    log = Log(
        fd=STDERR if command in ANSWERING else STDOUT,
        log_format=wanted.log_format,
        level=wanted.log_level,
        common=dict(wanted.pod_fields),
        termination_log=wanted.termination_log,
    )
    verdict = run(lambda tally: _perform(arguments, environ, log, tally), log)
    return verdict.exit_code


def run(step: Callable[[Tally], None], log: Log) -> Verdict:
    """Perform a step, turn whatever ends it into a verdict, and report that once."""
    tally, ending, stopping = Tally(), _Ending(log), Stopping()
    error: GateError | None = None
    is_done = False
    try:
        with stoppable(stopping, lambda error: ending.leave(error, tally)):
            step(tally)
            is_done = True
    except GateError as closing_error:
        error = closing_error
    except Stopped as stop:
        error = stop.error
    except Exception as bug:  # noqa: BLE001  # a verdict for every end
        error = _internal(bug, log)
    # Cleaning up after a signal may have failed in its own way.
    return ending.end(None if is_done else stopping.error or error, tally)


class _Ending:
    """
    The end of a run: the verdict is decided by the main thread, and reported by it.

    Only when a signal finds the main thread stuck, in the resolver or in a write, the
    thread that watches for signals takes over.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self._started_s = time.monotonic()
        self._reporting = threading.Lock()
        self._exit_code = 1

    def end(self, error: GateError | None, tally: Tally) -> Verdict:
        """Report how the run ended."""
        verdict = self._judge(error, tally)
        self._exit_code = verdict.exit_code
        self._reporting.acquire()
        _report(verdict, self._log)
        ignore_signals()
        return verdict

    def leave(self, error: GateError, tally: Tally) -> None:
        """Report for a main thread that is stuck, and end the process."""
        if self._reporting.acquire(blocking=False):
            _report(self._judge(error, tally), self._log)
            os._exit(1)
        os._exit(self._exit_code)

    def _judge(self, error: GateError | None, tally: Tally) -> Verdict:
        duration_ms = round((time.monotonic() - self._started_s) * 1000)
        if error is None:
            return opened(tally, duration_ms=duration_ms)
        return closed(error, tally, duration_ms=duration_ms)


def parse_arguments(arguments: Sequence[str]) -> Call:
    """
    Read a command and what is about this one call.

    Raises:
        UsageError: No such command, or not its arguments.
    """
    command, *rest = arguments or ["migrate"]
    if command not in FLAGS:
        names = ", ".join(FLAGS)
        raise UsageError("unknown command", hint=f"The commands are: {names}.")
    flags = frozenset(word for word in rest if word.startswith("--"))
    operands = [word for word in rest if not word.startswith("--")]
    wanted = 1 if command in OPERANDS else 0
    fits = flags <= FLAGS[command] and len(operands) == wanted
    if command == "resolve":
        fits = fits and len(flags) == 1
    if not fits:
        raise UsageError(
            f"command {command} does not take these arguments",
            hint="--help lists the commands and their arguments.",
        )
    return Call(command=command, operand="".join(operands), flags=flags)


def _perform(
    arguments: Sequence[str], environ: Mapping[str, str], log: Log, tally: Tally
) -> None:
    call = parse_arguments(arguments)
    settings = from_environ(environ, needs_database=call.command != "new")
    for name in empty_variables(environ):
        os.environ.pop(name, None)  # libpq would take the empty text for a value
    limit_time(settings.timeout_s)
    if settings.unknown_settings:
        log.emit(SETTINGS_UNKNOWN, names=list(settings.unknown_settings))
    if call.command == "migrate":
        migrate(settings, log, tally)
    elif call.command == "check":
        check(settings, log, tally)
    elif call.command == "wait":
        wait_for_server(settings, log, tally)
    elif call.command == "resolve":
        is_applied = "--applied" in call.flags
        resolve(settings, log, tally, call.operand, is_applied=is_applied)
    elif call.command == "status":
        show_status(settings, log, tally, as_json="--json" in call.flags)
    elif call.command == "plan":
        show_plan(settings, log, tally, as_json="--json" in call.flags)
    else:
        write_line(STDOUT, str(create_migration(settings.migrations, call.operand)))


def _internal(bug: Exception, log: Log) -> GateError:
    """
    Return the error for a fault of the gate's own.

    Only the exception's type is told: its text may hold anything. Where it happened is
    in the traceback, at debug.
    """
    log.emit(GATE_FAILED, traceback=traceback.format_tb(bug.__traceback__))
    return GateError(
        f"internal error: {type(bug).__name__}",
        hint="This is a fault of the gate: please report it with the traceback that "
        "GATE_LOG_LEVEL=debug shows.",
    )


def _report(verdict: Verdict, log: Log) -> None:
    """Write the verdict: for people on stderr when it is closed, then the last line."""
    if verdict.is_open:
        log.emit(GATE_OPENED, **verdict.fields)
        return
    told = shorten({"message": verdict.message, "hint": verdict.fields.get("hint", "")})
    text = f"migration-gate: closed: {told['message']}. {told['hint']}".rstrip()
    write_line(STDERR, " ".join(text.split()))
    log.emit(GATE_CLOSED, message=verdict.message, **verdict.fields)


def _keep_standard_descriptors() -> None:
    """Occupy closed standard descriptors, so that no connection gets their number."""
    for fd in (0, STDOUT, STDERR):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
