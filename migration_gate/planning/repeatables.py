"""
Repeatable migrations: which text is newer, the file's or the database's. Pure.

The history keeps, beside the text that holds, each that was superseded, with how many
numbered migrations there were when that happened. So an older image that restarts
knows its own text for an old one though it has the same numbered files; an image with
more numbered ones is newer, and may go back to an old text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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


def compare_texts(
    migrations: Iterable[Migration],
    numbered: Sequence[Migration],
    rows: Mapping[str, Sequence[AppliedMigration]],
    history: Iterable[AppliedMigration],
    unknown: Iterable[AppliedMigration],
) -> tuple[frozenset[str], tuple[Replacement, ...]]:
    """
    Return the keys of those that are left alone, and what becomes of each other text.

    Args:
        migrations: All files, sorted.
        numbered: Those with a number, as far as nothing else stands for them.
        rows: The rows of each key.
        history: All rows.
        unknown: Those that no file here explains.
    """
    missing = sum(migration.key not in rows for migration in numbered)
    had = sum(not is_repeatable(row.version) for row in history)
    first = numbered[0] if numbered else None
    reach = Reach(
        numbered=had + missing,
        # A row below the first file is of one that was taken out.
        is_behind=any(_is_ahead(row, first) for row in unknown),
    )
    repeatable = [m for m in migrations if m.is_repeatable]
    standings = {m.key: judge(m, rows.get(m.key, ()), reach) for m in repeatable}
    return (
        frozenset(key for key, standing in standings.items() if standing == "left"),
        tuple(
            supersede(rows[m.key][-1], m, reach)
            for m in repeatable
            if m.key in rows and standings[m.key] != "applied"
        ),
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
