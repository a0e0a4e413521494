"""
An application at work: it reads and writes a table, and knows its longest stall.
"""

from __future__ import annotations

import threading
import time

from collections.abc import Sequence
from contextlib import closing
from typing import Final, Self

import psycopg

from tests.fix_postgres import Database


PAUSE_S: Final = 0.005
READ: Final = "SELECT count(*) FROM {}"
WRITE: Final = "UPDATE {} SET hits = hits + 1 WHERE id = 1"
TABLE: Final = "CREATE TABLE {0} (id int PRIMARY KEY, hits int NOT NULL DEFAULT 0);"
ROW: Final = "INSERT INTO {0} (id) VALUES (1);"


def make_tables(database: Database, tables: Sequence[str]) -> None:
    """Make what a load reads and writes."""
    database.execute("".join((TABLE + ROW).format(table) for table in tables))


class Load:
    """
    A reader and a writer for each table, as a context manager; both in autocommit.

    `longest_s` is how long the slowest of their queries took so far, one that still
    runs included.
    """

    def __init__(self, database: Database, tables: Sequence[str]) -> None:
        self.queries = 0
        self._database = database
        self._guard = threading.Lock()
        self._is_over = threading.Event()
        self._longest_s = 0.0
        self._begun_s: dict[str, float] = {}
        self._errors: list[psycopg.Error] = []
        self._threads = [
            threading.Thread(target=self._work, args=(query.format(table),))
            for table in tables
            for query in (READ, WRITE)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        while self.queries < len(self._threads):
            time.sleep(PAUSE_S)
        self._longest_s = 0.0  # its own start
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()
        if self._errors:
            raise self._errors[0]

    @property
    def longest_s(self) -> float:
        """The longest stall so far."""
        now = time.monotonic()
        with self._guard:
            running = [now - begun_s for begun_s in self._begun_s.values()]
            return max(self._longest_s, *running, 0.0)

    def _work(self, query: str) -> None:
        try:
            with closing(self._database.connect(application_name="shop")) as conn:
                while not self._is_over.is_set():
                    self._ask(conn, query)
                    time.sleep(PAUSE_S)
        except psycopg.Error as error:
            self._errors.append(error)

    def _ask(self, conn: psycopg.Connection[tuple[object, ...]], query: str) -> None:
        begun_s = time.monotonic()
        with self._guard:
            self._begun_s[query] = begun_s
        conn.execute(query)
        with self._guard:
            del self._begun_s[query]
            self.queries += 1
            self._longest_s = max(self._longest_s, time.monotonic() - begun_s)
