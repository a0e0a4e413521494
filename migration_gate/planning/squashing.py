"""
Files that stand for many others: which of them a database has, by its history. Pure.

A new database runs the newest of them, and none of what it replaces; one that has all
of that does not run it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from migration_gate.files.migration import (
    AppliedMigration,
    Migration,
    Replaced,
    version_to_key,
)
from migration_gate.files.names import Number, classify


class Half(NamedTuple):
    """
    A file that stands for more than the history has.

    ``reached`` is the history's last row of that, empty where it has none; ``missing``
    is what it has not.
    """

    version: str
    reached: str
    missing: str


class Scopes(tuple[Replaced, ...]):
    """What the history has in one form or another."""

    __slots__ = ()

    def explain(self, row: AppliedMigration) -> bool:
        """Tell whether a row that is of no file here was replaced by one."""
        place = _to_place(row.version)
        return any(scope.covers(place.number, place.key) for scope in self)


class Settled(NamedTuple):
    """What is not to be run since something else stands for it, by key."""

    keys: frozenset[str]
    scopes: Scopes
    halves: tuple[Half, ...]


class _Place(NamedTuple):
    """Where a row stands among the files."""

    number: Number
    key: str
    version: str


class _Squash(NamedTuple):
    """A file that stands for others, and those of them that are here, sorted."""

    file: Migration
    scope: Replaced
    inside: tuple[Migration, ...]

    def rows(self, rows: Iterable[_Place]) -> list[_Place]:
        return [row for row in rows if self.scope.covers(row.number, row.key)]


def settle(
    migrations: Sequence[Migration],
    applied: Collection[str],
    history: Iterable[AppliedMigration],
) -> Settled:
    """
    Decide for each file that stands for others whether it or they are to be run.

    Args:
        migrations: Sorted; at least one stands for others.
        applied: The keys of those that have a row.
        history: All rows.
    """
    squashes = _find_squashes(migrations)
    rows = sorted(place for row in history if (place := _to_place(row.version)).number)
    newest = squashes[-1]
    is_new = not applied and not newest.rows(rows)
    has = {*applied, newest.file.key} if is_new else set(applied)
    scopes = []
    for squash in reversed(squashes):
        if squash.file.key in has:
            has.update(migration.key for migration in squash.inside)
            scopes.append(squash.scope)
    halves = []
    for squash in squashes:
        if squash.file.key in has:
            continue
        missing = [m for m in squash.inside if m.key not in has]
        if _has_all(squash, missing, rows, scopes) or _goes_on(squash, missing, rows):
            has.add(squash.file.key)
            scopes.append(squash.scope)
        else:
            halves.append(_to_half(squash, missing, rows))
    run = {newest.file.key} if is_new else set()
    return Settled(frozenset(has - set(applied) - run), Scopes(scopes), tuple(halves))


def _find_squashes(migrations: Sequence[Migration]) -> list[_Squash]:
    """Return them sorted by how far they reach."""
    found = [
        _Squash(
            squash,
            squash.replaces,
            tuple(
                m
                for m in migrations
                if m is not squash and squash.replaces.covers(m.number, m.key)
            ),
        )
        for squash in migrations
        if squash.replaces is not None
    ]
    return sorted(found, key=lambda s: (s.scope.number, not s.scope.key, s.scope.key))


def _to_place(version: str) -> _Place:
    name = classify(version.removesuffix(".sql") + ".sql")
    return _Place(name.number, version_to_key(version), version)


def _has_all(
    squash: _Squash,
    missing: Sequence[Migration],
    rows: Iterable[_Place],
    scopes: Iterable[Replaced],
) -> bool:
    """Tell whether the history has what is replaced, as far as it can be told."""
    scope = squash.scope
    if missing or scope.is_open:
        return not missing and bool(squash.inside)
    last = [(row.number, row.key) for row in rows]
    last += [(migration.number, migration.key) for migration in squash.inside]
    return any(scope.is_last(*place) for place in last) or any(
        other.covers(scope.number, scope.key) for other in scopes
    )


def _goes_on(
    squash: _Squash, missing: Sequence[Migration], rows: Iterable[_Place]
) -> bool:
    """Tell whether all that is missing is here, after the last one that is applied."""
    scope, keys = squash.scope, {migration.key for migration in squash.inside}
    is_whole = scope.is_open or any(
        scope.is_last(m.number, m.key) for m in squash.inside
    )
    last = [row.key for row in squash.rows(rows)][-1:]
    return bool(missing) and is_whole and bool(last) and last[0] in keys


def _to_half(
    squash: _Squash, missing: Sequence[Migration], rows: Iterable[_Place]
) -> Half:
    reached = [row.version for row in squash.rows(rows)]
    last = squash.scope.key or ".".join(map(str, squash.scope.number))
    return Half(
        version=squash.file.version,
        reached=reached[-1] if reached else "",
        missing=missing[0].version if missing else last,
    )
