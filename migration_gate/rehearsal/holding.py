"""
Hold up a statement that runs alone, so that it is seen what it waits for.

Locks of the watcher's own on every table, strongest last; once the statement waits for
one, or does not want it, that one is given back.
"""

from __future__ import annotations

import time

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import psycopg

from psycopg import sql

from migration_gate.connection.qualified import names, qualified
from migration_gate.statements import Statement
from migration_gate.statements.names import TokenReader


# So long a statement is held up at most that waits for nothing.
HOLD_S: Final = 0.03
HELD_MAX: Final = 500  # tables: a lock each, of a server that has room for 64 a session
HELD_TABLES: Final = qualified(
    """
SELECT n.nspname, c.relname, {detached} FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid >= 16384::pg_catalog.oid AND c.relpersistence <> 't'
  AND c.relkind = ANY (ARRAY['r', 'p']::pg_catalog."char"[])
  AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')
  AND pg_catalog.has_table_privilege(c.oid, 'SELECT')
  AND pg_catalog.has_table_privilege(c.oid, 'UPDATE, DELETE, TRUNCATE')
  AND {loses} AND {named}
LIMIT {limit}
"""
)
# Where there are more: those that the statement names, or an index of.
NAMED_TABLES: Final = qualified(
    """
(c.relname = ANY ({names}) OR EXISTS (
    SELECT FROM pg_catalog.pg_index x
    JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid
    WHERE x.indrelid = c.oid AND i.relname = ANY ({names})))
"""
)
# PostgreSQL 14 and later; so it stands between the two transactions.
DETACHED: Final = qualified(
    """
EXISTS (SELECT FROM pg_catalog.pg_inherits h
        WHERE h.inhrelid = c.oid AND h.inhdetachpending)
"""
)
LOSES_NONE: Final = qualified(
    """
NOT EXISTS (SELECT FROM pg_catalog.pg_inherits h
            WHERE h.inhparent = c.oid AND h.inhdetachpending)
"""
)
WAITS: Final = qualified(
    "SELECT pg_catalog.pg_backend_pid() = ANY (pg_catalog.pg_blocking_pids({pid}))"
)
# First what excludes all that changes a table, then what excludes only the strongest.
HOLDS: Final = ("ACCESS SHARE", "SHARE UPDATE EXCLUSIVE")
# What excludes all locks that keep writers or readers out, and not VACUUM's.
SECOND_HOLD: Final = "ROW EXCLUSIVE"
Table: TypeAlias = tuple[str, str]


@dataclass(slots=True)
class Hold:
    """
    The locks that hold one statement up, each after a savepoint of ``conn``.

    DETACH PARTITION CONCURRENTLY is two transactions, and waits between them until
    every session is done that had a lock of the parent. So the second one is held up
    by ``second``, a session that has none of the parent, and until it is seen to wait,
    however slow the machine is.
    """

    conn: psycopg.Connection[Any]
    second: psycopg.Connection[Any] | None
    pid: int
    statement: Statement
    held_s: float = 0.0
    _count: int = 0
    _since_s: float = 0.0
    _looked_s: float = 0.0

    def take(self) -> None:
        """Lock every table, so that the statement is seen when it wants to."""
        tables = [table for table, _ in find_tables(self.conn, self.statement)]
        self._count = _lock(self.conn, [(mode, tables) for mode in HOLDS])

    def begin(self) -> float:
        """Note that the statement is sent now: what it is held up counts from here."""
        self._since_s = self._looked_s = time.monotonic()
        return self._since_s

    def look(self, note: Callable[[], None]) -> None:
        """
        Let the statement go on when it has been seen to wait.

        Args:
            note: Called when it is: what it waits for can be asked for now.
        """
        if self._count:
            self._let_go_in_time(note, is_waiting=self._is_waiting())
        self._looked_s = time.monotonic()

    def let_go(self, to: int = 0) -> None:
        """Let go of the locks, down to so many."""
        if self._count <= to:
            return
        with suppress(psycopg.Error):
            if to:
                back = sql.SQL("ROLLBACK TO SAVEPOINT {}")
                self.conn.execute(back.format(_savepoint(to)))
            else:
                self.conn.execute("ROLLBACK")
        self._count, self._since_s = to, time.monotonic()

    def _is_waiting(self) -> bool:
        """Tell whether it waits for this session, which ends as soon as it lets go."""
        ((waits,),) = self.conn.execute(WAITS.format(pid=self.pid)).fetchall()
        return bool(waits)

    def _let_go_in_time(self, note: Callable[[], None], *, is_waiting: bool) -> None:
        """Let go of one lock, once the statement waits for it, or does not want it."""
        passed_s = time.monotonic() - self._since_s
        if not is_waiting and (self.second is not None or passed_s <= HOLD_S):
            return
        note()
        if self._count > 1 or not self._pass_on():
            self.let_go(self._count - 1)
        if is_waiting:
            self.held_s += time.monotonic() - self._looked_s

    def _pass_on(self) -> bool:
        """Have the other session hold what the second transaction will lock."""
        if self.second is None or self.conn is self.second:
            return False
        with suppress(psycopg.Error):
            found = find_tables(self.second, self.statement, detached_from=True)
            detached = [table for table, is_detached in found if is_detached]
            others = [table for table, is_detached in found if not is_detached]
            if detached:
                tables = filter(None, (others, detached))
                count = _lock(self.second, [(SECOND_HOLD, each) for each in tables])
                self.let_go()
                self.conn, self._count = self.second, count
                return True
        return False


def is_detach(statement: Statement) -> bool:
    """Tell whether a statement that runs alone detaches a partition."""
    return b"detach" in statement.tokens


def find_tables(
    conn: psycopg.Connection[Any], statement: Statement, *, detached_from: bool = False
) -> list[tuple[Table, bool]]:
    """
    Return the tables to lock, and whether each is being detached from another.

    Args:
        detached_from: Without those that lose a partition; PostgreSQL 14 and later.
    """
    for query in ask_for_tables(statement, detached_from=detached_from):
        rows = conn.execute(query).fetchall()
        if len(rows) <= HELD_MAX:
            return [((schema, name), is_so) for schema, name, is_so in rows]
    return []


def ask_for_tables(
    statement: Statement, *, detached_from: bool = False
) -> Iterator[sql.Composed]:
    """Yield what is asked: for all tables, and where they are too many, for some."""
    words = {TokenReader((token,)).take_name() for token in statement.tokens}
    named = NAMED_TABLES.format(names=names(sorted(filter(None, words))))
    for condition in (sql.SQL("true"), named):
        yield HELD_TABLES.format(
            detached=DETACHED if detached_from else sql.SQL("false"),
            loses=LOSES_NONE if detached_from else sql.SQL("true"),
            named=condition,
            limit=HELD_MAX + 1,
        )


def _lock(
    conn: psycopg.Connection[Any], steps: Sequence[tuple[str, Sequence[Table]]]
) -> int:
    """Lock tables step by step, as far as they are free; return how many are taken."""
    if not all(tables for _, tables in steps):
        return 0
    lock = sql.SQL("LOCK TABLE {} IN {} MODE NOWAIT")
    conn.execute("BEGIN")
    for count, (mode, tables) in enumerate(steps):
        listed = [sql.SQL("ONLY {}").format(sql.Identifier(*table)) for table in tables]
        conn.execute(sql.SQL("SAVEPOINT {}").format(_savepoint(count)))
        try:
            conn.execute(lock.format(sql.SQL(", ").join(listed), sql.SQL(mode)))
        except psycopg.Error:  # autovacuum has one of them
            back = "ROLLBACK TO SAVEPOINT {}" if count else "ROLLBACK"
            conn.execute(sql.SQL(back).format(_savepoint(count)))
            return count
    return len(steps)


def _savepoint(number: int) -> sql.Identifier:
    return sql.Identifier(f"held_{number}")
