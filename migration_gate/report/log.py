"""
The log: event names, their levels and fields, and how a line is written.

One JSON object a line. Writes to a file descriptor and never raises: a log that
cannot be written must not change what the gate decides.
"""

from __future__ import annotations

import json
import os
import select
import threading

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias, TypeVar

import structlog

from migration_gate.report.console import describe_line
from migration_gate.report.events import LEVELS, TARGET_ENDS, VERDICTS, Event, Level
from migration_gate.report.verdict import LINE_ROOM, VERDICT_ROOM, shorten


STDOUT: Final = 1
READER_TIMEOUT_S: Final = 1.0
DEFAULT_COLUMNS: Final = 80


LogFormat = Literal["auto", "json", "console"]
Redact: TypeAlias = Callable[[Any, Sequence[str]], Any]
# What PostgreSQL says, or the gate of a file: it may quote what was sent.
WORDED: Final = (
    *("message", "error_message", "hint", "error_detail", "error_hint"),
    *("error_context", "notice", "setting", "traceback"),
)
T = TypeVar("T")
Record: TypeAlias = Callable[[Event, Mapping[str, object]], None]


class Log:
    """
    Writes events to one file descriptor, and the verdict to a file beside it.

    Common fields (pod name and the like) are bound once and stand on every line.
    ``is_live`` tells whether a person watches: a line of progress is then written over.
    ``record`` is told of every event, of those below the level too. ``target`` is the
    one target of a fleet that all lines are about: its name stands on each.
    """

    def __init__(  # noqa: PLR0913  # where, how, what and for whom, by name
        self,
        *,
        fd: int,
        log_format: LogFormat = "auto",
        level: Level = "info",
        common: Mapping[str, str] | None = None,
        termination_log: str = "",
        target: str | None = None,
        record: Record | None = None,
    ) -> None:
        is_terminal = os.isatty(fd)
        is_for_person = log_format == "console" or (
            log_format == "auto" and is_terminal
        )
        self.is_live = is_for_person and is_terminal
        self._is_for_person = is_for_person
        self._is_terminal = is_terminal
        self._level = LEVELS[level]
        self.target = target
        self._record = record
        self._redact: Redact | None = None
        self._answers: list[str] | None = None
        # wrap_logger() would load defaults, among them the renderer for people; so
        # would each of structlog.processors.
        self._descriptor = _Descriptor(fd)
        self._logger = _Logger(
            self._descriptor,
            processors=[
                _arrange,
                partial(_fit, termination_log),
                _renderer(fd, for_person=is_for_person),
            ],
            context={
                **(common or {}),
                **({} if target is None else {"target": target}),
            },
        )

    def answer(self, text: str) -> None:
        """Write what a command answers to stdout; keep it where it is of one target."""
        if self._answers is None:
            write_line(STDOUT, text)
        else:
            self._answers.append(text)

    def for_target(self, target: str, answers: list[str] | None = None) -> Log:
        """
        Return a log of one target of a fleet, whose name is on each of its lines.

        Several threads may write to it and to others. What is hidden from one is not
        from another, and of all of it only what came of the target is recorded. A
        person who watches sees only what goes wrong.

        Args:
            target: Its name.
            answers: Takes what a command answers, in place of stdout.
        """
        log = object.__new__(Log)
        vars(log).update(vars(self))
        log.target = target
        log._record = self._record and partial(_record_end, self._record)
        log._redact = None
        log._answers = answers
        if self.is_live:  # how far the fleet is stands there, and what goes wrong
            log._level = max(self._level, LEVELS["warning"])
        log._logger = self._logger.bind(target=target)
        self._descriptor.is_shared = True
        return log

    def is_read_with(self, fd: int) -> bool:
        """
        Tell whether a person who reads another descriptor reads these sentences too.

        On a terminal, or in an engine's log of both; not where one of them is sent
        elsewhere.
        """
        return self._is_for_person and os.isatty(fd) == self._is_terminal

    def hide(self, redact: Redact) -> None:
        """Let each text that PostgreSQL or a file may have a part in pass by this."""
        self._redact = redact

    def clean(self, field: T, about: Mapping[str, Any] = MappingProxyType({})) -> T:
        """
        Return a text, or a list of them, without what is hidden.

        Args:
            about: The fields of its line: of the file that they are about the name
                stays.
        """
        if self._redact is None:
            return field
        named = (about.get("file"), about.get("version"))
        cleaned: T = self._redact(field, [name for name in named if name])
        return cleaned

    def clean_fields(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return fields of a line likewise, as far as they are words."""
        return {
            name: self.clean(field, fields) if name in WORDED else field
            for name, field in fields.items()
        }

    def emit(self, event: Event, **fields: object) -> None:
        """Write one line, unless its level is below the log's; a verdict always."""
        fields = self.clean_fields(fields)
        if self._record is not None:
            self._record(event, fields)
        if LEVELS[event.level] >= self._level or event in VERDICTS:
            ordered = {name: fields[name] for name in event.fields if name in fields}
            sentence = event.message.format_map(_Words(fields))
            # Where nothing is known of why, nothing comes after the colon.
            message = self._begin(event) + sentence.removesuffix(": ")
            if event in VERDICTS:
                self._descriptor.expect_last()
            self._logger.write(event.level, event.name, message=message, **ordered)

    def _begin(self, event: Event) -> str:
        """Begin a sentence with its target's name, where a person reads it without."""
        is_named = event in VERDICTS or "{target}" in event.message
        if self.target is None or is_named or not self._is_for_person:
            return ""
        return f"{self.target}: "


def _record_end(record: Record, event: Event, fields: Mapping[str, object]) -> None:
    """Record what came of a target, and nothing else of it."""
    if event in TARGET_ENDS:
        record(event, fields)


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
    """
    A structlog logger that writes lines to a file descriptor and never raises.

    A thread that reports for one that is stuck in the middle of a line begins a new
    one; the other's rest is left out. ``is_read`` tells that the last line found its
    reader in time. ``is_shared`` tells of several threads that write: each waits for
    the other's line, unless that is stuck. Once one writes the last line, nothing that
    another writes breaks in.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._is_whole = True
        self.is_read = True
        self.is_shared = False
        self._turn = threading.Lock()
        self._lines = 0
        self._writing = threading.Lock()
        self._last_by: int | None = None

    def expect_last(self) -> None:
        """Expect the last line from this thread: worth to be waited for once more."""
        self.is_read = True
        with self._writing:
            self._last_by = threading.get_ident()

    def msg(self, line: str) -> None:
        has_turn = self.is_shared and self._turn.acquire(timeout=2 * READER_TIMEOUT_S)
        try:
            self._write_line(line)
        finally:
            if has_turn:
                self._turn.release()

    debug = info = warning = error = msg

    def _write_line(self, line: str) -> None:
        with self._writing:
            if self._last_by not in (None, threading.get_ident()):
                return
            self._lines += 1
            number, before = self._lines, "" if self._is_whole else "\n"
        # Where nobody has read for long, do not wait again for each line.
        timeout_s = READER_TIMEOUT_S if self.is_read else 0
        self.is_read = write_line(
            self._fd, before + line, timeout_s, lambda part: self._write(part, number)
        )

    def _write(self, part: bytes, number: int) -> int:
        with self._writing:
            if number != self._lines:
                text = "another line has begun"
                raise BrokenPipeError(text)
            if not _takes_more(self._fd, 0):
                return 0
            written = os.write(self._fd, part)
            self._is_whole = part[:written].endswith((b"\n", b"\r"))
            return written


def write_line(
    fd: int,
    line: str,
    timeout_s: float = READER_TIMEOUT_S,
    write: Callable[[bytes], int] | None = None,
) -> bool:
    """
    Write a whole line; give up silently where it cannot be written.

    A pipe that nobody reads is waited for, but not for long. A line that ends with a
    carriage return is one that the next overwrites. False where the line, or its end,
    is lost.

    Args:
        write: Writes what it can of a part, in place of os.write().
    """
    end = "" if line.endswith("\r") else "\n"
    rest = (line + end).encode(errors="backslashreplace")
    try:
        while rest:
            if not _takes_more(fd, timeout_s):
                return False
            # A pipe that takes anything takes this much at once.
            part = rest[: select.PIPE_BUF]
            rest = rest[write(part) if write else os.write(fd, part) :]
    except OSError:  # a closed pipe or a full disk changes no verdict
        return False
    return True


def _takes_more(fd: int, timeout_s: float) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(timeout_s * 1000))


def _arrange(
    _logger: structlog.typing.WrappedLogger,
    level: str,
    line: structlog.typing.EventDict,
) -> structlog.typing.EventDict:
    """Put first what a reader looks for first."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    first = {
        "timestamp": now.replace("+00:00", "Z"),
        "level": level,
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


def _renderer(fd: int, *, for_person: bool) -> structlog.typing.Processor:
    def render(
        _logger: structlog.typing.WrappedLogger,
        _method: str,
        line: structlog.typing.EventDict,
    ) -> str:
        if for_person:
            return describe_line(line, columns=_find_columns(fd))
        return to_json(line)

    return render


def _find_columns(fd: int) -> int | None:
    """Return how wide a terminal is; None where the descriptor is none."""
    try:
        return os.get_terminal_size(fd).columns or DEFAULT_COLUMNS
    except OSError:
        return None
