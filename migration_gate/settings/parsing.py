"""
How the values of settings are written. Pure.

Each parser raises ValueError with the rule that is broken, never with the value.
"""

from __future__ import annotations

import re

from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeVar, get_args

from migration_gate.settings.durations import parse_duration, parse_positive_duration
from migration_gate.settings.settings import (
    ADOPTED_TOOLS,
    IDENTIFIER_BYTES_MAX,
    Adopt,
    FailuresMax,
    HistoryTableName,
    TargetKind,
    Targets,
)


if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


T = TypeVar("T")

_QUOTED: Final = r'"(?:[^"]|"")*"'
_PART: Final = rf'{_QUOTED}|[^".\s]+'
PERCENT_MAX: Final = 100


def parse_limit(text: str) -> float | None:
    """Take none, or a duration; 0 is none too."""
    return None if text == "none" else parse_duration(text) or None


def parse_boolean(text: str) -> bool:
    """Take true or false, in the words of YAML and of shells."""
    word = text.strip().lower()
    if word in ("true", "1", "yes", "on"):
        return True
    if word in ("false", "0", "no", "off"):
        return False
    raise ValueError("is not true or false")


def parse_path(text: str) -> str:
    """Take any text; a path may have bytes that are not UTF-8."""
    if "\0" in text:
        raise ValueError("contains a NUL character")
    return text


def parse_text(text: str) -> str:
    """Take any text that the database can be sent."""
    # A surrogate is what Python makes of a byte that is not UTF-8.
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("is not UTF-8 text")
    return parse_path(text)


def parse_folders(text: str) -> str:
    """Take folders, with a colon between."""
    if not all(parse_path(text).split(":")):
        raise ValueError("names no folder before or after a colon")
    return text


def parse_word(text: str) -> str | None:
    """Take none, or any text."""
    return None if text == "none" else parse_text(text)


def parse_role(text: str) -> str | None:
    """Take none, or the name of a role."""
    # "none" can be no role: PostgreSQL reserves the word, as in SET ROLE NONE.
    return None if text == "none" else parse_identifier(text)


def parse_identifier(text: str) -> str:
    """Take a name as it is stored, or in double quotes."""
    if text.startswith('"'):
        if not re.fullmatch(_QUOTED, text):
            raise ValueError("has a double quote that is not closed or not doubled")
        text = text[1:-1].replace('""', '"')
    elif text != text.strip():
        raise ValueError("has white space around it")
    if not text or "\0" in text:
        raise ValueError("is an empty name or contains a NUL character")
    if len(parse_text(text).encode()) > IDENTIFIER_BYTES_MAX:
        raise ValueError(f"has a name longer than {IDENTIFIER_BYTES_MAX} bytes")
    return text


def parse_history_table(text: str) -> HistoryTableName:
    """Take names as they are written: case is kept, quotes only hold odd characters."""
    parts = re.fullmatch(rf"(?:({_PART})\.)?({_PART})", text)
    if parts is None:
        raise ValueError("is not of the form table or schema.table")
    schema = None if parts[1] is None else parse_identifier(parts[1])
    return HistoryTableName(schema=schema, table=parse_identifier(parts[2]))


def parse_adopt(text: str) -> Adopt:
    """Take refuse, none, a tool, or tool:schema.table."""
    word, colon, table = text.strip().partition(":")
    word = word.lower()
    if word in ADOPTED_TOOLS:
        return Adopt(word, parse_history_table(table) if colon else None)
    if colon or word not in {"refuse", "none"}:
        raise ValueError("is not refuse, none or the name of a tool")
    return Adopt(word)


def parse_targets(text: str) -> Targets | None:
    """Take none, schemas:QUERY, databases:QUERY or file:PATH."""
    kind, colon, source = parse_text(text).strip().partition(":")
    if kind == "none" and not colon:
        return None
    for known in get_args(TargetKind):
        if kind == known and source.strip():
            return Targets(known, source.strip())
    raise ValueError("is not none, schemas:QUERY, databases:QUERY or file:PATH")


def parse_count(text: str) -> int:
    """Take a whole number, 0 included."""
    digits = text.strip()
    if not re.fullmatch("[0-9]{1,9}", digits):
        raise ValueError("is not a whole number")
    return int(digits)


def parse_positive_count(text: str) -> int:
    """Take a whole number that is not 0."""
    count = parse_count(text)
    if not count:
        raise ValueError("is 0")
    return count


def parse_failures_max(text: str) -> FailuresMax:
    """Take all, a number or a percentage."""
    word = text.strip().lower()
    if word == "all":
        return FailuresMax(None)
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,3})?%|[0-9]{1,9}", word):
        raise ValueError("is not all, a number or a percentage")
    limit, is_percentage = float(word.removesuffix("%")), word.endswith("%")
    if is_percentage and limit > PERCENT_MAX:
        raise ValueError("is more than 100%")
    return FailuresMax(limit, is_percentage)


def parse_findings(text: str) -> tuple[str, ...]:
    """Take none, or names of findings between commas."""
    if text == "none":
        return ()
    from migration_gate.report.findings import (  # noqa: PLC0415  # for few
        FINDINGS,
        NAMES,
    )

    names = tuple(name.strip() for name in text.split(","))
    if not FINDINGS.keys() >= set(names):
        raise ValueError(f"names what is no finding; the names are: {NAMES}")
    return names


def choice(*words: T) -> Callable[[str], T]:
    """Return a parser that takes one of the words, in any case."""

    def parse(text: str) -> T:
        for word in words:
            if text.strip().lower() == word:
                return word
        raise ValueError(f"is not one of {', '.join(map(str, words))}")

    return parse


DURATION: Final = "Write a duration like 30, 30s, 5m, 500ms or 1h."
REMEDIES: Final[Mapping[Callable[[str], object], str]] = MappingProxyType(
    {
        parse_duration: DURATION,
        parse_positive_duration: DURATION,
        parse_limit: DURATION,
        parse_boolean: "Write true or false.",
        parse_history_table: "Write table or schema.table;"
        " a name with a dot or a space in double quotes.",
        parse_role: "Write the name of one role.",
        parse_targets: "A query gives one name a row; a file has one a line.",
        parse_count: "Write a number like 0, 1 or 10.",
        parse_positive_count: "Write a number like 1 or 8.",
        parse_failures_max: "Write all, a number like 3, or a percentage like 5%.",
        parse_adopt: f"The tools are: {', '.join(ADOPTED_TOOLS)}; a table of another"
        " name is written after the tool, as in goose:audit.goose_db_version. Of any"
        " other tool, what has run is told by GATE_BASELINE.",
    }
)
