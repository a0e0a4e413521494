"""
The scripts of what is pending: all are judged before the first is applied.

Each is read again at its turn; only those stay in memory that take long to split, and
those that come first. The targets of a fleet share small ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from migration_gate.files.folder import read_scripts
from migration_gate.files.migration import Migration
from migration_gate.files.script import Script
from migration_gate.report.errors import FileFault, MigrationFilesError
from migration_gate.settings.settings import DEFAULT_HISTORY_TABLE, HistoryTableName


KEEP_MIN_BYTES: Final = 1 << 18
KEEP_BYTES: Final = 16 << 20
LARGE_COSTS_BYTES: Final = 1 << 20  # and an open file
# PostgreSQL would do nothing while the first of them were read again.
KEEP_FIRST: Final = 1000
KEEP_FIRST_BYTES: Final = 1 << 20
SHARED_BYTES: Final = 1 << 20
SHARED_MAX: Final = 1000


class _Shared:
    """The scripts that all targets have alike; None outside of a fleet."""

    scripts: dict[Migration, Script] | None = None
    size: int = 0


_shared: Final = _Shared()


@contextmanager
def sharing_scripts() -> Iterator[None]:
    """Let all shelves in a block, of any thread, share the scripts of small files."""
    _shared.scripts, _shared.size = {}, 0
    try:
        yield
    finally:
        _shared.scripts = None


@dataclass(slots=True)
class Shelf:
    """Where the scripts of pending migrations come from. Reads the disk."""

    folder: str
    history: HistoryTableName
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    _kept: dict[str, Script] = field(default_factory=dict)
    _kept_bytes: int = 0

    def require_fit(self, migrations: Iterable[Migration]) -> None:
        """
        Read and split files.

        Raises:
            MigrationFilesError: Lists every fault of every file.
        """
        faults: list[FileFault] = []
        first_bytes = 0
        for migration in migrations:
            try:
                script = self.take(migration)
            except MigrationFilesError as error:
                faults += error.faults
                continue
            content = script.content
            size = len(content) if isinstance(content, bytes) else LARGE_COSTS_BYTES
            first_bytes += size
            is_first = len(self._kept) < KEEP_FIRST and first_bytes <= KEEP_FIRST_BYTES
            is_long = size >= KEEP_MIN_BYTES and self._kept_bytes + size <= KEEP_BYTES
            if is_first or is_long:
                self._kept[migration.version] = script
                self._kept_bytes += size
        if faults:
            raise MigrationFilesError(faults)

    def take(self, migration: Migration) -> Script:
        """
        Return a migration's script.

        One that targets share is as it was when the first of them read it.

        Raises:
            MigrationFilesError: The file changed meanwhile, or cannot be used.
        """
        kept = self._kept.get(migration.version)
        if kept is not None:
            return kept
        shared = None if self.variables else _shared.scripts
        if shared is not None and migration in shared:
            return shared[migration]
        (script,) = read_scripts(self.folder, [migration], self.history, self.variables)
        if shared is not None and self._is_alike(script):
            shared[migration] = script
            _shared.size += len(script.content)
        return script

    def _is_alike(self, script: Script) -> bool:
        """Tell a small file that says nothing of the history, whichever that is."""
        assert _shared.scripts is not None  # noqa: S101  # asked by who has them
        text = script.content
        if not isinstance(text, bytes) or len(_shared.scripts) >= SHARED_MAX:
            return False
        # U&"…" can write a name in many ways, and quotes inside one are doubled.
        said = text.lower()
        tables = {self.history.table, DEFAULT_HISTORY_TABLE.table}
        is_named = any(table.encode().lower() in said for table in tables)
        is_hidden = b"u&" in said or any('"' in table for table in tables)
        is_small = _shared.size + len(text) <= SHARED_BYTES
        return is_small and not is_named and not is_hidden
