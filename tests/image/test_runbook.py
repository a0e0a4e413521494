"""The runbook's commands, as a person copies them, against a gate that stays closed."""

from __future__ import annotations

import re
import subprocess

from pathlib import Path

import pytest

from tests.fix_image import BUILD_S, IMAGE, SHORT_S, ContainerDatabase
from tests.project.pages import read_blocks


pytestmark = [pytest.mark.docker, pytest.mark.timeout(BUILD_S)]

PAGE = "docs/runbook.md"


def test_gate_env_is_all_that_a_command_needs(
    container_database: ContainerDatabase, tmp_path: Path
) -> None:
    """Beside the files, which the image of the page has inside."""
    migrations = tmp_path / "migrations"
    migrations.mkdir(mode=0o755)
    (migrations / "001_first.sql").write_text("CREATE TABLE first (id int);\n")
    (block,) = [b for b in read_blocks(PAGE, "sh") if "gate.env" in b]
    ours = {
        r"(?<=_HOST=).*": container_database.host,
        r"(?<=_DB=).*": "postgres",
        r"(?<=_USER=).*": "postgres",
        r"(?<=_PASSWORD=).*": container_database.password,
        r"shop-migrations:\S+": f"--network {container_database.network}"
        f" --volume {migrations}:/migrations:ro {IMAGE}",
    }
    for pattern, value in ours.items():
        block, count = re.subn(pattern, value, block)
        assert count == 1, pattern
    status = subprocess.run(
        ["sh", "-c", block],  # noqa: S607 -- a page's command, as its reader has it
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
        timeout=SHORT_S,
    )
    assert status.returncode == 1, status.stderr
    assert status.stdout.splitlines()[-1].split() == ["pending", "001_first.sql"]
    assert (tmp_path / "gate.env").stat().st_mode & 0o777 == 0o600
