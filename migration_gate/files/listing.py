"""
What is in the folder and those below it: every entry is known, or a fault.

Touches the disk for names, and for what Flyway and diesel say beside a file of how it
is to run; opens no other file.
"""

from __future__ import annotations

import os

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from migration_gate.files.migration import version_to_key
from migration_gate.files.names import (
    IGNORE,
    IGNORED,
    NAME_MAX_CHARACTERS,
    OTHER_DATABASES,
    Name,
    classify,
    refused,
    without_database,
)
from migration_gate.report.errors import FileFault, MigrationFilesError


SEPARATOR: Final = ":"
# diesel, Hasura; Prisma, Drizzle.
INSIDE: Final = ("up.sql", "migration.sql")
METADATA: Final = "metadata.toml"
CONF: Final = ".conf"
JOURNAL: Final = "meta/_journal.json"
BACK_FOLDERS: Final = frozenset(
    {
        *("down", "downs", "undo", "undos", "revert", "reverts"),
        *("rollback", "rollbacks"),
    }
)


class Entry(NamedTuple):
    """What a file is; ``version`` is what the history calls it, if a migration."""

    version: str
    said: Name
    is_outside: bool = False


class Entries(NamedTuple):
    """
    The files of a folder and those below it, by their paths from it, sorted.

    Where there are several folders, their names are part of the paths, and ``folder``
    is where they start from.
    """

    folder: str | Path
    files: Mapping[str, Entry]


def folders_of(folder: str | Path) -> list[str]:
    """Return the folders that a setting names."""
    return str(folder).split(SEPARATOR)


def path_of(folder: str | Path, file: str) -> str:
    """Return the path of a file, whose folder is part of its name if there are more."""
    return file if SEPARATOR in str(folder) else f"{folder}/{file}"


def list_entries(folder: str | Path) -> Entries:
    """
    List a folder and those below it, or several; links are followed. Reads only.

    Raises:
        MigrationFilesError: A folder cannot be read.
    """
    folders = folders_of(folder)
    if len(folders) == 1:
        return _list_folder(folder)
    files = {
        f"{each}/{path}": entry
        for each in folders
        for path, entry in _list_folder(each).files.items()
    }
    return Entries(folder="", files=files)


def _list_folder(folder: str | Path) -> Entries:
    files: dict[str, Entry] = {}
    waiting, seen = [""], set[str]()
    while waiting:
        inside = waiting.pop()
        path = f"{folder}/{inside}" if inside else f"{folder}"
        names, folders = _scan(path)
        if folders or inside:
            real = os.path.realpath(path)
            if real in seen:
                continue  # a link that leads back
            seen.add(real)
        start = f"{inside}/" if inside else ""
        if "meta" in folders and os.path.isfile(f"{path}/{JOURNAL}"):  # noqa: PTH113 - as fast as the rest
            files[start + JOURNAL] = Entry("", IGNORED)
        for name, entry in _read_names(path, inside, names):
            files[start + name] = entry
        waiting += [start + name for name in sorted(folders, reverse=True)]
    return Entries(folder=folder, files=dict(sorted(files.items())))


def _scan(path: str) -> tuple[list[str], list[str]]:
    """Return the names of a folder's files, sorted, and those of the folders in it."""
    names: list[str] = []
    folders: list[str] = []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if not entry.name.startswith((".", "_")):
                    (folders if _is_folder(entry) else names).append(entry.name)
    except OSError as error:
        fault = FileFault(
            file=path,
            problem=f"cannot read the folder: {error_words(error)}",
            remedy="GATE_MIGRATIONS names the folder of the migrations; check what "
            "is mounted or copied there.",
        )
        raise MigrationFilesError([fault]) from error
    return sorted(names), folders


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle: to be told of as a file
        return False


def _read_names(
    path: str, inside: str, names: Sequence[str]
) -> Iterator[tuple[str, Entry]]:
    """Tell what each file of one folder is."""
    around = inside.rpartition("/")[2]
    own = classify(f"{around}.sql")
    if own.number and any(name in names for name in INSIDE):
        yield from _read_migration_folder(path, around, own, names)
        return
    confs = {name for name in names if name.endswith(f".sql{CONF}")}
    for name in names:
        said = classify(name)
        if around.lower() in OTHER_DATABASES and said != IGNORED:
            said = refused(
                f"migration for another database ({around.lower()})",
                "Ship PostgreSQL's files alone, and set GATE_MIGRATIONS to their "
                "folder.",
            )
        elif around.lower() in BACK_FOLDERS and said.kind == "up":
            said = Name(kind="down", number=said.number)
        elif said.kind == "up" and name + CONF in confs:
            yield name, _with_conf(path, name, said)
            continue
        is_read = classify(name.removesuffix(CONF)).kind == "up"
        if name not in confs or not is_read or name.removesuffix(CONF) not in names:
            yield name, Entry(name, said)


def _read_migration_folder(
    path: str, around: str, own: Name, names: Sequence[str]
) -> Iterator[tuple[str, Entry]]:
    """Tell what the files of a folder are that is one migration."""
    forward = next(name for name in INSIDE if name in names)
    up = Name(kind="up", number=own.number, base=around)
    for name in names:
        if name == forward:
            yield name, _with_metadata(path, around, up, names)
        elif name == "down.sql":
            yield name, Entry(around, Name(kind="down", number=own.number))
        elif classify(name) == IGNORED:
            yield name, Entry(name, IGNORED)
        else:
            problem = f"in the folder of a migration, beside its {forward}"
            yield name, Entry(name, refused(problem, f"Move it. {IGNORE}"))


def _with_metadata(path: str, version: str, said: Name, names: Sequence[str]) -> Entry:
    """Read diesel's metadata.toml, in which no word means no transaction."""
    if METADATA not in names:
        return Entry(version, said)
    import tomllib

    try:
        with Path(path, METADATA).open("rb") as file:
            metadata = tomllib.load(file)
    except (OSError, ValueError):
        problem = f"its {METADATA} cannot be read"
        return Entry(version, refused(problem, f"Correct {METADATA}, or take it out."))
    # migrations_internals/src/lib.rs: TomlMetadata
    return Entry(version, said, is_outside=not metadata.get("run_in_transaction"))


def _with_conf(path: str, name: str, said: Name) -> Entry:
    """Read what Flyway's file beside a migration says of it."""
    try:
        text = Path(path, name + CONF).read_text("utf-8")
    except (OSError, ValueError):
        return Entry(
            name, refused(f"its {CONF} cannot be read", "Make it readable UTF-8.")
        )
    pairs = [
        [part.strip() for part in line.partition("=")[::2]]
        for line in text.splitlines()
        if line.strip() and not line.lstrip().startswith(("#", "!"))
    ]
    keys = {key for key, _ in pairs}
    if keys - {"executeInTransaction"}:
        problem = f"its {CONF} has a setting that the gate does not know"
        remedy = f"Take all but executeInTransaction out of {name}{CONF}."
        return Entry(name, refused(problem, remedy))
    return Entry(name, said, is_outside=any(v.lower() == "false" for _, v in pairs))


def read_entries(
    entries: Entries, folder: str | Path, *, allow_empty: bool
) -> list[FileFault]:
    """
    Return what of a folder could be meant and is not read.

    Args:
        entries: What ``list_entries`` returns.
        folder: As it was given that.
        allow_empty: No migration is no fault; else each of several folders has one.
    """
    ups = {path: e for path, e in entries.files.items() if e.said.kind == "up"}
    faults = _find_kind(entries, "refused")
    faults += _find_lone_ways_back(entries, ups)
    if ups or faults or not allow_empty:
        code = _find_kind(entries, "code")
        if not faults:
            faults += [] if allow_empty else _find_empty(folder, ups)
        faults += code
    faults += _find_duplicates(ups)
    for path in entries.files:
        if path.endswith(JOURNAL):
            from migration_gate.files.journal import require_files

            faults += require_files(entries, path, ups)
    return faults


def _find_kind(entries: Entries, kind: str) -> list[FileFault]:
    return [
        FileFault(file=shown(path), problem=said.problem, remedy=said.remedy)
        for path, (_, said, _) in entries.files.items()
        if said.kind == kind
    ]


def _find_empty(folder: str | Path, ups: Mapping[str, Entry]) -> Iterator[FileFault]:
    folders = folders_of(folder)
    for each in folders:
        start = f"{each}/" if len(folders) > 1 else ""
        if not any(path.startswith(start) for path in ups):
            yield FileFault(
                file=each,
                problem="no migration in the folder",
                remedy="Check what is mounted or copied there; only where no "
                "migrations are meant, set GATE_ALLOW_EMPTY=true.",
            )


def _find_duplicates(ups: Mapping[str, Entry]) -> Iterator[FileFault]:
    first: dict[str, str] = {}
    bases = {ups[path].said.base: path for path in reversed(list(ups))}
    for path, (version, said, _) in ups.items():
        other = first.setdefault(version_to_key(version), path)
        if other == path:
            plain = without_database(said.base)
            other = bases.get(plain, path) if plain != said.base else path
        if other != path:
            is_same = ups[other].version == version
            where = "in another folder" if is_same else "in another spelling"
            yield FileFault(
                file=shown(path),
                problem=f'the same migration as "{other}" {where}',
                remedy="Keep the one whose text was applied; where both are needed, "
                "give the newer one the next free number.",
            )


def _find_lone_ways_back(
    entries: Entries, ups: Mapping[str, Entry]
) -> Iterator[FileFault]:
    """Yield the ways back of migrations that are not there."""
    bases = defaultdict(set)
    for entry in ups.values():
        bases[entry.said.number].add(entry.said.base)
    for path, (_, said, _) in entries.files.items():
        if said.kind != "down":
            continue
        if said.number not in bases or said.base not in {"", *bases[said.number]}:
            yield FileFault(
                file=shown(path),
                problem="way back of a migration that is not there, by its name",
                remedy="Give it the number and the words of its migration; if it is a "
                f"migration, let its name end otherwise. {IGNORE}",
            )


def shown(name: str) -> str:
    """Return a name as a fault has it."""
    return name.encode("utf-8", "replace").decode()[:NAME_MAX_CHARACTERS]


def error_words(error: OSError) -> str:
    """Return what the system says, as in a message."""
    return (error.strerror or type(error).__name__).lower()
