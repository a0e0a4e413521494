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
from functools import partial
from typing import TYPE_CHECKING, Final

from migration_gate import __version__
from migration_gate.commands.calls import COMMANDS, DEFAULT, read_call
from migration_gate.commands.signals import ignore_signals, limit_time, stoppable
from migration_gate.connection.waits import Sight, Stopped, report_waits, wish_to_stop
from migration_gate.report.errors import DatabaseUnreachableError, GateError
from migration_gate.report.events import (
    DATABASE_WAITING,
    GATE_CLOSED,
    GATE_FAILED,
    GATE_OPENED,
    SETTINGS_UNKNOWN,
    TELEMETRY_NOT_SENT,
)
from migration_gate.report.log import Log, write_line
from migration_gate.report.outcomes import ConnectionLostError, RefusedForNowError
from migration_gate.report.verdict import Tally, Verdict, closed, opened, shorten
from migration_gate.settings.database import empty_variables
from migration_gate.settings.environment import from_environ, log_settings


if TYPE_CHECKING:
    from migration_gate.report.telemetry import Telemetry

STDOUT: Final = 1
STDERR: Final = 2
# A person who watches is shown at once that something goes on.
LIVE_HEARTBEAT_S: Final = 0.5
FOLLOWED_BY: Final = (
    "TRACEPARENT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
)
ANSWERED: Final = frozenset({"-h", "--help", "--version"})


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run one command and return the exit code: 0 for open, 1 for closed."""
    _keep_standard_descriptors()
    if not ANSWERED.isdisjoint(arguments):
        write_line(STDOUT, answer(arguments))
        return 0
    command = COMMANDS.get(arguments[0] if arguments else DEFAULT)
    wanted = log_settings(environ)
    ids: Mapping[str, str] = {}
    telemetry = None
    if any(environ.get(name) for name in FOLLOWED_BY):
        from migration_gate.commands.telemetry import follow

        ids, telemetry = follow(
            environ,
            sends=command is not None and command.needs_database,
            tells_words=wanted.log_detail == "safe",
        )
    log = Log(
        fd=STDERR if command is not None and command.answers else STDOUT,
        log_format=wanted.log_format,
        level=wanted.log_level,
        common={**dict(wanted.pod_fields), **ids},
        termination_log=wanted.termination_log,
        target=wanted.target if command is None or command.needs_database else None,
        record=None if telemetry is None else telemetry.record,
    )
    verdict = run(
        lambda tally: _perform(arguments, environ, log, tally), log, telemetry
    )
    return verdict.exit_code


def run(
    step: Callable[[Tally], None], log: Log, telemetry: Telemetry | None = None
) -> Verdict:
    """Perform a step, turn whatever ends it into a verdict, and report that once."""
    tally, ending = Tally(), _Ending(log, telemetry)
    error: GateError | None = None
    is_done = False
    try:
        with stoppable(lambda error: ending.leave(error, tally)):
            step(tally)
            is_done = True
    except GateError as closing_error:
        error = closing_error
    except Stopped as stop:
        error = stop.error
    except Exception as failure:  # noqa: BLE001  # a verdict for every end
        error = error_of(failure, log)
    # Cleaning up after a signal may have failed in its own way.
    return ending.end(None if is_done else wish_to_stop() or error, tally)


class _Ending:
    """
    The end of a run: the verdict is decided by the main thread, and reported by it.

    Only when a signal finds the main thread stuck, in the resolver or in a write, the
    thread that watches for signals takes over.
    """

    def __init__(self, log: Log, telemetry: Telemetry | None) -> None:
        self._log = log
        self._telemetry = telemetry
        self._started_s = time.monotonic()
        self._reporting = threading.Lock()
        self._verdict: Verdict | None = None

    def end(self, error: GateError | None, tally: Tally) -> Verdict:
        """Report how the run ended."""
        verdict = self._verdict = self._make_verdict(error, tally)
        if self._telemetry is not None:
            self._send(self._telemetry, verdict)
        self._reporting.acquire()
        _report(verdict, self._log)
        ignore_signals()
        return verdict

    def leave(self, error: GateError, tally: Tally) -> None:
        """
        Report for a main thread that is stuck, and end the process.

        What the main thread has decided stands, though it may not have said it yet.
        """
        verdict = self._verdict or self._make_verdict(error, tally)
        if self._reporting.acquire(blocking=False):
            _report(verdict, self._log)
        os._exit(verdict.exit_code)

    def _send(self, telemetry: Telemetry, verdict: Verdict) -> None:
        """Tell of the run elsewhere, before the last line, and never instead of it."""
        fault = telemetry.send(verdict.fields, verdict.message)
        if fault:
            self._log.emit(TELEMETRY_NOT_SENT, reason=fault)

    def _make_verdict(self, error: GateError | None, tally: Tally) -> Verdict:
        verdict = judge(error, tally, self._started_s, self._log)
        target = self._log.target
        if target is None:
            return verdict
        return verdict._replace(message=f"{target}: {verdict.message}")


def judge(error: GateError | None, tally: Tally, started_s: float, log: Log) -> Verdict:
    """Return the verdict on what began at a time of the monotonic clock."""
    duration_ms = round((time.monotonic() - started_s) * 1000)
    if error is None:
        return opened(tally, duration_ms=duration_ms)
    verdict = closed(error, tally, duration_ms=duration_ms)
    return verdict._replace(
        message=log.clean(verdict.message, verdict.fields),
        fields=log.clean_fields(verdict.fields),
    )


def answer(arguments: Sequence[str]) -> str:
    """Return what is asked for with a flag: the version, or help."""
    if "--version" in arguments:
        return f"migration-gate {__version__}"
    from migration_gate.commands.parser import describe

    return describe(arguments).rstrip()


def _perform(
    arguments: Sequence[str], environ: Mapping[str, str], log: Log, tally: Tally
) -> None:
    call = read_call(arguments)
    settings = from_environ(environ, needs_database=call.command.needs_database)
    for name in empty_variables(environ):
        os.environ.pop(name, None)  # libpq would take the empty text for a value
    if log.is_live:
        heartbeat_s = min(settings.heartbeat_s, LIVE_HEARTBEAT_S)
        settings = settings._replace(heartbeat_s=heartbeat_s)
    limit_time(settings.timeout_s)
    report_waits(partial(report_wait, log), settings.heartbeat_s)
    if settings.unknown_settings:
        log.emit(SETTINGS_UNKNOWN, names=list(settings.unknown_settings))
    if settings.targets is not None and call.command.needs_database:
        from migration_gate.commands.fleet.calls import perform

        perform(call, settings, log, tally)
        return
    call.command.load()(settings, log, tally, **call.options)


def report_wait(log: Log, doing: str, waited_s: float, sight: Sight) -> None:
    """Report what is waited for."""
    phase, blockers = sight
    log.emit(
        DATABASE_WAITING,
        doing=doing,
        waited_s=round(waited_s, 3),
        phase=phase,
        blockers=list(blockers),
    )


def error_of(failure: Exception, log: Log) -> GateError:
    """
    Return the error for what is no verdict: an answer that nobody asks for once more.

    All else is a fault of the gate's own. Only its type is told: its text may hold
    anything. Where it happened is in the traceback, at debug.
    """
    if isinstance(failure, RefusedForNowError):
        return failure.refusal
    if isinstance(failure, ConnectionLostError):
        return DatabaseUnreachableError(
            f"the connection was lost: {failure}",
            hint="Give the command again; where it writes, look with the command "
            "status what it has done.",
        )
    log.emit(GATE_FAILED, traceback=traceback.format_tb(failure.__traceback__))
    return GateError(
        f"internal error: {type(failure).__name__}",
        hint="This is a fault of the gate: please report it with the traceback that "
        "GATE_LOG_LEVEL=debug shows.",
    )


def _report(verdict: Verdict, log: Log) -> None:
    """Write the verdict: for people on stderr when it is closed, then the last line."""
    if verdict.is_open:
        log.emit(GATE_OPENED, message=verdict.message, **verdict.fields)
        return
    if not log.is_read_with(STDERR):  # there it would stand twice
        said = {"message": verdict.message, "hint": verdict.fields.get("hint", "")}
        short = shorten(said)
        text = f"migration-gate: closed: {short['message']}. {short['hint']}".rstrip()
        write_line(STDERR, " ".join(text.split()))
    log.emit(GATE_CLOSED, message=verdict.message, **verdict.fields)


def _keep_standard_descriptors() -> None:
    """Occupy closed standard descriptors, so that no connection gets their number."""
    for fd in (0, STDOUT, STDERR):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
