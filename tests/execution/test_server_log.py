"""What the server's log has of a failing file: its text, and little of the gate's."""

from __future__ import annotations

import operator

import pytest

from tests.fix_gate import Gate
from tests.fix_postgres import Database


FILES = {f"{number:03}_x.sql": f"CREATE TABLE x{number} ();" for number in range(1, 21)}
SLIPS = {"syntax": "CREATE TABEL y ();", "division": "SELECT 1 / 0;"}


def statements(database: Database) -> list[list[str]]:
    """Return the lines of what the server has logged under STATEMENT."""
    _, *logged = database.log.split("STATEMENT:  ")
    return [entry.partition("\n20")[0].splitlines() for entry in logged]


@pytest.mark.parametrize("slip", SLIPS.values(), ids=SLIPS)
def test_a_file_stands_between_two_lines_of_the_gates(
    gate: Gate, database: Database, slip: str
) -> None:
    """Each of its lines is one there, and begins as it does in the file."""
    text = f"CREATE TABLE x ();\n\n-- a slip\n{slip}\n"
    run = gate(database=database, migrations={"001_x.sql": text})
    assert run.verdict["line"] == 4
    (logged,) = statements(database)
    lines = [line.removeprefix("\t") for line in logged]
    assert lines[0].startswith("BEGIN; SET LOCAL ")
    assert lines[1].startswith("CREATE TABLE x ();")
    assert lines[2:4] == ["", "-- a slip"]
    assert lines[4].startswith(slip)
    assert lines[5:] == [""]


@pytest.mark.parametrize(
    ("slip", "most"), [("syntax", [60, 6]), ("division", [65])], ids=SLIPS
)
def test_a_file_that_cannot_be_read_is_sent_again_alone(
    gate: Gate, database: Database, slip: str, most: list[int]
) -> None:
    """Of twenty that go together there are three lines each."""
    files = {**FILES, "011_x.sql": f"CREATE TABLE y ();\n{SLIPS[slip]}"}
    run = gate(database=database, migrations=files)
    assert run.verdict["applied"] == list(files)[:10]
    logged = [len(entry) for entry in statements(database)]
    assert len(logged) == len(most)
    assert all(map(operator.le, logged, most)), logged
