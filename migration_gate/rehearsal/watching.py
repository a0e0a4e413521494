"""
Look at a statement that runs alone from another session.

Such a statement ends its transactions itself, and with them its locks, so that nothing
is left to ask for. It is watched while it runs, and held up for a moment where it locks
a table, so that it is seen what it waits for.
"""

from __future__ import annotations

import time

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg

from migration_gate.connection.refusals import translated
from migration_gate.execution.message import Task
from migration_gate.execution.observer import Looks
from migration_gate.rehearsal.comparing import only_told
from migration_gate.rehearsal.facts import MODES, Done, Reply, Touched
from migration_gate.rehearsal.holding import Hold, is_detach
from migration_gate.rehearsal.questions import (
    question_about,
    read_catalogue,
    read_reply,
)
from migration_gate.rehearsal.recorder import Recorder
from migration_gate.rehearsal.wording import read_statement
from migration_gate.statements import Statement


LOOK_S: Final = 0.002
WEAKEST: Final = MODES.index("AccessShare")


@dataclass(slots=True)
class Watcher:
    """The session that watches; opened when the first statement runs alone."""

    recorder: Recorder
    open_session: Callable[[], psycopg.Connection[Any]]
    _conn: psycopg.Connection[Any] | None = None
    _second: psycopg.Connection[Any] | None = None

    def close(self) -> None:
        """Close its connections, where it has any."""
        for conn in filter(None, (self._conn, self._second)):
            conn.close()

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
        second = self._open_second() if is_detach(statement) else None
        hold = Hold(self._conn, second, pid, statement)
        watch = _Watch(self._conn, self.recorder, pid, hold)
        hold.take()
        wal_before = watch.wal_bytes()
        started_s, began_s = time.time(), hold.begin()
        try:
            yield watch.look
        finally:
            hold.let_go()
            took_ms = (time.monotonic() - began_s - hold.held_s) * 1000
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

    def _open_second(self) -> psycopg.Connection[Any]:
        """Return a second session, which only holds up; opened when it is needed."""
        if self._second is None:
            self._second = self.open_session()
        return self._second


@dataclass(slots=True)
class _Watch:
    """One statement under watch."""

    conn: psycopg.Connection[Any]
    recorder: Recorder
    pid: int
    hold: Hold
    _modes: dict[int, int] = field(default_factory=dict)

    def look(self) -> float:
        """Look at its locks; let it go on when it has been seen to wait."""
        with suppress(psycopg.Error):
            self._note()
            self.hold.look(self._note)
        return LOOK_S

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
        """
        Note its locks, but for the weakest.

        Nothing holds it up at those, and a partition's grandparent is locked so for
        less than a look: it would be told of by one report, and not by the next.
        """
        for oid, mode in self._ask().modes.items():
            if mode > WEAKEST:
                self._modes[oid] = max(self._modes.get(oid, 0), mode)

    def _ask(self) -> Reply:
        ((said,),) = self.conn.execute(question_about(self.pid)).fetchall()
        return read_reply(said)


def _command(statement: Statement) -> str:
    """Return the words that PostgreSQL would answer with."""
    words = [token.decode(errors="replace").upper() for token in statement.tokens[:2]]
    return (
        " ".join(words) if words[:1] in (["ALTER"], ["CREATE"], ["DROP"]) else words[0]
    )
