"""The command new: which number comes next, and what stands in the file."""

from __future__ import annotations

import datetime as dt
import re

from pathlib import Path

import pytest

from migration_gate.commands.new import create_migration
from migration_gate.files.names import classify
from migration_gate.files.undoing import find_back_files
from migration_gate.report.errors import MigrationFilesError
from tests.fix_gate import Gate, write_migrations
from tests.fix_postgres import Database


def made(folder: Path, name: str = "add x", *, beside: tuple[str, ...] = ()) -> str:
    """Return the name of a file made beside others."""
    write_migrations(folder, dict.fromkeys(beside, "SELECT 1;"))
    return create_migration(folder, name).name


@pytest.mark.parametrize(
    ("beside", "expected"),
    [
        ((), "001_add_x.sql"),
        (("001_a.sql", "R__v.sql"), "002_add_x.sql"),
        (("R__v.sql",), "001_add_x.sql"),
        (("001_a.sql",), "002_add_x.sql"),
        (("1_a.sql", "9_b.sql"), "10_add_x.sql"),
        (("099_a.sql",), "100_add_x.sql"),
        (("999_a.sql",), "1000_add_x.sql"),
        (("001_a.up.sql", "001_a.down.sql"), "002_add_x.up.sql"),
        (("001_a.up.sql", "002_b.sql"), "003_add_x.sql"),
        (("99991231235959_a.sql",), "99991231235960_add_x.sql"),
        (("0_a.sql", "_ignored.sql", "README.md"), "1_add_x.sql"),
    ],
)
def test_the_next_number_continues_what_is_there(
    tmp_path: Path, beside: tuple[str, ...], expected: str
) -> None:
    """Its width and its ending too."""
    assert made(tmp_path, beside=beside) == expected


def test_numbers_that_are_times_go_on_with_the_time(tmp_path: Path) -> None:
    """In UTC."""
    name = made(tmp_path, beside=("20251020160504_a.sql",))
    number = dt.datetime.strptime(f"{name[:14]}+0000", "%Y%m%d%H%M%S%z")
    assert abs(dt.datetime.now(dt.UTC) - number) < dt.timedelta(minutes=1)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("add_orders", "add_orders"),
        ("  Add Orders! (2) ", "add_orders_2"),
        ("../../etc/passwd", "etc_passwd"),
        ("Größe of CAFÉ № 5", "grosse_of_cafe_no_5"),
        ("a.sql", "a_sql"),
    ],
)
def test_any_words_become_a_name(tmp_path: Path, name: str, words: str) -> None:
    """Of letters, digits and underscores, and in the folder."""
    path = create_migration(tmp_path, name)
    assert path == tmp_path / f"001_{words}.sql"
    assert classify(path.name).kind == "up"


@pytest.mark.parametrize("name", ["", "!!!", "口令", "x" * 300, "a down", "undo"])
def test_a_name_that_cannot_be_one_is_refused(tmp_path: Path, name: str) -> None:
    """And nothing is written."""
    with pytest.raises(MigrationFilesError):
        create_migration(tmp_path, name)
    assert list(tmp_path.iterdir()) == []


def test_the_template_says_purpose_and_date_and_is_a_migration(
    gate: Gate, database: Database, tmp_path: Path
) -> None:
    """The path alone is on stdout, no database is named, and the file can be run."""
    folder = tmp_path / "migrations"
    folder.mkdir()
    env = {"GATE_MIGRATIONS": str(folder)}
    run = gate("new", "Order notes", env=env)
    path = folder / "001_order_notes.sql"
    assert (run.exit_code, run.stdout) == (0, f"{path}\n")
    text = path.read_text("utf-8")
    date = re.escape(dt.datetime.now(dt.UTC).date().isoformat())
    assert re.match(f"-- Purpose: order notes\n-- Created: {date}\n--\n", text)
    assert "one transaction" in text
    with path.open("a") as file:
        file.write("CREATE TABLE notes ();\n")
    applied = gate(database=database, migrations=folder)
    assert applied.verdict["applied"] == ["001_order_notes.sql"]


def test_a_folder_that_cannot_be_used_is_named(gate: Gate, tmp_path: Path) -> None:
    """It does not exist, or holds names that are none."""
    missing = gate("new", "x", env={"GATE_MIGRATIONS": str(tmp_path / "none")})
    assert (missing.exit_code, missing.stdout) == (1, "")
    assert "cannot read the folder: no such file or directory" in missing.stderr
    folder = write_migrations(tmp_path / "odd", {"first.sql": "SELECT 1;"})
    odd = gate("new", "x", env={"GATE_MIGRATIONS": str(folder)})
    assert (odd.exit_code, odd.stdout) == (1, "")
    assert "first.sql: name is not of the form" in odd.stderr


def test_a_repeatable_one_has_no_number(gate: Gate, tmp_path: Path) -> None:
    """The gate reads it, and a second one of the name is not written over it."""
    folder = write_migrations(tmp_path / "files", {"001_a.sql": "SELECT 1;"})
    said = ("new", "--repeatable", "Open Orders")
    run = gate(*said, migrations=folder)
    assert (run.exit_code, run.stdout) == (0, f"{folder}/R__open_orders.sql\n")
    assert "-- Purpose: open orders\n" in (folder / "R__open_orders.sql").read_text()
    assert gate(*said, migrations=folder).exit_code == 1


@pytest.mark.parametrize(
    ("beside", "expected"),
    [
        ((), ["001_add_x.sql", "001_add_x.down.sql"]),
        (("001_a.up.sql",), ["002_add_x.up.sql", "002_add_x.down.sql"]),
        (("V1__a.sql",), ["V2__add_x.sql", "U2__add_x.sql"]),
    ],
)
def test_what_undoes_it_is_written_beside_it(
    gate: Gate, tmp_path: Path, beside: tuple[str, ...], expected: list[str]
) -> None:
    """In the form that the folder has; the gate knows it as the way back of the new."""
    files = write_migrations(tmp_path / "m", dict.fromkeys(beside, "SELECT 1;"))

    run = gate("new", "add x", "--down", migrations=files)

    assert [Path(line).name for line in run.stdout.splitlines()] == expected
    assert find_back_files(files) == {expected[0]: (expected[1],)}
