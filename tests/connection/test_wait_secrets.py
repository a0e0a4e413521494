"""A secret in a file is read at each attempt, and kept nowhere."""

from __future__ import annotations

import json
import os

from contextlib import closing
from pathlib import Path

import pytest

from psycopg import sql

from tests.ends import FILES, require_no_secret
from tests.fix_gate import Gate
from tests.fix_postgres import Database
from tests.fix_proxy import Proxy


OLD, NEW = "0ld-Xq7Zv9kR", "n3w-Yw8Uu2mT"


def write(path: Path, text: str) -> None:
    """Replace a file as Kubernetes does: never half of it is there."""
    fresh = path.with_suffix(".new")
    fresh.write_text(f"{text}\n", "utf-8")
    fresh.rename(path)


def with_file(database: Database, file: Path) -> dict[str, str]:
    """Return the settings of a database whose password is in a file."""
    environ = database.environ()
    del environ["POSTGRES_PASSWORD"]
    return environ | {"POSTGRES_PASSWORD_FILE": str(file)}


def test_a_password_rotated_while_the_gate_waits_lets_it_in(
    gate: Gate, database: Database, tmp_path: Path
) -> None:
    """Server and file change one after the other, as rotations do."""
    role = database.role(password=OLD)
    database.execute(f"GRANT CREATE, USAGE ON SCHEMA public TO {role.user}")
    with closing(database.connect()) as conn:
        change = sql.SQL("ALTER ROLE {} PASSWORD {}")
        conn.execute(change.format(sql.Identifier(role.user), NEW))
    file = tmp_path / "password"
    write(file, OLD)
    process = gate.start(env=with_file(role, file), migrations=FILES)
    assert process.wait_for("database.retry_scheduled")["reason"] == "login_refused"
    write(file, NEW)
    run = process.wait()
    assert run.exit_code == 0
    require_no_secret(run, OLD, NEW)


def test_a_url_in_a_file_is_read_at_each_attempt(
    gate: Gate, database: Database, tmp_path: Path
) -> None:
    """The whole URL may be rotated, host and all."""
    file = tmp_path / "url"
    write(file, database.changed(dbname="not_this_one").url)
    process = gate.start(env={"DATABASE_URL_FILE": str(file)}, migrations=FILES)
    assert process.wait_for("database.retry_scheduled")["reason"] == "no_database"
    write(file, database.url)
    run = process.wait()
    assert run.exit_code == 0
    require_no_secret(run, database.password)


def test_libpqs_own_password_may_be_in_a_file_too(
    gate: Gate, database: Database, tmp_path: Path
) -> None:
    """PGPASSWORD_FILE is rotated like the others."""
    file = tmp_path / "password"
    write(file, "wr0ng-Pa55phrase")
    env = {
        "PGHOST": database.conninfo["host"],
        "PGPORT": database.conninfo["port"],
        "PGUSER": database.user,
        "PGDATABASE": database.name,
        "PGPASSWORD_FILE": str(file),
    }
    process = gate.start("wait", env=env)
    assert process.wait_for("database.retry_scheduled")["reason"] == "login_refused"
    write(file, database.password)
    assert process.wait().exit_code == 0


@pytest.mark.parametrize("state", ["empty", "gone"])
def test_a_file_that_is_missing_for_a_moment_is_waited_for(
    gate: Gate, database: Database, tmp_path: Path, state: str
) -> None:
    """Who writes a secret anew may empty or remove the file first."""
    file = tmp_path / "password"
    write(file, "wr0ng-Pa55phrase")
    process = gate.start(env=with_file(database, file), migrations=FILES)
    process.wait_for("database.retry_scheduled")
    os.truncate(file, 0) if state == "empty" else file.unlink()
    retry = process.wait_for("database.retry_scheduled", count=2)
    assert retry["reason"] == "secret_file"
    write(file, database.password)
    assert process.wait().exit_code == 0


def test_a_file_that_stays_away_closes_after_the_grace(
    gate: Gate, database: Database, tmp_path: Path
) -> None:
    """The verdict names the setting, not the password."""
    file = tmp_path / "password"
    write(file, "wr0ng-Pa55phrase")
    env = with_file(database, file) | {"GATE_AUTH_GRACE": "4s"}
    process = gate.start(env=env, migrations=FILES)
    process.wait_for("database.retry_scheduled")
    file.unlink()
    run = process.wait()
    assert (run.exit_code, run.verdict["reason"]) == (1, "settings")
    assert run.verdict["error_message"] == (
        "POSTGRES_PASSWORD_FILE names a file that does not exist"
    )


@pytest.mark.parametrize("state", ["empty", "absent"])
@pytest.mark.parametrize("command", ["migrate", "check", "wait"])
def test_a_file_that_a_sidecar_writes_later_is_waited_for(
    gate: Gate, database: Database, tmp_path: Path, command: str, state: str
) -> None:
    """An agent that fetches secrets starts together with the gate."""
    if command == "check":
        gate(database=database, migrations=FILES)
    file = tmp_path / "password"
    if state == "empty":
        file.touch()
    process = gate.start(command, env=with_file(database, file), migrations=FILES)
    retry = process.wait_for("database.retry_scheduled")
    assert retry["reason"] == "secret_file"
    assert retry["wait_s"] < 1
    write(file, database.password)
    run = process.wait()
    assert run.exit_code == 0
    assert run.one("gate.started")["host"] == database.conninfo["host"]
    require_no_secret(run, database.password)


def test_a_url_that_a_sidecar_writes_later_is_waited_for(
    gate: Gate, database: Database, tmp_path: Path
) -> None:
    """Until it is there, nothing is known of the database."""
    file = tmp_path / "url"
    env = {"DATABASE_URL_FILE": str(file)}
    process = gate.start(env=env, migrations=FILES)
    assert process.wait_for("database.retry_scheduled")["reason"] == "secret_file"
    write(file, database.url)
    run = process.wait()
    assert run.exit_code == 0
    require_no_secret(run, database.password)


@pytest.mark.parametrize("command", ["migrate", "status"])
def test_a_file_that_never_comes_closes_after_the_grace(
    gate: Gate, database: Database, tmp_path: Path, command: str
) -> None:
    """No attempt is made; status is one attempt, and waits for nothing."""
    env = with_file(database, tmp_path / "none") | {"GATE_AUTH_GRACE": "1s"}
    run = gate(command, env=env, migrations=FILES)
    lines = f"{run.stdout}{run.stderr}".splitlines()
    verdict = [json.loads(line) for line in lines if "gate.closed" in line][-1]
    assert (run.exit_code, verdict["reason"]) == (1, "settings")
    assert "names a file that does not exist" in verdict["error_message"]
    assert (verdict["waited_s"] >= 0.5) == (command == "migrate")


@pytest.mark.parametrize("state", ["folder", "not text", "pipe"])
def test_a_file_that_nobody_will_write_closes_at_once(
    gate: Gate, database: Database, tmp_path: Path, state: str
) -> None:
    """Docker makes a folder of what was not there to mount; a pipe is read once."""
    file = tmp_path / "password"
    if state == "pipe":
        os.mkfifo(file)
    else:
        file.mkdir() if state == "folder" else file.write_bytes(b"\xff")
    run = gate(env=with_file(database, file), migrations=FILES)
    assert (run.exit_code, run.verdict["reason"]) == (1, "settings")
    assert run.all("database.retry_scheduled") == []


def test_each_connection_reads_the_file_anew(
    gate: Gate, database: Database, proxy: Proxy, tmp_path: Path
) -> None:
    """A token good for minutes is not kept: the second login is with another."""
    role = database.role(password=OLD)
    database.execute(f"GRANT CREATE, USAGE ON SCHEMA public TO {role.user}")
    file = tmp_path / "password"
    write(file, OLD)

    def rotate() -> None:
        with closing(database.connect()) as conn:
            change = sql.SQL("ALTER ROLE {} PASSWORD {}")
            conn.execute(change.format(sql.Identifier(role.user), NEW))
        write(file, NEW)

    proxy.when(lambda message: message.type == "Q", rotate)
    run = gate(env=with_file(proxy.through(role), file), migrations=FILES)
    assert run.exit_code == 0
    assert len(proxy.sessions) > 1
    require_no_secret(run, OLD, NEW)
