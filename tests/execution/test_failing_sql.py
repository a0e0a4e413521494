"""What a migration that fails says: place, SQLSTATE, cleaned words, remedy."""

from __future__ import annotations

import contextlib
import re
import subprocess

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from migration_gate.report.remedies import HIDDEN_WORDS, OUTSIDE
from tests.fix_gate import Event, Gate, Run
from tests.fix_postgres import Database, NewServer, database_of
from tests.history_tables import tables
from tests.small_disk import small_disk


SAID = (
    *("line", "column", "sqlstate", "error_message", "error_detail", "error_hint"),
    *("error_context", "hint"),
)
FIX = "Nothing this file did remains; correct it and start the gate again."
NO_COLUMN = {
    "error_message": 'column "nothing" does not exist',
    "hint": "Check the column's name, and whether the migration that adds it runs "
    f"before. {FIX}",
}
DEFERRED = 'The constraint was checked at COMMIT; line 1 writes "late". '
EXISTS = (
    "Compare what is there with the file. If everything in this file exists as "
    "written, say so with the command resolve 1_x.sql --applied; if only a part does "
    "and is alike, write IF NOT EXISTS there; if it is something else, give it another "
    "name in the file. Drop nothing before you know whose it is. Nothing this file did "
    "remains."
)
DISK = (
    "The database server's disk is full, or a quota: free or add space there, then "
    "start the gate again. Nothing this file did remains."
)
UUID = (
    "gen_random_uuid() is built into PostgreSQL 13 and later: use it instead of "
    "uuid-ossp or pgcrypto and leave the extension out."
)
SETUP = """
CREATE TABLE old (id int PRIMARY KEY, name text NOT NULL, age int CHECK (age > 0));
INSERT INTO old VALUES (1, 'x', 1);
CREATE TABLE late (
    id int REFERENCES old DEFERRABLE INITIALLY DEFERRED,
    n int CONSTRAINT late_n UNIQUE DEFERRABLE INITIALLY DEFERRED
);
CREATE TYPE mood AS ENUM ('good');
"""


def violated(constraint: str | None, table: str = "old") -> str:
    """Return the hint for a constraint."""
    subject = (
        f'Rows of table "{table}" violate constraint "{constraint}"'
        if constraint
        else "Rows violate a constraint"
    )
    return (
        f"{subject}; GATE_LOG_DETAIL=full shows which, and so does the server's log: "
        "correct the data or the file. Nothing this file did remains."
    )


def said(line: int | None, column: int | None, sqlstate: str, **words: str) -> Event:
    """Return what a verdict must say, whole."""
    place = {"line": line, "column": column} if line else {}
    return {**place, "sqlstate": sqlstate, "hint": FIX, **words}


# file: what its verdict says
CASES: dict[str, tuple[str | bytes, Event]] = {
    "syntax error": (
        "SELECT 1;\n  SELEC 2;",
        said(2, 3, "42601", error_message='syntax error at or near "SELEC"'),
    ),
    "multi-byte place": (
        "SELECT 'äöü€🦥', 'é',\n  'ß', nothing;",
        said(2, 8, "42703", **NO_COLUMN),
    ),
    "place after a byte order mark": (
        b"\xef\xbb\xbfSELECT nothing;",
        said(1, 8, "42703", **NO_COLUMN),
    ),
    "place after line ends of Windows": (
        "SELECT 1;\r\n\r\nSELECT\r\n  nothing;",
        said(4, 3, "42703", **NO_COLUMN),
    ),
    "200th statement": (
        "SELECT 1;\n" * 199
        + "INSERT INTO old VALUES (1, 'x', 1);\n"
        + "SELECT 2;\n" * 9,
        said(
            200,
            1,
            "23505",
            error_message='duplicate key value violates unique constraint "old_pkey"',
            hint=violated("old_pkey"),
        ),
    ),
    "its own transaction": (
        "BEGIN;\nSELECT 1;\nSELECT nothing;\nCOMMIT;",
        said(3, 8, "42703", **NO_COLUMN),
    ),
    "inside DO": (
        "SELECT 1;\nDO $$\nBEGIN\n  PERFORM 1/0;\nEND $$;",
        said(
            2,
            1,
            "22012",
            error_message="division by zero",
            error_context="PL/pgSQL function inline_code_block line 3",
            hint="A divisor is 0: write NULLIF(divisor, 0), or correct the rows. "
            + FIX,
        ),
    ),
    "inside a function": (
        (
            "CREATE FUNCTION f(a int) RETURNS int LANGUAGE plpgsql AS $$\n"
            "BEGIN\n  RAISE EXCEPTION 'not %', a USING HINT = 'Never.';\nEND $$;\n\n"
            "SELECT f(7);"
        ),
        said(
            6,
            1,
            "P0001",
            error_message="an error that PL/pgSQL function f(integer) line 3 raises",
            error_context="PL/pgSQL function f(integer) line 3",
            hint=HIDDEN_WORDS + FIX,
        ),
    ),
    "commit inside DO": (
        "DO $$ BEGIN COMMIT; END $$;",
        said(
            1,
            1,
            "2D000",
            error_message="invalid transaction termination",
            error_context="PL/pgSQL function inline_code_block line 1",
            hint=OUTSIDE,
        ),
    ),
    "foreign key at COMMIT": (
        "INSERT INTO late VALUES (99, 1);\nSELECT 1;",
        said(
            1,
            1,
            "23503",
            error_message='at COMMIT: insert or update on table "late" violates '
            'foreign key constraint "late_id_fkey"',
            hint=DEFERRED
            + violated("late_id_fkey", "late").replace(";", ' towards table "old";', 1),
        ),
    ),
    "unique at COMMIT": (
        "INSERT INTO late VALUES (1, 5), (1, 5);",
        said(
            1,
            1,
            "23505",
            error_message="at COMMIT: duplicate key value violates unique constraint "
            '"late_n"',
            hint=DEFERRED + violated("late_n", "late"),
        ),
    ),
    "check": (
        "UPDATE old SET age = -1;",
        said(
            1,
            1,
            "23514",
            error_message='new row for relation "old" violates check constraint '
            '"old_age_check"',
            hint=violated("old_age_check"),
        ),
    ),
    "not null": (
        "INSERT INTO old (id) VALUES (2);",
        said(
            1,
            1,
            "23502",
            error_message='null value in column "name" of relation "old" violates '
            "not-null constraint",
            hint=violated(None),
        ),
    ),
    "table exists": (
        "CREATE TABLE old ();",
        said(1, 1, "42P07", error_message='relation "old" already exists', hint=EXISTS),
    ),
    "column exists": (
        "ALTER TABLE old ADD name text;",
        said(
            1,
            1,
            "42701",
            error_message='column "name" of relation "old" already exists',
            hint=EXISTS,
        ),
    ),
    "table missing": (
        "SELECT * FROM gone;",
        said(
            1,
            15,
            "42P01",
            error_message='relation "gone" does not exist',
            hint="Check the name and the search_path: each file starts with that of "
            f"the role or database. {FIX}",
        ),
    ),
    "uuid function": (
        "CREATE TABLE u (id uuid DEFAULT uuid_generate_v4());",
        said(
            1,
            33,
            "42883",
            error_message="function uuid_generate_v4() does not exist",
            error_hint="No function matches the given name and argument types. You "
            "might need to add explicit type casts.",
            hint=UUID,
        ),
    ),
    "statement timeout": (
        "-- gate: statement-timeout=50ms\nSELECT 1;\nSELECT pg_sleep(9);",
        said(
            3,
            1,
            "57014",
            error_message="canceling statement due to statement timeout",
            hint="It ran longer than GATE_STATEMENT_TIMEOUT, or than the "
            "statement_timeout that the file itself sets, or the role's or the "
            "database's: raise the one that is set; a directive at the file's head, "
            "-- gate: statement-timeout=1h, is above all but the file's own SET. "
            "Nothing this file did remains.",
        ),
    ),
    "new enum value": (
        "ALTER TYPE mood ADD VALUE 'bad';\nSELECT 'bad'::mood;",
        said(
            2,
            8,
            "55P04",
            error_message='unsafe use of new value "bad" of enum type mood',
            error_hint="New enum values must be committed before they can be used.",
            hint="A new enum value cannot be used in the transaction that adds it: put "
            "ALTER TYPE … ADD VALUE in a migration of its own, before this one.",
        ),
    ),
    "dependent objects": (
        "CREATE VIEW v AS SELECT * FROM old;\nDROP TABLE old;",
        said(
            2,
            1,
            "2BP01",
            error_message="cannot drop table old because other objects depend on it",
            error_detail="constraint late_id_fkey on table late depends on table old\n"
            "view v depends on table old",
            error_hint="Use DROP ... CASCADE to drop the dependent objects too.",
            hint="Other objects need it: drop or change them first, in this file, or "
            "write CASCADE where all of them may go; error_detail and the server's log "
            "list them. Nothing this file did remains.",
        ),
    ),
}
BATCH = 6


def run_all(
    gate: Gate, database: Database, files: dict[str, str | bytes], **env: str
) -> dict[str, Run]:
    """Run a gate for each file, some at once, each with a history of its own."""
    names = list(files)
    runs: dict[str, Run] = {}
    for start in range(0, len(names), BATCH):
        processes = {
            name: gate.start(
                database=database,
                migrations={"1_x.sql": files[name]},
                env={"GATE_HISTORY_TABLE": f"h{number}", **env},
            )
            for number, name in enumerate(names[start : start + BATCH], start)
        }
        runs |= {name: process.wait() for name, process in processes.items()}
    return runs


def words(run: Run) -> dict[str, Any]:
    """Return what a verdict says of the error."""
    return {name: run.verdict[name] for name in SAID if name in run.verdict}


@pytest.mark.server
@pytest.mark.timeout(60)
def test_every_failure_reads_well(gate: Gate, database: Database) -> None:
    """Whole verdicts; nothing of the files is left."""
    database.execute(SETUP)
    runs = run_all(gate, database, {name: text for name, (text, _) in CASES.items()})
    for name, (_, expected) in CASES.items():
        run = runs[name]
        assert (name, words(run)) == (name, expected)
        verdict = run.verdict
        assert (verdict["reason"], verdict["version"], verdict["file"]) == (
            "migration_failed",
            "1_x.sql",
            "1_x.sql",
        )
        place = (
            f":{expected['line']}:{expected['column']}" if "line" in expected else ""
        )
        assert verdict["message"] == (
            f"Gate closed: 1_x.sql{place}: {expected['error_message']}"
            f" (SQLSTATE {expected['sqlstate']})"
        )
        assert run.stderr.startswith("migration-gate: closed: 1_x.sql")
        assert run.stderr.count("\n") == 1
    ours = re.compile(r"h\d+(_failures)?")
    left = [table for table in tables(database) if not ours.fullmatch(table)]
    assert left == ["late", "old"]
    for number in range(len(CASES)):
        assert database.fetch(f"SELECT * FROM h{number}") == []


@pytest.mark.server
def test_a_missing_right_reads_well(gate: Gate, database: Database) -> None:
    """On a table, a schema, and an extension that only a superuser may make."""
    role = database.role("poor")
    database.execute(
        f"{SETUP} GRANT CREATE ON SCHEMA public TO {role.user};"
        f"CREATE SCHEMA closed; GRANT CREATE ON DATABASE {database.name} TO {role.user}"
    )
    runs = run_all(
        gate,
        role,
        {
            "table": "SELECT 1;\nUPDATE old SET age = 2;",
            "owner": "ALTER TABLE old ADD x int;",
            "schema": "CREATE TABLE closed.t ();",
            "extension": "CREATE EXTENSION file_fdw;",
        },
    )
    right = (
        "The role that runs the file lacks this right: grant it, make it the owner's "
        "member, or name the owner in GATE_ROLE. Nothing this file did remains."
    )
    owner = (
        "Only its owner may, which \\dt in psql names: where it is this application's, "
        "let the owner or a superuser give it to the role that runs the files (ALTER … "
        "OWNER TO), or name the owner in GATE_ROLE where that is a role for the "
        "schema, never a superuser; where it is somebody else's, leave it. Nothing "
        "this file did remains."
    )
    assert words(runs["table"]) == said(
        2, 1, "42501", error_message="permission denied for table old", hint=right
    )
    assert words(runs["owner"]) == said(
        1, 1, "42501", error_message="must be owner of table old", hint=owner
    )
    assert words(runs["schema"]) == said(
        1, 14, "42501", error_message="permission denied for schema closed", hint=right
    )
    extension = words(runs["extension"])
    assert extension["sqlstate"] in {"42501", "0A000", "58P01"}
    assert "azure.extensions" in extension["hint"]


@pytest.fixture(name="small_disk")
def _small_disk() -> Iterator[Path]:
    """Return a folder for a tablespace, on a file system of 4 MiB of its own."""
    with small_disk() as folder:
        if folder is None:
            pytest.skip("a file system can be mounted by root only")
        yield folder


def test_a_full_disk_reads_well(
    gate: Gate, new_server: NewServer, small_disk: Path
) -> None:
    """The real thing: nothing is left, and with room a restart goes on."""
    database = database_of(new_server())
    database.execute(f"CREATE TABLESPACE small LOCATION '{small_disk}'")
    files = {
        "1_a.sql": "CREATE TABLE a ();",
        "2_b.sql": "CREATE TABLE b (v text) TABLESPACE small;\n"
        "INSERT INTO b SELECT repeat('x', 1000) FROM generate_series(1, 8000);",
    }
    run = gate(database=database, migrations=files)
    assert run.verdict["applied"] == ["1_a.sql"], run.output
    message = run.verdict["error_message"]
    assert re.fullmatch(
        r'could not extend file "\S+".*: No space left on device', message
    )
    assert words(run) == said(
        2,
        1,
        "53100",
        error_message=message,
        error_hint="Check free disk space.",
        hint=DISK,
    )
    assert tables(database) == ["a"]
    remount = ["mount", "-o", "remount,size=64m", str(small_disk.parent)]
    subprocess.run(remount, check=True)
    assert gate(database=database, migrations=files).verdict["applied"] == ["2_b.sql"]


def test_a_disk_that_is_full_while_the_history_is_made_reads_well(
    gate: Gate, new_server: NewServer, small_disk: Path
) -> None:
    """No lost connection, no network: the server's own words."""
    remount = ["mount", "-o", "remount,size=32m", str(small_disk.parent)]
    subprocess.run(remount, check=True)
    database = database_of(new_server())
    database.execute(f"CREATE TABLESPACE small LOCATION '{small_disk}'")
    database.execute("CREATE DATABASE crowded TABLESPACE small")
    crowded = database.changed(dbname="crowded")
    crowded.execute("SELECT 1")  # a first session writes a file of the catalogue's
    with (
        (small_disk.parent / "filler").open("wb", buffering=0) as filler,
        contextlib.suppress(OSError),
    ):
        while filler.write(bytes(1 << 12)):
            pass
    run = gate(database=crowded, migrations={"1_a.sql": "CREATE TABLE a ();"})
    verdict = run.verdict
    assert verdict["sqlstate"] == "53100", run.output
    assert verdict["reason"] == "refused"
    assert verdict["error_message"].startswith("could not make table ")
    assert "No space left on device" in verdict["error_message"]
    assert "disk is full" in verdict["hint"]


@pytest.mark.server
def test_a_missing_extension_reads_well(gate: Gate, database: Database) -> None:
    """The server does not have it."""
    runs = run_all(
        gate,
        database,
        {"any": "CREATE EXTENSION nowhere;", "uuid": 'CREATE EXTENSION "uuid-osspx";'},
    )
    assert runs["any"].verdict["sqlstate"] in {"0A000", "58P01"}
    assert runs["any"].verdict["hint"] == (
        "The server does not have this extension: check its spelling in "
        "pg_available_extensions; on a server of your own install its package, for "
        "this major version; a managed one has only those of its provider, and where "
        "this is none of them, the file must do without it. Nothing this file did "
        "remains."
    )
    assert runs["uuid"].verdict["hint"] == UUID


@pytest.mark.server
def test_a_limit_of_the_configuration_reads_well(
    gate: Gate, database: Database
) -> None:
    """Such as how large temporary files may grow."""
    text = (
        "SET temp_file_limit = '64kB';\nSET work_mem = '64kB';\n"
        "SELECT count(*) FROM (SELECT g FROM generate_series(1, 99999) AS g"
        " ORDER BY g DESC) AS x;"
    )
    run = gate(database=database, migrations={"1_x.sql": text})
    message = run.verdict["error_message"]
    # PostgreSQL 18 quotes the name.
    assert message.replace('"', "") == (
        "temporary file size exceeds temp_file_limit (64kB)"
    )
    assert words(run) == said(
        3,
        1,
        "53400",
        error_message=message,
        hint="A limit in the server's configuration is reached, such as "
        "temp_file_limit or max_replication_slots: raise it, or do less in one "
        "statement. Nothing this file did remains.",
    )


@pytest.mark.server
def test_a_full_detail_is_given_on_demand(gate: Gate, database: Database) -> None:
    """GATE_LOG_DETAIL=full passes on what PostgreSQL says."""
    database.execute(SETUP)
    runs = run_all(
        gate,
        database,
        {"x": "INSERT INTO old VALUES (1, 'x', 1);", "y": "SELECT 'abc'::int;"},
        GATE_LOG_DETAIL="full",
    )
    assert runs["x"].verdict["error_detail"] == "Key (id)=(1) already exists."
    assert runs["y"].verdict["error_message"] == (
        'invalid input syntax for type integer: "abc"'
    )


def test_locks_that_are_never_free_close_the_gate(
    gate: Gate, database: Database
) -> None:
    """It tries again, names who is in the way, and gives up."""
    database.execute(SETUP)
    with database.connect(application_name="report") as reader:
        reader.execute("BEGIN; SELECT * FROM old")
        run = gate(
            database=database,
            migrations={"1_x.sql": "SELECT 1;\nALTER TABLE old ADD x int;"},
            env={"GATE_DDL_LOCK_TIMEOUT": "100ms", "GATE_DDL_RETRY_TIMEOUT": "900ms"},
        )
    assert run.verdict["reason"] == "blocked"
    assert run.verdict["sqlstate"] == "55P03"
    assert (run.verdict["line"], run.verdict["file"]) == (2, "1_x.sql")
    retries = run.all("migration.retry_scheduled")
    assert [event["attempt"] for event in retries] == list(range(1, len(retries) + 1))
    assert retries
    assert len(run.all("migration.started")) == len(retries) + 1


def test_an_attempt_that_failed_leaves_nothing_in_the_session(
    gate: Gate, database: Database
) -> None:
    """A prepared statement outlives a rollback, but not an attempt."""
    database.execute(SETUP)
    with database.connect() as reader:
        reader.execute("BEGIN; SELECT * FROM old")
        process = gate.start(
            database=database,
            migrations={
                "1_x.sql": "PREPARE p AS SELECT 1; SELECT pg_advisory_lock(7);"
                "CREATE TEMPORARY TABLE tmp (); LISTEN l; ALTER TABLE old ADD x int;"
                "EXECUTE p;"
            },
            env={"GATE_DDL_LOCK_TIMEOUT": "50ms"},
        )
        process.wait_for("migration.retry_scheduled")
        reader.execute("COMMIT")
        run = process.wait()
    assert run.verdict["applied"] == ["1_x.sql"], run.output
