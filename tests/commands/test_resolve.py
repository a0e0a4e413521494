"""A person says of one migration that it is applied, or that it is not."""

from __future__ import annotations

import pytest

from tests.fix_gate import Gate, Run
from tests.fix_postgres import Database
from tests.history_tables import versions


pytestmark = pytest.mark.server

EXISTING = {"001_t.sql": "CREATE TABLE t (id integer);"}
STEPS = (
    "CREATE PROCEDURE steps(stop boolean) LANGUAGE plpgsql AS $$ BEGIN "
    "INSERT INTO t VALUES (1); COMMIT; IF stop THEN RAISE 'stopped'; END IF; END $$;"
)
CALLS = {
    "001_x.sql": "-- gate: no-transaction\nINSERT INTO t VALUES (0);\n"
    "CALL steps({});\nINSERT INTO t VALUES (2);"
}


def say(run: Run) -> tuple[int, str, str]:
    """Return exit code, and what was recorded of which migration."""
    resolved = run.one("migration.resolved")
    return run.exit_code, resolved["version"], resolved["as"]


def test_objects_that_exist_already_are_recorded(
    gate: Gate, database: Database
) -> None:
    """The file is not run; its row has the checksum."""
    database.execute("CREATE TABLE t (id integer)")
    closed = gate(database=database, migrations=EXISTING)
    said = gate("resolve", "001_t", "--applied", database=database, migrations=EXISTING)
    opened = gate(database=database, migrations=EXISTING)

    assert closed.verdict["sqlstate"] == "42P07"
    assert "resolve" in closed.verdict["hint"]
    assert said.exit_code == 0, said.output
    assert (opened.exit_code, opened.verdict["applied"]) == (0, [])
    assert database.fetch(
        "SELECT version, checksum LIKE 'sha256:%' FROM schema_migrations"
    ) == [("001_t.sql", True)]


def test_a_row_is_taken_back(gate: Gate, database: Database) -> None:
    """The next start applies the file again."""
    gate(database=database, migrations=EXISTING)
    database.execute("DROP TABLE t")
    said = gate(
        "resolve", "001_t.sql", "--not-applied", database=database, migrations=EXISTING
    )
    left = versions(database)
    again = gate(database=database, migrations=EXISTING)

    assert say(said) == (0, "001_t.sql", "not applied")
    assert left == []
    assert again.verdict["applied"] == ["001_t.sql"]


@pytest.mark.parametrize(
    ("answer", "rows"),
    [("--applied", [0, 1, 2]), ("--not-applied", [0, 1, 1, 2])],
)
def test_an_unfinished_statement_is_answered(
    gate: Gate, database: Database, answer: str, rows: list[int]
) -> None:
    """Done, the file goes on after it; not done, it runs again."""
    database.execute("CREATE TABLE t (id integer);" + STEPS)
    stops = {name: text.format("true") for name, text in CALLS.items()}
    closed = gate(database=database, migrations=stops)
    asked = gate(database=database, migrations=stops)
    mended = STEPS.replace("CREATE", "CREATE OR REPLACE").replace("RAISE", "RAISE LOG")
    database.execute(mended)
    said = gate("resolve", "001_x.sql", answer, database=database, migrations=stops)
    opened = gate(database=database, migrations=stops)

    assert [closed.verdict["reason"], asked.verdict["reason"]] == [
        *("migration_failed", "unresolved"),
    ]
    assert said.exit_code == 0, said.output
    assert opened.exit_code == 0, opened.output
    assert database.fetch("SELECT id FROM t ORDER BY 1") == [(row,) for row in rows]
    assert database.fetch("TABLE schema_migrations_progress") == []


def test_an_edited_file_is_begun_anew_after_not_applied(
    gate: Gate, database: Database
) -> None:
    """Nothing unfinished: the progress of the whole file is forgotten."""
    start = "-- gate: no-transaction\nCREATE TABLE IF NOT EXISTS {} (id integer);\n"
    gate(database=database, migrations={"001_x.sql": start.format("a") + "SELECT 1/0;"})
    edited = {"001_x.sql": start.format("b") + "SELECT 1;"}
    refused = gate(database=database, migrations=edited)
    said = gate(
        "resolve", "001_x.sql", "--not-applied", database=database, migrations=edited
    )
    opened = gate(database=database, migrations=edited)

    assert (refused.exit_code, refused.verdict["line"]) == (1, 2)
    assert "resolve" in refused.verdict["hint"]
    assert said.exit_code == 0, said.output
    assert opened.exit_code == 0, opened.output
    assert database.fetch("SELECT to_regclass('b') IS NULL") == [(False,)]


@pytest.mark.parametrize("answer", ["--applied", "--not-applied"])
def test_an_unknown_name_is_refused(
    gate: Gate, database: Database, answer: str
) -> None:
    """Nothing is recorded."""
    gate(database=database, migrations=EXISTING)
    run = gate("resolve", "002_u", answer, database=database, migrations=EXISTING)

    assert (run.exit_code, run.verdict["reason"]) == (1, "files")
    assert versions(database) == ["001_t.sql"]
