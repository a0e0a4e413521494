"""What undoes a migration: a file that goes back, or the part of a file that does."""

from __future__ import annotations

from pathlib import Path

import pytest

from migration_gate.files.folder import read_folder, read_scripts
from migration_gate.files.migration import Migration
from migration_gate.files.script import Script
from migration_gate.files.undoing import find_back_files, find_way_back
from migration_gate.report.errors import MigrationFilesError
from migration_gate.settings.settings import HistoryTableName
from tests.fix_gate import write_migrations


HISTORY = HistoryTableName(schema="public", table="schema_migrations")


@pytest.mark.parametrize(
    ("up", "down"),
    [
        ("001_a.sql", "001_a.down.sql"),
        ("001_a.up.sql", "001_a.down.sql"),
        ("001_a.sql", "001_other_words.down.sql"),
        ("001_a.sql", "001_a_undo.sql"),
        ("20260101_01_Xk3aB-a.sql", "20260101_01_Xk3aB-a.rollback.sql"),
        ("2025-10-20-160504_a.sql", "2025-10-20-160504_a_down.sql"),
        ("V1.2__a.sql", "U1.2__a.sql"),
        ("V1__a.sql", "U1.0__b.sql"),
        ("001_a/up.sql", "001_a/down.sql"),
        ("001_a.sql", "down/001_a.sql"),
        ("1/001_a.sql", "2/rollback/001_a.sql"),
    ],
)
def test_a_file_that_goes_back_belongs_to_its_migration(
    tmp_path: Path, up: str, down: str
) -> None:
    """By its words where they are those of one, else by its number."""
    for name in (up, down):
        write_migrations((tmp_path / name).parent, {Path(name).name: "SELECT 1;"})

    (migration,) = read_folder(tmp_path, allow_empty=False)

    assert find_back_files(tmp_path) == {migration.version: (down,)}


def test_words_tell_apart_what_shares_a_number(tmp_path: Path) -> None:
    """A file that could be either's undoes neither."""
    names = ("1_a.sql", "1_b.sql", "1_a.down.sql", "1_b_undo.sql")
    write_migrations(tmp_path, dict.fromkeys((*names, "1_c.down.sql"), "SELECT 1;"))

    assert find_back_files(tmp_path) == {
        "1_a.sql": ("1_a.down.sql",),
        "1_b.sql": ("1_b_undo.sql",),
    }


def read_back(tmp_path: Path, content: str, name: str = "1_a.sql") -> Script:
    """Return the script that undoes a file with both directions."""
    write_migrations(tmp_path, {name: content})
    (migration,) = read_folder(tmp_path, allow_empty=False)
    back = find_way_back(tmp_path, migration, ())
    (script,) = read_scripts(tmp_path, [back], HISTORY)
    return script


def statements(script: Script) -> list[str]:
    """Return the statements in the order in which they run, on one line each."""
    return [
        " ".join(script.content[s.first : s.end].decode().split()).strip(" ;")
        for unit in script.units
        for s in unit.statements
    ]


PARTS = {
    "dbmate": "-- migrate:up\nUP a;\n-- migrate:down\nDROP TABLE a;\nDROP TABLE b;\n",
    "goose": "-- +goose Up\nSELECT 1;\n-- +goose Down\n-- +goose StatementBegin\n"
    "DROP TABLE a;\n-- +goose StatementEnd\nDROP TABLE b;\n",
    "tern": "SELECT 1;\n---- create above / drop below ----\nDROP TABLE a;\n"
    "DROP TABLE b;\n",
    "node-pg-migrate": "-- Up Migration\nSELECT 1;\n-- Down Migration\nDROP TABLE a;"
    "DROP TABLE b;",
    "node-pg-migrate, down first": "-- Down Migration\nDROP TABLE a;DROP TABLE b;\n"
    "-- Up Migration\nSELECT 1;\n",
    "sql-migrate": "-- +migrate Up\nSELECT 1;\n-- +migrate Down\nDROP TABLE a;\n"
    "-- +migrate Up\nSELECT 2;\n-- +migrate Down\nDROP TABLE b;\n",
    "Play": "# --- !Ups\nSELECT 1;\n# --- !Downs\nDROP TABLE a;\nDROP TABLE b;\n",
    "MyBatis": "SELECT 1;\n-- //@UNDO\nDROP TABLE a;\nDROP TABLE b;\n",
    "rambler, the last section first": "-- rambler up\nSELECT 1;\n-- rambler down\n"
    "DROP TABLE b;\n-- rambler up\nSELECT 2;\n-- rambler down\nDROP TABLE a;\n",
    "Liquibase, the last change set first": "--liquibase formatted sql\n"
    "--changeset a:1\nSELECT 1;\n--rollback DROP TABLE b\n\n"
    "--changeset a:2\nSELECT 2;\n--rollback DROP\n--rollback TABLE a\n",
    "Liquibase, in a block": "--liquibase formatted sql\n--changeset a:1\nSELECT 1;\n"
    "/* liquibase rollback\nDROP TABLE a;\nDROP TABLE b;\n*/\n",
    "dbmate, several": "-- migrate:up\nSELECT 1;\n-- migrate:down\nDROP TABLE a;\n"
    "-- migrate:up\nSELECT 2;\n-- migrate:down\nDROP TABLE b;\n",
}


@pytest.mark.parametrize("tool", PARTS)
def test_the_part_that_goes_back_is_cut_out_as_its_tool_does(
    tmp_path: Path, tool: str
) -> None:
    """Its statements run in the order in which the tool runs them."""
    script = read_back(tmp_path, PARTS[tool].replace("UP a", "SELECT 1"))

    assert statements(script) == ["DROP TABLE a", "DROP TABLE b"]
    assert [s.number for u in script.units for s in u.statements] == [1, 2]
    assert script.in_transaction


OUTSIDE = {
    "dbmate": "-- migrate:up\nSELECT 1;\n-- migrate:down transaction:false\nSELECT 2;",
    "goose": "-- +goose NO TRANSACTION\n-- +goose Up\nSELECT 1;\n-- +goose Down\n"
    "SELECT 2;",
    "tern": "SELECT 1;\n---- create above / drop below ----\n"
    "---- tern: disable-tx ----\nSELECT 2;",
    "sql-migrate": "-- +migrate Up\nSELECT 1;\n-- +migrate Down notransaction\n"
    "SELECT 2;",
    "a directive of its own": "-- migrate:up\nSELECT 1;\n-- migrate:down\n"
    "-- gate: no-transaction\nSELECT 2;",
}


@pytest.mark.parametrize("tool", OUTSIDE)
def test_a_part_says_for_itself_that_it_runs_outside(tmp_path: Path, tool: str) -> None:
    """What is said of the part that goes up does not hold for it."""
    assert not read_back(tmp_path, OUTSIDE[tool]).in_transaction


def test_what_is_said_of_the_part_that_goes_up_is_not_of_the_other(
    tmp_path: Path,
) -> None:
    """Its directives and options are its own."""
    content = (
        "-- migrate:up transaction:false\n-- gate: no-transaction\nSELECT 1;\n"
        "-- migrate:down\nSELECT 2;\n"
    )

    assert read_back(tmp_path, content).in_transaction


def test_liquibase_may_say_that_nothing_is_to_be_done(tmp_path: Path) -> None:
    """Of a change set, or of all."""
    head = "--liquibase formatted sql\n--changeset a:1\nSELECT 1;\n"

    assert statements(read_back(tmp_path, head + "--rollback empty\n")) == []
    other = "--changeset a:2\nSELECT 1;\n--rollback SELECT 2;\n"
    script = read_back(tmp_path, f"{head}--rollback not required\n{other}")
    assert statements(script) == ["SELECT 2"]


NONE = {
    "no mark": ("SELECT 1;", None, "no way back"),
    "only up": ("-- +goose Up\nSELECT 1;", None, "no way back"),
    "one-way": (
        "-- gate: one-way\nSELECT 1;\n-- Down Migration\nSELECT 2;",
        None,
        "no way back",
    ),
    "nothing in it": (
        "-- migrate:up\nSELECT 1;\n-- migrate:down\n-- later\n",
        3,
        "way back without a statement",
    ),
    "a change set lacks one": (
        (
            "--liquibase formatted sql\n--changeset a:1\nSELECT 1;\n"
            "--rollback SELECT 2;\n"
            "--changeset a:2\nSELECT 1;\n"
        ),
        5,
        "change set without a rollback",
    ),
    "by another change set": (
        (
            "--liquibase formatted sql\n--changeset a:1\nSELECT 1;\n"
            "--rollback changesetId:0 changesetAuthor:a\n"
        ),
        4,
        "rollback by another change set",
    ),
    "Liquibase without": (
        "--liquibase formatted sql\n--changeset a:1\nSELECT 1;\n",
        None,
        "no way back",
    ),
    "strings read otherwise": (
        (
            "-- rambler up\nSELECT 1;\n-- rambler down\n"
            "SET standard_conforming_strings = off;\n-- rambler up\nSELECT 1;\n"
            "-- rambler down\nSELECT 2;\n"
        ),
        4,
        "standard_conforming_strings is set in a part that runs in another order",
    ),
}


@pytest.mark.parametrize("case", NONE)
def test_what_does_not_say_how_it_is_undone_is_refused(
    tmp_path: Path, case: str
) -> None:
    """With its line where there is one, and what to do."""
    content, line, problem = NONE[case]

    with pytest.raises(MigrationFilesError) as refused:
        read_back(tmp_path, content)

    (fault,) = refused.value.faults
    assert fault.line == line
    assert fault.problem.startswith(problem)
    assert fault.remedy


def test_places_are_those_of_the_file(tmp_path: Path) -> None:
    """A part that comes second keeps its lines, and says which file it is of."""
    content = "-- migrate:up\nSELECT 1;\n-- migrate:down\nSELECT 1;\n\\d\n"

    with pytest.raises(MigrationFilesError) as refused:
        read_back(tmp_path, content)

    (fault,) = refused.value.faults
    assert (fault.file, fault.line) == ("1_a.sql", 5)


def test_a_folder_of_a_migration_says_for_both_ways(tmp_path: Path) -> None:
    """The metadata.toml of diesel is of up.sql and down.sql."""
    folder = write_migrations(
        tmp_path / "1_a",
        {
            "up.sql": "SELECT 1;",
            "down.sql": "SELECT 2;",
            "metadata.toml": "run_in_transaction = false",
        },
    )
    (migration,) = read_folder(folder.parent, allow_empty=False)

    back = find_way_back(folder.parent, migration, ("1_a/down.sql",))

    expected = Migration(
        version="1_a",
        number=(1,),
        key="1_a",
        checksum=back.checksum,
        path="1_a/down.sql",
        is_outside=True,
        way="back",
    )
    assert back == expected
