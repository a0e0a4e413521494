"""
What undoes a migration: a file of its own, or the part of its file that goes back.

Touches the disk for names, and for the texts of what is to be undone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Final

from migration_gate.files.folder import read_checksum, read_file
from migration_gate.files.listing import Entries, list_entries
from migration_gate.files.marks import cut_back_part
from migration_gate.files.migration import Migration
from migration_gate.files.names import BACK, ENDING
from migration_gate.report.errors import FileFault, MigrationFilesError
from migration_gate.statements import ScriptError


KEEP_ONE: Final = "Keep one of them."


def find_back_files(folder: str | Path) -> Mapping[str, tuple[str, ...]]:
    """
    Return the files that go back, by the version of the migration that each undoes.

    One that could be several migrations' is none's: its number is theirs, and its words
    are of none. Reads names alone.

    Raises:
        MigrationFilesError: The folder cannot be read.
    """
    entries = list_entries(folder)
    found = defaultdict[str, tuple[str, ...]](tuple)
    for path, version in _pair(entries):
        found[version] += (path,)
    return found


def _pair(entries: Entries) -> Iterator[tuple[str, str]]:
    """Yield each file that goes back with the version that it undoes."""
    ups = [entry for entry in entries.files.values() if entry.said.kind == "up"]
    numbered = defaultdict(list)
    for up in ups:
        numbered[up.said.number].append(up)
    for path, entry in entries.files.items():
        if entry.said.kind != "down":
            continue
        alike = numbered[entry.said.number]
        stem = PurePosixPath(path).name.removesuffix(ENDING)
        words = {entry.said.base, BACK.sub("", stem), _to_versioned(stem)}
        own = [
            up for up in alike if up.version == entry.version or up.said.base in words
        ]
        meant = own or alike
        if len(meant) == 1:
            yield path, meant[0].version


def _to_versioned(stem: str) -> str:
    """Return the name of the migration that a file of Flyway's form undoes."""
    return f"V{stem[1:]}" if stem.startswith("U") else stem


def find_way_back(
    folder: str | Path, migration: Migration, files: Sequence[str]
) -> Migration:
    """
    Return a migration as what undoes it.

    Where no file goes back, a part of its own file has to: whether it has one is known
    when it is read.

    Raises:
        MigrationFilesError: Two files undo it, or the one cannot be read.
    """
    if not files:
        return migration._replace(way="back part")
    if len(files) > 1:
        names = ", ".join(files[1:])
        problem = f"undoes the same migration as {names}"
        raise MigrationFilesError([FileFault(files[0], problem, KEEP_ONE)])
    path = files[0]
    content = read_file(folder, migration)
    with suppress(ScriptError):
        if cut_back_part(content) is not None:
            problem = f"goes back in a part of it, and {path} undoes it too"
            raise MigrationFilesError([FileFault(migration.file, problem, KEEP_ONE)])
    is_folder = PurePosixPath(path).name == "down.sql"
    return migration._replace(
        path=path,
        checksum=read_checksum(folder, path),
        is_outside=migration.is_outside and is_folder,
        way="back",
    )
