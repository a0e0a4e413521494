"""Several workers at one fleet, killed and started at any moment: each target once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands.test_fleet import counts, schemas
from tests.commands.test_fleet_lasting import TELL
from tests.fix_gate import Gate, write_migrations
from tests.fix_pgbouncer import Mode, PgBouncers
from tests.fix_postgres import Database, Databases, NewServer, database_of
from tests.fleet_kills import FILES, Disturbance, Kind, empty, new_fleet


pytestmark = pytest.mark.timeout(120)


def require_once(database: Database, names: list[str]) -> None:
    """Each target is at its version, and each file has run once."""
    for name in names:
        rows = database.fetch(f"SELECT id FROM {name}.made ORDER BY id")
        assert rows == [(1,), (2,), (3,), (4,)], name
        query = f"SELECT version FROM {name}.schema_migrations ORDER BY 1"
        assert [row[0] for row in database.fetch(query)] == sorted(FILES), name
    invalid = "SELECT indexrelid::regclass FROM pg_index WHERE NOT indisvalid"
    assert database.fetch(invalid) == []


def test_workers_share_a_fleet(gate: Gate, database: Database) -> None:
    """Each begins elsewhere, passes over what another has, and says so of the whole."""
    made = [f"t{number:02}" for number in range(12)]
    env = schemas(database, made) | {"GATE_TARGETS_AT_ONCE": "2"}
    workers = [
        gate.start(
            database=database,
            migrations=FILES,
            env=env | {"JOB_COMPLETION_INDEX": str(index)},
        )
        for index in range(3)
    ]
    runs = [worker.wait(timeout=60) for worker in workers]
    assert [counts(run) for run in runs] == [[12, 12, 0, 0, 0]] * 3
    assert sum(run.verdict["applied_count"] for run in runs) == 12 * len(FILES)
    assert len({run.one("fleet.started")["begins_at"] for run in runs}) == 3
    require_once(database, made)


@pytest.mark.thorough
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["schemas", "databases"])
@pytest.mark.parametrize("seed", range(3))
def test_workers_may_be_killed_and_started_at_any_moment(
    gate: Gate, databases: Databases, tmp_path: Path, kind: Kind, seed: int
) -> None:
    """Whatever happens, what is left is done by whoever comes next."""
    fleet = new_fleet(databases, kind)
    empty(fleet)
    files = write_migrations(tmp_path / "files", FILES)
    run = Disturbance(gate, fleet, files, seed)
    run.run()
    assert run.faults == []
    assert run.ends["0"] >= 1


def test_a_server_with_room_for_ten_is_no_trouble(
    gate: Gate, new_server: NewServer
) -> None:
    """
    No more targets are begun beside each other than have room.

    Nor do several workers, which know nothing of each other, wait for each other.
    """
    server = new_server(settings={"max_connections": "10"})
    database = database_of(server)
    made = [f"t{number:02}" for number in range(12)]
    env = schemas(database, made)
    workers = [
        gate.start(
            database=database,
            migrations=FILES,
            env=env | {"JOB_COMPLETION_INDEX": str(index)},
        )
        for index in range(3)
    ]
    runs = [worker.wait(timeout=60) for worker in workers]
    assert [counts(run) for run in runs] == [[12, 12, 0, 0, 0]] * 3
    assert runs[0].one("fleet.started")["at_once"] <= 3
    require_once(database, made)


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_a_fleet_of_schemas_through_a_pooler(
    gate: Gate, database: Database, pgbouncer: PgBouncers, mode: Mode
) -> None:
    """Each file begins with the search path of its schema, and a stranger has none."""
    made = ["a", "b", "With Space"]
    env = schemas(database, made)
    files = {
        "001_made.sql": "CREATE TABLE made (id int);",
        "002_more.sql": "ALTER TABLE made ADD COLUMN note text;",
    }
    through = pgbouncer(mode, database).through(database)
    run = gate(database=through, migrations=files, env=env)
    assert (run.exit_code, counts(run)) == (0, [3, 3, 0, 0, 0])
    assert run.all("fleet.pooled") == []
    database.execute("SET check_function_bodies = off;" + TELL.format(""))
    again = gate(database=through, migrations=files, env=env)
    assert (again.exit_code, len(again.all("fleet.pooled"))) == (0, 1)
    assert again.verdict["warnings"] == ["fleet.pooled"]
    assert through.fetch("SHOW search_path") == [('"$user", public',)]
    query = "SELECT schemaname::text FROM pg_tables WHERE tablename = 'made' ORDER BY 1"
    assert [name for (name,) in database.fetch(query)] == sorted(made)
