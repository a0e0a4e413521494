"""A container that is stopped, in whatever it does, ends like any other stop."""

from __future__ import annotations

import json
import signal
import time

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from migration_gate.session.lock import lock_keys
from tests.bare import FILES, SLOW, STOP_LIMIT_S
from tests.commands.test_stop import SLOW_COMMIT
from tests.fix_gate import Event, write_migrations
from tests.fix_image import HARDENED, IMAGE, ContainerDatabase, docker
from tests.polling import until


pytestmark = [pytest.mark.docker, pytest.mark.timeout(120)]
STOPS: Mapping[signal.Signals, tuple[str, ...]] = {
    signal.SIGTERM: ("stop", "--time", "20"),
    signal.SIGINT: ("kill", "--signal", "INT"),
    signal.SIGHUP: ("kill", "--signal", "HUP"),
}
KEY = lock_keys("public", "schema_migrations").lock
SESSIONS = (
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE application_name LIKE 'migration-gate/%'"
)
SLEEPS = f"{SESSIONS} AND wait_event = 'PgSleep'"
MADE = "SELECT count(*) FROM pg_class WHERE relname = 'made'"


@dataclass(frozen=True, kw_only=True)
class Phase:
    """How a gate is brought where it is to be stopped, and what tells that it is."""

    event: str
    migrations: Mapping[str, str] = field(default_factory=lambda: FILES)
    environ: Mapping[str, str] = field(default_factory=dict)
    sleeps: bool = False
    is_locked: bool = False


PHASES = {
    "waiting": Phase(
        event="database.retry_scheduled", environ={"POSTGRES_HOST": "nobody"}
    ),
    "queueing": Phase(event="lock.waiting", is_locked=True),
    "working": Phase(event="migration.started", migrations=SLOW, sleeps=True),
    "committing": Phase(event="migration.started", migrations=SLOW_COMMIT, sleeps=True),
}


@contextmanager
def container(database: ContainerDatabase, phase: Phase, folder: Path) -> Iterator[str]:
    """Run a gate's container, and remove it."""
    files = write_migrations(folder / "migrations", phase.migrations)
    folder.chmod(0o755)
    environ = {**database.environ(), **phase.environ}
    name = docker(
        *("run", "--detach", "--network", database.network, *HARDENED),
        *(f"--env={key}={value}" for key, value in environ.items()),
        *("--volume", f"{files}:/migrations:ro", IMAGE),
    ).stdout.strip()
    try:
        yield name
    finally:
        docker("rm", "--force", name)


def events(name: str) -> list[Event]:
    """Return what a container has logged on stdout."""
    return [json.loads(line) for line in docker("logs", name).stdout.splitlines()]


def count(database: ContainerDatabase, query: str) -> int:
    """Return the number that a query gives."""
    return int(database.execute(f"{query};"))


@contextmanager
def lock_held(database: ContainerDatabase, *, wanted: bool) -> Iterator[None]:
    """Have another session hold the gates' lock, if that is wanted."""
    if wanted:
        sql = f"SELECT pg_advisory_lock({KEY}), pg_sleep(100)"
        psql = ("psql", "-U", "postgres", "-c", sql)
        docker("exec", "--detach", database.container, *psql)
        until(
            lambda: count(
                database,
                "SELECT count(*) FROM pg_locks WHERE granted AND locktype = 'advisory'",
            )
        )
    try:
        yield
    finally:
        database.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_locks"
            " WHERE locktype = 'advisory' AND granted AND pid <> pg_backend_pid();"
        )


def is_there(
    database: ContainerDatabase, name: str, phase: Phase
) -> Callable[[], bool]:
    """Return the question whether a gate is where it is to be stopped."""
    return lambda: (
        phase.event in {event["event"] for event in events(name)}
        and (not phase.sleeps or count(database, SLEEPS) == 1)
    )


@pytest.mark.parametrize("number", STOPS, ids=lambda number: number.name)
@pytest.mark.parametrize("phase", PHASES.values(), ids=PHASES)
def test_a_stopped_container_ends_in_time(
    container_database: ContainerDatabase,
    tmp_path: Path,
    phase: Phase,
    number: signal.Signals,
) -> None:
    """Exit code 1, the verdict in the log, and nothing left on the server."""
    database = container_database
    with (
        lock_held(database, wanted=phase.is_locked),
        container(database, phase, tmp_path) as name,
    ):
        try:
            until(is_there(database, name, phase), 30)
        except AssertionError:
            pytest.fail(docker("logs", name).stdout)
        started_s = time.monotonic()
        docker(*STOPS[number], name)
        exit_code = int(docker("wait", name).stdout)
        took_s = time.monotonic() - started_s
        verdict = events(name)[-1]
        until(lambda: count(database, SESSIONS) == 0)
    assert exit_code == 1
    assert took_s < STOP_LIMIT_S
    assert verdict["reason"] == "interrupted"
    assert verdict["error_message"].startswith(f"stopped by {number.name}: ")
    assert count(database, MADE) == 0
