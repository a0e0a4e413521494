"""What PgBouncer says of its own, and passes on, is told apart like a server's."""

from __future__ import annotations

from contextlib import closing

import pytest

from tests.ends import FILES, close
from tests.fix_gate import Gate
from tests.fix_pgbouncer import PgBouncers
from tests.fix_postgres import Database, Databases, NewServer, database_of


# Servers of their own, and waiting: a loaded machine needs longer.
pytestmark = pytest.mark.timeout(60)
WRONG = "wr0ng-Pa55phrase"


@pytest.mark.parametrize("user", ["postgres", "nobody_here"])
def test_a_login_that_the_pooler_refuses_is_refused(
    gate: Gate, database: Database, pgbouncer: PgBouncers, user: str
) -> None:
    """It says the same of a wrong password and of a user that it does not know."""
    pooled = pgbouncer("transaction", database).through(database)
    close(gate, "login_refused", database=pooled.changed(user=user, password=WRONG))


def test_a_database_that_the_server_behind_does_not_have_is_refused(
    gate: Gate, databases: Databases, pgbouncer: PgBouncers
) -> None:
    """The pooler passes on what the server says; the gate may make it."""
    pooler = pgbouncer("transaction", databases.create())
    missing = databases.name()
    close(gate, "no_database", database=pooler.through(missing))
    run = gate(
        database=pooler.through(missing),
        env={"GATE_CREATE_DATABASE": "true"},
        migrations=FILES,
    )
    assert run.exit_code == 0
    assert len(run.all("database.created")) == 1
    assert missing.fetch("SELECT version FROM schema_migrations") == [
        ("001_create.sql",)
    ]


def test_a_role_that_the_server_behind_refuses_is_refused(
    gate: Gate, database: Database, pgbouncer: PgBouncers
) -> None:
    """The pooler lets it in, the server does not: a stale list of users."""
    role = database.role(attributes="NOLOGIN")
    pooler = pgbouncer("transaction", database)
    pooler.admit(role)
    run = gate(
        database=pooler.through(role),
        env={"GATE_AUTH_GRACE": "0", "GATE_WAIT_TIMEOUT": "60s"},
        migrations=FILES,
    )
    assert (run.exit_code, run.verdict["reason"]) == (1, "refused")
    assert "is not permitted to log in" in run.verdict["error_message"]


def test_a_database_that_the_pooler_does_not_know_is_refused(
    gate: Gate, database: Database, pgbouncer: PgBouncers
) -> None:
    """It has a list of its own, and says so in its own words."""
    pooled = pgbouncer("transaction", database, "other").through(database)
    run = close(gate, "no_database", database=pooled)
    assert "no such database" in run.verdict["error_message"]


def test_a_database_that_the_pooler_has_disabled_is_refused(
    gate: Gate, database: Database, pgbouncer: PgBouncers
) -> None:
    """DISABLE at its console, as for maintenance; within the grace it may come back."""
    pooler = pgbouncer("transaction", database, admin_users=database.user)
    pooled = pooler.through(database)
    pooler.command(f"DISABLE {database.name}")
    run = close(gate, "database_disabled", database=pooled)
    assert "is disabled" in run.verdict["error_message"]
    process = gate.start(database=pooled, migrations=FILES)
    process.wait_for("database.retry_scheduled")
    pooler.command(f"ENABLE {database.name}")
    assert process.wait().exit_code == 0


def test_a_pooler_that_is_paused_is_waited_for(
    gate: Gate, database: Database, pgbouncer: PgBouncers
) -> None:
    """PAUSE, as for a fail-over: logins are taken, queries wait."""
    pooler = pgbouncer(
        "transaction", database, admin_users=database.user, query_wait_timeout="1"
    )
    pooled = pooler.through(database)
    pooled.fetch("SELECT 1")
    pooler.command(f"PAUSE {database.name}")
    process = gate.start(database=pooled, migrations=FILES)
    assert process.wait_for("database.retry_scheduled")["reason"] == "pooler"
    pooler.command(f"RESUME {database.name}")
    assert process.wait().exit_code == 0


def test_a_pooler_that_wants_tls_refuses_a_login_without(
    gate: Gate, database: Database, new_server: NewServer, pgbouncer: PgBouncers
) -> None:
    """The remedy names the setting; with TLS the same login is let in."""
    certificates = new_server(tls=True).data
    pooler = pgbouncer(
        "transaction",
        database,
        client_tls_sslmode="require",
        client_tls_key_file=str(certificates / "server.key"),
        client_tls_cert_file=str(certificates / "server.crt"),
    )
    pooled = pooler.through(database)
    run = close(gate, "tls_required", database=pooled)
    assert "POSTGRES_SSL_MODE=require" in run.verdict["hint"]
    encrypted = pooled.changed(sslmode="require")
    assert gate(database=encrypted, migrations=FILES).exit_code == 0


def test_a_startup_parameter_that_the_pooler_does_not_take_closes_at_once(
    gate: Gate, database: Database, pgbouncer: PgBouncers
) -> None:
    """The gate itself sends none; PGOPTIONS is the user's."""
    pooled = pgbouncer("transaction", database).through(database)
    env = {"PGOPTIONS": "-c work_mem=8MB"}
    close(gate, "startup_parameter", database=pooled, env=env)


def test_a_pooler_that_takes_no_more_clients_is_waited_for(
    gate: Gate, database: Database, pgbouncer: PgBouncers
) -> None:
    """max_client_conn is reached."""
    pooled = pgbouncer("transaction", database, max_client_conn="1").through(database)
    with closing(pooled.connect()):
        close(gate, "too_many_connections", database=pooled)


def test_a_pooler_without_a_free_server_connection_is_waited_for(
    gate: Gate, database: Database, pgbouncer: PgBouncers
) -> None:
    """The connection succeeds, and the first query fails."""
    pooler = pgbouncer(
        "transaction", database, default_pool_size="1", query_wait_timeout="1"
    )
    pooled = pooler.through(database)
    with closing(pooled.connect()) as other, other.transaction():
        other.execute("SELECT 1")
        env = {"GATE_WAIT_TIMEOUT": "2s"}
        close(gate, "pooler", database=pooled, env=env)


def test_a_server_that_comes_late_behind_a_pooler_opens_the_gate(
    gate: Gate, new_server: NewServer, pgbouncer: PgBouncers
) -> None:
    """The pooler takes logins meanwhile, and lets the first query wait."""
    server = new_server()
    database = database_of(server)
    pooler = pgbouncer("transaction", database, query_wait_timeout="1")
    server.stop()
    process = gate.start(database=pooler.through(database), migrations=FILES)
    assert process.wait_for("database.retry_scheduled")["reason"] in {
        "pooler",
        "shutting_down",
    }
    server.start()
    assert process.wait().exit_code == 0
