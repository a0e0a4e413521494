"""The process as a shell or a runtime sees it: arguments, streams, exit codes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

from pathlib import Path

import pytest

from migration_gate import __version__
from migration_gate.commands.calls import COMMANDS
from migration_gate.commands.fleet.calls import OVER_ALL
from migration_gate.commands.parser import (
    OVER_ALL_TARGETS,
    OVER_ONE_TARGET,
    describe,
)
from tests.fix_gate import ROOT, Gate, write_migrations
from tests.fix_postgres import Database
from tests.history_tables import TWO, versions


ENTRYPOINT = [sys.executable, str(ROOT / "entrypoint.py")]


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["status", "--help"]])
def test_help_is_an_answer(gate: Gate, arguments: list[str]) -> None:
    """On stdout, with exit code 0 and no setting needed."""
    run = gate(*arguments)
    assert (run.exit_code, run.stdout, run.stderr) == (0, describe(arguments), "")


def test_the_help_names_every_command() -> None:
    """Each with a line, and with a help of its own."""
    lines = [line.split() for line in describe([]).splitlines()]
    assert [line[0] for line in lines if line and line[0] in COMMANDS] == [*COMMANDS]
    for name in COMMANDS:
        assert describe([name, "--help"]).startswith(f"usage: entrypoint.py {name} ")


def test_the_help_says_what_a_command_is_about_in_a_fleet() -> None:
    """All targets or one, as it is; and the first help names both settings."""
    assert {"GATE_TARGETS", "GATE_TARGET"} <= set(re.findall(r"\w+", describe([])))
    for name, command in COMMANDS.items():
        shown = " ".join(describe([name]).split())
        assert (OVER_ALL_TARGETS in shown) == (name in OVER_ALL)
        is_about_one = command.needs_database and name not in OVER_ALL
        assert (OVER_ONE_TARGET in shown) == is_about_one
    assert "for all of GATE_TARGETS it is needed" in " ".join(
        describe(["rollback"]).split()
    )


def test_the_version_is_an_answer(gate: Gate) -> None:
    """One line."""
    run = gate("--version")
    assert (run.exit_code, run.stdout) == (0, f"migration-gate {__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["migrat"], "unknown command, which is the first argument"),
        (["--json"], "unknown command, which is the first argument"),
        (["migrate", "now"], "command migrate does not take these arguments"),
        (["migrate", "--json"], "command migrate does not take these arguments"),
        (["status", "--yaml"], "command status does not take these arguments"),
        (["new"], "command new does not take these arguments"),
        (["new", "a", "b"], "command new does not take these arguments"),
        (["resolve", "--applied"], "command resolve does not take these arguments"),
        (
            ["resolve", "1_a", "--applied", "--through", "2_b"],
            "command resolve does not take these arguments",
        ),
        (
            ["resolve", "--not-applied", "--through", "2_b"],
            "command resolve does not take these arguments",
        ),
        (["resolve", "1_a"], "command resolve does not take these arguments"),
        (
            ["resolve", "1_a", "--applied", "--not-applied"],
            "command resolve does not take these arguments",
        ),
    ],
)
def test_wrong_arguments_close_the_gate(
    gate: Gate, arguments: list[str], message: str
) -> None:
    """A usage error is exit code 1 too, and says so like every other end."""
    run = gate(*arguments, env={"PGHOST": "h"})
    assert run.exit_code == 1
    verdict = json.loads(run.termination_log)
    assert (verdict["event"], verdict["reason"]) == ("gate.closed", "settings")
    assert verdict["error_message"] == message
    assert run.stderr.startswith(f"migration-gate: closed: {message}. ")


def test_a_usage_error_shows_the_usage_and_no_argument(gate: Gate) -> None:
    """What stands in a wrong place may be a secret."""
    run = gate("resolve", "postgresql://u:geheim@h/d", env={"PGHOST": "h"})
    usage = "entrypoint.py resolve (--applied | --not-applied) [--through VERSION] "
    assert usage in run.verdict["hint"]
    assert "geheim" not in run.output


def test_a_slip_in_a_command_is_answered_with_the_one_that_was_meant(
    gate: Gate,
) -> None:
    """By its name, not by the word that was typed."""
    hints = [
        json.loads(gate(word).termination_log)["hint"] for word in ("migrat", "fly")
    ]
    assert hints[0] == f'Was "migrate" meant? {hints[1]}'
    assert hints[1].startswith("The commands are: migrate, ")


def test_without_a_command_it_migrates(gate: Gate, database: Database) -> None:
    """As a container that is given no arguments does."""
    run = gate(database=database, migrations=TWO)
    assert run.one("gate.started")["command"] == "migrate"
    assert versions(database) == list(TWO)


@pytest.mark.parametrize(
    "redirection", [">&- 2>&-", "> /dev/full 2> /dev/full", "| true", "<&- >&- 2>&-"]
)
@pytest.mark.parametrize(("sql", "code"), [("SELECT 1;", 0), ("SELEC;", 1)])
def test_a_log_that_cannot_be_written_changes_no_exit_code(
    database: Database, tmp_path: Path, redirection: str, sql: str, code: int
) -> None:
    """Closed streams, a full disk, a reader that is gone."""
    folder = write_migrations(tmp_path / "migrations", {"1_a.sql": sql})
    end = "; exit ${PIPESTATUS[0]}"
    ended = subprocess.run(
        ["/bin/bash", "-c", f'"$@" {redirection}{end}', "bash", *ENTRYPOINT],
        check=False,
        capture_output=True,
        env={
            "PATH": os.environ["PATH"],
            "GATE_MIGRATIONS": str(folder),
            **database.environ(),
        },
    )
    assert ended.returncode == code
    if code == 0:
        assert versions(database) == ["1_a.sql"]


@pytest.mark.parametrize("variable", ["PGSSLMODE", "PGTZ", "PGOPTIONS", "PGPORT"])
def test_an_empty_variable_of_libpq_is_unset(
    gate: Gate, database: Database, variable: str
) -> None:
    """Manifests set them empty; libpq itself would refuse some."""
    run = gate(database=database, migrations=TWO, env={variable: ""})
    assert run.exit_code == 0, run.output
