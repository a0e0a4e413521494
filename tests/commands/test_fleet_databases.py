"""What breaks loops over schemas breaks none over databases either."""

from __future__ import annotations

import json

from collections.abc import Sequence

import pytest

from psycopg import sql

from tests.commands.test_fleet import FILES, ODD_NAMES, counts, list_names, tables
from tests.faults import GOOSE
from tests.fix_gate import Gate
from tests.fix_pgbouncer import Mode, PgBouncers
from tests.fix_postgres import Database, NewServer, database_of


pytestmark = pytest.mark.timeout(60)
LIST = "SELECT datname FROM pg_database WHERE datname ~ '^t[0-9]' ORDER BY 1"
SLOW = {"001_slow.sql": "SELECT pg_sleep(1); CREATE TABLE orders ();"}


def make(home: Database, names: Sequence[str]) -> list[Database]:
    """Make databases on a server of the test's own."""
    for name in names:
        create = sql.SQL("CREATE DATABASE {} TEMPLATE template0")
        home.execute(create.format(sql.Identifier(name)).as_string())
    return [home.changed(dbname=name) for name in names]


def test_a_database_may_have_any_name(gate: Gate, new_server: NewServer) -> None:
    """As the query gives it, in a connection as in the log."""
    home = database_of(new_server())
    targets = make(home, ODD_NAMES)
    env = {"GATE_TARGETS": f"databases:{list_names(ODD_NAMES)}"}
    run = gate(database=home, migrations=FILES, env=env)
    assert (run.exit_code, counts(run)) == (0, [len(ODD_NAMES)] * 2 + [0, 0, 0])
    assert {event["target"] for event in run.all("target.opened")} == set(ODD_NAMES)
    assert [tables(target) for target in targets] == [["public"]] * len(ODD_NAMES)
    again = gate(database=home, migrations=FILES, env=env)
    assert (again.exit_code, again.verdict["applied_count"]) == (0, 0)


def test_a_database_that_appears_is_done_and_one_that_is_dropped_is_gone(
    gate: Gate, new_server: NewServer
) -> None:
    """While others are worked at."""
    home = database_of(new_server())
    make(home, ["t1", "t2", "t3"])
    env = {"GATE_TARGETS": f"databases:{LIST}", "GATE_TARGETS_AT_ONCE": "1"}
    process = gate.start(database=home, migrations=SLOW, env=env)
    process.wait_for("migration.started")
    home.execute("DROP DATABASE t3")
    (late,) = make(home, ["t4"])
    run = process.wait()
    assert (run.exit_code, counts(run)) == (0, [4, 3, 0, 0, 1])
    assert tables(late) == ["public"]
    assert run.one("target.gone")["target"] == "t3"


def test_a_database_that_is_dropped_under_a_gate_is_gone(
    gate: Gate, new_server: NewServer
) -> None:
    """Its sessions are ended by the server in the middle of a file."""
    home = database_of(new_server())
    make(home, ["t1", "t2"])
    env = {"GATE_TARGETS": f"databases:{LIST}"}
    process = gate.start(database=home, migrations=SLOW, env=env)
    process.wait_for("migration.started", count=2)
    home.execute("DROP DATABASE t1 WITH (FORCE)")
    run = process.wait(timeout=40)
    assert (run.exit_code, counts(run)) == (0, [2, 1, 0, 0, 1])
    assert run.one("target.gone")["target"] == "t1"


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_a_fleet_of_databases_through_a_pooler(
    gate: Gate, new_server: NewServer, pgbouncer: PgBouncers, mode: Mode
) -> None:
    """Which keeps a pool for each."""
    home = database_of(new_server())
    names = ["t1", "t2", "With Space"]
    targets = make(home, names)
    through = pgbouncer(mode, home).through(home)
    env = {"GATE_TARGETS": f"databases:{list_names(names)}"}
    run = gate(database=through, migrations=FILES, env=env)
    assert (run.exit_code, counts(run)) == (0, [3, 3, 0, 0, 0])
    assert [tables(target) for target in targets] == [["public"]] * 3
    again = gate(database=through, migrations=FILES, env=env)
    assert (again.exit_code, again.verdict["applied_count"]) == (0, 0)


def test_what_is_broken_in_three_ways_is_named_counted_and_done_when_mended(
    gate: Gate, new_server: NewServer
) -> None:
    """A file fails there, a right is lacking, another tool was there before."""
    home = database_of(new_server())
    shop = home.role("shop")
    names = [f"t{number}" for number in range(8)]
    targets = dict(zip(names, make(home, names), strict=True))
    for name in names:
        if name != "t4":
            home.execute(f"ALTER DATABASE {name} OWNER TO {shop.user}")
    targets["t2"].execute("CREATE TABLE orders ()")
    targets["t6"].execute(GOOSE)
    env = {"GATE_TARGETS": f"databases:{LIST}"}
    run = gate(database=shop, migrations=FILES, env=env)
    assert (run.exit_code, counts(run)) == (1, [8, 5, 3, 0, 0])
    assert set(run.verdict["failed"]) == {
        "t2: 001_orders.sql:1:1 (42P07)",
        "t4: refused",
        "t6: history",
    }
    first = run.verdict["failed"][0].partition(":")[0]
    assert f"5 of 8 targets done, 3 failed; first {first}: " in run.verdict["message"]
    told = gate("status", "--json", database=shop, migrations=FILES, env=env)
    lines = {line["target"]: line for line in json.loads(told.stdout)}
    states = {name: line["state"] for name, line in lines.items()}
    assert states == dict.fromkeys(names, "up to date") | {
        "t2": "behind",
        "t4": "behind",
        "t6": "refused",
    }
    assert "the last attempt failed" in lines["t2"]["reason"]
    assert "goose has a history in this database" in lines["t6"]["reason"]
    targets["t2"].execute("DROP TABLE orders")
    targets["t4"].execute(f"GRANT USAGE, CREATE ON SCHEMA public TO {shop.user}")
    targets["t6"].execute("DROP TABLE goose_db_version")
    again = gate(database=shop, migrations=FILES, env=env)
    assert (again.exit_code, counts(again)) == (0, [8, 8, 0, 0, 0])
    assert again.one("fleet.looked")["up_to_date_count"] == 5
    assert {e["target"] for e in again.all("target.opened")} == {"t2", "t4", "t6"}
