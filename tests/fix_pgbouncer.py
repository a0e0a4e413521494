"""
A real PgBouncer in front of the server that tests run on; see `pgbouncer`.

Debian's package; without it these tests are skipped, and in CI they fail.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Literal, Self

import psycopg
import pytest

from dev.postgres import find_free_port, give, launcher
from tests.fix_postgres import Database


Mode = Literal["session", "transaction"]

START_TIMEOUT_S = 10.0
POLL_S = 0.02
INI = """
[databases]
* = host={host} port={port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen_port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users
max_client_conn = 1000
server_login_retry = 1
logfile = {folder}/log
pidfile = {folder}/pid
{settings}
"""


class PgBouncer:
    """One PgBouncer on a free port of 127.0.0.1; as a context manager, started."""

    host = "127.0.0.1"

    def __init__(
        self, folder: Path, database: Database, settings: Mapping[str, str]
    ) -> None:
        self.port = find_free_port()
        self._folder = folder
        self._database = database
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True)
        self._folder.parent.chmod(0o755)
        (self._folder / "ini").write_text(
            INI.format(
                host=self._database.conninfo["host"],
                port=self._database.conninfo["port"],
                listen_port=self.port,
                folder=self._folder,
                settings="\n".join(f"{k} = {v}" for k, v in self._settings.items()),
            )
        )
        self.admit(self._database)
        self._process = subprocess.Popen(
            [*launcher(), find_program(), "-q", str(self._folder / "ini")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
        )
        self._wait_until_ready(self._process)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    @property
    def log(self) -> str:
        """What it logged."""
        return (self._folder / "log").read_text("utf-8", "replace")

    def admit(self, *users: Database) -> None:
        """Let these log in, too."""
        with (self._folder / "users").open("a") as file:
            for user in users:
                password = user.password.replace('"', '""')
                file.write(f'"{user.user}" "{password}"\n')
        give(self._folder)
        if self._process is not None:
            self._process.send_signal(signal.SIGHUP)

    def through(self, database: Database) -> Database:
        """Return the same database, reached through this pooler, without TLS."""
        address = {"host": self.host, "port": str(self.port), "sslmode": "disable"}
        return database.changed(**address)

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                self.through(self._database).connect().close()
            except psycopg.OperationalError:
                assert process.poll() is None, f"it ended:\n{self.log}"
                assert time.monotonic() < deadline, f"it is not ready:\n{self.log}"
                time.sleep(POLL_S)
            else:
                return


def find_program() -> str:
    """Return PgBouncer's path; skip, and in CI fail, where there is none."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin"))
    program = shutil.which("pgbouncer", path=path)
    if program is None:
        why = "there is no pgbouncer (apt-get install pgbouncer)"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{why}, and CI=true forbids to skip", pytrace=False)
        pytest.skip(why)
    return program


class PgBouncers:
    """Starts poolers of a test's own; see `pgbouncer`."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack

    def __call__(self, mode: Mode, database: Database, **settings: str) -> PgBouncer:
        """Start one in front of a database's server, stopped after the test."""
        pooler = PgBouncer(
            self._folder / f"{mode}-{find_free_port()}",
            database,
            {"pool_mode": mode, **settings},
        )
        return self._stack.enter_context(pooler)


@pytest.fixture
def pgbouncer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PgBouncers]:
    """Return what starts poolers."""
    find_program()
    with ExitStack() as stack:
        yield PgBouncers(tmp_path_factory.mktemp("pgbouncer"), stack)
