"""
Many gates at once before one database, on any route: how they end, and what it costs.

    python -m tests.herd

prints a table of herds: how many opened, how often files were attempted, connections
at one moment, errors in the server's log, seconds.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal, Self

from dev.postgres import Server
from tests.fix_gate import write_migrations
from tests.fix_pgbouncer import PgBouncer
from tests.fix_postgres import Database, Databases, look_at
from tests.forks import Ended, Forker


Route = Literal["direct", "session", "transaction"]

POLL_S: Final = 0.02
TIMEOUT_S: Final = 60.0
GATES: Final = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = %s AND application_name LIKE 'migration-gate/%%'
"""

# Fails where two gates run one file at the same time, and counts every attempt.
ALONE: Final = """
SELECT nextval('attempts');
DO $$ BEGIN
    IF NOT pg_try_advisory_xact_lock(42) THEN RAISE EXCEPTION 'two at once'; END IF;
END $$;
"""
ATTEMPTS: Final = "CREATE SEQUENCE attempts; CREATE TABLE calls (what text);"
PENDING: Final[Mapping[str, str]] = MappingProxyType(
    {
        f"{number:03}_x.sql": ALONE + f"INSERT INTO calls VALUES ('{number}');"
        for number in range(50)
    }
)
ONE: Final[Mapping[str, str]] = MappingProxyType({"1_x.sql": "CREATE TABLE x ();"})
FAILING: Final[Mapping[str, str]] = MappingProxyType(
    {
        "001_x.sql": ALONE + "INSERT INTO calls VALUES ('1');",
        "002_fails.sql": ALONE + "INSERT INTO calls VALUES ('2'); SELECT 1/0;",
        "003_x.sql": ALONE + "INSERT INTO calls VALUES ('3');",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a herd ended; `connections_max` counts those of gates at one moment."""

    ended: tuple[Ended, ...]
    connections_max: int
    duration_s: float

    @property
    def hows(self) -> dict[tuple[int, str | None], int]:
        """How many ended in which way."""
        hows = [each.how for each in self.ended]
        return {how: hows.count(how) for how in sorted(set(hows), key=str)}

    @property
    def applied(self) -> list[str]:
        """What all of them together say that they applied."""
        return sorted(version for each in self.ended for version in each.applied)


class Census:
    """Counts the gates' connections now and then, as a context manager."""

    def __init__(self, database: Database) -> None:
        self.counts: list[int] = []
        self._database = database
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._count)

    def __enter__(self) -> Self:
        self._conn = self._database.server.connect()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()
        self._conn.close()

    def _count(self) -> None:
        while not self._is_over.wait(POLL_S):
            row = self._conn.execute(GATES, [self._database.name]).fetchone()
            assert row is not None
            self.counts.append(row[0])


class Herd:
    """Starts gates at the same moment; every one ships the same files."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._forker = Forker(folder)

    def close(self) -> None:
        """End what runs."""
        self._forker.close()

    def run(
        self,
        database: Database,
        files: Mapping[str, str],
        routes: Sequence[Database],
        **settings: str,
    ) -> Outcome:
        """Start a gate on each route to the database, and wait for all."""
        self.start(files, routes, **settings)
        return self.wait(database)

    def start(
        self, files: Mapping[str, str], routes: Sequence[Database], **settings: str
    ) -> None:
        """Start a gate on each route."""
        folder = self._folder / f"files-{abs(hash(tuple(files.items())))}"
        write_migrations(folder, files)
        self._started_s = time.monotonic()
        self._forker.start(
            [
                {**route.environ(), "GATE_MIGRATIONS": str(folder), **settings}
                for route in routes
            ]
        )

    def wait(self, database: Database) -> Outcome:
        """Wait for all that were started."""
        with Census(database) as census:
            ended = self._forker.wait(TIMEOUT_S)
        counts = census.counts or [0]
        return Outcome(
            ended=tuple(ended),
            connections_max=max(counts),
            duration_s=time.monotonic() - self._started_s,
        )

    def log(self, number: int) -> str:
        """Return what one has logged so far."""
        try:
            return (self._folder / f"fork-{number}" / "stdout").read_text("utf-8")
        except FileNotFoundError:
            return ""


@contextmanager
def new_database(**settings: str) -> Iterator[Database]:
    """Make a server of its own with a database."""
    with Server("herd", settings=settings) as server:
        shared = look_at(server.conninfo, server)
        with Databases(server=shared) as databases:
            database = databases.create()
            database.execute(ATTEMPTS)
            yield database


def count_attempts(database: Database) -> int:
    """Return how often files were run."""
    called = "CASE WHEN is_called THEN last_value ELSE 0 END"
    ((count,),) = database.fetch(f"SELECT {called} FROM attempts")
    return int(count)


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)  # noqa: T201  # the command's answer


def show(name: str, attempts: int, outcome: Outcome, errors: int) -> None:
    """Print a line of the table, for a page in Markdown."""
    opened = outcome.hows.get((0, None), 0)
    say(
        f"| {name} | {len(outcome.ended)} | {opened} | {attempts} |"
        f" {outcome.connections_max} | {errors} | {outcome.duration_s:.1f} |"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A line of the table; `room` is max_connections."""

    name: str
    files: Mapping[str, str]
    count: int = 50
    room: int = 200
    routes: Sequence[Route] = ("direct",)


CASES: Final = (
    Case(name="50 pending", files=PENDING),
    Case(name="50 pending, room for 20", files=PENDING, room=20),
    Case(name="nothing pending, room for 100", files=ONE, count=200, room=100),
    Case(name="the second of three files fails", files=FAILING),
    Case(name="50 pending, session pooler", files=PENDING, routes=("session",)),
    Case(name="50 pending, transaction pooler", files=PENDING, routes=("transaction",)),
    Case(
        name="50 pending, direct and both poolers",
        files=PENDING,
        routes=("direct", "session", "transaction"),
    ),
)


def run_case(case: Case, folder: Path) -> None:
    """Run one herd on a server of its own, and print its line."""
    with ExitStack() as stack:
        room = str(case.room)
        database = stack.enter_context(new_database(max_connections=room))
        herd = stack.enter_context(closing(Herd(folder / "herd")))
        routes = []
        for route in case.routes:
            reached = database
            if route != "direct":
                settings = {"pool_mode": route, "default_pool_size": "60"}
                pooler = PgBouncer(folder / route / "x", database, settings, "*")
                reached = stack.enter_context(pooler).through(database)
            routes.append(reached)
        if case.files is ONE:
            herd.run(database, case.files, routes)
        gates = [route for route, _ in zip(cycle(routes), range(case.count))]
        outcome = herd.run(database, case.files, gates)
        errors = database.server.log.count(" ERROR: ")
        show(case.name, count_attempts(database), outcome, errors)


def main() -> int:
    """Print the table of all herds."""
    say("| herd | gates | opened | attempts | connections at most | errors | seconds |")
    say("| --- | --- | --- | --- | --- | --- | --- |")
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            run_case(case, Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
