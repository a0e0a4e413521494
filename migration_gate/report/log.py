"""
The log: event names, their levels and fields, and how a line is written.

One JSON object a line. Writes to a file descriptor and never raises: a log that
cannot be written must not change what the gate decides.
"""

from __future__ import annotations

import json
import os
import select

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, Literal

import structlog

from migration_gate.report.console import OVERWRITTEN, describe_line
from migration_gate.report.verdict import LINE_ROOM, VERDICT_ROOM, shorten


Level = Literal["debug", "info", "warning", "error"]
LEVELS: Final[dict[Level, int]] = {"debug": 0, "info": 1, "warning": 2, "error": 3}


@dataclass(frozen=True, slots=True)
class Event:
    """
    One kind of log line.

    ``message`` is a template over the fields; ``fields`` are all there are, in order.
    """

    name: str
    level: Level
    message: str
    fields: tuple[str, ...]


GATE_STARTED = Event(
    "gate.started",
    "info",
    "Started {command} for database {database} on {host}",
    (
        *("command", "gate_version", "host", "port", "database", "user"),
        *("migrations", "migration_count"),
    ),
)
SETTINGS_UNKNOWN = Event(
    "settings.unknown",
    "warning",
    "Settings that this version does not know: {names}",
    ("names",),
)
FILES_SHARED_NUMBER = Event(
    "files.shared_number",
    "warning",
    "Migrations share a number: {versions}",
    ("versions",),
)
DATABASE_RETRY_SCHEDULED = Event(
    "database.retry_scheduled",
    "warning",
    "Database is not usable yet: {error_message}",
    ("attempt", "wait_s", "waited_s", "reason", "error_message"),
)
DATABASE_READY = Event(
    "database.ready",
    "info",
    "Database answered after {waited_s} s",
    ("attempt", "waited_s", "server_version", "pooled"),
)
DATABASE_CREATED = Event(
    "database.created", "info", "Created database {database}", ("database",)
)
PLAN_MADE = Event(
    "plan.made",
    "info",
    "{pending_count} pending, {applied_count} applied",
    ("applied_count", "pending_count", "pending"),
)
UNKNOWN_VERSIONS = Event(
    "history.unknown_versions",
    "warning",
    "The history is ahead of the files here: {versions}",
    ("versions",),
)
CHANGED_MIGRATIONS = Event(
    "history.changed_migrations",
    "warning",
    "Changed after being applied: {versions}",
    ("versions",),
)
OUT_OF_ORDER = Event(
    "history.out_of_order",
    "warning",
    "Pending below the newest applied migration: {versions}",
    ("versions",),
)
NOT_ALTERED = Event(
    "history.not_altered",
    "warning",
    "The history table stays without checksums: {reason}",
    ("reason",),
)
LOCK_WAITING = Event(
    "lock.waiting",
    "info",
    "Waiting for another gate, {waited_s} s so far",
    (
        *("waited_s", "holder_pid", "holder_application"),
        *("holder_since", "holder_waits_for"),
    ),
)
LOCK_ACQUIRED = Event(
    "lock.acquired", "info", "Holding the lock after {waited_s} s", ("waited_s",)
)
MIGRATION_STARTED = Event(
    "migration.started",
    "info",
    "Applying {version}",
    ("version", "checksum", "in_transaction", "statement_count", "attempt"),
)
MIGRATION_RETRY_SCHEDULED = Event(
    "migration.retry_scheduled",
    "warning",
    "{version} could not get its locks: trying again in {wait_s} s",
    (
        *("version", "attempt", "wait_s"),
        *("sqlstate", "reason", "blockers"),
    ),
)
MIGRATION_PROGRESS = Event(
    "migration.progress",
    "info",
    "{version} is at statement {statement} of {statement_count} after {elapsed_s} s",
    (
        *("version", "statement", "statement_count", "line"),
        *("elapsed_s", "phase", "percent", "blockers"),
    ),
)
MIGRATION_NOTICE = Event(
    "migration.notice",
    "info",
    "{severity}: {notice}",
    ("version", "severity", "notice"),
)
MIGRATION_SETTING_SKIPPED = Event(
    "migration.setting_skipped",
    "warning",
    "{version}: this server has no parameter {setting}, its SET is left out",
    ("version", "setting", "line"),
)
MIGRATION_APPLIED = Event(
    "migration.applied",
    "info",
    "Applied {version} in {duration_ms} ms",
    ("version", "applied_at", "duration_ms", "statement_count"),
)
MIGRATION_RESOLVED = Event(
    "migration.resolved",
    "warning",
    "{version} was declared {as}",
    ("version", "as"),
)
SUMMARY_FIELDS = (
    "applied",
    "applied_count",
    "waited_s",
    "lock_waited_s",
    "duration_ms",
    "exit_code",
)
GATE_OPENED = Event(
    "gate.opened",
    "info",
    "Gate open: {applied_count} applied in {duration_ms} ms",
    SUMMARY_FIELDS,
)
GATE_CLOSED = Event(
    "gate.closed",
    "error",
    "Gate closed: {message}",
    (
        *SUMMARY_FIELDS,
        *("reason", "error_message", "hint"),
        *("version", "file", "line", "column", "sqlstate"),
        *("error_detail", "error_hint", "error_context"),
    ),
)
GATE_FAILED = Event(
    "gate.failed", "debug", "A fault of the gate itself", ("traceback",)
)
EVENTS: Final = tuple(
    value for value in list(globals().values()) if isinstance(value, Event)
)
VERDICTS: Final = (GATE_OPENED, GATE_CLOSED)
READER_TIMEOUT_S: Final = 1.0
DEFAULT_COLUMNS: Final = 80


class Log:
    """
    Writes events to one file descriptor, and the verdict to a file beside it.

    Common fields (pod name and the like) are bound once and stand on every line.
    """

    def __init__(
        self,
        *,
        fd: int,
        log_format: Literal["json", "console"] = "json",
        level: Level = "info",
        common: Mapping[str, str] | None = None,
        termination_log: str = "",
    ) -> None:
        self._level = LEVELS[level]
        # wrap_logger() would load defaults, among them the renderer for people.
        self._logger = _Logger(
            _Descriptor(fd),
            processors=[
                structlog.processors.add_log_level,
                _arrange,
                partial(_fit, termination_log),
                _renderer(log_format, fd),
            ],
            context=dict(common or {}),
        )

    def emit(self, event: Event, **fields: object) -> None:
        """Write one line, unless its level is below the log's; a verdict always."""
        if LEVELS[event.level] >= self._level or event in VERDICTS:
            ordered = {name: fields[name] for name in event.fields if name in fields}
            message = event.message.format_map(_Words(fields))
            self._logger.write(event.level, event.name, message=message, **ordered)


class _Logger(structlog.BoundLoggerBase):
    """A structlog logger with one method for all levels."""

    def write(self, level: Level, event: str, **fields: object) -> None:
        self._proxy_to_logger(level, event, **fields)


class _Words(dict[str, Any]):
    """Fields as they read in a sentence."""

    def __getitem__(self, name: str) -> str:
        value = super().get(name)
        if isinstance(value, list | tuple):
            return ", ".join(str(item) for item in value)
        return "(unknown)" if value is None else str(value)


class _Descriptor:
    """A structlog logger that writes lines to a file descriptor and never raises."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._is_whole = True

    def msg(self, line: str) -> None:
        if self._is_whole:
            self._is_whole = write_line(self._fd, line)
        else:  # nobody has read for long: do not wait again for each line
            self._is_whole = write_line(self._fd, "\n" + line, timeout_s=0)

    debug = info = warning = error = msg


def write_line(fd: int, line: str, timeout_s: float = READER_TIMEOUT_S) -> bool:
    """
    Write a whole line; give up silently where it cannot be written.

    A pipe that nobody reads is waited for, but not for long. A line that ends with a
    carriage return is one that the next overwrites. False where the line, or its end,
    is lost.
    """
    end = "" if line.endswith(OVERWRITTEN) else "\n"
    rest = (line + end).encode(errors="backslashreplace")
    try:
        while rest:
            if not _takes_more(fd, timeout_s):
                return False
            # A pipe that takes anything takes this much at once.
            rest = rest[os.write(fd, rest[: select.PIPE_BUF]) :]
    except OSError:  # a closed pipe or a full disk changes no verdict
        return False
    return True


def _takes_more(fd: int, timeout_s: float) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(timeout_s * 1000))


def _arrange(
    _logger: structlog.typing.WrappedLogger,
    _method: str,
    line: structlog.typing.EventDict,
) -> structlog.typing.EventDict:
    """Put first what a reader looks for first."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    first = {
        "timestamp": now.replace("+00:00", "Z"),
        "level": line.pop("level"),
        "event": line.pop("event"),
        "message": line.pop("message"),
    }
    return {**first, **line}


def _fit(
    termination_log: str,
    _logger: structlog.typing.WrappedLogger,
    _method: str,
    line: structlog.typing.EventDict,
) -> structlog.typing.EventDict:
    """Make a line fit; a verdict the end of a pod's log, and its termination log."""
    if line["event"] not in {event.name for event in VERDICTS}:
        return shorten(line, LINE_ROOM)
    short = shorten(line, VERDICT_ROOM)
    if termination_log:
        _write_existing(termination_log, to_json(short))
    return short


def _write_existing(path: str, text: str) -> None:
    """Overwrite a file, but only one that is there: elsewhere nobody reads it."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_NONBLOCK)
    except OSError:
        return
    write_line(fd, text)
    os.close(fd)


def to_json(line: Mapping[str, Any]) -> str:
    """Return a line of the log as JSON; what JSON does not know becomes text."""
    return json.dumps(line, ensure_ascii=False, default=str)


def _renderer(
    log_format: Literal["json", "console"], fd: int
) -> structlog.typing.Processor:
    if log_format == "json":
        return structlog.processors.JSONRenderer(ensure_ascii=False, default=str)

    def render(
        _logger: structlog.typing.WrappedLogger,
        _method: str,
        line: structlog.typing.EventDict,
    ) -> str:
        return describe_line(line, columns=_find_columns(fd))

    return render


def _find_columns(fd: int) -> int | None:
    """Return how wide a terminal is; None where the descriptor is none."""
    try:
        return os.get_terminal_size(fd).columns or DEFAULT_COLUMNS
    except OSError:
        return None
