"""
Drizzle's journal, by which Drizzle knows its files and their order.

drizzle-orm/src/migrator.ts: readMigrationFiles. Opens the journal and no other file.
"""

from __future__ import annotations

import json

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from migration_gate.files.listing import JOURNAL, Entries, Entry, shown
from migration_gate.files.names import IGNORE, Number
from migration_gate.report.errors import FileFault


def require_files(
    entries: Entries, path: str, ups: Mapping[str, Entry]
) -> list[FileFault]:
    """
    Hold a folder's files to its journal.

    Args:
        entries: All files.
        path: The journal's.
        ups: Those that are migrations.
    """
    here = _files_beside(path, ups)
    named = _read(entries, path)
    if named is None:
        problem = "cannot be read as Drizzle's journal"
        return [FileFault(file=path, problem=problem, remedy="Restore it.")]
    faults = [
        FileFault(
            file=shown(each),
            problem="not in Drizzle's journal, so Drizzle leaves it out",
            remedy=f"Add it to {path}, or take it away. {IGNORE}",
        )
        for each in here
        if each not in named
    ]
    faults += [
        FileFault(
            file=shown(each),
            problem="in Drizzle's journal, and not in the folder",
            remedy=f"Restore the file, or take it out of {path}.",
        )
        for each in named
        if each not in here
    ]
    faults += [
        FileFault(
            file=shown(each),
            problem="named twice in Drizzle's journal",
            remedy=f"Keep one of its entries in {path}.",
        )
        for each, count in Counter(named).items()
        if count > 1
    ]
    return faults


def find_ranks(entries: Entries) -> Mapping[str, Number]:
    """
    Return what files are sorted by whose journal has another order than their names.

    In a journal the first file has the lowest number that any of them has, and so on:
    it keeps its place among the files that are not in a journal.
    """
    ups = {path: e for path, e in entries.files.items() if e.said.kind == "up"}
    ranks: dict[str, Number] = {}
    for path in entries.files:
        if not path.endswith(JOURNAL):
            continue
        here, named = _files_beside(path, ups), _read(entries, path)
        if named is None or here == named or sorted(here) != sorted(named):
            continue
        for place, (by_name, by_journal) in enumerate(zip(here, named, strict=True), 1):
            ranks[by_journal] = (*ups[by_name].said.number, place)
    return ranks


def _files_beside(path: str, ups: Mapping[str, Entry]) -> list[str]:
    """Return the migrations of a journal's folder, by number, then by name."""
    start = path.removesuffix(JOURNAL)
    here = [p for p in ups if p.startswith(start) and "/" not in p.removeprefix(start)]
    return sorted(here, key=lambda each: (ups[each].said.number, each.encode()))


def _read(entries: Entries, path: str) -> Sequence[str] | None:
    """Return the files that a journal names, in order; None where it is none."""
    start = path.removesuffix(JOURNAL)
    try:
        journal = json.loads(Path(entries.folder, path).read_text("utf-8"))
        return [f"{start}{entry['tag']}.sql" for entry in journal["entries"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
