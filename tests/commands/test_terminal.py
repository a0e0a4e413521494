"""A person at a terminal: sentences without being asked for, each once."""

from __future__ import annotations

import json
import os
import subprocess

from collections.abc import Mapping
from pathlib import Path

import pytest

from dev.postgres import find_free_port
from tests.commands.test_entrypoint import ENTRYPOINT
from tests.commands.test_stop import lock_taken
from tests.fix_gate import Gate, write_migrations
from tests.fix_postgres import Database


def run_on_terminal(*argv: str, env: Mapping[str, str]) -> tuple[int, str]:
    """Run the gate with a terminal as stdout and stderr; return code and output."""
    terminal, other_end = os.openpty()
    with subprocess.Popen(
        [*ENTRYPOINT, *argv],
        env={"PATH": os.environ.get("PATH", os.defpath), **env},
        stdin=subprocess.DEVNULL,
        stdout=other_end,
        stderr=other_end,
    ) as process:
        os.close(other_end)
        output = b""
        try:
            while block := os.read(terminal, 65536):
                output += block
        except OSError:  # the other end is closed
            pass
        finally:
            os.close(terminal)
    return process.returncode, output.decode()


def test_a_terminal_gets_sentences(database: Database, tmp_path: Path) -> None:
    """GATE_LOG_FORMAT is not set."""
    folder = write_migrations(tmp_path / "m", {"001_a.sql": "CREATE TABLE a ();"})
    env = {**database.environ(), "GATE_MIGRATIONS": str(folder)}
    code, output = run_on_terminal(env=env)
    assert code == 0
    assert " info    Applied 001_a.sql in " in output
    assert "{" not in output
    assert output.splitlines()[-1].endswith(" ms")


def test_a_terminal_gets_json_where_that_is_asked_for(tmp_path: Path) -> None:
    """The setting decides, not the terminal."""
    env = {"GATE_LOG_FORMAT": "json", "GATE_MIGRATIONS": str(tmp_path), "PGHOST": "h"}
    code, output = run_on_terminal(env=env)
    assert code == 1
    assert output.splitlines()[-1].startswith('{"timestamp": ')


def test_a_terminal_shows_why_it_is_closed_once(tmp_path: Path) -> None:
    """The line for people on stderr is for where the log is elsewhere."""
    env = {"GATE_MIGRATIONS": str(tmp_path / "none"), "PGHOST": "h"}
    code, output = run_on_terminal(env=env)
    assert code == 1
    assert output.count("closed: ") == 1
    assert "migration-gate: closed" not in output


def test_sentences_in_an_engine_s_log_say_why_it_is_closed_once(
    gate: Gate, tmp_path: Path
) -> None:
    """It shows stdout and stderr side by side."""
    env = {"GATE_LOG_FORMAT": "console", "PGHOST": "h"}
    run = gate(env=env, migrations=tmp_path / "none")
    assert run.exit_code == 1
    assert run.output.count("losed: ") == 2  # on stdout, and in the termination log
    assert run.stderr == ""


def test_a_terminal_shows_at_once_that_a_statement_goes_on(
    database: Database, tmp_path: Path
) -> None:
    """Long before the first heartbeat, in a line that is written over."""
    files = {"001_a.sql": "SELECT 1; SELECT pg_sleep(1.5);"}
    env = {"GATE_MIGRATIONS": str(write_migrations(tmp_path / "m", files))}
    code, output = run_on_terminal(env={**database.environ(), **env})
    assert code == 0
    assert "001_a.sql is at statement 2 of 2 after " in output
    assert output.count("is at statement") == output.count("\r\x1b[K")


def test_a_terminal_shows_the_wait_for_a_database_in_one_line(tmp_path: Path) -> None:
    """Nobody listens there."""
    folder = write_migrations(tmp_path / "m", {"001_a.sql": "SELECT 1;"})
    url = f"postgresql://u:p@127.0.0.1:{find_free_port()}/d"
    env = {"GATE_MIGRATIONS": str(folder), "DATABASE_URL": url}
    code, output = run_on_terminal(env={**env, "GATE_WAIT_TIMEOUT": "2s"})
    assert code == 1
    (line,) = [line for line in output.split("\r\n") if "so far: " in line]
    assert line.count(" Waiting, ") > 1


def test_a_terminal_shows_the_wait_for_another_gate_in_one_line(
    database: Database, tmp_path: Path
) -> None:
    """It has the lock for longer than this one waits."""
    folder = write_migrations(tmp_path / "m", {"001_a.sql": "SELECT 1;"})
    env = {**database.environ(), "GATE_MIGRATIONS": str(folder)}
    with lock_taken(database):
        code, output = run_on_terminal(env={**env, "GATE_TIMEOUT": "3s"})
    assert code == 1
    (line,) = [line for line in output.split("\r\n") if "Waiting for another" in line]
    assert line.count("Waiting for another gate, ") > 1


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["status"], "Gate open: 1 applied, nothing pending"),
        (["plan"], "Gate open: 0 pending, nothing was applied"),
        (["check"], "Gate open: 1 shipped here, all applied"),
        (["wait"], "Gate open: the database answers, and can be written"),
        (["new", "more"], "Gate open: made 002_more.sql"),
    ],
)
def test_the_last_line_is_that_of_the_command(
    gate: Gate, database: Database, argv: list[str], message: str
) -> None:
    """No command that applies nothing says that it applied nothing pending."""
    files = {"001_a.sql": "CREATE TABLE a ();"}
    assert gate(database=database, migrations=files).exit_code == 0
    run = gate(*argv, database=database, migrations=files)
    assert run.exit_code == 0
    verdict = json.loads(run.termination_log)
    assert verdict["message"] == message


def test_the_last_line_names_what_was_warned_of(gate: Gate, database: Database) -> None:
    """An image that is older than the database opens, and says so where one looks."""
    files = {"001_a.sql": "CREATE TABLE a ();", "002_b.sql": "CREATE TABLE b ();"}
    assert gate(database=database, migrations=files).exit_code == 0
    del files["002_b.sql"]
    verdict = gate(database=database, migrations=files).verdict
    assert verdict["warnings"] == ["history.unknown_versions"]
    assert verdict["message"].endswith(", with warnings: history.unknown_versions")
