"""
Which migration a word of the command line means. Pure.

It is a name, with or without ending, or a number that only one has.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from migration_gate.files.migration import Migration, version_to_key
from migration_gate.files.names import classify, read_number
from migration_gate.report.errors import FileFault, MigrationFilesError


NO_FILE: Final = "no file in the folder has this name"


class NotNamedError(MigrationFilesError):
    """A word means no migration, or several: it has to be another."""


def find_keys(
    words: Iterable[str],
    versions: Collection[str],
    *,
    missing: str,
    renamed: Mapping[str, str] = MappingProxyType({}),
) -> tuple[str, ...]:
    """
    Return the keys of the migrations that are meant, each once, in the words' order.

    Args:
        versions: Those that may be meant; spellings of one migration count as one.
        missing: What is wrong with a word that means none, as in "no file has it".
        renamed: The versions whose files have another name by now, and that name: both
            mean the file.

    Raises:
        NotNamedError: Lists each word that means none of them, or several.
    """
    keys: list[str] = []
    faults = []
    names_now = {version_to_key(version): name for version, name in renamed.items()}
    versions = [renamed.get(version, version) for version in versions]
    for word in words:
        meant = _find_meant(names_now.get(version_to_key(word), word), versions)
        if len(meant) == 1:
            keys += meant
        elif meant:
            names = [v for v in versions if version_to_key(v) in meant]
            problem = f"several migrations have this number: {', '.join(names)}"
            faults.append(FileFault(word, problem, "Write out the name."))
        else:
            remedy = "The command status lists the names."
            faults.append(FileFault(word, missing, remedy))
    if faults:
        raise NotNamedError(faults)
    return tuple(dict.fromkeys(keys))


def find_through(word: str, migrations: Sequence[Migration]) -> tuple[Migration, ...]:
    """
    Return the migration that is meant, and all that come before it, in their order.

    Raises:
        NotNamedError: The word means none of them, or several.
    """
    ordered = sorted(migrations, key=lambda migration: migration.order)
    names = [migration.version for migration in ordered]
    (last,) = find_keys([word], names, missing=NO_FILE)
    place = next(place for place, m in enumerate(ordered) if m.key == last)
    return tuple(ordered[: place + 1])


def _find_meant(word: str, versions: Iterable[str]) -> tuple[str, ...]:
    key, number = version_to_key(word), read_number(word)
    keys = tuple(dict.fromkeys(map(version_to_key, versions)))
    if key in keys:
        return (key,)
    return tuple(k for k in keys if number and classify(f"{k}.sql").number == number)
