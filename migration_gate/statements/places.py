"""
Where in a script an offset is, and the comments that may hold directives. Pure.
"""

from __future__ import annotations

import re

from collections.abc import Iterator
from typing import Final

from migration_gate.statements.contents import BLOCK_BYTES, Content, around, blocks
from migration_gate.statements.forms import (
    BYTE_ORDER_MARK,
    ScriptError,
)
from migration_gate.statements.streaming import pass_block_comment


_CONTINUATION_BYTES: Final = bytes(range(0x80, 0xC0))
_WHITE_SPACE: Final = re.compile(rb"[ \t\n\r\f\v]*+")
_LINE_COMMENT: Final = re.compile(rb"--[^\n\r]*+")


def place(data: Content, offset: int) -> tuple[int, int]:
    """
    Return the line and the column of a byte offset, both from 1.

    A line ends with a line feed, a carriage return, or both. A column counts characters
    of UTF-8; a byte order mark is none.
    """
    # Between the two bytes of "\r\n" the line has not ended.
    end = offset - (offset > 0 and data[offset - 1 : offset + 1] == b"\r\n")
    line, line_start = 1, 0
    for start, chunk in blocks(data, 0, end):
        line += chunk.count(b"\n") + chunk.count(b"\r") - chunk.count(b"\r\n")
        if start and chunk[:1] == b"\n" and data[start - 1 : start] == b"\r":
            line -= 1
        line_end = max(chunk.rfind(b"\n"), chunk.rfind(b"\r"))
        if line_end >= 0:
            line_start = start + line_end + 1
    if line_start == 0 and data[:3] == BYTE_ORDER_MARK:
        line_start = len(BYTE_ORDER_MARK)
    characters = sum(
        len(chunk.translate(None, _CONTINUATION_BYTES))
        for _, chunk in blocks(data, line_start, offset)
    )
    return line, characters + 1


def leading_comments(data: Content) -> Iterator[tuple[int, bytes]]:
    """
    Yield offset and text, "--" included, of each line comment before the first token.

    Block comments are stepped over; one without end is left to `split` to report.
    """
    position = len(BYTE_ORDER_MARK) if data[:3] == BYTE_ORDER_MARK else 0
    while position < len(data):
        base, window = around(data, position, BLOCK_BYTES)
        space = _WHITE_SPACE.match(window, position - base)
        at = space.end() if space else position - base
        comment = _LINE_COMMENT.match(window, at)
        if comment:
            yield base + at, comment[0]
            position = base + comment.end()
        elif window[at : at + 2] == b"/*":
            try:
                position = pass_block_comment(data, base + at)
            except ScriptError:
                return
        elif at < len(window):
            return
        else:
            position = base + at
