"""
The server that everything is measured against: one, durable, on a disk.

The embedded PostgreSQL of `dev`, which tests run in memory without fsync; here commits
are flushed, since they are most of what a small migration costs.
"""

from __future__ import annotations

import os

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psycopg

from psycopg import sql

from bench import link
from dev import postgres


ROLE: Final = "bench"  # the same as its password: nothing to escape for any tool
SETTINGS: Final[Mapping[str, str]] = {
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "shared_buffers": "256MB",
    "max_wal_size": "8GB",  # checkpoints come when the bench asks for one
    "checkpoint_timeout": "1h",
    "max_locks_per_transaction": "4096",  # a thousand tables in one transaction
    "max_connections": "200",
    "autovacuum": "off",  # else it wakes up in somebody's turn
    "jit": "off",
}


class DurableServer(postgres.Server):
    """The embedded server with its data in a folder of ours, never in memory."""

    def __init__(
        self, name: str, data: Path, settings: Mapping[str, str], hba: Sequence[str]
    ) -> None:
        super().__init__(name, settings=settings, hba=hba)
        self._place = data

    def _make(self) -> None:
        place = postgres.choose_place
        postgres.choose_place = lambda: str(self._place)
        try:
            super()._make()
        finally:
            postgres.choose_place = place

    @property
    def pid(self) -> int:
        """The postmaster's process."""
        assert self._process is not None  # noqa: S101 -- asked while it runs
        return self._process.pid


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A database, and the address that it is reached at."""

    host: str
    port: int
    name: str

    def url(self, scheme: str = "postgresql") -> str:
        """Return a URL that every tool reads; without TLS, for all the same."""
        place = f"{ROLE}:{ROLE}@{self.host}:{self.port}/{self.name}"
        return f"{scheme}://{place}?sslmode=disable"

    def environ(self) -> dict[str, str]:
        """Return the address as the variables that tools look for."""
        return {
            "DATABASE_URL": self.url(),
            "PGHOST": self.host,
            "PGPORT": str(self.port),
            "PGUSER": ROLE,
            "PGPASSWORD": ROLE,
            "PGDATABASE": self.name,
            "PGSSLMODE": "disable",
        }

    def at(self, host: str, port: int) -> Target:
        """Return the same database at another address."""
        return Target(host=host, port=port, name=self.name)


class Databases:
    """Makes databases, each new, and asks for quiet between two measurements."""

    def __init__(self, server: DurableServer) -> None:
        self.server = server
        self._number = 0
        address = postgres.conninfo_to_url(server.conninfo | {"sslmode": "disable"})
        self._admin = psycopg.connect(address, autocommit=True)
        self._admin.execute(
            sql.SQL("CREATE ROLE {} SUPERUSER LOGIN PASSWORD {}").format(
                sql.Identifier(ROLE), ROLE
            )
        )

    def close(self) -> None:
        """Leave the server."""
        self._admin.close()

    def make(self) -> Target:
        """Return an empty database of its own."""
        self._number += 1
        name = f"bench_{self._number}"
        self._admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return Target(host=self.server.host, port=self.server.port, name=name)

    def drop(self, target: Target) -> None:
        """Remove a database, and who is still connected to it."""
        self._admin.execute(
            sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(target.name))
        )

    def settle(self) -> None:
        """Write out what is dirty, so that no run pays for the one before it."""
        self._admin.execute("CHECKPOINT")
        os.sync()  # the peers' folders of thousands of files, too

    def ask(self, target: Target, query: str) -> list[tuple[Any, ...]]:
        """Ask one question of one database."""
        with psycopg.connect(target.url(), autocommit=True) as conn:
            return conn.execute(query.encode()).fetchall()

    def measure_commit_ms(self, commits: int = 200) -> float:
        """Return what one small durable commit costs here, in milliseconds."""
        self._admin.execute("CREATE UNLOGGED TABLE IF NOT EXISTS probe (n int)")
        self._admin.execute("CREATE TABLE IF NOT EXISTS commits (n int)")
        took = {}
        for table in ("probe", "commits"):
            insert = sql.SQL("INSERT INTO {} VALUES (1)").format(sql.Identifier(table))
            started = self.now_s()
            for _ in range(commits):
                self._admin.execute(insert)
            took[table] = self.now_s() - started
        return (took["commits"] - took["probe"]) / commits * 1000

    def now_s(self) -> float:
        """Return the server's clock."""
        row = self._admin.execute(
            "SELECT extract(epoch FROM clock_timestamp())::float8"
        ).fetchone()
        assert row is not None  # noqa: S101 -- a SELECT without FROM
        return float(row[0])


@contextmanager
def started(data: Path, *, far: bool) -> Iterator[DurableServer]:
    """Start the server; with `far`, it listens at the delayed link's end too."""
    settings = dict(SETTINGS)
    hba = list(postgres.HBA)
    if far:
        settings["listen_addresses"] = f"127.0.0.1,{link.HERE}"
        hba.append(f"host all all {link.NETWORK} scram-sha-256")
    with DurableServer("bench", data, settings, hba) as server:
        yield server
