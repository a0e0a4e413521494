"""Several pending migrations in one message: each is applied, or fails, alone."""

from __future__ import annotations

import re
import signal

from pathlib import Path

import pytest

from tests.fix_gate import Gate, Run, write_migrations
from tests.fix_postgres import Database, Databases
from tests.fix_proxy import Message, Proxy
from tests.history_tables import tables, versions, why
from tests.polling import until
from tests.sleepers import is_sleeping


SLEEPS = (
    "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    " AND datname = current_database()"
)


def numbered(count: int) -> dict[str, str]:
    """Return so many small migrations, each of which makes its table."""
    return {f"{n:03}_x.sql": f"CREATE TABLE t{n} ();" for n in range(1, count + 1)}


def told(run: Run, *events: str) -> list[tuple[str, str]]:
    """Return the events about migrations, each with its file."""
    return [
        (event["event"].removeprefix("migration."), event["version"])
        for event in run.events
        if event["event"].startswith("migration.")
        and (not events or event["event"] in events)
    ]


def is_work(message: Message) -> bool:
    """Whether a message brings files."""
    return message.type == "Q" and b"CREATE TABLE t" in message.payload


def test_a_run_is_bounded_in_files(
    gate: Gate, database: Database, proxy: Proxy
) -> None:
    """A hundred files a message; the log tells of each when and how long."""
    files = numbered(250)
    run = gate(database=proxy.through(database), migrations=files)
    assert run.verdict["applied_count"] == 250
    _, working = proxy.settled()
    messages = [m.payload for m in working.after_login if is_work(m)]
    assert [text.count(b"INSERT INTO") for text in messages] == [100, 100, 50]
    events = told(run)
    for kind in ("started", "applied"):
        assert [name for what, name in events if what == kind] == list(files)
    for name in files:
        assert events.index(("started", name)) < events.index(("applied", name))
    times = [event["applied_at"] for event in run.all("migration.applied")]
    assert times == sorted(times)
    assert all(event["duration_ms"] >= 0 for event in run.all("migration.applied"))


def test_a_run_is_bounded_in_bytes(
    gate: Gate, database: Database, proxy: Proxy
) -> None:
    """PostgreSQL parses a message whole, and keeps it in memory."""
    files = {name: f"{text} -- {'x' * 100_000}" for name, text in numbered(6).items()}
    run = gate(database=proxy.through(database), migrations=files)
    assert run.verdict["applied"] == list(files)
    _, working = proxy.settled()
    messages = [m.payload for m in working.after_login if is_work(m)]
    assert [text.count(b"INSERT INTO") for text in messages] == [2, 2, 2]


@pytest.mark.parametrize("broken", [1, 2, pytest.param(5, marks=pytest.mark.server), 7])
def test_a_syntax_error_undoes_nothing_before_it(
    gate: Gate, database: Database, broken: int
) -> None:
    """PostgreSQL refuses to read the whole message; what is before goes without it."""
    files = numbered(7)
    name = f"{broken:03}_x.sql"
    files[name] = "-- Ä\nCREATE TABLE ä ();\nSELEKT 1;"
    run = gate(database=database, migrations=files)
    assert (run.verdict["file"], run.verdict["line"], run.verdict["column"]) == (
        (name, 3, 1)
    )
    before = list(files)[: broken - 1]
    assert run.verdict["applied"] == versions(database) == before
    assert tables(database) == [f"t{n}" for n in range(1, broken)]
    assert told(run, "migration.started") == [
        ("started", version) for version in [*before, name]
    ]


@pytest.mark.server
def test_a_failing_statement_undoes_nothing_before_it_and_stops_what_follows(
    gate: Gate, database: Database
) -> None:
    """The place is that of the file, whichever stand before it in the message."""
    files = numbered(5)
    files["003_x.sql"] = "CREATE TABLE t3 ();\nSELECT 'äöü',\n  1/0;"
    run = gate(database=database, migrations=files)
    assert why(run) == (1, "migration_failed", "division by zero")
    assert (run.verdict["file"], run.verdict["line"]) == ("003_x.sql", 2)
    assert run.verdict["applied"] == ["001_x.sql", "002_x.sql"]
    assert tables(database) == ["t1", "t2"]
    assert ("started", "004_x.sql") not in told(run)


@pytest.mark.server
def test_text_that_the_database_cannot_hold_undoes_nothing_before_it(
    gate: Gate, databases: Databases
) -> None:
    """PostgreSQL refuses the whole message and says of no place why."""
    database = databases.name()
    with databases.server.connect() as conn:
        conn.execute(
            f"CREATE DATABASE {database.name} TEMPLATE template0 LC_COLLATE 'C'"
            " LC_CTYPE 'C' ENCODING 'LATIN1'"
        )
    files = numbered(7)
    files["005_x.sql"] = "SELECT '€';"
    run = gate(database=database, migrations=files)
    assert (run.verdict["file"], run.verdict["sqlstate"]) == ("005_x.sql", "22P05")
    assert run.verdict["applied"] == versions(database) == list(files)[:4]


@pytest.mark.server
def test_a_migration_that_gets_no_locks_is_tried_again_and_the_rest_follows(
    gate: Gate, database: Database
) -> None:
    """Those before it are committed once; those after it wait for it."""
    database.execute("CREATE TABLE busy ()")
    files = numbered(5)
    files["003_x.sql"] = "ALTER TABLE busy ADD COLUMN a int;"
    with database.connect() as other:
        in_the_way = f"process {other.info.backend_pid}, "
        other.execute("BEGIN; LOCK TABLE busy IN ACCESS SHARE MODE")
        process = gate.start(
            database=database,
            migrations=files,
            env={"GATE_DDL_LOCK_TIMEOUT": "200ms"},
        )
        retried = process.wait_for("migration.retry_scheduled")
        other.execute("ROLLBACK")
        run = process.wait()
    assert (retried["version"], retried["attempt"]) == ("003_x.sql", 1)
    assert retried["blockers"][0].startswith(in_the_way)
    assert retried["blockers"][0].endswith(', at table "public.busy"')
    assert run.verdict["applied"] == versions(database) == list(files)
    attempts = [
        event["attempt"]
        for event in run.all("migration.started")
        if event["version"] == "003_x.sql"
    ]
    assert attempts == list(range(1, len(attempts) + 1))
    assert len(run.all("migration.applied")) == 5


def test_a_signal_in_a_run_tells_what_was_applied(
    gate: Gate, database: Database
) -> None:
    """What is committed stands in the verdict; what ran is rolled back."""
    files = numbered(4)
    files["003_x.sql"] = "CREATE TABLE t3 (); SELECT pg_sleep(60);"
    process = gate.start(database=database, migrations=files)
    until(lambda: database.fetch(SLEEPS) == [(1,)])
    process.wait_for("migration.started", count=3)
    process.signal(signal.SIGTERM)
    run = process.wait(5)
    assert run.verdict["reason"] == "interrupted"
    assert run.verdict["applied"] == versions(database) == ["001_x.sql", "002_x.sql"]
    assert tables(database) == ["t1", "t2"]


def test_answers_that_are_lost_are_settled_by_the_history(
    gate: Gate, database: Database
) -> None:
    """All of the run is in doubt; what is committed is told of, and not repeated."""
    files = numbered(6)
    files["004_x.sql"] = (
        "CREATE TABLE t4 (); SELECT pg_terminate_backend(pg_backend_pid())"
        " WHERE to_regclass('broken') IS NULL;"
    )
    process = gate.start(database=database, migrations=files)
    process.wait_for("migration.started")
    until(lambda: len(versions(database)) == 3)
    database.execute("CREATE TABLE broken ()")
    run = process.wait()
    assert run.verdict["applied"] == versions(database) == list(files)
    applied = [name for event, name in told(run) if event == "applied"]
    assert applied == list(files)


def test_no_further_message_is_sent_once_the_lock_is_lost(
    gate: Gate, database: Database, proxy: Proxy
) -> None:
    """The run that is under way ends; the next waits for the lock."""
    files = numbered(150)
    files["050_x.sql"] = "SELECT pg_sleep(1);"
    process = gate.start(database=proxy.through(database), migrations=files)
    until(lambda: database.fetch(SLEEPS) == [(1,)])
    (holder,) = database.fetch(
        "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND"
        " mode = 'ExclusiveLock' AND database = (SELECT oid FROM pg_database"
        " WHERE datname = current_database())"
    )
    database.execute(f"SELECT pg_terminate_backend({holder[0]})")
    run = process.wait()
    assert versions(database) == list(files)
    assert [name for event, name in told(run) if event == "applied"] == list(files)
    assert len(run.all("lock.acquired")) == 2
    works = [
        sum(is_work(message) for message in link.after_login)
        for link in proxy.settled()
    ]
    assert sorted(works) == [0, 0, 1, 1]


@pytest.mark.server
def test_data_for_copy_and_files_outside_a_transaction_go_alone(
    gate: Gate, database: Database, proxy: Proxy
) -> None:
    """In their place among the others."""
    files = numbered(6)
    files["002_x.sql"] = "CREATE TABLE c (a int);"
    files["003_x.sql"] = "COPY c FROM stdin;\n1\n2\n\\.\n"
    files["004_x.sql"] = "CREATE INDEX CONCURRENTLY c_a ON c (a);"
    run = gate(database=proxy.through(database), migrations=files)
    assert run.verdict["applied"] == versions(database) == list(files)
    assert database.fetch("SELECT sum(a) FROM c") == [(3,)]
    _, working = proxy.settled()
    queries = [m.payload for m in working.after_login if m.type == "Q"]
    rows = [re.findall(rb"'(\d\d\d_x.sql)'", q) for q in queries if b"INSERT INTO" in q]
    assert [sorted({*map(bytes.decode, row)}) for row in rows] == [
        ["001_x.sql", "002_x.sql"],
        ["003_x.sql"],
        ["004_x.sql"],
        ["005_x.sql", "006_x.sql"],
    ]


@pytest.mark.server
def test_a_notice_is_that_of_its_file(gate: Gate, database: Database) -> None:
    """Whichever of the message's files raises it."""
    files = {
        f"{n}_x.sql": f"DO $$ BEGIN RAISE NOTICE 'from %', {n}; END $$;"
        for n in range(1, 5)
    }
    run = gate(database=database, migrations=files)
    notices = [(e["version"], e["notice"]) for e in run.all("migration.notice")]
    assert notices == [(f"{n}_x.sql", f"from {n}") for n in range(1, 5)]


@pytest.mark.server
def test_a_sequence_behind_its_rows_is_said(gate: Gate, database: Database) -> None:
    """As after a restore of the data alone: no row is there, and none can be made."""
    gate(database=database, migrations=numbered(9))
    database.execute("SELECT setval('schema_migrations_id_seq', 1, false)")
    run = gate(database=database, migrations=numbered(10))
    assert run.verdict["reason"] == "history"
    assert "schema_migrations_pkey" in run.verdict["error_message"]
    assert "setval()" in run.verdict["hint"]
    assert "t10" not in tables(database)


def test_now_is_when_the_message_came(gate: Gate, database: Database) -> None:
    """As the page of migrations says; clock_timestamp() is exact."""
    files = {
        "1_a.sql": "SELECT pg_sleep(0.3);",
        "2_b.sql": "CREATE TABLE b AS SELECT clock_timestamp() - now() AS late;",
    }
    run = gate(database=database, migrations=files)
    assert run.verdict["applied"] == list(files)
    assert database.fetch("SELECT late >= interval '0.3 s' FROM b") == [(True,)]


def test_a_file_that_changes_meanwhile_is_applied_as_it_was_judged(
    gate: Gate, database: Database, tmp_path: Path
) -> None:
    """With the checksum of that text: the next start tells that it has changed."""
    files = {
        "1_a.sql": "-- gate: no-transaction\nSELECT pg_sleep(1);",
        "2_b.sql": "CREATE TABLE judged ();",
    }
    folder = write_migrations(tmp_path / "migrations", files)
    process = gate.start(database=database, migrations=folder)
    until(lambda: is_sleeping(database))
    (folder / "2_b.sql").write_text("CREATE TABLE other ();")
    assert process.wait().verdict["applied"] == list(files)
    assert {"judged", "other"}.intersection(tables(database)) == {"judged"}
    run = gate(database=database, migrations=folder)
    assert "2_b.sql" in run.verdict["error_message"]
