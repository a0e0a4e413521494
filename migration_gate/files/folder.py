"""
Read the migrations folder: names and checksums once, the text of what is pending.

Touches the disk, never a database; keeps no file's content but a pending one's.
"""

from __future__ import annotations

import re

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from migration_gate.files.listing import (
    JOURNAL,
    Entries,
    list_entries,
    read_entries,
)
from migration_gate.files.migration import (
    AFTER_DEPLOY,
    Migration,
    Replaced,
    changed,
    checksum,
    version_to_key,
)
from migration_gate.files.names import Number
from migration_gate.files.reading import read, unreadable
from migration_gate.report.errors import FileFault, MigrationFilesError


if TYPE_CHECKING:
    from migration_gate.files.script import Script
    from migration_gate.settings.settings import HistoryTableName
    from migration_gate.statements import Content, Statement


CHECKPOINT: Final = "atlas:checkpoint"
# What a file has that stands for others; it is looked at closer only for these.
REPLACING: Final = (b"replaces", CHECKPOINT.encode())
AFTER: Final = AFTER_DEPLOY.encode()


def read_folder(folder: str | Path, *, allow_empty: bool) -> tuple[Migration, ...]:
    """
    Read the name and checksum of every migration in a folder, or in several.

    Returns them sorted by number, then by name in byte order; Drizzle's as its journal
    has them. Reads only.

    Raises:
        MigrationFilesError: The folder does not exist, is empty, or has something
            that could be meant and is not read; lists every fault.
    """
    entries = list_entries(folder)
    faults = read_entries(entries, folder, allow_empty=allow_empty)
    migrations = []
    ranks = _find_ranks(entries)
    for path, (version, said, is_outside) in entries.files.items():
        if said.kind != "up":
            continue
        key = version_to_key(version)
        replaces = Replaced(said.number) if said.is_baseline else None
        try:
            content = read(folder, path)
            found = checksum(content)
            if _has_any(content, REPLACING):
                replaces = _read_replaces(content, said.number, key)
            is_after = _has_any(content, (AFTER,)) and _is_after(content)
        except OSError as error:
            faults.append(unreadable(path, error))
            continue
        except MigrationFilesError as error:
            faults += error.faults
            continue
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
                rank=ranks.get(path, ()),
            )
        )
    faults += _find_misplaced(migrations)
    if faults:
        raise MigrationFilesError(faults)
    return tuple(sorted(migrations, key=lambda migration: migration.order))


def _find_ranks(entries: Entries) -> Mapping[str, Number]:
    if not any(path.endswith(JOURNAL) for path in entries.files):
        return {}
    from migration_gate.files.journal import find_ranks

    return find_ranks(entries)


def _is_after(content: Content) -> bool:
    """Tell whether a file says that it waits for the deployment."""
    from migration_gate.files.migration import DIRECTIVE
    from migration_gate.statements import leading_comments

    comments = (
        comment.decode(errors="replace") for _, comment in leading_comments(content)
    )
    said = (re.fullmatch(DIRECTIVE, comment) for comment in comments)
    return any(match is not None and match[1].strip() == AFTER_DEPLOY for match in said)


def _has_any(content: Content, texts: tuple[bytes, ...]) -> bool:
    if isinstance(content, bytes):
        return any(text in content for text in texts)
    from migration_gate.statements import find

    return find(content, *texts) >= 0


def _read_replaces(content: Content, number: Number, key: str) -> Replaced | None:
    """Return what a file says that it stands for; Atlas' mark: for all before it."""
    from migration_gate.files.migration import DIRECTIVE, REPLACES, parse_replaced
    from migration_gate.statements import leading_comments

    for _, comment in leading_comments(content):
        text = comment.decode(errors="replace")
        if text.split()[:2] == ["--", CHECKPOINT]:
            return Replaced(number, key, is_open=True)
        directive = re.fullmatch(DIRECTIVE, text)
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
    folder: str | Path,
    migrations: Iterable[Migration],
    history: HistoryTableName,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> tuple[Script, ...]:
    """
    Read, decode, fill in and split the files of these migrations.

    Args:
        variables: The values of those that are set.

    Raises:
        MigrationFilesError: A text cannot be used, or changed since its checksum was
            taken; lists every fault of every file.
    """
    from migration_gate.files.script import parse_script

    scripts = []
    faults: list[FileFault] = []
    for migration in migrations:
        try:
            content = read(folder, migration.file)
        except OSError as error:
            faults.append(unreadable(migration.file, error))
            continue
        try:
            if checksum(content) != migration.checksum:
                faults.append(changed(migration.file))
                continue
            scripts.append(parse_script(migration, content, history, variables))
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
        content = read(folder, migration.file)
    except OSError as error:
        raise MigrationFilesError([unreadable(migration.file, error)]) from error
    with suppress(ScriptError):
        found.extend(iter_statements(content))
    return found


def read_file(folder: str | Path, migration: Migration) -> bytes:
    """
    Return the bytes of a migration's file.

    Raises:
        MigrationFilesError: It cannot be read.
    """
    try:
        return read(folder, migration.file)[:]
    except OSError as error:
        raise MigrationFilesError([unreadable(migration.file, error)]) from error


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
            check_text(migration, read(folder, migration.file))
        except OSError as error:
            faults.append(unreadable(migration.file, error))
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
        return checksum(read(folder, name))
    except OSError as error:
        raise MigrationFilesError([unreadable(name, error)]) from error
