"""Rows that are read as they are tell the same history as those the server compares."""

from __future__ import annotations

from contextlib import closing

import psycopg
import pytest

from psycopg import sql
from psycopg.rows import TupleRow

from migration_gate.history.many import Histories
from migration_gate.history.plain_rows import History
from migration_gate.settings.settings import HistoryTableName
from tests.fix_gate import Gate
from tests.fix_postgres import Database


NAME = HistoryTableName(None, "schema_migrations", is_target=True)
TABLE = (
    "CREATE TABLE {}.schema_migrations (id serial PRIMARY KEY, version varchar(255)"
    " UNIQUE, applied_at timestamp DEFAULT now(), checksum text, duration_ms bigint,"
    " gate_version text, superseded text)"
)
ROW = (
    "INSERT INTO schema_migrations (version, applied_at, checksum, gate_version) VALUES"
)
SETS = "UPDATE schema_migrations SET"
# What stands in the history, and whether it is told at all from the rows as they are.
ODD = {
    "plain": ("", True),
    "order": (f"{ROW} ('0_first.sql', '2020-01-01', 'x', '0.1.0');", True),
    "fractions": (
        (
            f"{ROW} ('9.sql', '2030-01-01 00:00:00', 'x', ''),"
            " ('8.sql', '2030-01-01 00:00:00.5', 'x', ''),"
            " ('7.sql', '2030-01-01 00:00:00.25', 'x', '');"
        ),
        True,
    ),
    "same millisecond": (
        (
            f"{ROW} ('9.sql', '2030-01-01 00:00:00.0001', 'x', ''),"
            " ('10.sql', '2030-01-01 00:00:00.0002', 'x', '');"
        ),
        True,
    ),
    "ties": (
        f"{ROW} ('b.sql', '2020-01-01', 'x', ''), ('a.sql', '2020-01-01', 'y', '');",
        True,
    ),
    "no time": (f"{ROW} ('z.sql', NULL, 'x', ''), ('y.sql', NULL, 'x', '');", True),
    "no checksum": (f"{SETS} checksum = NULL;", True),
    "empty checksum": (f"{SETS} checksum = '';", True),
    "no version": (f"{ROW} (NULL, '2020-01-01', 'x', '');", True),
    "superseded": (f"{SETS} superseded = 'sha256:1 sha256:2';", True),
    "adopted": (
        f"{SETS} gate_version = 'adopted from goose 0.1.0' WHERE version = '1.sql';",
        True,
    ),
    "less": ("ALTER TABLE schema_migrations DROP superseded, DROP gate_version;", True),
    "zone": (
        (
            "ALTER TABLE schema_migrations ALTER applied_at TYPE timestamptz;"
            f"{ROW} ('6.sql', '2024-10-27 00:30:00Z', 'x', ''),"
            " ('5.sql', '2024-10-27 01:30:00Z', 'x', '');"
        ),
        True,
    ),
    "long name": (
        (
            "ALTER TABLE schema_migrations ALTER version TYPE text;"
            f"{ROW} (repeat('n', 400), '2020-01-01', 'x', '');"
        ),
        True,
    ),
    "padded": (
        "ALTER TABLE schema_migrations ALTER version TYPE char(20);",
        False,
    ),
    "letters": (f"{ROW} ('ü€𝄞.sql', '2020-01-01', 'ß', '');", True),
    "backslash": (f"{ROW} (E'a\\\\b.sql', '2020-01-01', 'x', '');", False),
    "tab": (f"{ROW} (E'a\\tb.sql', '2020-01-01', 'x', '');", False),
    "line": (f"{SETS} superseded = E'a\\nb';", False),
    "infinity": (f"{ROW} ('i.sql', 'infinity', 'x', '');", False),
    "before Christ": (f"{ROW} ('c.sql', '0044-03-15 BC', 'x', '');", False),
    "far": (f"{ROW} ('f.sql', '12024-01-01', 'x', '');", False),
    "child": (
        (
            "CREATE TABLE child () INHERITS (schema_migrations);"
            "INSERT INTO child (version) VALUES ('child.sql');"
        ),
        True,
    ),
    "empty": ("DELETE FROM schema_migrations;", False),
}


def look(conn: psycopg.Connection[TupleRow]) -> dict[str, History]:
    """Look at all of them."""
    return dict(Histories(NAME, None).look(conn, list(ODD), 5))


def told(history: History) -> tuple[object, ...]:
    """Return what a plan depends on."""
    rows = [(row.version, row.checksum, row.superseded) for row in history.rows]
    return rows, history.tool


@pytest.mark.server
def test_both_ways_to_read_tell_the_same(database: Database) -> None:
    """Whatever stands there; what COPY writes in another way is left to a look."""
    for name, (script, _) in ODD.items():
        schema = sql.Identifier(name).as_string()
        database.execute(
            f"CREATE SCHEMA {schema}; {TABLE.format(schema)};"
            f"SET search_path = {schema};"
            f"{ROW} ('1.sql', '2024-01-01', 'sha256:1', '0.1.0'),"
            f" ('2.sql', '2024-01-02', 'sha256:2', '0.1.0'); {script}"
        )
    database.execute(
        f'ALTER DATABASE "{database.name}" SET datestyle = german;'
        f"ALTER DATABASE \"{database.name}\" SET timezone = 'Europe/Berlin'"
    )
    with closing(database.connect()) as conn:
        read = look(conn)
        conn.execute(
            "UPDATE pg_class SET relpages = 100 WHERE relname = 'schema_migrations'"
        )
        compared = look(conn)
    assert set(read) == {name for name, (_, is_told) in ODD.items() if is_told}
    assert set(compared) == set(ODD) - {"empty"}
    for name, history in read.items():
        assert told(history) == told(compared[name]), name
    texts = {str(told(history)) for history in read.values()}
    # A version or a time more or less is another history; some of these have neither.
    assert len(texts) == len(read) - len(["no version", "less"])


def test_a_generated_column_is_read_by_the_server(database: Database) -> None:
    """COPY has none; what is beside it is told too."""
    for name in ("plain", "odd"):
        database.execute(
            f"CREATE SCHEMA {name}; {TABLE.format(name)}; SET search_path = {name};"
            f"{ROW} ('1.sql', '2024-01-01', 'sha256:1', '0.1.0')"
        )
    database.execute(
        "ALTER TABLE odd.schema_migrations DROP superseded;"
        "ALTER TABLE odd.schema_migrations ADD superseded text"
        " GENERATED ALWAYS AS ('of ' || checksum) STORED"
    )
    with closing(database.connect()) as conn:
        seen = dict(Histories(NAME, None).look(conn, ["plain", "odd"], 5))
    assert told(seen["plain"]) == ([("1.sql", "sha256:1", "")], None)
    assert told(seen["odd"]) == ([("1.sql", "sha256:1", "of sha256:1")], None)


def test_what_the_server_refuses_of_one_table_is_not_said_of_others(
    database: Database,
) -> None:
    """
    Whatever the reason: here the role's own limit, which is shorter than the gate's.

    The look at the one alone tells of it.
    """
    names = ["a", "b", "c"]
    for name in names:
        database.execute(
            f"CREATE SCHEMA {name}; {TABLE.format(name)}; SET search_path = {name};"
            f"{ROW} ('1.sql', '2024-01-01', 'sha256:1', '0.1.0')"
        )
    database.execute(f'ALTER DATABASE "{database.name}" SET statement_timeout = 200')
    with closing(database.connect()) as other, closing(database.connect()) as conn:
        other.execute("BEGIN; LOCK TABLE b.schema_migrations")
        assert set(dict(Histories(NAME, None).look(conn, names, 1))) == {"a", "c"}


def test_a_long_history_is_compared_by_the_server(
    gate: Gate, database: Database
) -> None:
    """Its rows would be more to send than to plan for."""
    files = {f"{number:04}_x.sql": "SELECT 1;" for number in range(300)}
    env = {
        "GATE_TARGETS": "schemas:SELECT nspname FROM pg_namespace WHERE nspname ~ '^t'"
    }
    database.execute("CREATE SCHEMA t1; CREATE SCHEMA t2")
    assert gate(database=database, migrations=files, env=env).exit_code == 0
    with closing(database.connect()) as conn:
        # As where nobody has counted yet.
        conn.execute(
            "UPDATE pg_class SET relpages = 0 WHERE relname = 'schema_migrations'"
        )
        seen = dict(Histories(NAME, None).look(conn, ["t1", "t2"], 5))
        assert seen["t1"] is seen["t2"]
        assert "read" in seen["t1"].digest
        conn.execute("VACUUM ANALYZE t1.schema_migrations, t2.schema_migrations")
        seen = dict(Histories(NAME, None).look(conn, ["t1", "t2"], 5))
        assert seen["t1"] is seen["t2"]
        assert len(seen["t1"].digest) == 64
    run = gate(database=database, migrations=files, env=env)
    assert run.one("fleet.looked")["up_to_date_count"] == 2


def test_a_long_history_that_was_never_counted_is_compared_by_the_server(
    database: Database,
) -> None:
    """As after a restore; all rows of 250 of them would be more than the gate holds."""
    for name in ("a", "b"):
        database.execute(
            f"CREATE SCHEMA {name}; {TABLE.format(name)};"
            f"INSERT INTO {name}.schema_migrations (version, checksum)"
            " SELECT 'version ' || n, repeat('x', 70) FROM generate_series(1, 900) n"
        )
    with closing(database.connect()) as conn:
        conn.execute(
            "UPDATE pg_class SET relpages = 0 WHERE relname = 'schema_migrations'"
        )
        seen = dict(Histories(NAME, None).look(conn, ["a", "b"], 5))
    assert seen["a"] is seen["b"]
    assert len(seen["a"].digest) == 64
    assert len(seen["a"].rows) == 900


def test_schemas_of_any_name_are_read_together(gate: Gate, database: Database) -> None:
    """A name that is not understood would have each of them looked at by itself."""
    odd = ['a b"c', "a\\b", "{a,b}", "NULL", "it's", "ÄÖ%s", '"']
    for name in odd:
        database.execute(f"CREATE SCHEMA {sql.Identifier(name).as_string()}")
    env = {
        "GATE_TARGETS": "schemas:SELECT nspname FROM pg_namespace"
        " WHERE nspname !~ '^(pg_|public$|information_schema$)'"
    }
    files = {"001_a.sql": "CREATE TABLE a ();"}
    assert gate(database=database, migrations=files, env=env).exit_code == 0
    with closing(database.connect()) as conn:
        assert set(dict(Histories(NAME, None).look(conn, odd, 5))) == set(odd)
    run = gate(database=database, migrations=files, env=env)
    assert run.one("fleet.looked")["up_to_date_count"] == len(odd)
