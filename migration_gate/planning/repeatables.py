"""
Repeatable migrations: which text is newer, the file's or the database's. Pure.

The history keeps, beside the text that holds, each that was superseded, with how many
numbered migrations there were when that happened. So an older image that restarts
knows its own text for an old one though it has the same numbered files; an image with
more numbered ones is newer, and may go back to an old text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Literal, NamedTuple, TypeAlias

from migration_gate.files.migration import (
    AppliedMigration,
    Migration,
    Order,
    Replacement,
)
from migration_gate.files.names import classify, is_repeatable


Standing: TypeAlias = Literal["pending", "applied", "left"]

# As much of a checksum as tells texts apart; one is kept of each that ever was.
KEPT_CHARACTERS: Final = len("sha256:") + 16


class Reach(NamedTuple):
    """
    How far history and folder have come, together.

    ``numbered`` counts the numbered migrations that are applied when this run ends;
    ``is_behind`` tells that the history has some that a newer image has brought.
    """

    numbered: int
    is_behind: bool


def find_reach(
    history: Iterable[AppliedMigration],
    pending: Iterable[Migration],
    strangers: Iterable[AppliedMigration],
    first: Migration | None,
) -> Reach:
    """
    Return how far history and folder have come.

    Args:
        pending: Numbered migrations that are not in the history.
        strangers: Rows that no file here explains.
        first: The first numbered file; rows below it are of files that were taken out.
    """
    rows = sum(not is_repeatable(row.version) for row in history)
    return Reach(
        numbered=rows + sum(1 for _ in pending),
        is_behind=any(_is_ahead(row, first) for row in strangers),
    )


def _is_ahead(row: AppliedMigration, first: Migration | None) -> bool:
    if is_repeatable(row.version):
        return False  # its file may have been taken out
    number = classify(row.version.removesuffix(".sql") + ".sql").number
    order: Order = (False, number, row.version.encode())
    return first is None or not number or order > first.order


def judge(
    migration: Migration, rows: Sequence[AppliedMigration], reach: Reach
) -> Standing:
    """Tell what a repeatable file is, by its rows: to be applied, applied, or older."""
    if any(row.checksum in {None, migration.checksum} for row in rows):
        return "applied"
    if reach.is_behind:
        return "left"
    kept = migration.checksum[:KEPT_CHARACTERS]
    for row in rows:
        count = _read(row.superseded).get(kept)
        if count is not None and reach.numbered <= count:
            return "left"
    return "pending"


def supersede(row: AppliedMigration, migration: Migration, reach: Reach) -> Replacement:
    """Return what a row becomes when the file's text takes the place of the row's."""
    texts = _read(row.superseded)
    texts.pop(migration.checksum[:KEPT_CHARACTERS], None)
    had = row.checksum or ""
    texts[had[:KEPT_CHARACTERS]] = reach.numbered
    written = " ".join(f"{text}@{count}" for text, count in texts.items())
    return Replacement(migration.key, row.version, had, written)


def _read(superseded: str) -> dict[str, int]:
    """Return the superseded texts, each with the count of numbered migrations."""
    found = {}
    for word in superseded.split():
        text, _, count = word.rpartition("@")
        if text and count.isdecimal():
            found[text] = int(count)
    return found
