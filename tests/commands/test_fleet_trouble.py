"""What breaks a loop over tenants: one target's trouble is its own."""

from __future__ import annotations

import resource
import signal
import threading

from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from dev.postgres import find_free_port
from migration_gate.commands.fleet.away import AwayServers
from migration_gate.commands.fleet.outcomes import Outcome
from migration_gate.commands.fleet.targets import Target
from migration_gate.connection.room import send_query
from migration_gate.report.errors import DatabaseUnreachableError, HistoryError
from migration_gate.settings.environment import from_environ
from tests.commands.test_fleet import FILES, TARGET_A, counts, schemas, tables
from tests.connection.test_wait_languages import refusing
from tests.fix_gate import Gate
from tests.fix_postgres import Database, Databases, NewServer, database_of
from tests.polling import until


pytestmark = pytest.mark.timeout(60)
LIST = "SELECT nspname FROM pg_namespace WHERE nspname ~ '^t[0-9]' ORDER BY 1"
SLOW = {"001_slow.sql": "SELECT pg_sleep(1); CREATE TABLE orders ();"}


def test_a_target_that_its_own_traffic_locks_holds_up_no_other(
    gate: Gate, database: Database
) -> None:
    """It is blocked after its retries, and all others are done meanwhile."""
    env = schemas(database, ["a", "b", "c"])
    assert gate(database=database, migrations=FILES, env=env).exit_code == 0
    more = {**FILES, "003_lock.sql": "ALTER TABLE orders ADD COLUMN late int;"}
    limits = {"GATE_DDL_LOCK_TIMEOUT": "200ms", "GATE_DDL_RETRY_TIMEOUT": "1s"}
    with closing(database.connect()) as conn:
        conn.execute("BEGIN; LOCK TABLE a.orders IN ACCESS SHARE MODE")
        run = gate(database=database, migrations=more, env=env | limits)
    assert (run.exit_code, counts(run)) == (1, [3, 2, 1, 0, 0])
    assert run.verdict["failed"] == ["a: 003_lock.sql:1:1 (55P03)"]
    assert run.verdict["reason"] == "blocked"


def test_a_server_that_is_away_or_read_only_is_one_targets_trouble(
    gate: Gate, databases: Databases, tmp_path: Path
) -> None:
    """The others do not wait for it."""
    home, read_only, fine, gone = (databases.create() for _ in range(4))
    read_only.execute(
        f'ALTER DATABASE "{read_only.name}" SET default_transaction_read_only = on'
    )
    lines = [
        f"host=127.0.0.1 port={find_free_port()} dbname=x connect_timeout=2",
        *(read_only.name, fine.name, f"{gone.name}_not"),
    ]
    listed = tmp_path / "fleet.txt"
    listed.write_text("\n".join(lines), "utf-8")
    env = {"GATE_TARGETS": f"file:{listed}", "GATE_WAIT_TIMEOUT": "1s"}
    env["GATE_AUTH_GRACE"] = "0"
    run = gate(database=home, migrations=FILES, env=env)
    assert (run.exit_code, counts(run)) == (1, [4, 1, 3, 0, 0])
    assert tables(fine) == ["public"]
    reasons = {event["target"]: event["reason"] for event in run.all("target.closed")}
    assert reasons[read_only.name] == "unreachable"
    assert reasons[f"{gone.name}_not"] == "refused"


def test_a_server_that_is_away_is_waited_for_once(
    gate: Gate, databases: Databases, tmp_path: Path
) -> None:
    """The first target there waits as long as it may, the next ones connect once."""
    home = databases.create()
    asked = list[bytes]()
    listed = tmp_path / "fleet.txt"
    env = {"GATE_TARGETS": f"file:{listed}", "GATE_WAIT_TIMEOUT": "300ms"}
    env["GATE_TARGETS_AT_ONCE"] = "1"
    with refusing("57P03", "the database system is starting up", asked) as place:
        away = [f"postgresql://{place}/x{number}" for number in range(3)]
        listed.write_text("\n".join([*away, home.name]), "utf-8")
        run = gate(database=home, migrations=FILES, env=env)
    assert (run.exit_code, counts(run)) == (1, [4, 1, 3, 0, 0])
    tried = [event["error_message"] for event in run.all("target.closed")]
    assert ["(1 attempt in 0 s)" in said for said in tried] == [False, True, True]
    assert [sum(b"\0x%d\0" % n in each for each in asked) for n in (1, 2)] == [1, 1]


def test_a_server_that_lets_somebody_in_is_away_no_longer() -> None:
    """Each target may wait for it again."""
    settings = from_environ({"DATABASE_URL": "postgresql://u@h/d"})
    target = Target("one", settings)
    away = DatabaseUnreachableError("could not reach a usable PostgreSQL")
    away.is_server_away = True
    servers = AwayServers()
    servers.note(target, Outcome("other", "failed", away))
    assert servers.fit(target).settings.wait_timeout_s == 0
    servers.note(target, Outcome("one", "failed", HistoryError("refused")))
    assert servers.fit(target) == target


def test_what_was_up_to_date_says_nothing_of_how_fast_the_others_are(
    gate: Gate, database: Database
) -> None:
    """Nobody knows when the first of them ends."""
    env = schemas(database, ["t1", "t2"]) | {"GATE_HEARTBEAT": "1s"}
    env["GATE_TARGETS"] = f"schemas:{LIST}"
    slow = "SELECT pg_sleep(CASE WHEN to_regclass('slow') IS NULL THEN 0 ELSE 1.2 END);"
    files = {"001_slow.sql": slow}
    assert gate(database=database, migrations=files, env=env).exit_code == 0
    database.execute("CREATE SCHEMA t3; CREATE TABLE public.slow ()")
    run = gate(database=database, migrations=files, env=env)
    assert run.exit_code == 0, run.output
    said = run.one("fleet.progress")
    assert said["message"] == "2 done, 0 failed, 1 running, 0 left, 0/min"
    assert (said["per_minute"], said["ends_at"]) == (0, None)


def test_what_appears_meanwhile_is_done_and_what_is_dropped_is_gone(
    gate: Gate, database: Database
) -> None:
    """The list is asked for once more at the end."""
    schemas(database, ["t1", "t2", "t3"])
    env = {"GATE_TARGETS": f"schemas:{LIST}", "GATE_TARGETS_AT_ONCE": "1"}
    process = gate.start(database=database, migrations=SLOW, env=env)
    process.wait_for("migration.started")
    database.execute("CREATE SCHEMA t4; DROP SCHEMA t3;")
    run = process.wait()
    assert (run.exit_code, counts(run)) == (0, [4, 3, 0, 0, 1])
    assert tables(database) == ["t1", "t2", "t4"]
    assert run.one("target.gone")["target"] == "t3"


def test_a_stop_while_it_is_listed_again_says_how_many_are_done(
    gate: Gate, database: Database
) -> None:
    """Somebody has locked what the query reads."""
    env = schemas(database, ["t1", "t2"])
    database.execute("CREATE TABLE tenants AS SELECT unnest('{t1,t2}'::text[]) name")
    env = {"GATE_TARGETS": "schemas:SELECT name FROM public.tenants ORDER BY 1"}
    process = gate.start(database=database, migrations=SLOW, env=env)
    process.wait_for("migration.started")
    with closing(database.connect()) as conn:
        conn.execute("BEGIN; LOCK TABLE tenants")
        waiting = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'tenants'"
        until(lambda: conn.execute(f"{waiting}::regclass").fetchall())
        process.signal(signal.SIGTERM)
        run = process.wait()
    assert run.exit_code == 1
    assert run.verdict["error_message"].endswith("; 2 of 2 targets done"), run.output


def test_a_target_without_room_waits_once(
    gate: Gate, databases: Databases, database: Database
) -> None:
    """The role may have one connection, and a target with files takes two."""
    login = database.role()
    target = databases.create()
    for one in (database, target):
        one.execute(f"GRANT ALL ON SCHEMA public TO {login.user}")
    database.execute(f"ALTER ROLE {login.user} CONNECTION LIMIT 1")
    env = {"GATE_TARGETS": f"databases:SELECT '{target.name}'::name"}
    waits = {"GATE_WAIT_TIMEOUT": "2s", "GATE_DDL_RETRY_TIMEOUT": "2s"}
    run = gate(database=login, migrations=FILES, env=env | waits)
    assert (run.exit_code, counts(run)) == (1, [1, 0, 1, 0, 0])
    assert "two connections" in run.verdict["hint"], run.output
    assert run.verdict["duration_ms"] < 3900


def test_what_another_gate_had_and_is_dropped_is_gone_without_a_reason(
    gate: Gate, database: Database
) -> None:
    """It was passed over, and did not fail."""
    schemas(database, ["t1", "t2"])
    database.execute("CREATE TABLE tenants AS SELECT unnest('{t1,t2}'::text[]) name")
    env = {"GATE_TARGETS": "schemas:SELECT name FROM public.tenants ORDER BY 1"}
    long = {"001_long.sql": "SELECT pg_sleep(60);"}
    other = gate.start(
        database=database, migrations=long, env=env | {"GATE_TARGET": "t2"}
    )
    other.wait_for("migration.started")
    process = gate.start(database=database, migrations=SLOW, env=env)
    process.wait_for("target.passed_over")
    database.execute("DELETE FROM tenants WHERE name = 't2'")
    gone = process.wait_for("target.gone")
    assert (gone["target"], gone["error_message"]) == ("t2", "")
    assert gone["message"] == "t2 is not listed any more"


def test_a_file_cannot_leave_its_path_to_the_next_target(
    gate: Gate, database: Database
) -> None:
    """SET, RESET and DISCARD lead back to the target's own path."""
    env = schemas(database, ["a", "b"])
    database.execute("CREATE SCHEMA shared; CREATE TYPE shared.mood AS ENUM ('ok');")
    files = {
        "001_set.sql": "SET search_path = shared; CREATE TABLE a_or_b (m mood);"
        "DROP TABLE a_or_b;",
        "002_reset.sql": "SET search_path = shared; RESET search_path;"
        "CREATE TABLE orders (id int);",
        "003_outside.sql": "-- gate: no-transaction\n"
        "SET search_path = shared; RESET ALL; CREATE TABLE made ();",
        "004_index.sql": "CREATE INDEX CONCURRENTLY made_index ON orders (id);",
    }
    run = gate(database=database, migrations=files, env=env)
    assert (run.exit_code, counts(run)) == (0, [2, 2, 0, 0, 0])
    assert tables(database) == tables(database, "made") == ["a", "b"]
    query = "SELECT schemaname::text FROM pg_indexes WHERE indexname = 'made_index'"
    assert sorted(database.fetch(query)) == [("a",), ("b",)]


def test_extensions_of_another_schema_are_found(gate: Gate, database: Database) -> None:
    """The role's own path comes after the target's schema."""
    env = schemas(database, ["a"])
    database.execute("CREATE SCHEMA extra; CREATE TYPE extra.mood AS ENUM ('ok');")
    database.execute(f'ALTER DATABASE "{database.name}" SET search_path = extra')
    files = {"001_mood.sql": "CREATE TABLE orders (m mood);"}
    run = gate(database=database, migrations=files, env=env | TARGET_A)
    assert run.exit_code == 0
    assert tables(database) == ["a"]


def test_targets_do_not_wait_for_each_others_connections(
    gate: Gate, new_server: NewServer, tmp_path: Path
) -> None:
    """Each has one, and the server no other: some give theirs back, and come again."""
    home = database_of(new_server(settings={"max_connections": "10"}))
    names = [f"db{number}" for number in range(6)]
    for name in names:
        home.execute(f"CREATE DATABASE {name}")
    listed = tmp_path / "fleet.txt"
    listed.write_text("\n".join(names), "utf-8")
    env = {"GATE_TARGETS": f"file:{listed}", "GATE_WAIT_TIMEOUT": "20s"}
    with ExitStack() as stack:
        for _ in range(7):
            stack.enter_context(closing(home.connect()))
        run = gate(database=home, migrations=FILES, env=env, timeout=40)
    assert (run.exit_code, counts(run)) == (0, [6, 6, 0, 0, 0])


def test_a_long_file_takes_no_memory_from_other_targets(database: Database) -> None:
    """What spares it for one run is a limit of the whole process."""
    before, seen = resource.getrlimit(resource.RLIMIT_AS), set()
    query = b"SELECT " + b"1" * (64 << 20)
    with closing(database.connect()) as conn:
        sending = threading.Thread(target=send_query, args=(conn.pgconn, query))
        sending.start()
        while sending.is_alive():
            seen.add(resource.getrlimit(resource.RLIMIT_AS))
    assert seen == {before}
