"""
Another tool's history and the files here: which row is of which file. Pure.

A row is mapped by the tool's own key. Where one doubt is left, nothing is taken over.
"""

from __future__ import annotations

import re

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple

from migration_gate.files.migration import (
    AppliedMigration,
    ForeignRow,
    Migration,
    Replaced,
    version_to_key,
)
from migration_gate.files.names import Number, classify, is_repeatable, read_number
from migration_gate.planning.agreement import listed
from migration_gate.report.errors import HistoryError


class Key(NamedTuple):
    """
    How a tool knows its files again: by what of a row, and of a file.

    Raises:
        ValueError: The row's version is none that the tool gives.
    """

    of_row: Callable[[str], Any]
    of_file: Callable[[Migration], Any]


def _to_parts(version: str) -> tuple[int, ...]:
    parts = tuple(int(part) for part in re.split("[._]", version))
    while len(parts) > 1 and parts[-1] == 0:
        parts = parts[:-1]
    return parts


NUMBER: Final = Key(_to_parts, lambda file: file.number)
# "1" and "001" are two versions.
# Flyway's repeatable ones have no version, but a name.
FLYWAY: Final = Key(
    lambda version: (
        version_to_key(version) if is_repeatable(version) else _to_parts(version)
    ),
    lambda file: file.number or file.key,
)
DIGITS: Final = Key(str, lambda file: re.split("[^0-9]", file.version)[0])
NAME: Final = Key(version_to_key, lambda file: file.key)
BEFORE_UNDERSCORE: Final = Key(
    str, lambda file: file.version.removesuffix(".sql").partition("_")[0]
)
WITHOUT_DASHES: Final = Key(
    str, lambda file: file.version.partition("_")[0].replace("-", "")
)


class Rules(NamedTuple):
    """
    A tool's key, and what else of its rows matters.

    ``keeps_one`` tells that there is one row, the newest; ``mend`` is how a person gets
    over what failed, so that the tool records what is there.
    """

    key: Key
    mend: str = "finish or undo it"
    keeps_one: bool = False


RULES: Final[Mapping[str, Rules]] = MappingProxyType(
    {
        "golang-migrate": Rules(
            NUMBER,
            "finish or undo it, say migrate force VERSION with the last one that is "
            "there as a whole",
            keeps_one=True,
        ),
        "dbmate": Rules(DIGITS),
        "goose": Rules(NUMBER),
        "tern": Rules(NUMBER, keeps_one=True),
        "sql-migrate": Rules(NAME),
        "node-pg-migrate": Rules(NAME),
        "supabase": Rules(DIGITS),
        "sqlx": Rules(
            NUMBER,
            "finish it and set success of its row to true, or undo it and delete the "
            "row",
        ),
        # What is repaired has no row any more, and is pending.
        "flyway": Rules(FLYWAY, "undo it, say flyway repair"),
        "diesel": Rules(WITHOUT_DASHES),
        "prisma": Rules(
            NAME,
            "finish it and say prisma migrate resolve --applied NAME, or undo it and "
            "say prisma migrate resolve --rolled-back NAME",
        ),
        "atlas": Rules(
            BEFORE_UNDERSCORE,
            "finish or undo it, say atlas migrate set VERSION with the last one that "
            "is there as a whole",
        ),
        "refinery": Rules(NUMBER),
        "graphile-migrate": Rules(NUMBER),
        "drizzle": Rules(NAME),
        "liquibase": Rules(NAME, "let liquibase update run it to its end"),
        "yoyo": Rules(NAME),
    }
)


class Known(NamedTuple):
    """
    What a tool knows of files beside their names.

    ``checksums`` gives those that it may have recorded of a file, none where that
    cannot be told; ``labels`` are what it goes by, by the files' versions, where the
    names do not tell.
    """

    checksums: Callable[[Migration], Collection[str]] | None = None
    labels: Mapping[str, str] | None = None


class Adopted(NamedTuple):
    """
    A file that counts as applied, and the row that says so.

    ``is_inferred`` tells that the row is of a newer file, and stands for this one too.
    """

    migration: Migration
    row: ForeignRow
    is_inferred: bool
    is_verified: bool

    def to_history(self, tool: str) -> tuple[AppliedMigration, str]:
        """Return the row of our history, and its origin."""
        row = AppliedMigration(
            version=self.migration.version,
            checksum=self.migration.checksum if self.is_verified else None,
            applied_at="" if self.is_inferred else self.row.applied_at,
        )
        return row, f"adopted from {tool} {self.row.version}"


class Refused(NamedTuple):
    """A row that is not taken over, the file that it may be of, and why not."""

    row: ForeignRow
    migration: Migration | None
    why: str


class Doubt(NamedTuple):
    """What of one kind keeps a history from being taken over, and what to do."""

    fault: str
    hint: str
    refused: tuple[Refused, ...]


class DoubtError(HistoryError):
    """
    Another tool's history is not taken over; lists every doubt.

    ``adopted`` is what would count as applied without them, ``refused`` what they are
    about.
    """

    def __init__(self, doubts: Sequence[Doubt], adopted: Sequence[Adopted]) -> None:
        super().__init__(
            "; ".join(doubt.fault for doubt in doubts),
            hint="Nothing was taken over. " + " ".join(doubt.hint for doubt in doubts),
        )
        self.refused = tuple(each for doubt in doubts for each in doubt.refused)
        about = {each.migration for each in self.refused}
        self.adopted = tuple(each for each in adopted if each.migration not in about)


def map_rows(
    tool: str,
    migrations: Sequence[Migration],
    rows: Iterable[ForeignRow],
    *,
    known: Known,
    changed: Literal["refuse", "warn"],
) -> tuple[Adopted, ...]:
    """
    Return the files that the other tool has applied, in their order.

    Args:
        tool: A name of RULES.
        migrations: In any order; no two share a key of ours.
        rows: In the order in which they hold: the last one of a version does.
        known: What the tool knows of the files.
        changed: What a file means that is not what the tool has applied.

    Raises:
        DoubtError: Lists every doubt.
    """
    rules = RULES[tool]
    ordered = sorted(migrations, key=lambda migration: migration.order)
    key_of = _key_of(rules, known.labels)
    files: dict[Any, list[Migration]] = defaultdict(list)
    # What stands for others has a row of its own in Atlas alone.
    squashes = [m for m in ordered if m.replaces is not None and not m.replaces.is_open]
    for migration in ordered:
        if migration not in squashes:
            files[key_of(migration)].append(migration)
    held, strange = _hold(rules, rows)
    is_newest = rules.keeps_one and len(held) == 1
    applied = {k: r for k, r in held.items() if r.state in {"applied", "baseline"}}
    explained = {k: r for k, r in applied.items() if k in files}
    stood_for = list(_find_stood_for(squashes, applied.values()))
    scopes = [each.migration.replaces for each in stood_for]
    lost = [
        row
        for key, row in applied.items()
        if key not in explained
        and row.state != "baseline"
        and not _covers(scopes, row)
        and not is_repeatable(row.version)  # its file may have been taken out
    ]
    doubts = [
        *_failed(
            tool, rules, {key: (row, files.get(key)) for key, row in held.items()}
        ),
        *_unexplained(tool, [*lost, *strange]),
        *_ambiguous(tool, [(row, files[key]) for key, row in explained.items()]),
    ]
    if rules.keeps_one and not is_newest:
        doubts += _gaps(tool, [m for m in ordered if key_of(m) not in held], applied)
    adopted = stood_for
    for key, row in applied.items():
        adopted += [_adopt(each, row, known.checksums) for each in files.get(key, ())]
        if is_newest or row.state == "baseline":
            newest = _to_parts(row.version)
            adopted += [
                Adopted(migration=each, row=row, is_inferred=True, is_verified=True)
                for each in ordered
                if not each.is_repeatable
                and each.number <= newest
                and (each in squashes or key_of(each) not in held)
            ]
    # With another text, or a failed one, it runs again, as it would there.
    adopted = [a for a in adopted if a.is_verified or not a.migration.is_repeatable]
    if changed == "refuse":
        doubts += _changed(tool, adopted)
    once = {each.migration.key: each for each in adopted}
    found = tuple(sorted(once.values(), key=lambda each: each.migration.order))
    if doubts:
        raise DoubtError(doubts, found)
    return found


def _key_of(
    rules: Rules, labels: Mapping[str, str] | None
) -> Callable[[Migration], Any]:
    """Return how the tool knows a file."""
    if labels is None:
        return rules.key.of_file
    return lambda file: labels.get(file.version)


def _hold(
    rules: Rules, rows: Iterable[ForeignRow]
) -> tuple[dict[Any, ForeignRow], list[ForeignRow]]:
    """Return the last row of each key, and those whose version no file can have."""
    held: dict[Any, ForeignRow] = {}
    strange = []
    for row in rows:
        try:
            if rules.keeps_one or row.state == "baseline":
                _to_parts(row.version)
            held[rules.key.of_row(row.version)] = row
        except ValueError:
            strange.append(row)
    return held, strange


def find_grown(
    tool: str,
    pending: Iterable[Migration],
    rows: Iterable[ForeignRow],
    labels: Mapping[str, str] | None = None,
) -> tuple[str, ...]:
    """Return what is pending by our history, and applied by another tool's rows."""
    rules = RULES[tool]
    held, _ = _hold(rules, rows)
    applied = {key for key, row in held.items() if row.state == "applied"}
    key_of = _key_of(rules, labels)
    return tuple(m.version for m in pending if key_of(m) in applied)


def _adopt(
    migration: Migration,
    row: ForeignRow,
    checksums: Callable[[Migration], Collection[str]] | None,
) -> Adopted:
    is_verified = True
    if checksums is not None and row.checksum:
        found = checksums(migration)
        is_verified = not found or row.checksum in found
    return Adopted(
        migration=migration, row=row, is_inferred=False, is_verified=is_verified
    )


def _failed(
    tool: str,
    rules: Rules,
    held: Mapping[Any, tuple[ForeignRow, Sequence[Migration] | None]],
) -> list[Doubt]:
    failed = [(row, files) for row, files in held.values() if row.state == "failed"]
    if not failed:
        return []
    return [
        Doubt(
            f"{tool} records {listed([row.version for row, _ in failed])} as failed or "
            "not finished",
            f"Look what of it is there, {rules.mend}, and start the gate again.",
            tuple(
                Refused(row, files[0] if files else None, "failed or not finished")
                for row, files in failed
            ),
        )
    ]


def _find_stood_for(
    squashes: Iterable[Migration], rows: Iterable[ForeignRow]
) -> Iterator[Adopted]:
    """Yield each file that stands for others, where the last of those is applied."""
    by_number = {_to_number(row): row for row in rows}
    for squash in squashes:
        row = by_number.get(squash.replaces.number) if squash.replaces else None
        if row is not None:
            yield Adopted(migration=squash, row=row, is_inferred=True, is_verified=True)


def _covers(scopes: Iterable[Replaced | None], row: ForeignRow) -> bool:
    number = _to_number(row)
    return any(scope and scope.covers(number, "") for scope in scopes)


def _to_number(row: ForeignRow) -> Number:
    stem = row.version.removesuffix(".sql")
    return read_number(stem) or classify(f"{stem}.sql").number


def _unexplained(tool: str, missing: Sequence[ForeignRow]) -> list[Doubt]:
    if not missing:
        return []
    return [
        Doubt(
            f"{tool} has applied {listed([row.version for row in missing])}, which no "
            "file here explains",
            "Check that these are its files; where a newer image has them, start that "
            "one first; where they are gone for good, give the command baseline "
            "VERSION, with the last one that is here.",
            tuple(Refused(row, None, "no file here explains it") for row in missing),
        )
    ]


def _gaps(
    tool: str, without: Sequence[Migration], applied: Mapping[Any, ForeignRow]
) -> list[Doubt]:
    if not applied:
        return []
    newest, row = max(applied.items(), key=lambda item: item[0])
    gaps = [m for m in without if not m.is_repeatable and m.number < newest]
    if not gaps:
        return []
    return [
        Doubt(
            f"{tool} keeps one row, and this table has several, but none of "
            f"{listed([m.version for m in gaps])}, below the newest",
            "Where Hasura has written it, a row a file, let that apply them first; "
            "where these have run too, keep only the newest row.",
            tuple(Refused(row, m, "no row of its own") for m in gaps),
        )
    ]


def _ambiguous(
    tool: str, explained: Iterable[tuple[ForeignRow, Sequence[Migration]]]
) -> list[Doubt]:
    return [
        Doubt(
            f"{listed([m.version for m in same])} are one version to {tool}, which has "
            "applied it",
            "Keep the one that it has run, and give the other a number of its own.",
            tuple(Refused(row, m, f"one of {len(same)} files of it") for m in same),
        )
        for row, same in explained
        if len(same) > 1
    ]


def _changed(tool: str, adopted: Iterable[Adopted]) -> list[Doubt]:
    changed = [each for each in adopted if not each.is_verified]
    if not changed:
        return []
    if tool == "atlas":  # those after the first differ with it
        changed = changed[:1]
    verb = "differs" if len(changed) == 1 else "differ"
    names = listed([each.migration.version for each in changed])
    return [
        Doubt(
            f"{names} {verb} from what {tool} has applied, by its checksum",
            "Restore the files as they were applied, or set GATE_CHANGED=warn.",
            tuple(
                Refused(each.row, each.migration, "differs by its checksum")
                for each in changed
            ),
        )
    ]
