"""
What is in the folder, beside its migrations: every entry is known, or a fault.

Touches the disk for names alone; opens no file.
"""

from __future__ import annotations

import os

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from migration_gate.files.migration import version_to_key
from migration_gate.files.names import (
    ENDING,
    IGNORE,
    NAME_MAX_CHARACTERS,
    OTHER_DATABASES,
    Name,
    classify,
    without_database,
)
from migration_gate.report.errors import FileFault, MigrationFilesError


FOLDERS_SHOWN: Final = 3


class Entries(NamedTuple):
    """
    What a folder has: its files by name, sorted, and what each is.

    ``inside`` has a file of SQL in each of its folders that has one.
    """

    folder: str | Path
    names: Mapping[str, Name]
    inside: Mapping[str, str]


def list_entries(folder: str | Path) -> Entries:
    """
    List a folder; links are followed. Reads only.

    Raises:
        MigrationFilesError: The folder cannot be read.
    """
    names: list[str] = []
    folders: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith((".", "_")):
                    continue
                (folders if entry.is_dir() else names).append(entry.name)
    except OSError as error:
        fault = FileFault(
            file=str(folder),
            problem=f"cannot read the folder: {error_words(error)}",
            remedy="GATE_MIGRATIONS names the folder of the migrations; check what "
            "is mounted or copied there.",
        )
        raise MigrationFilesError([fault]) from error
    found = ((name, _find_sql(Path(folder, name))) for name in sorted(folders))
    return Entries(
        folder=folder,
        names={name: classify(name) for name in sorted(names)},
        inside={name: path for name, path in found if path is not None},
    )


def judge_entries(entries: Entries, *, allow_empty: bool) -> list[FileFault]:
    """Return what of a folder could be meant and is not read."""
    faults = [
        FileFault(file=_shown(name), problem=said.problem, remedy=said.remedy)
        for name, said in entries.names.items()
        if said.kind == "refused"
    ]
    ups = {name: said for name, said in entries.names.items() if said.kind == "up"}
    if not ups and not faults:
        return _judge_empty(entries, allow_empty=allow_empty)
    faults += _find_code(entries)
    faults += _find_duplicates(ups)
    faults += _find_lone_ways_back(entries, ups)
    faults += _find_folders(entries)
    return faults


def _judge_empty(entries: Entries, *, allow_empty: bool) -> list[FileFault]:
    """Say why nothing was found: most often the folder is one too high."""
    inside = [f'"{path}"' for path in list(entries.inside.values())[:FOLDERS_SHOWN]]
    if inside:
        folder = Path(entries.folder, next(iter(entries.inside.values())))
        return [
            FileFault(
                file=str(entries.folder),
                problem=f"no migration in the folder, but in one below it: "
                f"{', '.join(inside)}",
                remedy=f"Set GATE_MIGRATIONS={folder.parent}, or mount or copy what is "
                f"in that folder to {entries.folder}.",
            )
        ]
    lone = _find_lone_ways_back(entries, {})
    if allow_empty or lone:
        return lone
    code = _find_code(entries)
    empty = FileFault(
        file=str(entries.folder),
        problem="no migration in the folder",
        remedy="Check what is mounted or copied there, or set GATE_ALLOW_EMPTY=true.",
    )
    return [empty, *code]


def _find_code(entries: Entries) -> list[FileFault]:
    return [
        FileFault(file=_shown(name), problem=said.problem, remedy=said.remedy)
        for name, said in entries.names.items()
        if said.kind == "code"
    ]


def _find_duplicates(ups: Mapping[str, Name]) -> Iterator[FileFault]:
    first: dict[str, str] = {}
    for name, said in ups.items():
        key = version_to_key(name)
        plain = without_database(said.base)
        other = first.setdefault(key, name)
        if other == name and plain != said.base:
            other = next((n for n, s in ups.items() if s.base == plain), name)
        if other != name:
            yield FileFault(
                file=name,
                problem=f'the same migration as "{other}" in another spelling',
                remedy="Keep one of the two files.",
            )


def _find_lone_ways_back(entries: Entries, ups: Mapping[str, Name]) -> list[FileFault]:
    """Return the ways back of migrations that are not there."""
    bases = defaultdict(set)
    for said in ups.values():
        bases[said.number].add(said.base)
    return [
        FileFault(
            file=_shown(name),
            problem="way back of a migration that is not there, by its name",
            remedy="Give it the number and the words of its migration; if it is a "
            f"migration, let its name end otherwise. {IGNORE}",
        )
        for name, said in entries.names.items()
        if said.kind == "down"
        and (said.number not in bases or said.base not in {"", *bases[said.number]})
    ]


def _find_folders(entries: Entries) -> Iterator[FileFault]:
    for name, path in entries.inside.items():
        is_other = name.lower() in OTHER_DATABASES
        what = f"migrations for another database ({name.lower()})"
        yield FileFault(
            file=_shown(path),
            problem=what if is_other else "in a folder below, which is not read",
            remedy="Move its files up, or begin the folder's name with "
            '"_" to have it ignored.',
        )


def _find_sql(folder: Path) -> str | None:
    """Return the first file of SQL in a folder and those below, from above it."""
    for path, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "_")))
        for name in sorted(files):
            if name.lower().endswith(ENDING) and not name.startswith((".", "_")):
                return str(Path(path, name).relative_to(folder.parent))
    return None


def _shown(name: str) -> str:
    return name.encode("utf-8", "replace").decode()[:NAME_MAX_CHARACTERS]


def error_words(error: OSError) -> str:
    """Return what the system says, as in a message."""
    return (error.strerror or type(error).__name__).lower()
