"""While an application works, no migration keeps it waiting for long: promise 6."""

from __future__ import annotations

import re
import threading
import time

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager

import psycopg
import pytest

from psycopg.rows import TupleRow

from tests.fix_gate import Event, Gate, Process
from tests.fix_postgres import Database
from tests.load import Load, make_tables


pytestmark = pytest.mark.timeout(60)

# How much longer than its limit a stall may be seen here: the gate looks now and then,
# and a loaded machine is slow.
SLACK_S = 1.0
FOUR = ("t1", "t2", "t3", "t4")
# A secret that must not be seen in a log, in a blocker's query.
SECRET = "5ecret-l1teral"


@contextmanager
def reader(database: Database, table: str) -> Iterator[psycopg.Connection[TupleRow]]:
    """Hold a long transaction that has read a table, and stays open."""
    with closing(database.connect(application_name="report")) as conn:
        conn.execute("BEGIN")
        conn.execute(f"SELECT count(*), '{SECRET}' FROM {table}")
        yield conn


def wait_for_lock_wait(database: Database, process: Process) -> None:
    """Wait until the gate's worker waits for a lock."""
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        " AND datname = current_database() AND application_name LIKE 'migration-gate/%'"
    )
    while database.fetch(query) == [(0,)]:
        assert process.is_running, process.wait().output
        time.sleep(0.01)


IN_THE_WAY = {
    "plain": "ALTER TABLE t1 ADD COLUMN c int;",
    "set": "SET lock_timeout = 0; ALTER TABLE t1 ADD COLUMN c int;",
    "set local": "SET LOCAL lock_timeout = '1h'; ALTER TABLE t1 ADD COLUMN c int;",
    "in a block": (
        "DO $$ BEGIN SET lock_timeout = 0; ALTER TABLE t1 ADD COLUMN c int; END $$;"
    ),
    "no-transaction": (
        "-- gate: no-transaction\nSET lock_timeout = 0; ALTER TABLE t1 ADD c int"
    ),
}
# By the server's own limit, and by the gate's, in a transaction and outside one.
EACH_WAY = ("plain", "set", "no-transaction")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            text, id=name, marks=pytest.mark.server if name in EACH_WAY else []
        )
        for name, text in IN_THE_WAY.items()
    ],
)
def test_a_long_transaction_delays_the_migration_and_not_the_application(
    gate: Gate, database: Database, text: str
) -> None:
    """It is tried until the transaction ends, and names who is in the way."""
    make_tables(database, ["t1"])
    env = {"GATE_DDL_LOCK_TIMEOUT": "400ms", "GATE_LOG_DETAIL": "full"}
    with Load(database, ["t1"]) as load, reader(database, "t1") as blocker:
        process = gate.start(database=database, migrations={"1_a.sql": text}, env=env)
        process.wait_for("migration.retry_scheduled", count=2)
        pid = blocker.info.backend_pid
        assert database.fetch("SELECT count(*) FROM schema_migrations") == [(0,)]
        blocker.execute("COMMIT")
        run = process.wait()
    assert run.verdict["applied"] == ["1_a.sql"], run.output
    assert load.longest_s < 0.4 + SLACK_S
    retries = run.all("migration.retry_scheduled")
    for retry in retries:
        assert_blocker(retry, pid, database.user)
    assert [retry["attempt"] for retry in retries] == list(range(1, len(retries) + 1))
    assert SECRET not in run.output


def assert_blocker(retry: Event, pid: int, user: str) -> None:
    """Find the blocker named, with what a superuser may see of it."""
    (blocker,) = retry["blockers"]
    who = f"process {pid}, user {user}, application report"
    state = r"idle in transaction for \d+ s"
    assert re.fullmatch(rf'{who}, {state}, at table "public\.\w+"', blocker), retry


def test_pauses_grow_and_are_jittered(gate: Gate, database: Database) -> None:
    """The longest possible doubles each time; none is exactly that long."""
    make_tables(database, ["t1"])
    with reader(database, "t1"):
        run = gate(
            database=database,
            migrations={"1_a.sql": "ALTER TABLE t1 ADD COLUMN c int;"},
            env={"GATE_DDL_LOCK_TIMEOUT": "200ms", "GATE_DDL_RETRY_TIMEOUT": "6s"},
        )
    assert (run.exit_code, run.verdict["reason"]) == (1, "blocked"), run.output
    assert "application report" in run.verdict["hint"]
    pauses = [retry["wait_s"] for retry in run.all("migration.retry_scheduled")]
    assert 3 <= len(pauses) <= 5
    for number, pause_s in enumerate(pauses):
        assert 0.25 * 2**number <= pause_s < 0.5 * 2**number
    assert database.fetch("SELECT count(*) FROM schema_migrations") == [(0,)]


@contextmanager
def readers_one_after_the_other(
    database: Database, tables: Sequence[str], each_s: float, start: threading.Event
) -> Iterator[None]:
    """Hold a reader of each table; they end one by one from the start on."""
    with ExitStack() as stack:
        conns = [stack.enter_context(reader(database, table)) for table in tables]

        def end_in_turn() -> None:
            start.wait()
            for conn in conns:
                time.sleep(each_s)
                conn.execute("COMMIT")

        thread = threading.Thread(target=end_in_turn)
        thread.start()
        try:
            yield
        finally:
            start.set()
            thread.join()


@pytest.mark.server
def test_waits_for_several_tables_are_counted_together(
    gate: Gate, database: Database
) -> None:
    """Each is shorter than lock_timeout; the first table is held all the while."""
    make_tables(database, FOUR)
    files = {"1_a.sql": "".join(f"ALTER TABLE {t} ADD COLUMN c int;" for t in FOUR)}
    start = threading.Event()
    with (
        Load(database, FOUR) as load,
        readers_one_after_the_other(database, FOUR, 0.8, start),
    ):
        process = gate.start(
            database=database, migrations=files, env={"GATE_DDL_LOCK_TIMEOUT": "1s"}
        )
        wait_for_lock_wait(database, process)
        start.set()
        run = process.wait()
    assert run.verdict["applied"] == ["1_a.sql"], run.output
    assert run.all("migration.retry_scheduled")
    assert load.longest_s < 1.0 + SLACK_S


@pytest.mark.server
def test_each_migration_has_the_whole_limit(gate: Gate, database: Database) -> None:
    """Locks are given back between two, so their waits are not added up."""
    tables = FOUR[:3]
    make_tables(database, tables)
    files = {f"{t[1]}_a.sql": f"ALTER TABLE {t} ADD COLUMN c int;" for t in tables}
    start = threading.Event()
    with (
        Load(database, tables) as load,
        readers_one_after_the_other(database, tables, 0.7, start),
    ):
        process = gate.start(
            database=database, migrations=files, env={"GATE_DDL_LOCK_TIMEOUT": "1400ms"}
        )
        wait_for_lock_wait(database, process)
        start.set()
        run = process.wait()
    assert run.verdict["applied"] == list(files), run.output
    assert run.all("migration.retry_scheduled") == []
    assert load.longest_s < 0.7 + SLACK_S


def test_what_was_committed_before_a_blocked_one_stays(
    gate: Gate, database: Database
) -> None:
    """The retry repeats the blocked migration alone; the log says what was applied."""
    make_tables(database, ["t1"])
    database.execute("CREATE TABLE calls (what text)")
    files = {
        "1_a.sql": "INSERT INTO calls VALUES ('1');",
        "2_b.sql": "INSERT INTO calls VALUES ('2'); ALTER TABLE t1 ADD COLUMN c int;",
        "3_c.sql": "INSERT INTO calls VALUES ('3');",
    }
    with reader(database, "t1") as blocker:
        process = gate.start(
            database=database, migrations=files, env={"GATE_DDL_LOCK_TIMEOUT": "300ms"}
        )
        retry = process.wait_for("migration.retry_scheduled")
        assert retry["version"] == "2_b.sql"
        assert process.wait_for("migration.applied")["version"] == "1_a.sql"
        assert database.fetch("SELECT version FROM schema_migrations") == [("1_a.sql",)]
        blocker.execute("COMMIT")
        run = process.wait()
    assert run.verdict["applied"] == list(files), run.output
    assert database.fetch("SELECT what FROM calls") == [("1",), ("2",), ("3",)]


@pytest.mark.server
def test_a_role_that_sees_little_names_what_it_sees(
    gate: Gate, database: Database
) -> None:
    """Process, user and application are for all to see, and the state is not."""
    role = database.role("app")
    make_tables(database, ["t1"])
    database.execute(
        f"ALTER TABLE t1 OWNER TO {role.user};"
        f"GRANT CREATE ON SCHEMA public TO {role.user}"
    )
    with reader(database, "t1") as blocker:
        process = gate.start(
            database=role,
            migrations={"1_a.sql": "ALTER TABLE t1 ADD COLUMN c int;"},
            env={"GATE_DDL_LOCK_TIMEOUT": "800ms"},
        )
        retry = process.wait_for("migration.retry_scheduled")
        pid = blocker.info.backend_pid
        blocker.execute("COMMIT")
        assert process.wait().exit_code == 0
    (named,) = retry["blockers"]
    words = [f"process {pid}", f"user {database.user}", "application report"]
    who, _, table = named.partition(", at table ")
    assert who in {", ".join(words[:2]), ", ".join(words)}
    assert table.startswith('"public.')
