"""A database that is not there yet is waited for, whatever the reason."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
import time

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import psycopg
import pytest

from dev.postgres import Server, ServerError, find_free_port, give
from migration_gate.connection.causes import TWO_NEEDED
from migration_gate.connection.dialing import DialError, dial
from tests.bare import Bare, end, needs_namespaces, read_until
from tests.ends import FILES, cause, close, require_no_secret
from tests.fix_gate import Gate, Process
from tests.fix_postgres import Database, Databases, NewServer, database_of
from tests.fix_proxy import Proxy
from tests.polling import until


# Servers of their own, and waiting: a loaded machine needs longer.
pytestmark = pytest.mark.timeout(60)
UNUSED = "postgresql://u:Xq7-Zv9.kR2@{place}/d"
SECRET = "Xq7-Zv9.kR2"


def test_a_port_that_nobody_listens_on_is_waited_for(gate: Gate) -> None:
    """The verdict says what was tried, how long, and the last reason."""
    place = f"127.0.0.1:{find_free_port()}"
    run = close(
        gate, "connection_refused", env={"DATABASE_URL": UNUSED.format(place=place)}
    )
    assert f'PostgreSQL at "{place}" (' in run.verdict["error_message"]
    assert re.search(r"\(\d+ attempts in \d s\): ", run.verdict["error_message"])
    assert "Connection refused" in run.verdict["error_message"]
    require_no_secret(run, SECRET)


def test_a_host_that_does_not_exist_is_waited_for(gate: Gate) -> None:
    """Most often a slip, but a Service may come later."""
    url = UNUSED.format(place="no-such-host.invalid:5432")
    run = close(gate, "host_unknown", env={"DATABASE_URL": url})
    assert '"no-such-host.invalid:5432"' in run.verdict["error_message"]
    require_no_secret(run, SECRET)


def test_a_socket_that_does_not_exist_is_waited_for(gate: Gate, tmp_path: Path) -> None:
    """A folder as host means a socket of the system."""
    env = {"PGHOST": str(tmp_path), "PGUSER": "u", "PGPASSWORD": SECRET}
    run = close(gate, "no_socket", env=env)
    require_no_secret(run, SECRET)


def test_a_port_that_says_nothing_is_waited_for(
    gate: Gate, database: Database, proxy: Proxy
) -> None:
    """The connect timeout ends the attempt."""
    proxy.deaf()
    env = {"PGCONNECT_TIMEOUT": "2", "GATE_WAIT_TIMEOUT": "3s"}
    run = close(gate, "timeout", database=proxy.through(database), env=env)
    assert 1.9 < run.verdict["waited_s"] < 5


def test_what_sends_without_end_is_not_read_without_end() -> None:
    """Something is there to be read at each look; the attempt has its time."""

    def pour(client: socket.socket) -> None:
        client.recv(1024)
        client.sendall(b"R\0\0\0\x08\0\0\0\0")  # logged in
        with suppress(OSError):
            while True:
                client.sendall(b"S\0\0\0\x08a\0b\0" * 1000)

    with door(pour) as place:
        _, _, port = place.partition(":")
        parameters = {"host": "127.0.0.1", "port": port, "user": "u"}
        plain = {"sslmode": "disable", "gssencmode": "disable"}
        with pytest.raises(DialError, match="timeout expired"):
            dial(parameters | plain, until_s=time.monotonic() + 0.2)


@contextmanager
def hole() -> Iterator[str]:
    """Drop packets, as a firewall does: here a queue that is full does."""
    with socket.socket() as listener, ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            client = stack.enter_context(socket.socket())
            client.settimeout(0)
            client.connect_ex(listener.getsockname())
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def test_packets_that_nobody_answers_are_waited_for(gate: Gate) -> None:
    """A firewall drops them."""
    with hole() as place:
        url = UNUSED.format(place=place)
        env = {"PGCONNECT_TIMEOUT": "2", "GATE_WAIT_TIMEOUT": "5s"}
        run = close(gate, "timeout", env={"DATABASE_URL": url, **env})
    assert "connection timeout expired" in run.verdict["error_message"]


def test_the_wait_is_kept_however_many_servers_say_nothing(gate: Gate) -> None:
    """Each of three would have five seconds."""
    with hole() as place:
        url = UNUSED.format(place=f"{place},{place},{place}")
        env = {"GATE_WAIT_TIMEOUT": "4s"}
        run = close(gate, "timeout", env={"DATABASE_URL": url, **env}, silent=True)
    assert 3.9 < run.verdict["waited_s"] < 4.5


@needs_namespaces
def test_a_network_without_a_route_is_waited_for(tmp_path: Path) -> None:
    """The pod's network is not there yet."""
    gate = Bare(tmp_path)
    environ = {
        "DATABASE_URL": UNUSED.format(place="192.0.2.1:5432"),
        "GATE_WAIT_TIMEOUT": "1500ms",
    }
    before = ("unshare", "--map-root-user", "--net")
    process = gate.start(environ, before=before)
    read_until(process, "database.retry_scheduled")
    assert end(process) == 1
    assert gate.verdict["reason"] == "unreachable"
    assert gate.verdict["hint"] == cause("no_route").remedy


@needs_namespaces
def test_an_address_of_ipv6_alone_is_told_where_there_is_no_ipv6(
    tmp_path: Path,
) -> None:
    """As a provider's direct address is, from a network that has IPv4 only."""
    gate = Bare(tmp_path)
    environ = {
        "DATABASE_URL": UNUSED.format(place="[2001:db8::1]:5432"),
        "GATE_WAIT_TIMEOUT": "1500ms",
    }
    before = ("unshare", "--map-root-user", "--net")
    process = gate.start(environ, before=before)
    read_until(process, "database.retry_scheduled")
    assert end(process) == 1
    assert gate.verdict["hint"] == cause("no_ipv6").remedy


@pytest.mark.parametrize("of", ["role", "database"])
def test_a_single_connection_is_one_too_few(
    gate: Gate, databases: Databases, of: str
) -> None:
    """The lock has it, and the files need another: the remedy says so."""
    database = databases.create()
    role = database.role()
    database.execute(f"ALTER DATABASE {database.name} OWNER TO {role.user}")
    name = role.user if of == "role" else database.name
    database.execute(f"ALTER {of} {name} CONNECTION LIMIT 1")
    env = {"GATE_WAIT_TIMEOUT": "1s"}
    run = gate(database=role, env=env, migrations=FILES)
    assert (run.exit_code, run.verdict["reason"]) == (1, "unreachable")
    assert f'too many connections for {of} "{name}"' in run.verdict["error_message"]
    assert run.verdict["hint"] == TWO_NEEDED.remedy


@contextmanager
def door(serve: Callable[[socket.socket], object]) -> Iterator[str]:
    """Listen on a port of one's own; `serve` gets each connection, then it ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                with client:
                    serve(client)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize("heard", [0, 1024], ids=["at once", "after the greeting"])
def test_a_connection_that_is_closed_early_is_waited_for(
    gate: Gate, heard: int
) -> None:
    """So do a mesh's sidecar or a load balancer without a server behind them."""
    with door(lambda client: client.recv(heard) if heard else None) as place:
        url = UNUSED.format(place=place)
        run = close(gate, "closed_early", env={"DATABASE_URL": url})
    require_no_secret(run, SECRET)


def test_a_server_that_starts_up_is_waited_for(
    gate: Gate, new_server: NewServer
) -> None:
    """It recovers from an archive that is slow; the gate opens when that is over."""
    server = new_server()
    database = database_of(server)
    server.stop("immediate")
    with slow_recovery(server) as finish:
        process = gate.start("migrate", database=database, migrations=FILES)
        until(lambda: "starting_up" in reasons(process))
        finish()
        assert process.wait().exit_code == 0


@contextmanager
def slow_recovery(server: Server) -> Iterator[Callable[[], None]]:
    """Start a server that recovers until the yielded function is called."""
    block = server.data / "block"
    server.settings["restore_command"] = (
        f"while test -e {block}; do sleep 0.02; done; false"
    )
    for path in (block, server.data / "recovery.signal"):
        path.touch()
    give(server.data)
    with ExitStack() as stack:
        stack.enter_context(starting(server))
        stack.callback(block.unlink, missing_ok=True)
        yield block.unlink


@contextmanager
def starting(server: Server) -> Iterator[None]:
    """Start a server in a thread, which lives on: the server ends with its thread."""
    is_over = threading.Event()

    def serve() -> None:
        with suppress(ServerError):  # stopped before it was ready
            server.start()
        is_over.wait()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join(timeout=5)


def test_a_server_that_recovers_from_a_crash_is_waited_for(
    gate: Gate, new_server: NewServer
) -> None:
    """A backend was killed, and the others are slow to end."""
    server = new_server()
    database = database_of(server)
    with closing(database.connect()) as killed, closing(database.connect()) as slow:
        os.kill(slow.info.backend_pid, signal.SIGSTOP)
        os.kill(killed.info.backend_pid, signal.SIGKILL)
        process = gate.start(database=database, migrations=FILES)
        retry = process.wait_for("database.retry_scheduled")
        assert retry["reason"] == "starting_up"
        assert "in recovery mode" in retry["error_message"]
        os.kill(slow.info.backend_pid, signal.SIGCONT)
        assert process.wait().exit_code == 0


def test_a_standby_that_is_not_consistent_yet_is_waited_for(
    gate: Gate, new_server: NewServer
) -> None:
    """It says that it is not yet accepting connections, and why."""
    primary = new_server()
    database = database_of(primary)
    standby = new_server(standby_of=primary)
    there = database.changed(port=str(standby.port))
    standby.stop("immediate")
    (standby.data / "standby.signal").unlink()
    with slow_recovery(standby) as finish:
        process = gate.start("check", database=there, migrations=FILES)
        until(lambda: "starting_up" in [e.get("reason") for e in process.events])
        finish()
        process.signal(signal.SIGTERM)
        process.wait()


def test_a_server_that_shuts_down_is_waited_for(
    gate: Gate, new_server: NewServer
) -> None:
    """A smart shutdown waits for its sessions and lets no other in."""
    server = new_server()
    database = database_of(server)
    with ExitStack() as stack:
        session = stack.enter_context(closing(database.connect()))
        thread = threading.Thread(target=server.stop, args=["smart"])
        thread.start()
        stack.callback(thread.join)
        stack.callback(session.close)
        until(lambda: "received smart shutdown request" in server.log)
        close(gate, "shutting_down", database=database)


def test_a_standby_that_takes_no_connections_is_waited_for(
    gate: Gate, new_server: NewServer
) -> None:
    """hot_standby is off; the server follows its primary, and lets nobody in."""
    primary = new_server()
    database = database_of(primary)
    standby = Server(
        "closed-standby", settings={"hot_standby": "off"}, standby_of=primary
    )
    with closing(standby), starting(standby):
        until(lambda: standby.port)
        there = database.changed(port=str(standby.port))
        process = gate.start(database=there, migrations=FILES)
        until(lambda: "standby_closed" in reasons(process))
        process.signal(signal.SIGTERM)
        assert process.wait().verdict["reason"] == "interrupted"
        standby.stop("immediate")


def reasons(process: Process) -> list[str]:
    """Return why a running gate has waited, each change of it."""
    return [
        event["reason"]
        for event in process.events
        if event["event"] == "database.retry_scheduled"
    ]


def test_a_server_without_free_connections_is_waited_for(
    gate: Gate, new_server: NewServer
) -> None:
    """max_connections is reached; the reserved ones are for superusers."""
    server = new_server(settings={"max_connections": "5"})
    database = database_of(server)
    role = database.role()
    with ExitStack() as stack:
        fill(stack, role)
        run = close(gate, "too_many_connections", database=role)
        assert "remaining connection slots" in run.verdict["error_message"]
        fill(stack, database)
        run = close(gate, "too_many_connections", database=database)
        assert "too many clients" in run.verdict["error_message"]


def test_a_server_without_room_is_not_asked_often(
    gate: Gate, new_server: NewServer
) -> None:
    """Each refusal costs it a process; fifty gates may wait there."""
    server = new_server(settings={"max_connections": "5"})
    role = database_of(server).role()
    with ExitStack() as stack:
        fill(stack, role)
        before = server.log.count("FATAL")
        env = {"GATE_WAIT_TIMEOUT": "6s"}
        close(gate, "too_many_connections", database=role, env=env)
        assert 5 < server.log.count("FATAL") - before < 15


def fill(stack: ExitStack, database: Database) -> None:
    """Connect until the server lets nobody in."""
    with suppress(psycopg.OperationalError):
        while True:
            stack.enter_context(closing(database.connect()))


@pytest.mark.parametrize("of", ["role", "database"])
def test_a_connection_limit_is_waited_for(
    gate: Gate, database: Database, of: str
) -> None:
    """A limit of the role's or the database's is reached."""
    role = database.role()
    name = role.user if of == "role" else database.name
    database.execute(f"ALTER {of} {name} CONNECTION LIMIT 1")
    with closing(database.server.connect()) as other:
        sessions = "SELECT FROM pg_stat_activity WHERE datname = %s"
        until(lambda: not other.execute(sessions, [database.name]).fetchall())
    with closing(role.connect()):
        run = close(gate, f"limit_of_{of}", database=role)
    assert f'too many connections for {of} "{name}"' in run.verdict["error_message"]


@pytest.fixture
def standby(new_server: NewServer) -> Database:
    """Return a database as its hot standby shows it."""
    return database_of(new_server(standby_of=new_server()))


@pytest.mark.parametrize("command", ["migrate", "wait"])
def test_a_hot_standby_is_waited_for(
    gate: Gate, standby: Database, command: str
) -> None:
    """It may be promoted: then the gate opens."""
    close(gate, "hot_standby", database=standby, command=command)
    process = gate.start(command, database=standby, migrations=FILES)
    process.wait_for("database.retry_scheduled")
    standby.execute("SELECT pg_promote()")
    assert process.wait().exit_code == 0


@pytest.mark.parametrize("command", ["migrate", "wait"])
def test_a_read_only_database_is_waited_for(
    gate: Gate, database: Database, command: str
) -> None:
    """A failover or a full disk makes it so for a while."""
    setting = f"ALTER DATABASE {database.name} SET default_transaction_read_only ="
    database.execute(f"{setting} on")
    close(gate, "read_only", database=database, command=command)
    process = gate.start(command, database=database, migrations=FILES)
    process.wait_for("database.retry_scheduled")
    with closing(database.server.connect()) as conn:
        conn.execute(f"{setting} off")
    assert process.wait().exit_code == 0


@pytest.mark.parametrize("wanted", ["read-write", "primary"])
def test_another_kind_of_server_than_asked_for_is_waited_for(
    gate: Gate, standby: Database, wanted: str
) -> None:
    """target_session_attrs does not take a standby."""
    env = {"PGTARGETSESSIONATTRS": wanted}
    close(gate, "wrong_kind_of_server", database=standby, env=env)


@pytest.mark.parametrize("wanted", ["read-only", "standby"])
def test_a_primary_where_a_standby_is_asked_for_is_waited_for(
    gate: Gate, database: Database, wanted: str
) -> None:
    """The other way round; for check that makes sense."""
    env = {"PGTARGETSESSIONATTRS": wanted}
    close(gate, "wrong_kind_of_server", database=database, env=env, command="check")


def test_of_several_hosts_the_one_that_writes_is_used(
    gate: Gate, standby: Database, new_server: NewServer
) -> None:
    """Dead, standby and primary in one URL: the gate finds the primary."""
    primary = database_of(new_server())
    hosts = ",".join(
        f"127.0.0.1:{port}"
        for port in (
            find_free_port(),
            standby.conninfo["port"],
            primary.conninfo["port"],
        )
    )
    password = primary.url.split("@")[0]
    url = f"{password}@{hosts}/postgres?target_session_attrs=read-write"
    assert gate(env={"DATABASE_URL": url}, migrations=FILES).exit_code == 0
    assert primary.fetch("SELECT version FROM schema_migrations") == [
        ("001_create.sql",)
    ]


def test_several_hosts_are_all_named_in_the_verdict(
    gate: Gate, database: Database
) -> None:
    """One refuses the password, one is away: it may come, so the gate waits."""
    wrong = database.changed(password=SECRET)
    port, dead = wrong.conninfo["port"], find_free_port()
    url = f"postgresql://postgres:{SECRET}@127.0.0.1:{dead},127.0.0.1:{port}/d"
    env = {"DATABASE_URL": url, "GATE_WAIT_TIMEOUT": "3s"}
    run = close(gate, "connection_refused", env=env)
    message = run.verdict["error_message"]
    assert f'"127.0.0.1:{dead}", "127.0.0.1:{port}"' in message
    assert "Connection refused" in message
    assert "password authentication failed" in message
    require_no_secret(run, SECRET)


def test_a_login_refused_at_one_of_a_hosts_addresses_is_refused(
    gate: Gate, database: Database
) -> None:
    """Nobody listens at ::1, as behind a published port: what answered decides."""
    wrong = database.changed(host="localhost", password=SECRET)
    run = close(gate, "login_refused", database=wrong)
    assert '"localhost:' in run.verdict["error_message"]


def test_a_database_that_goes_away_again_is_waited_for(
    gate: Gate, new_server: NewServer
) -> None:
    """It answers, is restarted, and stays away for a while: each change is told."""
    server = new_server()
    database = database_of(server)
    database.execute("ALTER DATABASE postgres SET default_transaction_read_only = on")
    process = gate.start(database=database, migrations=FILES)
    assert process.wait_for("database.retry_scheduled")["reason"] == "read_only"
    server.stop()
    process.wait_for("database.retry_scheduled", count=2)
    server.settings["default_transaction_read_only"] = "off"
    server.start()
    with closing(psycopg.connect(database.url, autocommit=True)) as conn:
        conn.execute("SET default_transaction_read_only = off")
        conn.execute("ALTER DATABASE postgres RESET default_transaction_read_only")
    run = process.wait()
    assert run.exit_code == 0
    assert "connection_refused" in {
        event["reason"] for event in run.all("database.retry_scheduled")
    }


def test_a_database_that_takes_the_login_and_says_no_more_is_waited_for(
    gate: Gate, database: Database
) -> None:
    """A session locks the history; the look is given up, on the server too."""
    assert gate(database=database, migrations=FILES).exit_code == 0
    with closing(database.connect()) as other, other.transaction():
        other.execute("LOCK TABLE schema_migrations")
        env = {"GATE_WAIT_TIMEOUT": "5s"}
        run = gate(database=database, env=env, migrations=FILES)
        sessions = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        until(lambda: database.fetch(sessions) == [])
    assert (run.exit_code, run.verdict["reason"]) == (1, "unreachable")
    message = run.verdict["error_message"]
    assert "logged in, but no answer within 5 s" in message
    assert run.verdict["hint"] == cause("no_answer").remedy
