"""The GitHub Action: what it tells of a run, as a runner would start it."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from action.report import NOT_THERE
from tests.fix_gate import write_migrations
from tests.fix_postgres import Database
from tests.project.pages import ROOT, read, read_code, read_table


ACTION: dict[str, Any] = yaml.safe_load(read("action/action.yml"))
FILES = {
    "001_a.sql": "CREATE TABLE a (id int);",
    "002_b.sql": "CREATE TABLE b (id int);",
}
# In the place of docker: the gate of this tree, with the folder that is mounted.
STAND_IN = f"""#!/bin/sh
while [ "$1" != gate ]; do
    case "$1" in
    --volume) mounted=${{2%%:/migrations:ro}} ;;
    --env-file) set -a; . "$2"; set +a ;;
    esac
    shift
done
shift
GATE_MIGRATIONS=$mounted exec {sys.executable} {ROOT}/entrypoint.py "$@"
"""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What the runner was told."""

    exit_code: int
    commands: list[str]
    summary: str
    outputs: Mapping[str, str]


def act(
    folder: Path, database: Database, docker: str = STAND_IN, **inputs: str
) -> Report:
    """Run the action's only step in a folder, as a runner does."""
    tools = folder / "tools"
    tools.mkdir()
    (tools / "docker").write_text(docker)
    (tools / "docker").chmod(0o755)
    summary, outputs = folder / "summary", folder / "outputs"
    (step,) = ACTION["runs"]["steps"]
    given = {name: spec.get("default", "") for name, spec in ACTION["inputs"].items()}
    given |= {"image": "gate", "database-url": database.url} | inputs
    env = {
        name: given[re.fullmatch(r"\$\{\{ inputs\.([\w-]+) \}\}", value)[1]]  # type: ignore[index]
        for name, value in step["env"].items()
    }
    done = subprocess.run(
        ["/bin/bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
        check=False,
        capture_output=True,
        text=True,
        cwd=folder,
        env={
            "PATH": f"{tools}:{os.environ['PATH']}",
            "GITHUB_ACTION_PATH": str(ROOT / "action"),
            "GITHUB_STEP_SUMMARY": str(summary),
            "GITHUB_OUTPUT": str(outputs),
            **env,
        },
    )
    told = outputs.read_text().splitlines() if outputs.exists() else []
    return Report(
        exit_code=done.returncode,
        commands=[line for line in done.stdout.splitlines() if line.startswith("::")],
        summary=summary.read_text() if summary.exists() else "",
        outputs=dict(line.split("=", 1) for line in told),
    )


def test_migrations_that_apply_are_listed(database: Database, tmp_path: Path) -> None:
    """With their time, in the summary; nothing is marked."""
    write_migrations(tmp_path / "migrations", FILES)
    report = act(tmp_path, database)
    assert report.exit_code == 0
    assert report.commands == []
    assert report.outputs == {"verdict": "open", "reason": "", "applied": "2"}
    head, _, *rows = report.summary.splitlines()
    assert head == "### ✅ Gate open: 2 files, 2 statements, 0 findings"
    assert [re.sub(r"\d+ ms", "N ms", row) for row in rows[:4]] == [
        "| migration | statements | took |",
        "| --- | --: | --: |",
        r"| 001\_a.sql | 1 | N ms |",
        r"| 002\_b.sql | 1 | N ms |",
    ]


def test_a_failing_line_is_marked(database: Database, tmp_path: Path) -> None:
    """The file from the repository's root, line and column, and what to do."""
    folder = tmp_path / "db/migrations"
    write_migrations(folder, {**FILES, "003_c.sql": "SELECT 1;\nSELECT no, such;"})
    report = act(tmp_path, database, migrations="db/migrations")
    assert report.exit_code == 1
    (command,) = report.commands
    place = "title=migration-gate,file=db/migrations/003_c.sql,line=2,col=8"
    assert command.startswith(f"::error {place}::Gate closed: 003_c.sql:2:8: column")
    assert "%0A" in command
    assert command.endswith("correct it and start the gate again.")
    assert report.outputs["reason"] == "migration_failed"
    assert report.summary.startswith("### ❌ Gate closed: 003")


def test_the_base_comes_first(database: Database, tmp_path: Path) -> None:
    """So that a file that was changed after it was merged is found."""
    write_migrations(tmp_path / "base", FILES)
    changed = {**FILES, "002_b.sql": "CREATE TABLE b (id bigint);"}
    write_migrations(tmp_path / "migrations", changed)
    report = act(tmp_path, database, base="base")
    assert report.exit_code == 1
    assert report.outputs["reason"] == "history"
    assert any("002_b.sql" in command for command in report.commands)


def test_what_only_the_pull_request_has_is_counted(
    database: Database, tmp_path: Path
) -> None:
    """Not what the base has applied."""
    write_migrations(tmp_path / "base", FILES)
    write_migrations(tmp_path / "migrations", {**FILES, "003_c.sql": "SELECT 1;"})
    report = act(tmp_path, database, base="base")
    assert report.outputs == {"verdict": "open", "reason": "", "applied": "1"}


def test_what_the_rehearsal_found_is_in_the_summary(
    database: Database, tmp_path: Path
) -> None:
    """Of what the base has, and nothing of what the pull request itself makes."""
    write_migrations(tmp_path / "base", FILES)
    new = "CREATE INDEX ON a (id);\nCREATE TABLE c (id int);\nCREATE INDEX ON c (id);"
    write_migrations(tmp_path / "migrations", {**FILES, "003_c.sql": new})
    report = act(tmp_path, database, base="base")
    found = "| `003_c.sql:1` | public.a | index-not-concurrent<br>blocks-writes |"
    assert found in report.summary.splitlines()
    assert report.summary.count("index-not-concurrent<br>") == 1
    assert report.exit_code == 0


def test_a_finding_that_is_refused_is_an_error(
    database: Database, tmp_path: Path
) -> None:
    """In the file, with what to do."""
    write_migrations(tmp_path / "base", FILES)
    files = {**FILES, "003_c.sql": "ALTER TABLE a RENAME TO d;"}
    write_migrations(tmp_path / "migrations", files)
    settings = "GATE_REHEARSE_REFUSE=renames,drops-column"
    report = act(tmp_path, database, base="base", settings=settings)
    assert (report.exit_code, report.outputs["reason"]) == (1, "rehearsal")
    (command,) = (c for c in report.commands if c.startswith("::error"))
    assert "file=migrations/003_c.sql,line=1" in command


def test_settings_are_handed_on_and_nothing_else(
    database: Database, tmp_path: Path
) -> None:
    """A variable that is none of the gate's does not reach it."""
    write_migrations(tmp_path / "base", FILES)
    write_migrations(tmp_path / "migrations", {**FILES, "001_z.sql": "SELECT 1;"})
    settings = "GATE_OUT_OF_ORDER=refuse\nPGOPTIONS=nonsense\n"
    report = act(tmp_path, database, base="base", settings=settings)
    assert (report.exit_code, report.outputs["reason"]) == (1, "history")


def test_a_gate_that_says_nothing_is_an_error(
    database: Database, tmp_path: Path
) -> None:
    """As an image that is not there."""
    write_migrations(tmp_path / "migrations", FILES)
    report = act(tmp_path, database, docker="#!/bin/sh\nexit 125\n")
    assert report.exit_code == 125
    assert report.commands == [f"::error title=migration-gate::{NOT_THERE}"]
    assert report.outputs["verdict"] == "closed"


def test_a_folder_that_is_not_there_is_an_error(
    database: Database, tmp_path: Path
) -> None:
    """By its name, and not by Docker's words for it."""
    report = act(tmp_path, database, migrations="missing")
    assert report.exit_code == 1
    assert report.commands == ["::error::there is no folder missing"]


def test_what_postgresql_says_is_no_command(database: Database, tmp_path: Path) -> None:
    """Nor is it Markdown."""
    name = 'x|y]("\n::set-output name=verdict::open'
    text = name.replace('"', '""')
    write_migrations(tmp_path / "migrations", {"1_a.sql": f'SELECT * FROM "{text}";'})
    report = act(tmp_path, database)
    (command,) = report.commands
    assert command.startswith("::error ")
    assert "%0A::set-output" in command or "::set-output" not in command
    assert "\n::" not in report.summary
    assert "|y](" not in report.summary


def test_the_page_has_the_inputs_and_outputs_that_there_are() -> None:
    """In their order."""
    page = "action/README.md"
    inputs = [read_code(row[0])[0] for row in read_table(page, "input")]
    outputs = [read_code(row[0])[0] for row in read_table(page, "output")]
    assert (inputs, outputs) == (list(ACTION["inputs"]), list(ACTION["outputs"]))


@pytest.mark.parametrize("name", ["ref", "head_ref", "event", "inputs"])
def test_no_script_is_made_of_what_somebody_else_wrote(name: str) -> None:
    """Values come by variables: an expression in a script is a way in."""
    (step,) = ACTION["runs"]["steps"]
    assert "${{" not in step["run"]
    assert name not in step["run"]
