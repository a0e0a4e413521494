"""What is wrong before a database is asked: settings, arguments, files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.last_lines.stage import QUICK, A, Scene, Scenes


def of_files(files: Mapping[str, str | bytes]) -> Scene:
    """Return the scene of a folder that is refused."""
    return lambda stage: stage.run(files=dict(files))


def of_settings(**env: str) -> Scene:
    """Return the scene of a setting that is refused."""
    return lambda stage: stage.run(env=env)


SCENES: Final[Scenes] = {
    "no database named": lambda s: s.gate(migrations=dict(A), env=dict(QUICK)),
    "malformed duration": of_settings(GATE_TIMEOUT="soon"),
    "unknown command": lambda s: s.run("fly"),
    "misspelt setting": of_settings(GATE_TIMOUT="5m"),
    "password file missing": lambda s: s.gate(
        migrations=dict(A),
        env={**QUICK, "PGHOST": "127.0.0.1", "PGPASSWORD_FILE": "/nowhere/password"},
    ),
    "malformed URL": lambda s: s.gate(
        migrations=dict(A),
        env={**QUICK, "DATABASE_URL": "postgresql://app:p@ss/word@db:5432/shop"},
    ),
    "no folder": lambda s: s.run(files=Path("/nowhere/migrations")),
    "empty folder": of_files({}),
    "bad name": of_files({"first.sql": "SELECT 1;"}),
    "same version twice": of_files({**A, "001_a.up.sql": "SELECT 1;"}),
    "bad directive": of_files({"001_a.sql": "-- gate: no-transactions\nSELECT 1;"}),
    "not UTF-8": of_files({"001_a.sql": b"SELECT 1;\nSELECT 'K\xe4se';"}),
    "open quote": of_files({"001_a.sql": "SELECT 1;\nSELECT 'x;"}),
    "open parenthesis": of_files({"001_a.sql": "SELECT 1;\nCREATE TABLE b (id int;"}),
    "psql command": of_files({"001_a.sql": "SELECT 1;\n\\include x.sql\n"}),
    "psql variable": of_files({"001_a.sql": "SELECT 1;\nSELECT :owner;"}),
    "ROLLBACK in a file": of_files({"001_a.sql": "SELECT 1;\nROLLBACK;"}),
    "mark of a way back": of_files(
        {"001_a.sql": "CREATE TABLE a ();\n-- undo\nDROP TABLE a;"}
    ),
}
