"""
Read the migrations folder: names and checksums once, the text of what is pending.

Touches the disk, never a database; keeps no file's content but a pending one's.
"""

from __future__ import annotations

import mmap
import os

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from migration_gate.files.migration import (
    NAME_MAX_CHARACTERS,
    Content,
    Migration,
    checksum,
    parse_name,
)
from migration_gate.files.script import Script, check_text, parse_script
from migration_gate.report.errors import FileFault, MigrationFilesError
from migration_gate.settings.settings import HistoryTableName


MAP_MIN_BYTES: Final = 16 << 20
READ_MIN_BYTES: Final = 1 << 16  # of what does not say how long it is


def read_folder(folder: Path, *, allow_empty: bool) -> tuple[Migration, ...]:
    """
    Read the name and checksum of every migration in a folder.

    Returns them sorted by number, then by name in byte order. Reads only.

    Raises:
        MigrationFilesError: The folder does not exist, is empty, or has names that
            are not migrations', one migration twice, or files that cannot be read;
            lists every fault.
    """
    names = _list_sql_files(folder)
    faults = [*_find_malformed(names), *_find_duplicates(names)]
    migrations = []
    for name in names:
        parsed = parse_name(name)
        if parsed is None or parsed.kind == "down":
            continue
        try:
            content = _read(folder, name)
        except OSError as error:
            faults.append(_unreadable(name, error))
            continue
        migrations.append(
            Migration(
                version=name,
                number=parsed.number,
                key=parsed.key,
                checksum=checksum(content),
            )
        )
    if not migrations and not faults and not allow_empty:
        faults.append(
            FileFault(
                file=str(folder),
                problem="no migration in the folder",
                remedy="Check what is mounted or copied there, or set "
                "GATE_ALLOW_EMPTY=true.",
            )
        )
    if faults:
        raise MigrationFilesError(faults)
    return tuple(sorted(migrations, key=lambda migration: migration.order))


def read_scripts(
    folder: Path, migrations: Iterable[Migration], history: HistoryTableName
) -> tuple[Script, ...]:
    """
    Read, decode and split the files of these migrations.

    Raises:
        MigrationFilesError: A text cannot be used, or changed since its checksum was
            taken; lists every fault of every file.
    """
    scripts = []
    faults: list[FileFault] = []
    for migration in migrations:
        try:
            content = _read(folder, migration.version)
        except OSError as error:
            faults.append(_unreadable(migration.version, error))
            continue
        if checksum(content) != migration.checksum:
            faults.append(
                FileFault(
                    file=migration.version,
                    problem="changed while the gate was running",
                    remedy="Start the gate again.",
                )
            )
            continue
        try:
            scripts.append(parse_script(migration, content, history))
        except MigrationFilesError as error:
            faults.extend(error.faults)
    if faults:
        raise MigrationFilesError(faults)
    return tuple(scripts)


def check_texts(folder: Path, migrations: Iterable[Migration]) -> None:
    """
    Check the encoding and directives of these migrations' files. Reads only.

    Raises:
        MigrationFilesError: Lists every fault of every file.
    """
    faults: list[FileFault] = []
    for migration in migrations:
        try:
            check_text(migration, _read(folder, migration.version))
        except OSError as error:
            faults.append(_unreadable(migration.version, error))
        except MigrationFilesError as error:
            faults.extend(error.faults)
    if faults:
        raise MigrationFilesError(faults)


def _list_sql_files(folder: Path) -> list[str]:
    """Return the names that end in .sql, sorted; links are followed, folders not."""
    try:
        with os.scandir(folder) as entries:
            return sorted(
                entry.name
                for entry in entries
                if entry.name.endswith(".sql")
                and not entry.name.startswith((".", "_"))
                and not entry.is_dir()
            )
    except OSError as error:
        fault = FileFault(
            file=str(folder),
            problem=f"cannot read the folder: {_words(error)}",
            remedy="GATE_MIGRATIONS names the folder of the migrations; check what "
            "is mounted or copied there.",
        )
        raise MigrationFilesError([fault]) from error


def _find_malformed(names: Iterable[str]) -> list[FileFault]:
    faults = []
    for name in names:
        if len(name) > NAME_MAX_CHARACTERS:
            problem = f"name is longer than {NAME_MAX_CHARACTERS} characters"
            remedy = "Shorten the name."
        elif parse_name(name) is None:
            problem = "name is not of the form NUMBER_words.sql"
            remedy = (
                "Rename it to NUMBER_words.sql or NUMBER_words.up.sql, or begin its "
                'name with "_" to have it ignored.'
            )
        else:
            continue
        shown = name.encode("utf-8", "replace").decode()
        faults.append(
            FileFault(file=shown[:NAME_MAX_CHARACTERS], problem=problem, remedy=remedy)
        )
    return faults


def _find_duplicates(names: Sequence[str]) -> list[FileFault]:
    first: dict[str, str] = {}
    faults = []
    for name in names:
        parsed = parse_name(name)
        if parsed is None or parsed.kind == "down":
            continue
        other = first.setdefault(parsed.key, name)
        if other != name:
            faults.append(
                FileFault(
                    file=name,
                    problem=f'the same migration as "{other}" in another spelling',
                    remedy="Keep one of the two files.",
                )
            )
    return faults


def _unreadable(name: str, error: OSError) -> FileFault:
    return FileFault(
        file=name,
        problem=f"cannot read the file: {_words(error)}",
        remedy="Make it readable for the user that the gate runs as.",
    )


def _words(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()


def _read(folder: Path, name: str) -> Content:
    """Return a file's content; a large one as a map, whose pages can be let go."""
    # Ten thousand files may be read by a gate that has nothing to do: in half the time
    # that Path.open() takes.
    file = os.open(f"{folder}/{name}", os.O_RDONLY)
    try:
        size = os.fstat(file).st_size
        if size >= MAP_MIN_BYTES:
            return mmap.mmap(file, 0, access=mmap.ACCESS_READ)
        content = b""
        while block := os.read(file, max(size + 1, READ_MIN_BYTES)):
            content += block
        return content
    finally:
        os.close(file)
