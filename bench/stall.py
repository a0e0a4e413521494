"""
Live traffic: how long an application's queries stand still while a migration waits.

Long transactions have read tables, an application reads one of them every few
milliseconds, and a migration wants them for itself: whoever waits for such a lock makes
all later readers wait behind it.
"""

from __future__ import annotations

import contextlib
import threading
import time

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import psycopg

from bench.measure import Command, Runner, Sample
from bench.peers import GATES, Peer
from bench.server import Databases, Target
from bench.work import WORK


BEFORE_S: Final = 0.5
PAUSE_S: Final = 0.005
STALL_S: Final = 0.1
MAKE: Final = (
    "CREATE TABLE busy_{0} (id int PRIMARY KEY); INSERT INTO busy_{0} VALUES (1)"
)
READ: Final = "SELECT id FROM busy_{0} WHERE id = 1"
CHANGE: Final = "ALTER TABLE busy_{0} ADD COLUMN extra int;\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """
    What is in the way: a table for each time, held by a reader for so long.

    `lock_timeout` is given to the peers, as teams that know of the danger do.
    """

    name: str
    held_s: tuple[float, ...]
    lock_timeout: str = ""


ONE_READER: Final = Traffic(name="one", held_s=(8.0,))
CHAIN: Final = Traffic(name="chain", held_s=(1.5, 3.0, 4.5, 6.0), lock_timeout="2s")


class Application(threading.Thread):
    """Reads the first table over and over; `took_s` is how long each reading took."""

    def __init__(self, target: Target) -> None:
        super().__init__(daemon=True)
        self._url = target.url()
        self.took_s: list[float] = []
        self.ended = threading.Event()

    def run(self) -> None:
        """Read until told to end."""
        query = READ.format(1).encode()
        with psycopg.connect(self._url, autocommit=True) as conn:
            while not self.ended.wait(PAUSE_S):
                started_s = time.monotonic()
                conn.execute(query)
                self.took_s.append(time.monotonic() - started_s)


def measure(
    databases: Databases, runner: Runner, peer: Peer, traffic: Traffic
) -> tuple[Sample, dict[str, float]]:
    """Return what the migration cost, and what the application suffered."""
    target = databases.make()
    tables = range(1, len(traffic.held_s) + 1)
    with psycopg.connect(target.url(), autocommit=True) as conn:
        for table in tables:
            conn.execute(MAKE.format(table).encode())
    application = Application(target)
    application.start()
    with contextlib.ExitStack() as stack:
        holders = [hold(stack, target, table) for table in tables]
        time.sleep(BEFORE_S)
        started_s = time.monotonic()
        process = runner.start(command(peer, target, traffic))
        for holder, held_s in zip(holders, traffic.held_s, strict=True):
            time.sleep(started_s + held_s - time.monotonic())
            holder.rollback()
        released_s = time.monotonic()
        (sample,) = runner.finish(process)
    application.ended.set()
    application.join()
    databases.drop(target)
    return sample, suffered(application.took_s, sample.ended_s - released_s)


def hold(
    stack: contextlib.ExitStack, target: Target, table: int
) -> psycopg.Connection[tuple[object, ...]]:
    """Read a table in a transaction that stays open."""
    holder = stack.enter_context(psycopg.connect(target.url()))
    holder.execute(READ.format(table).encode())
    return holder


def command(peer: Peer, target: Target, traffic: Traffic) -> Command:
    """Return what applies the change; only the gate knows about locks by itself."""
    folder = WORK / f"{peer.form.__name__.removeprefix('write_')}-stall-{traffic.name}"
    if not folder.is_dir():
        folder.mkdir(parents=True)
        tables = range(1, len(traffic.held_s) + 1)
        peer.form(folder, ["".join(CHANGE.format(table) for table in tables)])
    started = peer.start(folder, target)
    if peer.name in GATES or not traffic.lock_timeout:
        return started
    options = f"-c lock_timeout={traffic.lock_timeout}"
    return replace(started, environ={**started.environ, "PGOPTIONS": options})


def suffered(took_s: Sequence[float], after_release_s: float) -> dict[str, float]:
    """Return what the application's readings show."""
    stalls = [took for took in took_s if took >= STALL_S]
    return {
        "longest_stall_s": max(took_s),
        "stalled_s": sum(stalls),
        "stalls": len(stalls),
        "after_release_s": after_release_s,
    }
