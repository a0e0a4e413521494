"""
Every fault at every message of the protocol: what is applied is applied exactly once.

    python -m tests.faults [--kind KIND] [--scenario NAME] [--every N] [--patience S]

An undisturbed run is recorded first. Then, for each message of its two sessions and
each kind of fault, a run on a fresh database meets that fault at that message, and
another start follows. Prints how many points were tried and survived; exits 1 when one
was not.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import re
import signal
import socket
import struct
import sys
import tempfile
import threading
import time

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, Self

import psycopg

from dev.postgres import Server, ServerError
from migration_gate.files.migration import checksum
from tests.fix_gate import write_migrations
from tests.fix_pgbouncer import PgBouncer, install_program, installed_program
from tests.fix_postgres import Database, look_at
from tests.fix_proxy import Link, Proxy, Sender
from tests.forks import Ended, Forker


Kind = Literal[
    "cut",
    "cut both",
    "cut twice",
    "reset",
    "freeze",
    "SIGKILL",
    "SIGTERM",
    "terminate",
    "restart",
    "failover",
    "away",
]

# How many of the messages meet the fault: each, or every so-manieth.
EVERY: Final[Mapping[Kind, int]] = MappingProxyType(
    {
        "cut": 1,
        "cut both": 3,
        "cut twice": 2,
        "reset": 3,
        "freeze": 12,
        "SIGKILL": 1,
        "SIGTERM": 1,
        "terminate": 3,
        "restart": 4,
        "failover": 12,
        "away": 6,
    }
)
# At these, the message is held back in one run and passed on before in another.
BOTH_SIDES: Final[frozenset[Kind]] = frozenset({"cut"})
# The gate must survive these without being started again.
SURVIVED_ALONE: Final[frozenset[Kind]] = frozenset(
    {"cut", "cut both", "cut twice", "reset", "terminate", "restart", "failover"}
)

BEHIND_POOLER: Final[frozenset[Kind]] = frozenset({"terminate", "failover"})
# What happens to one target of a fleet, of which no other may take notice.
OF_ONE_TARGET: Final[frozenset[Kind]] = frozenset({"cut", "reset", "terminate", "away"})
TARGETS: Final = ("a", "b", "c")
HOME: Final = "home"
# How long a run waits for a target that stays away.
AWAY_S: Final = 2
# How many messages after the first the second of two cuts comes: another number for
# each first, all over what the gate does to recover.
SECOND_STEP: Final = 7
SECOND_LATEST: Final = 90

# What a run has, where it is not to end by its own; a busy machine needs more.
PATIENCE_S: Final = 25
ENDS_IN_S: Final = 5.0
STOP_TIMEOUT_S: Final = 5.0
QUIET_TIMEOUT_S: Final = 10.0
POLL_S: Final = 0.02
SETTINGS: Final = MappingProxyType(
    {"max_wal_senders": "4", "wal_keep_size": "256MB", "autovacuum": "off"}
)

LOG: Final = "CREATE TABLE log (id bigint GENERATED ALWAYS AS IDENTITY, what text);\n"
TABLE: Final = (
    "CREATE TABLE t (id integer PRIMARY KEY, name text);\n"
    "INSERT INTO t SELECT n, 'name ' || n FROM generate_series(1, 50) n;\n"
)


def note(what: str) -> str:
    """Return a statement that shows how often it was run."""
    return f"INSERT INTO public.log (what) VALUES ('{what}');\n"


def note_there(what: str) -> str:
    """Return one for the log of whichever target it is run in."""
    return f"INSERT INTO log (what) VALUES ('{what}');\n"


def slowly(what: str) -> str:
    """
    Return a statement that goes on for a moment after its first word.

    PostgreSQL sends a notice at once: a fault at it meets a statement that still runs.
    """
    return f"DO $$ BEGIN RAISE NOTICE '{what}'; PERFORM pg_sleep(0.1); END $$;\n"


# A message holds about a mebibyte, so that a file with some of these is sent in parts.
PADDING: Final = "/* " + "padding " * 90_000 + "*/\n"
# An index of it is built slowly, and says so in between.
SLOW: Final = """
CREATE FUNCTION slow(id integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF id % 25 = 0 THEN
        RAISE NOTICE 'row %', id;
        PERFORM pg_catalog.pg_sleep(0.05);
    END IF;
    RETURN id;
END $$;
"""
OUTSIDE: Final = (
    "SET search_path = app;\n"
    + note("004 a")
    + "CREATE INDEX CONCURRENTLY u_name ON u (name);\n"
    + "BEGIN;\n"
    + note("004 b")
    + "UPDATE u SET name = name || '!';\n"
    + "COMMIT;\n"
    + "VACUUM ANALYZE u;\n"
    + note("004 c")
    + "CREATE UNIQUE INDEX CONCURRENTLY u_id ON u (id);\n"
    + "REINDEX INDEX CONCURRENTLY u_id;\n"
    + "DROP INDEX CONCURRENTLY u_name;\n"
    + note("004 d")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """
    Files, and how a gate ends that ships them.

    A run that closes is followed by one with `mended` files on top, which opens.
    `pooled` puts a transaction pooler between proxy and server. `command` is given
    after all files are applied, without a fault. `before` is what the database has
    already, and `settings` are the gate's. A `fleet` has `targets` of that kind: three,
    all of them at once, have the same messages, and each meets a fault in one of them,
    in turns. Where the gate closes without a fault, one of them alone is refused.
    """

    name: str
    files: Mapping[str, str]
    reason: str | None = None
    mended: Mapping[str, str] = field(default_factory=dict)
    pooled: bool = False
    command: tuple[str, ...] = ()
    before: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    fleet: Literal["schemas", "databases"] | None = None
    targets: tuple[str, ...] = TARGETS

    @property
    def kinds(self) -> frozenset[Kind]:
        """What can happen; a pooler tells no backend, and follows to no standby."""
        kinds = frozenset(EVERY) - (BEHIND_POOLER if self.pooled else frozenset())
        return kinds if self.fleet else kinds - {"away"}

    @property
    def exit_code(self) -> int:
        """How a gate ends without a fault."""
        return 0 if self.reason is None else 1

    def ends_like(self, ended: Ended) -> bool:
        """Tell whether a gate ended as one does without a fault."""
        if self.fleet is not None and ended.verdict.get("failed_count", 0) > 1:
            return False
        return ended.how == (self.exit_code, self.reason)


GOOSE: Final = """
CREATE TABLE goose_db_version (
    id integer PRIMARY KEY, version_id bigint NOT NULL, is_applied boolean NOT NULL,
    tstamp timestamp NOT NULL DEFAULT '2026-01-02 03:04:05');
INSERT INTO goose_db_version VALUES (1, 0, true), (2, 1, true), (3, 2, true);
"""
# What an older image has applied, with other texts.
REPEATED: Final = """
CREATE TABLE schema_migrations (
    id serial PRIMARY KEY, version varchar(255) NOT NULL UNIQUE,
    applied_at timestamp NOT NULL DEFAULT '2026-01-02 03:04:05',
    checksum text, duration_ms bigint, gate_version text, superseded text);
INSERT INTO schema_migrations (version, checksum) VALUES ('001_log.sql', NULL),
    ('R__a.sql', 'sha256:1'), ('R__outside.sql', 'sha256:2'),
    ('R__slow.sql', 'sha256:3');
"""
MOVED_IN: Final = {
    "001_log.sql": LOG + note("001"),
    "002_table.sql": TABLE + note("002"),
    "003_new.sql": note("003") + "CREATE INDEX t_name ON t (name);\n",
}

# Of a fleet in which most is done.
IDLE: Final = {
    "001_log.sql": LOG + note_there("001"),
    "002_index.sql": "CREATE INDEX log_what ON log (what);\n" + note_there("002"),
}
DONE: Final = """
CREATE TABLE {schema}.log (id bigint GENERATED ALWAYS AS IDENTITY, what text);
CREATE TABLE {schema}.schema_migrations (
    id serial PRIMARY KEY, version varchar(255) NOT NULL UNIQUE,
    applied_at timestamp NOT NULL DEFAULT '2026-01-02 03:04:05',
    checksum text, duration_ms bigint, gate_version text, superseded text);
INSERT INTO {schema}.schema_migrations (version, checksum, duration_ms)
    VALUES {rows};
"""


def already(schema: str, *versions: str, changed: str = "") -> str:
    """Return what a schema has where these files are applied, one of another text."""
    rows = []
    for version in versions:
        found = "sha256:1" if version == changed else checksum(IDLE[version].encode())
        rows.append(f"('{version}', '{found}', 1)")
    return DONE.format(schema=schema, rows=", ".join(rows))


SCENARIOS: Final = (
    Scenario(
        name="opens",
        files={
            "001_log.sql": LOG + note("001"),
            "002_own_transaction.sql": "BEGIN;\n" + TABLE + note("002") + "COMMIT;\n",
            "003_schema.sql": "SET ROLE pg_database_owner; RESET ROLE;\n"
            "CREATE SCHEMA app; CREATE TABLE app.u (LIKE t);\n"
            "INSERT INTO app.u TABLE t;\n" + note("003"),
            "004_outside.sql": OUTSIDE,
            "005_copy.sql": note("005")
            + "COPY t (id, name) FROM stdin;\n60\tsixty\n61\tsixty-one\n\\.\n"
            + "ALTER TABLE t ADD COLUMN e text DEFAULT 'x';\n",
            "006_one_statement.sql": "-- gate: no-transaction\n" + note("006"),
            "007_last.sql": note("007") + "CREATE INDEX t_name ON t (name);\n",
        },
    ),
    Scenario(
        name="opens slowly",
        files={
            "001_log.sql": LOG + TABLE + SLOW + note("001") + slowly("001"),
            "002_batch.sql": note("002") + slowly("002"),
            "003_batch.sql": slowly("003") + note("003"),
            "004_index.sql": "CREATE INDEX CONCURRENTLY t_slow ON t (slow(id));\n"
            + note("004 a")
            + slowly("004")
            + "REINDEX INDEX CONCURRENTLY t_slow;\n"
            + note("004 b"),
            "005_last.sql": note("005") + slowly("005"),
        },
    ),
    Scenario(
        name="opens in many messages",
        files={
            "001_log.sql": LOG + TABLE + note("001"),
            "002_large.sql": note("002 a")
            + PADDING
            + note("002 b")
            + PADDING
            + slowly("002")
            + PADDING
            + note("002 c"),
            "003_last.sql": note("003"),
        },
    ),
    Scenario(
        name="opens through a pooler",
        files={
            "001_log.sql": LOG + TABLE + note("001"),
            "002_batch.sql": "SET search_path = pg_catalog;" + note("002"),
            "003_slow.sql": note("003") + slowly("003"),
            "004_outside.sql": "-- gate: no-transaction\nSET work_mem = '9MB';\n"
            + note("004 a")
            + "BEGIN;\n"
            + note("004 b")
            + slowly("004")
            + "COMMIT;\n"
            + note("004 c"),
            "005_copy.sql": "COPY t (id, name) FROM stdin;\n60\tsixty\n\\.\n"
            + note("005"),
        },
        pooled=True,
    ),
    *(
        Scenario(
            name=f"takes a history over{name}",
            files=MOVED_IN,
            pooled=pooled,
            before=MOVED_IN["001_log.sql"] + MOVED_IN["002_table.sql"] + GOOSE,
            settings={"GATE_ADOPT": "goose"},
        )
        for name, pooled in (("", False), (" through a pooler", True))
    ),
    Scenario(
        name="begins with a baseline",
        files=MOVED_IN,
        before=MOVED_IN["001_log.sql"] + MOVED_IN["002_table.sql"],
        settings={"GATE_BASELINE": "2"},
    ),
    *(
        Scenario(
            name=f"repeats{name}",
            files={
                "001_log.sql": LOG + note("001"),
                "002_new.sql": TABLE + note("002"),
                "R__a.sql": note("a") + "CREATE OR REPLACE VIEW v AS SELECT :'word';\n",
                "R__new.sql": note("new"),
                "R__outside.sql": "-- gate: no-transaction\n"
                + note("outside a")
                + ("" if pooled else "VACUUM t;\n")
                + note("outside b"),
                "R__slow.sql": note("slow") + slowly("slow"),
            },
            pooled=pooled,
            before=LOG + note("001") + REPEATED,
            settings={"GATE_VAR_word": "filled in"},
        )
        for name, pooled in (("", False), (" through a pooler", True))
    ),
    Scenario(
        name="rolls back",
        files={
            "001_log.sql": LOG + TABLE + note("001"),
            "002_a.sql": "CREATE TABLE a (n integer);\n",
            "002_a.down.sql": note("002 undone") + "DROP TABLE a;\n",
            "003_b.sql": "-- migrate:up\nCREATE TABLE b (n integer);\n"
            "-- migrate:down\n" + note("003 undone") + "DROP TABLE b;\n",
            "004_outside.sql": "CREATE TABLE u (LIKE t);\n"
            "CREATE INDEX CONCURRENTLY u_name ON u (name);\n",
            "004_outside.down.sql": "SET work_mem = '9MB';\n"
            + note("004 a undone")
            + "DROP INDEX CONCURRENTLY u_name;\n"
            + "BEGIN;\n"
            + note("004 b undone")
            + "DROP TABLE u;\n"
            + "COMMIT;\n"
            + "VACUUM t;\n"
            + note("004 c undone"),
            "005_index.sql": "CREATE INDEX CONCURRENTLY t_name ON t (name);\n",
            "005_index.down.sql": "DROP INDEX CONCURRENTLY t_name;\n",
            "006_slow.sql": "CREATE TABLE c (n integer);\n",
            "006_slow.down.sql": slowly("006") + note("006 undone") + "DROP TABLE c;\n",
        },
        command=("rollback", "--to", "1"),
    ),
    Scenario(
        name="rolls back through a pooler",
        files={
            "001_log.sql": LOG + TABLE + note("001"),
            "002_a.sql": "CREATE TABLE a (n integer);\n",
            "002_a.down.sql": note("002 undone") + "DROP TABLE a;\n",
            "003_b.sql": "CREATE TABLE b (n integer);\n",
            "003_b.down.sql": "-- gate: no-transaction\n"
            + note("003 a undone")
            + "DROP TABLE b;\n"
            + note("003 b undone"),
        },
        pooled=True,
        command=("rollback", "--to", "1"),
    ),
    Scenario(
        name="a statement fails",
        files={
            "001_log.sql": LOG + TABLE + SLOW + note("001"),
            "002_before.sql": note("002") + slowly("002"),
            "003_fails.sql": note("003")
            + slowly("003")
            + "SELECT 1 / (SELECT count(*) - 50 FROM t);",
            "004_after.sql": note("004"),
        },
        reason="migration_failed",
        mended={"003_fails.sql": note("003") + "SELECT 1;"},
    ),
    Scenario(
        name="an index fails",
        files={
            "001_log.sql": LOG + TABLE + note("001"),
            "002_fails.sql": note("002 a")
            + "CREATE UNIQUE INDEX CONCURRENTLY t_half ON t ((id / 2));\n"
            + note("002 b"),
        },
        reason="migration_failed",
        mended={
            "002_fails.sql": note("002 a")
            + "CREATE UNIQUE INDEX CONCURRENTLY t_id ON t (id);\n"
            + note("002 b"),
        },
    ),
    *(
        Scenario(
            name=f"a fleet of {kind}",
            files={
                "001_log.sql": LOG + note_there("001"),
                "002_outside.sql": "CREATE INDEX CONCURRENTLY log_what ON log (what);\n"
                + note_there("002"),
                "003_last.sql": note_there("003"),
            },
            fleet=kind,
        )
        for kind in ("schemas", "databases")
    ),
    Scenario(
        # Two sessions for all of them: one hands its lock on, one runs the files.
        name="a fleet in two sessions",
        files=IDLE,
        before=already("c", "001_log.sql"),
        fleet="schemas",
        settings={"GATE_TARGETS_AT_ONCE": "1"},
    ),
    Scenario(
        # Three are done, of which two are read by COPY and one is compared by the
        # server; the others are new, refused, and behind. They are gone to one after
        # the other, so that each run has the same messages.
        name="an idle fleet",
        files=IDLE,
        reason="history",
        before="".join(
            [
                *(already(name, *IDLE) for name in "abc"),
                (
                    "UPDATE pg_class SET relpages = 100"
                    " WHERE oid = 'c.schema_migrations'::regclass;"
                ),
                already("e", *IDLE, changed="002_index.sql"),
                already("f", "001_log.sql"),
            ]
        ),
        fleet="schemas",
        targets=tuple("abcdef"),
        settings={"GATE_TARGETS_AT_ONCE": "1"},
    ),
)

# What is there in the end, but for oids, times and gaps in sequences.
SCHEMA: Final = """
SELECT 'relation', c.oid::regclass::text, c.relkind::text, c.relowner::regrole::text,
       c.relpersistence::text
FROM pg_class c WHERE c.relnamespace IN (SELECT oid FROM pg_namespace
    WHERE nspname !~ '^(pg_|information_schema)')
UNION ALL
SELECT 'schema', nspname, nspowner::regrole::text, NULL, NULL
FROM pg_namespace WHERE nspname !~ '^pg_(toast_)?temp_'
UNION ALL
SELECT 'column', attrelid::regclass::text, attname, format_type(atttypid, atttypmod),
       attnotnull || coalesce(' ' || pg_get_expr(adbin, adrelid), '')
FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
WHERE attnum > 0 AND NOT attisdropped AND c.relnamespace IN (SELECT oid
    FROM pg_namespace WHERE nspname !~ '^(pg_|information_schema)')
UNION ALL
SELECT 'index', indexrelid::regclass::text, pg_get_indexdef(indexrelid),
       indisvalid::text, indisready::text
FROM pg_index JOIN pg_class c ON c.oid = indexrelid
WHERE c.relnamespace IN (SELECT oid FROM pg_namespace
    WHERE nspname !~ '^(pg_|information_schema)')
UNION ALL
SELECT 'constraint', conname, conrelid::regclass::text, pg_get_constraintdef(oid), NULL
FROM pg_constraint WHERE connamespace IN (SELECT oid FROM pg_namespace
    WHERE nspname !~ '^(pg_|information_schema)')
UNION ALL
SELECT 'function', p.oid::regprocedure::text, proowner::regrole::text, NULL, NULL
FROM pg_proc p WHERE pronamespace IN (SELECT oid FROM pg_namespace
    WHERE nspname !~ '^(pg_|information_schema)')
UNION ALL
SELECT 'setting', setconfig::text, NULL, NULL, NULL FROM pg_db_role_setting
ORDER BY 1, 2, 3
"""
CONTENTS: Final = MappingProxyType(
    {
        "log": "SELECT what FROM log ORDER BY id",
        "t": "SELECT t::text FROM t ORDER BY 1",
        "goose_db_version": "SELECT g::text FROM goose_db_version g ORDER BY 1",
        "app.u": "SELECT u::text FROM app.u ORDER BY 1",
        "schema_migrations": "SELECT version, checksum, duration_ms IS NOT NULL "
        "FROM schema_migrations ORDER BY 1",
        "schema_migrations_progress": "SELECT version, statement, state "
        "FROM schema_migrations_progress ORDER BY 1, 2",
    }
)
FAILURES: Final = "schema_migrations_failures"
OTHERS: Final = """
SELECT pid, application_name, state, wait_event_type, wait_event, left(query, 60)
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
  AND NOT (%s AND state = 'idle')
"""
LOCKS: Final = """
SELECT locktype, mode, pid FROM pg_locks
WHERE database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND pid <> pg_backend_pid()
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """
    A fault at one message; `number` counts those of one sender in one session.

    Of a fleet, `session` counts those of one `target`.
    """

    scenario: Scenario
    kind: Kind
    session: int
    sender: Sender
    number: int
    type: str
    forward: bool
    target: str = ""

    def __str__(self) -> str:
        known = {0: "the lock's session", 1: "the worker's session"}
        session = known.get(self.session, f"session {self.session}")
        if self.target:
            session = f"session {self.session} of {self.target}"
        return (
            f"{self.kind} {'after' if self.forward else 'before'} message "
            f"{self.number} ({self.type}) of the {self.sender} in {session}, "
            f'scenario "{self.scenario.name}"'
        )


class NotSurvivedError(Exception):
    """What was found after a point that should not be."""


class Breaker(Proxy):
    """A proxy that does something, once, at one message of one session."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self.fired = threading.Event()
        self.fired_s = 0.0
        self._point: Point | None = None
        self._action: Callable[[Link], None] = lambda _: None
        self._counts: Counter[tuple[str, int, Sender]] = Counter()
        self._until_second = 0
        self._torn: set[Link] = set()
        self._away = ""

    def arm(self, point: Point | None, action: Callable[[Link], None]) -> None:
        """Count sessions and messages from now on, and act at the point."""
        self.start()
        self.cut()
        self.settled()
        self.links.clear()
        self._torn.clear()
        self._away = ""
        self._counts.clear()
        self.fired.clear()
        self._point, self._action = point, action
        self._until_second = 0

    def cut_again(self, link: Link, messages: int) -> None:
        """Cut a session, and after so many messages the one that has the last."""
        self._until_second = messages
        link.end()

    def keep_away(self, target: str) -> None:
        """Cut each connection of one target from now on."""
        self._away = target
        for link in list(self.links):
            if target_of(link) == target:
                link.end()

    def point_to(self, server: Server | PgBouncer) -> None:
        """Pass new connections on to another server, or to a pooler before it."""
        self._upstream = (server.host, server.port)

    def tear(self, link: Link) -> None:
        """End a connection with a reset in both directions instead of a farewell."""
        self._torn.add(link)
        for side in (link.client, link.server):
            if side is not None:
                linger = struct.pack("ii", 1, 0)
                side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                with contextlib.suppress(OSError):
                    side.shutdown(socket.SHUT_RD)  # wakes who reads, sends nothing

    def _pump(
        self, link: Link, sender: Sender, source: socket.socket, sink: socket.socket
    ) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(1 << 16):
                self._pass_on(link, sender, chunk, sink)
        if link not in self._torn:
            link.end()

    def _pass_on(
        self, link: Link, sender: Sender, chunk: bytes, sink: socket.socket
    ) -> None:
        ready = bytearray()
        for _, whole in link.read(sender, chunk):
            if self._away and target_of(link) == self._away:
                link.end()
                return
            point = self._point
            if point is None or not self._is_due(point, link, sender):
                ready += whole
                self._count_down(link)
                continue
            self._point = None
            passes, waits = (ready + whole, b"") if point.forward else (ready, whole)
            self._send(sender, bytes(passes), sink)
            self.fired_s = time.monotonic()
            self.fired.set()  # before: a signal may end the gate at once
            self._action(link)
            ready = bytearray(waits)
        self._send(sender, bytes(ready), sink)

    def _count_down(self, link: Link) -> None:
        if self._until_second:
            self._until_second -= 1
            if not self._until_second:
                link.end()

    def _is_due(self, point: Point, link: Link, sender: Sender) -> bool:
        target, links = "", list(self.links)
        if point.target:
            target = target_of(link)
            links = [each for each in links if target_of(each) == target]
        session = links.index(link)
        self._counts[target, session, sender] += 1
        here = (target, session, sender, self._counts[target, session, sender])
        return here == (point.target, point.session, point.sender, point.number)


def target_of(link: Link) -> str:
    """Return which target of a fleet a connection is for, as it said when it began."""
    if not link.messages or link.messages[0].type != "startup":
        return ""
    said = link.messages[0].payload[4:].split(b"\0")[:-2]  # after the version
    known = dict(zip(said[::2], said[1::2], strict=True))
    schema = re.search(rb'search_path="([abc])"', known.get(b"options", b""))
    named = schema[1] if schema else known[b"database"].rpartition(b"_")[2]
    target = named.decode()
    return target if target in TARGETS else HOME


@dataclass(frozen=True, slots=True)
class State:
    """What a database holds, as far as it may not differ."""

    schema: list[tuple[Any, ...]]
    contents: dict[str, list[tuple[Any, ...]]]


class Lab:
    """A server, a proxy before it, and what starts gates: one fault at a time."""

    def __init__(self, name: str, folder: Path, patience_s: int = PATIENCE_S) -> None:
        self._name = name
        self._patience_s = patience_s
        self._stack = ExitStack()
        self._folder = folder / name
        self._folder.mkdir()
        self._expected: dict[tuple[str, str], State] = {}
        self._poolers: dict[Server, PgBouncer] = {}
        self._generation = itertools.count(1)
        self._numbers = itertools.count(1)
        # A server ends with the thread that started it (prctl(2), PR_SET_PDEATHSIG).
        self._hands = ThreadPoolExecutor(1)
        self.alone = False

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self._hands)
            self.server = self._new_server()
            stack.callback(self._close_server)
            self.proxy = stack.enter_context(
                Breaker(self.server.host, self.server.port)
            )
            self._forker = stack.enter_context(closing(Forker(self._folder)))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _new_server(self, standby_of: Server | None = None) -> Server:
        server = Server(
            f"{self._name}-{next(self._generation)}",
            settings=SETTINGS,
            standby_of=standby_of,
        )
        try:
            self._hands.submit(server.start).result()
        except BaseException:
            server.close()
            raise
        return server

    def _close_server(self) -> None:
        self.server.close()

    def _restart(self) -> None:
        with contextlib.suppress(ServerError):  # it is killed then
            self.server.stop("immediate")
        self._hands.submit(self.server.start).result()

    @contextlib.contextmanager
    def database(self) -> Iterator[Database]:
        """Make a database, and drop it wherever it is in the end."""
        name = f"faults_{next(self._numbers)}"
        with closing(self._admin()) as conn:
            conn.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        try:
            yield self._find(name)
        finally:
            with closing(self._admin()) as conn:
                for made in (name, *(f"{name}_{target}" for target in TARGETS)):
                    conn.execute(f"DROP DATABASE IF EXISTS {made} WITH (FORCE)")

    def _find(self, name: str) -> Database:
        conninfo = {**self.server.conninfo, "dbname": name}
        shared = look_at(self.server.conninfo, self.server)
        return Database(server=shared, conninfo=conninfo)

    def _aim(self, scenario: Scenario) -> None:
        """Let the proxy lead to the server, or to a pooler in front of it."""
        if not scenario.pooled:
            self.proxy.point_to(self.server)
            return
        if self.server not in self._poolers:
            shared = look_at(self.server.conninfo, self.server)
            pooler = PgBouncer(
                self._folder / f"pooler-{self.server.name}" / "x",
                Database(server=shared, conninfo=self.server.conninfo),
                {"pool_mode": "transaction"},
                "*",
            )
            self._hands.submit(pooler.__enter__).result()
            self._stack.push(pooler)
            self._poolers[self.server] = pooler
        self.proxy.point_to(self._poolers[self.server])

    def record(self, scenario: Scenario) -> list[Point]:
        """Run undisturbed; return a point for each message, of kind "cut"."""
        with self.database() as database:
            self._aim(scenario)
            self._prepare(scenario, database)
            self.proxy.arm(None, lambda _: None)
            ended = self._run(scenario, self.proxy.through(database))
            self._require_end(scenario, ended)
            self._expected[scenario.name, "first"] = self._look(scenario, database)
            points = list(self._to_points(scenario))
            if scenario.mended:
                self._mend(scenario, database)
                self._expected[scenario.name, "last"] = self._look(scenario, database)
        return points

    def _to_points(self, scenario: Scenario) -> Iterator[Point]:
        sessions: Counter[str] = Counter()
        for link in self.proxy.settled():
            target = target_of(link) if scenario.fleet else ""
            session = sessions[target]
            sessions[target] += 1
            counts: Counter[Sender] = Counter()
            for message in list(link.messages):
                counts[message.sender] += 1
                yield Point(
                    scenario=scenario,
                    kind="cut",
                    session=session,
                    sender=message.sender,
                    number=counts[message.sender],
                    type=message.type,
                    forward=False,
                    target=target,
                )

    def expect(self, other: Lab) -> None:
        """Expect what another one recorded."""
        self._expected = other._expected

    def attempt(self, point: Point, freeze_s: int = 3) -> bool:
        """
        Meet the fault, start once more, and compare; tell whether the point was met.

        A start that meets a freeze ends by GATE_TIMEOUT, after ``freeze_s``; where
        a busy machine took longer to come there, it is tried with more.

        Raises:
            NotSurvivedError: Something was lost, done twice, left behind or stuck.
        """
        scenario = point.scenario
        with ExitStack() as stack:
            database = stack.enter_context(self.database())
            standby = None
            if point.kind == "failover":
                standby = self._new_server(standby_of=self.server)
                stack.callback(self._close_unless_used, standby)
            self._prepare(scenario, database)
            if standby is not None:
                wait_for_replay(self.server, standby)
            self._aim(scenario)
            self.proxy.arm(point, self._action(point, standby))
            longest_s = self._patience_s
            patience_s = freeze_s if point.kind == "freeze" else longest_s
            limits = {"GATE_TIMEOUT": f"{patience_s}s"}
            if point.kind == "away":
                limits["GATE_WAIT_TIMEOUT"] = f"{AWAY_S}s"
            through = self.proxy.through(database)
            ended = self._run(scenario, through, **limits)
            late_s = time.monotonic() - self.proxy.fired_s
            was_met = self.proxy.fired.is_set()
            self.proxy.arm(None, lambda _: None)
            if not was_met and ended.how == (1, "deadline") and patience_s < longest_s:
                return self.attempt(point, freeze_s=2 * patience_s)
            self._judge(point, ended, was_met=was_met, late_s=late_s)
            database = self._find(database.name)
            self._start_again(scenario, database)
        return was_met

    def _start_again(self, scenario: Scenario, database: Database) -> None:
        """Require that another start finds, or completes, what was to be done."""
        again = self._run(scenario, database)
        self._require_end(scenario, again)
        if self.alone and again.applied:
            text = f"did what the first had ended without: {again.applied}"
            raise NotSurvivedError(text)
        self._compare(database, scenario, "first")
        if scenario.mended:
            self._mend(scenario, database)
            self._compare(database, scenario, "last")

    def _mend(self, scenario: Scenario, database: Database) -> None:
        files = {**scenario.files, **scenario.mended}
        ended = self._run(replace(scenario, files=files), database)
        if ended.exit_code != 0:
            text = f"the mended files close the gate: {ended.verdict}"
            raise NotSurvivedError(text)

    def _prepare(self, scenario: Scenario, database: Database) -> None:
        """Fill the database; apply the files, where another command is to be met."""
        if scenario.fleet == "schemas":
            database.execute(
                "".join(f"CREATE SCHEMA {name};" for name in scenario.targets)
            )
        elif scenario.fleet == "databases":
            with closing(self._admin()) as conn:
                for target in scenario.targets:
                    name = f"{database.name}_{target}"
                    conn.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        if scenario.before:
            with closing(database.connect()) as conn:
                conn.execute(scenario.before.encode())
        if not scenario.command:
            return
        ended = self._run(replace(scenario, command=()), database)
        if ended.exit_code != 0:
            text = f"the files close the gate: {ended.story}"
            raise NotSurvivedError(text)

    def _close_unless_used(self, standby: Server) -> None:
        if standby is not self.server:
            standby.close()

    def _admin(self) -> psycopg.Connection[Any]:
        return psycopg.connect(**self.server.conninfo, autocommit=True)  # type: ignore[arg-type]  # all of them are texts

    def _judge(
        self, point: Point, ended: Ended, *, was_met: bool, late_s: float
    ) -> None:
        """Require that the faulted run ended as it must, ``late_s`` after the fault."""
        scenario = point.scenario
        as_usual = scenario.ends_like(ended)
        self.alone = as_usual
        if not was_met or point.kind in SURVIVED_ALONE:
            allowed = as_usual
        elif point.kind == "away":
            allowed = as_usual or ended.exit_code == 1
        elif point.kind == "SIGKILL":
            allowed = as_usual or ended.exit_code == -signal.SIGKILL
        elif point.kind == "SIGTERM":
            allowed = as_usual or ended.how == (1, "interrupted")
        else:
            allowed = as_usual or ended.how == (1, "deadline")
        if not allowed:
            text = f"ended with {ended.story}"
            raise NotSurvivedError(text)
        if point.kind == "SIGTERM" and was_met and late_s > STOP_TIMEOUT_S:
            text = f"ended only {late_s:.1f} s after the signal, {ended.story}"
            raise NotSurvivedError(text)
        if point.kind in OF_ONE_TARGET and point.target in TARGETS:
            require_others_untouched(point.target, ended)

    def _action(self, point: Point, standby: Server | None) -> Callable[[Link], None]:
        def terminate(link: Link) -> None:
            with closing(self._admin()) as conn:
                conn.execute("SELECT pg_terminate_backend(%s)", [backend_of(link)])

        def fail_over(_: Link) -> None:
            assert standby is not None
            old, self.server = self.server, standby
            with contextlib.suppress(ServerError):  # it is killed then
                old.close()
            with closing(self._admin()) as conn:
                conn.execute("SELECT pg_promote(true, 20)")
            self.proxy.point_to(standby)
            self.proxy.cut()

        second = 1 + SECOND_STEP * point.number % SECOND_LATEST
        actions: Mapping[Kind, Callable[[Link], None]] = {
            "cut": lambda link: link.end(),
            "cut both": lambda _: self.proxy.cut(),
            "cut twice": lambda link: self.proxy.cut_again(link, second),
            "reset": self.proxy.tear,
            "freeze": lambda _: self.proxy.deaf(),
            "SIGKILL": lambda _: os.kill(self._forker.pids[0], signal.SIGKILL),
            "SIGTERM": lambda _: os.kill(self._forker.pids[0], signal.SIGTERM),
            "terminate": terminate,
            "restart": lambda _: self._restart(),
            "failover": fail_over,
            "away": lambda _: self.proxy.keep_away(point.target),
        }
        return actions[point.kind]

    def _run(self, scenario: Scenario, database: Database, **settings: str) -> Ended:
        files = scenario.files
        folder = self._folder / f"files-{abs(hash(tuple(files.items())))}"
        if not folder.exists():
            write_migrations(folder, files)
        environ = {
            **database.environ(),
            "GATE_MIGRATIONS": str(folder),
            "GATE_TERMINATION_LOG": str(self._folder / "termination-log"),
            "GATE_LOCK_WAIT_TIMEOUT": "20s",
            **list_targets(scenario, database),
            **scenario.settings,
            **settings,
        }
        timeout_s = self._patience_s + ENDS_IN_S
        (ended,) = self._forker.run([environ], timeout_s, scenario.command)
        return ended

    def _require_end(self, scenario: Scenario, ended: Ended) -> None:
        if not scenario.ends_like(ended):
            text = f"a start without a fault ended with {ended.story}"
            raise NotSurvivedError(text)

    def _compare(self, database: Database, scenario: Scenario, stage: str) -> None:
        expected, actual = (
            self._expected[scenario.name, stage],
            self._look(scenario, database),
        )
        for name, rows in expected.contents.items():
            if actual.contents[name] != rows:
                text = f'"{name}" has {actual.contents[name]} instead of {rows}'
                raise NotSurvivedError(text)
        if actual.schema != expected.schema:
            more = [row for row in actual.schema if row not in expected.schema]
            less = [row for row in expected.schema if row not in actual.schema]
            text = f"the schema has {more} instead of {less}"
            raise NotSurvivedError(text)

    def _look(self, scenario: Scenario, database: Database) -> State:
        if scenario.fleet is None:
            return self._look_at(database, pooled=scenario.pooled)
        if scenario.fleet == "schemas":
            for target in scenario.targets:
                database.execute(f"DROP TABLE IF EXISTS {target}.{FAILURES}")
        states = {
            target: self._look_at(targeted(database, target, scenario.fleet))
            for target in scenario.targets
        }
        return State(
            [(target, *row) for target, each in states.items() for row in each.schema],
            {
                f"{name} of {target}": rows
                for target, each in states.items()
                for name, rows in each.contents.items()
            },
        )

    def _look_at(self, database: Database, *, pooled: bool = False) -> State:
        with closing(database.connect()) as conn:
            wait_until_alone(conn, pooled=pooled)
            # Why an attempt failed: not each ending has one to tell.
            conn.execute(f"DROP TABLE IF EXISTS {FAILURES}")
            present = [
                name
                for name in CONTENTS
                if conn.execute("SELECT to_regclass(%s)", [name]).fetchone() != (None,)
            ]
            return State(
                conn.execute(SCHEMA).fetchall(),
                {name: conn.execute(CONTENTS[name]).fetchall() for name in present},
            )


def targeted(database: Database, target: str, kind: str) -> Database:
    """Return a target of a fleet as what it is for: a database, or a search path."""
    if kind == "databases":
        return database.changed(dbname=f"{database.name}_{target}")
    return database.changed(options=f"-c search_path={target}")


def list_targets(scenario: Scenario, database: Database) -> dict[str, str]:
    """Return the settings of a fleet; none for what is none."""
    if scenario.fleet is None:
        return {}
    prefix = "" if scenario.fleet == "schemas" else f"{database.name}_"
    rows = ", ".join(f"('{prefix}{target}'::text)" for target in scenario.targets)
    return {
        "GATE_TARGETS": f"{scenario.fleet}:VALUES {rows}",
        "GATE_TARGETS_AT_ONCE": str(len(scenario.targets)),
    }


def require_others_untouched(target: str, ended: Ended) -> None:
    """Require that a fleet's other targets are done, and had nothing to be told of."""
    others = len(TARGETS) - 1
    verdict = ended.verdict
    if verdict["done_count"] < others or verdict["failed_count"] > 1:
        text = f"others than {target} were not done: {verdict}"
        raise NotSurvivedError(text)
    for event in ended.events[:-1]:
        name = event.get("target", "")[-1:]
        if event["level"] != "info" and name != target:
            text = f"trouble of {name or 'all'} by that of {target}: {event}"
            raise NotSurvivedError(text)


def wait_until_alone(conn: psycopg.Connection[Any], *, pooled: bool) -> None:
    """
    Wait until nobody else is connected; then nobody may hold a lock.

    A pooler's connections stay, idle.
    """
    deadline = time.monotonic() + QUIET_TIMEOUT_S
    while others := conn.execute(OTHERS, [pooled]).fetchall():
        if time.monotonic() > deadline:
            text = f"sessions were left: {others}"
            raise NotSurvivedError(text)
        time.sleep(POLL_S)
    locks = conn.execute(LOCKS).fetchall()
    if locks:
        text = f"locks were left: {locks}"
        raise NotSurvivedError(text)


def wait_for_replay(primary: Server, standby: Server) -> None:
    """Wait until the standby has all that the primary has."""
    with (
        closing(psycopg.connect(**primary.conninfo, autocommit=True)) as source,  # type: ignore[arg-type]  # all of them are texts
        closing(psycopg.connect(**standby.conninfo, autocommit=True)) as copy,  # type: ignore[arg-type]
    ):
        (wanted,) = source.execute("SELECT pg_current_wal_lsn()").fetchone() or (None,)
        deadline = time.monotonic() + QUIET_TIMEOUT_S
        query = "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn"
        while copy.execute(query, [str(wanted)]).fetchone() != (True,):
            assert time.monotonic() < deadline, "the standby does not follow"
            time.sleep(POLL_S)


def backend_of(link: Link) -> int:
    """Return the process that serves a session, as it said itself; 0 before it did."""
    for message in link.messages:
        if message.sender == "server" and message.type == "K":
            return int(struct.unpack_from("!i", message.payload)[0])
    return 0


def to_kind(points: Sequence[Point], kind: Kind, every: int) -> list[Point]:
    """Return the points of one kind among the recorded messages."""
    chosen = [p for p in points if not p.target or is_turn_of(p)]
    if kind == "away":
        chosen = [p for p in chosen if p.target in TARGETS]
    if kind == "terminate":
        # Before it has said who it is, there is nobody to terminate.
        chosen = [p for p in chosen if p.sender == "server" or p.number > FIRST_ASKED]
    chosen = chosen[:: max(every, 1)]
    if kind in BOTH_SIDES:
        sides = itertools.product(chosen, (False, True))
        return [replace(p, kind=kind, forward=forward) for p, forward in sides]
    return [
        replace(p, kind=kind, forward=(index + p.number) % 2 == 0)
        for index, p in enumerate(chosen)
    ]


def is_turn_of(point: Point) -> bool:
    """Tell whether it is this target whose message of that number meets the fault."""
    turn = (point.session + point.number + (point.sender == "server")) % len(TARGETS)
    return point.target in {HOME, TARGETS[turn]}


# A session's first messages are the login's: startup, and twice SCRAM.
FIRST_ASKED: Final = 3


@dataclass(slots=True)
class Score:
    """What became of the points of one kind."""

    tried: int = 0
    survived: int = 0
    alone: int = 0
    missed: int = 0
    seconds: float = 0.0


class Campaign:
    """Points spread over several labs, and the score."""

    def __init__(self, labs: Sequence[Lab]) -> None:
        self._labs = labs
        self._guard = threading.Lock()
        self.scores: dict[Kind, Score] = {}
        self.failures: list[str] = []

    def run(self, points: Iterable[Point]) -> None:
        """Try each point on whichever lab is free."""
        queue = iter(points)
        with ThreadPoolExecutor(len(self._labs)) as pool:
            for future in [pool.submit(self._work, lab, queue) for lab in self._labs]:
                future.result()

    def _work(self, lab: Lab, queue: Iterator[Point]) -> None:
        while True:
            with self._guard:
                point = next(queue, None)
            if point is None:
                return
            self._try(lab, point)

    def _try(self, lab: Lab, point: Point) -> None:
        started_s = time.monotonic()
        fault, was_met = None, False
        try:
            was_met = lab.attempt(point)
        except NotSurvivedError as error:
            fault = str(error)
        except Exception as error:  # noqa: BLE001  # a point, not the whole campaign
            fault = f"{type(error).__name__}: {error}"
        with self._guard:
            score = self.scores.setdefault(point.kind, Score())
            score.seconds += time.monotonic() - started_s
            if fault is None and not was_met:
                score.missed += 1
                return
            score.tried += 1
            if fault is None:
                score.survived += 1
                score.alone += lab.alone
            else:
                self.failures.append(f"{point}: {fault}")
                say(f"NOT SURVIVED: {self.failures[-1]}")


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)  # noqa: T201  # the command's answer


def show(campaign: Campaign) -> None:
    """Print the table."""
    say("fault       tried  survived  alone  missed  seconds")
    everything = Score()
    for kind, score in campaign.scores.items():
        show_score(kind, score)
        for name in ("tried", "survived", "alone", "missed", "seconds"):
            total = getattr(everything, name) + getattr(score, name)
            setattr(everything, name, total)
    show_score("in all", everything)


def show_score(name: str, score: Score) -> None:
    """Print a line of the table."""
    say(
        f"{name:<10} {score.tried:>6} {score.survived:>9} {score.alone:>6} "
        f"{score.missed:>7} {score.seconds:>8.0f}"
    )


def main() -> int:
    """Try all points, or those that are asked for."""
    parser = argparse.ArgumentParser(prog="faults", description=__doc__)
    parser.add_argument("--kind", action="append", choices=list(EVERY))
    parser.add_argument(
        "--scenario", action="append", choices=[s.name for s in SCENARIOS]
    )
    parser.add_argument("--every", type=int, default=1, help="of the points, each Nth")
    parser.add_argument("--labs", type=int, default=2 * (os.cpu_count() or 1))
    parser.add_argument("--patience", type=int, default=PATIENCE_S, help="of a run, s")
    wanted = parser.parse_args()
    started_s = time.monotonic()
    if installed_program() is None:
        install_program()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        labs = [
            stack.enter_context(Lab(f"faults-{n}", folder, wanted.patience))
            for n in range(wanted.labs)
        ]
        campaign = Campaign(labs)
        for scenario in SCENARIOS:
            if wanted.scenario and scenario.name not in wanted.scenario:
                continue
            recorded = labs[0].record(scenario)
            for lab in labs[1:]:
                lab.expect(labs[0])
            say(f'scenario "{scenario.name}": {len(recorded)} messages')
            for kind, every in EVERY.items():
                if kind not in scenario.kinds.intersection(wanted.kind or EVERY):
                    continue
                campaign.run(to_kind(recorded, kind, every * wanted.every))
                met = campaign.scores.get(kind, Score())
                say(f"  {kind}: {met.tried} so far")
        show(campaign)
    say(f"{len(campaign.failures)} not survived, {time.monotonic() - started_s:.0f} s")
    return 1 if campaign.failures else 0


if __name__ == "__main__":
    sys.exit(main())
