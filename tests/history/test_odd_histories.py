"""Histories of other tools in odd states: nothing is taken over, or run, by mistake."""

from __future__ import annotations

import pytest

from tests.fix_gate import Gate
from tests.fix_postgres import Database
from tests.history.test_adopt import folder_of, load
from tests.history_tables import tables, why


FILES = folder_of(["1_a.sql", "2_b.sql", "3_c.sql"])
GOOSE = {"GATE_ADOPT": "goose"}


@pytest.mark.server
@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        (
            "CREATE SCHEMA app; ALTER TABLE goose_db_version SET SCHEMA app",
            (
                'goose has a table "app.goose_db_version", in a schema that the search '
                "path does not name"
            ),
            "GATE_ADOPT=goose:app.goose_db_version",
        ),
        (
            (
                "ALTER TABLE goose_db_version RENAME TO g;"
                "CREATE VIEW goose_db_version AS TABLE g; DELETE FROM g"
            ),
            (
                '"public.goose_db_version" has the name of the history of goose, and '
                "is a view"
            ),
            "GATE_ADOPT=goose:schema.table",
        ),
        (
            (
                "ALTER TABLE goose_db_version RENAME TO g; DELETE FROM g;"
                "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s"
                " FOREIGN DATA WRAPPER w;"
                "CREATE FOREIGN TABLE goose_db_version (version_id bigint) SERVER s"
            ),
            (
                '"public.goose_db_version" has the name of the history of goose, and '
                "is a foreign table"
            ),
            "GATE_ADOPT=goose:schema.table",
        ),
        (
            "ALTER TABLE goose_db_version RENAME is_applied TO done",
            (
                '"public.goose_db_version" has the name of the history of goose, and '
                "is a table with other columns than goose gives it"
            ),
            "GATE_ADOPT=none",
        ),
        (
            (
                "CREATE TABLE schema_version (version int4 NOT NULL);"
                "INSERT INTO schema_version VALUES (2)"
            ),
            "tern has a history in this database",
            "GATE_ADOPT=tern",
        ),
        (
            "CREATE TABLE other AS TABLE goose_db_version",
            "goose has two histories in this database",
            "GATE_ADOPT=TOOL:schema.table",
        ),
    ],
)
def test_a_history_that_is_not_surely_the_one_closes_the_gate(
    gate: Gate, database: Database, change: str, message: str, hint: str
) -> None:
    """To run every file would be the harm; what to say is said."""
    load(database, "goose-2")
    database.execute(change)
    before = tables(database)
    for command in ("migrate", "plan"):
        run = gate(command, database=database, migrations=FILES, env=GOOSE)
        assert run.exit_code == 1
        assert message in run.output
        assert hint in run.output
    assert tables(database) == before


@pytest.mark.server
def test_a_history_is_named_in_whatever_schema_it_is(
    gate: Gate, database: Database
) -> None:
    """Then another of that tool's, in a schema out of sight, is no matter."""
    load(database, "goose-2")
    database.execute(
        "CREATE SCHEMA app; ALTER TABLE goose_db_version SET SCHEMA app;"
        "CREATE SCHEMA far; CREATE TABLE far.goose_db_version"
        " (LIKE app.goose_db_version);"
        "INSERT INTO far.goose_db_version TABLE app.goose_db_version"
    )
    env = {"GATE_ADOPT": "goose:app.goose_db_version"}
    run = gate(database=database, migrations=FILES, env=env)
    assert run.verdict["applied"] == ["3_c.sql"], run.output


@pytest.mark.parametrize(
    "others",
    [
        "DELETE FROM goose_db_version",
        "DELETE FROM goose_db_version WHERE version_id > 0",
        (
            "DROP TABLE goose_db_version; CREATE SCHEMA app;"
            "CREATE VIEW app.goose_db_version AS SELECT 1 AS n"
        ),
    ],
)
def test_an_empty_history_is_none(gate: Gate, database: Database, others: str) -> None:
    """Every file runs; a view of another application is no matter."""
    load(database, "goose-2")
    database.execute(others)
    run = gate(database=database, migrations=FILES, env=GOOSE)
    assert run.verdict["applied"] == list(FILES), run.output


@pytest.fixture
def reader(database: Database) -> Database:
    """Return the database as a role sees it that may not read the history."""
    load(database, "goose-2")
    role = database.role()
    database.execute(f"GRANT ALL ON SCHEMA public TO {role.user}")
    return role


@pytest.mark.server
def test_the_right_that_lacks_is_named(gate: Gate, reader: Database) -> None:
    """As the statement that gives it."""
    run = gate(database=reader, migrations=FILES, env=GOOSE)
    assert why(run)[:2] == (1, "history")
    assert "rows that the role may not read" in run.verdict["error_message"]
    assert (
        f"GRANT SELECT ON public.goose_db_version TO {reader.user};"
        in run.verdict["hint"]
    )


def test_a_name_in_another_case_is_no_file_here(gate: Gate, database: Database) -> None:
    """Where the tool goes by names; it is told."""
    load(database, "sql-migrate")
    files = folder_of(["0001_A.sql", "0002_b.sql"])
    run = gate(database=database, migrations=files, env={"GATE_ADOPT": "sql-migrate"})
    assert why(run) == (
        1,
        "history",
        'sql-migrate has applied "0001_a.sql", which no file here explains',
    )
