"""
The built image, and a PostgreSQL in a container beside it.

Both need an engine; a test that uses them has the marker `docker`.
"""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import time

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest


ROOT = Path(__file__).resolve().parent.parent
DOCKER = shutil.which("docker") or "docker"
IMAGE = "migration-gate:dev"
POSTGRES_IMAGE = "postgres:17"
SHORT_S = 60.0
BUILD_S = 300.0
# What every manifest asks for, and the image must live with.
HARDENED = (
    *("--read-only", "--cap-drop", "ALL"),
    *("--security-opt", "no-new-privileges:true"),
)


def docker(
    *arguments: str, check: bool = True, timeout_s: float = SHORT_S, text: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run the client; `text` is its standard input."""
    done = subprocess.run(
        [DOCKER, *arguments],
        check=False,
        capture_output=True,
        text=True,
        input=text,
        timeout=timeout_s,
    )
    assert not check or done.returncode == 0, f"docker {arguments}:\n{done.stderr}"
    return done


def build(*arguments: str, tag: str = IMAGE) -> str:
    """Build the image and return its id."""
    return docker(
        *("build", "--quiet", "--tag", tag, *arguments, str(ROOT)), timeout_s=BUILD_S
    ).stdout.strip()


@pytest.fixture(scope="session")
def image() -> str:
    """Return the name of the image, built from what is here."""
    build()
    return IMAGE


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A gate's container that ended."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def events(self) -> list[dict[str, Any]]:
        """The log."""
        return [json.loads(line) for line in self.stdout.splitlines()]

    @property
    def verdict(self) -> dict[str, Any]:
        """The last event."""
        return self.events[-1]


@dataclass(frozen=True, kw_only=True)
class ContainerDatabase:
    """A PostgreSQL in a container, on a network that leads nowhere else."""

    network: str
    container: str
    host: str = "db"
    password: str = field(repr=False)

    def environ(self) -> dict[str, str]:
        """Return the settings of a gate in front of it."""
        return {
            "POSTGRES_HOST": self.host,
            "POSTGRES_USER": "postgres",
            "POSTGRES_DB": "postgres",
            "POSTGRES_PASSWORD": self.password,
        }

    def execute(self, script: str) -> str:
        """Run a script as superuser, over the socket, and return what psql prints."""
        psql = ("psql", "-U", "postgres", "-qAtX", "-v", "ON_ERROR_STOP=1")
        return docker("exec", "-i", self.container, *psql, text=script).stdout

    def clear(self) -> None:
        """Remove what a gate made."""
        self.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public;")

    def gate(
        self,
        *command: str,
        image: str = IMAGE,
        options: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
        migrations: Path | None = None,
        timeout_s: float = SHORT_S,
    ) -> Ended:
        """Run a gate to its end, hardened, with only this database to talk to."""
        settings = self.environ() if environ is None else environ
        given = [f"--env={name}={value}" for name, value in settings.items()]
        if migrations is not None:
            given += ["--volume", f"{migrations}:/migrations:ro"]
        done = docker(
            *("run", "--rm", "--network", self.network, *HARDENED, *given, *options),
            *(image, *command),
            check=False,
            timeout_s=timeout_s,
        )
        return Ended(exit_code=done.returncode, stdout=done.stdout, stderr=done.stderr)


def start_database(
    name: str, *options: str, command: Sequence[str] = ()
) -> ContainerDatabase:
    """Start a server on a network of its own; returns before it answers."""
    password = secrets.token_urlsafe(12)
    docker("network", "create", "--internal", name)
    docker(
        *("run", "--detach", "--name", name, "--network", name),
        *("--network-alias", "db", "--tmpfs", "/var/lib/postgresql/data"),
        *("--env", f"POSTGRES_PASSWORD={password}", *options),
        *(POSTGRES_IMAGE, *command),
    )
    return ContainerDatabase(network=name, container=name, password=password)


def await_database(database: ContainerDatabase) -> None:
    """Wait until the server answers over TCP, where the first boot's does not."""
    deadline_s = time.monotonic() + SHORT_S
    probe = ("exec", database.container, "pg_isready", "-q", "-h", "127.0.0.1")
    while docker(*probe, check=False).returncode != 0:
        assert time.monotonic() < deadline_s, docker("logs", database.container).stderr
        time.sleep(0.1)


def remove_database(database: ContainerDatabase) -> None:
    """Remove the container and its network."""
    docker("rm", "--force", "--volumes", database.container)
    docker("network", "rm", database.network)


@pytest.fixture(scope="session")
def _container_database(image: str) -> Iterator[ContainerDatabase]:
    assert image
    database = start_database(
        f"migration-gate-test-{secrets.token_hex(4)}",
        command=("-c", "fsync=off", "-c", "timezone=Asia/Kathmandu"),
    )
    try:
        await_database(database)
        yield database
    finally:
        remove_database(database)


@pytest.fixture
def container_database(_container_database: ContainerDatabase) -> ContainerDatabase:
    """Return the shared server, empty."""
    _container_database.clear()
    return _container_database
