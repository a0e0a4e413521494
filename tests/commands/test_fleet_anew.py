"""Tenants that are made anew, leave or come back while a fleet is migrated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from tests.commands.test_fleet import counts, schemas, tables
from tests.commands.test_fleet_databases import LIST as DATABASES
from tests.commands.test_fleet_databases import make
from tests.fix_gate import Gate, Process
from tests.fix_postgres import Database, NewServer, database_of


pytestmark = pytest.mark.timeout(60)
SLOW = {"001_slow.sql": "SELECT pg_sleep(0.6); CREATE TABLE orders ();"}
ONE = {"GATE_TARGETS_AT_ONCE": "1"}


def make_tenants(database: Database, names: Sequence[str]) -> dict[str, str]:
    """Make schemas and a table that lists them, and return what asks for it."""
    schemas(database, names)
    database.execute("CREATE TABLE public.tenants (name text)")
    database.execute("".join(map(listing, names)))
    return {"GATE_TARGETS": "schemas:SELECT name FROM public.tenants ORDER BY 1"} | ONE


def listing(name: str) -> str:
    """Return the statement that lists one tenant more."""
    return f"INSERT INTO public.tenants VALUES ('{name}');"


def unlisting(name: str) -> str:
    """Return the statement that lists a tenant no more."""
    return f"DELETE FROM public.tenants WHERE name = '{name}';"


def start(gate: Gate, database: Database, env: Mapping[str, str]) -> Process:
    """Start a run in which each target takes a second."""
    return gate.start(database=database, migrations=SLOW, env=env)


def test_a_schema_that_is_made_anew_when_it_was_done_is_done_again(
    gate: Gate, database: Database
) -> None:
    """It has the name of one that is done, and is another."""
    process = start(gate, database, make_tenants(database, ["t0", "t1"]))
    process.wait_for("migration.started", count=2)
    database.execute("DROP SCHEMA t0 CASCADE; CREATE SCHEMA t0;")
    run = process.wait()
    assert (run.exit_code, counts(run)) == (0, [2, 2, 0, 0, 0])
    assert [e["target"] for e in run.all("target.opened")] == ["t0", "t1", "t0"]
    assert tables(database) == ["t0", "t1"]


def test_a_database_that_is_made_anew_when_it_was_done_is_done_again(
    gate: Gate, new_server: NewServer
) -> None:
    """As a schema is."""
    home = database_of(new_server())
    targets = make(home, ["t0", "t1"])
    env = {"GATE_TARGETS": f"databases:{DATABASES}"} | ONE
    process = start(gate, home, env)
    process.wait_for("migration.started", count=2)
    home.execute("DROP DATABASE t0 WITH (FORCE)")
    make(home, ["t0"])
    run = process.wait()
    assert (run.exit_code, counts(run)) == (0, [2, 2, 0, 0, 0])
    assert [tables(target) for target in targets] == [["public"]] * 2


def test_a_schema_that_is_made_anew_when_it_had_failed_is_tried_again(
    gate: Gate, database: Database
) -> None:
    """What failed is not there any more."""
    env = make_tenants(database, ["t0", "t1"])
    database.execute("CREATE TABLE t0.orders ()")
    process = start(gate, database, env)
    process.wait_for("migration.started", count=2)
    database.execute("DROP SCHEMA t0 CASCADE; CREATE SCHEMA t0;")
    run = process.wait()
    assert (run.exit_code, counts(run)) == (0, [2, 2, 0, 0, 0])


def test_a_target_that_was_gone_and_is_listed_again_is_done(
    gate: Gate, database: Database
) -> None:
    """Be it the same one: it is not up to date."""
    env = make_tenants(database, ["t0", "t1"])
    database.execute("CREATE TABLE t0.orders ()")
    process = start(gate, database, env)
    process.wait_for("migration.started", count=2)
    database.execute(f"{unlisting('t0')} CREATE SCHEMA t9; {listing('t9')}")
    process.wait_for("migration.started", count=3)
    database.execute(f"DROP TABLE t0.orders; {listing('t0')}")
    run = process.wait()
    assert run.one("target.gone")["target"] == "t0"
    assert (run.exit_code, counts(run)) == (0, [3, 3, 0, 0, 0])
    assert tables(database) == ["t0", "t1", "t9"]


@pytest.mark.parametrize(
    "setting", [{"GATE_CANARIES": "1"}, {"GATE_FAILURES_MAX": "0"}]
)
def test_the_others_are_begun_when_what_kept_them_back_is_gone(
    gate: Gate, database: Database, setting: dict[str, str]
) -> None:
    """A failure that is no failure any more holds nobody back."""
    names = [f"t{number}" for number in range(4)]
    env = make_tenants(database, names) | setting
    database.execute("CREATE TABLE t0.orders ()")
    process = start(gate, database, env)
    process.wait_for("migration.started")
    database.execute(unlisting("t0"))
    run = process.wait()
    assert run.one("target.gone")["target"] == "t0"
    assert (run.exit_code, counts(run)) == (0, [4, 3, 0, 0, 1])


def test_the_next_target_is_the_canary_when_the_first_is_gone(
    gate: Gate, database: Database
) -> None:
    """Alone, too: the others are not begun where it fails, and the line says so."""
    names = [f"t{number}" for number in range(4)]
    env = make_tenants(database, names)
    env |= {"GATE_CANARIES": "1", "GATE_TARGETS_AT_ONCE": "4"}
    database.execute("CREATE TABLE t0.orders (); CREATE TABLE t1.orders ()")
    process = start(gate, database, env)
    process.wait_for("migration.started")
    database.execute(unlisting("t0"))
    run = process.wait()
    assert (run.exit_code, counts(run)) == (1, [4, 0, 1, 2, 1])
    assert "a canary failed" in run.verdict["message"]
    assert tables(database) == ["t0", "t1"]


def test_check_looks_again_at_a_schema_that_is_made_anew(
    gate: Gate, database: Database
) -> None:
    """It was done when the wait began, and is empty since."""
    env = make_tenants(database, ["t0", "t1"])
    files = {"001_orders.sql": "CREATE TABLE orders ();"}
    one = env | {"GATE_TARGET": "t0"}
    assert gate(database=database, migrations=files, env=one).exit_code == 0
    often = env | {"GATE_HEARTBEAT": "500ms"}
    checking = gate.start("check", database=database, migrations=files, env=often)
    checking.wait_for("database.retry_scheduled")
    database.execute("DROP SCHEMA t0 CASCADE; CREATE SCHEMA t0;")
    one["GATE_TARGET"] = "t1"
    assert gate(database=database, migrations=files, env=one).exit_code == 0
    checking.wait_for("database.retry_scheduled", count=2)
    assert gate(database=database, migrations=files, env=env).exit_code == 0
    run = checking.wait()
    assert (run.exit_code, counts(run)) == (0, [2, 2, 0, 0, 0])


def test_a_list_that_is_empty_at_the_end_excuses_no_failure(
    gate: Gate, database: Database
) -> None:
    """Somebody writes it anew at that moment."""
    env = make_tenants(database, ["t0", "t1"])
    files = {"001_no.sql": "SELECT pg_sleep(1); SELECT 1 / 0;"}
    process = gate.start(database=database, migrations=files, env=env)
    process.wait_for("migration.started", count=2)
    database.execute("DELETE FROM public.tenants")
    run = process.wait()
    assert (run.exit_code, run.verdict["reason"]) == (1, "settings")
    assert "lists no target" in run.verdict["error_message"]


@pytest.mark.parametrize("is_done", [True, False])
def test_check_forgets_a_schema_that_is_dropped_while_it_waits(
    gate: Gate, database: Database, *, is_done: bool
) -> None:
    """Whether it was up to date or behind, it is listed no more."""
    env = make_tenants(database, ["t0", "t1"])
    files = {"001_orders.sql": "CREATE TABLE orders ();"}
    if is_done:
        one = env | {"GATE_TARGET": "t0"}
        assert gate(database=database, migrations=files, env=one).exit_code == 0
    checking = gate.start("check", database=database, migrations=files, env=env)
    checking.wait_for("database.retry_scheduled")
    database.execute(f"DROP SCHEMA t0 CASCADE; {unlisting('t0')}")
    one = env | {"GATE_TARGET": "t1"}
    assert gate(database=database, migrations=files, env=one).exit_code == 0
    run = checking.wait()
    assert (run.exit_code, counts(run)) == (0, [1, 1, 0, 0, 0])
