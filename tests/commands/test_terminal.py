"""A person at a terminal: sentences without being asked for, each once."""

from __future__ import annotations

import json
import os
import subprocess

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.commands.test_entrypoint import ENTRYPOINT
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
