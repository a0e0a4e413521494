"""How often a pending file is read: no more than its checksum, checks and turn need."""

from __future__ import annotations

from pathlib import Path

from tests.fix_gate import Gate
from tests.fix_postgres import Database


# 200 kB: of more than a megabyte of such files the first ones are kept alone.
LONG = "SELECT 1;\n" + f"-- {'x' * 97}\n" * 2_000
COUNTS = """
import sys
def note(event, arguments):
    if event == "open" and str(arguments[0]).endswith("008_long.sql"):
        with open({path!r}, "a") as file:
            file.write("read\\n")
sys.addaudithook(note)
"""


def test_what_is_not_kept_is_read_no_more_than_it_has_to_be(
    gate: Gate, database: Database, tmp_path: Path
) -> None:
    """Its checksum, its checks, what ends the message before it, and its turn."""
    hooks, noted = tmp_path / "hooks", tmp_path / "noted"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(COUNTS.format(path=str(noted)), "utf-8")
    files = {f"{number:03}_long.sql": LONG for number in range(1, 9)}
    env = {"PYTHONPATH": str(hooks)}
    run = gate(database=database, migrations=files, env=env)
    assert run.verdict["applied"] == list(files)
    assert noted.read_text("utf-8").count("read") == 4
