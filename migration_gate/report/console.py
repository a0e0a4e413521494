"""
A line of the log as a person at a terminal reads it. Pure.

Time, level and sentence; below it what else tells why. On a terminal what is waited
for, a statement's end too, is one line that is written over again and again.
"""

from __future__ import annotations

import unicodedata

from collections.abc import Mapping
from typing import Any, Final


COLORS: Final = {"warning": "\033[33m", "error": "\033[31m"}
COLOR_OFF: Final = "\033[0m"
ERASE_LINE: Final = "\033[K"
# The next line is written over one that ends so.
OVERWRITTEN: Final = "\r"
LIVE_EVENTS: Final = frozenset(
    {
        *("database.retry_scheduled", "database.waiting"),
        *("lock.waiting", "migration.progress", "fleet.progress"),
    }
)
# PostgreSQL's words come before ours.
BELOW: Final = {
    "targets": "target",
    "error_detail": "detail",
    "error_context": "context",
    "error_hint": "hint",
    "hint": "hint",
    "holder_pid": "holder",
    "phase": "phase",
    "percent": "percent",
    "blockers": "blocker",
}
LABEL_AT: Final = 13
TEXT_AT: Final = LABEL_AT + 8


def describe_line(line: Mapping[str, Any], *, columns: int | None) -> str:
    """
    Return what a line of the log says to a person.

    Args:
        line: With timestamp, level, event and message.
        columns: How wide the terminal is; None where it is none, and then there is no
            colour and nothing is written over.
    """
    level, time = str(line["level"]), line["timestamp"][11:23]
    message = _printable(line["message"])
    below = [
        (label, _printable(item))
        for name, label in BELOW.items()
        for item in _items(line.get(name))
    ]
    color = COLORS.get(level) if columns is not None else None
    if columns is not None and line["event"] in LIVE_EVENTS:
        # There is little room: the colour alone tells the level.
        told = [f"{time} {message}", *(f"{label} {item}" for label, item in below)]
        text = ", ".join(told).replace("\n", " ")[: columns - 1]
        return f"{ERASE_LINE}{_colored(text, color)}{OVERWRITTEN}"
    text = "\n".join(
        [
            f"{time} {level:<7} {message}",
            *(f"{'':{LABEL_AT}}{label:<7} {item}" for label, item in below),
        ]
    )
    return text if columns is None else f"{ERASE_LINE}{_colored(text, color)}"


def _colored(text: str, color: str | None) -> str:
    return f"{color}{text}{COLOR_OFF}" if color else text


def _items(value: object) -> list[str]:
    if value is None or value == "":
        return []
    if isinstance(value, list | tuple):
        return [str(item) for item in value]
    return [str(value)]


def _printable(text: object) -> str:
    """Indent further lines; take out what would steer the terminal."""
    plain = "".join(
        "�" if unicodedata.category(character) == "Cc" else character
        for character in str(text).replace("\r\n", "\n").replace("\n", "\u2028")
    )
    return plain.replace("\u2028", "\n" + " " * TEXT_AT)
