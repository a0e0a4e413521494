"""
Liquibase's rows, one for each change set, as rows of files. Pure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from migration_gate.files.migration import ForeignRow, Migration


SEPARATOR = "::"
RAW = f"raw{SEPARATOR}includeAll"  # a plain file of an includeAll


def to_file_rows(
    change_sets: Mapping[Migration, Sequence[str]], rows: Iterable[ForeignRow]
) -> tuple[ForeignRow, ...]:
    """
    Return a row for each file of which there are some.

    One that does not have all of the file's change sets is a failed one; so is what no
    file explains an applied one of its own.

    Args:
        change_sets: Of each file, as "id::author"; none where it is plain SQL.
        rows: As "file::id::author", with the path that Liquibase was given.
    """
    files = list(change_sets)
    found: dict[Migration, dict[str, ForeignRow]] = defaultdict(dict)
    made = []
    for row in rows:
        path, _, name = row.version.partition(SEPARATOR)
        meant = [file for file in files if _is_same(path, file.file)]
        known = change_sets[meant[0]] or (RAW,) if len(meant) == 1 else ()
        if row.state == "failed" or name not in known:
            made.append(row)
        else:
            found[meant[0]][name] = row
    for file, done in found.items():
        last = list(done.values())[-1]
        count = len(change_sets[file]) or 1
        if len(done) < count:
            version = f"{file.version} ({len(done)} of {count} change sets)"
            made.append(last._replace(version=version, state="failed"))
        else:
            made.append(last._replace(version=file.version))
    return tuple(made)


def _is_same(path: str, file: str) -> bool:
    """Tell whether Liquibase's path, from a place of its own, is that of a file."""
    plain = path.removeprefix("classpath:").replace("\\", "/").removeprefix("./")
    plain, file = f"/{plain.strip('/')}", f"/{file.strip('/')}"
    return plain.endswith(file) or file.endswith(plain)
