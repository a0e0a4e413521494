"""
The verdict: open or closed, the exit code, and the fields of the last line. Pure.
"""

from __future__ import annotations

import json

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from migration_gate.report.errors import GateError


TEXT_MIN_CHARACTERS = 10
UNREAD = "\N{REPLACEMENT CHARACTER}"
KEPT_SPACES = "\n\t\N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}\N{IDEOGRAPHIC SPACE}"


class Room(NamedTuple):
    """
    How long a line of the log may be, in bytes of JSON.

    ``names`` and ``characters`` are what a list and a text may have, where that fits.
    """

    line_bytes: int
    names: int
    characters: int


# FallbackToLogsOnError shows the last 2048 bytes of a log.
VERDICT_ROOM = Room(line_bytes=2000, names=10, characters=600)
# Container runtimes cut a line of more than 16 KiB in pieces, which are no JSON.
LINE_ROOM = Room(line_bytes=16_000, names=200, characters=4000)


class Tally:
    """
    What a run has done so far: the verdict's fields, filled in as they are known.

    ``in_doubt`` has the migrations that were sent, until they are known to be applied,
    and how many statements each has. ``warnings`` are the names of events that an open
    gate does not pass over in its last line. ``outcome`` is what a command has to say
    that is not there to apply anything: a sentence without a full stop. ``undone`` is
    None where nothing is there to be undone. ``rows_seen`` is how many rows the last
    look at the history has shown. ``fleet`` returns what is said of many targets, in
    place of what one has.
    """

    __slots__ = (
        "applied",
        "fleet",
        "in_doubt",
        "lock_waited_s",
        "outcome",
        "rows_seen",
        "undone",
        "waited_s",
        "warnings",
    )

    def __init__(self) -> None:
        self.applied: list[str] = []
        self.undone: list[str] | None = None
        self.in_doubt: dict[str, int] = {}
        self.waited_s = 0.0
        self.lock_waited_s = 0.0
        self.warnings: list[str] = []
        self.outcome = ""
        self.rows_seen = 0
        self.fleet: Callable[[], dict[str, Any]] | None = None


class Verdict(NamedTuple):
    """
    How a run ended; ``fields`` are those of gate.opened or gate.closed.

    ``message`` says in a sentence why it is closed, the place included, or with what
    outcome it is open.
    """

    is_open: bool
    message: str
    fields: Mapping[str, Any]

    @property
    def exit_code(self) -> int:
        """Return 0 for open and 1 for closed."""
        return 0 if self.is_open else 1


def opened(tally: Tally, *, duration_ms: int) -> Verdict:
    """Return the verdict of a run that may let the application start."""
    fields = {
        **_summary(tally, duration_ms),
        "exit_code": 0,
        "warnings": list(tally.warnings),
    }
    message = tally.outcome or f"{len(tally.applied)} applied in {duration_ms} ms"
    if tally.warnings:
        message += f", with warnings: {', '.join(tally.warnings)}"
    return Verdict(is_open=True, message=message, fields=fields)


def closed(error: GateError, tally: Tally, *, duration_ms: int) -> Verdict:
    """Return the verdict of a run that ended with an error."""
    fields = {
        "reason": error.reason,
        "error_message": str(error),
        "hint": error.hint or None,
        **error.fields(),
        **_summary(tally, duration_ms),
        "exit_code": 1,
    }
    known = {name: value for name, value in fields.items() if value is not None}
    return Verdict(is_open=False, message=str(error), fields=known)


def _summary(tally: Tally, duration_ms: int) -> dict[str, object]:
    undone: dict[str, object] = {}
    if tally.undone is not None:
        undone = {"undone": list(tally.undone), "undone_count": len(tally.undone)}
    return {
        "applied": list(tally.applied),
        "applied_count": len(tally.applied),
        **undone,
        "waited_s": round(tally.waited_s, 3),
        "lock_waited_s": round(tally.lock_waited_s, 3),
        "duration_ms": duration_ms,
        **({} if tally.fleet is None else tally.fleet()),
    }


def shorten(record: Mapping[str, Any], room: Room = VERDICT_ROOM) -> dict[str, Any]:
    """
    Cut lists and texts until a record's JSON fits, and make texts printable.

    A list keeps its first names and an item that says how many more there are.
    """
    names, characters = room.names, room.characters
    short = _cut(record, names, characters)
    while _size(short) > room.line_bytes and (
        names or characters > TEXT_MIN_CHARACTERS
    ):
        names //= 2
        characters = max(TEXT_MIN_CHARACTERS, int(characters * 0.8))
        short = _cut(record, names, characters)
    return short


def printable(text: str) -> str:
    """
    Return a text with a sign in place of each character that cannot be read.

    Whatever a library says reaches the log through here. Lines, tabs and wide spaces
    stay, and so does what stands for a byte that is no text, which the log spells out.
    """
    if text.isprintable():
        return text
    return "".join(
        c
        if c.isprintable() or c in KEPT_SPACES or "\ud800" <= c <= "\udfff"
        else UNREAD
        for c in text
    )


def _size(record: Mapping[str, Any]) -> int:
    return len(
        json.dumps(record, ensure_ascii=False, default=str).encode(
            errors="backslashreplace"
        )
    )


def _cut(record: Mapping[str, Any], names: int, characters: int) -> dict[str, Any]:
    return {
        name: _cut_value(value, names, characters) for name, value in record.items()
    }


def _cut_value(value: object, names: int, characters: int) -> object:
    if isinstance(value, str):
        text = printable(value)
        return text if len(text) <= characters else text[: characters - 1] + "…"
    if isinstance(value, list | tuple):
        kept = [_cut_value(item, names, characters) for item in value[:names]]
        left = len(value) - len(kept)
        return [*kept, f"… {left} more"] if left else kept
    return value
