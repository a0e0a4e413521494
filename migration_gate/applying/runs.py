"""
Apply migrations: each in one transaction with its history row, or outside one.

Undoes them likewise, each with the removal of its row.

Writes what the files write, and the history.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from typing import Final

from migration_gate.applying.outside import apply_outside
from migration_gate.applying.preamble import leave_out_unknown
from migration_gate.applying.settlement import Settlement
from migration_gate.connection.simple_query import Row
from migration_gate.connection.waits import interruptible
from migration_gate.execution.compose import compose_flush, compose_transaction, join
from migration_gate.execution.exchange import (
    Hooks,
    UnparsedError,
    exchange,
)
from migration_gate.execution.message import Message, Share, Task
from migration_gate.execution.retry import retry_while_locked
from migration_gate.execution.watch import Watch
from migration_gate.execution.worker import Worker
from migration_gate.files.library import Shelf
from migration_gate.files.migration import AppliedMigration
from migration_gate.files.script import Script
from migration_gate.planning.plan import Step
from migration_gate.report.errors import GateError, MigrationFilesError
from migration_gate.report.events import MIGRATION_STARTED, MIGRATION_UNDOING
from migration_gate.report.log import Log
from migration_gate.report.outcomes import (
    AlreadyAppliedError,
    ConnectionLostError,
    DefaultsChangedError,
    LocksNotFreeError,
    NotAppliedError,
    PathLeftError,
)
from migration_gate.session.session import Session
from migration_gate.statements import having, may_change_defaults, string_syntax_set


RUN_MAX_FILES: Final = 100
RUN_MAX_BYTES: Final = 1 << 18
NOTHING_LEFT: Final = (
    AlreadyAppliedError,
    DefaultsChangedError,
    PathLeftError,
    LocksNotFreeError,
    NotAppliedError,
    UnparsedError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """
    What is applied next: one pending migration, or several small ones at once.

    ``end`` is the index, among all that are pending, of what comes after it. There are
    no messages for what runs outside a transaction.
    """

    tasks: tuple[Task, ...]
    messages: Sequence[Message]
    end: int


NOTHING_YET: Final = Run(tasks=(), messages=(), end=0)


@dataclass(slots=True)
class Applier:
    """What it takes to apply migrations: connections, scripts, and who reports."""

    worker: Worker
    held: Session
    shelf: Shelf
    watch: Watch
    settlement: Settlement
    log: Log
    _started: set[tuple[str, int]] = field(default_factory=set)  # version, attempt
    _next: Run | None = None

    def apply_all(self, steps: Sequence[Step]) -> None:
        """
        Take each step, in order; it is reported once it is committed.

        Raises:
            MigrationFailedError: Nothing of a transactional migration is left, and all
                of the earlier ones.
            MigrationBlockedError: The same; its locks were never free.
            UnresolvedError: An unfinished statement cannot be judged.
            AlreadyAppliedError: The history had its row.
            NotAppliedError: The history has not the row of what was to be undone.
            ConnectionLostError: It may have been applied: look at the history.
            DefaultsChangedError: What is left belongs in a new session.
            PathLeftError: It belongs in one that begins with the target's path.
        """
        run = self._prepare(steps, NOTHING_YET)
        while run.tasks:
            if run.messages:
                look_ahead = partial(self._look_ahead, steps, run)
                self._apply_run(run.tasks, run.messages, look_ahead)
            else:
                self._apply_outside(run.tasks[0])
            ahead, self._next = self._next, None
            run = ahead or self._prepare(steps, run)

    def _look_ahead(self, steps: Sequence[Step], run: Run) -> None:
        """Prepare the next run while PostgreSQL works at this one."""
        # A file that changed meanwhile, or a lost connection, is reported in its turn.
        with suppress(MigrationFilesError, ConnectionLostError):
            self._next = self._prepare(steps, run)

    def _prepare(self, steps: Sequence[Step], before: Run) -> Run:
        """
        Take what goes in one message: one pending migration, or several small ones.

        Each still commits alone. Each is without the settings that the server lacks.
        """
        tasks: list[Task] = []
        start, size = before.end, 0
        for step in steps[start : start + RUN_MAX_FILES]:
            with interruptible():
                script = self.shelf.take(step.migration)
            is_alone = not _goes_along(script)
            size += len(script.content)
            if tasks and (is_alone or size > RUN_MAX_BYTES):
                break
            script = leave_out_unknown(self.held, script, self.log)
            follows = [*before.tasks, *tasks][-1:]
            tasks.append(
                Task(
                    script=script,
                    version=step.version,
                    undoes=step.undoes,
                    checks_defaults=(
                        any(map(_may_change_defaults, follows))
                        if follows
                        else self.worker.is_presumed
                    ),
                    replaced=step.replaced,
                )
            )
            if is_alone:
                break
        is_inside = all(task.script.in_transaction for task in tasks)
        messages = self._compose(tasks) if tasks and is_inside else []
        return Run(tasks=tuple(tasks), messages=messages, end=start + len(tasks))

    def _compose(self, tasks: Sequence[Task]) -> Sequence[Message]:
        """
        Compose a message: each commits alone, and the last waits for the flush of all.

        None is reported before. A run that ends in between flushes by the row of
        one that is committed, which takes the right to update.
        """
        worker, last = self.worker, len(tasks) - 1
        each = [
            compose_transaction(
                worker,
                task,
                index,
                flushes=index == last or not worker.table.can_update,
            )
            for index, task in enumerate(tasks)
        ]
        return [join([*chain(*each)])] if len(tasks) > 1 else each[0]

    def _apply_outside(self, task: Task) -> None:
        script = task.script
        self.settlement.sent([task])
        self._log_start(script, 1)
        applied = apply_outside(self.worker, task, self.held, self.watch, self.log)
        self.settlement.applied(task, applied)

    def _apply_run(
        self,
        tasks: Sequence[Task],
        messages: Sequence[Message],
        on_sent: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Apply migrations with one message, and what it leaves with further ones.

        PostgreSQL reads a whole message before it does any of it: where it cannot read
        one of the files, those before it go without it, and then it goes alone.
        """
        try:
            self._send(tasks, messages, 1, on_sent)
        except LocksNotFreeError as blocked:
            first, *rest = tasks[self.settlement.committed_count :]
            self._retry(first, blocked)
            if rest:
                self._apply_run(rest, self._compose(rest))
        except UnparsedError as error:
            for part in _around(tasks, error.index):
                self._apply_run(part, self._compose(part))

    def _retry(self, task: Task, blocked: LocksNotFreeError) -> None:
        messages = self._compose([task])

        def attempt(number: int) -> None:
            self._send([task], messages, number)

        migration = task.script.migration
        retry_while_locked(migration, self.watch, self.log, attempt, blocked=blocked)

    def _send(
        self,
        tasks: Sequence[Task],
        messages: Sequence[Message],
        attempt: int,
        on_sent: Callable[[], None] = lambda: None,
    ) -> None:
        waiting, settlement = list(tasks), self.settlement

        def start_up_to(index: int) -> None:
            while waiting and len(tasks) - len(waiting) <= index:
                self._log_start(waiting.pop(0).script, attempt)

        def on_commit(share: Share, row: Row) -> None:
            settlement.committed(share.task, _to_applied(share.task, row))

        settlement.sent(tasks)
        start_up_to(0)
        hooks = Hooks(on_sent=on_sent, on_migration=start_up_to, on_commit=on_commit)
        last = len(messages) - 1
        try:
            with self._flushed_at_failure(tasks):
                for message in islice(messages, last):
                    exchange(self.worker, message, self.watch)
                exchange(self.worker, messages[last], self.watch, hooks)
        except ConnectionLostError:
            raise  # what is committed is for the history to say
        except (GateError, *NOTHING_LEFT):
            settlement.tell(start_up_to)
            settlement.rolled_back()
            raise
        except BaseException:  # a signal: what is committed is flushed soon
            settlement.tell(start_up_to)
            raise
        settlement.tell(start_up_to)

    @contextmanager
    def _flushed_at_failure(self, tasks: Sequence[Task]) -> Iterator[None]:
        """
        Wait for the flush of what is committed when something after it fails.

        Where that cannot be, as when somebody has changed the history meanwhile, the
        server flushes by itself, in wal_writer_delay.
        """
        try:
            yield
        except (GateError, *NOTHING_LEFT):
            count, attempt = self.settlement.committed_count, self.watch.attempt
            if count and self.worker.table.can_update:
                # What is undone has no row any more; the one that failed has.
                is_back = tasks[0].is_back
                at = min(count, len(tasks) - 1) if is_back else count - 1
                message = compose_flush(self.worker, tasks[at])
                with suppress(GateError, *NOTHING_LEFT):
                    exchange(self.worker, message, self.watch)
                self.watch.attempt = attempt  # the one that failed, and who blocked it
            raise

    def _log_start(self, script: Script, attempt: int) -> None:
        """Report an attempt at a migration, once, however often it has to be sent."""
        version = script.migration.version
        if (version, attempt) in self._started:
            return
        self._started.add((version, attempt))
        migration = script.migration
        self.log.emit(
            MIGRATION_STARTED if migration.way == "up" else MIGRATION_UNDOING,
            version=version,
            file=migration.file,
            checksum=migration.checksum,
            in_transaction=script.in_transaction,
            statement_count=script.statement_count,
            attempt=attempt,
        )


def _around(tasks: Sequence[Task], index: int | None) -> Iterator[Sequence[Task]]:
    """Yield what is before the one at fault, it, and the rest; halves if unknown."""
    start, end = (index, index + 1) if index is not None else (len(tasks) // 2,) * 2
    yield from filter(None, (tasks[:start], tasks[start:end], tasks[end:]))


def _goes_along(script: Script) -> bool:
    """Tell whether a migration may share its message with others."""
    return (
        script.in_transaction
        and len(script.content) <= RUN_MAX_BYTES
        and not any(
            statement.copy_data or string_syntax_set(statement)
            for unit in script.units
            for statement in unit.statements
        )
    )


def _may_change_defaults(task: Task) -> bool:
    return any(
        any(True for _ in having(unit.statements, may_change_defaults))
        for unit in task.script.units
    )


def _to_applied(task: Task, row: Row) -> AppliedMigration:
    duration_ms, applied_at = row[:2]
    return AppliedMigration(
        version=task.version,
        checksum=task.script.migration.checksum,
        applied_at=applied_at or "",
        duration_ms=int(duration_ms or 0),
    )
