"""A login that the server refuses counts as "not yet" for the grace, and no longer."""

from __future__ import annotations

import re
import socket
import threading

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import pytest

from tests.ends import FILES, cause, close, require_no_secret, times
from tests.fix_gate import Gate
from tests.fix_postgres import Database, Databases, NewServer, database_of


# Servers of their own, and waiting: a loaded machine needs longer.
pytestmark = pytest.mark.timeout(60)
WRONG = "wr0ng-Pa55phrase"
ENCRYPTED_ONLY = (
    "hostssl all all 127.0.0.1/32 scram-sha-256",
    "hostssl replication all 127.0.0.1/32 scram-sha-256",
)


def test_a_wrong_password_is_refused(gate: Gate, database: Database) -> None:
    """The server does not tell more than that the password is wrong."""
    run = close(gate, "login_refused", database=database.changed(password=WRONG))
    assert "password authentication failed" in run.verdict["error_message"]
    assert f'"{database.conninfo["host"]}:' in run.verdict["error_message"]
    assert re.search(r"\(1 attempt in \d s\): ", run.verdict["error_message"])


@pytest.mark.parametrize(
    ("password", "said"),
    [
        ("$(PASSWORD)", "The password is a $(…) or ${…} that was not filled in"),
        ('"{}"', "The password has quotes around it"),
        ("{}\n", "The password has white space or a line end around it"),
    ],
)
def test_a_password_that_looks_like_a_slip_is_told_as_one(
    gate: Gate, database: Database, password: str, said: str
) -> None:
    """It is tried, for it may be meant; of its value nothing is shown."""
    slip = database.changed(password=password.format(database.password))
    limits = {"GATE_AUTH_GRACE": "0"}
    run = gate(database=slip, env=limits, migrations=FILES)
    assert (run.exit_code, run.verdict["reason"]) == (1, "refused")
    assert run.verdict["hint"].startswith(said)
    assert run.verdict["hint"].endswith(cause("login_refused").remedy)
    require_no_secret(run, database.password)


def test_an_unknown_role_is_refused(gate: Gate, database: Database) -> None:
    """A role that does not exist looks like a wrong password."""
    close(gate, "login_refused", database=database.changed(user="nobody_here"))


def test_a_role_that_does_not_exist_is_refused_without_passwords_too(
    gate: Gate, new_server: NewServer
) -> None:
    """Under trust the server says what it is that is missing."""
    database = database_of(new_server(hba=("host all all 127.0.0.1/32 trust",)))
    run = close(gate, "login_refused", database=database.changed(user="nobody_here"))
    assert 'role "nobody_here" does not exist' in run.verdict["error_message"]


def test_an_expired_password_is_refused(gate: Gate, database: Database) -> None:
    """A password after its VALID UNTIL looks like a wrong one."""
    role = database.role(attributes="LOGIN VALID UNTIL '2001-01-01'")
    close(gate, "login_refused", database=role)


def test_a_role_that_may_not_log_in_is_refused(gate: Gate, database: Database) -> None:
    """NOLOGIN is told as such."""
    run = close(gate, "no_login", database=database.role(attributes="NOLOGIN"))
    assert "is not permitted to log in" in run.verdict["error_message"]


def test_a_database_that_does_not_exist_is_refused(
    gate: Gate, databases: Databases
) -> None:
    """Without GATE_CREATE_DATABASE the gate does not make it."""
    missing = databases.name()
    run = close(gate, "no_database", database=missing)
    assert f'database "{missing.name}" does not exist' in run.verdict["error_message"]


def test_a_role_without_connect_is_refused(gate: Gate, database: Database) -> None:
    """CONNECT on the database is missing."""
    role = database.role()
    database.execute(f"REVOKE CONNECT ON DATABASE {database.name} FROM PUBLIC")
    close(gate, "no_connect_right", database=role)


def test_a_database_that_allows_no_connections_is_refused(
    gate: Gate, databases: Databases
) -> None:
    """ALLOW_CONNECTIONS false is refused, for a superuser too."""
    database = databases.create()
    with closing(databases.server.connect()) as conn:
        conn.execute(f"ALTER DATABASE {database.name} ALLOW_CONNECTIONS false")
    close(gate, "database_closed", database=database)


def test_a_database_whose_drop_was_cut_short_is_refused(
    gate: Gate, databases: Databases
) -> None:
    """PostgreSQL marks it so before it removes the files."""
    database = databases.create()
    with closing(databases.server.connect()) as conn:
        conn.execute(
            "UPDATE pg_database SET datconnlimit = -2 WHERE datname = %s",
            (database.name,),
        )
    close(gate, "database_invalid", database=database)


def test_a_way_to_log_in_that_the_server_does_not_offer_is_refused(
    gate: Gate, database: Database
) -> None:
    """It asks for SCRAM, and the gate is told to use no password."""
    close(
        gate, "authentication_method", database=database, env={"PGREQUIREAUTH": "none"}
    )


def test_a_server_that_wants_a_client_certificate_refuses_a_login_without(
    gate: Gate, new_server: NewServer
) -> None:
    """It trusts those of its own CA."""
    server = new_server(tls=True)
    server.settings["ssl_ca_file"] = str(server.ca)
    server.hba = ("hostssl all all 127.0.0.1/32 cert",)
    role = database_of(server).role()
    server.restart()
    close(gate, "client_certificate_refused", database=role.changed(sslmode="require"))


def test_a_server_without_a_tls_version_of_the_gates_is_refused(
    gate: Gate, new_server: NewServer
) -> None:
    """The gate is told to speak an older one than the server takes."""
    server = new_server(tls=True, settings={"ssl_min_protocol_version": "TLSv1.3"})
    database = database_of(server).changed(sslmode="require")
    env = {"PGSSLMAXPROTOCOLVERSION": "TLSv1.2"}
    close(gate, "tls_version", database=database, env=env)


def test_a_login_that_pg_hba_does_not_name_is_refused(
    gate: Gate, new_server: NewServer
) -> None:
    """No line of pg_hba.conf is for this user, with TLS or without."""
    hba = ("host all postgres 127.0.0.1/32 scram-sha-256",)
    role = database_of(new_server(hba=hba, tls=True)).role()
    run = close(gate, "not_allowed", database=role)
    assert "no pg_hba.conf entry" in run.verdict["error_message"]


def test_a_login_that_pg_hba_rejects_is_refused(
    gate: Gate, new_server: NewServer
) -> None:
    """A reject line is for this user."""
    hba = (
        "host all postgres 127.0.0.1/32 scram-sha-256",
        "host all all 127.0.0.1/32 reject",
    )
    database = database_of(new_server(hba=hba))
    run = close(gate, "not_allowed", database=database.role())
    assert "pg_hba.conf rejects" in run.verdict["error_message"]


def test_a_server_that_requires_tls_refuses_a_login_without(
    gate: Gate, new_server: NewServer
) -> None:
    """The remedy names the setting; with TLS the same login is let in."""
    database = database_of(new_server(hba=ENCRYPTED_ONLY, tls=True))
    plain = database.changed(sslmode="disable")
    run = gate(
        "migrate", database=plain, env={"GATE_AUTH_GRACE": "0"}, migrations=FILES
    )
    assert run.verdict["reason"] == "refused"
    assert "POSTGRES_SSL_MODE=verify-full" in run.verdict["hint"]
    assert "no encryption" in run.verdict["error_message"]
    assert gate("migrate", database=database, migrations=FILES).exit_code == 0


def test_a_server_without_tls_is_refused_where_tls_is_required(
    gate: Gate, database: Database
) -> None:
    """The shared server offers none."""
    close(gate, "tls_not_offered", database=database.changed(sslmode="require"))


@dataclass(frozen=True)
class Stranger:
    """A port that is not PostgreSQL's: says its greeting and reads no more."""

    port: int


@pytest.fixture(
    params=[b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-x\r\n", b"J\0\0"]
)
def stranger(request: pytest.FixtureRequest) -> Iterator[Stranger]:
    """Listen as a web server, an SSH server, or another database."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                with client:
                    client.recv(1024)
                    client.sendall(request.param)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield Stranger(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize("sslmode", ["prefer", "disable"])
def test_a_port_that_is_not_postgresql_is_refused(
    gate: Gate, stranger: Stranger, sslmode: str
) -> None:
    """Whatever answers there, the remedy is to check host and port."""
    env = {
        "DATABASE_URL": f"postgresql://u:{WRONG}@127.0.0.1:{stranger.port}/d"
        f"?sslmode={sslmode}"
    }
    run = close(gate, "not_postgresql", env=env)
    require_no_secret(run, WRONG)


def test_a_refused_login_is_tried_every_two_seconds_for_the_grace(
    gate: Gate, database: Database
) -> None:
    """Accounts are locked by those who try more often."""
    wrong = database.changed(password=WRONG)
    env = {"GATE_AUTH_GRACE": "5s", "GATE_HEARTBEAT": "1s"}
    run = gate("migrate", database=wrong, env=env, migrations=FILES)
    assert run.verdict["reason"] == "refused"
    assert 3 < run.verdict["waited_s"] < 5.5
    assert all(2 <= seconds < 3 for seconds in times(run, "database.retry_scheduled"))
    refusals = database.server.log.count("password authentication failed for user")
    assert refusals == len(run.all("database.retry_scheduled")) + 1
    require_no_secret(run, WRONG, database.password)


def test_a_role_that_comes_within_the_grace_is_let_in(
    gate: Gate, databases: Databases
) -> None:
    """Another step of the deployment may make the database a little later."""
    late = databases.name()
    process = gate.start("migrate", database=late, migrations=FILES)
    assert process.wait_for("database.retry_scheduled")["reason"] == "no_database"
    with closing(databases.server.connect()) as conn:
        conn.execute(f"CREATE DATABASE {late.name}")
    assert process.wait().exit_code == 0
