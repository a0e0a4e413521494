"""
COPY with the client: which statements do it, and where the data in the script is. Pure.
"""

from __future__ import annotations

import itertools
import re

from typing import Final

from migration_gate.statements.contents import Content, find
from migration_gate.statements.forms import BLANK, ScriptError


_REST_OF_COPY_LINE: Final = re.compile(rb"[ \t\r\f\v]*+(?>(?:--[^\n]*+)?)\n")
_COPY_TERMINATOR: Final = re.compile(rb"\\\.(?:\r?\n|\r?\Z)")
_TERMINATOR_BYTES: Final = 4
_LINE_BYTES: Final = 1 << 16


def copies_with_client(tokens: tuple[bytes, ...], direction: bytes) -> bool:
    """Tell whether a COPY goes b"from" or b"to" the client."""
    depth = 0
    for token, target in itertools.pairwise(tokens):
        if token == b"(":
            depth += 1
        elif token == b")":
            depth -= 1
        elif depth == 0 and token in {b"from", b"to"}:
            # gram.y: copy_file_name takes STDIN and STDOUT for the same.
            return token == direction and target in {b"stdin", b"stdout"}
    return False


def read_copy_data(data: Content, first: int, end: int) -> tuple[tuple[int, int], int]:
    r"""
    Return the range of the data after a COPY, and the offset after its terminator.

    As in psql, a line that is `\.` ends the data, in CSV quotes too; unlike in psql,
    the end of the file does not, since a dump that was cut off would look whole.

    Args:
        data: The script.
        first: Where the COPY begins.
        end: Where it ends.

    Raises:
        ScriptError: there is no such line, or the data does not begin on a line of
            its own.
    """
    following = data[end : end + _LINE_BYTES]
    rest = _REST_OF_COPY_LINE.match(following)
    if not rest and not BLANK.fullmatch(following):
        raise ScriptError(
            end,
            "text after COPY ... FROM STDIN on the same line",
            "Begin the data, and any other statement, on a line of its own.",
        )
    data_start = end + rest.end() if rest else len(data)
    line = data_start
    while True:
        terminator = _COPY_TERMINATOR.match(data[line : line + _TERMINATOR_BYTES])
        if terminator:
            return (data_start, line), line + terminator.end()
        line = find(data, b"\n\\.", start=line) + 1
        if line == 0:
            raise ScriptError(
                first,
                "COPY data without end",
                'End the data with a line that is "\\.".',
            )
