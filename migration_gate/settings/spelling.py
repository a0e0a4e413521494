"""
Slips of the pen: which known word was meant. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable


def closest(word: str, known: Iterable[str]) -> str | None:
    """
    Return the known word that ``word`` is a slip of the pen away from.

    Case does not count; a short word allows one slip, a longer one two.
    """
    slips = {
        name: _slips_between(word.upper(), name.upper())
        for name in known
        if abs(len(word) - len(name)) <= _allowed_slips(name)
    }
    near = [name for name, count in slips.items() if count <= _allowed_slips(name)]
    return min(near, key=lambda name: slips[name], default=None)


def _allowed_slips(word: str) -> int:
    length = len(word)
    if length < 4:  # noqa: PLR2004 - a slip in so short a word makes another word
        return 0
    return 1 if length < 7 else 2  # noqa: PLR2004 - of the settings' names, the short


def _slips_between(left: str, right: str) -> int:
    """Count insertions, deletions, substitutions and swaps of neighbours."""
    previous: list[int] = []
    row = list(range(len(right) + 1))
    for i, char in enumerate(left, start=1):
        before, previous, row = previous, row, [i]
        for j, other in enumerate(right, start=1):
            cost = min(
                previous[j] + 1, row[j - 1] + 1, previous[j - 1] + (char != other)
            )
            if i > 1 and j > 1 and (char, other) == (right[j - 2], left[i - 2]):
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
    return row[-1]
