"""
A text in which something was filled in, and where each byte of it comes from. Pure.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import NamedTuple

from migration_gate.statements.contents import Content


class Edit(NamedTuple):
    """
    One stretch of a text, and what it became.

    ``start`` and ``end`` are its bytes in the text before, ``begin`` and ``stop`` those
    in the text after; ``name`` is that of the variable.
    """

    start: int
    end: int
    begin: int
    stop: int
    name: str


class Filled(NamedTuple):
    """
    A text that was filled in, layer upon layer.

    ``layers`` has the edits of each, the first one's in the text as it stood.
    """

    text: Content
    layers: tuple[tuple[Edit, ...], ...] = ()

    def to_source(self, offset: int) -> int:
        """
        Return the offset, in the text as it stood, of a byte of this one.

        In what was filled in, it is that of the variable.
        """
        for edits in reversed(self.layers):
            index = bisect_right(edits, offset, key=lambda edit: edit.begin) - 1
            if index >= 0:
                edit = edits[index]
                inside = offset < edit.stop
                offset = edit.start if inside else edit.end + offset - edit.stop
        return offset

    def from_source(self, offset: int) -> int:
        """Return the offset of a byte that was not filled in."""
        for edits in self.layers:
            index = bisect_right(edits, offset, key=lambda edit: edit.start) - 1
            if index >= 0:
                edit = edits[index]
                inside = offset < edit.end
                offset = edit.begin if inside else edit.stop + offset - edit.end
        return offset

    def is_filled_in(self, offset: int) -> bool:
        """Tell whether a byte is of a variable's value."""
        for edits in reversed(self.layers):
            index = bisect_right(edits, offset, key=lambda edit: edit.begin) - 1
            if index < 0:
                continue
            edit = edits[index]
            if offset < edit.stop:
                return True
            offset = edit.end + offset - edit.stop
        return False

    def replaced(self, stretches: Iterable[tuple[int, int, str, bytes]]) -> Filled:
        """
        Return this text with other bytes in place of some stretches.

        Args:
            stretches: Start, end, a variable's name and its text; in order, and none
                overlaps another.
        """
        parts: list[bytes] = []
        edits: list[Edit] = []
        position = length = 0
        for start, end, name, filling in stretches:
            kept = self.text[position:start]
            begin = length + len(kept)
            length = begin + len(filling)
            parts += (kept, filling)
            edits.append(Edit(start, end, begin, length, name))
            position = end
        if not edits:
            return self
        parts.append(self.text[position:])
        return Filled(b"".join(parts), (*self.layers, tuple(edits)))
