"""
Two years of one database: what changes around it, and the gate is right at each start.

Each file inserts its number, so that one that ran twice, or never, is seen.
"""

from __future__ import annotations

import re

from pathlib import Path

import pytest

from dev.postgres import tool
from tests.fix_gate import Gate, Run
from tests.fix_postgres import Database, Databases
from tests.round_trip import call, dump


pytestmark = [pytest.mark.thorough, pytest.mark.timeout(180)]
ORDERS = {
    "001_step.sql": "CREATE TABLE orders.o ();",
    "002_step.sql": "ALTER TABLE orders.o ADD n integer;",
}
OWN = {"GATE_HISTORY_TABLE": "orders.schema_migrations"}


def image(last: int) -> dict[str, str]:
    """Return the files that a release ships: the third runs outside a transaction."""
    files = {
        f"{number:03}_step.sql": f"INSERT INTO steps VALUES ({number});"
        for number in range(1, last + 1)
    }
    first, third = files["001_step.sql"], "003_step.sql"
    files["001_step.sql"] = f"CREATE TABLE steps (n integer);\n{first}"
    if third in files:
        files[third] = f"-- gate: no-transaction\n{files[third]}"
    return files


def use_path(database: Database, path: str) -> None:
    """Set the database's search path."""
    database.execute(f"ALTER DATABASE {database.name} SET search_path = {path}")


def restore(text: str, database: Database, *, path: str = "") -> None:
    """Run a dump; what ALTER DATABASE had set is not in it."""
    stop = ("-q", "-v", "ON_ERROR_STOP=1")
    call(Path(tool("psql")), database, *stop, stdin=text)
    if path:
        use_path(database, path)


def remedy(run: Run) -> str:
    """Return the statement that the last line has for a person to run."""
    assert run.exit_code == 1, run.output
    found = re.search(r"ALTER TABLE [^;]+;", run.verdict["hint"])
    assert found is not None, run.output
    return found[0]


class Shop:
    """The application, its owner's name, and the gate in front of it."""

    def __init__(self, gate: Gate, owner: str) -> None:
        self._gate = gate
        self._env = {"GATE_ROLE": owner}

    def start(self, login: Database, last: int) -> Run:
        """Start a release as a login role."""
        return self._gate(database=login, migrations=image(last), env=self._env)

    def opens(self, login: Database, last: int, *, applied: int) -> Run:
        """Require an open gate, that applied so many, and all of them ran once."""
        run = self.start(login, last)
        assert run.exit_code == 0, run.output
        assert run.verdict["applied_count"] == applied, run.output
        return run

    def closes(self, login: Database, last: int, *, hint: str) -> None:
        """Require a closed gate, that wrote nothing and says this."""
        run = self.start(login, last)
        assert (run.exit_code, run.verdict["reason"]) == (1, "history"), run.output
        assert hint in run.verdict["hint"]


def steps(database: Database, schema: str) -> list[int]:
    """Return the numbers of the files that have run."""
    return [n for (n,) in database.fetch(f"SELECT n FROM {schema}.steps ORDER BY n")]


def add_application(gate: Gate, database: Database) -> None:
    """A second application comes, with files of the same names."""
    closed = gate(database=database, migrations=ORDERS)
    assert "GATE_HISTORY_TABLE" in closed.verdict["hint"], closed.output
    database.execute("CREATE SCHEMA orders")
    opened = gate(database=database, migrations=ORDERS, env=OWN)
    assert opened.verdict["applied"] == list(ORDERS), opened.output


def test_two_years_of_a_database(
    gate: Gate, database: Database, databases: Databases
) -> None:
    """Login names, restores, row security, an image back and forth, another schema."""
    if database.server.embedded is None:
        pytest.skip("pg_dump is that of the embedded server's version")
    owner = database.role("shop_owner", attributes="NOLOGIN").user
    v1, v2, v3 = (database.role(name) for name in ("v1", "v2", "v3"))
    database.execute(
        f"GRANT {owner} TO {v1.user}, {v2.user}, {v3.user};"
        f"CREATE SCHEMA shop AUTHORIZATION {owner}"
    )
    use_path(database, "shop")
    shop = Shop(gate, owner)

    # The login name changes, and the first one goes.
    shop.opens(v1, 2, applied=2)
    shop.opens(v2, 3, applied=1)
    database.execute(f"BEGIN; DROP ROLE {v1.user}; ROLLBACK")
    assert steps(database, "shop") == [1, 2, 3]

    # A restore by the second one, who owns all of it then; the search path is lost.
    text = dump(Path(tool("pg_dump")).parent, database, "--no-owner", "--no-acl")
    moved = databases.create()
    moved.execute(f"GRANT CREATE ON DATABASE {moved.name} TO {v2.user}")
    restore(text, moved.changed(user=v2.user, password=v2.password))
    third = moved.changed(user=v3.user, password=v3.password)
    shop.closes(third, 3, hint="GRANT USAGE ON SCHEMA shop")
    moved.execute(f"REASSIGN OWNED BY {v2.user} TO {owner}")
    shop.opens(third, 3, applied=0)
    use_path(moved, "shop")
    shop.opens(third, 4, applied=1)
    assert steps(moved, "shop") == [1, 2, 3, 4]

    # An adviser switches on row security, then forces it; all tables are published.
    secure = "ALTER TABLE shop.schema_migrations {} ROW LEVEL SECURITY"
    moved.execute(secure.format("ENABLE") + "; CREATE PUBLICATION p FOR ALL TABLES")
    shop.opens(third, 5, applied=1)
    moved.execute(secure.format("FORCE"))
    moved.execute(remedy(shop.start(third, 6)))
    shop.opens(third, 6, applied=1)
    assert steps(moved, "shop") == [1, 2, 3, 4, 5, 6]

    # The image goes back and forth.
    back = shop.opens(third, 4, applied=0)
    assert back.verdict["warnings"] == ["history.unknown_versions"]
    shop.opens(third, 6, applied=0)

    # The schema is renamed, and the search path follows later.
    moved.execute("ALTER SCHEMA shop RENAME TO store")
    shop.opens(third, 6, applied=0)
    use_path(moved, "store")
    shop.opens(third, 7, applied=1)

    add_application(gate, moved)
    assert shop.opens(third, 7, applied=0).verdict["warnings"] == []

    # The second restore, of a backup from before the last release.
    backup = dump(Path(tool("pg_dump")).parent, moved)
    shop.opens(third, 8, applied=1)
    again = databases.create()
    restore(backup, again, path="store")
    third = again.changed(user=v3.user, password=v3.password)
    shop.opens(third, 8, applied=1)
    shop.opens(third, 8, applied=0)
    other = gate(database=again, migrations=ORDERS, env=OWN)
    assert (other.exit_code, other.verdict["applied"]) == (0, [])
    for each in (moved, again):
        assert steps(each, "store") == [1, 2, 3, 4, 5, 6, 7, 8]
