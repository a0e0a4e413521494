"""An invalid index that has the name of a new one: what the last line says of it."""

from __future__ import annotations

import re

import psycopg
import pytest

from tests.fix_gate import Gate
from tests.fix_postgres import Database
from tests.history_tables import versions


pytestmark = pytest.mark.server

BUILDS = {
    "concurrently": "CREATE UNIQUE INDEX CONCURRENTLY t_id ON t (id);",
    "in a transaction": "CREATE UNIQUE INDEX t_id ON t (id);",
}


@pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS)
def test_an_invalid_index_in_the_way_is_named_with_what_drops_it(
    gate: Gate, database: Database, build: str
) -> None:
    """It is never advised to declare the file applied; the remedy opens the gate."""
    database.execute("CREATE TABLE t AS SELECT 1 AS id UNION ALL SELECT 1")
    with pytest.raises(psycopg.errors.UniqueViolation):
        database.execute("CREATE UNIQUE INDEX CONCURRENTLY t_id ON t (id)")
    files = {"001_i.sql": build}
    closed = gate(database=database, migrations=files)
    drop = re.search(r"DROP INDEX [^;]+;", closed.verdict["hint"])
    assert drop is not None, closed.output
    database.execute(drop[0])
    database.execute("DELETE FROM t WHERE ctid = (SELECT min(ctid) FROM t)")
    opened = gate(database=database, migrations=files)

    assert (closed.verdict["sqlstate"], closed.verdict["line"]) == ("42P07", 1)
    message = 'index "public.t_id" exists and is invalid'
    assert closed.verdict["error_message"] == message
    assert "resolve" not in closed.verdict["hint"]
    assert opened.exit_code == 0, opened.output
    assert versions(database) == ["001_i.sql"]


@pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS)
def test_a_valid_index_in_the_way_may_be_declared_applied(
    gate: Gate, database: Database, build: str
) -> None:
    """It is what the file makes, or somebody has to look."""
    database.execute("CREATE TABLE t (id integer); CREATE INDEX t_id ON t (id)")
    closed = gate(database=database, migrations={"001_i.sql": build})

    assert closed.verdict["sqlstate"] == "42P07"
    assert "resolve 001_i.sql --applied" in closed.verdict["hint"]


@pytest.mark.parametrize("head", ["", "-- gate: no-transaction\n"])
def test_if_not_exists_does_not_hide_an_invalid_index(
    gate: Gate, database: Database, head: str
) -> None:
    """PostgreSQL passes over it, and the gate would open without the index."""
    database.execute("CREATE TABLE t AS SELECT 1 AS id UNION ALL SELECT 1")
    with pytest.raises(psycopg.errors.UniqueViolation):
        database.execute("CREATE UNIQUE INDEX CONCURRENTLY t_id ON t (id)")
    database.execute("DELETE FROM t WHERE ctid = (SELECT min(ctid) FROM t)")
    create = "CREATE UNIQUE INDEX IF NOT EXISTS t_id ON t (id);"
    closed = gate(database=database, migrations={"001_i.sql": f"{head}{create}"})
    mended = f"{head}DROP INDEX IF EXISTS t_id;\n{create}\n{create}"
    opened = gate(database=database, migrations={"001_i.sql": mended})

    assert (closed.exit_code, closed.verdict["reason"]) == (1, "migration_failed")
    message = 'index "public.t_id" exists and is invalid'
    assert closed.verdict["error_message"] == message
    assert closed.verdict["line"] == 1 + head.count("\n")
    assert "DROP INDEX CONCURRENTLY public.t_id;" in closed.verdict["hint"]
    assert opened.exit_code == 0, opened.output
    assert versions(database) == ["001_i.sql"]
