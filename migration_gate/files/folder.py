"""
Read the migrations folder: names and checksums once, the text of what is pending.

Touches the disk, never a database; keeps no file's content but a pending one's.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from migration_gate.files.listing import (
    error_words,
    list_entries,
    path_of,
    read_entries,
)
from migration_gate.files.migration import (
    AFTER_DEPLOY,
    Content,
    Migration,
    Replaced,
    changed,
    checksum,
    unchanged,
    version_to_key,
)
from migration_gate.files.names import Number
from migration_gate.report.errors import FileFault, MigrationFilesError


if TYPE_CHECKING:
    from migration_gate.files.script import Script
    from migration_gate.settings.settings import HistoryTableName
    from migration_gate.statements import Statement


MAP_MIN_BYTES: Final = 16 << 20
CHECKPOINT: Final = "atlas:checkpoint"
# What a file has that stands for others; it is looked at closer only for these.
REPLACING: Final = (b"replaces", CHECKPOINT.encode())
AFTER: Final = AFTER_DEPLOY.encode()
READ_MIN_BYTES: Final = 1 << 16  # of what does not say how long it is


def read_folder(folder: str | Path, *, allow_empty: bool) -> tuple[Migration, ...]:
    """
    Read the name and checksum of every migration in a folder, or in several.

    Returns them sorted by number, then by name in byte order. Reads only.

    Raises:
        MigrationFilesError: The folder does not exist, is empty, or has something
            that could be meant and is not read; lists every fault.
    """
    entries = list_entries(folder)
    faults = read_entries(entries, folder, allow_empty=allow_empty)
    migrations = []
    for path, (version, said, is_outside) in entries.files.items():
        if said.kind != "up":
            continue
        try:
            content = _read(folder, path)
        except OSError as error:
            faults.append(_unreadable(path, error))
            continue
        key = version_to_key(version)
        replaces = Replaced(said.number) if said.is_baseline else None
        with unchanged(path):
            found = checksum(content)
            if any(content.find(trace) >= 0 for trace in REPLACING):
                replaces = _read_replaces(content, said.number, key)
            is_after = content.find(AFTER) >= 0 and _is_after(content)
        migrations.append(
            Migration(
                version=version,
                number=said.number,
                key=key,
                checksum=found,
                path="" if path == version else path,
                is_outside=is_outside,
                replaces=replaces,
                is_after=is_after,
            )
        )
    faults += _find_misplaced(migrations)
    if faults:
        raise MigrationFilesError(faults)
    return tuple(sorted(migrations, key=lambda migration: migration.order))


def _is_after(content: Content) -> bool:
    """Tell whether a file says that it waits for the deployment."""
    from migration_gate.files.migration import DIRECTIVE
    from migration_gate.statements import leading_comments

    comments = (
        comment.decode(errors="replace") for _, comment in leading_comments(content)
    )
    said = (DIRECTIVE.fullmatch(comment) for comment in comments)
    return any(match is not None and match[1].strip() == AFTER_DEPLOY for match in said)


def _read_replaces(content: Content, number: Number, key: str) -> Replaced | None:
    """Return what a file says that it stands for; Atlas' mark: for all before it."""
    from migration_gate.files.migration import DIRECTIVE, REPLACES, parse_replaced
    from migration_gate.statements import leading_comments

    for _, comment in leading_comments(content):
        text = comment.decode(errors="replace")
        if text.split()[:2] == ["--", CHECKPOINT]:
            return Replaced(number, key, is_open=True)
        directive = DIRECTIVE.fullmatch(text)
        word, _, named = (directive[1] if directive else "").strip().partition(" ")
        if word == REPLACES:
            return parse_replaced(named.strip())
    return None


def _find_misplaced(migrations: Iterable[Migration]) -> list[FileFault]:
    """Refuse what would run in a new database after what it does not stand for."""
    ordered = sorted(migrations, key=lambda migration: migration.order)
    faults: list[FileFault] = []
    for place, migration in enumerate(ordered):
        replaces = migration.replaces
        if replaces is None:
            continue
        before = [m for m in ordered[:place] if not replaces.covers(m.number, m.key)]
        if migration.is_repeatable:
            problem = "repeatable, and says that it stands for others"
            remedy = "Let a numbered file stand for them."
            faults.append(FileFault(migration.file, problem, remedy))
        elif before:
            problem = f'comes after "{before[0].version}", which it does not replace'
            remedy = "Give it the number of the last one that it replaces."
            faults.append(FileFault(migration.file, problem, remedy))
    return faults


def read_scripts(
    folder: str | Path, migrations: Iterable[Migration], history: HistoryTableName
) -> tuple[Script, ...]:
    """
    Read, decode and split the files of these migrations.

    Raises:
        MigrationFilesError: A text cannot be used, or changed since its checksum was
            taken; lists every fault of every file.
    """
    from migration_gate.files.script import parse_script

    scripts = []
    faults: list[FileFault] = []
    for migration in migrations:
        try:
            content = _read(folder, migration.file)
        except OSError as error:
            faults.append(_unreadable(migration.file, error))
            continue
        try:
            with unchanged(migration.file):
                if checksum(content) != migration.checksum:
                    faults.append(changed(migration.file))
                    continue
                scripts.append(parse_script(migration, content, history))
        except MigrationFilesError as error:
            faults.extend(error.faults)
    if faults:
        raise MigrationFilesError(faults)
    return tuple(scripts)


def read_statements(folder: str | Path, migration: Migration) -> list[Statement]:
    """
    Return the statements of a file, as far as they can be told apart.

    What is unfit to run matters as little as which way a part of the file goes.

    Raises:
        MigrationFilesError: It cannot be read, or changed meanwhile.
    """
    from migration_gate.statements import ScriptError, iter_statements

    found: list[Statement] = []
    try:
        content = _read(folder, migration.file)
    except OSError as error:
        raise MigrationFilesError([_unreadable(migration.file, error)]) from error
    with unchanged(migration.file), suppress(ScriptError):
        found.extend(iter_statements(content))
    return found


def read_file(folder: str | Path, migration: Migration) -> bytes:
    """
    Return the bytes of a migration's file.

    Raises:
        MigrationFilesError: It cannot be read.
    """
    try:
        return bytes(_read(folder, migration.file))
    except OSError as error:
        raise MigrationFilesError([_unreadable(migration.file, error)]) from error


def check_texts(folder: str | Path, migrations: Iterable[Migration]) -> None:
    """
    Check the encoding and directives of these migrations' files. Reads only.

    Raises:
        MigrationFilesError: Lists every fault of every file.
    """
    from migration_gate.files.script import check_text

    faults: list[FileFault] = []
    for migration in migrations:
        try:
            with unchanged(migration.file):
                check_text(migration, _read(folder, migration.file))
        except OSError as error:
            faults.append(_unreadable(migration.file, error))
        except MigrationFilesError as error:
            faults.extend(error.faults)
    if faults:
        raise MigrationFilesError(faults)


def read_checksum(folder: str | Path, name: str) -> str:
    """
    Return the checksum of a file in the folder.

    Raises:
        MigrationFilesError: It cannot be read.
    """
    try:
        with unchanged(name):
            return checksum(_read(folder, name))
    except OSError as error:
        raise MigrationFilesError([_unreadable(name, error)]) from error


def _unreadable(name: str, error: OSError) -> FileFault:
    is_odd = error.errno == errno.EINVAL
    return FileFault(
        file=name,
        problem=f"cannot read the file: {error_words(error)}",
        remedy="Put a file in its place, or take it out of the folder."
        if is_odd
        else "Make it readable for the user that the gate runs as.",
    )


def _read(folder: str | Path, name: str) -> Content:
    """Return a file's content; a large one as a map, whose pages can be let go."""
    # Ten thousand files may be read by a gate that has nothing to do: in half the time
    # that Path.open() takes.
    # A pipe would wait for who writes it, and a device may have no end.
    file = os.open(path_of(folder, name), os.O_RDONLY | os.O_NONBLOCK)
    try:
        facts = os.fstat(file)
        if not stat.S_ISREG(facts.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        size = facts.st_size
        if size >= MAP_MIN_BYTES:
            return mmap.mmap(file, 0, access=mmap.ACCESS_READ)
        content = b""
        while block := os.read(file, max(size + 1, READ_MIN_BYTES)):
            content += block
        return content
    finally:
        os.close(file)
