"""
Look at a statement that runs alone from another session.

Such a statement ends its transactions itself, and with them its locks, so that nothing
is left to ask for. It is watched while it runs: the watcher holds it up for a moment,
by a lock of its own on each table, so that it is seen what it waits for.
"""

from __future__ import annotations

import time

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg

from psycopg import sql

from migration_gate.connection.qualified import qualified
from migration_gate.connection.refusals import translated
from migration_gate.execution.message import Task
from migration_gate.execution.observer import Looks
from migration_gate.rehearsal.comparing import only_told
from migration_gate.rehearsal.facts import Done, Reply, Touched
from migration_gate.rehearsal.questions import (
    question_about,
    read_catalogue,
    read_reply,
)
from migration_gate.rehearsal.recorder import Recorder
from migration_gate.rehearsal.wording import read_statement
from migration_gate.statements import Statement


LOOK_S: Final = 0.002
# So long a statement is held up at most that waits for nothing.
HOLD_S: Final = 0.03
HELD_MAX: Final = 500  # tables: a lock each, of a server that has room for 64 a session
HELD_TABLES: Final = qualified(
    """
SELECT n.nspname, c.relname FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid >= 16384::pg_catalog.oid AND c.relpersistence <> 't'
  AND c.relkind = ANY (ARRAY['r', 'p']::pg_catalog."char"[])
  AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')
  AND pg_catalog.has_table_privilege(c.oid, 'SELECT')
  AND pg_catalog.has_table_privilege(c.oid, 'UPDATE, DELETE, TRUNCATE')
LIMIT {limit}
"""
)
WAITS: Final = qualified(
    "SELECT wait_event_type = 'Lock' FROM pg_catalog.pg_stat_get_activity({pid})"
)
# First what excludes all that changes a table, then what excludes only the strongest.
HOLDS: Final = ("ACCESS SHARE", "SHARE UPDATE EXCLUSIVE")


@dataclass(slots=True)
class Watcher:
    """The session that watches; opened when the first statement runs alone."""

    recorder: Recorder
    open_session: Callable[[], psycopg.Connection[Any]]
    _conn: psycopg.Connection[Any] | None = None

    def close(self) -> None:
        """Close its connection, where it has one."""
        if self._conn is not None:
            self._conn.close()

    @contextmanager
    def watching(self, task: Task, statement: Statement, pid: int) -> Iterator[Looks]:
        """Watch one statement, for as long as it is entered; see ``Observer``."""
        with translated("watch a statement"):
            yield from self._watch(task, statement, pid)

    def _watch(self, task: Task, statement: Statement, pid: int) -> Iterator[Looks]:
        if self._conn is None:
            self._conn = self.open_session()
        with suppress(psycopg.Error):
            self.recorder.learn(read_catalogue(self._conn))
        watch = _Watch(self._conn, self.recorder, pid)
        watch.hold()
        wal_before = watch.wal_bytes()
        started_s, began_s = time.time(), watch.begin()
        try:
            yield watch.look
        finally:
            watch.let_go(0)
            took_ms = (time.monotonic() - began_s - watch.held_s) * 1000
        line, column = task.script.place(statement.first)
        says = tuple(read_statement(task.script.content, statement))
        self.recorder.add(
            task,
            Done(
                number=statement.number,
                count=1,
                line=line,
                column=column,
                command=_command(statement),
                started_s=started_s,
                duration_ms=round(took_ms, 3),
                rows=None,
                wal_bytes=watch.wal_bytes() - wal_before,
                touched=only_told(watch.find_touched(), says),
                says=says,
                is_alone=True,
            ),
        )


@dataclass(slots=True)
class _Watch:
    """One statement under watch."""

    conn: psycopg.Connection[Any]
    recorder: Recorder
    pid: int
    held_s: float = 0.0
    _modes: dict[int, int] = field(default_factory=dict)
    _held: int = 0
    _since_s: float = 0.0
    _looked_s: float = 0.0

    def hold(self) -> None:
        """Lock every table, so that the statement is seen when it wants to."""
        conn = self.conn
        tables = conn.execute(HELD_TABLES.format(limit=HELD_MAX + 1)).fetchall()
        if not 0 < len(tables) <= HELD_MAX:
            return
        names = [sql.SQL("ONLY {}").format(sql.Identifier(*table)) for table in tables]
        lock = sql.SQL("LOCK TABLE {} IN {} MODE NOWAIT")
        conn.execute("BEGIN")
        try:
            for mode in HOLDS:
                conn.execute(sql.SQL("SAVEPOINT {}").format(_savepoint(self._held)))
                conn.execute(lock.format(sql.SQL(", ").join(names), sql.SQL(mode)))
                self._held += 1
        except psycopg.Error:  # autovacuum has one of them
            conn.execute("ROLLBACK")
            self._held = 0

    def begin(self) -> float:
        """Note that the statement is sent now: what it is held up counts from here."""
        self._since_s = self._looked_s = time.monotonic()
        return self._since_s

    def let_go(self, to: int) -> None:
        """Let go of the locks, down to so many."""
        if self._held <= to:
            return
        with suppress(psycopg.Error):
            if to:
                back = sql.SQL("ROLLBACK TO SAVEPOINT {}")
                self.conn.execute(back.format(_savepoint(to)))
            else:
                self.conn.execute("ROLLBACK")
        self._held, self._since_s = to, time.monotonic()

    def look(self) -> float:
        """Look at its locks; let it go on when it has been seen to wait."""
        with suppress(psycopg.Error):
            self._note()
            if self._held:
                self._let_go_in_time(is_waiting=self._is_waiting())
        self._looked_s = time.monotonic()
        return LOOK_S

    def _is_waiting(self) -> bool:
        ((waits,),) = self.conn.execute(WAITS.format(pid=self.pid)).fetchall()
        return bool(waits)

    def _let_go_in_time(self, *, is_waiting: bool) -> None:
        """Let go of one lock, once the statement waits for it, or does not want it."""
        now = time.monotonic()
        if not is_waiting and now - self._since_s <= HOLD_S:
            return
        self._note()
        self.held_s += now - self._looked_s if is_waiting else 0.0
        self.let_go(self._held - 1)

    def wal_bytes(self) -> int:
        """Return how much the server has written so far."""
        reply = self._ask()
        return reply.wal_bytes

    def find_touched(self) -> tuple[Touched, ...]:
        """Compare the catalogue with what it was; an index that is built shows so."""
        after = self._ask()._replace(
            relations={each.oid: each for each in read_catalogue(self.conn)}
        )
        modes = dict(self._modes)
        for oid, relation in after.relations.items():
            was = self.recorder.relations.get(oid)
            if was is None or was.file != relation.file:
                modes.setdefault(oid, -1)
        touched = self.recorder.compare(
            {}, {}, after._replace(modes=modes), is_alone=True
        ).find_touched()
        self.recorder.learn(after.relations.values())
        return touched

    def _note(self) -> None:
        for oid, mode in self._ask().modes.items():
            self._modes[oid] = max(self._modes.get(oid, 0), mode)

    def _ask(self) -> Reply:
        ((said,),) = self.conn.execute(question_about(self.pid)).fetchall()
        return read_reply(said)


def _savepoint(number: int) -> sql.Identifier:
    return sql.Identifier(f"held_{number}")


def _command(statement: Statement) -> str:
    """Return the words that PostgreSQL would answer with."""
    words = [token.decode(errors="replace").upper() for token in statement.tokens[:2]]
    return (
        " ".join(words) if words[:1] in (["ALTER"], ["CREATE"], ["DROP"]) else words[0]
    )
