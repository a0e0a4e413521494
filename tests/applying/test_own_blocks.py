"""A file with BEGIN … COMMIT blocks of its own: what psql does, exactly once."""

from __future__ import annotations

import subprocess

import pytest

from dev.postgres import tool
from tests.fix_gate import Gate
from tests.fix_postgres import Database, Databases


# As Prisma writes them for enums, and Navicat around each table.
PRISMA = """\
-- CreateEnum
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE TABLE person (id int, mood mood NOT NULL DEFAULT 'ok');

-- AlterEnum
BEGIN;
CREATE TYPE mood_new AS ENUM ('ok', 'happy');
ALTER TABLE person ALTER COLUMN mood DROP DEFAULT;
ALTER TABLE person ALTER COLUMN mood TYPE mood_new USING (mood::text::mood_new);
ALTER TYPE mood RENAME TO mood_old;
ALTER TYPE mood_new RENAME TO mood;
DROP TYPE mood_old;
ALTER TABLE person ALTER COLUMN mood SET DEFAULT 'ok';
COMMIT;

-- AlterEnum
ALTER TYPE mood ADD VALUE 'glad';
BEGIN;
INSERT INTO person VALUES (1, 'glad');
COMMIT;
BEGIN;
INSERT INTO person VALUES (2, 'happy');
COMMIT;
"""
CONTENTS = "SELECT id, mood::text FROM person ORDER BY id"


def psql(database: Database, script: str) -> None:
    """Run a script as psql does."""
    info = database.conninfo
    subprocess.run(
        [tool("psql"), "-qX", "-v", "ON_ERROR_STOP=1", info["dbname"]],
        env={
            "PGHOST": info["host"],
            "PGPORT": info["port"],
            "PGUSER": info["user"],
            "PGPASSWORD": info["password"],
        },
        input=script,
        text=True,
        check=True,
    )


@pytest.mark.server
def test_blocks_run_as_psql_runs_them(
    gate: Gate, database: Database, databases: Databases
) -> None:
    """A value that one transaction adds to a type is there for the next."""
    other = databases.create()
    psql(other, PRISMA)
    run = gate(database=database, migrations={"001_x.sql": PRISMA})

    assert run.exit_code == 0, run.output
    assert run.one("migration.started")["in_transaction"] is False
    assert database.fetch(CONTENTS) == other.fetch(CONTENTS)
    assert database.fetch("SELECT count(*) FROM schema_migrations_progress") == [(0,)]


def test_a_block_that_fails_leaves_nothing_and_a_restart_goes_on_there(
    gate: Gate, database: Database
) -> None:
    """What was committed before it is not done again."""
    script = (
        "CREATE TABLE t (a int);\nBEGIN;\nINSERT INTO t VALUES (1);\nCOMMIT;\n"
        "BEGIN;\nINSERT INTO t VALUES (2);\nSELECT 1/{};\nCOMMIT;\n"
        "INSERT INTO t VALUES (3);\n"
    )
    failed = gate(database=database, migrations={"001_x.sql": script.format("0")})
    left = database.fetch("SELECT a FROM t ORDER BY 1")
    again = gate(database=database, migrations={"001_x.sql": script.format("1")})

    assert (failed.exit_code, failed.verdict["line"]) == (1, 7)
    assert left == [(1,)]
    assert again.exit_code == 0, again.output
    assert database.fetch("SELECT a FROM t ORDER BY 1") == [(1,), (2,), (3,)]


@pytest.mark.parametrize(
    ("script", "refused", "remedy"),
    [
        (
            "-- gate: transaction\nBEGIN;\nSELECT 1;\nCOMMIT;\nSELECT 2;",
            "001_x.sql:2: BEGIN in a migration",
            "the gate runs each file in a transaction of its own",
        ),
        (
            "SELECT 1;\nBEGIN;\nSELECT 2;",
            "001_x.sql:2: BEGIN in a migration",
            "the gate runs each file in a transaction of its own",
        ),
        (
            "SELECT 1;\nROLLBACK;",
            "001_x.sql:2: ROLLBACK in a migration",
            "Take it out together with what it would undo",
        ),
    ],
)
def test_other_transaction_control_stays_refused(
    gate: Gate, database: Database, script: str, refused: str, remedy: str
) -> None:
    """Where blocks are not whole, or the file is to be one transaction."""
    run = gate(database=database, migrations={"001_x.sql": script})

    assert run.exit_code == 1
    assert run.verdict["error_message"].startswith(refused)
    assert remedy in run.verdict["hint"]


@pytest.mark.parametrize(
    ("script", "line"),
    [
        ("SELECT 1;\nDROP TABLE public.schema_migrations;\n", 2),
        ("SELECT 1;\n\n  DELETE FROM schema_migrations;\n", 3),
        ("DROP SCHEMA public CASCADE;\nCREATE SCHEMA public;\n", 1),
        ("SELECT 1;\nDO $$ BEGIN EXECUTE 'DROP TABLE schema_migrations'; END $$;", 2),
        ("DO $$ BEGIN EXECUTE 'DROP TABLE schema_' || 'migrations'; END $$;", None),
    ],
)
def test_what_removes_the_history_has_its_line(
    gate: Gate, database: Database, script: str, line: int | None
) -> None:
    """As far as the text tells it."""
    run = gate(database=database, migrations={"001_x.sql": script})

    assert (run.exit_code, run.verdict["reason"]) == (1, "history")
    assert run.verdict.get("line") == line
    assert run.verdict["file"] == "001_x.sql"
    assert "removes the history table" in run.verdict["error_message"]


def test_a_table_of_that_name_elsewhere_is_the_applications(
    gate: Gate, database: Database
) -> None:
    """The history is known by the schema that it was found in."""
    script = (
        "CREATE SCHEMA auth;\nCREATE TABLE auth.schema_migrations (version text);\n"
        "INSERT INTO auth.schema_migrations VALUES ('1');\n"
    )
    run = gate(database=database, migrations={"001_x.sql": script})
    ours = gate(
        database=database,
        migrations={
            "001_x.sql": script,
            "002_y.sql": "CREATE TABLE schema_migrations ()",
        },
    )

    assert run.exit_code == 0, run.output
    assert (ours.exit_code, ours.verdict["line"]) == (1, 1)
    assert "GATE_HISTORY_TABLE" in ours.verdict["hint"]
