"""With GATE_STANDBY=check, migrate looks where only a hot standby can be had."""

from __future__ import annotations

import pytest

from tests.fix_gate import Gate
from tests.fix_postgres import Database, NewServer, database_of
from tests.polling import until


# Servers of their own, and waiting: a loaded machine needs longer.
pytestmark = pytest.mark.timeout(60)
FILES = {"001_create.sql": "CREATE TABLE made (id int);"}
MORE = {**FILES, "002_more.sql": "CREATE TABLE more (id int);"}
CHECK = {"GATE_STANDBY": "check"}
MADE = "SELECT FROM pg_class WHERE relname = 'made'"


@pytest.fixture
def primary(new_server: NewServer) -> Database:
    """Return a database at its primary."""
    return database_of(new_server())


@pytest.fixture
def standby(primary: Database, new_server: NewServer) -> Database:
    """Return the same at its hot standby."""
    return database_of(new_server(standby_of=primary.server.embedded))


def both(standby: Database, primary: Database) -> dict[str, str]:
    """Return the settings that name the two, the standby first."""
    ports = f"{standby.conninfo['port']},{primary.conninfo['port']}"
    environ = standby.environ() | CHECK
    del environ["POSTGRES_PORT"]
    hosts = "127.0.0.1,127.0.0.1"
    return environ | {"POSTGRES_HOST": hosts, "POSTGRES_PORT": ports}


def test_it_opens_where_the_standby_has_every_migration(
    gate: Gate, primary: Database, standby: Database
) -> None:
    """One connection, one query, and nothing written, which could not be."""
    assert gate(database=primary, migrations=FILES).exit_code == 0
    until(lambda: standby.fetch(MADE))
    run = gate(database=standby, env=CHECK, migrations=FILES)
    assert run.exit_code == 0
    assert run.names == [
        "gate.started",
        "database.ready",
        "database.standby",
        "plan.made",
        "gate.opened",
    ]


def test_it_waits_for_what_the_standby_has_not_got_yet(
    gate: Gate, primary: Database, standby: Database
) -> None:
    """The gate at the primary is later, or the standby behind."""
    process = gate.start(database=standby, env=CHECK, migrations=FILES)
    retry = process.wait_for("database.retry_scheduled")
    assert retry["reason"] == "incomplete"
    assert gate(database=primary, migrations=FILES).exit_code == 0
    assert process.wait().exit_code == 0


def test_it_closes_as_check_does_where_nobody_migrates(
    gate: Gate, standby: Database
) -> None:
    """What is missing is named, when GATE_WAIT_TIMEOUT is over."""
    env = CHECK | {"GATE_WAIT_TIMEOUT": "1s"}
    run = gate(database=standby, env=env, migrations=FILES)
    assert (run.exit_code, run.verdict["reason"]) == (1, "incomplete")
    assert run.verdict["error_message"].startswith('not applied: "001_create.sql" (')


def test_a_primary_that_can_be_had_is_migrated(
    gate: Gate, primary: Database, standby: Database
) -> None:
    """Wherever it stands among the hosts; also a standby that is promoted."""
    run = gate(env=both(standby, primary), migrations=FILES)
    assert run.exit_code == 0
    assert run.all("database.standby") == []
    assert primary.fetch(MADE) == [()]
    until(lambda: standby.fetch(MADE))
    assert primary.server.embedded is not None
    primary.server.embedded.stop()
    assert gate(env=both(standby, primary), migrations=FILES).exit_code == 0
    process = gate.start(env=both(standby, primary), migrations=MORE)
    retry = process.wait_for("database.retry_scheduled")
    assert retry["reason"] == "incomplete"
    standby.execute("SELECT pg_promote()")
    run = process.wait()
    assert run.exit_code == 0
    assert run.verdict["applied"] == ["002_more.sql"]


def test_only_migrate_may_look_instead(gate: Gate, standby: Database) -> None:
    """What a person asks to be recorded has to be written."""
    env = CHECK | {"GATE_WAIT_TIMEOUT": "1s"}
    argv = ("resolve", "001_create.sql", "--applied")
    run = gate(*argv, database=standby, env=env, migrations=FILES)
    assert (run.exit_code, run.verdict["reason"]) == (1, "unreachable")
