"""
Whatever a gate is doing, a stop ends it in time and leaves nothing behind.

Each phase as PID 1 with a full disk behind its log, and with a closed stdout; and with
the usual pipes until its time is over. The other files have signals with those.
"""

from __future__ import annotations

import functools
import json
import signal
import socket
import subprocess
import threading
import time

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psycopg
import pytest

from psycopg.rows import TupleRow

from migration_gate.session.lock import lock_keys
from tests.bare import (
    FILES,
    NAMESPACE,
    SLOW,
    STOP_LIMIT_S,
    Bare,
    end,
    needs_namespaces,
    read_until,
    signal_child,
)
from tests.commands.test_stop import (
    SLOW_COMMIT,
    is_sleeping,
    lock_taken,
    require_nothing_left,
)
from tests.fix_gate import Gate
from tests.fix_postgres import Database, Databases
from tests.fix_proxy import Proxy
from tests.polling import until


# Servers of their own, and waiting: a loaded machine needs longer.
pytestmark = pytest.mark.timeout(60)
KEYS: Final = lock_keys("public", "schema_migrations")
QUERIES: Final = """
SELECT query, coalesce(wait_event_type, '') FROM pg_stat_activity
WHERE application_name LIKE 'migration-gate/%%' AND query LIKE %s
"""
BUSY: Final = {"001_busy.sql": "CREATE TABLE made (); ALTER TABLE busy ADD x int;"}
INDEX: Final = {"001_index.sql": "CREATE INDEX CONCURRENTLY i ON busy (id);"}


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Where a gate finds itself: its settings and files, and when it is there."""

    environ: Mapping[str, str]
    is_there: Callable[[], object]
    migrations: Mapping[str, str] = field(default_factory=lambda: FILES)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What a scene is made of; what it opens is closed after the test."""

    database: Database
    databases: Databases
    proxy: Proxy
    stack: ExitStack

    def connect(self, database: Database | None = None) -> psycopg.Connection[TupleRow]:
        """Return a connection of somebody else."""
        there = database or self.database
        return self.stack.enter_context(closing(there.connect()))

    def does(self, pattern: str, waiting_for: str = "") -> bool:
        """Whether a gate's session runs such a query, and waits so."""
        found = self.watcher.execute(QUERIES, [pattern]).fetchall()
        return any(waiting_for in wait for _, wait in found)

    @functools.cached_property
    def watcher(self) -> psycopg.Connection[TupleRow]:
        """A connection for looks, which are many."""
        return self.connect()


def connecting(stage: Stage) -> Scene:
    """The port accepts and says nothing."""
    stage.proxy.deaf()
    environ = stage.proxy.through(stage.database).environ()
    return Scene(environ=environ, is_there=lambda: stage.proxy.links)


def waiting(stage: Stage) -> Scene:
    """Each attempt is closed at once: the gate pauses."""
    port, seen = stage.stack.enter_context(closing_door())
    environ = stage.database.environ() | {"POSTGRES_PORT": str(port)}
    return Scene(environ=environ, is_there=lambda: len(seen) > 2)


def refused(stage: Stage) -> Scene:
    """The longest pause, after a refusal."""
    wrong = stage.database.changed(password="wr0ng-Pa55phrase")
    told = "password authentication failed"
    return Scene(environ=wrong.environ(), is_there=lambda: told in wrong.server.log)


def creating(stage: Stage) -> Scene:
    """CREATE DATABASE waits for a session in template1."""
    stage.connect(stage.database.changed(dbname="template1"))
    missing = stage.databases.name()
    return Scene(
        environ=missing.environ() | {"GATE_CREATE_DATABASE": "true"},
        is_there=lambda: stage.does(f'CREATE DATABASE "{missing.name}"'),
    )


def looking(stage: Stage) -> Scene:
    """A session has locked the history."""
    other = stage.connect()
    other.execute(
        "CREATE TABLE schema_migrations (version text PRIMARY KEY,"
        " applied_at timestamp NOT NULL DEFAULT now())"
    )
    other.execute("BEGIN")
    other.execute("LOCK TABLE schema_migrations")
    stage.stack.callback(other.execute, "ROLLBACK")
    return Scene(
        environ=stage.database.environ(),
        is_there=lambda: stage.does("%json_build_array%", "Lock"),
    )


def queueing(stage: Stage) -> Scene:
    """Another gate has the lock."""
    stage.stack.enter_context(lock_taken(stage.database))
    return Scene(
        environ=stage.database.environ(),
        is_there=lambda: (
            stage.does("%WITH RECURSIVE login%") or stage.does("%advisory%")
        ),
    )


def orphaned(stage: Stage) -> Scene:
    """A killed gate's backend still runs a migration."""
    orphan = stage.connect()
    orphan.execute("SELECT pg_advisory_lock_shared(%s)", [KEYS.work])
    orphan.pgconn.send_query(b"SELECT pg_sleep(60)")
    stage.stack.callback(orphan.cancel)
    return Scene(
        environ=stage.database.environ(),
        is_there=lambda: len(locks(stage.database)) > 1,
    )


def working(stage: Stage) -> Scene:
    """A statement runs."""
    return sleeping(stage, SLOW)


def committing(stage: Stage) -> Scene:
    """A deferred trigger works while COMMIT is on its way."""
    return sleeping(stage, SLOW_COMMIT)


def sleeping(stage: Stage, migrations: Mapping[str, str]) -> Scene:
    """Wait until a file's statement sleeps."""
    return Scene(
        environ=stage.database.environ(),
        migrations=migrations,
        is_there=lambda: is_sleeping(stage.database),
    )


def blocked(stage: Stage) -> Scene:
    """A statement waits for a table's lock."""
    lock_busy(stage)
    return Scene(
        environ=stage.database.environ() | {"GATE_DDL_LOCK_TIMEOUT": "60s"},
        migrations=BUSY,
        is_there=lambda: stage.does("%", "Lock"),
    )


def pausing(stage: Stage) -> Scene:
    """It did not get its lock, and will try again."""
    lock_busy(stage)
    return Scene(
        environ=stage.database.environ() | {"GATE_DDL_LOCK_TIMEOUT": "50ms"},
        migrations=BUSY,
        is_there=lambda: "ALTER TABLE busy" in stage.database.log,
    )


def indexing(stage: Stage) -> Scene:
    """CREATE INDEX CONCURRENTLY waits for an older transaction, without a limit."""
    lock_busy(stage)
    return Scene(
        environ=stage.database.environ(),
        migrations=INDEX,
        is_there=lambda: stage.does("%", "Lock"),
    )


PHASES: Final = (
    *(connecting, waiting, refused, creating, looking, queueing, orphaned),
    *(working, committing, blocked, pausing, indexing),
)
in_each_phase = pytest.mark.parametrize("phase", PHASES, ids=lambda p: p.__name__)


def lock_busy(stage: Stage) -> None:
    """Make a table that somebody else has in use."""
    other = stage.connect()
    other.execute("CREATE TABLE busy (id int)")
    other.execute("BEGIN")
    other.execute("LOCK TABLE busy IN ACCESS SHARE MODE; SELECT count(*) FROM busy")
    other.execute("INSERT INTO busy VALUES (1)")
    stage.stack.callback(other.execute, "ROLLBACK")


def locks(database: Database) -> list[tuple[object, ...]]:
    """Return the advisory locks of this database."""
    return database.fetch(
        "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND database ="
        " (SELECT oid FROM pg_database WHERE datname = current_database())"
    )


@contextmanager
def closing_door() -> Iterator[tuple[int, list[None]]]:
    """Listen, and close every connection at once; they are counted."""
    seen: list[None] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    listener.accept()[0].close()
                except OSError:
                    return
                seen.append(None)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listener.getsockname()[1], seen
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.fixture
def stage(database: Database, databases: Databases, proxy: Proxy) -> Iterator[Stage]:
    """Return what scenes are made of."""
    with ExitStack() as stack:
        yield Stage(database=database, databases=databases, proxy=proxy, stack=stack)


@pytest.fixture
def bare(tmp_path: Path) -> Bare:
    """Return what starts a gate."""
    return Bare(tmp_path)


def require_end(
    bare: Bare, stage: Stage, reason: str, process: subprocess.Popen[bytes]
) -> None:
    """Find exit code 1 in time, the verdict, and nothing left on the server."""
    assert end(process) == 1
    assert bare.verdict["reason"] == reason
    require_nothing_anywhere(stage)


def require_nothing_anywhere(stage: Stage) -> None:
    """Find nothing left on the server, nor a database that would have been made."""
    stage.proxy.cut()
    stage.stack.close()  # other sessions' locks would hide what is left
    require_nothing_left(stage.database)
    absent = "SELECT FROM pg_stat_activity WHERE query LIKE 'CREATE DATABASE%%'"
    until(lambda: not stage.database.fetch(f"{absent} AND state = 'active'"))


@needs_namespaces
@in_each_phase
def test_as_pid_1_with_a_full_disk_a_signal_ends_it(
    bare: Bare, stage: Stage, phase: Callable[[Stage], Scene]
) -> None:
    """The kernel gives PID 1 no signal without a handler; no line can be written."""
    scene = phase(stage)
    with Path("/dev/full").open("wb") as full:
        process = bare.start(
            scene.environ,
            before=NAMESPACE,
            migrations=scene.migrations,
            stdout=full.fileno(),
        )
    until(scene.is_there)
    signal_child(process, signal.SIGTERM)
    require_end(bare, stage, "interrupted", process)


@in_each_phase
def test_with_a_closed_stdout_two_signals_end_it_as_one(
    bare: Bare, stage: Stage, phase: Callable[[Stage], Scene]
) -> None:
    """A person presses Ctrl-C, and the pod is deleted."""
    scene = phase(stage)
    process = bare.start(
        scene.environ,
        before=("sh", "-c", 'exec "$@" >&-', "sh"),
        migrations=scene.migrations,
    )
    until(scene.is_there)
    process.send_signal(signal.SIGINT)
    time.sleep(0.05)  # while it cleans up
    process.send_signal(signal.SIGTERM)
    require_end(bare, stage, "interrupted", process)
    assert bare.verdict["error_message"].partition(":")[0] == "stopped by SIGINT"


@in_each_phase
def test_its_time_ends_it(
    gate: Gate, stage: Stage, phase: Callable[[Stage], Scene]
) -> None:
    """GATE_TIMEOUT is over: the verdict is written before."""
    scene = phase(stage)
    environ = {**scene.environ, "GATE_TIMEOUT": "5s"}
    process = gate.start(env=environ, migrations=scene.migrations)
    until(scene.is_there, 5)
    run = process.wait(STOP_LIMIT_S)
    verdict = json.loads(run.termination_log)
    assert (run.exit_code, verdict["reason"]) == (1, "deadline")
    require_nothing_anywhere(stage)
    assert 3000 < verdict["duration_ms"] < 5000


@needs_namespaces
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_as_pid_1_each_signal_ends_it(
    bare: Bare, stage: Stage, number: signal.Signals
) -> None:
    """With the usual pipes, in a statement."""
    scene = working(stage)
    process = bare.start(scene.environ, before=NAMESPACE, migrations=SLOW)
    read_until(process, "migration.started")
    until(scene.is_there)
    started_s = time.monotonic()
    signal_child(process, number)
    require_end(bare, stage, "interrupted", process)
    assert time.monotonic() - started_s < STOP_LIMIT_S
    assert bare.verdict["error_message"].startswith(f"stopped by {number.name}: ")
