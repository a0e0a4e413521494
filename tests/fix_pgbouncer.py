"""
A real PgBouncer in front of the server that tests run on; see `pgbouncer`.

Debian's package, installed where that can be done; elsewhere these tests are skipped,
but never in CI.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import shutil
import signal
import subprocess
import time

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Literal, Self

import pytest

from dev.postgres import CACHE, ROOT, find_free_port, give, launcher
from tests.fix_postgres import Database


Mode = Literal["session", "transaction"]

START_TIMEOUT_S = 10.0
POLL_S = 0.02
LAB = ROOT.parent / "shared" / "lab" / "pgbouncer"
APT_GET = ("apt-get", "-q", "-y", "--no-install-recommends")
INI = """
[databases]
{name} = host={host} port={port}
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
        self, folder: Path, database: Database, settings: Mapping[str, str], name: str
    ) -> None:
        self.name = name
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
                name=self.name,
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

    def command(self, text: str) -> None:
        """Give a command at its console; needs the setting `admin_users`."""
        with closing(self.through(self._database).connect(dbname="pgbouncer")) as conn:
            conn.execute(text)

    @property
    def log(self) -> str:
        """What it logged."""
        try:
            return (self._folder / "log").read_text("utf-8", "replace")
        except FileNotFoundError:
            return ""

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
        """Wait for its own word: a login would count as one of its clients."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while "process up" not in self.log:
            assert process.poll() is None, f"it ended:\n{self.log}"
            assert time.monotonic() < deadline, f"it is not ready:\n{self.log}"
            time.sleep(POLL_S)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Install it before the tests that need it: that takes longer than a test may."""
    wanted = any("pgbouncer" in getattr(i, "fixturenames", ()) for i in session.items)
    if wanted and not session.config.option.collectonly and not installed_program():
        install_program()


def find_program() -> str:
    """Return PgBouncer's path; without one skip, or in CI fail."""
    program = installed_program()
    if program is None:
        why = "there is no pgbouncer, and only root on Debian installs it"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{why}; CI=true forbids to skip", pytrace=False)
        pytest.skip(why)
    return program


def installed_program() -> str | None:
    """Return PgBouncer's path, if it is installed."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin"))
    return shutil.which("pgbouncer", path=path)


def install_program() -> None:
    """Install Debian's package, as the lab does where there is one; root only."""
    if os.geteuid() != 0 or shutil.which(APT_GET[0]) is None:
        return
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "pgbouncer.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # each test process comes here
        if installed_program() is None:
            for command in installation():
                subprocess.run(command, check=False, stdin=subprocess.DEVNULL)


def installation() -> tuple[tuple[str, ...], ...]:
    """Return the commands that install the package."""
    if LAB.is_file():  # it installs when it starts one
        unused = "postgresql://nobody@127.0.0.1:1/nothing"
        name = "migration-gate-tests"
        return (
            (str(LAB), "start", unused, "transaction", name),
            (str(LAB), "stop", name),
        )
    return ((*APT_GET, "update"), (*APT_GET, "install", "pgbouncer"))


class PgBouncers:
    """Starts poolers of a test's own; see `pgbouncer`."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._numbers = itertools.count(1)

    def __call__(
        self, mode: Mode, database: Database, name: str = "*", **settings: str
    ) -> PgBouncer:
        """
        Start one in front of a database's server, stopped after the test.

        Args:
            name: of the only database that it knows; by default it knows all.
            settings: lines of its section pgbouncer.
        """
        pooler = PgBouncer(
            self._folder / f"{mode}-{next(self._numbers)}",
            database,
            {"pool_mode": mode, **settings},
            name,
        )
        return self._stack.enter_context(pooler)


@pytest.fixture
def pgbouncer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PgBouncers]:
    """Return what starts poolers."""
    find_program()
    with ExitStack() as stack:
        yield PgBouncers(tmp_path_factory.mktemp("pgbouncer"), stack)
