"""
A file that runs outside a transaction, on its way through its units.

What both kinds of unit need: the settings made so far, statements of the gate's own,
and the progress, which is written by the lock's connection.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Final

from psycopg import sql

from migration_gate.execution.exchange import (
    NO_HOOKS,
    Hooks,
    exchange,
    keep_settings,
    roll_back,
)
from migration_gate.execution.frame import restore
from migration_gate.execution.message import Message, Own, Task
from migration_gate.execution.retry import retry_while_locked
from migration_gate.execution.watch import Watch
from migration_gate.execution.worker import Worker
from migration_gate.files.units import Unit
from migration_gate.history.guarding import guarded
from migration_gate.history.progress import SUFFIX
from migration_gate.history.table import HistoryTable
from migration_gate.history.writing import explain_progress
from migration_gate.report.errors import ServerRefusedError
from migration_gate.report.log import Log
from migration_gate.session.session import Session
from migration_gate.statements import Statement, setting_changed


BOTH: Final = ("", SUFFIX)  # history and progress
GOES_ON: Final = (
    "What ran of this file before this statement stays; the next start goes on with "
    "the statement itself."
)
GOES_ON_BACK: Final = (
    "What was undone before this statement stays undone; the command rollback goes on "
    "with the statement itself, and no gate opens before that."
)


@contextmanager
def writing_progress(held: Session, table: HistoryTable) -> Iterator[None]:
    """
    Translate what PostgreSQL says to the writing of progress.

    Raises:
        HistoryRefusedError: The table is not what it was.
        ServerRefusedError: It refused for another reason.
    """
    try:
        with held.translated("write the progress of files"):
            yield
    except ServerRefusedError as refusal:
        raise explain_progress(held.conn, table, refusal) from refusal


@dataclass(slots=True)
class FileRun:
    """
    One file's way through its units.

    ``settings_made`` are those that hold by now; ``row_is_gone`` tells that the
    history's row went with a unit that was undone.
    """

    worker: Worker
    task: Task
    held: Session
    watch: Watch
    log: Log
    settings_made: tuple[Statement, ...] = ()
    row_is_gone: bool = False

    @property
    def goes_on(self) -> str:
        """Return what stays when the run ends, and what goes on with it."""
        return GOES_ON_BACK if self.task.is_back else GOES_ON

    def takes_row(self, unit: Unit) -> bool:
        """Tell whether the history's row goes with this unit: the first to undo."""
        is_setting = all(setting_changed(statement) for statement in unit.statements)
        return bool(self.task.undoes) and not self.row_is_gone and not is_setting

    def replay(self) -> Iterator[Own]:
        """Make the settings that the file has made so far, with its own statements."""
        content = self.task.script.content
        for statement in self.settings_made:
            text = content[statement.first : statement.end].rstrip().removesuffix(b";")
            yield Own("setting", text)
        yield from restore(self.worker, self.settings_made)

    def exchange(self, message: Message, hooks: Hooks = NO_HOOKS) -> None:
        """Send statements of the gate's own, again while their locks are not free."""

        def attempt(_number: int) -> None:
            exchange(self.worker, message, self.watch, hooks)

        retry_while_locked(self.task.script.migration, self.watch, self.log, attempt)

    def writing_progress(self) -> AbstractContextManager[None]:
        """Translate what PostgreSQL says to the writing of progress."""
        return writing_progress(self.held, self.worker.table)

    def write(
        self, statement: sql.Composed, *, writes: tuple[str, ...] = (SUFFIX,)
    ) -> None:
        """
        Write progress, and perhaps the history, by the lock's connection.

        Args:
            writes: The suffixes of the gate's tables that are written; see
                ``guarding``.
        """
        self.held.conn.execute(guarded(self.worker.table, writes, statement))

    def clear_session(self) -> None:
        """Clear everything that the file has left in the session."""
        roll_back(self.worker.conn)
        with self.worker.translated("clear the session after a statement"):
            self.worker.conn.execute("DISCARD ALL")
        keep_settings(self.worker)
