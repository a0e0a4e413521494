"""
A large text block by block. Pure: who makes one says how a block is read.
"""

from __future__ import annotations

import re

from collections.abc import Callable, Iterator
from typing import Final, TypeAlias, overload


BLOCK_BYTES: Final = 1 << 20
REACH_BYTES: Final = 1 << 12
_BLOCKS_KEPT: Final = 2  # what is read goes over an edge now and then


class LargeText:
    """
    A text of which only what is looked at is in memory.

    ``read`` returns the block of a number, counted from 0: the same each time, or it
    raises. ``reach_bytes`` are those that a look sees at least, up to the end.
    """

    __slots__ = (
        "_base",
        "_kept",
        "_read",
        "_size",
        "_window",
        "block_bytes",
        "reach_bytes",
    )

    def __init__(
        self, size: int, read: Callable[[int], bytes], block_bytes: int = BLOCK_BYTES
    ) -> None:
        self.block_bytes = block_bytes
        self.reach_bytes = block_bytes // 16
        self._size = size
        self._read = read
        self._kept: dict[int, bytes] = {}
        self._base = 0
        self._window = b""

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, where: int) -> int: ...

    @overload
    def __getitem__(self, where: slice) -> bytes: ...

    def __getitem__(self, where: int | slice) -> int | bytes:
        """Return a byte, or the bytes of a stretch."""
        if isinstance(where, int):
            base, window = self.window(where, 1)
            return window[where - base]
        start, stop, _ = where.indices(self._size)
        parts = []
        length = self.block_bytes
        for begin in range(start - start % length, stop, length):
            block = self._block(begin // length)
            parts.append(block[max(start - begin, 0) : stop - begin])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def window(self, position: int, reach: int) -> tuple[int, bytes]:
        """
        Return a stretch around a position, after where it begins.

        It has `reach` bytes from there on, and a block of them when it is a new one;
        fewer only at the end of the text.
        """
        stop = self._base + len(self._window)
        if not self._base <= position <= stop or (
            position + reach > stop and stop < self._size
        ):
            self._base = position
            self._window = self[position : position + max(reach, self.block_bytes)]
        return self._base, self._window

    def up_to(self, end: int) -> LargeText:
        """Return the text up to a byte."""
        return LargeText(min(end, self._size), self._read, self.block_bytes)

    def _block(self, number: int) -> bytes:
        block = self._kept.get(number)
        if block is None:
            while len(self._kept) >= _BLOCKS_KEPT:
                del self._kept[next(iter(self._kept))]
            block = self._kept[number] = self._read(number)
        return block


Content: TypeAlias = bytes | LargeText


def up_to(content: Content, end: int) -> Content:
    """Return a content up to a byte, a large one without a copy."""
    return content[:end] if isinstance(content, bytes) else content.up_to(end)


def around(content: Content, position: int, reach: int) -> tuple[int, bytes]:
    """Return where a stretch begins that has `reach` bytes from there on, and it."""
    return (
        (0, content) if isinstance(content, bytes) else content.window(position, reach)
    )


def blocks(
    content: Content, start: int, end: int, size: int = BLOCK_BYTES
) -> Iterator[tuple[int, bytes]]:
    """Yield offset and bytes of each block from `start` to `end`."""
    for position in range(start, end, size):
        yield position, content[position : min(position + size, end)]


def find(
    content: Content, *wanted: bytes, start: int = 0, end: int | None = None
) -> int:
    """Return the offset of the first of the texts between two bytes, or -1."""
    overlap = max(map(len, wanted)) - 1
    before = b""
    for position, block in blocks(content, start, len(content) if end is None else end):
        window = before + block
        found = [at for text in wanted if (at := window.find(text)) >= 0]
        if found:
            return position - len(before) + min(found)
        before = window[-overlap:] if overlap else b""
    return -1


def has_any(
    content: Content, *wanted: bytes, start: int = 0, end: int | None = None
) -> bool:
    """Tell whether any of the texts, in lower case, is there in any case of ASCII."""
    overlap = max(map(len, wanted)) - 1
    before = b""
    for _, block in blocks(content, start, len(content) if end is None else end):
        window = before + block.lower()
        if any(text in window for text in wanted):
            return True
        before = window[-overlap:] if overlap else b""
    return False


def has_match(content: Content, pattern: re.Pattern[bytes]) -> bool:
    """Tell whether a pattern of a few words, in lower case, is in any case of ASCII."""
    before = b""
    for _, block in blocks(content, 0, len(content)):
        window = before + block.lower()
        if pattern.search(window):
            return True
        before = window[-REACH_BYTES:]
    return False


def iter_matches(
    content: Content,
    pattern: re.Pattern[bytes],
    may_match: Callable[[bytes], bool],
) -> Iterator[tuple[int, re.Match[bytes]]]:
    """
    Yield offset and match of a pattern of lines, none longer than `REACH_BYTES`.

    The places of the match itself are those of a window.

    Args:
        content: The script.
        pattern: What is looked for.
        may_match: Tells, of a window in lower case, whether to look closer at all: a
            pattern of lines takes as long as splitting does.
    """
    before, size = b"", len(content)
    for position, block in blocks(content, 0, size):
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
