"""
Rows and files that are one migration to another tool, under two names. Pure.

In a folder of Flyway's form, and after another tool's history was taken over, what
counts is that tool's own key, mostly a number: a description may be corrected.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence

from migration_gate.files.migration import (
    AppliedMigration,
    Migration,
    version_to_key,
)
from migration_gate.files.names import VERSIONED, classify
from migration_gate.planning.adoption import RULES
from migration_gate.planning.plan import Plan


def pair_renamed(
    migrations: Iterable[Migration],
    history: Sequence[AppliedMigration],
    tool: str | None,
) -> Mapping[str, Migration]:
    """
    Return the files of rows with another name, by the row's version.

    Only where a key is that of one file and one row.

    Args:
        migrations: All files.
        history: All rows.
        tool: Whose history was taken over; None where it was none's.
    """
    files: dict[Hashable, list[Migration]] = defaultdict(list)
    for migration in migrations:
        if migration.replaces is None:
            files[_to_tool_key(migration, tool)].append(migration)
    rows: dict[Hashable, list[str]] = defaultdict(list)
    for row in history:
        rows[_to_tool_key(_to_file(row.version), tool)].append(row.version)
    return {
        versions[0]: same[0]
        for key, same in files.items()
        if len(same) == len(versions := rows.get(key, [])) == 1 and key is not None
    }


def pair_begun(
    migrations: Sequence[Migration], versions: Collection[str], tool: str | None
) -> Mapping[str, Migration]:
    """
    Return the files of what has progress, by the version that it has there.

    A file that has another name by now, or another spelling, is the same migration.
    """
    files = {migration.key: migration for migration in migrations}
    found = {v: files[key] for v in versions if (key := version_to_key(v)) in files}
    lost = [AppliedMigration(v) for v in versions if v not in found]
    if lost:
        named = set(found.values())
        others = [migration for migration in migrations if migration not in named]
        found.update(pair_renamed(others, lost, tool))
    return found


def note_begun(plan: Plan, versions: Collection[str], tool: str | None) -> Plan:
    """Return a plan that knows what has progress, and under which version."""
    pairs = pair_begun(plan.pending, versions, tool)
    return plan._replace(begun={row: file.version for row, file in pairs.items()})


def find_twins(
    pending: Iterable[Migration],
    unknown: Sequence[AppliedMigration],
    *,
    known_count: int,
) -> tuple[tuple[str, str], ...]:
    """
    Pair rows of no file here with the pending file that has their text.

    Only where number or words are theirs too: that is a file that was renamed, which
    would run once more.

    Args:
        pending: Files without a row.
        unknown: Rows without a file.
        known_count: How many files have one. Where most rows are of none, they are
            another application's, and may have one text with a file here.
    """
    rows: dict[str | None, list[str]] = defaultdict(list)
    for row in unknown:
        rows[row.checksum].append(row.version)
    twins = tuple(
        (row, file.version)
        for file in pending
        for row in rows.get(file.checksum, ())
        if not file.is_repeatable and _is_named_alike(row, file)
    )
    others = len(unknown) - len(dict(twins))
    return twins if others <= known_count else ()


def _is_named_alike(row: str, file: Migration) -> bool:
    has_number = _to_file(row).number == file.number
    return has_number or _words(row) == _words(file.version)


def _words(version: str) -> str:
    """Return what stands after the number of a name."""
    return version.removesuffix(".sql").lstrip("0123456789._-VvU")


def _to_file(version: str) -> Migration:
    """Return the file that a row was written for, as far as its name tells."""
    name = version.removesuffix(".sql") + ".sql"
    key = version_to_key(version)
    return Migration(version, classify(name).number, key, checksum="")


def _to_tool_key(migration: Migration, tool: str | None) -> Hashable:
    """Return what the tool knows a file by; None where that is its name."""
    versioned = VERSIONED.fullmatch(migration.key)
    if versioned:
        return ("V", migration.number) if versioned["prefix"] == "V" else None
    rules = RULES.get(tool or "")
    if rules is None or not migration.number:
        return None
    key: Hashable = rules.key.of_file(migration)
    return None if key == migration.key else key
