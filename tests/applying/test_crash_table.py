"""
A gate that dies around a statement of a file that runs outside a transaction.

`TABLE` is the crash table: for each kind of statement, what the next start does when
the gate was killed before PostgreSQL got the statement, while it ran, and after it was
done but before the gate heard of it.
"""

from __future__ import annotations

import contextlib
import time

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import pytest

from tests.fix_gate import Gate, Process
from tests.fix_postgres import Database
from tests.fix_proxy import Message, Proxy


pytestmark = pytest.mark.thorough

Moment = Literal["before", "during", "after"]
RUNS, DONE, ASKS = "runs it", "counts it as done", "asks"
CLEARS = "drops what is left, runs it"
FINALIZES = "finalizes it"
NEVER = ""  # it ends at once, so that nothing can be caught in the middle of it

WRITES = "INSERT INTO t VALUES (0, 'foreign')"
LOCKS = "LOCK TABLE t IN SHARE UPDATE EXCLUSIVE MODE"
SETUP = """
CREATE TABLE t (id integer, name text);
INSERT INTO t VALUES (1, 'a');
CREATE INDEX t_name ON t (name);
"""
PARTITIONS = """
DROP TABLE t;
CREATE TABLE t (id integer, name text) PARTITION BY RANGE (id);
CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (100);
CREATE INDEX t_id ON t (id);
"""
PROCEDURE = """
CREATE PROCEDURE steps() LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO t VALUES (2, 'b');
    COMMIT;
    LOCK TABLE t IN SHARE UPDATE EXCLUSIVE MODE;
END $$;
"""
INDEXES = """
SELECT coalesce(string_agg(c.relname || CASE WHEN i.indisvalid THEN '' ELSE '!' END,
                           ' ' ORDER BY c.relname), '')
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE i.indrelid = 't'::regclass
"""
ROWS = "SELECT string_agg(id::text, ' ' ORDER BY id) FROM t WHERE name <> 'foreign'"
MADE = "SELECT count(*) FROM pg_database WHERE datname = current_database() || '_b'"
CHILDREN = "SELECT count(*) FROM pg_inherits WHERE inhparent = 't'::regclass"


@dataclass(frozen=True, kw_only=True)
class Kind:
    """
    One kind of statement; DATABASE in the texts stands for the database's name.

    ``blocker`` is what another session does so that the statement has to wait;
    ``left`` is what ``look`` shows in the end.
    """

    statement: str
    before: str
    during: str
    after: str
    look: str
    left: object
    setup: str = ""
    blocker: str = WRITES
    since: int = 0


TABLE = {
    "CREATE INDEX CONCURRENTLY": Kind(
        statement="CREATE INDEX CONCURRENTLY t_id ON t (id);",
        before=RUNS,
        during=CLEARS,
        after=DONE,
        look=INDEXES,
        left="t_id t_name",
    ),
    "CREATE INDEX CONCURRENTLY without a name": Kind(
        statement="CREATE INDEX CONCURRENTLY ON t (id);",
        before=RUNS,
        during=CLEARS,
        after=DONE,
        look=INDEXES,
        left="t_id_idx t_name",
    ),
    "CREATE INDEX CONCURRENTLY IF NOT EXISTS": Kind(
        statement='CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS "T id" ON t (id);',
        before=RUNS,
        during=CLEARS,
        after=DONE,
        look=INDEXES,
        left="T id t_name",
    ),
    "DROP INDEX CONCURRENTLY": Kind(
        statement="DROP INDEX CONCURRENTLY t_name;",
        before=RUNS,
        during=RUNS,
        after=DONE,
        look=INDEXES,
        left="",
    ),
    "REINDEX INDEX CONCURRENTLY": Kind(
        statement="REINDEX INDEX CONCURRENTLY t_name;",
        before=RUNS,
        during=CLEARS,
        after=DONE,
        look=INDEXES,
        left="t_name",
    ),
    "REINDEX TABLE CONCURRENTLY": Kind(
        statement="REINDEX TABLE CONCURRENTLY t;",
        before=RUNS,
        during=CLEARS,
        after=RUNS,
        look=INDEXES,
        left="t_name",
    ),
    "REINDEX SCHEMA CONCURRENTLY": Kind(
        statement="REINDEX (VERBOSE) SCHEMA CONCURRENTLY public;",
        before=RUNS,
        during=CLEARS,
        after=RUNS,
        look=INDEXES,
        left="t_name",
    ),
    "REINDEX DATABASE CONCURRENTLY": Kind(
        statement="REINDEX DATABASE CONCURRENTLY DATABASE;",
        before=RUNS,
        during=CLEARS,
        after=RUNS,
        look=INDEXES,
        left="t_name",
    ),
    "REINDEX of a partitioned table": Kind(
        statement="REINDEX TABLE t;",
        since=140000,
        setup=PARTITIONS,
        before=RUNS,
        during=RUNS,
        after=RUNS,
        look=INDEXES,
        left="t_id",
    ),
    "DETACH PARTITION CONCURRENTLY": Kind(
        statement="ALTER TABLE t DETACH PARTITION t_1 CONCURRENTLY;",
        setup=PARTITIONS,
        before=RUNS,
        during=FINALIZES,
        after=DONE,
        look=CHILDREN,
        left=0,
        since=140000,
    ),
    "VACUUM": Kind(
        statement="VACUUM t;",
        blocker=LOCKS,
        before=RUNS,
        during=RUNS,
        after=RUNS,
        look=ROWS,
        left="1",
    ),
    "CLUSTER": Kind(
        statement="CLUSTER;",
        setup="ALTER TABLE t CLUSTER ON t_name",
        blocker=LOCKS,
        before=RUNS,
        during=RUNS,
        after=RUNS,
        look=ROWS,
        left="1",
    ),
    "CREATE DATABASE": Kind(
        statement="CREATE DATABASE DATABASE_b TEMPLATE template0;",
        blocker="LOCK TABLE pg_database IN SHARE MODE",
        before=RUNS,
        during=RUNS,
        after=DONE,
        look=MADE,
        left=1,
    ),
    "DROP DATABASE": Kind(
        statement="DROP DATABASE IF EXISTS DATABASE_b;",
        setup="CREATE DATABASE DATABASE_b TEMPLATE template0",
        blocker="LOCK TABLE pg_database IN SHARE MODE",
        before=RUNS,
        during=RUNS,
        after=DONE,
        look=MADE,
        left=0,
    ),
    "ALTER SYSTEM": Kind(
        statement="ALTER SYSTEM RESET work_mem;",
        before=RUNS,
        during=NEVER,
        after=RUNS,
        look=ROWS,
        left="1",
    ),
    "a procedure that commits": Kind(
        statement="CALL steps();",
        setup=PROCEDURE,
        blocker=LOCKS,
        before=RUNS,
        during=ASKS,
        after=ASKS,
        look=MADE,
        left=0,
    ),
    "what can be in a transaction": Kind(
        statement="INSERT INTO t VALUES (2, 'b');",
        blocker="LOCK TABLE t IN SHARE MODE",
        before=RUNS,
        during=RUNS,
        after=DONE,
        look=ROWS,
        left="1 2",
    ),
    "a block": Kind(
        statement="BEGIN; INSERT INTO t VALUES (2, 'b'); DELETE FROM t WHERE id = 1;"
        " COMMIT;",
        blocker="LOCK TABLE t IN SHARE MODE",
        before=RUNS,
        during=RUNS,
        after=DONE,
        look=ROWS,
        left="2",
    ),
    "COPY": Kind(
        statement="COPY t FROM stdin;\n2\tb\n3\tc\n\\.\n",
        blocker="LOCK TABLE t IN SHARE MODE",
        before=RUNS,
        during=RUNS,
        after=DONE,
        look=ROWS,
        left="1 2 3",
    ),
}
# Whatever the server, a statement that it never saw has done nothing.
CELLS = [
    pytest.param(name, moment, marks=[] if moment == "before" else pytest.mark.server)
    for name, kind in TABLE.items()
    for moment in ("before", "during", "after")
    if getattr(kind, moment)
]


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A database with a gate in front of it, behind a proxy."""

    gate: Gate
    database: Database
    proxy: Proxy
    kind: Kind

    def fill(self, text: str) -> str:
        """Put the database's name where DATABASE stands for it."""
        name = self.database.name
        filled = text.replace("DATABASE_b", f"{name}_b")
        return filled.replace("CONCURRENTLY DATABASE", f"CONCURRENTLY {name}")

    @property
    def files(self) -> dict[str, str]:
        """The migration."""
        start = "-- gate: no-transaction\nSELECT 1;\n"
        return {"001_x.sql": start + self.fill(self.kind.statement)}

    def start(self) -> Process:
        """Start a gate."""
        behind = self.proxy.through(self.database)
        return self.gate.start(database=behind, migrations=self.files)

    def is_sent(self, message: Message) -> bool:
        """Tell the message that holds the statement."""
        text = self.fill(self.kind.statement).removeprefix("BEGIN; ").split(";")[0]
        return message.sender == "client" and text.encode() in message.payload

    def is_done(self, message: Message) -> bool:
        """Tell the message by which the server says that the statement is done."""
        if (message.sender, message.type, message.payload) != ("server", "Z", b"I"):
            return False
        messages = [m for link in self.proxy.links for m in link.messages]
        failed = any((m.sender, m.type) == ("server", "E") for m in messages)
        # What is refused in a transaction is sent a second time, alone.
        return sum(map(self.is_sent, messages)) == 1 + failed

    def crash(self, moment: Moment) -> None:
        """Kill a gate around the statement, and its backend with it."""
        processes: list[Process] = []

        def die() -> None:
            processes[0].kill()
            self.proxy.cut()

        if moment == "before":
            self.proxy.when(self.is_sent, die)
        elif moment == "after":
            self.proxy.when(self.is_done, die)
        blocker = self.kind.blocker if moment == "during" else ""
        with other_session(self.database, blocker):
            processes.append(self.start())
            if moment == "during":
                backend = wait_until_blocked(self.database)
                die()
                end_backend(self.database, backend)
        processes[0].wait()

    def start_again(self) -> str:
        """Start a gate after the crash, and tell what it did about the statement."""
        passed = len(self.proxy.links)
        run = self.start().wait()
        if run.verdict.get("reason") == "unresolved":
            return ASKS
        assert run.exit_code == 0, run.output
        sent = [
            message
            for link in self.proxy.settled()[passed:]
            for message in link.messages
            if message.sender == "client"
        ]
        if any(b"FINALIZE" in message.payload for message in sent):
            return FINALIZES
        drops = any(b"DROP INDEX CONCURRENTLY IF" in m.payload for m in sent)
        again = any(map(self.is_sent, sent))
        return {(True, True): CLEARS, (True, False): RUNS, (False, False): DONE}[
            (again, drops)
        ]


@pytest.mark.parametrize(("name", "moment"), CELLS)
def test_the_next_start_does_what_the_table_says(
    gate: Gate, database: Database, proxy: Proxy, name: str, moment: Moment
) -> None:
    """It is done in the end exactly once, or a person is asked."""
    kind = TABLE[name]
    if database.server.version < kind.since:
        pytest.skip("the server has no such statement")
    scene = Scene(gate=gate, database=database, proxy=proxy, kind=kind)
    database.execute(SETUP)
    if kind.setup:
        database.execute(scene.fill(kind.setup))
    try:
        scene.crash(moment)
        did = scene.start_again()

        assert did == getattr(kind, moment)
        if did != ASKS:
            assert database.fetch(kind.look) == [(kind.left,)]
            assert database.fetch("TABLE schema_migrations_progress") == []
    finally:
        with contextlib.closing(database.server.connect()) as conn:
            conn.execute(f"DROP DATABASE IF EXISTS {database.name}_b")


@contextlib.contextmanager
def other_session(database: Database, statement: str) -> Iterator[None]:
    """Hold what a statement takes in a transaction that stays open."""
    with contextlib.closing(database.connect()) as conn:
        if statement:
            conn.execute("BEGIN")
            conn.execute(statement.encode())
        yield


def wait_until_blocked(database: Database, timeout_s: float = 10) -> int:
    """Wait until the gate's statement waits for the other session."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        rows = database.fetch(
            "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
            "AND datname = current_database() "
            "AND application_name LIKE 'migration-gate/%'"
        )
        if rows:
            return int(rows[0][0])
        time.sleep(0.02)
    pytest.fail("nothing waits")


def end_backend(database: Database, pid: int, timeout_s: float = 10) -> None:
    """End what the killed gate has left working, and wait for it."""
    deadline = time.monotonic() + timeout_s
    while database.fetch(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = %s", [pid]
    ):
        assert time.monotonic() < deadline
        time.sleep(0.02)
