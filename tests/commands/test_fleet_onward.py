"""What a database of a fleet is asked, one after the other."""

from __future__ import annotations

import signal

from collections.abc import Sequence
from contextlib import closing

import pytest

from migration_gate.session.lock import lock_keys
from tests.commands.test_fleet import counts, list_names, tables
from tests.commands.test_fleet_sessions import ALONE
from tests.commands.test_fleet_straight import FILES, GOOSE, MORE, TABLE, is_free
from tests.fix_gate import Gate
from tests.fix_pgbouncer import PgBouncers
from tests.fix_postgres import Database, Databases
from tests.fix_proxy import Proxy
from tests.polling import until


COLUMNS = (
    "SELECT attname::text FROM pg_attribute "
    "WHERE attrelid = 'made'::regclass AND attname = 'note'"
)


def fleet(targets: Sequence[Database]) -> dict[str, str]:
    """Return the settings of a fleet of databases, one at once."""
    listed = list_names([target.name for target in targets])
    return {"GATE_TARGETS": f"databases:{listed}"} | ALONE


def test_a_database_that_is_behind_takes_five_round_trips_after_two_logins(
    gate: Gate, databases: Databases, proxy: Proxy
) -> None:
    """
    A glance, the lock with a look, the rows, what a session begins with, the files.

    A new one is looked at without the lock first, and its history is made in two.
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
    assert spent[5, 1] - spent[2, 1] == 3 * 7
    assert spent[5, 2] - spent[2, 2] == 3 * 5


def test_what_is_up_to_date_takes_one_query_and_no_lock_whatever_was_before(
    gate: Gate, databases: Databases, proxy: Proxy
) -> None:
    """Each target is as it would be alone: the one before it had something pending."""
    home = databases.create()
    targets = [databases.create() for _ in range(4)]
    for target, files in zip(targets, (FILES, MORE) * 2, strict=True):
        assert gate(database=target, migrations=files).exit_code == 0
    through = proxy.through(home)
    run = gate(database=through, migrations=MORE, env=fleet(targets))
    assert (run.exit_code, counts(run)) == (0, [4, 4, 0, 0, 0])
    assert run.verdict["applied_count"] == 2
    asked: dict[str, list[bytes]] = {target.name: [] for target in targets}
    for link in proxy.settled():
        start = next(m.payload for m in link.messages if m.type == "startup")
        for name, queries in asked.items():
            if name.encode() in start:
                queries += [m.payload for m in link.after_login if m.type == "Q"]
    assert [len(asked[target.name]) for target in targets[1::2]] == [1, 1]
    locks = [
        any(b"pg_try_advisory_lock" in query for query in asked[target.name])
        for target in targets
    ]
    assert locks == [True, False, True, False]


def test_a_lock_that_another_gate_has_is_passed_over(
    gate: Gate, databases: Databases
) -> None:
    """And the database is done at the end."""
    home = databases.create()
    targets = [databases.create() for _ in range(3)]
    assert gate(database=home, migrations=FILES, env=fleet(targets)).exit_code == 0
    with closing(targets[1].connect()) as other:
        other.execute(f"SELECT pg_advisory_lock({lock_keys('public', TABLE).lock})")
        process = gate.start(database=home, migrations=MORE, env=fleet(targets))
        until(lambda: "lock.waiting" in process.output)
        done = [target.fetch(COLUMNS) for target in targets]
        assert done == [[("note",)], [], [("note",)]]
        assert is_free(targets[0], "public")
        assert is_free(targets[2], "public")
    run = process.wait()
    assert (run.exit_code, counts(run)) == (0, [3, 3, 0, 0, 0])


def test_the_lock_is_that_of_the_history_in_its_schema(
    gate: Gate, databases: Databases
) -> None:
    """Wherever the path of the one before leads."""
    home = databases.create()
    targets = [databases.create() for _ in range(2)]
    name = targets[1].name
    targets[1].execute(
        f'CREATE SCHEMA "Ap""p"; ALTER DATABASE "{name}" '
        'SET search_path = "Ap""p", public'
    )
    for target, what in zip(targets, ("NULL", "PERFORM pg_sleep(60)"), strict=True):
        target.execute(
            "CREATE FUNCTION public.works() RETURNS void LANGUAGE plpgsql "
            f"AS $$BEGIN {what}; END$$"
        )
    assert gate(database=home, migrations=FILES, env=fleet(targets)).exit_code == 0
    files = {**FILES, "002_works.sql": "SELECT works();"}
    process = gate.start(database=home, migrations=files, env=fleet(targets))
    sleeping = "SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    until(lambda: home.fetch(f"{sleeping} AND datname = '{name}'"))
    assert is_free(targets[1], "public")
    assert not is_free(targets[1], 'Ap"p')
    process.signal(signal.SIGTERM)
    process.wait()
    assert is_free(targets[1], 'Ap"p')


def test_no_lock_of_a_session_goes_to_a_pooler(
    gate: Gate, databases: Databases, pgbouncer: PgBouncers
) -> None:
    """It is a transaction's there, though it is known that something is pending."""
    home, target = databases.create(), databases.create()
    through = pgbouncer("transaction", target).through(target)
    env = fleet([target])
    assert gate(database=through, migrations=FILES, env=env).exit_code == 0
    files = {**FILES, "002_wait.sql": "SELECT pg_advisory_xact_lock(4711);"}
    waiting = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    with closing(target.connect()) as other:
        other.execute("SELECT pg_advisory_lock(4711)")
        process = gate.start(database=through, migrations=files, env=env)
        until(lambda: home.fetch(waiting))
        key = lock_keys("public", TABLE).lock % 2**64
        holder = (
            "SELECT a.state FROM pg_locks l JOIN pg_stat_activity a USING (pid) "
            f"WHERE l.classid = {key >> 32} AND l.objid = {key % 2**32} AND l.granted"
        )
        assert target.fetch(holder) == [("idle in transaction",)]
    run = process.wait()
    assert (run.exit_code, counts(run)) == (0, [1, 1, 0, 0, 0])


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
