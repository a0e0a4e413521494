"""
The page of a whole fleet, which status --html writes: each target, the worst first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from migration_gate.commands.page import Heading, choose, escape, make_page


if TYPE_CHECKING:
    from migration_gate.commands.fleet.target_lines import State, TargetLine

# In the order in which they are shown, with the kind that colours and filters go by.
KINDS: Final[Mapping[State, str]] = {
    "refused": "bad",
    "behind": "pending",
    "up to date": "good",
}
CHOICES: Final = (("all", "All"), ("pending", "Behind"), ("look", "Worth a look"))


def to_board(heading: Heading, lines: Sequence[TargetLine]) -> str:
    """Return the page; the lines keep their order within each state."""
    title = f"Fleet of {len(lines)} targets on {heading.host}"
    states = [line.state for line in lines]
    counts = {
        "all": len(lines),
        "pending": states.count("behind"),
        "look": sum(line.reason is not None for line in lines),
    }
    content = [*choose(CHOICES, counts), *_sections(lines)]
    return make_page(heading, title, content)


def _sections(lines: Sequence[TargetLine]) -> Iterator[str]:
    for state in KINDS:
        found = [line for line in lines if line.state == state]
        if not found:
            continue
        title = f"{state[0].upper()}{state[1:]} ({len(found)})"
        yield f'<section class="board"><h2>{title}</h2><ol>'
        for line in found:
            yield from _line(line)
        yield "</ol></section>"


def _line(line: TargetLine) -> Iterator[str]:
    yield f'<li><span class="{KINDS[line.state]}">{line.state}</span>'
    yield f'<span class="name">{escape(line.target)}</span>'
    yield f'<span class="version">{escape(line.version or "")}</span>'
    pending = f"{len(line.pending)} pending" if line.pending else ""
    yield f'<span class="took">{pending}</span>'
    if line.reason is not None:
        yield f'<p class="why">{escape(line.reason)}</p>'
    yield "</li>"
