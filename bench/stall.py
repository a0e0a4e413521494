"""
Live traffic: how long an application's queries stand still while a migration waits.

A long transaction has read a table, an application reads it every few milliseconds, and
a migration wants it for itself: whoever waits for that lock makes all readers wait.
"""

from __future__ import annotations

import threading
import time

from typing import Final

import psycopg

from bench.measure import Runner, Sample
from bench.peers import Peer
from bench.server import Databases, Target
from bench.work import WORK


HOLD_S: Final = 8.0
BEFORE_S: Final = 0.5
PAUSE_S: Final = 0.005
STALL_S: Final = 0.1
MAKE: Final = (
    "CREATE TABLE busy (id int PRIMARY KEY, n int); INSERT INTO busy VALUES (1)"
)
READ: Final = "SELECT n FROM busy WHERE id = 1"
CHANGE: Final = "ALTER TABLE busy ADD COLUMN extra int;\n"


class Application(threading.Thread):
    """Reads a table again and again; `took_s` is how long each reading took."""

    def __init__(self, target: Target) -> None:
        super().__init__(daemon=True)
        self._url = target.url()
        self.took_s: list[float] = []
        self.ended = threading.Event()

    def run(self) -> None:
        """Read until told to end."""
        with psycopg.connect(self._url, autocommit=True) as conn:
            while not self.ended.wait(PAUSE_S):
                started_s = time.monotonic()
                conn.execute(READ)
                self.took_s.append(time.monotonic() - started_s)


def measure(
    databases: Databases, runner: Runner, peer: Peer
) -> tuple[Sample, dict[str, float]]:
    """Return what the migration cost, and what the application suffered."""
    folder = WORK / f"{peer.form.__name__.removeprefix('write_')}-stall"
    if not folder.is_dir():
        folder.mkdir(parents=True)
        peer.form(folder, [CHANGE])
    target = databases.make()
    with psycopg.connect(target.url(), autocommit=True) as conn:
        conn.execute(MAKE)
    application = Application(target)
    application.start()
    with psycopg.connect(target.url()) as holder:
        holder.execute(READ)
        held_s = time.monotonic()
        time.sleep(BEFORE_S)
        process = runner.start(peer.start(folder, target))
        time.sleep(held_s + HOLD_S - time.monotonic())
        holder.rollback()
        released_s = time.monotonic()
    (sample,) = runner.finish(process)
    application.ended.set()
    application.join()
    stalls = [took for took in application.took_s if took >= STALL_S]
    databases.drop(target)
    return sample, {
        "longest_stall_s": max(application.took_s),
        "stalled_s": sum(stalls),
        "stalls": len(stalls),
        "after_release_s": sample.ended_s - released_s,
    }
