"""Several folders are one set of migrations."""

from __future__ import annotations

import json

from pathlib import Path

import pytest

from migration_gate.commands.new import create_migration
from migration_gate.files.folder import read_folder
from migration_gate.report.errors import MigrationFilesError
from tests.fix_gate import Gate, write_migrations
from tests.fix_postgres import Database
from tests.history_tables import versions, why


def folders(tmp_path: Path, *folders: dict[str, str]) -> str:
    """Write folders, and return them as the setting names them."""
    paths = [tmp_path / f"f{number}" for number in range(len(folders))]
    for path, files in zip(paths, folders, strict=True):
        path.mkdir(parents=True, exist_ok=True)
        for name in files:
            (path / name).parent.mkdir(parents=True, exist_ok=True)
        write_migrations(path, files)
    return ":".join(map(str, paths))


def faults(folder: str) -> list[str]:
    """Return what is wrong, without the path of the test."""
    with pytest.raises(MigrationFilesError) as caught:
        read_folder(folder, allow_empty=False)
    start = folder.partition("f0")[0]
    return [str(fault).replace(start, "") for fault in caught.value.faults]


def test_they_are_read_in_one_order(tmp_path: Path) -> None:
    """By number, wherever a file is; its name has no folder."""
    folder = folders(tmp_path, {"1_a.sql": "", "3_c.sql": ""}, {"sub/2_b.sql": ""})
    found = read_folder(folder, allow_empty=False)
    assert [(m.version, m.file.removeprefix(f"{tmp_path}/")) for m in found] == [
        ("1_a.sql", "f0/1_a.sql"),
        ("2_b.sql", "f1/sub/2_b.sql"),
        ("3_c.sql", "f0/3_c.sql"),
    ]


def test_a_name_is_unique_over_all(tmp_path: Path) -> None:
    """In another spelling too; a way back may be in another folder."""
    folder = folders(
        tmp_path,
        {"1_a.sql": "", "2_b.sql": ""},
        {"1_a.up.sql": "", "2_b.sql": "", "2_b.down.sql": ""},
    )
    assert faults(folder) == [
        'f1/1_a.up.sql: the same migration as "f0/1_a.sql" in another spelling',
        'f1/2_b.sql: the same migration as "f0/2_b.sql" in another folder',
    ]


def test_each_has_a_migration(tmp_path: Path) -> None:
    """One that has none is most often a wrong mount."""
    folder = folders(tmp_path, {"1_a.sql": ""}, {})
    assert faults(folder) == ["f1: no migration in the folder"]
    assert len(read_folder(folder, allow_empty=True)) == 1
    with pytest.raises(MigrationFilesError, match="cannot read the folder"):
        read_folder(f"{folder}:{tmp_path}/none", allow_empty=True)


def test_the_same_folder_twice_is_one(tmp_path: Path) -> None:
    """So is one that is below another."""
    folder = folders(tmp_path, {"1_a.sql": "", "sub/2_b.sql": ""})
    found = read_folder(f"{folder}:{folder}:{folder}/sub", allow_empty=False)
    assert [migration.version for migration in found] == ["1_a.sql", "2_b.sql"]


def test_drizzles_journal_is_that_of_its_folder(tmp_path: Path) -> None:
    """The others are no matter to it."""
    journal = json.dumps({"entries": [{"tag": "0000_a"}, {"tag": "0001_b"}]})
    folder = folders(
        tmp_path,
        {"0000_a.sql": "", "meta/_journal.json": journal},
        {"0002_c.sql": ""},
    )
    assert faults(folder) == [
        "f0/0001_b.sql: in Drizzle's journal, and not in the folder"
    ]


def test_a_new_file_is_written_to_the_last(tmp_path: Path) -> None:
    """Its number continues that of them all."""
    folder = folders(tmp_path, {"007_a.sql": ""}, {"003_b.sql": ""})
    assert create_migration(folder, "c") == tmp_path / "f1" / "008_c.sql"


def test_a_file_may_be_moved_between_them(
    gate: Gate, database: Database, tmp_path: Path
) -> None:
    """It stays applied, and a failing one is named with its folder."""
    one, two = {"1_a.sql": "CREATE TABLE a ();"}, {"2_b.sql": "CREATE TABLE b ();"}
    folder = folders(tmp_path, one, two)
    run = gate(database=database, env={"GATE_MIGRATIONS": folder})
    assert (run.exit_code, run.verdict["applied"]) == (0, ["1_a.sql", "2_b.sql"])
    moved = folders(tmp_path / "later", two, {**one, "3_c.sql": "SELECT nothing();"})
    run = gate(database=database, env={"GATE_MIGRATIONS": moved})
    assert run.verdict["file"] == str(tmp_path / "later" / "f1" / "3_c.sql")
    assert run.verdict["version"] == "3_c.sql"
    assert versions(database) == ["1_a.sql", "2_b.sql"]
    closed = gate(database=database, env={"GATE_MIGRATIONS": f"{moved}:"})
    assert why(closed)[1] == "settings"
    assert "names no folder before or after a colon" in closed.verdict["error_message"]
