"""The history is found in any schema, and where there are two the gate asks which."""

from __future__ import annotations

import pytest

from migration_gate.files.migration import checksum
from tests.fix_gate import Gate
from tests.fix_postgres import Database
from tests.history_tables import FULL, ONE, TWO, why


TABLES = """
SELECT schemaname::text FROM pg_catalog.pg_tables
WHERE tablename = 'schema_migrations' ORDER BY 1
"""


def schemas(database: Database) -> list[str]:
    """Return the schemas that have a history table."""
    return [schema for (schema,) in database.fetch(TABLES)]


def use_path(database: Database, path: str) -> None:
    """Set the database's search path."""
    database.execute(f"ALTER DATABASE {database.name} SET search_path = {path}")


def make_history(database: Database, schema: str, **rows: str | None) -> None:
    """Make a history table with rows, each a version without .sql and a checksum."""
    database.execute(
        f"CREATE SCHEMA IF NOT EXISTS {schema}; SET search_path = {schema}; {FULL}"
    )
    for version, checked in rows.items():
        database.fetch(
            f"INSERT INTO {schema}.schema_migrations (version, checksum)"
            " VALUES (%s, %s) RETURNING 1",
            (f"{version[1:]}.sql", checked),
        )


def test_a_migration_that_changes_the_search_path_loses_no_history(
    gate: Gate, database: Database
) -> None:
    """The next start looks in another schema first, and finds the first one's rows."""
    files = {
        "001_schema.sql": "CREATE SCHEMA hello; CREATE TABLE hello.u (n int);"
        f"ALTER DATABASE {database.name} SET search_path TO hello;",
        "003_row.sql": "INSERT INTO hello.u VALUES (1);",
    }
    assert gate(database=database, migrations=files).exit_code == 0
    again = gate(database=database, migrations=files)
    assert again.exit_code == 0, again.output
    assert again.verdict["applied"] == []
    more = {**files, "004_row.sql": "INSERT INTO hello.u VALUES (2);"}
    assert gate(database=database, migrations=more).verdict["applied"] == [
        "004_row.sql"
    ]
    assert database.fetch("SELECT n FROM hello.u ORDER BY 1") == [(1,), (2,)]
    assert schemas(database) == ["public"]


@pytest.mark.parametrize(
    "command",
    [pytest.param("migrate", marks=pytest.mark.server), "check", "status", "plan"],
)
def test_a_search_path_that_is_lost_loses_no_history(
    gate: Gate, database: Database, command: str
) -> None:
    """As with a restore: roles and databases keep their settings elsewhere."""
    database.execute("CREATE SCHEMA app")
    use_path(database, "app")
    assert gate(database=database, migrations=TWO).exit_code == 0
    use_path(database, "DEFAULT")
    run = gate(command, database=database, migrations=TWO)
    assert run.exit_code == 0, run.output
    assert schemas(database) == ["app"]


def test_a_schema_that_is_renamed_keeps_its_history(
    gate: Gate, database: Database
) -> None:
    """Though the search path still has the old name."""
    database.execute("CREATE SCHEMA app")
    use_path(database, "app, public")
    assert gate(database=database, migrations=ONE).exit_code == 0
    database.execute("ALTER SCHEMA app RENAME TO shop")
    assert gate(database=database, migrations=TWO).verdict["applied"] == ["2_b.sql"]
    assert schemas(database) == ["shop"]


@pytest.mark.server
def test_two_histories_that_the_search_path_does_not_name_close_the_gate(
    gate: Gate, database: Database
) -> None:
    """Both are named, and either setting opens it."""
    make_history(database, "a", _1_a=None)
    make_history(database, "b", _1_a=None)
    run = gate(database=database, migrations=ONE)
    assert why(run) == (
        1,
        "history",
        (
            "2 tables could be the history, and the search path names the schema of"
            ' none: "a.schema_migrations", "b.schema_migrations"'
        ),
    )
    assert "GATE_HISTORY_TABLE=a.schema_migrations or " in run.verdict["hint"]
    assert schemas(database) == ["a", "b"]
    env = {"GATE_HISTORY_TABLE": "a.schema_migrations"}
    assert gate(database=database, migrations=ONE, env=env).exit_code == 0
    use_path(database, "b")
    assert gate(database=database, migrations=ONE).exit_code == 0


@pytest.mark.parametrize("known", [True, False], ids=["by checksum", "by name"])
def test_what_another_history_has_is_not_applied_once_more(
    gate: Gate, database: Database, *, known: bool
) -> None:
    """The path's own history says pending, the other one says applied."""
    make_history(database, "public", _1_a=None)
    other = checksum(TWO["2_b.sql"].encode()) if known else None
    make_history(database, "b", _1_a=None, _2_b=other)
    for command in ("migrate", "check"):
        run = gate(command, database=database, migrations=TWO)
        assert why(run) == (
            1,
            "history",
            (
                'two tables could be the history: "2_b.sql" is pending by'
                ' "public.schema_migrations", and applied by "b.schema_migrations"'
            ),
        )
    assert gate(database=database, migrations=ONE).exit_code == 0
    env = {"GATE_HISTORY_TABLE": "public.schema_migrations"}
    run = gate(database=database, migrations=TWO, env=env)
    assert run.verdict["applied"] == ["2_b.sql"]


def test_what_a_copy_of_the_history_has_is_not_applied_once_more(
    gate: Gate, database: Database
) -> None:
    """It has a file of these, to the letter: the edited one was applied too."""
    first = checksum(TWO["1_a.sql"].encode())
    make_history(database, "public", _1_a=first)
    make_history(database, "b", _1_a=first, _2_b=f"sha256:{'0' * 64}")
    run = gate(database=database, migrations=TWO)
    assert why(run)[1] == "history"
    assert 'applied by "b.schema_migrations"' in why(run)[2]
    assert gate(database=database, migrations=ONE).exit_code == 0


def test_another_applications_history_is_no_matter(
    gate: Gate, database: Database
) -> None:
    """Its files are others, also where one has a name of ours."""
    make_history(database, "a", _1_a="sha256:0", _7_z=None)
    database.execute("CREATE SCHEMA b")
    use_path(database, "b")
    env = {"GATE_HISTORY_TABLE": "b.schema_migrations"}
    assert gate(database=database, migrations=ONE, env=env).exit_code == 0
    assert gate(database=database, migrations=TWO).verdict["applied"] == ["2_b.sql"]


def test_a_second_application_is_asked_for_a_table_of_its_own(
    gate: Gate, database: Database
) -> None:
    """Before a second table is made, and before another's is written to."""
    make_history(database, "a", _7_z=None)
    run = gate(database=database, migrations=ONE)
    assert why(run) == (
        1,
        "history",
        (
            'table "a.schema_migrations", which the search path does not name, has'
            " rows, and none is of a file here"
        ),
    )
    resolved = gate("resolve", "1_a", "--applied", database=database, migrations=ONE)
    assert why(resolved) == why(run)
    assert schemas(database) == ["a"]
    env = {"GATE_HISTORY_TABLE": "public.schema_migrations"}
    assert gate(database=database, migrations=ONE, env=env).exit_code == 0


@pytest.mark.server
def test_a_table_that_nobody_trusted_has_made_counts_for_nothing(
    gate: Gate, database: Database
) -> None:
    """A role with a schema of its own closes no gate, and opens none."""
    other = database.role("other")
    database.execute(f"CREATE SCHEMA x AUTHORIZATION {other.user}")
    row = f"('1_a.sql', '{checksum(ONE['1_a.sql'].encode())}')"
    other.execute(
        f"SET search_path = x; {FULL}"
        f" INSERT INTO schema_migrations (version, checksum) VALUES {row}"
    )
    migrator = database.role("migrator")
    database.execute(f"GRANT CREATE ON SCHEMA public TO {migrator.user}")
    run = gate(database=migrator, migrations=ONE)
    assert run.verdict["applied"] == ["1_a.sql"], run.output
    assert schemas(database) == ["public", "x"]


@pytest.mark.server
@pytest.mark.parametrize("right", ["USAGE", "SELECT"])
def test_a_history_elsewhere_that_cannot_be_read_closes_the_gate(
    gate: Gate, database: Database, right: str
) -> None:
    """Whether it is that of these files is not known; the hint's GRANTs open it."""
    make_history(database, "app", _1_a=None)
    role = database.role("migrator")
    database.execute(f"GRANT CREATE ON SCHEMA public TO {role.user}")
    if right == "SELECT":
        database.execute(f"GRANT USAGE ON SCHEMA app TO {role.user}")
    run = gate(database=role, migrations=ONE)
    assert why(run) == (
        1,
        "history",
        (
            f'table "app.schema_migrations" could be the history, and role {role.user}'
            " may not read it"
        ),
    )
    grants = run.verdict["hint"].partition(": ")[2].partition("; where")[0]
    database.execute(grants)
    assert gate(database=role, migrations=ONE).exit_code == 0


@pytest.mark.server
def test_another_tools_table_in_another_schema_is_no_history(
    gate: Gate, database: Database
) -> None:
    """Its name is ours, its columns are not."""
    database.execute(
        "CREATE SCHEMA rails; CREATE TABLE rails.schema_migrations"
        " (version varchar PRIMARY KEY)"
    )
    assert gate(database=database, migrations=ONE).exit_code == 0
    assert schemas(database) == ["public", "rails"]
