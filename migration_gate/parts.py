"""
A message as its statements: the file's, and the gate's own around them. Pure.

The server answers each statement once, so that counting answers tells which one failed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from migration_gate.migration import BYTE_ORDER_MARK
from migration_gate.script import Script
from migration_gate.statements import Statement


OwnName = Literal[
    "begin",
    "limits",
    "row",
    "role",
    "setting",
    "mark",
    "clean up",
    "forget",
    "finish",
    "commit",
]


@dataclass(frozen=True, slots=True)
class Own:
    """A statement of the gate's own, and what it is for."""

    name: OwnName
    text: bytes = field(repr=False)


Part: TypeAlias = Own | Statement


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What is sent at once, statement by statement."""

    script: Script
    parts: tuple[Part, ...]

    @property
    def begins(self) -> bool:
        """Return whether a transaction, or a statement alone, begins with it."""
        first = self.parts[0]
        return isinstance(first, Statement) or first.name == "begin"

    @property
    def statements(self) -> tuple[Statement, ...]:
        """Return those of the file, in order."""
        return tuple(part for part in self.parts if isinstance(part, Statement))

    def encode(self) -> bytes:
        """Return the text that is sent."""
        return b"".join(self.part_text(part) for part in self.parts)

    def part_text(self, part: Part) -> bytes:
        """Return what is sent for one statement, its semicolon included."""
        if isinstance(part, Own):
            return part.text + b";\n"
        text = self.script.content[part_start(part, self.script) : part_end(part)]
        if part.copy_data is None and text[-1:] != b";":
            return text + b"\n;\n"
        return text

    def copy_data(self, answered: int) -> tuple[int, int]:
        """Return the file's range of data for the COPY after this many answers."""
        part = self.parts[answered]
        if isinstance(part, Own) or part.copy_data is None:
            text = "PostgreSQL asks for data that the file does not have"
            raise AssertionError(text)
        return part.copy_data

    def locate(self, position: int | None) -> tuple[Part, int] | None:
        """
        Find what PostgreSQL's position points to: the statement, and the byte in it.

        Args:
            position: Counts characters of the message from 1; None where it gave none.

        Returns:
            The byte counts from the start of the file for the file's statements, and
            from 0 for the gate's own.
        """
        if position is None:
            return None
        characters = position - 1
        for part in self.parts:
            text = self.part_text(part).decode()
            if characters < len(text):
                before = len(text[:characters].encode())
                is_own = isinstance(part, Own)
                start = 0 if is_own else part_start(part, self.script)
                return part, start + before
            characters -= len(text)
        return None


def part_start(part: Part, script: Script) -> int:
    """Return where a statement's text begins in the file, a byte order mark left out."""
    start = 0 if isinstance(part, Own) else part.start
    has_mark = start == 0 and script.content[:3] == BYTE_ORDER_MARK
    return len(BYTE_ORDER_MARK) if has_mark else start


def part_end(statement: Statement) -> int:
    """Return where a statement's text ends in the file: COPY data is not a part."""
    return statement.copy_data[0] if statement.copy_data else statement.end


def find_own(parts: Sequence[Part], name: OwnName) -> int:
    """Return the index of the gate's own statement of that name, counted from the end."""
    for index in range(len(parts) - 1, -1, -1):
        part = parts[index]
        if isinstance(part, Own) and part.name == name:
            return index - len(parts)
    text = "the message has no such statement"
    raise AssertionError(text)
