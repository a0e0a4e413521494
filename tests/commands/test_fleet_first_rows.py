"""Over a fleet, plan and status tell what the next start records before it applies."""

from __future__ import annotations

import json

from typing import Final

import pytest

from tests.commands.test_fleet import list_names, schemas
from tests.faults import GOOSE
from tests.fix_gate import Gate
from tests.fix_postgres import Database, Databases


pytestmark = pytest.mark.timeout(60)

FILES: Final = {
    "001_a.sql": "CREATE TABLE a (id int);",
    "002_b.sql": "CREATE TABLE b (id int);",
    "003_c.sql": "CREATE TABLE c (id int);",
    "004_d.sql": "CREATE TABLE d (id int);",
}
FIRST: Final = ["001_a.sql", "002_b.sql", "003_c.sql"]
TOOL: Final = {"GATE_ADOPT": "golang-migrate"}
DOUBT: Final = 'golang-migrate records "3" as failed or not finished'
UNRECORDED: Final = "3 migrations count as applied, and are not recorded"


def moved_in(database: Database, schema: str = "public", *, dirty: bool = False) -> str:
    """Leave in a schema what golang-migrate leaves after three files."""
    for name in "abc":
        database.execute(f"CREATE TABLE {schema}.{name} (id int)")
    database.execute(
        f"CREATE TABLE {schema}.schema_migrations (version bigint PRIMARY KEY, "
        f"dirty boolean NOT NULL)"
    )
    database.execute(f"INSERT INTO {schema}.schema_migrations VALUES (3, {dirty})")
    return schema


@pytest.mark.parametrize("kind", ["schemas", "databases"])
def test_plan_shows_of_each_group_what_is_taken_over_and_what_runs_then(
    gate: Gate, databases: Databases, kind: str
) -> None:
    """Of one that is refused it shows why, file by file, as for that target alone."""
    home, *others = (databases.create() for _ in range(5))
    names = [other.name for other in others]
    if kind == "schemas":
        schemas(home, names)
    for at, other in enumerate(others[:3]):
        if kind == "schemas":
            moved_in(home, other.name, dirty=at == 2)
        else:
            moved_in(other, dirty=at == 2)
    env = {"GATE_TARGETS": f"{kind}:{list_names(names)}", **TOOL}
    alone = gate("plan", database=home, migrations=FILES, env=env | one(names[0]))
    table, _, pending = alone.stdout.partition("\n\n")
    doubts = gate("plan", database=home, migrations=FILES, env=env | one(names[2]))
    told = gate("plan", database=home, migrations=FILES, env=env)
    assert f"In 2 targets, the first {names[0]}:\n{table}\n\n" in told.stdout
    assert f"In {names[2]}:\n{doubts.stdout}\n" in told.stdout
    assert table.count("\n") == 3
    assert "004_d.sql" in pending
    rows = [line.split("  ") for line in told.stdout.splitlines()[-4:]]
    groups = [[cell.strip() for cell in row if cell] for row in rows]
    assert groups[0] == ["TARGETS", "TO RECORD", "PENDING", "REFUSED", "FIRST OF THEM"]
    assert groups[1] == ["2", "3", "004_d.sql", names[0]]
    assert groups[2][0] == "1"
    assert groups[2][-2].endswith(DOUBT)
    assert groups[3] == ["1", "0", ", ".join(FILES), names[3]]
    assert told.exit_code == 1
    assert f"first {names[2]}: " in told.stderr
    planned = gate("plan", "--json", database=home, migrations=FILES, env=env)
    lines = json.loads(planned.stdout)
    assert [line["pending"] for line in lines] == [["004_d.sql"]] * 2 + [
        None,
        list(FILES),
    ]
    recorded = [[row["version"] for row in line["recorded"]] for line in lines]
    assert recorded == [FIRST, FIRST, FIRST[2:], []]
    assert DOUBT in lines[2]["reason"]
    run = gate(database=home, migrations=FILES, env=env)
    assert run.verdict["applied_count"] == 1 + 1 + 4
    assert [place.partition(":")[0] for place in run.verdict["failed"]] == [names[2]]


def one(name: str) -> dict[str, str]:
    """Return the setting that makes a run be about one target."""
    return {"GATE_TARGET": name}


def test_plan_shows_where_a_baseline_holds(gate: Gate, database: Database) -> None:
    """In schemas with tables, and not in an empty one; nothing is written."""
    env = schemas(database, ["a", "b", "new"]) | {"GATE_BASELINE": "3"}
    for schema in ("a", "b"):
        for name in "abc":
            database.execute(f"CREATE TABLE {schema}.{name} (id int)")
    told = gate("plan", database=database, migrations=FILES, env=env)
    assert told.exit_code == 0
    assert told.stdout.startswith("In 2 targets, the first a:\nRECORDED")
    assert told.stdout.count("applied, not run") == 3
    assert "2        3          004_d.sql" in told.stdout
    planned = gate("plan", "--json", database=database, migrations=FILES, env=env)
    lines = json.loads(planned.stdout)
    assert [line["pending"] for line in lines] == [["004_d.sql"]] * 2 + [list(FILES)]
    assert lines[0]["recorded"][2] == {
        "version": "003_c.sql",
        "baseline": "003_c.sql",
    }
    query = "SELECT FROM pg_tables WHERE tablename ~ 'schema_migrations'"
    assert database.fetch(query) == []


def test_a_tools_times_part_no_group(gate: Gate, database: Database) -> None:
    """Each tenant was migrated at another moment, and has the same files."""
    env = schemas(database, ["a", "b"]) | {"GATE_ADOPT": "goose"}
    for schema in ("a", "b"):
        database.execute(f"SET search_path = {schema}; {GOOSE}")
    database.execute("UPDATE b.goose_db_version SET tstamp = '2026-02-03 04:05:06'")
    told = gate("plan", database=database, migrations=FILES, env=env)
    assert told.stdout.startswith("In 2 targets, the first a:\nTAKEN OVER")
    assert told.stdout.count("TAKEN OVER") == 1
    assert "2        2          003_c.sql, 004_d.sql" in told.stdout


def test_status_tells_what_is_not_recorded(gate: Gate, database: Database) -> None:
    """It is closed even where nothing is left to run, and names the dirty one."""
    env = schemas(database, ["a", "b"]) | TOOL
    moved_in(database, "a")
    moved_in(database, "b", dirty=True)
    files = {name: FILES[name] for name in FIRST}
    told = gate("status", database=database, migrations=files, env=env)
    row_a, row_b = told.stdout.splitlines()[-2:]
    assert row_a.split(maxsplit=4) == ["a", "behind", "(none)", "0", UNRECORDED]
    assert row_b.split()[:2] == ["b", "refused"]
    assert row_b.endswith(DOUBT)
    assert (told.exit_code, f"first a: {UNRECORDED}" in told.stderr) == (1, True)
    ahead = gate("status", "--json", database=database, migrations=FILES, env=env)
    lines = json.loads(ahead.stdout)
    assert (lines[0]["pending"], lines[0]["reason"]) == (["004_d.sql"], UNRECORDED)
    page = gate("status", "--html", database=database, migrations=FILES, env=env)
    assert UNRECORDED in page.stdout


def test_check_waits_for_what_is_not_recorded(gate: Gate, database: Database) -> None:
    """What migrate will take over is not there before it has."""
    env = schemas(database, ["a"]) | TOOL | {"GATE_WAIT_TIMEOUT": "1s"}
    moved_in(database, "a")
    run = gate("check", database=database, migrations=FILES, env=env)
    assert (run.exit_code, run.verdict["reason"]) == (1, "incomplete")
    assert 'not applied: "001_a.sql"' in run.verdict["message"]
