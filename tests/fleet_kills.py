"""
Workers of one fleet, started, killed and restarted at random: each target once.

    python -m tests.fleet_kills [--runs N] [--first SEED] [--kind KIND] [--keep FOLDER]

A run has 50 targets and up to 16 workers. These are added, killed (SIGKILL), stopped
(SIGTERM), replaced and taken away; what is left then ends by itself. Prints how workers
ended, and exits 1 where a run is not right: with the whole log of each of its workers
in FOLDER.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

import psycopg
import pytest

from psycopg import sql
from psycopg.rows import TupleRow

from dev.postgres import Server
from tests.fix_gate import Gate, Process, Run, write_migrations
from tests.fix_postgres import SETTINGS, Database, Databases, hash_cheaply, look_at


Kind = Literal["schemas", "databases"]
Seen = Mapping[str, tuple[list[TupleRow], list[TupleRow]]]

# What runs twice leaves a row too many, or fails.
FILES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "001_made.sql": "CREATE TABLE made (id int); INSERT INTO made VALUES (1);",
        "002_more.sql": "INSERT INTO made VALUES (2);",
        "003_index.sql": "CREATE INDEX CONCURRENTLY made_index ON made (id);\n"
        "INSERT INTO made VALUES (3);",
        "004_last.sql": "INSERT INTO made VALUES (4);",
    }
)
ROWS: Final = [(1,), (2,), (3,), (4,)]
VERSIONS: Final = [(version,) for version in sorted(FILES)]
TARGETS: Final = 50
SIZES: Final = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16)
KILLS: Final = (2, 14)
PAUSES_S: Final = (0.0, 0.3)
END_TIMEOUT_S: Final = 90.0
# 5 s is what a gate promises; this machine may be busy with sixteen of them.
STOP_TIMEOUT_S: Final = 7.0
# Sixteen at 50 databases are 800 connections.
IDLE_TIMEOUT_S: Final = 60.0
IDLE_WORKERS: Final = (0, 0, 0, 0, 0, 0, 1, 4, 16)
BEGUN: Final = '"event": "fleet.started"'
POLL_S: Final = 0.02
LEFT: Final = """
SELECT application_name, state, query FROM pg_stat_activity
WHERE application_name LIKE 'migration-gate/%' AND state <> 'idle'
"""
INVALID: Final = "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid"


class NotRightError(Exception):
    """What was found of a run that should not be."""


@dataclass(slots=True)
class Worker:
    """A gate at the fleet, and the signals that it was sent."""

    index: int
    process: Process
    sent: list[signal.Signals] = field(default_factory=list)
    sent_s: float = 0.0
    ended_s: float = 0.0

    def send(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self.process.is_running:
            self.sent.append(number)
            self.sent_s = self.sent_s or time.monotonic()
            self.process.signal(number)

    def look(self) -> bool:
        """Return whether it has ended, and note when."""
        if self.process.is_running:
            return False
        self.ended_s = self.ended_s or time.monotonic()
        return True


@dataclass(frozen=True, slots=True)
class Fleet:
    """The targets, as they are reached, and what lists them."""

    home: Database
    names: Sequence[str]
    kind: Kind

    @property
    def listing(self) -> str:
        """Return GATE_TARGETS."""
        if self.kind == "schemas":
            query = "SELECT nspname FROM pg_namespace WHERE nspname ~ '^t[0-9]+$'"
            return f"schemas:{query} ORDER BY 1"
        names = sql.SQL(", ").join(self.names).as_string()
        return f"databases:SELECT unnest(ARRAY[{names}])"

    def look(self) -> Seen:
        """Return the rows and the versions of each target."""
        if self.kind == "databases":
            seen = {}
            for name in self.names:
                with closing(self.home.changed(dbname=name).connect()) as conn:
                    seen[name] = _look_at(conn, "public")
            return seen
        with closing(self.home.connect()) as conn:
            return {name: _look_at(conn, name) for name in self.names}


def _look_at(
    conn: psycopg.Connection[TupleRow], schema: str
) -> tuple[list[TupleRow], list[TupleRow]]:
    made = sql.SQL("SELECT id FROM {} ORDER BY id")
    history = sql.SQL("SELECT version::text FROM {} ORDER BY 1")
    try:
        found = (
            conn.execute(made.format(sql.Identifier(schema, "made"))).fetchall(),
            conn.execute(
                history.format(sql.Identifier(schema, "schema_migrations"))
            ).fetchall(),
        )
    except psycopg.errors.UndefinedTable:
        return [], []
    invalid = conn.execute(INVALID).fetchall()
    if invalid:
        text = f"indexes were left invalid: {invalid}"
        raise NotRightError(text)
    return found


def require_once(fleet: Fleet) -> None:
    """Each target is at its version, and each file has run once."""
    wrong = {
        name: found for name, found in fleet.look().items() if found != (ROWS, VERSIONS)
    }
    if wrong:
        text = f"{len(wrong)} targets are not right: {dict(list(wrong.items())[:3])}"
        raise NotRightError(text)


class Disturbance:
    """One run: starts workers, does things to them, and judges how each ended."""

    def __init__(self, gate: Gate, fleet: Fleet, files: Path, seed: int) -> None:
        self.workers: list[Worker] = []
        self.ends: Counter[str] = Counter()
        self.faults: list[str] = []
        self.idle_s = 0.0
        self._gate = gate
        self._fleet = fleet
        self._files = files
        self._chance = random.Random(seed)  # noqa: S311  # not a secret
        self._is_known_done = False

    def run(self) -> None:
        """Disturb, let end, and look."""
        self._disturb()
        self._let_end()
        try:
            require_once(self._fleet)
            self._require_none_left()
        except NotRightError as error:
            self.faults.append(str(error))
        for worker in self.workers:
            self._judge(worker)
        self._start_on_idle()

    def _running(self) -> list[Worker]:
        running = [worker for worker in self.workers if not worker.look()]
        if len(running) < len(self.workers):
            self._require_truth()
        return running

    def _require_truth(self) -> None:
        """Exit code 0 of any worker speaks for the whole fleet, from then on."""
        if self._is_known_done or not any(
            worker.ended_s and worker.process.exit_code == 0 for worker in self.workers
        ):
            return
        self._is_known_done = True
        try:
            require_once(self._fleet)
        except NotRightError as error:
            self.faults.append(f"a worker ended with 0, and {error}")

    def _disturb(self) -> None:
        """Until so many are killed or stopped, or all is done before."""
        chance = self._chance
        size, kills = chance.choice(SIZES), chance.randint(*KILLS)
        until_s = time.monotonic() + END_TIMEOUT_S
        while kills and not self._is_known_done and time.monotonic() < until_s:
            running = self._running()
            if len(running) < size and (chance.random() < 0.5 or not running):
                self._start(len(self.workers) % max(SIZES))
            elif len(running) > size or chance.random() < 0.8:
                kills -= self._end_one(running)
            elif chance.random() < 0.2:
                size = chance.choice(SIZES)
            time.sleep(chance.uniform(*PAUSES_S))

    def _end_one(self, running: Sequence[Worker]) -> bool:
        """Kill or stop one, mostly at its work, and perhaps start another for it."""
        chance = self._chance
        at_work = [worker for worker in running if BEGUN in worker.process.output]
        victims = at_work if chance.random() < 0.95 else running
        if not victims:
            return False
        victim = chance.choice(victims)
        victim.send(chance.choice([signal.SIGKILL, signal.SIGTERM]))
        if chance.random() < 0.7:
            self._start(victim.index)
        return True

    def _start(self, index: int) -> None:
        chance = self._chance
        env = {
            "GATE_TARGETS": self._fleet.listing,
            "GATE_TARGETS_AT_ONCE": str(chance.randint(1, 4)),
            "GATE_CANARIES": str(chance.choice([0, 0, 2])),
        }
        if chance.random() < 0.7:
            env["JOB_COMPLETION_INDEX"] = str(index)
        process = self._gate.start(
            database=self._fleet.home, migrations=self._files, env=env
        )
        self.workers.append(Worker(index, process))

    def _let_end(self) -> None:
        if not any(not worker.sent for worker in self._running()):
            self._start(0)
        until_s = time.monotonic() + END_TIMEOUT_S
        while self._running() and time.monotonic() < until_s:
            time.sleep(POLL_S)

    def _require_none_left(self) -> None:
        until_s = time.monotonic() + STOP_TIMEOUT_S
        with closing(self._fleet.home.connect()) as conn:
            while left := conn.execute(LEFT).fetchall():
                if time.monotonic() > until_s:
                    text = f"sessions were left at work: {left}"
                    raise NotRightError(text)
                time.sleep(POLL_S)

    def _judge(self, worker: Worker) -> None:
        """Note how a worker ended, and whether it may end so."""
        try:
            run = worker.process.wait(0.1)
        except (pytest.fail.Exception, AssertionError) as failure:
            self.ends["wrong"] += 1
            self.faults.append(str(failure)[:500])
            return
        how = _name_end(run, worker.sent)
        self.ends[how or "wrong"] += 1
        if how is None:
            last = run.stdout.splitlines()[-1:] or [run.stderr[-500:]]
            self.faults.append(f"ended with {run.exit_code} ({worker.sent}): {last[0]}")
        late_s = worker.ended_s - worker.sent_s if worker.sent else 0.0
        if late_s > STOP_TIMEOUT_S:
            self.faults.append(f"ended only {late_s:.1f} s after {worker.sent}")

    def _start_on_idle(self) -> None:
        """Workers that find nothing to do end in seconds."""
        started_s = time.monotonic()
        begun = len(self.workers)
        for index in range(self._chance.choice(IDLE_WORKERS)):
            self._start(index)
        for worker in self.workers[begun:]:
            run = worker.process.wait(END_TIMEOUT_S)
            if run.exit_code or run.verdict["applied_count"]:
                self.faults.append(f"on an idle fleet: {run.verdict}")
        self.idle_s = time.monotonic() - started_s
        if self.idle_s > IDLE_TIMEOUT_S:
            self.faults.append(f"an idle fleet took {self.idle_s:.1f} s")

    def keep(self, folder: Path) -> None:
        """Write what each worker has said."""
        folder.mkdir(parents=True, exist_ok=True)
        for number, worker in enumerate(self.workers):
            sent = "-".join(each.name for each in worker.sent) or "free"
            name = f"{number:02}-{sent}-{worker.process.exit_code}.log"
            (folder / name).write_text(worker.process.output, "utf-8")


def _name_end(run: Run, sent: Sequence[signal.Signals]) -> str | None:
    """Return in which of the ways that are right a worker ended; None in no such."""
    if run.exit_code == 0:
        verdict = run.verdict
        known = [verdict.get(f"{n}_count") for n in ("target", "done", "left")]
        return "0" if known == [TARGETS, TARGETS, 0] else None
    if signal.SIGKILL in sent and run.exit_code == -signal.SIGKILL:
        return "SIGKILL"
    if signal.SIGTERM not in sent:
        return None
    if run.exit_code == -signal.SIGTERM and not run.events:
        return "SIGTERM, before it was a gate"
    if run.exit_code == 1 and run.verdict.get("reason") == "interrupted":
        return "1, interrupted"
    return None


def new_fleet(databases: Databases, kind: Kind) -> Fleet:
    """Make targets."""
    home = databases.create()
    if kind == "databases":
        made = [databases.create() for _ in range(TARGETS)]
        return Fleet(home, [each.name for each in made], kind)
    return Fleet(home, [f"t{number:02}" for number in range(TARGETS)], kind)


def empty(fleet: Fleet) -> None:
    """Let there be nothing in the targets."""
    make = "DROP SCHEMA IF EXISTS {0} CASCADE; CREATE SCHEMA {0};"
    for name in fleet.names:
        if fleet.kind == "databases":
            fleet.home.changed(dbname=name).execute(make.format("public"))
        else:
            fleet.home.execute(make.format(name))


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)  # noqa: T201  # the command's answer


def run_all(fleet: Fleet, seeds: Sequence[int], keep: Path) -> int:
    """Make a run with each seed; return how many were not right."""
    ends: Counter[str] = Counter()
    wrong, idle_s = 0, 0.0
    for seed in seeds:
        empty(fleet)
        with (
            tempfile.TemporaryDirectory() as folder,
            closing(Gate(Path(folder))) as gate,
        ):
            files = write_migrations(Path(folder) / "files", FILES)
            run = Disturbance(gate, fleet, files, seed)
            run.run()
        ends += run.ends
        idle_s = max(idle_s, run.idle_s)
        killed = sum(bool(worker.sent) for worker in run.workers)
        say(f"{fleet.kind} {seed}: {len(run.workers)} workers, {killed} ended")
        say(f"  so far: {dict(ends)}, idle at most {idle_s:.1f} s")
        if run.faults:
            wrong += 1
            run.keep(keep / f"{fleet.kind}-{seed}")
            say("\n  ".join(["  NOT RIGHT", *run.faults]))
    say(f"{fleet.kind}: {len(seeds)} runs, {wrong} not right; {dict(ends)}")
    say(f"  on an idle fleet at most {idle_s:.1f} s")
    return wrong


def main() -> int:
    """Make as many runs as are asked for."""
    parser = argparse.ArgumentParser(prog="fleet_kills", description=__doc__)
    parser.add_argument("--runs", type=int, default=100, help="of each kind")
    parser.add_argument("--first", type=int, default=0, help="the seed of the first")
    parser.add_argument("--kind", action="append", choices=["schemas", "databases"])
    parser.add_argument("--room", default="300", help="the server's max_connections")
    parser.add_argument("--keep", type=Path, default=Path(".cache/fleet_kills"))
    wanted = parser.parse_args()
    wrong = 0
    with ExitStack() as stack:
        settings = {**SETTINGS, "max_connections": wanted.room}
        name = "fleet-kills-" + "-".join(wanted.kind or ["all"])
        server = stack.enter_context(Server(name, settings=settings))
        hash_cheaply(server.conninfo)
        shared = look_at(server.conninfo, server)
        databases = stack.enter_context(Databases(server=shared))
        for kind in wanted.kind or ["schemas", "databases"]:
            fleet = new_fleet(databases, kind)
            seeds = range(wanted.first, wanted.first + wanted.runs)
            wrong += run_all(fleet, seeds, wanted.keep)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
