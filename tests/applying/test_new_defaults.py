"""A file that changes the defaults of role or database: the next begins with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pytest

from tests.fix_gate import Gate, Run
from tests.fix_postgres import Database, Databases
from tests.history_tables import versions


# What the next file does, and what shows with which defaults it did it.
MADE: Final = "CREATE TABLE made (id int);"
WHERE = (
    "SELECT relnamespace::regnamespace::text, relowner::regrole::text FROM pg_class"
    " WHERE relname = 'made'"
)
IN_A_BLOCK = """DO $$ BEGIN EXECUTE format(
    'ALTER DATABASE %I SET search_path = app', current_database()
); END $$;"""
CHANGES = {
    "a database's": "ALTER DATABASE {database} SET search_path = app;",
    "a role's": "ALTER ROLE {role} SET search_path = app;",
    "a user's": "ALTER USER {role} IN DATABASE {database} SET search_path TO app;",
    "everybody's": "ALTER ROLE ALL IN DATABASE {database} SET search_path TO app;",
    "in a block": IN_A_BLOCK,
    "outside a transaction": (
        "-- gate: no-transaction\nALTER DATABASE {database} SET search_path = app;"
    ),
    "with a setting of its own": (
        "SET search_path = pg_catalog; ALTER ROLE {role} SET search_path FROM CURRENT;"
        " ALTER ROLE {role} SET search_path = app;"
    ),
}

# Each kind of row that the catalogue may have of it.
EACH_KIND = ("a database's", "a user's", "everybody's")


def write(database: Database, change: str, after: str = MADE) -> dict[str, str]:
    """Return the files: a schema, the change, and two that come after it."""
    names = {"database": f'"{database.name}"', "role": f'"{database.user}"'}
    for name, value in names.items():
        change = change.replace(f"{{{name}}}", value)
    return {
        "001_schema.sql": "CREATE SCHEMA app;",
        "002_defaults.sql": change,
        "003_made.sql": after,
        "004_last.sql": "CREATE TABLE last_one (id int);",
    }


def in_two_releases(
    gate: Gate,
    database: Database,
    files: Mapping[str, str],
    env: Mapping[str, str] | None = None,
) -> Run:
    """Apply up to the change, and the rest with a gate that starts after it."""
    first = dict(list(files.items())[:2])
    assert gate(database=database, migrations=first, env=env).exit_code == 0
    return gate(database=database, migrations=files, env=env)


def in_one_release(
    gate: Gate,
    database: Database,
    files: Mapping[str, str],
    env: Mapping[str, str] | None = None,
) -> Run:
    """Apply all files with one gate."""
    return gate(database=database, migrations=files, env=env)


def administrator(databases: Databases) -> Database:
    """Return a database and a role that may change its own defaults and others'."""
    return databases.create().role(attributes="LOGIN SUPERUSER")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(
            change, id=name, marks=pytest.mark.server if name in EACH_KIND else []
        )
        for name, change in CHANGES.items()
    ],
)
def test_one_release_gives_what_two_give(
    gate: Gate, databases: Databases, change: str
) -> None:
    """The table lands where the new search path leads, as for psql file by file."""
    for apply in (in_one_release, in_two_releases):
        database = administrator(databases)
        files = write(database, change)
        run = apply(gate, database, files)
        assert run.exit_code == 0, run.verdict
        assert database.fetch(WHERE)[0][0] == "app"
        assert versions(database, "public.schema_migrations") == list(files)


def test_a_function_that_changes_them_is_seen(gate: Gate, databases: Databases) -> None:
    """Nothing in the text of the file that calls it says so."""
    database = administrator(databases)
    files = write(database, "SELECT app.prepare();")
    files["001_schema.sql"] += f"""
        CREATE FUNCTION app.prepare() RETURNS void LANGUAGE plpgsql AS $f$ BEGIN
            EXECUTE 'ALTER ROLE "{database.user}" SET search_path = app';
        END $f$;"""
    assert gate(database=database, migrations=files).exit_code == 0
    assert database.fetch(WHERE)[0][0] == "app"


@pytest.mark.server
def test_a_default_role_owns_what_the_next_file_makes(
    gate: Gate, databases: Databases
) -> None:
    """ALTER ROLE ... SET role holds from the next file on, and the history goes on."""
    for apply in (in_one_release, in_two_releases):
        database = administrator(databases)
        owner = database.role("owner", attributes="NOLOGIN SUPERUSER").user
        files = write(database, f'ALTER ROLE {{role}} SET role = "{owner}";')
        run = apply(gate, database, files)
        assert run.exit_code == 0, run.verdict
        assert database.fetch(WHERE) == [("public", owner)]
        assert versions(database) == list(files)


def test_a_default_time_limit_does_not_bound_the_next_file(
    gate: Gate, databases: Databases
) -> None:
    """statement_timeout is the gate's own to set, in one release as in two."""
    for apply in (in_one_release, in_two_releases):
        database = administrator(databases)
        files = write(
            database,
            "ALTER ROLE {role} SET statement_timeout = '50ms';",
            "SELECT pg_sleep(0.2);",
        )
        assert apply(gate, database, files).exit_code == 0


def test_a_default_of_read_only_closes_before_the_next_file(
    gate: Gate, databases: Databases
) -> None:
    """Nothing can be written then, in one release as in two."""
    for apply in (in_one_release, in_two_releases):
        database = administrator(databases)
        change = "ALTER ROLE {role} SET default_transaction_read_only = on;"
        files = write(database, change)
        run = apply(gate, database, files, {"GATE_WAIT_TIMEOUT": "200ms"})
        assert (run.exit_code, run.verdict["reason"]) == (1, "unreachable")
        assert versions(database) == list(files)[:2]


def test_a_file_that_changes_none_costs_no_new_session(
    gate: Gate, databases: Databases
) -> None:
    """The database is reported as ready once: what was asked found nothing new."""
    database = administrator(databases)
    files = write(database, "SELECT 1; DO $$ BEGIN PERFORM 1; END $$;")
    run = gate(database=database, migrations=files)
    assert run.exit_code == 0
    assert run.names.count("database.ready") == 1


def test_new_defaults_begin_one_new_session(gate: Gate, databases: Databases) -> None:
    """Each migration is told of once, and applied once."""
    database = administrator(databases)
    files = write(database, CHANGES["a role's"])
    run = gate(database=database, migrations=files)
    assert run.names.count("database.ready") == 2
    assert [event["version"] for event in run.all("migration.applied")] == list(files)
    assert run.verdict["applied"] == list(files)
