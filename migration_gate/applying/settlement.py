"""
Track which of the migrations just sent are known to be committed; report each once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from migration_gate.execution.message import Task
from migration_gate.files.migration import (
    AppliedMigration,
    Migration,
    version_to_key,
)
from migration_gate.report.events import MIGRATION_APPLIED, MIGRATION_UNDONE
from migration_gate.report.log import Log
from migration_gate.report.verdict import Tally


@dataclass(slots=True)
class Settlement:
    """
    Tracks the migrations that were sent together, in their order.

    Each is in doubt until its COMMIT is answered, and is reported when it is flushed.
    """

    tally: Tally
    log: Log
    committed_count: int = 0  # of those sent last
    _untold: list[tuple[Task, AppliedMigration]] = field(default_factory=list)

    def sent(self, tasks: Sequence[Task]) -> None:
        """Note what is about to be sent."""
        self.committed_count = 0
        self._untold.clear()
        self.tally.in_doubt = {
            task.script.migration.version: task.script.statement_count for task in tasks
        }

    def committed(self, task: Task, row: AppliedMigration) -> None:
        """Note that a migration is committed, and perhaps not yet flushed."""
        self.committed_count += 1
        self._untold.append((task, row))

    def tell(self, start_up_to: Callable[[int], None]) -> None:
        """
        Report what is committed, in order.

        Args:
            start_up_to: Called with the index of each before it is reported, and with
                that of the one that began after the last.
        """
        while self._untold:
            start_up_to(self.committed_count - len(self._untold))
            task, row = self._untold.pop(0)
            self.applied(task, row)
        start_up_to(self.committed_count)

    def applied(self, task: Task, row: AppliedMigration) -> None:
        """Report a migration that is committed and flushed, or is undone so."""
        migration = task.script.migration
        if task.is_back:
            settle_undone(migration, row.duration_ms, self.tally, self.log)
        else:
            settle(migration.version, row, self.tally, self.log)

    def rolled_back(self) -> None:
        """Note that what was sent and is not settled has left nothing."""
        self.tally.in_doubt.clear()


def settle(version: str, row: AppliedMigration, tally: Tally, log: Log) -> None:
    """Report a migration that is committed, under its file's name."""
    statement_count = tally.in_doubt.pop(version, None)
    tally.applied.append(version)
    log.emit(
        MIGRATION_APPLIED,
        version=version,
        applied_at=row.applied_at,
        duration_ms=row.duration_ms,
        statement_count=statement_count,
    )


def settle_undone(
    migration: Migration, duration_ms: int | None, tally: Tally, log: Log
) -> None:
    """Report a migration that is undone, by the file that did it."""
    version = migration.version
    statement_count = tally.in_doubt.pop(version, None)
    if tally.undone is not None:
        tally.undone.append(version)
    log.emit(
        MIGRATION_UNDONE,
        version=version,
        file=migration.file,
        duration_ms=duration_ms,
        statement_count=statement_count,
    )


def settle_doubts(
    applied: Iterable[Migration],
    history: Iterable[AppliedMigration],
    tally: Tally,
    log: Log,
) -> None:
    """
    Settle what was in doubt when a connection was lost, by what the history says.

    A row with the file's text means that the COMMIT happened whose answer was lost;
    none, that it did not.

    Args:
        applied: The files that the history has.
        history: Its rows.
    """
    if not tally.in_doubt:
        return
    rows = {version_to_key(row.version): row for row in history}
    for migration in applied:
        row = rows.get(migration.key)
        if row is not None and migration.version in tally.in_doubt:
            settle(migration.version, row, tally, log)
    tally.in_doubt.clear()
