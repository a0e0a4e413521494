"""
Sections of a file that holds more than one direction, and what is kept of it. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Literal

from migration_gate.statements import Content, ScriptError, split


REMEDY: Final = "Correct the marks, or keep only the part that goes up."
_BLANKED: Final = bytes(byte if byte in b"\r\n" else ord(" ") for byte in range(256))


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """
    The bytes of a file that go one way, each at its offset in the file.

    ``transaction`` is what another tool's marks ask for; None where they are silent.
    ``wholes`` are stretches that the tool commits each as a whole, where the file runs
    outside a transaction. ``faults`` are what of the other tool's form the gate cannot
    honour. ``turns`` are stretches in the order in which they are done, where that is
    not the file's; ``may_be_empty`` tells that the file asks for nothing to be done.
    """

    content: Content = field(repr=False)
    transaction: Literal["outside"] | None = None
    wholes: tuple[tuple[int, int], ...] = ()
    faults: tuple[ScriptError, ...] = ()
    turns: tuple[tuple[int, int], ...] = ()
    may_be_empty: bool = False


def keep_only(content: Content, kept: Iterable[tuple[int, int]]) -> bytes:
    """
    Return a file's content with blanks in place of what is not kept, up to its end.

    A stretch that is left out ends the statement before it, as it does where each
    stretch is sent alone.
    """
    parts: list[bytes] = []
    position = 0
    for start, end in kept:
        if start > position:
            parts.append(_blank(content[position:start], ends_statement=bool(parts)))
        parts.append(content[start:end])
        position = end
    return b"".join(parts)


def _blank(text: bytes, *, ends_statement: bool) -> bytes:
    blank = text.translate(_BLANKED)
    return b";" + blank[1:] if ends_statement and blank[:1] == b" " else blank


def require_whole(content: Content, kept: Iterable[tuple[int, int]]) -> None:
    """
    Refuse a stretch that a quote, a comment or a parenthesis leads out of.

    Raises:
        ScriptError: It has an open end.
    """
    for start, end in kept:
        try:
            split(content[start:end])
        except ScriptError as error:
            raise ScriptError(
                start + error.offset, error.problem, error.remedy
            ) from error
