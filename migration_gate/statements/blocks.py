"""
A large content block by block. Pure; what has been read of a map is let go.

The pages of a map that were read count as the process's own until they are.
"""

from __future__ import annotations

import mmap
import re

from collections.abc import Callable, Iterator
from typing import Final

from migration_gate.statements.forms import ScriptBytes


BLOCK_BYTES: Final = 1 << 20
REACH_BYTES: Final = 1 << 12
_NEIGHBOURS_BYTES: Final = 1 << 21


class TextChangedError(Exception):
    """The file behind a content is not what it was."""


def blocks(
    data: ScriptBytes, start: int, end: int, size: int = BLOCK_BYTES
) -> Iterator[tuple[int, bytes]]:
    """
    Yield offset and bytes of each block from `start` to `end`.

    Raises:
        TextChangedError: the file behind a map was cut, or grew.
    """
    for position in range(start, end, size):
        _require_whole(data)
        stop = min(position + size, end)
        yield position, data[position:stop]
        _let_go(data, position, stop)


def find(data: ScriptBytes, *wanted: bytes, start: int = 0) -> int:
    """Return the offset of the first of the texts from `start` on, or -1."""
    overlap = max(map(len, wanted)) - 1
    before = b""
    for position, block in blocks(data, start, len(data)):
        window = before + block
        found = [at for text in wanted if (at := window.find(text)) >= 0]
        if found:
            return position - len(before) + min(found)
        before = window[-overlap:] if overlap else b""
    return -1


def has_any(data: ScriptBytes, *wanted: bytes) -> bool:
    """Tell whether any of the texts, in lower case, is there in any case of ASCII."""
    overlap = max(map(len, wanted)) - 1
    before = b""
    for _, block in blocks(data, 0, len(data)):
        window = before + block.lower()
        if any(text in window for text in wanted):
            return True
        before = window[-overlap:] if overlap else b""
    return False


def iter_matches(
    data: ScriptBytes,
    pattern: re.Pattern[bytes],
    may_match: Callable[[bytes], bool],
) -> Iterator[tuple[int, re.Match[bytes]]]:
    """
    Yield offset and match of a pattern of lines, none longer than `REACH_BYTES`.

    The places of the match itself are those of a window.

    Args:
        data: The script.
        pattern: What is looked for.
        may_match: Tells, of a window in lower case, whether to look closer at all: a
            pattern of lines takes as long as splitting does.
    """
    before, size = b"", len(data)
    for position, block in blocks(data, 0, size):
        window = before + block
        base = position - len(before)
        is_last = position + len(block) == size
        limit = len(window) if is_last else max(len(window) - REACH_BYTES, 1)
        # From 1: the first byte is there for what a pattern looks back at.
        start = 1 if before else 0
        found = pattern.finditer(window, start) if may_match(window.lower()) else ()
        for match in found:
            if match.start() >= limit:
                break
            yield base + match.start(), match
        before = window[limit - 1 :]


def _require_whole(data: ScriptBytes) -> None:
    """Refuse a map of a file that was cut, whose pages end a process, or that grew."""
    if isinstance(data, mmap.mmap) and data.size() != len(data):
        text = "the file has another size than it had"
        raise TextChangedError(text)


def _let_go(data: ScriptBytes, start: int, end: int) -> None:
    if not isinstance(data, mmap.mmap):
        return
    # A page that is read brings its neighbours along, those before it too.
    first = max(0, start - _NEIGHBOURS_BYTES) // mmap.PAGESIZE * mmap.PAGESIZE
    pages = (end - first) // mmap.PAGESIZE
    if pages:
        # The map is of a file, and read only: the page comes back when it is read.
        data.madvise(mmap.MADV_DONTNEED, first, pages * mmap.PAGESIZE)
