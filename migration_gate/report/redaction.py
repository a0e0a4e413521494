"""
Values that must not be shown: taken out of what PostgreSQL and the gate say. Pure.

PostgreSQL quotes what it was sent: whole, as a string with its quotes doubled, in lower
case, or cut after so many bytes. In its place stands the name of the variable.
"""

from __future__ import annotations

import re
import string

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple


# Of a longer value its beginning gives it away; PostgreSQL cuts names after 63 bytes.
KNOWN_BY: Final = 12
# Of a value of several words, those of this length are hidden one by one too.
WORD_MIN: Final = 4
PARTS_OF_CHARACTERS: Final = 4096
# Names are folded by PostgreSQL in ASCII alone.
FOLDED: Final = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


class _Variant(NamedTuple):
    """A form of a value, folded; ``is_whole`` tells that it is the value itself."""

    text: str
    is_whole: bool
    name: str


class Redactor:
    """Takes the values of variables out of texts."""

    def __init__(self, values: Mapping[str, str]) -> None:
        variants = {
            _Variant(text.translate(FOLDED), text == value, name)
            for name, value in values.items()
            for text in _each_variant(value)
            if text.strip()
        }
        self._variants: dict[str, list[_Variant]] = defaultdict(list)
        for variant in variants:
            self._variants[variant.text[:KNOWN_BY]].append(variant)
        known = sorted(self._variants, key=len, reverse=True)
        pattern = "|".join(map(_to_pattern, known))
        self._pattern = re.compile(pattern, re.IGNORECASE | re.ASCII) if known else None

    def __call__(self, text: str, files: Sequence[str] = ()) -> str:
        """
        Return a text with each value's place taken by the variable's name.

        Args:
            files: Names that stay, and where in them, whatever a value is.
        """
        if self._pattern is None:
            return text
        places = [found.span() for found in re.finditer(_place_pattern(files), text)]
        parts: list[str] = []
        position = 0
        while match := self._pattern.search(text, position):
            start, before = match.start(), position
            end, name = self._measure(text, match)
            position = max(end, match.end())
            is_place = any(a <= start and position <= b for a, b in places)
            shown = text[start:position] if is_place else f":{name}"
            parts += (text[before:start], shown)
        return "".join((*parts, text[position:]))

    def redact(self, field: object, files: Sequence[str] = ()) -> object:
        """Return a field of the log likewise: a text, or a list of them."""
        if isinstance(field, str):
            return self(field, files)
        if isinstance(field, list | tuple):
            return [self.redact(item, files) for item in field]
        return field

    def _measure(self, text: str, match: re.Match[str]) -> tuple[int, str]:
        """Return how far a value goes on, and the variable that goes furthest."""
        found = []
        for variant in self._variants[match[0].translate(FOLDED)]:
            end = match.start() + len(variant.text)
            here = text[match.start() : end].translate(FOLDED)
            length = _count_common(variant.text, here)
            found.append((length, variant.is_whole, variant.name))
        length, _, name = max(found)
        return match.start() + length, name


def _place_pattern(files: Sequence[str]) -> str:
    """Return what finds a file with its line and column, and a line in words."""
    names = "|".join(map(re.escape, sorted(files, key=len, reverse=True)))
    return rf"(?:{names})(?::\d+)*|\bline \d+" if files else r"\bline \d+"


def _count_common(one: str, other: str) -> int:
    """Return how many characters two texts begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    first = next((index for index, (a, b) in pairs if a != b), None)
    return min(len(one), len(other)) if first is None else first


def _each_variant(value: str) -> Iterator[str]:
    """Yield the forms in which a value may be quoted."""
    yield value
    yield value.strip()
    for quote in "'\"":
        yield value.replace(quote, quote * 2)
    yield value.replace("\\", "\\\\").replace("'", "''")
    words = re.findall(r"\w+", value[:PARTS_OF_CHARACTERS])
    if len(words) > 1:
        yield from value[:PARTS_OF_CHARACTERS].splitlines()
        yield from (word for word in words if len(word) >= WORD_MIN)


def _to_pattern(known: str) -> str:
    """Return what finds a value's beginning; a short one only where no word goes on."""
    pattern = re.escape(known)
    if len(known) < KNOWN_BY:
        before = r"(?<!\w)" if re.match(r"\w", known, re.ASCII) else ""
        after = r"(?!\w)" if re.search(r"\w\Z", known, re.ASCII) else ""
        return before + pattern + after
    return pattern
