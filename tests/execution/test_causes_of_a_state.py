"""One SQLSTATE, several causes: each has the remedy that works, followed to its end."""

from __future__ import annotations

import pytest

from migration_gate.report.remedies import NEVER_INSIDE, OUTSIDE
from tests.fix_gate import Gate
from tests.fix_postgres import Database


pytestmark = [pytest.mark.server, pytest.mark.timeout(90)]
OUTSIDE_LINE = "-- gate: no-transaction\n"
SETUP = """
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE child (id int REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
INSERT INTO parent VALUES (1);
CREATE FUNCTION tidy() RETURNS void LANGUAGE plpgsql AS
    $$ BEGIN EXECUTE 'VACUUM parent'; END $$;
"""
INDEX = "DO $$ BEGIN EXECUTE 'CREATE INDEX CONCURRENTLY i ON parent (id)'; END $$;"


@pytest.mark.parametrize("head", ["", OUTSIDE_LINE])
@pytest.mark.parametrize("statement", ["SELECT tidy();", INDEX])
def test_what_can_never_run_in_a_function_is_said_at_once(
    gate: Gate, database: Database, statement: str, head: str
) -> None:
    """Not sent to no-transaction and from there to resolve."""
    database.execute(SETUP)
    run = gate(database=database, migrations={"1_x.sql": head + statement})
    assert (run.exit_code, run.verdict["reason"]) == (1, "migration_failed"), run.output
    assert run.verdict["sqlstate"] == "25001"
    assert run.verdict["hint"] == NEVER_INSIDE
    mended = {"1_x.sql": f"{OUTSIDE_LINE}VACUUM parent;"}
    assert gate(database=database, migrations=mended).exit_code == 0


def test_a_statement_that_forbids_transactions_is_sent_outside(
    gate: Gate, database: Database
) -> None:
    """The other cause of the same SQLSTATE."""
    files = {"1_x.sql": "CREATE TABLE t (); DO $$ BEGIN COMMIT; END $$;"}
    run = gate(database=database, migrations=files)
    assert (run.verdict["sqlstate"], run.verdict["hint"]) == ("2D000", OUTSIDE)


def test_rows_of_the_file_itself_are_no_other_session(
    gate: Gate, database: Database
) -> None:
    """The hint's statement, put where it says, opens the gate."""
    database.execute(SETUP)
    insert, alter = "INSERT INTO child VALUES (1);", "ALTER TABLE child ADD a int;"
    run = gate(database=database, migrations={"1_x.sql": f"{insert}\n{alter}"})
    assert (run.verdict["sqlstate"], run.verdict["line"]) == ("55006", 2), run.output
    assert "SET CONSTRAINTS ALL IMMEDIATE;" in run.verdict["hint"]
    assert "ther sessions" not in run.verdict["hint"]
    mended = f"{insert}\nSET CONSTRAINTS ALL IMMEDIATE;\n{alter}"
    again = gate(database=database, migrations={"1_x.sql": mended})
    assert again.verdict["applied"] == ["1_x.sql"], again.output


RAISED = "a.person@mail.example"


@pytest.mark.parametrize("sqlstate", ["P0001", "23505", "42501", "22023", "MYERR"])
def test_what_a_file_raises_is_told_by_its_place(
    gate: Gate, database: Database, sqlstate: str
) -> None:
    """Its message, detail and hint may be made of rows, whatever the SQLSTATE."""
    database.execute(f"CREATE TABLE users AS SELECT '{RAISED}' AS email")
    script = (
        "SELECT 1;\nDO $$ DECLARE e text; BEGIN\n  SELECT email INTO e FROM users;\n"
        "  RAISE EXCEPTION 'duplicate email %', e USING DETAIL = e, HINT = e,\n"
        f"    CONSTRAINT = e, TABLE = e, ERRCODE = '{sqlstate}';\nEND $$;"
    )
    run = gate(database=database, migrations={"1_x.sql": script})
    assert (run.verdict["reason"], run.verdict["sqlstate"]) == (
        "migration_failed",
        sqlstate,
    ), run.output
    assert RAISED not in run.output
    assert (
        "an error that PL/pgSQL function inline_code_block line 3 raises"
        in (run.verdict["error_message"])
    )
    assert "GATE_LOG_DETAIL=full" in run.verdict["hint"]
    full = gate(
        database=database,
        migrations={"1_x.sql": script},
        env={"GATE_LOG_DETAIL": "full"},
    )
    assert f"duplicate email {RAISED}" in full.verdict["error_message"]
