"""What a developer's commands do beside the gate."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

from pathlib import Path

import pytest

from dev.postgres import ServerError, sweep
from tests.fix_gate import ROOT, write_migrations
from tests.fix_postgres import Database, NewServer


DEADLINE_S = 10.0
ONE = "SELECT count(*) FROM schema_migrations"


def run_dev(migrations: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Do what `make run` does, with nothing else configured."""
    return subprocess.run(
        [sys.executable, "-m", "dev.run"],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "GATE_MIGRATIONS": str(migrations),
            **env,
        },
    )


@pytest.mark.postgres
@pytest.mark.parametrize(("script", "code"), [("SELECT 1;", 0), ("SELECT one;", 1)])
def test_make_run_without_a_database_brings_one(
    tmp_path: Path, script: str, code: int
) -> None:
    """It exits with the gate's code, and nothing of the server is left."""
    ended = run_dev(
        write_migrations(tmp_path / "migrations", {"001_one.sql": script}),
        {"TMPDIR": str(tmp_path)},
    )
    assert ended.returncode == code, ended.stdout + ended.stderr
    assert "using an embedded PostgreSQL" in ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["migrations"]


def test_make_run_uses_the_configured_database(
    database: Database, tmp_path: Path
) -> None:
    """The migrations are in that database afterwards."""
    migrations = write_migrations(tmp_path, {"001_one.sql": "SELECT 1;"})
    ended = run_dev(migrations, database.environ())
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert database.fetch(ONE) == [(1,)]
    assert "embedded" not in ended.stderr


@pytest.mark.postgres
def test_a_server_ends_with_its_owner() -> None:
    """Even SIGKILL leaves no server behind, and its folder to whoever comes next."""
    owner = [sys.executable, str(ROOT / "dev" / "postgres.py")]
    command = [
        "sh",
        "-c",
        "echo $PGPORT; psql -Atc 'SHOW data_directory'; kill -KILL $PPID",
    ]
    ended = subprocess.run(
        [*owner, *command], check=False, capture_output=True, text=True
    )
    deadline = time.monotonic() + DEADLINE_S
    port, data = ended.stdout.split()
    while is_open(int(port)):
        assert time.monotonic() < deadline, "the server still listens"
        time.sleep(0.01)
    assert Path(data).exists()
    sweep()
    assert not Path(data).exists()


def test_a_server_that_does_not_start_says_why(new_server: NewServer) -> None:
    """The error holds the end of its log."""
    with pytest.raises(ServerError, match="unrecognized configuration parameter"):
        new_server(settings={"no_such_setting": "on"})


def is_open(port: int) -> bool:
    """Whether somebody listens on a port of 127.0.0.1."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
