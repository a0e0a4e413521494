"""A question that is refused for now, or whose answer is lost: told, and no fault."""

from __future__ import annotations

import re
import threading

from contextlib import closing

import pytest

from tests.fix_gate import Gate
from tests.fix_postgres import Database
from tests.fix_proxy import Message, Proxy
from tests.polling import until


OUTSIDE = "-- gate: no-transaction\n"
FILES = {"1_a.sql": f"{OUTSIDE}CREATE TABLE a ();", "1_a.down.sql": "DROP TABLE a;"}
GOOSE = """
CREATE TABLE goose_db_version (
    id serial PRIMARY KEY, version_id bigint NOT NULL, is_applied boolean NOT NULL,
    tstamp timestamp DEFAULT now()
);
INSERT INTO goose_db_version (version_id, is_applied) VALUES (0, true), (1, true);
"""
WAITING = """
SELECT FROM pg_locks l JOIN pg_database d ON d.oid = l.database
WHERE d.datname = current_database() AND NOT l.granted AND {}
"""
READS_PROGRESS = re.compile(rb"SELECT version, pg_catalog.(max|min)")
SOON = {"GATE_WAIT_TIMEOUT": "1s"}


def impatient(database: Database) -> Database:
    """Return a role that waits for no lock for long, as many are told to."""
    login = database.role("app")
    database.execute(
        f"GRANT CREATE ON SCHEMA public TO {login.user};"
        f"ALTER ROLE {login.user} SET lock_timeout = '100ms'"
    )
    return login


@pytest.mark.parametrize("command", ["status", "plan", "check"])
def test_another_tools_history_that_is_locked_is_no_fault_of_the_gates(
    gate: Gate, database: Database, command: str
) -> None:
    """As it is while that tool migrates."""
    login = impatient(database)
    login.execute(GOOSE)
    with closing(database.connect()) as other:
        other.execute("BEGIN; LOCK TABLE goose_db_version")
        run = gate(command, database=login, migrations=FILES, env=SOON)
    assert run.exit_code == 1
    assert "lock timeout (SQLSTATE 55P03)" in run.output
    assert "internal" not in run.output


@pytest.mark.parametrize("command", [("status",), ("rollback", "--dry-run")])
def test_progress_that_is_locked_is_no_fault_of_the_gates(
    gate: Gate, database: Database, command: tuple[str, ...]
) -> None:
    """As it is while somebody restores it."""
    login = impatient(database)
    gate(database=login, migrations=FILES)
    with closing(database.connect()) as other:
        other.execute("BEGIN; LOCK TABLE schema_migrations_progress")
        run = gate(*command, database=login, migrations=FILES, env=SOON)
    assert run.exit_code == 1
    assert "lock timeout (SQLSTATE 55P03)" in run.output
    assert "internal" not in run.output


@pytest.mark.parametrize("command", [("status",), ("rollback", "--dry-run")])
def test_an_answer_that_is_lost_is_no_fault_of_the_gates(
    gate: Gate, database: Database, proxy: Proxy, command: tuple[str, ...]
) -> None:
    """The connection ends at the question after the look."""

    def asks(message: Message) -> bool:
        return (
            message.type == "Q" and READS_PROGRESS.search(message.payload) is not None
        )

    gate(database=database, migrations=FILES)
    proxy.when(asks, proxy.cut)
    run = gate(*command, database=proxy.through(database), migrations=FILES)
    assert run.exit_code == 1
    assert "the connection was lost: " in run.output


def test_a_failure_that_cannot_be_kept_is_told_all_the_same(
    gate: Gate, database: Database
) -> None:
    """The history was made by this run, and is locked when it is looked at again."""
    login = impatient(database)
    files = {"1_a.sql": "SELECT pg_advisory_lock(5); SELECT 1/0;"}
    with closing(database.connect()) as other, closing(database.connect()) as third:
        other.execute("SELECT pg_advisory_lock(5)")
        process = gate.start(database=login, migrations=files)
        until(lambda: database.fetch(WAITING.format("l.locktype = 'advisory'")))
        third.execute("BEGIN")
        lock = threading.Thread(
            target=third.execute, args=("LOCK TABLE schema_migrations",)
        )
        lock.start()
        until(lambda: database.fetch(WAITING.format("l.locktype = 'relation'")))
        other.execute("SELECT pg_advisory_unlock_all()")
        lock.join()
        run = process.wait()
    assert run.verdict.get("sqlstate") == "22012", run.output
    assert len(run.all("migration.started")) == 1
