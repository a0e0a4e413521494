"""
Compose files with the real Compose: the application starts after an open gate only.

That of the project, and that of the README, which a reader copies.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import time

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fix_image import BUILD_S, DOCKER, ROOT, SHORT_S
from tests.project.pages import read_blocks


pytestmark = [pytest.mark.docker, pytest.mark.timeout(BUILD_S)]

LATE_S = 20.0
BROKEN = "CREATE TABLE broken (id int);\nSELECT nothing FROM nowhere;\n"


@dataclass(kw_only=True)
class Project:
    """A file under a name of its own; `changes` is merged over it."""

    name: str
    override: Path
    file: Path = ROOT / "compose.yaml"
    changes: dict[str, Any] = field(default_factory=dict)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run docker compose."""
        self.override.write_text(yaml.safe_dump({"services": self.changes}))
        files = ("-f", str(self.file), "-f", str(self.override))
        return subprocess.run(
            [DOCKER, "compose", "-p", self.name, *files, *arguments],
            check=False,
            capture_output=True,
            text=True,
            timeout=SHORT_S,
        )

    def script(self, text: str) -> subprocess.CompletedProcess[str]:
        """Run lines of a page in a shell, in which `docker compose` is this project."""
        self.override.write_text(yaml.safe_dump({"services": self.changes}))
        files = f"{self.file}:{self.override}"
        return subprocess.run(
            ["sh", "-c", text],  # noqa: S607 -- a page's command, as its reader has it
            env=os.environ | {"COMPOSE_FILE": files, "COMPOSE_PROJECT_NAME": self.name},
            check=False,
            capture_output=True,
            text=True,
            timeout=SHORT_S,
        )

    def up(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Bring it up, in the background."""
        return self.run("up", "--no-build", "--detach", *options)

    def states(self) -> dict[str, tuple[str, int]]:
        """Return each service's state and exit code."""
        listing = self.run("ps", "--all", "--format", "json").stdout.splitlines()
        containers = [json.loads(line) for line in listing]
        return {
            each["Service"]: (each["State"], each["ExitCode"]) for each in containers
        }

    def events(self) -> list[dict[str, Any]]:
        """Return the gate's log, of all its runs."""
        log = self.run("logs", "--no-log-prefix", "--no-color", "gate").stdout
        lines = [line for line in log.splitlines() if line.startswith("{")]
        return [json.loads(line) for line in lines]

    def mount(self, migrations: Path) -> None:
        """Give the gate other migrations."""
        self.changes["gate"] = {"volumes": [f"{migrations}:/migrations:ro"]}


@pytest.fixture
def project(image: str, tmp_path: Path) -> Iterator[Project]:
    """The demo, removed in the end with its volume."""
    assert image
    name = f"migration-gate-test-{secrets.token_hex(4)}"
    demo = Project(name=name, override=tmp_path / "override.yaml")
    try:
        yield demo
    finally:
        demo.run("down", "--volumes", "--timeout", "0")


@pytest.fixture
def readme(image: str, tmp_path: Path) -> Iterator[Project]:
    """Copy the README's file beside migrations and a secret, as a reader does."""
    assert image
    (block,) = [b for b in read_blocks("README.md", "yaml") if "services:" in b]
    folder = tmp_path / "shop"
    shutil.copytree(ROOT / "migrations", folder / "migrations")
    (folder / "compose.yaml").write_text(block)
    secret = folder / "postgres_password.txt"
    secret.write_text(secrets.token_urlsafe(12))
    secret.chmod(0o644)
    shop = Project(
        name=f"migration-gate-test-{secrets.token_hex(4)}",
        override=tmp_path / "override.yaml",
        file=folder / "compose.yaml",
    )
    # Stands in for the reader's application.
    shop.changes["app"] = {
        "image": "postgres:17",
        "entrypoint": ["sh", "-c", "echo 'application: started'; exec sleep infinity"],
        "init": True,
    }
    try:
        yield shop
    finally:
        shop.run("down", "--volumes", "--timeout", "0")


def wait_for_log(project: Project, service: str, text: str) -> None:
    """Wait until a service has written something."""
    deadline_s = time.monotonic() + SHORT_S
    while text not in (log := project.run("logs", service).stdout):
        assert time.monotonic() < deadline_s, log
        time.sleep(0.1)


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """Migrations of which the second fails."""
    folder = tmp_path / "migrations"
    folder.mkdir(mode=0o755)
    folder.joinpath("001_first.sql").write_text("CREATE TABLE first (id int);\n")
    folder.joinpath("002_broken.sql").write_text(BROKEN)
    return folder


def test_the_first_start_opens_and_the_second_has_nothing_to_do(
    project: Project,
) -> None:
    """On an empty volume, where PostgreSQL restarts once; then again over it."""
    first = project.up()
    assert first.returncode == 0, first.stderr
    assert project.states()["gate"] == ("exited", 0)
    assert project.states()["app"] == ("running", 0)
    wait_for_log(project, "app", "application: started")
    applied = project.events()[-1]["applied"]
    assert applied[0] == "001_initial_schema.sql"

    second = project.up()
    assert second.returncode == 0, second.stderr
    verdict = project.events()[-1]
    assert (verdict["event"], verdict["applied"]) == ("gate.opened", [])
    assert verdict["duration_ms"] < 1000
    assert [event["event"] for event in project.events()].count("lock.acquired") == 1


def test_up_wait_succeeds(project: Project) -> None:
    """Although the gate has ended by then: the application depends on its success."""
    waited = project.up("--wait", "--wait-timeout", "50")
    assert waited.returncode == 0, waited.stderr
    assert project.states()["app"] == ("running", 0)


def test_behind_a_failed_migration_the_application_never_starts(
    project: Project, broken: Path
) -> None:
    """And the reason is on the screen of `docker compose up`."""
    project.mount(broken)
    up = project.run("up", "--no-build", "--abort-on-container-failure")
    assert up.returncode != 0
    screen = up.stdout + up.stderr
    assert "migration-gate: closed: " in screen
    assert '"nowhere" does not exist' in screen
    assert "application: started" not in screen
    assert not re.search(r"^db-1 +\|", screen, re.MULTILINE), "it hides the gate's log"
    assert project.states()["gate"] == ("exited", 1)
    assert project.states().get("app", ("created", 0)) == ("created", 0)
    verdict = project.events()[-1]
    assert (verdict["file"], verdict["line"]) == ("002_broken.sql", 2)
    assert verdict["applied"] == ["001_first.sql"]


def test_detached_up_fails_with_a_failed_migration(
    project: Project, broken: Path
) -> None:
    """Its exit code is what a script sees."""
    project.mount(broken)
    up = project.up()
    assert up.returncode == 1
    assert "exit 1" in up.stderr
    assert project.states()["app"] == ("created", 0)


def test_a_mended_migration_opens_at_the_next_up(
    project: Project, broken: Path
) -> None:
    """What was applied stays; only the mended file is."""
    project.mount(broken)
    assert project.up().returncode == 1
    broken.joinpath("002_broken.sql").write_text("CREATE TABLE mended (id int);\n")
    assert project.up().returncode == 0
    assert project.events()[-1]["applied"] == ["002_broken.sql"]
    assert project.states()["app"] == ("running", 0)


def test_a_database_that_comes_late_is_waited_for(project: Project) -> None:
    """Twenty seconds after the gate, and without a health check."""
    late = f"sleep {LATE_S:.0f}; exec docker-entrypoint.sh postgres"
    project.changes["db"] = {"entrypoint": ["sh", "-c", late]}
    up = project.up()
    assert up.returncode == 0, up.stderr
    assert project.states()["app"] == ("running", 0)
    assert project.events()[-1]["waited_s"] > LATE_S - 5


def test_the_gate_runs_hardened(project: Project) -> None:
    """As Compose itself understands the file."""
    config = json.loads(project.run("config", "--format", "json").stdout)
    gate = config["services"]["gate"]
    assert gate["read_only"] is True
    assert gate["cap_drop"] == ["ALL"]
    assert gate["security_opt"] == ["no-new-privileges:true"]
    assert config["networks"]["database"]["internal"] is True
    assert not any(
        "PASSWORD" in name and "FILE" not in name for name in gate["environment"]
    )


def test_the_file_of_the_readme_starts_the_application(readme: Project) -> None:
    """And the gate's log is sentences for a person."""
    up = readme.up()
    assert up.returncode == 0, up.stderr
    assert readme.states()["gate"] == ("exited", 0)
    assert readme.states()["app"] == ("running", 0)
    log = readme.run("logs", "--no-log-prefix", "gate").stdout
    assert re.search(r"info +Gate open: \d+ applied in ", log.splitlines()[-1])


def test_the_file_of_the_readme_keeps_the_application_back(readme: Project) -> None:
    """And nothing but the gate is on the screen when it says why."""
    (readme.file.parent / "migrations/900_broken.sql").write_text(BROKEN)
    up = readme.run("up", "--abort-on-container-failure")
    assert up.returncode == 1
    shown = [line for line in up.stdout.splitlines() if " | " in line]
    assert {line.partition(" ")[0] for line in shown} == {"gate-1"}
    assert '900_broken.sql:2:21: relation "nowhere" does not exist' in up.stdout
    assert readme.states()["app"] == ("created", 0)


def test_a_script_sees_why_the_gate_is_closed_in_the_background(
    project: Project, broken: Path
) -> None:
    """By the line that the page of orchestrators has for it."""
    project.mount(broken)
    (line,) = [
        block
        for block in read_blocks("docs/orchestrators.md", "sh")
        if block.startswith("docker compose up --detach ||")
    ]
    up = project.script(line.replace("--detach", "--detach --no-build"))
    assert up.returncode == 1
    # The engine takes stdout and stderr each by itself: either may come last.
    *_, last = lines = up.stdout.splitlines()
    assert "002_broken.sql:2:21" in last
    *_, verdict = (line for line in lines if line.startswith("{"))
    assert json.loads(verdict)["file"] == "002_broken.sql"
    page = (ROOT / "docs/orchestrators.md").read_text("utf-8")
    (said,) = re.findall(r'^service "gate" .*$', page, re.MULTILINE)
    assert said in up.stderr


def test_the_runbook_opens_a_gate_whose_objects_exist_already(
    project: Project,
) -> None:
    """Its commands, one after the other: look, look ahead, say that it is applied."""
    assert project.up().returncode == 0
    forget = "DELETE FROM schema_migrations WHERE version = '001_initial_schema.sql'"
    project.run("exec", "db", "psql", "-U", "shop", "-c", forget)
    assert project.up().returncode == 1
    assert "already exists" in project.events()[-1]["error_message"]

    (block,) = [b for b in read_blocks("docs/runbook.md", "sh") if "compose" in b]
    status, plan, resolve = map(project.script, block.splitlines())
    assert re.search(r"^out of order +001_initial_schema", status.stdout, re.MULTILINE)
    assert "001_initial_schema.sql" in plan.stdout
    assert (plan.returncode, resolve.returncode) == (0, 0)
    assert project.up().returncode == 0


def test_only_run_ends_with_the_gates_exit_code(project: Project, broken: Path) -> None:
    """``up gate`` shows as much, and ends with 0, as the page warns."""
    project.mount(broken)
    up = project.run("up", "--no-build", "gate")
    run = project.run("run", "--rm", "gate")
    assert (up.returncode, run.returncode) == (0, 1)
    assert '"nowhere\\" does not exist' in up.stdout
    assert '"nowhere\\" does not exist' in run.stdout
