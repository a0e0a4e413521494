"""
Files in the form of other tools: which part goes up, and what their marks mean. Pure.

dbmate and goose keep both directions in one file; sqlx and Atlas mark a file that runs
outside a transaction. A marked file is used only where its marks are well-formed.
"""

from __future__ import annotations

import re

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

from migration_gate.files.migration import Content
from migration_gate.statements import ScriptError, find, leading_comments, split


# dbmate: pkg/dbmate/migration.go; goose: internal/sqlparser/parser.go. By lines, both.
MARK: Final = re.compile(
    rb"^--[ \t]*(?P<tool>migrate:|\+goose[ \t]+)(?P<words>[^\r\n]*)", re.MULTILINE
)
SQLX: Final = re.compile(rb"--[ \t]*no-transaction[ \t]*")
ATLAS: Final = re.compile(rb"--[ \t]*atlas:txmode[ \t]+none[ \t]*")
REMEDY: Final = "Correct the marks, or keep only the part that goes up."


@dataclass(frozen=True, slots=True, kw_only=True)
class UpPart:
    """
    The bytes of a file that go up, each at its offset in the file.

    ``transaction`` is what another tool's marks ask for; None where they are silent.
    """

    content: Content = field(repr=False)
    transaction: Literal["outside"] | None = None


@dataclass(frozen=True, slots=True)
class _Mark:
    start: int
    end: int
    words: str


def cut_up_part(content: Content) -> UpPart:
    """
    Return the part of a file that goes up: all of it where no tool has marked it.

    Raises:
        ScriptError: The marks are not well-formed.
    """
    if find(content, b"migrate:", b"+goose") < 0:
        return UpPart(content=content, transaction=_read_header(content))
    marks = list(_find_marks(content))
    if not marks:
        return UpPart(content=content)
    ups = [mark for mark in marks if mark.words.split()[0] == "up"]
    downs = [mark for mark in marks if mark.words.split()[0] == "down"]
    _require_order(content, marks, ups, downs)
    end = downs[0].start if downs else len(content)
    is_outside = any(
        mark.words == "no transaction" or "transaction:false" in mark.words.split()
        for mark in marks
        if mark.start < end
    )
    return UpPart(content=content[:end], transaction="outside" if is_outside else None)


def _read_header(content: Content) -> Literal["outside"] | None:
    """Read the marks of sqlx, on the first line, and Atlas, in the first comments."""
    for number, (_, comment) in enumerate(leading_comments(content)):
        is_sqlx = number == 0 and SQLX.fullmatch(comment) is not None
        if is_sqlx or ATLAS.fullmatch(comment):
            return "outside"
    return None


def _find_marks(content: Content) -> Iterator[_Mark]:
    """Yield the marks, their words in lower case; goose's own blocks are checked."""
    opened: _Mark | None = None
    for match in MARK.finditer(content):
        words = " ".join(match["words"].decode().split()).lower()
        mark = _Mark(match.start(), match.end(), words)
        if match["tool"].startswith(b"+goose") and words == "statementbegin":
            if opened is not None:
                raise ScriptError(mark.start, "StatementBegin in another", REMEDY)
            opened = mark
        elif match["tool"].startswith(b"+goose") and words == "statementend":
            if opened is None:
                raise ScriptError(
                    mark.start, "StatementEnd without StatementBegin", REMEDY
                )
            opened = None
        elif _is_known(match["tool"], words):
            yield mark
        else:
            raise ScriptError(mark.start, "unknown mark of another tool", REMEDY)
    if opened is not None:
        raise ScriptError(opened.start, "StatementBegin without StatementEnd", REMEDY)


def _is_known(tool: bytes, words: str) -> bool:
    if tool.startswith(b"+goose"):
        return words in {"up", "down", "no transaction"}
    direction, _, options = words.partition(" ")
    known = {"transaction:false", "transaction:true"}
    return direction in {"up", "down"} and set(options.split()) <= known


def _require_order(
    content: Content, marks: list[_Mark], ups: list[_Mark], downs: list[_Mark]
) -> None:
    if len(ups) != 1:
        at = ups[1] if ups else marks[0]
        problem = "second mark of the part that goes up" if ups else "no part goes up"
        raise ScriptError(at.start, problem, REMEDY)
    if len(downs) > 1:
        raise ScriptError(
            downs[1].start, "second mark of the part that goes down", REMEDY
        )
    if downs and downs[0].start < ups[0].start:
        problem = "the part that goes down comes first"
        raise ScriptError(downs[0].start, problem, REMEDY)
    before = split(content[: ups[0].start])
    if before:
        problem = "statement before the mark of the part that goes up"
        raise ScriptError(before[0].first, problem, REMEDY)
