"""What others do to the history: restore it, empty it, or drop it under a gate."""

from __future__ import annotations

import os
import subprocess

from contextlib import closing

import pytest

from dev.postgres import conninfo_to_libpq, tool
from tests.fix_gate import Gate
from tests.fix_postgres import Database, Databases
from tests.history_tables import ONE, TWO, tables, versions, why


def run_tool(database: Database, name: str, *arguments: str, stdin: str = "") -> str:
    """Run a program of PostgreSQL's against a database and return what it printed."""
    return subprocess.run(
        [tool(name), *arguments],
        check=True,
        capture_output=True,
        text=True,
        input=stdin,
        env={"PATH": os.environ["PATH"], **conninfo_to_libpq(database.conninfo)},
    ).stdout


def test_a_database_restored_from_an_older_backup_catches_up(
    gate: Gate, database: Database, databases: Databases
) -> None:
    """What was applied after the backup is pending again, and nothing else."""
    gate(database=database, migrations=ONE)
    restored = databases.name()
    with closing(database.server.connect()) as conn:
        conn.execute(f"CREATE DATABASE {restored.name} TEMPLATE {database.name}")
    gate(database=database, migrations=TWO)
    run = gate(database=restored, migrations=TWO)
    assert run.verdict["applied"] == ["2_b.sql"], run.output
    assert tables(restored) == ["a", "b"]
    assert versions(restored) == ["1_a.sql", "2_b.sql"]


def test_a_dump_that_is_restored_brings_its_history(
    gate: Gate, database: Database, databases: Databases
) -> None:
    """Table, rows and sequence: nothing is pending, and the next file is next."""
    if database.server.embedded is None:
        pytest.skip("pg_dump is that of the embedded server's version")
    gate(database=database, migrations=ONE)
    restored = databases.create()
    dump = run_tool(database, "pg_dump")
    run_tool(restored, "psql", "-q", "-v", "ON_ERROR_STOP=1", stdin=dump)
    same = gate(database=restored, migrations=ONE)
    assert same.names == ["gate.started", "database.ready", "plan.made", "gate.opened"]
    assert gate(database=restored, migrations=TWO).verdict["applied"] == ["2_b.sql"]
    assert restored.fetch("SELECT id, version FROM schema_migrations ORDER BY id") == [
        (1, "1_a.sql"),
        (2, "2_b.sql"),
    ]


def test_a_schema_restored_without_its_history_is_not_applied_twice(
    gate: Gate, database: Database
) -> None:
    """The first file meets what is there, and the hint says how to declare it."""
    gate(database=database, migrations=TWO)
    database.execute("TRUNCATE schema_migrations")
    run = gate(database=database, migrations=TWO)
    assert why(run) == (1, "migration_failed", 'relation "a" already exists')
    assert f"resolve {min(TWO)} --applied" in run.verdict["hint"]
    for version in TWO:
        resolved = gate(
            "resolve", version, "--applied", database=database, migrations=TWO
        )
        assert resolved.exit_code == 0, resolved.output
    assert gate(database=database, migrations=TWO).verdict["applied"] == []


def test_a_table_that_is_dropped_while_the_gate_applies_closes_it(
    gate: Gate, database: Database
) -> None:
    """Nothing is applied that cannot be recorded; a restart finds no history."""
    files = {
        "1_a.sql": "CREATE TABLE IF NOT EXISTS a (); SELECT pg_sleep(0.5);",
        "2_b.sql": "CREATE TABLE b (); SELECT pg_sleep(0.5);",
    }
    process = gate.start(database=database, migrations=files)
    process.wait_for("migration.started")
    with closing(database.connect()) as other:
        while not other.execute(
            "SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
            " AND datname = current_database()"
        ).fetchall():
            assert process.is_running
        other.execute("DROP TABLE schema_migrations")
    run = process.wait()
    assert run.exit_code == 1, run.output
    assert run.verdict["reason"] == "history"
    assert run.verdict["error_message"] == (
        'could not lock table "public.schema_migrations" for migration "2_b.sql": '
        'relation "public.schema_migrations" does not exist (SQLSTATE 42P01)'
    )
    assert run.verdict["applied"] == ["1_a.sql"]
    assert tables(database) == ["a"]
    again = gate(database=database, migrations=files)
    assert again.verdict["applied"] == ["1_a.sql", "2_b.sql"], again.output
