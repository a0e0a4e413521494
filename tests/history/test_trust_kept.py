"""A release that would close every later start fails itself, and leaves nothing."""

from __future__ import annotations

import pytest

from tests.fix_gate import Gate
from tests.fix_postgres import Database
from tests.history_tables import ONE, versions, why


ALL = (
    "DO $$ DECLARE t regclass; BEGIN FOR t IN SELECT oid FROM pg_class WHERE"
    " relnamespace = 'public'::regnamespace AND relkind = 'r' LOOP"
    " EXECUTE format('{}', t); END LOOP; END $$;"
)
TOUCH = (
    "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS"
    " $f$ BEGIN RETURN NEW; END $f$;\n"
)
BREAKS = {
    "a trigger": TOUCH
    + ALL.format("CREATE TRIGGER touch BEFORE UPDATE ON %s EXECUTE FUNCTION touch()"),
    "a rule": ALL.format("CREATE RULE r AS ON DELETE TO %s DO INSTEAD NOTHING"),
    "row security": ALL.format("ALTER TABLE %s ENABLE ROW LEVEL SECURITY")
    + ALL.format("ALTER TABLE %s FORCE ROW LEVEL SECURITY"),
    "unlogged rows": ALL.format("ALTER TABLE %s SET UNLOGGED"),
    "another owner": ALL.format("ALTER TABLE %s OWNER TO {stranger}"),
}


@pytest.mark.parametrize(
    "outside", [pytest.param(False, marks=pytest.mark.server), True]
)
@pytest.mark.parametrize("left_with", BREAKS)
def test_a_file_that_does_it_to_every_table_is_refused(
    gate: Gate, database: Database, left_with: str, *, outside: bool
) -> None:
    """In a transaction and outside one; without that statement it goes on."""
    login, stranger = database.role("app"), database.role("stranger")
    database.execute(f"GRANT CREATE ON SCHEMA public TO {login.user}, {stranger.user};")
    # A superuser may give tables away; row security is not active for one.
    logged_in = database if left_with == "another owner" else login
    text = BREAKS[left_with].replace("{stranger}", stranger.user)
    head = "-- gate: no-transaction\n" if outside else ""
    files = {**ONE, "2_all.sql": head + text}
    run = gate(database=logged_in, migrations=files)
    again = gate("check", database=logged_in, migrations=ONE)

    told = (
        f'the migration leaves the history table "schema_migrations" with {left_with}'
    )
    assert why(run)[:2] == (1, "history"), run.output
    assert told in run.verdict["error_message"]
    assert run.verdict["version"] == "2_all.sql"
    assert "relname NOT LIKE" in run.verdict["hint"]
    assert again.exit_code == 0, again.output
    assert versions(database) == ["1_a.sql"]


def test_row_security_that_is_not_forced_is_no_danger_to_the_owner(
    gate: Gate, database: Database
) -> None:
    """As a platform's adviser switches it on for every table."""
    login = database.role("app")
    database.execute(f"GRANT CREATE ON SCHEMA public TO {login.user}")
    text = ALL.format("ALTER TABLE %s ENABLE ROW LEVEL SECURITY")
    files = {**ONE, "2_all.sql": text}
    first = gate(database=login, migrations=files)
    second = gate(database=login, migrations={**files, "3_b.sql": "SELECT 1;"})
    assert (first.exit_code, second.verdict["applied"]) == (0, ["3_b.sql"])


def test_it_is_refused_for_a_reader_to_whom_it_hides_rows(
    gate: Gate, database: Database
) -> None:
    """With the statement that mends it: a history of no rows would be waited for."""
    login, reader = database.role("app"), database.role("reader")
    database.execute(f"GRANT CREATE ON SCHEMA public TO {login.user}")
    gate(database=login, migrations=ONE)
    login.execute(
        f"GRANT SELECT ON schema_migrations TO {reader.user};"
        "ALTER TABLE schema_migrations ENABLE ROW LEVEL SECURITY"
    )
    run = gate("check", database=reader, migrations=ONE)
    statement = "ALTER TABLE public.schema_migrations DISABLE ROW LEVEL SECURITY;"
    assert why(run)[:2] == (1, "history")
    assert "it has row security, which is active for" in run.verdict["error_message"]
    assert statement in run.verdict["hint"]


CHANGES = {
    "deletes": "DELETE FROM schema_migrations WHERE version = '1_a.sql';",
    "renames": "UPDATE schema_migrations SET version = 'x' WHERE version = '1_a.sql';",
    "inserts": (
        "DO $$ BEGIN EXECUTE 'INSERT INTO schema_migrations (version) VALUES (''3'')';"
        " END $$;"
    ),
}


@pytest.mark.parametrize(
    "outside", [pytest.param(False, marks=pytest.mark.server), True]
)
@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_writes_anothers_row_is_refused(
    gate: Gate, database: Database, change: str, *, outside: bool
) -> None:
    """The next start would run that one again, or never."""
    head = "-- gate: no-transaction\n" if outside else ""
    files = {**ONE, "2_x.sql": head + CHANGES[change]}
    run = gate(database=database, migrations=files)
    assert why(run)[:2] == (1, "history"), run.output
    assert "writes rows of it" in run.verdict["error_message"]
    assert versions(database) == ["1_a.sql"]


@pytest.mark.server
def test_a_server_that_counts_nothing_refuses_nothing(
    gate: Gate, database: Database
) -> None:
    """Rows that are written are known by PostgreSQL's own counters."""
    database.execute(f"ALTER DATABASE {database.name} SET track_counts = off")
    run = gate(database=database, migrations={**ONE, "2_b.sql": "SELECT 1;"})
    assert run.verdict["applied"] == ["1_a.sql", "2_b.sql"]


EVENT_TRIGGER = """
CREATE FUNCTION for_each() RETURNS event_trigger LANGUAGE plpgsql AS $$
DECLARE made record;
BEGIN
    FOR made IN SELECT * FROM pg_event_trigger_ddl_commands()
        WHERE object_type = 'table' AND object_identity ~ '{name}$'
    LOOP
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY,'
                       ' FORCE ROW LEVEL SECURITY', made.object_identity);
    END LOOP;
END $$;
CREATE EVENT TRIGGER secure_all ON ddl_command_end WHEN TAG IN ('CREATE TABLE')
EXECUTE FUNCTION for_each();
"""


@pytest.mark.server
@pytest.mark.parametrize("name", ["schema_migrations", "schema_migrations_progress"])
def test_an_event_trigger_that_changes_the_gates_table_is_named(
    gate: Gate, database: Database, name: str
) -> None:
    """Nothing is made: with the trigger out of the way the same files are applied."""
    login = database.role("app")
    database.execute(
        f"GRANT CREATE ON SCHEMA public TO {login.user};"
        + EVENT_TRIGGER.replace("{name}", name)
    )
    files = {"1_x.sql": "-- gate: no-transaction\nCREATE TABLE x ();"}
    run = gate(database=login, migrations=files)
    left = database.fetch("SELECT to_regclass(%s) IS NULL", [name])
    database.execute("ALTER EVENT TRIGGER secure_all DISABLE")
    mended = gate(database=login, migrations=files)

    assert why(run) == (
        1,
        "history",
        (
            f'table "public.{name}" would be made with row security, and no start'
            " would trust it"
        ),
    )
    assert "secure_all" in run.verdict["hint"]
    assert left == [(True,)]
    assert mended.exit_code == 0, mended.output
