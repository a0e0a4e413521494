"""What no waiting mends closes the gate at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from dev.postgres import find_free_port
from tests.ends import FILES, FOREVER, close, require_no_secret
from tests.fix_gate import Gate
from tests.fix_postgres import Database, NewServer, database_of


# Servers of their own, and waiting: a loaded machine needs longer.
pytestmark = pytest.mark.timeout(60)
WAITS = {"GATE_WAIT_TIMEOUT": FOREVER, "GATE_AUTH_GRACE": FOREVER}


@pytest.fixture
def encrypted(new_server: NewServer) -> Database:
    """Return a database whose server serves TLS, verified in full."""
    server = new_server(tls=True)
    return database_of(server).changed(
        sslmode="verify-full", sslrootcert=str(server.ca)
    )


def pg(database: Database, **more: str) -> dict[str, str]:
    """Return libpq's variables for a database."""
    names = {"dbname": "PGDATABASE"}
    conninfo = database.conninfo | more
    return {names.get(key, f"PG{key.upper()}"): conninfo[key] for key in conninfo}


def test_a_server_that_proves_itself_is_trusted(
    gate: Gate, encrypted: Database
) -> None:
    """With its CA and its name, verify-full lets the gate in."""
    assert gate("migrate", env=pg(encrypted), migrations=FILES).exit_code == 0


def test_an_untrusted_certificate_closes_at_once(
    gate: Gate, encrypted: Database, new_server: NewServer
) -> None:
    """Another CA than the server's is given."""
    stranger = new_server(tls=True)
    env = pg(encrypted, sslrootcert=str(stranger.ca))
    run = close(gate, "certificate_untrusted", env=env)
    assert run.verdict["reason"] == "unreachable"
    require_no_secret(run, encrypted.password)


def test_a_certificate_of_another_name_closes_at_once(
    gate: Gate, encrypted: Database
) -> None:
    """The certificate is for 127.0.0.1 and localhost."""
    env = pg(encrypted, host="db.example.com", hostaddr="127.0.0.1")
    run = close(gate, "certificate_mismatch", env=env)
    require_no_secret(run, encrypted.password)


def test_a_ca_file_that_is_missing_closes_at_once(
    gate: Gate, encrypted: Database, tmp_path: Path
) -> None:
    """The file was not mounted."""
    env = pg(encrypted, sslrootcert=str(tmp_path / "missing.pem"))
    run = close(gate, "ca_file_missing", env=env)
    require_no_secret(run, encrypted.password)


def test_a_ca_file_that_is_missing_closes_before_the_server_is_there(
    gate: Gate, tmp_path: Path
) -> None:
    """Only a server that offers TLS lets libpq find out; the file is missing now."""
    env = {
        "PGHOST": "127.0.0.1",
        "PGPORT": str(find_free_port()),
        "PGUSER": "u",
        "PGSSLMODE": "verify-ca",
        "PGSSLROOTCERT": str(tmp_path / "missing.pem"),
    }
    run = close(gate, "ca_file_missing", env=env)
    assert "missing.pem" in run.verdict["error_message"]


@pytest.mark.parametrize("sslmode", ["prefer", "require"])
def test_a_ca_file_that_is_not_used_is_not_looked_for(
    gate: Gate, encrypted: Database, tmp_path: Path, sslmode: str
) -> None:
    """As psql does: nothing is verified, so no file is needed."""
    missing = str(tmp_path / "missing.pem")
    env = pg(encrypted, sslrootcert=missing, sslmode=sslmode)
    assert gate(env=env, migrations=FILES).exit_code == 0


def test_gss_without_a_ticket_closes_at_once(gate: Gate, database: Database) -> None:
    """gssencmode=require, and nobody has logged in to Kerberos here."""
    env = database.environ() | {"PGGSSENCMODE": "require"}
    run = close(gate, "parameter", env=env)
    assert "GSSAPI encryption required" in run.verdict["error_message"]


def test_no_password_closes_at_once(gate: Gate, database: Database) -> None:
    """The server asks for one and nobody has given it."""
    env = {
        key: value
        for key, value in database.environ().items()
        if key != "POSTGRES_PASSWORD"
    }
    close(gate, "no_password", env=env | {"HOME": "/nonexistent"})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("-c no_such_setting=1", "unrecognized configuration parameter"),
        ("-c work_mem=lots", "invalid value for parameter"),
    ],
)
def test_options_that_the_server_does_not_take_close_at_once(
    gate: Gate, database: Database, options: str, said: str
) -> None:
    """The remedy is to take them out of PGOPTIONS."""
    run = close(gate, "startup_parameter", env=pg(database, options=options))
    assert said in run.verdict["error_message"]
    require_no_secret(run, database.password)


@pytest.mark.parametrize(
    "parameter",
    [
        {"ssl_min_protocol_version": "TLSv9"},
        {"require_auth": "telepathy"},
        {"min_protocol_version": "1.0"},
    ],
    ids=lambda parameter: next(iter(parameter)),
)
def test_a_parameter_that_libpq_refuses_closes_at_once(
    gate: Gate, database: Database, parameter: dict[str, str]
) -> None:
    """The value is looked at before anything is connected to."""
    names = {
        "ssl_min_protocol_version": "PGSSLMINPROTOCOLVERSION",
        "require_auth": "PGREQUIREAUTH",
        "min_protocol_version": "PGMINPROTOCOLVERSION",
    }
    ((keyword, value),) = parameter.items()
    env = database.environ() | {names[keyword]: value}
    run = close(gate, "parameter", env=env)
    require_no_secret(run, database.password)


def test_a_service_that_is_not_there_closes_at_once(gate: Gate) -> None:
    """PGSERVICE names a section that no service file has."""
    close(gate, "parameter", env={"PGSERVICE": "nowhere"})


@pytest.mark.parametrize("host", ["a..b", "x" * 64])
def test_a_host_that_can_be_no_host_closes_at_once(gate: Gate, host: str) -> None:
    """Python's resolver takes no empty part, and none of more than 63 characters."""
    env = {"POSTGRES_HOST": host, "POSTGRES_USER": "u", **WAITS}
    run = gate("migrate", env=env, migrations=FILES)
    assert (run.exit_code, run.verdict["reason"]) == (1, "settings")
    assert "names a host that no host can have" in run.verdict["error_message"]


def test_a_client_key_that_is_missing_closes_at_once(
    gate: Gate, encrypted: Database, tmp_path: Path
) -> None:
    """A certificate without its key cannot be shown."""
    certificate = tmp_path / "client.pem"
    certificate.write_bytes(Path(encrypted.conninfo["sslrootcert"]).read_bytes())
    env = pg(encrypted, sslcert=str(certificate), sslkey=str(tmp_path / "none.key"))
    run = close(gate, "client_certificate", env=env)
    require_no_secret(run, encrypted.password)
