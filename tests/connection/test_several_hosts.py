"""Of several servers the one that can be written is found, wherever it stands."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from dev.postgres import find_free_port
from tests.ends import FILES, cause
from tests.fix_gate import Gate
from tests.fix_pgbouncer import PgBouncers
from tests.fix_postgres import Database, NewServer, database_of
from tests.fix_proxy import Proxy
from tests.polling import until


# Servers of their own, and waiting: a loaded machine needs longer.
pytestmark = pytest.mark.timeout(60)
Pair = tuple[Database, Database]


@pytest.fixture
def pair(new_server: NewServer) -> Pair:
    """Return a database at its primary and at its hot standby."""
    primary = new_server(settings={"log_connections": "on"})
    return database_of(primary), database_of(new_server(standby_of=primary))


def at(*databases: Database | int, more: str = "") -> dict[str, str]:
    """Return the settings that list servers, in this order; a number is a dead port."""
    first = next(d for d in databases if isinstance(d, Database))
    hosts = ",".join(
        f"{d.conninfo['host']}:{d.conninfo['port']}"
        if isinstance(d, Database)
        else f"127.0.0.1:{d}"
        for d in databases
    )
    login = f"{first.user}:{quote(first.password, safe='')}"
    return {"DATABASE_URL": f"postgresql://{login}@{hosts}/{first.name}{more}"}


def versions(database: Database) -> list[tuple[str]]:
    """Return what the history has."""
    return database.fetch("SELECT version FROM schema_migrations")


@pytest.mark.parametrize("order", ["standby first", "dead and standby first"])
def test_migrate_writes_to_the_primary(gate: Gate, pair: Pair, order: str) -> None:
    """Nothing says target_session_attrs, and nothing is waited for."""
    primary, standby = pair
    dead = [find_free_port()] if order.startswith("dead") else []
    run = gate(env=at(*dead, standby, primary), migrations=FILES)
    assert run.exit_code == 0
    assert run.all("database.retry_scheduled") == []
    assert versions(primary) == [("001_create.sql",)]


@pytest.mark.parametrize("attrs", ["any", "read-write", "primary", "prefer-standby"])
def test_what_target_session_attrs_asks_for_is_kept(
    gate: Gate, pair: Pair, attrs: str
) -> None:
    """Also a wish that migrate cannot have: it goes on to the next server."""
    primary, standby = pair
    env = at(standby, primary, more=f"?target_session_attrs={attrs}")
    assert gate(env=env, migrations=FILES).exit_code == 0
    assert versions(primary) == [("001_create.sql",)]


def test_wait_and_resolve_find_the_primary(gate: Gate, pair: Pair) -> None:
    """As all that needs a server that can be written."""
    primary, standby = pair
    env = at(standby, primary)
    assert gate("wait", env=env).exit_code == 0
    run = gate("resolve", "001_create.sql", "--applied", env=env, migrations=FILES)
    assert run.exit_code == 0
    assert versions(primary) == [("001_create.sql",)]


def test_a_database_is_made_at_the_primary(gate: Gate, pair: Pair) -> None:
    """GATE_CREATE_DATABASE looks for it too."""
    primary, standby = pair
    late = [d.changed(dbname="made_late") for d in (standby, primary)]
    env = at(*late) | {"GATE_CREATE_DATABASE": "true"}
    assert gate(env=env, migrations=FILES).exit_code == 0
    assert versions(late[1]) == [("001_create.sql",)]


@pytest.mark.parametrize("command", ["check", "status", "plan"])
def test_what_only_looks_takes_any(gate: Gate, pair: Pair, command: str) -> None:
    """The first that answers; the primary is left alone."""
    primary, standby = pair
    assert gate(env=at(primary), migrations=FILES).exit_code == 0
    replayed = "SELECT FROM pg_class WHERE relname = 'schema_migrations'"
    until(lambda: standby.fetch(replayed))
    login = "connection authorized: user=postgres database=postgres"
    before = primary.log.count(login)
    assert gate(command, env=at(standby, primary), migrations=FILES).exit_code == 0
    assert primary.log.count(login) == before


def test_lock_and_files_are_at_one_server(gate: Gate, database: Database) -> None:
    """Hosts in random order: what runs the files goes to where the lock is held."""
    host, port = database.conninfo["host"], int(database.conninfo["port"])
    with Proxy(host, port) as first, Proxy(host, port) as second:
        env = at(
            first.through(database),
            second.through(database),
            more="?sslmode=disable&load_balance_hosts=random",
        )
        for number in range(1, 5):
            name = f"{number:03}_create.sql"
            files = {name: f"CREATE TABLE made_{number} (id int);"}
            before = [len(first.sessions), len(second.sessions)]
            assert gate(env=env, migrations=files).exit_code == 0
            after = [len(first.sessions), len(second.sessions)]
            assert sorted(a - b for a, b in zip(after, before, strict=True)) == [0, 2]


def test_a_standby_that_is_promoted_takes_over(gate: Gate, pair: Pair) -> None:
    """The primary dies while the gate waits; each attempt goes through all hosts."""
    primary, standby = pair
    assert primary.server.embedded is not None
    primary.server.embedded.stop()
    process = gate.start(env=at(standby, primary), migrations=FILES)
    retry = process.wait_for("database.retry_scheduled")
    assert retry["reason"] == "connection_refused"
    assert "hot standby" in retry["error_message"]
    standby.execute("SELECT pg_promote()")
    assert process.wait().exit_code == 0
    assert versions(standby) == [("001_create.sql",)]


def test_where_all_are_standbys_each_is_named(gate: Gate, pair: Pair) -> None:
    """Nothing can be written; the hint is the standby's."""
    _, standby = pair
    env = at(standby, standby) | {"GATE_WAIT_TIMEOUT": "1s"}
    run = gate(env=env, migrations=FILES)
    assert (run.exit_code, run.verdict["reason"]) == (1, "unreachable")
    assert run.verdict["hint"] == cause("hot_standby").remedy
    port = standby.conninfo["port"]
    assert (
        f'"127.0.0.1:{port}": the server is a hot standby'
        in (run.verdict["error_message"])
    )


def test_a_login_that_the_primary_refuses_is_no_matter_of_the_standby(
    gate: Gate, pair: Pair, new_server: NewServer
) -> None:
    """The grace ends it, not the wait."""
    _, standby = pair
    stranger = new_server(hba=("host all all 127.0.0.1/32 reject",))
    env = at(standby, stranger.port) | {"GATE_AUTH_GRACE": "0"}
    run = gate(env=env, migrations=FILES)
    assert (run.exit_code, run.verdict["reason"]) == (1, "refused")


def test_poolers_before_each_server_lead_to_the_primary(
    gate: Gate, pair: Pair, pgbouncer: PgBouncers
) -> None:
    """A pooler may tell what it heard first: the server itself is asked."""
    primary, standby = pair
    pooled = [pgbouncer("transaction", d).through(d) for d in (standby, primary)]
    pooled[0].fetch("SELECT 1")  # the pooler keeps that this is a standby
    assert gate(env=at(*pooled), migrations=FILES).exit_code == 0
    assert versions(primary) == [("001_create.sql",)]
    assert primary.server.embedded is not None
    caught_up = "SELECT pg_last_wal_replay_lsn() = pg_last_wal_receive_lsn()"
    until(lambda: standby.fetch(caught_up) == [(True,)])
    primary.server.embedded.stop()
    standby.execute("SELECT pg_promote()")
    more = {**FILES, "002_more.sql": "CREATE TABLE more (id int);"}
    assert gate(env=at(*pooled), migrations=more).exit_code == 0
    assert ("002_more.sql",) in versions(standby)
