"""
Which migrations are to be undone, and in which order. Pure.

The order is that in which they were applied, the last one first: a migration that came
late, with a number below others, may lean on them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

from migration_gate.files.migration import AppliedMigration, Migration, version_to_key
from migration_gate.files.names import Number, classify, is_repeatable
from migration_gate.planning.agreement import listed
from migration_gate.planning.naming import find_keys
from migration_gate.report.errors import HistoryError


EVERYTHING: Final = "0"


class Undoing(NamedTuple):
    """
    A migration that is to be undone, and its rows in the history.

    There are none where it is half undone: they went with the first statement.
    """

    migration: Migration
    rows: tuple[AppliedMigration, ...]


def plan_undoing(
    migrations: Sequence[Migration],
    history: Sequence[AppliedMigration],
    half_undone: Collection[str],
    *,
    to: str | None,
    renamed: Mapping[str, str] = MappingProxyType({}),
) -> tuple[Undoing, ...]:
    """
    Return what is to be undone, in this order.

    That is what was applied after a migration, or the newest alone; what is half undone
    comes before all else, and is the newest. Repeatable ones stay.

    Args:
        half_undone: The keys of those.
        to: Name or number of the migration that stays as the newest; "0" for none.
        renamed: The rows whose files have another name by now, and that name.

    Raises:
        MigrationFilesError: No migration that is applied has this name, or several.
        HistoryError: No file here explains a row of what is to be undone.
    """
    files = {migration.key: migration for migration in migrations}
    rows: dict[str, tuple[AppliedMigration, ...]] = {}
    for row in history:
        if is_repeatable(row.version):
            continue
        key = version_to_key(renamed.get(row.version, row.version))
        rows[key] = (*rows.get(key, ()), row)
    order = sorted(rows, key=lambda key: _age(rows[key], files.get(key)), reverse=True)
    started = [key for key in sorted(half_undone) if key not in rows]
    after = 1 - bool(started)
    if to is not None:
        after = _count_after(order, rows, to, renamed)
    keys = [*started, *order[: max(after, 0)]]
    unknown = [key for key in keys if key not in files]
    if unknown:
        names = [rows[key][0].version if key in rows else key for key in unknown]
        raise HistoryError(
            f"cannot undo {listed(names)}: no file here explains it",
            hint="Give the command in the image that applied it: it has what undoes "
            "it, too.",
            version=names[0],
        )
    return tuple(Undoing(files[key], rows.get(key, ())) for key in keys)


def _age(
    rows: Sequence[AppliedMigration], file: Migration | None
) -> tuple[bool, str, tuple[Number, bytes]]:
    """Return what is newer by being higher: one without a time is the newest."""
    newest = rows[-1]
    order = (classify_number(newest.version), newest.version.encode())
    if file is not None:
        order = (file.number, file.version.encode())
    return not newest.applied_at, newest.applied_at, order


def _count_after(
    order: Sequence[str],
    rows: Mapping[str, tuple[AppliedMigration, ...]],
    to: str,
    renamed: Mapping[str, str],
) -> int:
    """Return how many were applied after the one that a word means."""
    names = [row.version for key in order for row in rows[key]]
    if to == EVERYTHING and not any(classify_number(name) == (0,) for name in names):
        return len(order)
    missing = "no migration that is applied has this"
    (last,) = find_keys([to], names, missing=missing, renamed=renamed)
    return order.index(last)


def classify_number(version: str) -> Number:
    """Return the number of a version in the history; empty where it has none."""
    return classify(version.removesuffix(".sql") + ".sql").number


def still_to_undo(
    chosen: Sequence[Undoing],
    history: Sequence[AppliedMigration],
    half_undone: Collection[str],
) -> tuple[Undoing, ...]:
    """
    Return what is left of what was chosen, by what the history says.

    A row of another time is of a migration that somebody has applied again since.
    ``half_undone`` are keys.
    """
    left = []
    for undoing in chosen:
        rows = tuple(row for row in undoing.rows if row in history)
        if rows or undoing.migration.key in half_undone:
            left.append(Undoing(undoing.migration, rows))
    return tuple(left)
