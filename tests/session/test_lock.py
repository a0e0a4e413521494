"""One gate at a time: whom a gate waits for, how long, and what it holds meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from psycopg.rows import TupleRow

from migration_gate.session.lock import lock_keys
from migration_gate.session.turn import pause_before_next_try
from tests.fix_gate import Gate
from tests.fix_postgres import Database
from tests.fix_proxy import Message, Proxy
from tests.history_tables import PLAIN, TWO, tables, versions, why
from tests.polling import until
from tests.sleepers import end_sleepers, is_sleeping


KEY = lock_keys("public", "schema_migrations").lock
HELD = """
SELECT count(*) FROM pg_locks
WHERE locktype = 'advisory' AND granted
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


TRY = b"pg_try_advisory_lock"
LOOK = b"WITH RECURSIVE login"
ROWS = "INSERT INTO schema_migrations (version) VALUES ('1_a'), ('2_b');"


def sent(proxy: Proxy, part: bytes) -> list[Message]:
    """Return the queries that have a text in them."""
    return [
        message
        for link in proxy.links
        for message in link.messages
        if message.sender == "client" and part in message.payload
    ]


@contextmanager
def held(database: Database, key: int = KEY) -> Iterator[psycopg.Connection[TupleRow]]:
    """Hold the gates' lock as a gate that has stopped working."""
    with database.connect(application_name="migration-gate/0.0.0") as holder:
        holder.execute("SELECT pg_advisory_lock(%s)", [key])
        yield holder


def test_a_key_is_the_tables_own() -> None:
    """A signed 64-bit number, the same on every machine."""
    assert lock_keys("public", "schema_migrations").lock == 4424280943578210311
    keys = {lock_keys(*names).lock for names in (("a", "b"), ("a", "c"), ("b", "b"))}
    assert len(keys) == 3
    assert all(-(2**63) <= key < 2**63 for key in keys)


@pytest.mark.server
def test_a_gate_waits_for_another_and_says_for_whom(
    gate: Gate, database: Database
) -> None:
    """It goes on when the lock is free."""
    with held(database) as holder:
        process = gate.start(
            database=database, migrations=TWO, env={"GATE_HEARTBEAT": "100ms"}
        )
        event = process.wait_for("lock.waiting")
        process.wait_for("lock.waiting", count=2)
        assert event["holder_pid"] == holder.info.backend_pid
        assert event["holder_application"] == "migration-gate/0.0.0"
        assert event["holder_since"].endswith("Z")
        assert event["holder_waits_for"] is None
        assert tables(database) == []
        holder.execute("SELECT pg_advisory_unlock_all()")
        run = process.wait()
    assert run.verdict["applied"] == ["1_a.sql", "2_b.sql"]
    assert run.verdict["lock_waited_s"] >= run.one("lock.acquired")["waited_s"] > 0


def test_a_holder_without_progress_is_given_up(gate: Gate, database: Database) -> None:
    """Other gates that wait are no progress."""
    env = {"GATE_LOCK_WAIT_TIMEOUT": "1s", "GATE_HEARTBEAT": "200ms"}
    with held(database) as holder:
        others = [gate.start(database=database, migrations=TWO) for _ in range(4)]
        for other in others:
            other.wait_for("lock.waiting")
        run = gate(database=database, migrations=TWO, env=env)
        (code, reason, message) = why(run)
        assert (code, reason) == (1, "lock_timeout")
        who = f"another gate (process {holder.info.backend_pid}, application "
        assert message.startswith(who)
        assert message.endswith(") kept the gates' lock without progress for 1 s")
        for other in others:
            other.kill()
    assert tables(database) == []


def test_a_history_that_grows_is_progress(gate: Gate, database: Database) -> None:
    """A gate that waits for a long one does not give up."""
    database.execute(PLAIN)
    with held(database) as holder:
        process = gate.start(
            database=database,
            migrations=TWO,
            env={"GATE_LOCK_WAIT_TIMEOUT": "1s", "GATE_HEARTBEAT": "100ms"},
        )
        waited_s = 0.0
        count = 0
        while waited_s < 2.0:
            count += 1
            waited_s = process.wait_for("lock.waiting", count=count)["waited_s"]
            database.execute(
                f"INSERT INTO schema_migrations (version) VALUES ('0_other_{count}')"
            )
        holder.execute("SELECT pg_advisory_unlock_all()")
        run = process.wait()
    assert run.verdict["applied"] == ["1_a.sql", "2_b.sql"]


def test_a_gate_opens_when_another_has_done_it_all(
    gate: Gate, database: Database
) -> None:
    """The lock is still held by then."""
    with held(database):
        process = gate.start(database=database, migrations=TWO)
        process.wait_for("lock.waiting")
        database.execute(
            f"{PLAIN} INSERT INTO schema_migrations (version) VALUES"
            " ('1_a.sql'), ('2_b.sql');"
        )
        run = process.wait()
    assert (run.exit_code, run.verdict["applied"]) == (0, [])
    assert "lock.acquired" not in run.names


def test_the_history_is_looked_at_when_the_holder_changes(
    gate: Gate, database: Database, proxy: Proxy
) -> None:
    """Not at each try, which costs the server a sixth of a look."""
    with held(database) as first, database.connect() as second:
        process = gate.start(database=proxy.through(database), migrations=TWO)
        until(lambda: len(sent(proxy, TRY)) > 5)
        assert len(sent(proxy, LOOK)) <= len(sent(proxy, TRY)) / 2
        database.execute(f"{PLAIN} {ROWS}")
        first.execute("SELECT pg_advisory_unlock(%s)", [KEY])
        second.execute("SELECT pg_advisory_lock(%s)", [KEY])
        tries = len(sent(proxy, TRY))
        run = process.wait()
    assert (run.exit_code, run.verdict["applied"]) == (0, [])
    # One may be on its way, and the next one sees that the lock is another's.
    assert len(sent(proxy, TRY)) - tries <= 2


def test_the_pause_grows_with_the_wait_and_with_what_a_try_takes() -> None:
    """Within bounds: a gate that is far away opens soon too."""
    pauses = [pause_before_next_try(waited_s, 0.0) for waited_s in (0, 1, 10, 1000)]
    assert pauses == [0.05, 0.1, 1.0, 5.0]
    pauses = [pause_before_next_try(0.0, tried_s) for tried_s in (0.001, 0.01, 1)]
    assert pauses == [0.05, 0.2, 0.25]
    assert pause_before_next_try(10, 1) == 1.0


def test_the_lock_is_free_after_an_error(gate: Gate, database: Database) -> None:
    """A migration that fails keeps no one waiting, nor does a gate that is killed."""
    run = gate(database=database, migrations={"1_a.sql": "SELECT 1/0;"})
    assert run.exit_code == 1
    assert database.fetch(HELD) == [(0,)]
    process = gate.start(
        database=database, migrations={"1_a.sql": "SELECT pg_sleep(60)"}
    )
    until(lambda: is_sleeping(database))
    process.kill()
    process.wait()
    end_sleepers(database)
    mended = gate(database=database, migrations=TWO)
    assert mended.verdict["applied"] == ["1_a.sql", "2_b.sql"]


@pytest.mark.server
def test_the_lock_is_on_a_connection_of_its_own(gate: Gate, database: Database) -> None:
    """While a file runs there are two; the one with the lock runs none of it."""
    process = gate.start(
        database=database, migrations={"1_a.sql": "SELECT pg_advisory_xact_lock(1, 2);"}
    )
    with database.connect() as other:
        other.execute("SELECT pg_advisory_lock(1, 2)")
        process.wait_for("migration.started")
        sessions = (
            "SELECT state, EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid AND"
            " l.locktype = 'advisory' AND l.mode = 'ExclusiveLock' AND l.granted)"
            " FROM pg_stat_activity a WHERE application_name LIKE 'migration-gate/%%'"
            " AND datname = current_database() ORDER BY 1, 2"
        )
        while database.fetch(sessions) != [("active", False), ("idle", True)]:
            assert process.is_running, process.wait().output
        other.execute("SELECT pg_advisory_unlock_all()")
    assert process.wait().exit_code == 0


@pytest.mark.server
def test_waiting_gates_stop_no_index_built_concurrently(
    gate: Gate, database: Database
) -> None:
    """They hold no transaction and no snapshot while they wait."""
    database.execute("CREATE TABLE t (id int)")
    with held(database), database.connect() as builder:
        processes = [gate.start(database=database, migrations=TWO) for _ in range(2)]
        for process in processes:
            process.wait_for("lock.waiting")
        builder.execute("SET statement_timeout = '10s'")
        builder.execute("CREATE INDEX CONCURRENTLY i ON t (id)")
        for process in processes:
            assert process.is_running
            process.kill()


@pytest.mark.server
def test_two_roles_of_one_table_take_turns(gate: Gate, database: Database) -> None:
    """The lock is that of the table, wherever either role would make one."""
    gate(database=database, migrations={"0_z.sql": "SELECT 1;"})
    role = database.role("own")
    database.execute(
        f"CREATE SCHEMA {role.user} AUTHORIZATION {role.user};"
        f"GRANT ALL ON schema_migrations, schema_migrations_id_seq TO {role.user};"
    )
    with held(database):
        process = gate.start(
            database=role, migrations={"0_z.sql": "SELECT 1;", "1_a.sql": "SELECT 1;"}
        )
        process.wait_for("lock.waiting")
        process.kill()


@pytest.mark.server
def test_a_history_that_appears_elsewhere_has_a_lock_of_its_own(
    gate: Gate, database: Database
) -> None:
    """A gate that has the lock of the place before takes the right one."""
    role = database.role("migrator")
    database.execute(
        f"CREATE SCHEMA {role.user} AUTHORIZATION {role.user};"
        f"GRANT CREATE ON SCHEMA public TO {role.user}"
    )
    env = {"GATE_HEARTBEAT": "2s"}
    key = lock_keys(role.user, "schema_migrations").lock
    with held(database) as other, held(database, key) as before:
        process = gate.start(database=role, migrations=TWO, env=env)
        process.wait_for("lock.waiting")
        before.execute(
            f"SET search_path = public; SET ROLE {role.user}; {PLAIN} RESET ROLE"
        )
        before.execute("SELECT pg_advisory_unlock_all()")
        waiting = process.wait_for("lock.waiting", count=2)
        assert waiting["holder_pid"] == other.info.backend_pid
        assert versions(database) == []
    assert process.wait().verdict["applied"] == ["1_a.sql", "2_b.sql"]
