"""Several workers at one fleet, killed and started at any moment: each target once."""

from __future__ import annotations

import random
import time

import pytest

from tests.commands.test_fleet import counts, list_names, schemas
from tests.fix_gate import Gate, Process
from tests.fix_pgbouncer import Mode, PgBouncers
from tests.fix_postgres import Database, NewServer, database_of


pytestmark = pytest.mark.timeout(120)
# What runs twice leaves a row too many, or fails.
FILES = {
    "001_made.sql": "CREATE TABLE made (id int); INSERT INTO made VALUES (1);",
    "002_more.sql": "INSERT INTO made VALUES (2);",
    "003_index.sql": "CREATE INDEX CONCURRENTLY made_index ON made (id);\n"
    "INSERT INTO made VALUES (3);",
    "004_last.sql": "INSERT INTO made VALUES (4);",
}
WORKERS_MAX = 8
DISTURBED_S = 2.5


def require_once(database: Database, names: list[str]) -> None:
    """Each target is at its version, and each file has run once."""
    for name in names:
        rows = database.fetch(f"SELECT id FROM {name}.made ORDER BY id")
        assert rows == [(1,), (2,), (3,), (4,)], name
        query = f"SELECT version FROM {name}.schema_migrations ORDER BY 1"
        assert [row[0] for row in database.fetch(query)] == sorted(FILES), name
    invalid = "SELECT indexrelid::regclass FROM pg_index WHERE NOT indisvalid"
    assert database.fetch(invalid) == []


def disturb(gate: Gate, database: Database, names: list[str], seed: int) -> int:
    """Start, kill and restart workers for a while; return how many were killed."""
    chance = random.Random(seed)  # noqa: S311 -- not a secret
    workers: list[Process] = []
    killed = 0
    until_s = time.monotonic() + DISTURBED_S
    size = chance.randint(1, WORKERS_MAX)

    def start(index: int) -> Process:
        env = {"GATE_TARGETS": f"schemas:{list_names(names)}"}
        if chance.random() < 0.7:
            env["JOB_COMPLETION_INDEX"] = str(index)
        env["GATE_TARGETS_AT_ONCE"] = str(chance.randint(1, 4))
        env["GATE_CANARIES"] = str(chance.choice([0, 0, 2]))
        return gate.start(database=database, migrations=FILES, env=env)

    while time.monotonic() < until_s:
        if len(workers) < size:
            workers.append(start(len(workers)))
        time.sleep(chance.uniform(0.05, 0.4))
        if workers and chance.random() < 0.6:
            at = chance.randrange(len(workers))
            killed += workers[at].is_running
            workers[at].kill()
            workers[at] = start(at)
    runs = [worker.wait(timeout=60) for worker in workers]
    assert [run.exit_code for run in runs] == [0] * len(runs), [
        (run.exit_code, run.stdout[-600:]) for run in runs if run.exit_code
    ]
    return killed


@pytest.fixture
def names(database: Database) -> list[str]:
    """Return the names of schemas that were made."""
    made = [f"t{number:02}" for number in range(50)]
    schemas(database, made)
    return made


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
@pytest.mark.parametrize("seed", range(5))
def test_workers_may_be_killed_and_started_at_any_moment(
    gate: Gate, database: Database, names: list[str], seed: int
) -> None:
    """Whatever happens, what is left is done by whoever comes next."""
    disturb(gate, database, names, seed)
    require_once(database, names)


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
    assert through.fetch("SHOW search_path") == [('"$user", public',)]
    query = "SELECT schemaname::text FROM pg_tables WHERE tablename = 'made' ORDER BY 1"
    assert [name for (name,) in database.fetch(query)] == sorted(made)
