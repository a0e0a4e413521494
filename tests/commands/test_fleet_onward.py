"""From one database of a fleet to the next: what the last one was tells what to ask."""

from __future__ import annotations

import signal

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from migration_gate.session.lock import lock_keys
from tests.commands.test_fleet import counts, list_names, tables
from tests.commands.test_fleet_sessions import ALONE
from tests.commands.test_fleet_straight import GOOSE
from tests.fix_gate import Gate
from tests.fix_pgbouncer import PgBouncers
from tests.fix_postgres import Database, Databases
from tests.fix_proxy import Proxy
from tests.polling import until


FILES = {"001_made.sql": "CREATE TABLE made (id int);"}
MORE = {**FILES, "002_more.sql": "ALTER TABLE made ADD note text;"}
WORKS = {"001_works.sql": "SELECT works();"}
TABLE = "schema_migrations"


def fleet(targets: Sequence[Database]) -> dict[str, str]:
    """Return the settings of a fleet of databases, one at once."""
    listed = list_names([target.name for target in targets])
    return {"GATE_TARGETS": f"databases:{listed}"} | ALONE


def make_works(target: Database, what: str) -> None:
    """Let the file WORKS do this in a database."""
    target.execute(
        "CREATE FUNCTION works() RETURNS void LANGUAGE plpgsql "
        f"AS $$BEGIN {what}; END$$"
    )


def is_free(target: Database, schema: str = "public") -> bool:
    """Tell whether no gate has the lock of this history."""
    query = f"SELECT pg_try_advisory_lock({lock_keys(schema, TABLE).lock})"
    with closing(target.connect()) as conn:
        return bool(conn.execute(query).fetchall()[0][0])


def test_a_database_takes_five_round_trips_after_two_logins(
    gate: Gate, databases: Databases, proxy: Proxy
) -> None:
    """
    One locks and looks, two make the history, one asks for defaults, one applies.

    With a history there is one fewer: its rows are read.
    """
    home = databases.create()
    through = proxy.through(home)
    spent: dict[tuple[int, int], int] = {}
    before = 0
    for count in (2, 5):
        targets = [databases.create() for _ in range(count)]
        for files in (FILES, MORE):
            run = gate(database=through, migrations=files, env=fleet(targets))
            assert (run.exit_code, counts(run)) == (0, [count, count, 0, 0, 0])
            total = sum(link.asked_once.count("Q") for link in proxy.settled())
            spent[count, len(files)] = total - before
            before = total
    assert spent[5, 1] - spent[2, 1] == 3 * 5
    assert spent[5, 2] - spent[2, 2] == 3 * 4


def test_what_has_nothing_to_be_done_after_what_had_is_left_alone(
    gate: Gate, databases: Databases
) -> None:
    """Its lock is tried with the look, and whoever has it is not waited for."""
    home = databases.create()
    targets = [databases.create() for _ in range(4)]
    for target in (targets[1], targets[3]):
        assert gate(database=target, migrations=FILES).exit_code == 0
    with closing(targets[1].connect()) as other:
        other.execute(f"SELECT pg_advisory_lock({lock_keys('public', TABLE).lock})")
        run = gate(database=home, migrations=FILES, env=fleet(targets))
    assert (run.exit_code, counts(run)) == (0, [4, 4, 0, 0, 0])
    assert run.verdict["applied_count"] == 2
    assert not run.all("lock.waiting")
    assert all(tables(target, "made") == ["public"] for target in targets)


def test_a_lock_that_another_gate_has_is_passed_over(
    gate: Gate, databases: Databases
) -> None:
    """And the database is done at the end."""
    home = databases.create()
    targets = [databases.create() for _ in range(3)]
    with closing(targets[1].connect()) as other:
        other.execute(f"SELECT pg_advisory_lock({lock_keys('public', TABLE).lock})")
        process = gate.start(database=home, migrations=FILES, env=fleet(targets))
        until(lambda: "lock.waiting" in process.output)
        made = [tables(target, "made") for target in targets]
        assert made == [["public"], [], ["public"]]
        assert is_free(targets[0])
        assert is_free(targets[2])
    run = process.wait()
    assert (run.exit_code, counts(run)) == (0, [3, 3, 0, 0, 0])


def test_a_history_in_another_schema_has_its_own_lock(
    gate: Gate, databases: Databases
) -> None:
    """The lock that was tried is that of the last one's, and is given back."""
    home = databases.create()
    targets = [databases.create() for _ in range(2)]
    make_works(targets[0], "NULL")
    make_works(targets[1], "PERFORM pg_sleep(60)")
    name = targets[1].name
    targets[1].execute(
        f'CREATE SCHEMA app; ALTER DATABASE "{name}" SET search_path = app, public'
    )
    process = gate.start(database=home, migrations=WORKS, env=fleet(targets))
    sleeping = "SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    until(lambda: home.fetch(f"{sleeping} AND datname = '{name}'"))
    assert is_free(targets[1])
    assert not is_free(targets[1], "app")
    process.signal(signal.SIGTERM)
    process.wait()
    assert is_free(targets[1], "app")


def test_no_lock_and_no_setting_goes_to_a_pooler(
    gate: Gate, databases: Databases, pgbouncer: PgBouncers, tmp_path: Path
) -> None:
    """Whatever the last database has shown: the next may be behind one."""
    targets = [databases.create() for _ in range(3)]
    pooled = pgbouncer("transaction", targets[1]).through(targets[1])
    listed = tmp_path / "targets"
    lines = []
    for target in (targets[0], pooled, targets[2]):
        at = target.conninfo
        lines.append(f"host={at['host']} port={at['port']} dbname={target.name}")
    listed.write_text("\n".join(lines), "utf-8")
    env = {"GATE_TARGETS": f"file:{listed}"} | ALONE
    for ahead, files in ((False, FILES), (True, MORE)):
        if ahead:  # nothing else is done there, which might clear up
            assert gate(database=targets[1], migrations=files).exit_code == 0
        run = gate(database=targets[0], migrations=files, env=env)
        assert (run.exit_code, counts(run)) == (0, [3, 3, 0, 0, 0])
        ready = [event["pooled"] for event in run.all("database.ready")]
        assert ready == [False, True, False]
        assert is_free(targets[1])
        query = "SELECT source FROM pg_settings WHERE name = 'tcp_keepalives_idle'"
        assert pooled.fetch(query) == [("default",)]


@pytest.mark.parametrize(
    "table",
    ["public.goose_db_version", "public.of_its_own_name", "own.any", "sqitch.any"],
)
def test_another_tools_table_is_found_in_a_database_of_many(
    gate: Gate, databases: Databases, table: str
) -> None:
    """Where the databases before it had none, and whatever else they all have."""
    targets = [databases.create() for _ in range(4)]
    for target in targets:
        target.execute("CREATE TABLE users (id int, name text)")
    env = fleet(targets)
    assert gate(database=targets[0], migrations=FILES, env=env).exit_code == 0
    odd = targets[2]
    schema, _ = table.split(".")
    odd.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}; CREATE TABLE {table} {GOOSE}")
    odd.execute(f"INSERT INTO {table} VALUES (1, 2, true, now())")
    path = f'ALTER DATABASE "{odd.name}" SET search_path = public, own'
    odd.execute(path)
    run = gate(database=targets[0], migrations=MORE, env=env)
    assert (run.exit_code, counts(run)) == (0, [4, 4, 0, 0, 0])
    warned = run.one("history.other_tool")
    assert (warned["target"], warned["table"]) == (odd.name, table)
    assert warned["versions"] == ["002_more.sql"]


def test_a_new_database_with_another_tools_history_is_refused_among_many(
    gate: Gate, databases: Databases
) -> None:
    """Also one that only the table's name shows, and where that is the gate's own."""
    targets = [databases.create() for _ in range(6)]
    for target in targets:
        target.execute("CREATE TABLE users (id int, name text)")
    targets[2].execute(f"CREATE TABLE goose_db_version {GOOSE}")
    targets[2].execute("INSERT INTO goose_db_version VALUES (1, 2, true, now())")
    targets[3].execute(f"CREATE TABLE {TABLE} (version bigint, dirty boolean)")
    targets[3].execute(f"INSERT INTO {TABLE} VALUES (2, false)")
    targets[4].execute('CREATE TABLE "SequelizeMeta" (name varchar(255) PRIMARY KEY)')
    targets[4].execute("INSERT INTO \"SequelizeMeta\" VALUES ('001-made.js')")
    run = gate(database=targets[0], migrations=FILES, env=fleet(targets))
    assert (run.exit_code, counts(run)) == (1, [6, 3, 3, 0, 0])
    done = [bool(tables(target, "made")) for target in targets]
    assert done == [True, True, False, False, False, True]
