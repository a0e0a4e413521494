"""
Compose the messages that apply a migration: SQL around the file's own text.

Touches no database: a connection only tells how to quote and which version it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import psycopg

from psycopg import sql

from migration_gate.history_table import HistoryTable
from migration_gate.lock import SERVER_KEEPALIVES
from migration_gate.marks import to_mark
from migration_gate.parts import Message, Own, OwnName, Part, part_end, single
from migration_gate.records import REQUIRE_RECORDED, finish_row, insert_row
from migration_gate.script import Script
from migration_gate.settings import Settings
from migration_gate.statements import Statement, string_syntax_set
from migration_gate.task import Task


TRANSACTION_TIMEOUT_MIN_VERSION: Final = 170000
CLIENT_CHECK_INTERVAL: Final = "500ms"
NO_LIMIT: Final = "0ms"
MESSAGE_MAX_BYTES: Final = 1 << 20  # PostgreSQL parses a whole message before it runs
MARKS_MAX: Final = 50  # of a migration in a message
# Holes in SQL that is composed once for all migrations: none of it has a NUL byte.
VERSION: Final = "\0version\0"
CHECKSUM: Final = "\0checksum\0"
MARK: Final = "\0mark\0"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Worker:
    """
    The connection that runs files, and what is the same for each of them.

    ``watches_client`` tells whether the server can notice that this client is gone.
    ``unlimited`` are the timeouts that the session's defaults leave off; none is known
    through a pooler, where each transaction may have another session.
    ``kept_settings`` are those that hold in this session against its defaults, which
    RESET ALL brings back.
    """

    conn: psycopg.Connection[Any]
    settings: Settings
    table: HistoryTable
    login_role: str
    work_key: int
    watches_client: bool
    unlimited: frozenset[str]
    kept_settings: Mapping[str, str]
    is_pooled: bool


def compose_transaction(worker: Worker, task: Task, place: int = 0) -> list[Message]:
    """
    Return the messages that apply a script in one transaction: one, unless it is large.

    BEGIN; the limits; the history row; the role; the file; what clears up after it;
    the row's end; COMMIT.

    Args:
        place: The migration's among those of its message, from 0.
    """
    (unit,) = task.script.units
    version = literal(worker, task.version)
    checksum = literal(worker, task.script.migration.checksum)
    row, finish = _row_templates(worker)
    return to_messages(
        worker,
        task,
        before=(
            *begin(worker, task.script, unit.modes, mark=to_mark(place, unit.number)),
            Own("row", _fill(row, {VERSION: version, CHECKSUM: checksum})),
            *become_role(worker),
        ),
        statements=unit.statements,
        after=(
            *clean_up(worker, task.script),
            Own("finish", _fill(finish, {VERSION: version})),
            Own("finished", REQUIRE_RECORDED.encode()),
            Own("commit", b"COMMIT"),
        ),
        place=place,
    )


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
    place: int = 0,
) -> list[Message]:
    """
    Spread statements over as many messages as they need.

    One is not larger than it may be, and ends where strings begin to read otherwise.

    Args:
        before: With the mark for the first statement; see ``begin``.
    """
    first, *others = list(_cut(statements)) or [()]
    groups: list[list[Part]] = [
        [*before, *first[:1], *_mark(worker, first[1:], place)],
        *([*_mark(worker, group, place)] for group in others),
    ]
    for parts, cut in zip(groups, (first, *others), strict=True):
        parts.extend(restore(worker, cut))
    groups[-1] += after
    return [single(task, parts) for parts in groups]


def restore(worker: Worker, statements: Sequence[Statement]) -> list[Own]:
    """
    Bring back what a file's RESET has taken from the session, where it took it.

    A file is read by standard_conforming_strings = on, unless it says otherwise.
    """
    if not worker.kept_settings:
        return []
    syntaxes = list(filter(None, map(string_syntax_set, statements)))
    if syntaxes[-1:] != ["standard"]:
        return []
    return [own(worker, "setting", select(keep_calls(worker)))]


def _cut(statements: Sequence[Statement]) -> Iterator[tuple[Statement, ...]]:
    group: list[Statement] = []
    size = 0
    for statement in statements:
        length = part_end(statement) - statement.start
        if group and size + length > MESSAGE_MAX_BYTES:
            yield tuple(group)
            group, size = [], 0
        group.append(statement)
        size += length
        if string_syntax_set(statement) is not None:
            # A message is read whole, by what is set when it comes.
            yield tuple(group)
            group, size = [], 0
    if group:
        yield tuple(group)


def _mark(
    worker: Worker, statements: Sequence[Statement], place: int
) -> Iterator[Part]:
    """
    Put marks between statements, by which others see how far the message is.

    The server sends no answer before the message is done; a session's application_name
    is seen at once.
    """
    step = max(1, len(statements) // MARKS_MAX)
    for index, statement in enumerate(statements):
        if index % step == 0:
            mark = literal(worker, to_mark(place, statement.number))
            yield Own("mark", b"SET LOCAL application_name = " + mark)
        yield statement


def own(worker: Worker, name: OwnName, statement: sql.Composable) -> Own:
    """Return a statement of the gate's own as it is sent."""
    return Own(name, statement.as_bytes(worker.conn))


def begin(
    worker: Worker, script: Script, modes: bytes = b"", *, mark: str | None = None
) -> list[Own]:
    """Begin a transaction with its limits, and say by a mark how far the message is."""
    limits = _limits_text(worker, *_timeouts_s(worker, script))
    if mark is not None:
        limits += b", " + _fill(_naming(worker), {MARK: literal(worker, mark)})
    return [
        Own("begin", b"BEGIN " + modes if modes else b"BEGIN"),
        Own("limits", limits),
    ]


def literal(worker: Worker, text: str) -> bytes:
    """Return a text as SQL has it."""
    return sql.Literal(text).as_bytes(worker.conn)


def _fill(template: bytes, values: Mapping[str, bytes]) -> bytes:
    for name, value in values.items():
        template = template.replace(name.encode(), value)
    return template


@cache
def _row_templates(worker: Worker) -> tuple[bytes, bytes]:
    """Return the statements that make and finish a row, with holes."""
    version, checksum = sql.SQL(VERSION), sql.SQL(CHECKSUM)
    return (
        insert_row(worker.table, version, checksum).as_bytes(worker.conn),
        finish_row(worker.table, version).as_bytes(worker.conn),
    )


@cache
def _naming(worker: Worker) -> bytes:
    call = set_config("application_name", sql.SQL(MARK), is_local=True)
    return call.as_bytes(worker.conn)


# The same for each file, unless its directives say otherwise: composed once.
@cache
def _limits_text(worker: Worker, lock_s: float, statement_s: float) -> bytes:
    calls = limit_calls(worker, lock_s, statement_s, is_local=True)
    calls.append(work_key_call(worker, is_local=True))
    return select(calls).as_bytes(worker.conn)


def become_role(worker: Worker) -> list[Own]:
    """Become GATE_ROLE, where there is one."""
    role = worker.settings.role
    if role is None:
        return []
    statement = sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role))
    return [own(worker, "role", statement)]


# What a file leaves is cleared inside its transaction. Deferred constraints are checked
# first, while the role is still the file's. DISCARD ALL cannot run in a transaction;
# RESET ALL undoes neither role nor session authorization.
CLEAN_UP: Final = (
    "SET CONSTRAINTS ALL IMMEDIATE",
    "CLOSE ALL",
    "UNLISTEN *",
    "DEALLOCATE ALL",
    "SET SESSION AUTHORIZATION DEFAULT",
    "RESET ROLE",
    "RESET ALL",
)
DISCARD: Final = ("DISCARD TEMP", "DISCARD SEQUENCES")


def clean_up(worker: Worker, script: Script) -> tuple[Own, ...]:
    """Clear whatever the file's statements may have left in the session."""
    return _clean_up(worker, *_timeouts_s(worker, script))


@cache
def _clean_up(worker: Worker, lock_s: float, statement_s: float) -> tuple[Own, ...]:
    calls = [
        sql.SQL("pg_catalog.pg_advisory_unlock_all()"),
        # RESET ALL has brought the defaults back, and what follows is the gate's own.
        *(
            set_config(name, value, is_local=True)
            for name, value in _timeouts(worker, lock_s, statement_s).items()
            if name not in worker.unlimited
        ),
        *keep_calls(worker),
    ]
    return (
        *(Own("clean up", text.encode()) for text in CLEAN_UP),
        own(worker, "clean up", select(calls)),
        *(Own("clean up", text.encode()) for text in DISCARD),
    )


def limit_calls(
    worker: Worker, lock_s: float, statement_s: float, *, is_local: bool
) -> list[sql.Composable]:
    """
    Return the calls that set the timeouts, whatever role and database say.

    Args:
        lock_s: PostgreSQL's lock_timeout; 0 is none.
        statement_s: PostgreSQL's statement_timeout; 0 is none.
        is_local: For the transaction alone, else for the session.
    """
    values = {
        name: value
        for name, value in _timeouts(worker, lock_s, statement_s).items()
        if value != NO_LIMIT or name not in worker.unlimited
    }
    if worker.watches_client:
        values["client_connection_check_interval"] = CLIENT_CHECK_INTERVAL
    if not worker.is_pooled:
        values |= SERVER_KEEPALIVES
    return [set_config(n, v, is_local=is_local) for n, v in values.items()]


def _timeouts(worker: Worker, lock_s: float, statement_s: float) -> dict[str, str]:
    values = {
        "lock_timeout": _milliseconds(lock_s),
        "statement_timeout": _milliseconds(statement_s),
        "idle_in_transaction_session_timeout": NO_LIMIT,
    }
    if worker.conn.info.server_version >= TRANSACTION_TIMEOUT_MIN_VERSION:
        values["transaction_timeout"] = NO_LIMIT
    return values


def keep_calls(worker: Worker) -> list[sql.Composable]:
    """Return the calls that bring back what holds in the session, not its defaults."""
    kept = worker.kept_settings.items()
    return [set_config(name, value, is_local=False) for name, value in kept]


def work_key_call(worker: Worker, *, is_local: bool) -> sql.Composable:
    """
    Return the call that takes the work key.

    The key is shared and never waited for: whoever holds it still works, which is how
    the next gate sees a backend that an earlier one has left.
    """
    function = "pg_advisory_xact_lock_shared" if is_local else "pg_advisory_lock_shared"
    return sql.SQL("pg_catalog.{}({})").format(sql.SQL(function), worker.work_key)


def set_config(
    name: str, value: str | sql.Composable, *, is_local: bool
) -> sql.Composable:
    """Return the call that sets a parameter, as a function."""
    return sql.SQL("pg_catalog.set_config({}, {}, {})").format(name, value, is_local)


def select(calls: Iterable[sql.Composable]) -> sql.Composed:
    """Return one statement of several calls."""
    return sql.SQL("SELECT ") + sql.SQL(", ").join(calls)


def session_limits(
    worker: Worker, script: Script, *, lock_timeout: bool
) -> sql.Composed:
    """
    Return the statement that sets the limits of a session that runs a statement alone.

    Args:
        lock_timeout: False lets a statement wait whose waiting blocks no query.
    """
    lock_s, statement_s = _timeouts_s(worker, script)
    calls = limit_calls(
        worker, lock_s if lock_timeout else 0.0, statement_s, is_local=False
    )
    calls.append(work_key_call(worker, is_local=False))
    return select(calls)


def _timeouts_s(worker: Worker, script: Script) -> tuple[float, float]:
    """Return lock_timeout and statement_timeout: the file's own, or the settings'."""
    settings, directives = worker.settings, script.directives
    lock_s, statement_s = directives.lock_timeout_s, directives.statement_timeout_s
    return (
        settings.ddl_lock_timeout_s if lock_s is None else lock_s,
        settings.statement_timeout_s if statement_s is None else statement_s,
    )


def _milliseconds(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"
