"""
What another tool knows of files, beside their names: Drizzle's and Liquibase's.

Reads the disk. Loaded where a history is taken over, and nowhere else.
"""

from __future__ import annotations

import json

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from migration_gate.files.folder import read_file
from migration_gate.files.liquibase import find_change_sets, is_liquibase
from migration_gate.files.listing import JOURNAL, list_entries
from migration_gate.files.migration import Migration
from migration_gate.report.errors import FileFault, MigrationFilesError
from migration_gate.statements import ScriptError, place


def read_journal(folder: str | Path) -> Mapping[str, str]:
    """
    Return the times by which Drizzle knows its files, by the files' versions.

    Raises:
        MigrationFilesError: The folder has no journal that can be read.
    """
    entries = list_entries(folder)
    times: dict[str, str] = {}
    for path in entries.files:
        if not path.endswith(JOURNAL):
            continue
        try:
            journal = json.loads(Path(entries.folder, path).read_text("utf-8"))
            times |= {f"{e['tag']}.sql": str(e["when"]) for e in journal["entries"]}
        except (OSError, ValueError, KeyError, TypeError) as error:
            problem = "cannot be read as Drizzle's journal"
            raise MigrationFilesError([FileFault(path, problem, "Restore it.")]) from (
                error
            )
    if not times:
        problem = f"no {JOURNAL} in the folder, by which Drizzle knows its files"
        remedy = (
            "Ship it beside the files. Drizzle 1.0 writes none: give the command "
            "baseline VERSION, with the last one that it has applied."
        )
        raise MigrationFilesError([FileFault(str(folder), problem, remedy)])
    return times


def read_change_sets(
    folder: str | Path, migrations: Iterable[Migration]
) -> Mapping[Migration, Sequence[str]]:
    """
    Return the change sets of each file, as "id::author"; none where it is plain SQL.

    Raises:
        MigrationFilesError: A file has a malformed one.
    """
    found = {}
    for migration in migrations:
        content = read_file(folder, migration)
        try:
            is_formatted = is_liquibase(content)
            found[migration] = find_change_sets(content) if is_formatted else ()
        except ScriptError as error:
            line, column = place(content, error.offset)
            fault = FileFault(
                migration.file, error.problem, error.remedy, line=line, column=column
            )
            raise MigrationFilesError([fault]) from error
    return found
