"""
The pieces of a script, however many: of a million each is some numbers. Pure.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Final, overload

from migration_gate.statements.contents import Content
from migration_gate.statements.forms import STANDARD, Reading, backslashes
from migration_gate.statements.parameters import string_syntax_set
from migration_gate.statements.statement import Statement
from migration_gate.statements.tokens import read_tokens


FEW: Final = 4096
KINDS_MAX: Final = 1024
_READ_ANEW: Final = 0


def gather(content: Content, pieces: Iterable[Statement]) -> Sequence[Statement]:
    """Return the pieces of a script, in a form that costs little memory."""
    following = iter(pieces)
    first = tuple(islice(following, FEW + 1))
    if len(first) <= FEW:
        return first
    columns = _Columns(content, chain(first, following))
    return Pieces(columns, range(len(columns)))


def having(
    pieces: Sequence[Statement], test: Callable[[Statement], object]
) -> Iterator[tuple[int, Statement]]:
    """
    Yield index and piece of each for which a test is true.

    Args:
        pieces: Those of one script.
        test: Looks at nothing but the tokens of a piece.
    """
    if not isinstance(pieces, Pieces):
        yield from ((at, piece) for at, piece in enumerate(pieces) if test(piece))
        return
    for at in pieces.having(test):
        piece = pieces[at]
        if test(piece):
            yield at, piece


def without(
    pieces: Sequence[Statement], left_out: Collection[int]
) -> Sequence[Statement]:
    """Return pieces without those of these indices."""
    if not left_out:
        return pieces
    if isinstance(pieces, Pieces):
        return pieces.without(left_out)
    return tuple(piece for at, piece in enumerate(pieces) if at not in left_out)


def reading_after(piece: Statement, reading: Reading) -> Reading:
    """Return how strings are read after a piece."""
    syntax = string_syntax_set(piece)
    if syntax is None:
        return reading
    return STANDARD if syntax == "standard" else backslashes()


class _Columns:
    """All pieces of a script; those of a few kinds of tokens need not be read again."""

    def __init__(self, content: Content, pieces: Iterable[Statement]) -> None:
        size = "I" if len(content) < 1 << 32 else "Q"
        self._content = content
        self._firsts, self._ends, self.kinds = array(size), array(size), array("H")
        self._copies: dict[int, tuple[int, int]] = {}
        self._commands: list[int] = []
        self._tokens: list[tuple[bytes, ...]] = [()]
        self._changed_at: list[int] = [0]
        self._readings: list[Reading] = [STANDARD]
        kinds: dict[tuple[bytes, ...], int] = {}
        for index, piece in enumerate(pieces):
            kind = kinds.get(piece.tokens)
            if kind is None:
                kind = _READ_ANEW
                if len(self._tokens) <= KINDS_MAX or not piece.number:
                    kind = kinds[piece.tokens] = len(self._tokens)
                    self._tokens.append(piece.tokens)
            self._firsts.append(piece.first)
            self._ends.append(piece.end)
            self.kinds.append(kind)
            if piece.copy_data is not None:
                self._copies[index] = piece.copy_data
            if not piece.number:
                self._commands.append(index)
            reading = reading_after(piece, self._readings[-1])
            if reading is not self._readings[-1]:
                self._changed_at.append(index + 1)
                self._readings.append(reading)

    def __len__(self) -> int:
        return len(self._ends)

    def piece(self, index: int) -> Statement:
        """Return the piece of an index."""
        first, end = self._firsts[index], self._ends[index]
        start = self._ends[index - 1] if index else 0
        number = index + 1
        if self._commands:
            before = bisect_left(self._commands, index)
            is_command = self._commands[before : before + 1] == [index]
            number = 0 if is_command else number - before
        kind = self.kinds[index]
        if kind == _READ_ANEW:
            at = bisect_right(self._changed_at, index) - 1
            tokens = read_tokens(self._content, first, end, self._readings[at])
        else:
            tokens = self._tokens[kind]
        return Statement(number, start, first, end, self._copies.get(index), tokens)

    def kinds_having(self, test: Callable[[Statement], object]) -> bytearray:
        """Tell for each kind whether a test may be true."""
        may = bytearray(len(self._tokens))
        may[_READ_ANEW] = True
        for kind, tokens in enumerate(self._tokens[1:], 1):
            number = 0 if tokens[:1] and tokens[0][:1] == b"\\" else 1
            may[kind] = bool(test(Statement(number, 0, 0, 0, None, tokens)))
        return may


class Pieces(Sequence[Statement]):
    """Many pieces of a script; each is made anew when it is asked for."""

    def __init__(self, columns: _Columns, indices: Sequence[int]) -> None:
        self._columns = columns
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, where: int) -> Statement: ...

    @overload
    def __getitem__(self, where: slice) -> Pieces: ...

    def __getitem__(self, where: int | slice) -> Statement | Pieces:
        """Return one piece, or some of them."""
        if isinstance(where, slice):
            return Pieces(self._columns, self._indices[where])
        return self._columns.piece(self._indices[where])

    def __iter__(self) -> Iterator[Statement]:
        return map(self._columns.piece, self._indices)

    def having(self, test: Callable[[Statement], object]) -> Iterator[int]:
        """Yield the index of each for which a test of its tokens may be true."""
        may, kinds = self._columns.kinds_having(test), self._columns.kinds
        return (at for at, index in enumerate(self._indices) if may[kinds[index]])

    def without(self, left_out: Collection[int]) -> Pieces:
        """Return all but those of these indices."""
        kept = (index for at, index in enumerate(self._indices) if at not in left_out)
        return Pieces(self._columns, array("I", kept))
