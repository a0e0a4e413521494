"""
The command new: the next numbered file, or a repeatable one, from a template.
"""

from __future__ import annotations

import re
import unicodedata

from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from migration_gate.files.folder import read_folder
from migration_gate.files.listing import folders_of
from migration_gate.files.migration import Migration
from migration_gate.files.names import NAME_MAX_CHARACTERS, REPEATABLE, classify
from migration_gate.report.errors import FileFault, MigrationFilesError
from migration_gate.report.log import Log, write_line
from migration_gate.report.verdict import Tally
from migration_gate.settings.settings import Settings


STDOUT: Final = 1
TIMESTAMP_DIGITS: Final = 14
FIRST_DIGITS: Final = 3
HEAD: Final = re.compile(
    r"(?P<digits>[0-9]{4}-[0-9]{2}-[0-9]{2}-[0-9]+|[0-9]+)(?P<separator>[_-]?)"
)
REPEATED: Final = """\
-- Purpose: {words}
-- Created: {date}
--
-- Runs again whenever this text changes, after all numbered files, in one transaction
-- with its history row. Write it so that it can: CREATE OR REPLACE, or DROP … IF EXISTS
-- first. Keep it compatible with the version of the application that still runs.

"""
TEMPLATE: Final = """\
-- Purpose: {words}
-- Created: {date}
--
-- Runs in one transaction with its history row: it is applied as a whole or not at all.
-- Keep it compatible with the version of the application that still runs.
-- For CREATE INDEX CONCURRENTLY and the like, use a file of its own.

"""


DOWN_TEMPLATE: Final = """\
-- Undoes {name}, when the command rollback is given.
--
-- Runs in one transaction with the removal of its history row.

"""


def new(
    settings: Settings,
    _log: Log,
    tally: Tally,
    *,
    name: str,
    is_repeatable: bool,
    with_down: bool,
) -> None:
    """
    Write the next migration, and print its path, and that of what undoes it.

    Raises:
        MigrationFilesError: The name has no word, or the folder cannot be used.
    """
    path = create_migration(settings.migrations, name, is_repeatable=is_repeatable)
    write_line(STDOUT, str(path))
    tally.outcome = f"made {path.name}"
    if with_down:
        way_back = create_way_back(path)
        write_line(STDOUT, str(way_back))
        tally.outcome += f" and {way_back.name}"


def create_migration(
    folder: str | Path, name: str, *, is_repeatable: bool = False
) -> Path:
    """
    Write the next migration and return its path: in the last of several folders.

    The number continues what the folder has: a counter of the same width, or a
    timestamp; so does the ending. A repeatable one has no number. Writes one new file,
    never over an old one.

    Raises:
        MigrationFilesError: The name has no word, or the folder cannot be used.
    """
    letters = unicodedata.normalize("NFKD", name)
    plain = "".join(letter for letter in letters if not unicodedata.combining(letter))
    words = re.sub(r"[^a-z0-9]+", "_", plain.casefold()).strip("_")
    if not words:
        raise MigrationFilesError([_fault(name, "name has no letter or digit")])
    found = read_folder(folder, allow_empty=True)
    migrations = tuple(m for m in found if not m.is_repeatable)
    ending = ".up.sql" if migrations and _is_up(migrations[-1]) else ".sql"
    made = f"{_next_head(migrations)}{words}{ending}"
    if is_repeatable:
        made = f"{REPEATABLE}{words}.sql"
    path = Path(folders_of(folder)[-1]) / made
    if len(path.name) > NAME_MAX_CHARACTERS:
        raise MigrationFilesError([_fault(path.name, "name is too long")])
    if classify(path.name).kind != "up":
        raise MigrationFilesError([_fault(path.name, "name is that of a way back")])
    template = REPEATED if is_repeatable else TEMPLATE
    text = template.format(
        words=words.replace("_", " "), date=datetime.now(UTC).date().isoformat()
    )
    _write(path, text)
    return path


def create_way_back(path: Path) -> Path:
    """
    Write the file that undoes a migration, and return its path.

    Raises:
        MigrationFilesError: The name is too long, or the folder cannot be used.
    """
    name = path.name
    back = f"{name.removesuffix('.sql').removesuffix('.up')}.down.sql"
    if HEAD.match(name) is None:
        back = f"U{name.removeprefix('V')}"
    if len(back) > NAME_MAX_CHARACTERS:
        raise MigrationFilesError([_fault(back, "name is too long")])
    _write(path.with_name(back), DOWN_TEMPLATE.format(name=name))
    return path.with_name(back)


def _write(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        problem = f"cannot write the file: {(error.strerror or '').lower()}"
        raise MigrationFilesError([_fault(str(path), problem)]) from error


def _is_up(migration: Migration) -> bool:
    return migration.version.endswith(".up.sql")


def _next_head(migrations: tuple[Migration, ...]) -> str:
    """Return what a name begins with that continues the newest migration's."""
    if not migrations:
        return "1".zfill(FIRST_DIGITS) + "_"
    newest = migrations[-1]
    head = HEAD.match(newest.version)
    if head is None:
        return f"V{newest.number[0] + 1}__"
    digits, separator = head["digits"], head["separator"] or "_"
    now = datetime.now(UTC)
    if "-" in digits:
        return now.strftime("%Y-%m-%d-%H%M%S") + separator
    following = int(digits) + 1
    if len(digits) >= TIMESTAMP_DIGITS:
        following = max(int(now.strftime("%Y%m%d%H%M%S")), following)
    return str(following).zfill(len(digits)) + separator


def _fault(file: str, problem: str) -> FileFault:
    return FileFault(
        file=file, problem=problem, remedy="Give a name such as add_orders_table."
    )
