"""A gate that is told to stop, or whose time is over, leaves cleanly and says so."""

from __future__ import annotations

import signal
import time

from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from dev.postgres import find_free_port
from migration_gate.session.lock import lock_keys
from tests.ends import require_no_secret
from tests.fix_gate import Gate, Process, Run
from tests.fix_postgres import Database
from tests.fix_proxy import Message, Proxy
from tests.polling import until


# A loaded machine needs longer to come where a stop finds it.
pytestmark = pytest.mark.timeout(60)
STOP_LIMIT_S = 5.0
FILES = {"001_create.sql": "CREATE TABLE made (id int);"}
SLOW = {"001_slow.sql": "CREATE TABLE made (id int); SELECT pg_sleep(60);"}
SLOW_COMMIT = {
    "001_slow.sql": """
    CREATE TABLE made (id int);
    CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
      'BEGIN PERFORM pg_sleep(60); RETURN NULL; END';
    CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON made
      DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow();
    INSERT INTO made VALUES (1);
    """
}
SESSIONS = """
SELECT pid, state, wait_event FROM pg_stat_activity
WHERE application_name LIKE 'migration-gate/%' AND datname = current_database()
"""
LOCKS = """
SELECT pid FROM pg_locks JOIN pg_database d ON d.oid = database
WHERE locktype = 'advisory' AND datname = current_database()
"""
SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]


def stop(process: Process, *numbers: signal.Signals) -> Run:
    """Send signals and return how it ended, within the limit and with a verdict."""
    sent_at = time.monotonic()
    for number in numbers:
        process.signal(number)
    run = process.wait(STOP_LIMIT_S + 5)
    assert time.monotonic() - sent_at < STOP_LIMIT_S
    require_verdict(run, "interrupted", f"stopped by {numbers[0].name}")
    return run


def require_verdict(run: Run, reason: str, message: str) -> None:
    """Find the same verdict in log and termination log, and its line on stderr."""
    assert run.exit_code == 1
    assert run.names.count("gate.closed") == 1
    assert run.verdict["reason"] == reason
    said = run.verdict["error_message"]
    assert said.partition(":")[0] == message
    assert run.stdout.splitlines()[-1] == run.termination_log.strip()
    assert run.stderr.startswith(f"migration-gate: closed: {said}. ")
    assert run.stderr.count("\n") == 1


def require_nothing_left(database: Database) -> None:
    """Find no session, no lock, no table and no history of a gate that was stopped."""
    until(lambda: not database.fetch(SESSIONS), timeout_s=2)
    assert database.fetch(LOCKS) == []
    tables = "SELECT relname FROM pg_class WHERE relname = 'made'"
    assert database.fetch(tables) == []
    (has_history,) = database.fetch("SELECT to_regclass('schema_migrations')")[0]
    if has_history:
        assert database.fetch("SELECT version FROM schema_migrations") == []


def is_sleeping(database: Database) -> bool:
    """Whether a gate's statement is in pg_sleep()."""
    return any(row[2] == "PgSleep" for row in database.fetch(SESSIONS))


@contextmanager
def lock_taken(database: Database) -> Iterator[None]:
    """Hold the gates' lock, as another gate does."""
    with closing(database.connect()) as conn:
        key = lock_keys("public", "schema_migrations").lock
        conn.execute("SELECT pg_advisory_lock(%s)", [key])
        yield


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("command", ["migrate", "check", "wait"])
def test_a_signal_ends_the_wait_for_a_database(
    gate: Gate, command: str, number: signal.Signals
) -> None:
    """Nobody listens there."""
    url = f"postgresql://u:Xq7-Zv9.kR2@127.0.0.1:{find_free_port()}/d"
    process = gate.start(command, env={"DATABASE_URL": url}, migrations=FILES)
    process.wait_for("database.retry_scheduled")
    run = stop(process, number)
    require_no_secret(run, "Xq7-Zv9.kR2")


def test_a_signal_ends_an_attempt_to_connect(
    gate: Gate, database: Database, proxy: Proxy
) -> None:
    """The port accepts and says nothing."""
    proxy.deaf()
    process = gate.start(database=proxy.through(database), migrations=FILES)
    until(lambda: proxy.links)
    stop(process, signal.SIGTERM)


def test_a_signal_ends_the_wait_for_a_login(gate: Gate, database: Database) -> None:
    """The pause after a refusal is the longest."""
    wrong = database.changed(password="wr0ng-Pa55phrase")
    process = gate.start(database=wrong, migrations=FILES)
    process.wait_for("database.retry_scheduled")
    stop(process, signal.SIGTERM)


def test_a_signal_ends_the_wait_for_another_gate(
    gate: Gate, database: Database
) -> None:
    """The lock is another's; nothing is left of the one that waited."""
    with lock_taken(database):
        process = gate.start(database=database, migrations=FILES)
        process.wait_for("lock.waiting")
        stop(process, signal.SIGTERM)
    require_nothing_left(database)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_cancels_the_statement(
    gate: Gate, database: Database, number: signal.Signals
) -> None:
    """PostgreSQL stops working on it, and rolls back."""
    process = gate.start(database=database, migrations=SLOW)
    until(lambda: is_sleeping(database))
    stop(process, number)
    require_nothing_left(database)
    assert "canceling statement due to user request" in database.log


def test_a_second_signal_changes_nothing(gate: Gate, database: Database) -> None:
    """A person presses Ctrl-C twice, and the pod is deleted."""
    process = gate.start(database=database, migrations=SLOW)
    until(lambda: is_sleeping(database))
    stop(process, signal.SIGINT, signal.SIGINT, signal.SIGTERM)
    require_nothing_left(database)


def test_a_signal_at_commit_rolls_back(gate: Gate, database: Database) -> None:
    """A deferred trigger works while COMMIT is on its way."""
    process = gate.start(database=database, migrations=SLOW_COMMIT)
    until(lambda: is_sleeping(database))
    stop(process, signal.SIGTERM)
    require_nothing_left(database)


def test_a_signal_outside_a_transaction_keeps_what_was_done(
    gate: Gate, database: Database
) -> None:
    """The statement that ran is cancelled; the next start goes on with it."""
    file = "-- gate: no-transaction\nCREATE TABLE made (id int);\nSELECT pg_sleep(60);"
    process = gate.start(database=database, migrations={"001_slow.sql": file})
    until(lambda: is_sleeping(database))
    stop(process, signal.SIGTERM)
    until(lambda: not database.fetch(SESSIONS), timeout_s=2)
    assert database.fetch("SELECT version FROM schema_migrations") == []


def test_a_signal_with_the_server_out_of_reach_ends_in_time(
    gate: Gate, database: Database, proxy: Proxy
) -> None:
    """The statement cannot be cancelled: the server ends it when it finds us gone."""
    process = gate.start(database=proxy.through(database), migrations=SLOW)
    until(lambda: is_sleeping(database))
    proxy.deaf()
    stop(process, signal.SIGTERM)
    proxy.cut()
    require_nothing_left(database)


def is_commit(message: Message) -> bool:
    """Whether the client sends a message that ends a transaction."""
    return message.type == "Q" and b"COMMIT" in message.payload


def test_a_signal_while_the_answer_to_commit_is_lost_ends_in_time(
    gate: Gate, database: Database, proxy: Proxy
) -> None:
    """Whether it is applied is for the next start to find out."""
    proxy.when(
        lambda message: is_commit(message) and b"CREATE TABLE a" in message.payload,
        proxy.deaf,
        forward=True,
    )
    # It takes a moment, so that nothing is answered before the proxy is deaf.
    files = {"001_a.sql": "CREATE TABLE a (); SELECT pg_sleep(0.3);"}
    before_commit = gate.start(database=proxy.through(database), migrations=files)
    applied = "SELECT to_regclass('a')"
    until(lambda: database.fetch(applied) != [(None,)])
    run = stop(before_commit, signal.SIGTERM)
    assert run.all("migration.applied") == []
    proxy.cut()
    files["002_b.sql"] = "CREATE TABLE b ();"
    again = gate(database=database, migrations=files)
    assert again.verdict["applied"] == ["002_b.sql"]


@pytest.mark.parametrize("delay_s", [0.0, 0.02, 0.05, 0.1, 0.15])
def test_a_signal_at_any_moment_of_the_start_is_not_lost(
    gate: Gate, delay_s: float
) -> None:
    """Before Python runs, the system ends the process; after that, the gate."""
    url = f"postgresql://u:p@127.0.0.1:{find_free_port()}/d"
    process = gate.start(env={"DATABASE_URL": url}, migrations=FILES)
    time.sleep(delay_s)
    process.signal(signal.SIGTERM)
    run = process.wait(STOP_LIMIT_S)
    assert run.exit_code in {1, -signal.SIGTERM}
    if run.exit_code == 1:
        assert run.verdict["reason"] == "interrupted"


def test_the_deadline_ends_the_wait_for_a_database(gate: Gate) -> None:
    """The verdict is written before GATE_TIMEOUT is over."""
    url = f"postgresql://u:p@127.0.0.1:{find_free_port()}/d"
    env = {"DATABASE_URL": url, "GATE_TIMEOUT": "2s"}
    require_deadline(gate(env=env, migrations=FILES))


def test_the_deadline_ends_an_attempt_to_connect(
    gate: Gate, database: Database, proxy: Proxy
) -> None:
    """It does not wait for the connect timeout."""
    proxy.deaf()
    through = proxy.through(database)
    require_deadline(
        gate(database=through, env={"GATE_TIMEOUT": "2s"}, migrations=FILES)
    )


def test_the_deadline_ends_the_wait_for_another_gate(
    gate: Gate, database: Database
) -> None:
    """GATE_LOCK_WAIT_TIMEOUT is longer."""
    with lock_taken(database):
        env = {"GATE_TIMEOUT": "2s"}
        require_deadline(gate(database=database, env=env, migrations=FILES))
    require_nothing_left(database)


@pytest.mark.parametrize("files", [SLOW, SLOW_COMMIT], ids=["statement", "COMMIT"])
def test_the_deadline_cancels_the_statement(
    gate: Gate, database: Database, files: dict[str, str]
) -> None:
    """PostgreSQL rolls back."""
    env = {"GATE_TIMEOUT": "2s"}
    require_deadline(gate(database=database, env=env, migrations=files))
    require_nothing_left(database)


@pytest.mark.parametrize("command", ["check", "wait"])
def test_the_deadline_ends_the_other_commands(gate: Gate, command: str) -> None:
    """All that wait know GATE_TIMEOUT."""
    url = f"postgresql://u:p@127.0.0.1:{find_free_port()}/d"
    env = {"DATABASE_URL": url, "GATE_TIMEOUT": "2s"}
    require_deadline(gate(command, env=env, migrations=FILES))


def require_deadline(run: Run) -> None:
    """Find the verdict of a run whose two seconds are over, and written before."""
    require_verdict(run, "deadline", "GATE_TIMEOUT is over")
    assert 500 < run.verdict["duration_ms"] < 2000
