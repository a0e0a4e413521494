"""
What was sent is in doubt until it is known to be committed: tallied, and told.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from migration_gate.logs import MIGRATION_APPLIED, Log
from migration_gate.migration import AppliedMigration, version_to_key
from migration_gate.task import Task
from migration_gate.verdict import Tally


@dataclass(slots=True)
class Settlement:
    """Settles, one by one and in order, the migrations that are sent together."""

    tally: Tally
    log: Log
    settled_count: int = 0  # of those sent last

    def sent(self, tasks: Sequence[Task]) -> None:
        """Note what is about to be sent."""
        self.settled_count = 0
        self.tally.in_doubt = {
            task.script.migration.version: task.script.statement_count for task in tasks
        }

    def applied(self, task: Task, row: AppliedMigration) -> None:
        """Note that a migration is committed."""
        self.settled_count += 1
        settle(task.script.migration.version, row, self.tally, self.log)

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


def settle_doubts(history: Iterable[AppliedMigration], tally: Tally, log: Log) -> None:
    """
    Settle what was in doubt when a connection was lost, by what the history says.

    A row means that the COMMIT happened whose answer was lost; none, that it did not.
    """
    if not tally.in_doubt:
        return
    rows = {version_to_key(row.version): row for row in history}
    for version in tuple(tally.in_doubt):
        row = rows.get(version_to_key(version))
        if row is not None:
            settle(version, row, tally, log)
    tally.in_doubt.clear()
