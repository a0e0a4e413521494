"""GATE_CREATE_DATABASE makes the missing database, once, or says why not."""

from __future__ import annotations

from contextlib import closing

import pytest

from tests.ends import FILES, require_no_secret
from tests.fix_gate import Gate
from tests.fix_postgres import Database, Databases, NewServer, database_of


# Servers of their own, and waiting: a loaded machine needs longer.
pytestmark = pytest.mark.timeout(60)
CREATE = {"GATE_CREATE_DATABASE": "true", "GATE_AUTH_GRACE": "0"}
VERSIONS = "SELECT version FROM schema_migrations"


@pytest.mark.parametrize("name", ["", 'Ünü"s-al', "with = sign"])
def test_a_missing_database_is_made_and_migrated(
    gate: Gate, databases: Databases, name: str
) -> None:
    """Whatever its name; the log says so."""
    missing = databases.name()
    if name:
        missing.conninfo["dbname"] = f"{missing.name} {name}"
    run = gate(database=missing, env=CREATE, migrations=FILES)
    assert run.exit_code == 0
    assert run.one("database.created")["database"] == missing.name
    assert run.all("database.retry_scheduled") == []
    assert missing.fetch(VERSIONS) == [("001_create.sql",)]
    require_no_secret(run, missing.password)


def test_a_database_that_is_there_is_left_as_it_is(
    gate: Gate, database: Database
) -> None:
    """The setting costs nothing then."""
    run = gate(database=database, env=CREATE, migrations=FILES)
    assert run.exit_code == 0
    assert run.all("database.created") == []


def test_of_many_gates_one_makes_the_database(gate: Gate, databases: Databases) -> None:
    """All open, and each migration is applied once."""
    missing = databases.name()
    processes = [
        gate.start(database=missing, env=CREATE, migrations=FILES) for _ in range(8)
    ]
    runs = [process.wait() for process in processes]
    assert [run.exit_code for run in runs] == [0] * len(runs)
    assert sum(len(run.all("database.created")) for run in runs) == 1
    assert sum(run.verdict["applied_count"] for run in runs) == 1
    assert missing.fetch(VERSIONS) == [("001_create.sql",)]


def test_of_many_gates_in_template1_one_makes_the_database(
    gate: Gate, new_server: NewServer
) -> None:
    """It is copied only while nobody else is connected there: they take turns."""
    template = database_of(new_server()).changed(dbname="template1")
    template.execute("DROP DATABASE postgres")
    missing = template.changed(dbname="wanted")
    processes = [
        gate.start(database=missing, env=CREATE, migrations=FILES) for _ in range(8)
    ]
    runs = [process.wait(15) for process in processes]
    assert [run.exit_code for run in runs] == [0] * len(runs)
    assert sum(len(run.all("database.created")) for run in runs) == 1
    assert missing.fetch(VERSIONS) == [("001_create.sql",)]


def test_sessions_in_template1_are_waited_for(
    gate: Gate, databases: Databases, database: Database
) -> None:
    """A person at psql there; PostgreSQL itself waits five seconds for them."""
    missing = databases.name()
    with closing(database.changed(dbname="template1").connect()):
        process = gate.start(database=missing, env=CREATE, migrations=FILES)
        retry = process.wait_for("database.retry_scheduled")
        assert retry["reason"] == "template_in_use"
    assert process.wait().exit_code == 0
    assert missing.fetch(VERSIONS) == [("001_create.sql",)]


def test_wait_makes_the_database_too(gate: Gate, databases: Databases) -> None:
    """For an application that migrates with a tool of its own."""
    missing = databases.name()
    run = gate("wait", database=missing, env=CREATE)
    assert run.exit_code == 0
    assert missing.fetch("SELECT 1") == [(1,)]


@pytest.mark.parametrize(
    "command",
    [
        *("check", "status", "plan", "baseline 1", "rollback"),
        *("adopt --from goose", "resolve 1 --applied"),
    ],
)
def test_commands_that_apply_no_file_make_nothing(
    gate: Gate, databases: Databases, command: str
) -> None:
    """They close as without the setting: the name may be a slip of the pen."""
    missing = databases.name()
    env = CREATE | {"GATE_AUTH_GRACE": "0"}
    run = gate(*command.split(), database=missing, env=env, migrations=FILES)
    assert run.exit_code == 1
    assert "does not exist" in run.output
    assert not exists(databases, missing.name)


def test_a_role_without_createdb_is_told_what_it_lacks(
    gate: Gate, databases: Databases
) -> None:
    """The remedy can be pasted."""
    missing = databases.name()
    role = databases.create().role().changed(dbname=missing.name)
    run = gate(database=role, env=CREATE, migrations=FILES)
    assert (run.exit_code, run.verdict["reason"]) == (1, "refused")
    assert (
        f'role {role.user} may not create database "{missing.name}"'
        in (run.verdict["error_message"])
    )
    assert f"ALTER ROLE {role.user} CREATEDB;" in run.verdict["hint"]
    assert not exists(databases, missing.name)
    require_no_secret(run, role.password)


def test_a_role_with_createdb_becomes_the_owner(
    gate: Gate, databases: Databases
) -> None:
    """It can then make what the files need."""
    missing = databases.name()
    role = databases.create().role(attributes="LOGIN CREATEDB")
    there = role.changed(dbname=missing.name)
    assert gate(database=there, env=CREATE, migrations=FILES).exit_code == 0
    owner = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = %s"
    assert role.fetch(owner, [missing.name]) == [(role.user,)]


def test_a_file_that_cannot_be_read_leaves_the_server_as_it_is(
    gate: Gate, databases: Databases
) -> None:
    """It is refused before the database is made."""
    missing = databases.name()
    files = {"001_latin.sql": "SELECT 'é'".encode("latin-1")}
    run = gate(database=missing, env=CREATE, migrations=files)
    assert run.verdict["reason"] == "files"
    assert not exists(databases, missing.name)


def test_without_database_postgres_template1_is_used(
    gate: Gate, new_server: NewServer
) -> None:
    """Some servers have had it dropped."""
    template = database_of(new_server()).changed(dbname="template1")
    template.execute("DROP DATABASE postgres")
    missing = template.changed(dbname="wanted")
    assert gate(database=missing, env=CREATE, migrations=FILES).exit_code == 0
    assert missing.fetch(VERSIONS) == [("001_create.sql",)]


def test_without_a_login_elsewhere_the_verdict_says_so(
    gate: Gate, new_server: NewServer
) -> None:
    """pg_hba.conf lets the role into the one database only."""
    hba = (
        "host all postgres 127.0.0.1/32 scram-sha-256",
        "host wanted all 127.0.0.1/32 scram-sha-256",
    )
    database = database_of(new_server(hba=hba))
    role = database.role(attributes="LOGIN CREATEDB").changed(dbname="wanted")
    run = gate(database=role, env=CREATE, migrations=FILES)
    assert (run.exit_code, run.verdict["reason"]) == (1, "refused")
    assert (
        'database "wanted" does not exist, and no login to create it from'
        in run.verdict["error_message"]
    )


def exists(databases: Databases, name: str) -> bool:
    """Whether a database is there."""
    with closing(databases.server.connect()) as conn:
        query = "SELECT FROM pg_database WHERE datname = %s"
        return conn.execute(query, [name]).fetchone() is not None
