"""How often a pending file is read: no more than its checksum, checks and turn need."""

from __future__ import annotations

from pathlib import Path

from tests.commands.test_fleet import history, schemas
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


def note_reads(folder: Path) -> dict[str, str]:
    """Return the setting that has each opening of the file noted."""
    hooks = folder / "hooks"
    hooks.mkdir()
    text = COUNTS.format(path=str(folder / "noted"))
    (hooks / "sitecustomize.py").write_text(text, "utf-8")
    return {"PYTHONPATH": str(hooks)}


def count_reads(folder: Path) -> int:
    """Return how often it was opened."""
    return (folder / "noted").read_text("utf-8").count("read")


def test_what_is_not_kept_is_read_no_more_than_it_has_to_be(
    gate: Gate, database: Database, tmp_path: Path
) -> None:
    """Its checksum, its checks, what ends the message before it, and its turn."""
    files = {f"{number:03}_long.sql": LONG for number in range(1, 9)}
    env = note_reads(tmp_path)
    run = gate(database=database, migrations=files, env=env)
    assert run.verdict["applied"] == list(files)
    assert count_reads(tmp_path) == 4


def test_a_small_file_is_read_once_for_all_targets(
    gate: Gate, database: Database, tmp_path: Path
) -> None:
    """Beside its checksum, however many there are."""
    files = {"001_a.sql": "CREATE TABLE a ();", "008_long.sql": "CREATE TABLE b ();"}
    names = [f"t{number}" for number in range(5)]
    env = schemas(database, names) | {"GATE_TARGETS_AT_ONCE": "1"}
    run = gate(database=database, migrations=files, env=env | note_reads(tmp_path))
    assert run.verdict["applied_count"] == 10
    assert count_reads(tmp_path) == 2


def test_what_one_history_must_not_have_in_it_another_one_may(
    gate: Gate, database: Database
) -> None:
    """A file that names a history is judged for each target."""
    names = ["a", "b", "c"]
    files = {
        "001_a.sql": "CREATE TABLE orders ();",
        "002_b.sql": "INSERT INTO b.Schema_Migrations (version) VALUES ('1_x.sql')"
        " ON CONFLICT DO NOTHING;",
    }
    env = schemas(database, names) | {"GATE_TARGETS_AT_ONCE": "1"}
    first = gate(database=database, migrations=dict([*files.items()][:1]), env=env)
    assert first.exit_code == 0
    run = gate(database=database, migrations=files, env=env)
    assert run.verdict["failed"] == ["b: 002_b.sql:1:1 (files)"]
    assert history(database, "b") == ["001_a.sql", "1_x.sql"]


def test_what_a_default_fills_in_is_judged_for_each_target(
    gate: Gate, database: Database
) -> None:
    """The history may be named by a placeholder that no variable is set for."""
    write = "INSERT INTO b.schema_${X:-migrations} (version) VALUES ('1_x.sql');"
    files = {
        "001_a.sql": "CREATE TABLE orders ();",
        "002_b.sql": f"-- +goose Up\n-- +goose ENVSUB ON\n{write}\n",
    }
    env = schemas(database, ["a", "b"]) | {"GATE_TARGETS_AT_ONCE": "1"}
    first = gate(database=database, migrations=dict([*files.items()][:1]), env=env)
    assert first.exit_code == 0
    run = gate(database=database, migrations=files, env=env)
    assert run.verdict["failed"] == ["b: 002_b.sql:3:1 (files)"]
