"""What is tried again: locks that are not free, deadlocks, serialization failures."""

from __future__ import annotations

import threading
import time

from contextlib import closing
from typing import Any

import psycopg
import pytest

from tests.fix_gate import Gate
from tests.fix_postgres import Database
from tests.history_tables import versions


pytestmark = pytest.mark.timeout(60)

RETRIED = ("55P03", "40P01", "40001")
OTHERS = ("57014", "40003", "22012", "P0001", "53100", "55006")
# A sequence counts attempts, also those that are rolled back.
FAIL_TWICE = """
INSERT INTO calls VALUES ('{what}');
DO $$ BEGIN
    IF nextval('attempts') < 3 THEN
        RAISE EXCEPTION 'not this time' USING ERRCODE = '{sqlstate}';
    END IF;
END $$;
"""


@pytest.fixture
def calls(database: Database) -> Database:
    """Return a database that counts attempts and keeps what was done."""
    database.execute("CREATE SEQUENCE attempts; CREATE TABLE calls (what text)")
    return database


def attempts(database: Database) -> int:
    """Return how often a file that fails twice was tried."""
    ((count,),) = database.fetch("SELECT last_value FROM attempts")
    return int(count)


@pytest.mark.parametrize("sqlstate", RETRIED)
def test_a_transactional_file_is_tried_again_as_a_whole(
    gate: Gate, calls: Database, sqlstate: str
) -> None:
    """Nothing of the earlier attempts is left; its neighbours are applied once."""
    files = {
        "1_a.sql": "INSERT INTO calls VALUES ('1');",
        "2_b.sql": FAIL_TWICE.format(what="2", sqlstate=sqlstate),
        "3_c.sql": "INSERT INTO calls VALUES ('3');",
    }
    run = gate(database=calls, migrations=files)
    assert run.verdict["applied"] == list(files), run.output
    assert attempts(calls) == 3
    assert calls.fetch("TABLE calls") == [("1",), ("2",), ("3",)]
    assert versions(calls) == list(files)
    retries = run.all("migration.retry_scheduled")
    assert [(r["version"], r["attempt"], r["sqlstate"]) for r in retries] == [
        ("2_b.sql", 1, sqlstate),
        ("2_b.sql", 2, sqlstate),
    ]
    starts = run.all("migration.started")
    assert [(s["version"], s["attempt"]) for s in starts] == [
        ("1_a.sql", 1),
        ("2_b.sql", 1),
        ("2_b.sql", 2),
        ("2_b.sql", 3),
        ("3_c.sql", 1),
    ]


@pytest.mark.parametrize("sqlstate", RETRIED)
def test_outside_a_transaction_the_failing_statement_alone_is_tried_again(
    gate: Gate, calls: Database, sqlstate: str
) -> None:
    """What came before it in the file is done, and stays."""
    files = {
        "1_a.sql": "-- gate: no-transaction\nINSERT INTO calls VALUES ('before');\n"
        "BEGIN;\n" + FAIL_TWICE.format(what="block", sqlstate=sqlstate) + "COMMIT;\n"
        "INSERT INTO calls VALUES ('after');\n"
    }
    run = gate(database=calls, migrations=files)
    assert run.verdict["applied"] == list(files), run.output
    assert attempts(calls) == 3
    assert calls.fetch("TABLE calls") == [("before",), ("block",), ("after",)]
    retries = run.all("migration.retry_scheduled")
    assert [retry["sqlstate"] for retry in retries] == [sqlstate] * 2


@pytest.mark.parametrize("directive", ["", "-- gate: no-transaction\n"])
@pytest.mark.parametrize("sqlstate", OTHERS)
def test_everything_else_fails_at_once(
    gate: Gate, calls: Database, sqlstate: str, directive: str
) -> None:
    """
    A statement that somebody cancelled, and errors that look alike, included.

    Outside a transaction, one that PostgreSQL refuses inside one is run alone instead.
    """
    statement = FAIL_TWICE.format(what="1", sqlstate=sqlstate)
    run = gate(database=calls, migrations={"1_a.sql": directive + statement})
    assert (run.exit_code, run.verdict["reason"]) == (1, "migration_failed")
    assert run.verdict["sqlstate"] == sqlstate
    is_run_alone = sqlstate == "25001" and directive
    assert attempts(calls) == (2 if is_run_alone else 1)
    assert run.all("migration.retry_scheduled") == []


@pytest.mark.server
def test_a_serializable_file_that_meets_a_conflict_is_tried_again(
    gate: Gate, calls: Database
) -> None:
    """A real 40001: a row that another transaction has changed meanwhile."""
    calls.execute("CREATE TABLE t (id int); INSERT INTO t VALUES (1)")
    text = (
        "BEGIN ISOLATION LEVEL REPEATABLE READ;\nSELECT count(*) FROM t;\n"
        "SELECT nextval('attempts');\nUPDATE t SET id = id + 10;\nCOMMIT;\n"
    )
    with closing(calls.connect()) as other:
        other.execute("BEGIN; UPDATE t SET id = id + 1")
        process = gate.start(database=calls, migrations={"1_a.sql": text})
        wait_until_locked(calls)
        other.execute("COMMIT")
        run = process.wait()
    assert run.verdict["applied"] == ["1_a.sql"], run.output
    assert run.one("migration.retry_scheduled")["sqlstate"] == "40001"
    assert calls.fetch("TABLE t") == [(12,)]
    assert attempts(calls) == 2


def wait_until_locked(database: Database) -> None:
    """Wait until a gate waits for another's lock."""
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        " AND datname = current_database() AND application_name LIKE 'migration-gate/%'"
    )
    while database.fetch(query) == [(0,)]:
        time.sleep(0.01)


class Rival:
    """Holds a lock, and asks for another in a thread: half of a deadlock."""

    def __init__(self, database: Database, first: str) -> None:
        self._conn = database.connect(application_name="rival")
        # It never looks for a deadlock itself, so the gate is the one that is ended.
        self._conn.execute("SET deadlock_timeout = '1h'")
        self._conn.execute("BEGIN")
        self._conn.execute(first)
        self._thread: threading.Thread | None = None
        self.errors: list[psycopg.Error] = []

    def ask(self, second: str) -> None:
        """Ask for the second lock; commit when it is there."""

        def work() -> None:
            try:
                self._conn.execute(second)
                self._conn.execute("COMMIT")
            except psycopg.Error as error:
                self.errors.append(error)

        self._thread = threading.Thread(target=work)
        self._thread.start()

    def close(self) -> None:
        """Wait for its end."""
        if self._thread is not None:
            self._thread.join()
        self._conn.close()


@pytest.mark.server
def test_a_deadlock_is_tried_again(gate: Gate, calls: Database) -> None:
    """A real 40P01; the other session goes on."""
    calls.execute("CREATE TABLE a (); CREATE TABLE b ();")
    calls.execute(f"ALTER DATABASE {calls.name} SET deadlock_timeout = '100ms'")
    text = (
        "LOCK TABLE a; SELECT nextval('attempts'); LOCK TABLE b;"
        "INSERT INTO calls VALUES ('1');"
    )
    with closing(Rival(calls, "LOCK TABLE b")) as rival:
        process = gate.start(database=calls, migrations={"1_a.sql": text})
        wait_until_locked(calls)
        rival.ask("LOCK TABLE a")
        run = process.wait()
    assert rival.errors == []
    assert run.verdict["applied"] == ["1_a.sql"], run.output
    assert run.one("migration.retry_scheduled")["sqlstate"] == "40P01"
    assert attempts(calls) == 2
    assert calls.fetch("TABLE calls") == [("1",)]


@pytest.mark.server
def test_an_index_that_met_a_deadlock_is_built_again(
    gate: Gate, calls: Database
) -> None:
    """What the first attempt left, invalid, is dropped; nothing else is repeated."""
    calls.execute("CREATE TABLE t (id int); INSERT INTO t VALUES (1), (2)")
    calls.execute(f"ALTER DATABASE {calls.name} SET deadlock_timeout = '100ms'")
    text = (
        "INSERT INTO calls VALUES ('before');\n"
        "CREATE INDEX CONCURRENTLY i ON t (id);\n"
        "INSERT INTO calls VALUES ('after');\n"
    )
    # The index waits for the rival's transaction, which has written.
    with closing(Rival(calls, "INSERT INTO t VALUES (3)")) as rival:
        process = gate.start(database=calls, migrations={"1_a.sql": text})
        wait_until_locked(calls)
        rival.ask("LOCK TABLE t IN SHARE UPDATE EXCLUSIVE MODE")
        run = process.wait()
    assert rival.errors == []
    assert run.verdict["applied"] == ["1_a.sql"], run.output
    assert run.one("migration.retry_scheduled")["sqlstate"] == "40P01"
    assert calls.fetch("TABLE calls") == [("before",), ("after",)]
    assert indexes(calls) == [("i", True)]


def indexes(database: Database) -> list[tuple[Any, ...]]:
    """Return the indexes of t, and whether they are valid."""
    return database.fetch(
        "SELECT indexrelid::regclass::text, indisvalid FROM pg_index"
        " WHERE indrelid = 't'::regclass"
    )
