"""Files that change standard_conforming_strings: each statement is read as it says."""

from __future__ import annotations

import pytest

from tests.fix_gate import Gate
from tests.fix_postgres import Database


pytestmark = pytest.mark.server

SCRIPT = r"""
CREATE TABLE t (id integer, text text);
INSERT INTO t VALUES (1, 'a\');
SET standard_conforming_strings = off;
INSERT INTO t VALUES (2, 'it\'s; \\'), (3, E'\';');
SET standard_conforming_strings = on;
INSERT INTO t VALUES (4, 'b\');
"""
ROWS = [(1, "a\\"), (2, "it's; \\"), (3, "';"), (4, "b\\")]


@pytest.mark.parametrize("start", ["", "-- gate: no-transaction\n"])
@pytest.mark.parametrize("default", ["on", "off"])
def test_strings_are_read_as_the_file_says(
    gate: Gate, database: Database, start: str, default: str
) -> None:
    """From the statement after the SET on, in a transaction and outside one."""
    database.execute(
        f"ALTER DATABASE {database.name} SET standard_conforming_strings = {default}"
    )
    files = {
        "001_x.sql": "SET escape_string_warning = off;" + start + SCRIPT,
        "002_y.sql": r"INSERT INTO t VALUES (5, 'c\');",
    }
    if start:
        files["001_x.sql"] = start + SCRIPT
    run = gate(database=database, migrations=files)

    assert run.exit_code == 0, run.output
    assert database.fetch("SELECT * FROM t ORDER BY id") == [*ROWS, (5, "c\\")]


@pytest.mark.parametrize("start", ["", "-- gate: no-transaction\n"])
@pytest.mark.parametrize(
    "back",
    [
        "RESET standard_conforming_strings",
        "SET standard_conforming_strings TO DEFAULT",
        "RESET ALL",
    ],
)
def test_a_reset_brings_back_how_files_are_read(
    gate: Gate, database: Database, start: str, back: str
) -> None:
    """Not the default of a database that reads backslashes."""
    database.execute(
        f"ALTER DATABASE {database.name} SET standard_conforming_strings = off"
    )
    script = (
        f"{start}CREATE TABLE t (text text);\nSET standard_conforming_strings = off;\n"
        f"INSERT INTO t VALUES ('a\\\\');\n{back};\nINSERT INTO t VALUES ('b\\');\n"
        "INSERT INTO t VALUES ('c\\');\n"
    )
    run = gate(database=database, migrations={"001_x.sql": script})

    assert run.exit_code == 0, run.output
    assert database.fetch("TABLE t") == [("a\\",), ("b\\",), ("c\\",)]


def test_an_error_behind_the_change_has_its_place(
    gate: Gate, database: Database
) -> None:
    """Line and column are those of the file."""
    script = "SET standard_conforming_strings = off;\nSELECT '\\'é;', 1/0,\n  nowhere;"
    run = gate(database=database, migrations={"001_x.sql": script})

    assert (run.verdict["sqlstate"], run.verdict["line"], run.verdict["column"]) == (
        "42703",
        3,
        3,
    )


def test_the_setting_holds_for_later_units_outside_a_transaction(
    gate: Gate, database: Database
) -> None:
    """A restart reads the rest as the first start did."""
    script = (
        "CREATE TABLE t (a text);\nSET standard_conforming_strings = off;\n"
        "INSERT INTO t VALUES ('\\'');\nVACUUM t;\n"
        "INSERT INTO t VALUES ('\\';');\nSELECT {};\n"
    )
    closed = gate(database=database, migrations={"001_x.sql": script.format("1/0")})
    opened = gate(database=database, migrations={"001_x.sql": script.format("1")})

    assert (closed.exit_code, closed.verdict["line"]) == (1, 6)
    assert opened.exit_code == 0, opened.output
    assert database.fetch("SELECT a FROM t ORDER BY 1") == [("'",), ("';",)]


COMPUTED = r"""SELECT 1;
SELECT set_config('standard_conforming_strings', current_setting('x.y'), false);
"""
UNDONE = r"""SAVEPOINT a;
SET standard_conforming_strings = off;
ROLLBACK TO a;
SELECT 'a\'';
"""
LOCAL = r"""VACUUM;
SET LOCAL standard_conforming_strings = off;
SELECT 'a\'';
"""


@pytest.mark.parametrize(
    ("script", "line"),
    [(COMPUTED, 2), (UNDONE, 3), (LOCAL, 2)],
    ids=["computed", "undone", "local"],
)
def test_what_only_a_server_could_follow_is_refused(
    gate: Gate, database: Database, script: str, line: int
) -> None:
    """With its line, before anything is touched."""
    run = gate(database=database, migrations={"001_x.sql": script})

    assert (run.exit_code, run.verdict["reason"]) == (1, "files")
    assert (run.verdict["file"], run.verdict["line"]) == ("001_x.sql", line)
