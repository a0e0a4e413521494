"""
Rows and files that are one migration to another tool, under two names. Pure.

In a folder of Flyway's form, and after another tool's history was taken over, what
counts is that tool's own key, mostly a number: a description may be corrected.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence

from migration_gate.files.migration import (
    AppliedMigration,
    Migration,
    version_to_key,
)
from migration_gate.files.names import VERSIONED, classify
from migration_gate.planning.adoption import RULES


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
