"""
The guard for marks that no tool here is known for: a way back must not run. Pure.
"""

from __future__ import annotations

import re

from collections.abc import Iterator, Sequence
from typing import Final

from migration_gate.statements import (
    Content,
    ScriptError,
    Statement,
    has_any,
    iter_matches,
    surroundings,
)


TRACES: Final = (b"down", b"undo", b"roll", b"revert")
# A comment on a line of its own that is nothing but a word for a way back, whatever
# signs are around it: of other words only those that mean a part of a migration, and
# the name that a tool puts before its marks.
MARK: Final = re.compile(
    rb"""
    (?: ^ | (?<=\r) ) [ \t]*
    (?: -- | (?P<block> /\* ) ) [^A-Za-z0-9\r\n]*
    (?: [+@] [A-Za-z][A-Za-z0-9_-]* [ \t:]+ )?
    (?: (?: %(part)b ) [^A-Za-z0-9\r\n]+ )?
    (?: downs? | downgrade | undo | roll[ \t_-]?back | revert )
    (?: [^A-Za-z0-9\r\n]+ (?: %(part)b ) )?
    [^A-Za-z0-9\r\n]*
    (?(block) (?<= \*/ ) | (?= [\r\n] | \Z ) )
    """
    % {b"part": rb"migrations? | migrate | script | section | part | sql"},
    re.MULTILINE | re.IGNORECASE | re.VERBOSE,
)
COMMENT: Final = re.compile(rb"--[^\n\r]*|/\*.*?\*/", re.DOTALL)


def find_ways_back(
    content: Content, pieces: Sequence[Statement]
) -> Iterator[ScriptError]:
    """Yield each comment that reads as the mark of a way back with statements in it."""
    if not pieces or not has_any(content, *TRACES):
        return
    index = 0
    for at, match in iter_matches(content, MARK, _may_mark):
        while index < len(pieces) and pieces[index].end <= at:
            index += 1
        if index == len(pieces):
            return
        if _separates(content, pieces[index], at, match[0]):
            yield ScriptError(
                at,
                "comment that looks like the start of a way back (down), with "
                "statements after it, which would run as well",
                'Take out what goes back, or say "-- gate: one-way" in a comment '
                "before the first statement where the whole file is meant.",
            )


def _may_mark(text: bytes) -> bool:
    has_comment = b"--" in text or b"/*" in text
    return has_comment and any(trace in text for trace in TRACES)


def _separates(content: Content, piece: Statement, at: int, comment: bytes) -> bool:
    """Tell a comment between statements, or where a semicolon may be missing."""
    if at < piece.first:
        before = COMMENT.sub(b"", content[piece.start : at])
        return b"/*" not in before
    if piece.number == 0:
        return False
    ((_, around),) = surroundings(content, piece, [at + len(comment) - 1])
    return around.kind == "comment" and around.parentheses == 0
