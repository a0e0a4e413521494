"""A session that the server ends, or that may not write any more, is a lost one."""

from __future__ import annotations

from contextlib import closing

import pytest

from migration_gate.connection.refusals import translated
from migration_gate.connection.simple_query import is_alive
from migration_gate.report.errors import ServerRefusedError
from migration_gate.report.outcomes import ConnectionLostError
from tests.ends import FILES
from tests.fix_gate import Gate
from tests.fix_postgres import Database, NewServer, database_of
from tests.fix_proxy import Message, Proxy
from tests.polling import until


CUT_IDLE = "SET idle_in_transaction_session_timeout = 1"
CUT_LONG = "SET transaction_timeout = 1"
# Servers of their own, and waiting: a loaded machine needs longer.
pytestmark = pytest.mark.timeout(60)
READ_ONLY = "SET default_transaction_read_only = on"


@pytest.mark.parametrize("limit", [CUT_IDLE, CUT_LONG])
def test_a_session_that_the_server_ended_is_lost(
    database: Database, limit: str
) -> None:
    """Both are internal errors by the driver's classes."""
    with closing(database.connect()) as conn:
        if limit == CUT_LONG and conn.info.server_version < 170000:
            pytest.skip("transaction_timeout came with 17")
        conn.execute(limit)
        conn.execute("BEGIN")
        until(lambda: not is_alive(conn))
        with pytest.raises(ConnectionLostError), translated("ask"):
            conn.execute("SELECT 1")


def test_a_server_that_was_demoted_is_lost(database: Database) -> None:
    """It lets nobody write any more."""
    with closing(database.connect()) as conn:
        conn.execute(READ_ONLY)
        with pytest.raises(ConnectionLostError), translated("ask"):
            conn.execute("CREATE TABLE t ()")


@pytest.mark.parametrize("query", ["SELECT 1/0", "SELEKT", "SELECT * FROM nowhere"])
def test_a_fault_of_the_query_is_no_loss(database: Database, query: str) -> None:
    """Waiting would not mend it."""
    with (
        closing(database.connect()) as conn,
        pytest.raises(ServerRefusedError) as caught,
        translated("ask"),
    ):
        conn.execute(query)
    assert caught.value.sqlstate in {"22012", "42601", "42P01"}


def test_a_server_that_turns_read_only_before_the_first_write_is_waited_for(
    gate: Gate, new_server: NewServer
) -> None:
    """The gate has looked and has the lock; then the server is no primary any more."""
    server = new_server()
    database = database_of(server)
    address = database.conninfo

    def makes_history(message: Message) -> bool:
        return message.type == "Q" and b"CREATE TABLE" in message.payload

    with Proxy(address["host"], int(address["port"])) as proxy:
        proxy.when(makes_history, lambda: set_read_only(database, "on"))
        process = gate.start(database=proxy.through(database), migrations=FILES)
        assert process.wait_for("database.retry_scheduled")["reason"] == "read_only"
        set_read_only(database, "off")
        run = process.wait()
    assert (run.exit_code, run.verdict["applied"]) == (0, list(FILES))


def test_a_server_that_turns_read_only_between_migrations_is_waited_for(
    gate: Gate, new_server: NewServer
) -> None:
    """What is committed stays, and the rest is applied when it can be."""
    database = database_of(new_server())
    files = {
        "1_a.sql": "CREATE TABLE a (n int); SELECT pg_sleep(1);",
        "2_b.sql": "COPY a FROM stdin;\n1\n\\.\n",  # in a message of its own
    }
    sleeps = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    process = gate.start(database=database, migrations=files)
    until(lambda: database.fetch(sleeps) == [(1,)])
    set_read_only(database, "on")
    assert process.wait_for("database.retry_scheduled")["reason"] == "read_only"
    set_read_only(database, "off")
    run = process.wait()
    assert (run.exit_code, run.verdict["applied"]) == (0, list(files))


def set_read_only(database: Database, wanted: str) -> None:
    """Change it for every session of the server, at once."""
    with closing(database.connect()) as conn:
        conn.execute(f"ALTER SYSTEM SET default_transaction_read_only = {wanted}")
        conn.execute("SELECT pg_reload_conf()")
        while conn.execute("SHOW default_transaction_read_only").fetchone() != (
            wanted,
        ):
            pass
