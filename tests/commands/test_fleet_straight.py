"""The lock of one schema after the other, by one session and in few round trips."""

from __future__ import annotations

import signal

from contextlib import closing
from pathlib import Path

import pytest

from migration_gate.session.lock import lock_keys
from tests.commands.test_fleet import counts, history, schemas, tables
from tests.commands.test_fleet_sessions import ALONE
from tests.fix_gate import Gate
from tests.fix_postgres import Database, Databases, NewServer, database_of
from tests.fix_proxy import Proxy
from tests.polling import until


TABLE = "schema_migrations"
FILES = {"001_made.sql": "CREATE TABLE made (id int);"}
MORE = {**FILES, "002_more.sql": "ALTER TABLE made ADD note text;"}
SETTINGS = "SELECT name, setting FROM pg_settings WHERE source = 'configuration file'"
LOOKS = 3  # connections to list the targets, to look at all, and to list them again
FILE_ENDS = 1  # DISCARD ALL of the session that ran it, awaited by nobody


def names(count: int) -> list[str]:
    """Return the names of so many targets."""
    return [f"t{number}" for number in range(count)]


def is_free(database: Database, schema: str, table: str = TABLE) -> bool:
    """Tell whether no gate has the lock of this history."""
    query = f"SELECT pg_try_advisory_lock({lock_keys(schema, table).lock})"
    with closing(database.connect()) as conn:
        return bool(conn.execute(query).fetchall()[0][0])


def test_a_schema_takes_three_round_trips(
    gate: Gate, database: Database, proxy: Proxy
) -> None:
    """
    One locks and looks, one makes the history, one applies.

    Where there is a history, its rows are read; no other tool has a table there.
    """
    through = proxy.through(database)
    spent: dict[tuple[int, int], int] = {}
    before = 0
    for count in (3, 7):
        made = [f"of{count}_{number}" for number in range(count)]
        env = schemas(database, made) | ALONE
        for files in (FILES, MORE):
            run = gate(database=through, migrations=files, env=env)
            assert (run.exit_code, counts(run)) == (0, [count, count, 0, 0, 0])
            total = sum(link.asked_once.count("Q") for link in proxy.settled())
            spent[count, len(files)] = total - before
            before = total
    assert spent[7, 1] - spent[3, 1] == 4 * (3 + FILE_ENDS)
    assert spent[7, 2] - spent[3, 2] == 4 * (3 + FILE_ENDS)


@pytest.mark.parametrize("ends", ["SELECT 1;", "SELECT 1/0;"])
def test_the_lock_of_a_target_is_not_held_while_the_next_is_at_work(
    gate: Gate, database: Database, ends: str
) -> None:
    """It goes in the message that tries the next one, and at once after a failure."""
    env = schemas(database, names(2)) | ALONE
    for name, text in (("t0", ends), ("t1", "SELECT pg_sleep(60);")):
        body = f"BEGIN EXECUTE '{text}'; END"
        database.execute(
            f"CREATE FUNCTION {name}.works() RETURNS void LANGUAGE plpgsql "
            f"AS $${body}$$"
        )
    process = gate.start(
        database=database, migrations={"001_work.sql": "SELECT works();"}, env=env
    )
    sleeping = "SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    until(lambda: database.fetch(sleeping))
    assert is_free(database, "t0")
    assert not is_free(database, "t1")
    process.signal(signal.SIGTERM)
    process.wait()
    assert is_free(database, "t1")


def test_a_lock_that_others_have_is_passed_over_with_none_kept(
    gate: Gate, database: Database
) -> None:
    """The lock before goes though the next one is not free."""
    made = names(4)
    env = schemas(database, made) | ALONE
    with closing(database.connect()) as other:
        other.execute(f"SELECT pg_advisory_lock({lock_keys('t1', TABLE).lock})")
        process = gate.start(database=database, migrations=FILES, env=env)
        until(lambda: "lock.waiting" in process.output)
        assert tables(database, "made") == ["t0", "t2", "t3"]
        assert all(is_free(database, name) for name in ("t0", "t2", "t3"))
    run = process.wait()
    assert (run.exit_code, counts(run)) == (0, [4, 4, 0, 0, 0])
    assert tables(database, "made") == made


def test_a_history_of_another_name_has_its_own_lock(
    gate: Gate, database: Database
) -> None:
    """The lock that was tried is that of the last one's name, and is given back."""
    made = names(3)
    env = schemas(database, made) | ALONE
    database.execute(f"CREATE TABLE t1.{TABLE} (version bigint, dirty boolean)")
    env |= {"GATE_ADOPT": "none", "GATE_LOCK_WAIT_TIMEOUT": "1s"}
    other_table = "gate_schema_migrations"
    with closing(database.connect()) as other:
        key = lock_keys("t1", other_table).lock
        other.execute(f"SELECT pg_advisory_lock({key})")
        run = gate(database=database, migrations=FILES, env=env)
    assert (run.exit_code, counts(run)) == (1, [3, 2, 1, 0, 0])
    assert tables(database, "made") == ["t0", "t2"]
    run = gate(database=database, migrations=FILES, env=env)
    assert (run.exit_code, counts(run)) == (0, [3, 3, 0, 0, 0])
    assert database.fetch(f"SELECT version FROM t1.{other_table}") == [
        ("001_made.sql",)
    ]
    assert history(database, "t2") == ["001_made.sql"]


def test_a_lock_is_not_kept_while_a_secret_is_waited_for(
    gate: Gate, database: Database, tmp_path: Path
) -> None:
    """Nobody knows when the next target can begin, where its password is not there."""
    env = schemas(database, names(3)) | ALONE
    password = tmp_path / "password"
    password.write_text(database.password, "utf-8")
    environ = database.environ()
    del environ["POSTGRES_PASSWORD"]
    env |= environ | {"POSTGRES_PASSWORD_FILE": str(password)}
    env |= {"GATE_WAIT_TIMEOUT": "60s", "GATE_TIMEOUT": "120s"}
    files = {"001_made.sql": "SELECT pg_advisory_xact_lock(4711);"}
    waiting = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    with closing(database.connect()) as other:
        other.execute("SELECT pg_advisory_lock(4711)")
        process = gate.start(migrations=files, env=env)
        until(lambda: database.fetch(waiting))
        password.unlink()
    until(lambda: "database.retry_scheduled" in process.output)
    assert history(database, "t0") == [*files]
    assert is_free(database, "t0")
    password.write_text(database.password, "utf-8")
    run = process.wait(timeout=60)
    assert (run.exit_code, counts(run)) == (0, [3, 3, 0, 0, 0])


def test_defaults_that_change_meanwhile_hold_for_the_next_target(
    gate: Gate, databases: Databases, proxy: Proxy
) -> None:
    """Nobody asks for them before its files: its first one does, and is begun anew."""
    database = databases.create()
    env = schemas(database, names(3)) | ALONE
    seen = "CREATE TABLE seen AS SELECT current_setting('app.plan', true);"
    wait = "SELECT pg_advisory_xact_lock(4711);"
    files = {"001_seen.sql": seen, "002_wait.sql": wait}
    waiting = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    with closing(database.connect()) as other:
        other.execute("SELECT pg_advisory_lock(4711)")
        process = gate.start(
            database=proxy.through(database), migrations=files, env=env
        )
        until(lambda: database.fetch(waiting))
        database.execute(f"ALTER DATABASE \"{database.name}\" SET app.plan = 'new'")
    run = process.wait()
    assert (run.exit_code, counts(run)) == (0, [3, 3, 0, 0, 0])
    said = [database.fetch(f"SELECT * FROM {name}.seen")[0][0] for name in names(3)]
    assert said == [None, "new", "new"]
    # Beside the lists and looks, two for the first target, and two for all others.
    assert len(proxy.settled()) == LOOKS + 2 + 2


def test_a_session_that_begins_otherwise_is_asked_for_each_target(
    gate: Gate, databases: Databases, proxy: Proxy
) -> None:
    """What its defaults are in the way of is set again, and no target begun anew."""
    database = databases.create()
    other = f'ALTER DATABASE "{database.name}" SET standard_conforming_strings = off'
    database.execute(other)
    env = schemas(database, names(3)) | ALONE
    files = {"001_seen.sql": r"CREATE TABLE seen AS SELECT 'a\\b' AS said;"}
    run = gate(database=proxy.through(database), migrations=files, env=env)
    assert (run.exit_code, counts(run)) == (0, [3, 3, 0, 0, 0])
    for name in names(3):
        assert database.fetch(f"SELECT said FROM {name}.seen") == [(r"a\\b",)]
    assert len(proxy.settled()) == LOOKS + 2


@pytest.mark.thorough
@pytest.mark.parametrize(
    "changed", ["standard_conforming_strings = off", "idle_session_timeout = '1h'"]
)
def test_a_reload_while_a_history_is_made_holds_for_the_file_after_it(
    gate: Gate, new_server: NewServer, changed: str
) -> None:
    """A server takes it up between two messages, and a file runs as ever."""
    database = database_of(new_server())
    env = schemas(database, names(3)) | ALONE
    text = (
        r"CREATE TABLE seen AS SELECT 'a\\b' AS said, "
        "current_setting('idle_session_timeout') AS limited;"
    )
    files = {"001_seen.sql": text}
    waiting = (
        "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
        "AND datname = current_database() AND application_name LIKE 'migration-gate%'"
    )
    with closing(database.connect()) as other:
        other.execute("BEGIN; CREATE TABLE t1.schema_migrations (version text)")
        process = gate.start(database=database, migrations=files, env=env)
        until(lambda: database.fetch(waiting))
        before = database.fetch(SETTINGS)
        database.execute(f"ALTER SYSTEM SET {changed}")
        database.execute("SELECT pg_reload_conf()")
        until(lambda: database.fetch(SETTINGS) != before)
        other.execute("ROLLBACK")
    run = process.wait()
    assert (run.exit_code, counts(run)) == (0, [3, 3, 0, 0, 0])
    for name in names(3):
        assert database.fetch(f"SELECT * FROM {name}.seen") == [(r"a\\b", "0")]


GOOSE = "(id int, version_id bigint, is_applied boolean, tstamp timestamp)"


@pytest.mark.parametrize("table", ["goose_db_version", "of_its_own_name"])
def test_another_tools_table_is_found_in_a_schema_of_many(
    gate: Gate, database: Database, table: str
) -> None:
    """Where the schemas before it had none, and whatever else they all have."""
    made = names(4)
    env = schemas(database, made) | ALONE
    for name in made:
        database.execute(f"CREATE TABLE {name}.users (id int, name text)")
    assert gate(database=database, migrations=FILES, env=env).exit_code == 0
    database.execute(f"CREATE TABLE t2.{table} {GOOSE}")
    database.execute(f"INSERT INTO t2.{table} VALUES (1, 2, true, now())")
    run = gate(database=database, migrations=MORE, env=env)
    assert (run.exit_code, counts(run)) == (0, [4, 4, 0, 0, 0])
    warned = run.one("history.other_tool")
    assert (warned["target"], warned["table"]) == ("t2", f"t2.{table}")
    assert warned["versions"] == ["002_more.sql"]


def test_a_new_schema_with_another_tools_history_is_refused_among_many(
    gate: Gate, database: Database
) -> None:
    """Also where its table has the name that the gate's would have."""
    made = names(5)
    env = schemas(database, made) | ALONE
    for name in made:
        database.execute(f"CREATE TABLE {name}.users (id int, name text)")
    database.execute(f"CREATE TABLE t2.goose_db_version {GOOSE}")
    database.execute("INSERT INTO t2.goose_db_version VALUES (1, 2, true, now())")
    database.execute(f"CREATE TABLE t3.{TABLE} (version bigint, dirty boolean)")
    database.execute(f"INSERT INTO t3.{TABLE} VALUES (2, false)")
    run = gate(database=database, migrations=FILES, env=env)
    assert (run.exit_code, counts(run)) == (1, [5, 3, 2, 0, 0])
    assert tables(database, "made") == ["t0", "t1", "t4"]
