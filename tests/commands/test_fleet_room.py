"""Room for connections: how much there is for a fleet, and who gives way to whom."""

from __future__ import annotations

import resource

from contextlib import ExitStack, closing

import pytest

from migration_gate.commands.fleet.run import at_once
from migration_gate.commands.fleet.targets import Listing
from migration_gate.settings.environment import from_environ
from tests.commands.test_fleet import FILES, counts, list_names
from tests.fix_gate import Gate
from tests.fix_postgres import Database, Databases, NewServer, database_of


pytestmark = pytest.mark.timeout(60)
NAMES = [f"t{number:02}" for number in range(17)]
LIST = {"GATE_TARGETS": f"schemas:{list_names(NAMES)}"}


def make_shop(database: Database) -> Database:
    """Make schemas that belong to a login without any privilege."""
    shop = database.role("shop")
    database.execute(
        "".join(f"CREATE SCHEMA {name} AUTHORIZATION {shop.user};" for name in NAMES)
    )
    return shop


def limit(database: Database, of: str, count: int) -> None:
    """Limit the connections of a role or a database."""
    database.execute(f"ALTER {of} CONNECTION LIMIT {count}")


def test_targets_give_their_room_to_each_other(gate: Gate, database: Database) -> None:
    """A target that gets no second connection keeps none: eight have room for four."""
    shop = make_shop(database)
    files = {
        "001_made.sql": "CREATE TABLE made (id int); SELECT pg_sleep("
        "CASE current_schema() WHEN 't00' THEN 1 ELSE 0.1 END);"
    }
    env = LIST | {"GATE_CANARIES": "1", "GATE_WAIT_TIMEOUT": "10s"}
    process = gate.start(database=shop, migrations=files, env=env)
    process.wait_for("migration.started")
    limit(database, f"DATABASE {database.name}", 8)
    run = process.wait(timeout=50)
    assert run.one("fleet.started")["at_once"] == 8
    assert (run.exit_code, counts(run)) == (0, [17, 17, 0, 0, 0])


@pytest.mark.parametrize("of", ["ROLE", "DATABASE"])
def test_the_room_is_what_is_left_of_a_limit(
    gate: Gate, database: Database, of: str
) -> None:
    """Of ten connections, three are others': no more than three targets have two."""
    shop = make_shop(database)
    limit(database, f"{of} {shop.user if of == 'ROLE' else shop.name}", 10)
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(closing(shop.connect()))
        run = gate(database=shop, migrations=FILES, env=LIST)
    assert run.one("fleet.started")["at_once"] == 3
    assert (run.exit_code, counts(run)) == (0, [17, 17, 0, 0, 0])


def test_no_limit_of_role_or_database_is_a_superusers(
    gate: Gate, database: Database
) -> None:
    """PostgreSQL lets it in."""
    make_shop(database)
    limit(database, f"DATABASE {database.name}", 4)
    run = gate(database=database, migrations=FILES, env=LIST)
    assert (run.exit_code, run.one("fleet.started")["at_once"]) == (0, 8)


def test_the_limit_of_the_database_that_is_asked_is_not_that_of_others(
    gate: Gate, databases: Databases
) -> None:
    """Of databases, each has its own."""
    home, other = (databases.create() for _ in range(2))
    shop = home.role("shop")
    home.execute(f"ALTER DATABASE {other.name} OWNER TO {shop.user}")
    limit(home, f"DATABASE {home.name}", 4)
    env = {"GATE_TARGETS": f"databases:{list_names([other.name])}"}
    run = gate(database=shop, migrations=FILES, env=env)
    assert (run.exit_code, run.one("fleet.started")["at_once"]) == (0, 8)


def test_sessions_of_other_roles_take_room(gate: Gate, new_server: NewServer) -> None:
    """Whatever the login is allowed to see of them."""
    server = new_server(settings={"max_connections": "20"})
    database = database_of(server)
    shop = make_shop(database)
    with ExitStack() as stack:
        for _ in range(9):
            stack.enter_context(closing(database.connect()))
        run = gate(database=shop, migrations=FILES, env=LIST)
    assert run.one("fleet.started")["at_once"] == (20 - 3 - 9) // 2
    assert (run.exit_code, counts(run)) == (0, [17, 17, 0, 0, 0])


@pytest.mark.parametrize(
    ("limit", "count"), [(256, 74), (16, 1), (resource.RLIM_INFINITY, 400)]
)
def test_there_are_no_more_at_once_than_the_process_has_descriptors_for(
    monkeypatch: pytest.MonkeyPatch, limit: int, count: int
) -> None:
    """Each target has two connections, on any servers, and opens its files."""
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (limit, limit))
    environ = {"DATABASE_URL": "postgresql://u@h/d", "GATE_TARGETS_AT_ONCE": "400"}
    settings = from_environ(environ | {"GATE_TARGETS": "file:/fleet.txt"})
    assert at_once(settings, Listing(())) == count
