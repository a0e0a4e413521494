"""The guard for marks that no tool is known for."""

from __future__ import annotations

import pytest

from migration_gate.files.ways_back import find_ways_back
from migration_gate.statements import split
from tests.fix_gate import Gate
from tests.fix_postgres import Database


def lines(script: str) -> list[int]:
    """Return the lines at which the guard closes the gate."""
    content = script.encode()
    return [
        content[: fault.offset].count(b"\n") + 1
        for fault in find_ways_back(content, split(content))
    ]


@pytest.mark.parametrize(
    "mark",
    [
        "-- down",
        "--DOWN",
        "---- Undo ----",
        "-- @rollback",
        "-- !Revert",
        "-- Down:",
        "-- migration down",
        "-- Down Migration --",
        "  -- rollback migrations",
        "/* undo */",
        "/*** ROLLBACK ***/",
        "-- +micrate Down",
        "-- ==== Roll back ====",
        "-- [down]",
        "-- // @undo",
        "--- !downs",
        "--rollback",
    ],
)
def test_a_comment_that_is_nothing_but_a_way_back_is_a_mark(mark: str) -> None:
    """In a line or a block comment, whatever signs are around it."""
    assert lines(f"CREATE TABLE t ();\n{mark}\nDROP TABLE t;\n") == [2]
    assert lines(f"CREATE TABLE t ()\n{mark}\nDROP TABLE t;\n") == [2]
    assert lines(f"{mark}\nDROP TABLE t;\n-- up\nCREATE TABLE t ();\n") == [1]
    assert lines(f"CREATE TABLE t ();\n{mark}\n-- none\n") == []


@pytest.mark.parametrize(
    "comment",
    [
        "-- down with it",
        "-- rollback: drop table t;",
        "-- Rolls back what 003 did",
        "-- countdown",
        "SELECT 1; -- down",
        "SELECT '\n-- down\n';",
        "DO $$\n-- down\nBEGIN END $$;",
        "/* to go\n-- down\n*/",
        "SELECT (1,\n-- down\n2);",
        "COPY t FROM stdin;\n-- down\n\\.\n",
    ],
)
def test_other_comments_are_none(comment: str) -> None:
    """Nor what is in quotes, data, parentheses or another comment."""
    assert lines(f"SELECT 1;\n{comment}\nSELECT 2;\n") == []


def test_an_unknown_mark_closes_the_gate_with_its_line(
    gate: Gate, database: Database
) -> None:
    """The directive one-way says that the whole file is meant."""
    script = "CREATE TABLE t ();\n-- Undo --\nDROP TABLE t;\n"
    refused = gate(database=database, migrations={"001_x.sql": script})
    told = gate(
        database=database,
        migrations={"001_x.sql": f"-- gate: one-way\n{script}CREATE TABLE u ();"},
    )

    assert (refused.exit_code, refused.verdict["line"]) == (1, 2)
    assert "one-way" in refused.verdict["hint"]
    assert told.exit_code == 0, told.output
    assert database.fetch("SELECT to_regclass('t'), to_regclass('u')") == [(None, "u")]
