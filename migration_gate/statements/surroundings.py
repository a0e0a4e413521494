"""
What a place in a statement is in: a comment, a quoted form, or the code itself. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from migration_gate.statements.contents import Content
from migration_gate.statements.forms import STANDARD, Reading
from migration_gate.statements.statement import Statement
from migration_gate.statements.streaming import iter_forms


_QUOTES: Final = frozenset(b"'\"$")
_DEPTHS: Final = {b"(": (1, 0), b")": (-1, 0), b"[": (0, 1), b"]": (0, -1)}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """
    Where an offset is.

    ``parentheses`` and ``brackets`` are how deep it is in each; 0 in what stands
    before a statement.
    """

    kind: Literal["comment", "quoted", "code", "data"]
    parentheses: int = 0
    brackets: int = 0


def surroundings(
    data: Content,
    piece: Statement,
    offsets: Iterable[int],
    reading: Reading = STANDARD,
) -> Iterator[tuple[int, Surroundings]]:
    """
    Yield what is around each offset of a piece, in the order given, which ascends.

    Raises:
        ScriptError: a quoted form or a comment has no end.
    """
    waiting = list(offsets)[::-1]
    while waiting and waiting[-1] < piece.first:
        yield waiting.pop(), Surroundings("comment")
    end = piece.copy_data[0] if piece.copy_data else piece.end
    parentheses = brackets = 0
    for form_start, form_end, _ in iter_forms(data, piece.first, reading):
        while waiting and waiting[-1] < min(form_start, end):
            yield waiting.pop(), Surroundings("comment", parentheses, brackets)
        if not waiting or form_start >= end:
            break
        text = data[form_start : form_start + 3]
        is_quoted = form_end - form_start > 1 and not _QUOTES.isdisjoint(text)
        kind: Literal["quoted", "code"] = "quoted" if is_quoted else "code"
        while waiting and waiting[-1] < form_end:
            yield waiting.pop(), Surroundings(kind, parentheses, brackets)
        deeper = _DEPTHS.get(text[:1] if form_end == form_start + 1 else b"", (0, 0))
        parentheses += deeper[0]
        brackets += deeper[1]
    while waiting:
        yield waiting.pop(), Surroundings("data")
