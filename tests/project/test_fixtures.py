"""The fixtures do what other tests rely on."""

from __future__ import annotations

import re
import signal
import threading
import tomllib

from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from tests.fix_gate import Gate, parse_event
from tests.fix_postgres import Database, Databases, NewServer, SharedServer, database_of
from tests.fix_proxy import Proxy


ROOT = Path(__file__).resolve().parents[2]
TABLES = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"


@pytest.mark.parametrize("turn", ["first", "second"])
def test_each_test_has_a_fresh_database(database: Database, turn: str) -> None:
    """A table that one test makes is not there in the next."""
    assert database.fetch(TABLES) == []
    database.execute(f"CREATE TABLE {turn} ()")
    assert database.fetch(TABLES) == [(turn,)]


@pytest.mark.server
def test_a_url_with_every_awkward_character_connects(database: Database) -> None:
    """A role's password may hold anything; url and environ name the same login."""
    role = database.role("awkward", password="@:/?#% &'\"\\ü€")
    with closing(psycopg.connect(role.url)) as conn:
        assert conn.info.user == role.user == role.environ()["POSTGRES_USER"]
        assert conn.info.password == role.password


@pytest.mark.server
def test_roles_and_databases_are_gone_after_the_test(server: SharedServer) -> None:
    """A role is dropped with all it owns, was granted and granted itself."""
    with Databases(server=server) as databases:
        database, theirs = databases.create(), databases.name()
        owner = database.role("owner", attributes="LOGIN CREATEDB CREATEROLE")
        other = database.role("other")
        database.execute(f"GRANT CREATE ON DATABASE {database.name} TO {owner.user}")
        owner.execute("CREATE SCHEMA theirs")
        owner.execute(f"GRANT ALL ON SCHEMA theirs TO {other.user}")
        owner.execute(f"CREATE DATABASE {theirs.name}")
    made = [each.name for each in (database, theirs)]
    made += [each.user for each in (owner, other)]
    left = """
        SELECT rolname FROM pg_roles WHERE rolname = ANY (%s)
        UNION ALL SELECT datname FROM pg_database WHERE datname = ANY (%s)
        """
    with closing(server.connect()) as conn:
        assert conn.execute(left, [made, made]).fetchall() == []


def test_an_absent_database_is_absent(databases: Databases) -> None:
    """A name without a database can be asked for."""
    absent = databases.name()
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        absent.connect()


def test_the_log_of_a_database_holds_its_own_errors(
    databases: Databases, server: SharedServer
) -> None:
    """What another database's session did is not in it."""
    database, other = databases.create(), databases.create()
    for each, column in ((database, "mine"), (other, "theirs")):
        with pytest.raises(psycopg.errors.UndefinedColumn):
            each.execute(f"SELECT\n{column}")
    assert re.findall("mine|theirs", database.log) == ["mine", "mine"]
    assert "theirs" in server.log


def test_an_embedded_server_can_be_configured_and_restarted(
    new_server: NewServer,
) -> None:
    """A server of a test's own keeps port and data over an immediate stop."""
    server = new_server(settings={"max_connections": "7"})
    database = database_of(server)
    database.execute("CREATE TABLE kept ()")
    server.restart("immediate")
    assert database.fetch("SHOW max_connections") == [("7",)]
    assert database.fetch(TABLES) == [("kept",)]
    server.stop()
    with pytest.raises(psycopg.OperationalError, match="refused"):
        database.connect()


def test_an_embedded_server_can_insist_on_tls(new_server: NewServer) -> None:
    """With hostssl lines alone, only TLS gets in, and its certificate verifies."""
    server = new_server(tls=True, hba=["hostssl all all 127.0.0.1/32 scram-sha-256"])
    database = database_of(server).changed(
        sslmode="verify-full", sslrootcert=str(server.ca)
    )
    ssl = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    assert database.fetch(ssl) == [(True,)]
    with pytest.raises(psycopg.OperationalError, match="no encryption"):
        database.connect(sslmode="disable")


def test_a_standby_follows_its_primary(new_server: NewServer) -> None:
    """A standby is read-only and has what its primary had."""
    primary = new_server()
    database_of(primary).execute("CREATE TABLE copied ()")
    standby = database_of(new_server(standby_of=primary))
    assert standby.fetch("SELECT pg_is_in_recovery()") == [(True,)]
    assert standby.fetch(TABLES) == [("copied",)]


@pytest.mark.server
def test_the_proxy_counts_messages_and_round_trips(
    database: Database, proxy: Proxy
) -> None:
    """Two queries are two Query messages, two round trips and a Terminate."""
    with closing(proxy.through(database).connect()) as conn:
        conn.execute("SELECT 1")
        conn.execute("SELECT 2; SELECT 3")
    (link,) = proxy.settled()
    assert link.asked == "QQX"
    assert link.round_trips == 2
    assert link.messages[0].type == "startup"


def test_the_proxy_passes_large_messages(database: Database, proxy: Proxy) -> None:
    """A message of many chunks arrives whole."""
    with closing(proxy.through(database).connect()) as conn:
        query = "SELECT length(%s), repeat('x', 3000000)"
        assert conn.execute(query, ["x" * 5_000_000]).fetchone() == (
            5_000_000,
            "x" * 3_000_000,
        )
    (link,) = proxy.settled()
    assert link.asked == "PBDESX"


def test_the_proxy_passes_tls_unread(new_server: NewServer) -> None:
    """An encrypted connection works, and only its beginning is recorded."""
    database = database_of(new_server(tls=True))
    with Proxy(database.conninfo["host"], int(database.conninfo["port"])) as proxy:
        encrypted = proxy.through(database).changed(sslmode="require")
        assert encrypted.fetch("SELECT 1") == [(1,)]
        (link,) = proxy.settled()
    assert [message.type for message in link.messages] == ["ssl", "S"]


def test_a_stopped_proxy_refuses_and_starts_again(
    database: Database, proxy: Proxy
) -> None:
    """stop() cuts and refuses, start() is the same port again."""
    through = proxy.through(database)
    with closing(through.connect()) as conn:
        proxy.stop()
        with pytest.raises(psycopg.OperationalError):
            conn.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError, match="refused"):
        through.connect()
    proxy.start()
    assert through.fetch("SELECT 1") == [(1,)]


def test_a_deaf_proxy_accepts_and_is_silent(database: Database, proxy: Proxy) -> None:
    """A new connection waits; an old one goes on when the proxy hears again."""
    with closing(proxy.through(database).connect()) as conn:
        proxy.deaf()
        with pytest.raises(psycopg.errors.ConnectionTimeout):
            proxy.through(database).connect(connect_timeout=2)
        threading.Timer(0.1, proxy.start).start()
        assert conn.execute("SELECT 1").fetchone() == (1,)


def test_an_answer_can_be_lost(database: Database, proxy: Proxy) -> None:
    """A trap at the server's word cuts the connection before the client hears it."""
    proxy.when(lambda m: m.payload == b"CREATE TABLE\0", proxy.cut)
    with (
        closing(proxy.through(database).connect()) as conn,
        pytest.raises(psycopg.OperationalError),
    ):
        conn.execute("CREATE TABLE committed ()")
    assert database.fetch(TABLES) == [("committed",)]


def test_a_connection_can_be_cut_inside_a_message(
    database: Database, proxy: Proxy
) -> None:
    """A query of which a part arrives is not run."""
    with closing(proxy.through(database).connect()) as conn:
        proxy.cut_after_bytes(10, "client")
        with pytest.raises(psycopg.OperationalError):
            conn.execute("CREATE TABLE never ()")
    proxy.settled()
    assert database.fetch(TABLES) == []


def test_every_locked_version_is_the_one_asked_for() -> None:
    """requirements/*.txt has the versions of pyproject.toml, with hashes, no URLs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    run = project["project"]["dependencies"]
    asked = {"run": run, "dev": run + project["dependency-groups"]["dev"]}
    for name, requirements in asked.items():
        text = (ROOT / "requirements" / f"{name}.txt").read_text("utf-8")
        pinned = {re.sub(r"\[.*\]", "", each) for each in requirements}
        assert pinned <= set(re.findall(r"^([\w.-]+==[\w.]+)", text, re.MULTILINE))
        assert "://" not in text
        assert len(re.findall("^[a-z]", text, re.MULTILINE)) == len(
            re.findall(r"^[a-z].*\\\n    --hash=sha256:", text, re.MULTILINE)
        )


def test_a_gate_runs_to_its_end_in_a_clean_environment(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable of the caller's does not reach it, so no database is named to it."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://localhost/")
    run = gate("migrate", migrations={"001_one.sql": "SELECT 1;"})
    assert (run.exit_code, run.verdict["event"], run.verdict["reason"]) == (
        1,
        "gate.closed",
        "settings",
    )
    assert run.verdict == parse_event(run.termination_log)
    assert run.stderr in run.output


def test_a_running_gate_is_watched_and_stopped(
    gate: Gate, database: Database, proxy: Proxy
) -> None:
    """Its events can be waited for, and a signal sent."""
    proxy.stop()
    process = gate.start(
        database=proxy.through(database), migrations={"001_one.sql": "SELECT 1;"}
    )
    event = process.wait_for("database.retry_scheduled")
    assert event["attempt"] == 1
    assert process.is_running
    process.signal(signal.SIGTERM)
    run = process.wait(timeout=5)
    assert (run.exit_code, run.verdict["reason"]) == (1, "interrupted")


def test_a_gate_that_a_test_forgets_is_killed(
    gate: Gate, database: Database, proxy: Proxy
) -> None:
    """A process left running does not outlive its test."""
    proxy.stop()
    process = gate.start(
        database=proxy.through(database), migrations={"001_one.sql": "SELECT 1;"}
    )
    process.wait_for("gate.started")
    gate.close()
    assert process.wait().exit_code == -signal.SIGKILL
