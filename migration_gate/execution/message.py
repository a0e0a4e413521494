"""
A message as its statements: those of files, and the gate's own around them. Pure.

The server answers each statement once, so that counting answers tells which one failed.
"""

from __future__ import annotations

import io

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, Literal, TypeAlias

from migration_gate.files.migration import BYTE_ORDER_MARK, Replacement
from migration_gate.files.script import Script
from migration_gate.files.units import Unit
from migration_gate.statements import Statement, blocks


OwnName = Literal[
    "begin",
    "lock",
    "limits",
    "defaults",
    "path",
    "variables",
    "row",
    "gone",
    "noted",
    "kept",
    "role",
    "schema",
    "setting",
    "mark",
    "valid",
    "asked",
    "clean up",
    "trusted",
    "complete",
    "forget",
    "finish",
    "finished",
    "commit",
]
# Of UTF-8; all others go on with one.
CHARACTER_STARTS: Final = bytes({*range(0x80), *range(0xC0, 0x100)})


# Where a statement fails the server logs its message whole: the file's begin a line.
BEFORE_FILE: Final[frozenset[OwnName]] = frozenset({"row", "role", "schema", "commit"})


@dataclass(frozen=True, slots=True)
class Own:
    """A statement of the gate's own, and what it is for."""

    name: OwnName
    text: bytes = field(repr=False)


Part: TypeAlias = Own | Statement


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """
    A script, and the version that the history gets, in the spelling it uses.

    ``checks_defaults`` asks before it whether the session still has the defaults of a
    new one: what was applied before it may have changed them. ``replaced`` is the row
    that a repeatable one has already; ``undoes`` are the rows that
    go with it, where the script undoes the migration.
    """

    script: Script
    version: str
    checks_defaults: bool = False
    replaced: Replacement | None = None
    undoes: tuple[str, ...] = ()

    @property
    def is_back(self) -> bool:
        """Return whether the script undoes the migration."""
        return self.script.migration.way != "up"

    def number_of(self, unit: Unit) -> int:
        """Return a unit's number in the progress, below zero in what goes back."""
        return -unit.number if self.is_back else unit.number


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What of a message belongs to one migration, statement by statement."""

    task: Task
    parts: tuple[Part, ...]

    @property
    def statements(self) -> tuple[Statement, ...]:
        """Return those of the file, in order."""
        return tuple(part for part in self.parts if isinstance(part, Statement))

    def part_blocks(self, part: Part) -> Iterator[bytes]:
        """Yield what is sent for one statement, its semicolon included."""
        if isinstance(part, Own):
            yield part.text
            yield b";\n" if part.name in BEFORE_FILE else b"; "
            return
        script = self.task.script
        content, end = script.content, part_end(part)
        for _, block in blocks(content, part_start(part, script), end):
            yield block
        if part.copy_data is None and content[end - 1 : end] != b";":
            yield b"\n;\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """A statement of a message, and the byte that PostgreSQL points to, or None."""

    share: Share
    part: Part
    offset: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What is sent at once: what belongs to each migration, in order."""

    shares: tuple[Share, ...]

    @property
    def begins(self) -> bool:
        """Return whether a transaction, or a statement alone, begins with it."""
        first = self.shares[0].parts[0]
        return isinstance(first, Statement) or first.name == "begin"

    @property
    def answer_count(self) -> int:
        """Return how many answers the server gives when nothing fails."""
        return sum(len(share.parts) for share in self.shares)

    def encode(self) -> bytes:
        """Return the text that is sent, of which there is never a second copy."""
        text = io.BytesIO()
        for share in self.shares:
            for part in share.parts:
                text.writelines(share.part_blocks(part))
        return text.getvalue()

    def part_after(self, answered: int) -> Origin:
        """Return the statement that is being done after this many answers."""
        for share in self.shares:
            if answered < len(share.parts):
                return Origin(share=share, part=share.parts[answered])
            answered -= len(share.parts)
        text = "PostgreSQL gave more answers than there are statements"
        raise AssertionError(text)

    def copy_data(self, answered: int) -> tuple[Share, tuple[int, int]]:
        """Return whose data the COPY after this many answers reads, and its range."""
        place = self.part_after(answered)
        if isinstance(place.part, Own) or place.part.copy_data is None:
            text = "PostgreSQL asks for data that the file does not have"
            raise AssertionError(text)
        return place.share, place.part.copy_data

    def locate(self, position: int | None, *, in_bytes: bool) -> Origin | None:
        """
        Find what PostgreSQL's position points to: the statement, and the byte in it.

        The byte counts from the start of the file for the file's statements, and from
        0 for the gate's own.

        Args:
            position: Counts characters of the message from 1; None where it gave none.
            in_bytes: It counts bytes, as a server does that knows no characters.
        """
        if position is None:
            return None
        left = position - 1
        for share in self.shares:
            for part in share.parts:
                offset = part_start(part, share.task.script)
                for block in share.part_blocks(part):
                    length = len(block) if in_bytes else _count_characters(block)
                    if left < length:
                        offset += left if in_bytes else _find_character(block, left)
                        return Origin(share=share, part=part, offset=offset)
                    left -= length
                    offset += len(block)
        return None


def _count_characters(text: bytes) -> int:
    """Count the characters of UTF-8 that begin in a text."""
    return len(text) - len(text.translate(None, CHARACTER_STARTS))


def _find_character(text: bytes, count: int) -> int:
    """Return where the character begins that so many come before."""
    if text.isascii():
        return count
    starts = (at for at, byte in enumerate(text) if byte in CHARACTER_STARTS)
    return next(islice(starts, count, None))


def single(task: Task, parts: Sequence[Part]) -> Message:
    """Return a message that is about one migration."""
    return Message(shares=(Share(task=task, parts=tuple(parts)),))


def part_start(part: Part, script: Script) -> int:
    """
    Return where a statement's text begins in the file, a byte order mark left out.

    0 for the gate's own.
    """
    if isinstance(part, Own):
        return 0
    has_mark = part.start == 0 and script.content[:3] == BYTE_ORDER_MARK
    return len(BYTE_ORDER_MARK) if has_mark else part.start


def part_end(statement: Statement) -> int:
    """Return where a statement's text ends in the file: COPY data is not a part."""
    return statement.copy_data[0] if statement.copy_data else statement.end
