"""What fails at COMMIT is told as such, with the lines that may have led to it."""

from __future__ import annotations

import pytest

from tests.fix_gate import Gate
from tests.fix_postgres import Database


pytestmark = pytest.mark.server
SETUP = """
CREATE TABLE t (id int PRIMARY KEY);
CREATE TABLE r (id int REFERENCES t DEFERRABLE INITIALLY DEFERRED);
CREATE VIEW v AS TABLE r;
INSERT INTO t VALUES (1);
INSERT INTO r VALUES (1);
CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN RAISE 'card 4111'; END $$;
CREATE CONSTRAINT TRIGGER no AFTER UPDATE ON t DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION no();
"""
INSERTED = (
    'at COMMIT: insert or update on table "r" violates foreign key constraint '
    '"r_id_fkey"'
)
DELETED = (
    'at COMMIT: update or delete on table "t" violates foreign key constraint '
    '"r_id_fkey" on table "r"'
)
DEFERRED = "The constraint was checked at COMMIT; "
CORRECT = (
    'Rows of table "r" violate constraint "r_id_fkey" towards table "t"; '
    "GATE_LOG_DETAIL=full shows which, and so does the server's log: correct the data "
    "or the file. Nothing this file did remains."
)
NOT_NAMED = (
    'no statement of the file names "r": it is written by a function or trigger, or '
    "through a view or a partitioned table"
)
# file: line, what is wrong, and which lines are named
CASES = {
    "one statement": (
        "SELECT 1;\n  INSERT INTO r VALUES (7);\nSELECT 2;",
        *(2, INSERTED, 'line 2 writes "r"'),
    ),
    "by its whole name": (
        'SELECT 1;\nUPDATE ONLY "public"."r" SET id = 7;',
        *(2, INSERTED, 'line 2 writes "r"'),
    ),
    "in WITH": (
        "\nWITH x AS (VALUES (7)), y AS (INSERT INTO r TABLE x) SELECT 1;",
        *(2, INSERTED, 'line 2 writes "r"'),
    ),
    "COPY": ("COPY r FROM stdin;\n7\n\\.\n", *(1, INSERTED, 'line 1 writes "r"')),
    "read, and written": (
        (
            "CREATE TABLE u AS TABLE r;\nINSERT INTO u SELECT id FROM r;\n"
            "INSERT INTO r VALUES (7);"
        ),
        *(3, INSERTED, 'line 3 writes "r"'),
    ),
    "the other side": (
        "INSERT INTO t VALUES (2);\nDELETE FROM t WHERE id = 1;",
        *(None, DELETED, 'lines 1 and 2 write "r" or "t"'),
    ),
    "several": (
        "INSERT INTO r VALUES (1);\n" * 3 + "UPDATE r SET id = 7;\n" * 2,
        *(None, INSERTED, 'lines 1, 2, 3 and 2 more write "r"'),
    ),
    "through a view": (
        "INSERT INTO v VALUES (7);",
        *(None, INSERTED, NOT_NAMED),
    ),
}


@pytest.mark.parametrize(
    ("script", "line", "message", "lines"), CASES.values(), ids=CASES
)
def test_a_deferred_constraint_names_what_writes_its_table(  # noqa: PLR0913  # a row
    gate: Gate,
    database: Database,
    *,
    script: str,
    line: int | None,
    message: str,
    lines: str,
) -> None:
    """The place is that of the only statement that can be meant."""
    database.execute(SETUP)
    verdict = gate(database=database, migrations={"001_x.sql": script}).verdict
    at = f":{line}:" if line else ": "
    assert verdict["message"].startswith(f"Gate closed: 001_x.sql{at}")
    assert verdict["error_message"] == message
    correct = CORRECT
    if message == DELETED:  # that row is another's, and both tables are named
        correct = CORRECT.replace(' towards table "t"', "")
    assert verdict["hint"] == f"{DEFERRED}{lines}. {correct}"
    assert verdict.get("line") == line


def test_what_a_deferred_trigger_raises_is_told_as_such(
    gate: Gate, database: Database
) -> None:
    """Its words stay hidden; that it was at COMMIT, and a trigger, does not."""
    database.execute(SETUP)
    files = {"001_x.sql": "UPDATE t SET id = 1;"}
    verdict = gate(database=database, migrations=files).verdict
    assert verdict["error_message"] == (
        "at COMMIT: an error that PL/pgSQL function no() line 1 raises"
    )
    assert verdict["hint"].startswith(
        "A constraint trigger that is deferred has raised it. Its words may be made"
    )
    assert "4111" not in str(verdict)
