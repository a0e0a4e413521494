"""
One piece of a script, as the rest of the program knows it. A value.
"""

from __future__ import annotations

from typing import NamedTuple


class Statement(NamedTuple):
    """
    One piece of a script: a statement with its inline data, or a psql command.

    Attributes:
        number: counts statements from 1, as the server counts its answers; 0 for a psql
            command.
        start: the byte where the piece begins, which is where the one before it ended.
        first: the byte of its first token.
        end: the byte after its ";", after the line that ends its COPY data, or after
            the line of the psql command.
        copy_data: the byte range of inline COPY data, without its terminator.
        tokens: the first tokens; never logged.
    """

    number: int
    start: int
    first: int
    end: int
    copy_data: tuple[int, int] | None
    tokens: tuple[bytes, ...]

    def __repr__(self) -> str:
        """Show where it is, and nothing of its text."""
        return f"Statement(number={self.number}, first={self.first}, end={self.end})"
