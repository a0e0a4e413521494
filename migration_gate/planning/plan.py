"""
Folder and history, side by side: what is pending and where the two disagree. Pure.

Decides; never reads a folder or a database.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from migration_gate.files.migration import (
    AppliedMigration,
    Migration,
    Order,
    Replacement,
    version_to_key,
)
from migration_gate.files.names import classify, is_repeatable


if TYPE_CHECKING:
    from migration_gate.planning.squashing import Half

DIGITS_SHOWN: Final = 12
Spelling = Literal["file name", "without .sql", "without .up.sql"]


class Change(NamedTuple):
    """A file that is not what was applied, and the row that says what was."""

    file: Migration
    row: AppliedMigration

    def __str__(self) -> str:
        """Say when it was applied, and both checksums."""
        at = f"at {self.row.applied_at}, " if self.row.applied_at else ""
        then, here = _shorten(self.row.checksum or ""), _shorten(self.file.checksum)
        return f"{at}{then} then, {here} here"


class Step(NamedTuple):
    """
    What is done next: a migration's file, and the version that the history has for it.

    ``replaced`` is what the row becomes that a repeatable one has already; ``undoes``
    are the rows that go, where the migration is undone.
    """

    migration: Migration
    version: str
    replaced: Replacement | None = None
    undoes: tuple[str, ...] = ()


class Plan(NamedTuple):
    """
    What is to be done, and every disagreement between folder and history.

    ``pending`` is sorted and disjoint from ``applied``; ``replaced`` is neither, since
    something else stands for it; ``out_of_order`` names files, ``unknown`` and
    ``lookalikes`` name history rows. ``spelling`` is how the history writes versions;
    ``renamed`` has the rows whose files have another name by now, and that name;
    ``twins`` has rows of files that are not here, with the pending file that looks like
    theirs under another name: it has their text;
    ``begun`` has the versions under which files have progress, once that was asked for.
    Of repeatable ones, ``left`` are those whose text in the database is newer,
    ``replacements`` what the rows become that have another text, and
    ``repeatables_gone`` rows whose file is not here, which may have been taken out.
    ``held_back`` and ``overdue`` are not applied, and not of the phase that is asked
    for: what waits for the deployment, and what should have come before it.
    """

    pending: tuple[Migration, ...]
    applied: tuple[Migration, ...]
    changes: tuple[Change, ...]
    unknown: tuple[str, ...]
    out_of_order: tuple[str, ...]
    lookalikes: tuple[tuple[str, str], ...]
    spelling: Spelling
    replaced: tuple[Migration, ...] = ()
    halves: tuple[Half, ...] = ()
    renamed: Mapping[str, str] = MappingProxyType({})
    twins: tuple[tuple[str, str], ...] = ()
    begun: Mapping[str, str] = MappingProxyType({})
    left: tuple[Migration, ...] = ()
    replacements: tuple[Replacement, ...] = ()
    repeatables_gone: tuple[str, ...] = ()
    held_back: tuple[Migration, ...] = ()
    overdue: tuple[Migration, ...] = ()

    @property
    def changed(self) -> tuple[str, ...]:
        """Return the files that are not what was applied."""
        return tuple(change.file.version for change in self.changes)

    @property
    def below_applied(self) -> tuple[str, ...]:
        """
        Return the files that are out of order by the files that are here.

        The others are so by rows that are unknown, as those of another application.
        """
        newest = _newest_numbered(self.applied)
        late = {m.version for m in self.pending if newest and m.order < newest}
        return tuple(version for version in self.out_of_order if version in late)

    @property
    def steps(self) -> tuple[Step, ...]:
        """Return what is to be applied, in order."""
        return tuple(
            Step(m, self.version_to_record(m), self.find_replacement(m))
            for m in self.pending
        )

    @property
    def is_mostly_unknown(self) -> bool:
        """Tell whether most of what the history has is of no file here."""
        return len(self.unknown) > len(self.applied)

    def key_of(self, row: str) -> str:
        """Return the key of the file that a version in the database is of."""
        return version_to_key(self.renamed.get(row) or self.begun.get(row, row))

    def find_replacement(self, migration: Migration) -> Replacement | None:
        """Return what the row of a repeatable migration becomes, if it has one."""
        found = (r for r in self.replacements if r.key == migration.key)
        return next(found, None)

    def version_to_record(self, migration: Migration) -> str:
        """Return the version in the spelling that is already in use."""
        for version, file in self.begun.items():
            if file == migration.version:
                return version
        if self.spelling == "file name":
            return migration.version
        if self.spelling == "without .sql":
            return migration.version.removesuffix(".sql")
        return migration.key


def make_plan(
    migrations: Sequence[Migration],
    history: Sequence[AppliedMigration],
    *,
    tool: str | None = None,
) -> Plan:
    """
    Compare folder and history.

    Looks at values only; two calls with the same arguments give the same plan.

    Args:
        migrations: In any order; no two share a key.
        history: Oldest row first.
        tool: Whose history was taken over, so that its key counts.
    """
    ordered = sorted(migrations, key=lambda migration: migration.order)
    files = {migration.key: migration for migration in ordered}
    rows: dict[str, tuple[AppliedMigration, ...]] = {}
    strangers = []
    renamed = _find_renamed(ordered, files, history, tool)
    for row in history:
        file = files.get(version_to_key(row.version)) or renamed.get(row.version)
        if file is None:
            strangers.append(row)
        else:
            rows[file.key] = (*rows.get(file.key, ()), row)
    replaced: frozenset[str] = frozenset()
    halves: tuple[Half, ...] = ()
    if any(migration.replaces is not None for migration in ordered):
        from migration_gate.planning.squashing import settle  # noqa: PLC0415  # rarely needed

        replaced, scopes, halves = settle(ordered, rows.keys(), history)
        strangers = [row for row in strangers if not scopes.explain(row)]
    lookalikes = _find_lookalikes(ordered, strangers)
    alike = {row for row, _ in lookalikes}
    unknown = [row for row in strangers if row.version not in alike]
    left: frozenset[str] = frozenset()
    replacements: tuple[Replacement, ...] = ()
    if ordered and ordered[-1].is_repeatable:
        from migration_gate.planning.repeatables import compare_texts  # noqa: PLC0415  # rarely needed

        numbered = [m for m in ordered if not m.is_repeatable and m.key not in replaced]
        left, replacements = compare_texts(ordered, numbered, rows, history, unknown)
    again = {each.key for each in replacements}
    applied = tuple(m for m in ordered if m.key in rows and m.key not in again)
    pending = tuple(
        m
        for m in ordered
        if m.key not in replaced
        and m.key not in left
        and (m.key not in rows or m.key in again)
    )
    twins: tuple[tuple[str, str], ...] = ()
    if pending and unknown:
        from migration_gate.planning.renaming import find_twins  # noqa: PLC0415  # rarely needed

        twins = find_twins(pending, unknown, known_count=len(applied))
    newest = _newest_order(applied, strangers)
    # What waited for a deployment comes after the next release's first phase.
    newest_after = _newest_order([m for m in applied if m.is_after], ())
    return Plan(
        pending=pending,
        applied=applied,
        changes=tuple(_find_changes(applied, rows)),
        unknown=tuple(r.version for r in unknown if not is_repeatable(r.version)),
        out_of_order=tuple(
            m.version
            for m in pending
            if m.order < (newest_after if m.is_after else newest)
        ),
        lookalikes=lookalikes,
        spelling=_find_spelling(applied, history),
        replaced=tuple(m for m in ordered if m.key in replaced),
        halves=halves,
        renamed={row: file.version for row, file in renamed.items()},
        twins=twins,
        left=tuple(m for m in ordered if m.key in left),
        replacements=replacements,
        repeatables_gone=tuple(r.version for r in unknown if is_repeatable(r.version)),
    )


def _find_renamed(
    ordered: Sequence[Migration],
    files: Mapping[str, Migration],
    history: Sequence[AppliedMigration],
    tool: str | None,
) -> Mapping[str, Migration]:
    """Return the files whose rows have another name; seldom there is any."""
    lost = [row for row in history if version_to_key(row.version) not in files]
    if not lost or len(files) <= len(history) - len(lost):
        return {}
    from migration_gate.planning.renaming import pair_renamed  # noqa: PLC0415

    pairs = pair_renamed(ordered, history, tool)
    return {row.version: pairs[row.version] for row in lost if row.version in pairs}


def find_shared_numbers(migrations: Sequence[Migration]) -> tuple[str, ...]:
    """
    Return the versions whose number another migration has too, sorted.

    One that stands for others may have the number of the last of them.
    """
    plain = [m for m in migrations if m.replaces is None and not m.is_repeatable]
    counts = Counter(migration.number for migration in plain)
    shared = (migration for migration in plain if counts[migration.number] > 1)
    return tuple(m.version for m in sorted(shared, key=lambda m: m.order))


def _find_changes(
    applied: Iterable[Migration], rows: Mapping[str, Sequence[AppliedMigration]]
) -> Iterator[Change]:
    """Rows that another program wrote carry no checksum and are never compared."""
    for migration in applied:
        compared = [row for row in rows[migration.key] if row.checksum]
        if migration.is_repeatable:
            continue
        if compared and all(row.checksum != migration.checksum for row in compared):
            yield Change(migration, compared[-1])


def _shorten(checksum: str) -> str:
    """Return as much of a checksum as a person compares."""
    algorithm, colon, digest = checksum.partition(":")
    return f"{algorithm}{colon}{digest[:DIGITS_SHOWN]}"


def _find_lookalikes(
    migrations: Iterable[Migration], strangers: Sequence[AppliedMigration]
) -> tuple[tuple[str, str], ...]:
    """Pair rows that no file explains with files that only look different, or alike."""
    if not strangers:
        return ()
    files = {_fold(migration.version): migration.version for migration in migrations}
    pairs = ((row.version, files.get(_fold(row.version))) for row in strangers)
    return tuple((row, file) for row, file in pairs if file is not None)


def _fold(version: str) -> str:
    if not version.isascii():
        from unicodedata import normalize  # noqa: PLC0415  # rarely needed

        # macOS takes a letter's accent apart, and others write it in one.
        version = normalize("NFC", version)
    return version_to_key("".join(version.split()).casefold())


def _newest_numbered(applied: Iterable[Migration]) -> Order | None:
    numbered = [m.order for m in applied if not m.is_repeatable]
    return max(numbered, default=None)


def _newest_order(
    applied: Sequence[Migration], strangers: Iterable[AppliedMigration]
) -> Order:
    """Return the highest that the history has reached of what is numbered."""
    newest = _newest_numbered(applied)
    reached = [] if newest is None else [newest]
    for row in strangers:
        name = classify(row.version.removesuffix(".sql") + ".sql")
        if name.number:
            reached.append((False, name.number, row.version.encode()))
    return max(reached, default=(False, (), b""))


def _find_spelling(
    applied: Iterable[Migration], history: Sequence[AppliedMigration]
) -> Spelling:
    """Judge by the newest row that belongs to a file; without one, the file name."""
    files = {migration.key: migration.version for migration in applied}
    for row in reversed(history):
        file = files.get(version_to_key(row.version))
        if file is None:
            continue
        if row.version == file:
            return "file name"
        if row.version == file.removesuffix(".sql"):
            return "without .sql"
        if row.version.endswith(".sql"):
            return "file name"
        return "without .up.sql"
    return "file name"
