"""
Compose the messages that apply a migration: SQL around the file's own text.

Touches no database: a connection only tells how to quote and which version it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Final, overload

from psycopg import sql

from migration_gate.execution.frame import (
    WORKERS,
    become_role,
    begin,
    clean_up,
    require_defaults,
    restore,
    set_variables,
)
from migration_gate.execution.invalid import require_valid
from migration_gate.execution.message import Message, Own, Part, Task, part_end, single
from migration_gate.execution.observer import with_questions
from migration_gate.execution.worker import Worker, literal, own
from migration_gate.history.rows import (
    FINISH_UNDOING,
    REQUIRE_RECORDED,
    finish_row,
    insert_row,
    lock_row,
    note_written,
    remove_rows,
    replace_row,
    require_unwritten,
    rows_written,
)
from migration_gate.session.marks import to_mark
from migration_gate.statements import Statement, created_index, string_syntax_set


MESSAGE_MAX_BYTES: Final = 1 << 20  # PostgreSQL parses a whole message before it runs
MARKS_MAX: Final = 50  # of a migration in a message
# Holes in SQL that is composed once for all migrations: none of it has a NUL byte.
VERSION: Final = "\0version\0"
CHECKSUM: Final = "\0checksum\0"
LEAVE_ROLE: Final = b"RESET ROLE"


def compose_transaction(
    worker: Worker, task: Task, share_index: int = 0, *, flushes: bool = True
) -> Sequence[Message]:
    """
    Return the messages that apply a script in one transaction: one, unless it is large.

    BEGIN; the limits; where that is asked for, whether the session has the defaults of
    a new one; the history row, or its removal; the role; the file; what clears up after
    it; the row's end; COMMIT.

    Args:
        share_index: The migration's among those of its message, from 0.
        flushes: False where another one of the message commits after it, and waits
            for the flush of both.
    """
    (unit,) = task.script.units
    record, finish = _undo(worker, task) if task.is_back else _record(worker, task)
    cleaned = clean_up(worker, task.script, flushes=flushes)
    if task.is_back:
        cleaned = _keep_history(worker, cleaned)
    return to_messages(
        worker,
        task,
        before=(
            *begin(
                worker,
                task.script,
                unit.modes,
                mark=to_mark(share_index, unit.number),
                writes=("",),
                deletes=task.is_back,
            ),
            *([require_defaults(worker)] if task.checks_defaults else ()),
            *record,
            *set_variables(worker, task.script),
            *become_role(worker),
        ),
        statements=unit.statements,
        after=(
            *cleaned,
            *finish,
            Own("commit", b"COMMIT"),
        ),
        share_index=share_index,
    )


def _record(worker: Worker, task: Task) -> tuple[tuple[Own, ...], tuple[Own, ...]]:
    """Return what makes a migration's row, and what finishes it."""
    _, finish = _row_templates(worker)
    return (_write_row(worker, task),), (
        Own("finish", _fill(finish, {VERSION: literal(worker, task.version)})),
        Own("finished", REQUIRE_RECORDED.encode()),
    )


def _undo(worker: Worker, task: Task) -> tuple[tuple[Own, ...], tuple[Own, ...]]:
    """Return what takes a migration's row out, and what ends that."""
    table = worker.table
    return (
        own(worker, "gone", remove_rows(table, task.undoes)),
        own(worker, "noted", note_written(table)),
    ), (own(worker, "finish", FINISH_UNDOING),)


def _keep_history(worker: Worker, cleaned: Sequence[Own]) -> tuple[Own, ...]:
    """Refuse, as the login role, a way back that writes rows of the history."""
    kept = own(worker, "kept", require_unwritten(worker.table))
    at = next(i for i, part in enumerate(cleaned) if part.text == LEAVE_ROLE) + 1
    return (*cleaned[:at], kept, *cleaned[at:])


def compose_flush(worker: Worker, task: Task) -> Message:
    """
    Return the message of a commit that waits for its flush, and for all before it.

    A lock on a row, that of a committed migration, is something to flush.
    """
    parts = (
        *begin(worker, task.script, writes=("",)),
        Own("setting", b"SET LOCAL synchronous_commit TO DEFAULT"),
        own(worker, "row", lock_row(worker.table, task.version)),
        Own("commit", b"COMMIT"),
    )
    return single(task, parts)


def _write_row(worker: Worker, task: Task) -> Own:
    """Make the migration's row, or give the one that it has its new text."""
    checksum = task.script.migration.checksum
    if task.replaced is not None:
        written = rows_written(worker.table)
        replace = replace_row(worker.table, task.replaced, checksum, written)
        return own(worker, "row", replace)
    row, _ = _row_templates(worker)
    values = {
        VERSION: literal(worker, task.version),
        CHECKSUM: literal(worker, checksum),
    }
    return Own("row", _fill(row, values))


@lru_cache(WORKERS)
def _row_templates(worker: Worker) -> tuple[bytes, bytes]:
    """Return the statements that make and finish a row, with holes."""
    table, version, checksum = worker.table, sql.SQL(VERSION), sql.SQL(CHECKSUM)
    written = rows_written(table) if table.can_update else None
    return (
        insert_row(table, version, checksum, written).as_bytes(worker.conn),
        finish_row(table, version).as_bytes(worker.conn),
    )


def _fill(template: bytes, values: Mapping[str, bytes]) -> bytes:
    for name, value in values.items():
        template = template.replace(name.encode(), value)
    return template


def join(messages: Sequence[Message]) -> Message:
    """Make one message of several."""
    shares = [share for message in messages for share in message.shares]
    return Message(shares=tuple(shares))


def to_messages(  # noqa: PLR0913  # the parts of a message, by name
    worker: Worker,
    task: Task,
    *,
    before: Sequence[Own],
    statements: Sequence[Statement],
    after: Sequence[Own],
    share_index: int = 0,
) -> Sequence[Message]:
    """
    Spread statements over as many messages as they need.

    One is not larger than it may be, and ends where strings begin to read otherwise.
    Each is composed when it is asked for.

    Args:
        before: With the mark for the first statement; see ``begin``.
    """
    ends = list(_find_cuts(statements)) or [0]

    def compose(index: int) -> Message:
        group = statements[ends[index - 1] if index else 0 : ends[index]]
        parts: list[Part] = []
        if index == 0:  # the mark of its first statement stands before
            parts += [*before, *group[:1], *_mark(worker, group[1:], share_index)]
        else:
            parts += _mark(worker, group, share_index)
        parts += restore(worker, group)
        if index == len(ends) - 1:
            parts += after
        parts = [*_require_valid(worker, parts)]
        observer = worker.observer
        return single(
            task, parts if observer is None else [*with_questions(observer, parts)]
        )

    return _Messages(len(ends), compose)


class _Messages(Sequence[Message]):
    """Messages, each composed when it is asked for."""

    def __init__(self, count: int, compose: Callable[[int], Message]) -> None:
        self._numbers = range(count)
        self._compose = compose

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, where: int) -> Message: ...

    @overload
    def __getitem__(self, where: slice) -> tuple[Message, ...]: ...

    def __getitem__(self, where: int | slice) -> Message | tuple[Message, ...]:
        """Return one message, or some of them."""
        if isinstance(where, slice):
            return tuple(map(self._compose, self._numbers[where]))
        return self._compose(self._numbers[where])


def _require_valid(worker: Worker, parts: Sequence[Part]) -> Iterator[Part]:
    """Ask after IF NOT EXISTS, which passes over an index that is invalid."""
    for part in parts:
        yield part
        if isinstance(part, Statement) and part.tokens[:1] == (b"create",):
            created = created_index(part)
            if created is not None and created.if_not_exists:
                yield own(worker, "valid", require_valid(created))


def _find_cuts(statements: Sequence[Statement]) -> Iterator[int]:
    """Yield the index after the last statement of each message."""
    start = size = 0
    for index, statement in enumerate(statements):
        length = part_end(statement) - statement.start
        if index > start and size + length > MESSAGE_MAX_BYTES:
            yield index
            start, size = index, 0
        size += length
        if string_syntax_set(statement) is not None:
            # A message is read whole, by what is set when it comes.
            yield index + 1
            start, size = index + 1, 0
    if start < len(statements):
        yield len(statements)


def _mark(
    worker: Worker, statements: Sequence[Statement], share_index: int
) -> Iterator[Part]:
    """
    Put marks between statements, by which others see how far the message is.

    The server sends no answer before the message is done; a session's application_name
    is seen at once.
    """
    step = max(1, len(statements) // MARKS_MAX)
    for index, statement in enumerate(statements):
        if index % step == 0:
            mark = literal(worker, to_mark(share_index, statement.number))
            yield Own("mark", b"SET LOCAL application_name = " + mark)
        yield statement
