"""Who was granted TRIGGER on a table of the gate's, and makes one as a write waits."""

from __future__ import annotations

import time

from collections.abc import Mapping
from contextlib import closing
from typing import NamedTuple

import pytest

from tests.fix_gate import Gate, Process
from tests.fix_postgres import Database
from tests.history_tables import ONE, TWO, versions


HISTORY = "schema_migrations"
PROGRESS = "schema_migrations_progress"
FAILURES = "schema_migrations_failures"
# What no rollback takes back, and what one would.
PLANT = """
CREATE SEQUENCE called;
GRANT USAGE ON SEQUENCE called TO PUBLIC;
CREATE FUNCTION catch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_catalog.nextval('public.called'); RETURN NULL; END $$;
"""
PLANTED = "CREATE TRIGGER t BEFORE {} ON {} FOR EACH STATEMENT EXECUTE FUNCTION catch()"
FOLLOWS = """
CREATE TABLE follows
    (version varchar REFERENCES schema_migrations (version) ON DELETE CASCADE);
INSERT INTO follows SELECT version FROM schema_migrations;
CREATE TRIGGER t AFTER DELETE ON follows FOR EACH ROW EXECUTE FUNCTION catch();
"""
WAITING = """
SELECT FROM pg_locks WHERE NOT granted AND relation = %s::text::regclass
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
OUTSIDE = "-- gate: no-transaction\n"
UNIT = {"2_b.sql": f"{OUTSIDE}SELECT 1;"}
ALONE = {"2_b.sql": f"{OUTSIDE}CREATE INDEX CONCURRENTLY ON a ((1));"}
FAILING = {"2_b.sql": "SELECT 1/0;"}


class Case(NamedTuple):
    """A first run, and a second one that writes to a table at the wrong moment."""

    first: Mapping[str, str] = ONE
    then: Mapping[str, str] = TWO
    between: str = "SELECT"
    table: str = HISTORY
    writes: str = "INSERT"
    command: tuple[str, ...] = ()


CASES = {
    "a file": Case(),
    "a snapshot that is older": Case(
        between="ALTER ROLE {} SET default_transaction_isolation = 'repeatable read'"
    ),
    "a repeatable file": Case(
        first={"R__a.sql": "SELECT 1;"},
        then={"R__a.sql": "SELECT 2;"},
        writes="UPDATE",
    ),
    "a unit outside": Case(
        first={"1_a.sql": OUTSIDE + ONE["1_a.sql"]},
        then={"1_a.sql": OUTSIDE + ONE["1_a.sql"], **UNIT},
        table=PROGRESS,
    ),
    "a statement alone": Case(
        first={"1_a.sql": OUTSIDE + ONE["1_a.sql"]},
        then={"1_a.sql": OUTSIDE + ONE["1_a.sql"], **ALONE},
        table=PROGRESS,
    ),
    "the end of a file outside": Case(then={**ONE, **UNIT}),
    "rollback": Case(
        first={**ONE, "1_a.down.sql": "DROP TABLE a;"},
        then={**ONE, "1_a.down.sql": "DROP TABLE a;"},
        writes="DELETE",
        command=("rollback",),
    ),
    "resolve": Case(command=("resolve", "2", "--applied")),
    "baseline": Case(between=f"DELETE FROM {HISTORY}", command=("baseline", "2")),
    "the last failure": Case(
        first={**ONE, **FAILING}, then={**ONE, **FAILING}, table=FAILURES
    ),
}
FEW = ("a file", "a snapshot that is older", "a unit outside", "resolve")


@pytest.mark.parametrize(
    "which",
    [
        pytest.param(
            name, marks=pytest.mark.server if name in FEW else pytest.mark.thorough
        )
        for name in CASES
    ],
)
def test_a_trigger_that_comes_as_a_write_waits_never_runs(
    gate: Gate, database: Database, which: str
) -> None:
    """GRANT ALL gives that right; what a trigger calls runs as who writes the table."""
    case = CASES[which]
    login, low = database.role("app"), database.role("low")
    database.execute(f"GRANT CREATE ON SCHEMA public TO {login.user}, {low.user}")
    gate(database=login, migrations=case.first)
    database.execute(case.between.format(login.user))
    login.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {low.user}")
    low.execute(PLANT)
    before = versions(database)
    with closing(low.connect()) as planter:
        planter.execute("BEGIN")
        planter.execute(PLANTED.format(case.writes, case.table))
        process = gate.start(*case.command, database=login, migrations=case.then)
        wait_for_wait(database, case.table, process)
        planter.execute("COMMIT")
        run = process.wait()

    assert database.fetch("SELECT is_called FROM called") == [(False,)], run.output
    assert versions(database) == before
    assert run.exit_code == 1
    if case.table != FAILURES:
        assert "has a trigger" in run.output or "has trigger" in run.output


@pytest.mark.parametrize(
    "way_back",
    [
        pytest.param("DROP TABLE a;", marks=pytest.mark.server),
        *(
            pytest.param(f"{OUTSIDE}DROP {dropped};", marks=pytest.mark.thorough)
            for dropped in ("TABLE a", "INDEX CONCURRENTLY late")
        ),
    ],
)
def test_a_foreign_key_that_comes_as_a_row_is_deleted_reaches_nothing(
    gate: Gate, database: Database, way_back: str
) -> None:
    """Before 18 the triggers of its table would run as who deletes the row."""
    login, low = database.role("app"), database.role("low")
    database.execute(f"GRANT CREATE ON SCHEMA public TO {login.user}, {low.user}")
    files = {
        "1_a.sql": "CREATE TABLE a (n int); CREATE INDEX late ON a (n);",
        "1_a.down.sql": way_back,
    }
    gate(database=login, migrations=files)
    login.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {low.user}")
    low.execute(PLANT)
    with closing(low.connect()) as planter:
        planter.execute(f"BEGIN; {FOLLOWS}")
        process = gate.start("rollback", database=login, migrations=files)
        wait_for_wait(database, HISTORY, process)
        planter.execute("COMMIT")
        run = process.wait()

    assert database.fetch("SELECT is_called FROM called") == [(False,)], run.output
    assert versions(database) == ["1_a.sql"]
    assert run.exit_code == 1
    assert "has a foreign key of others" in run.output


def wait_for_wait(database: Database, table: str, process: Process) -> None:
    """Wait until somebody waits for the table, for some seconds."""
    until_s = time.monotonic() + 10
    while not database.fetch(WAITING, [table]):
        assert process.is_running, process.wait().output
        assert time.monotonic() < until_s, f"nobody waits for {table}"
        time.sleep(0.02)
