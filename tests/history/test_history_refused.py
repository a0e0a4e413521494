"""A server that says no where the gate makes or writes its own tables."""

from __future__ import annotations

import pytest

from tests.fix_gate import Gate
from tests.fix_postgres import Database
from tests.history_tables import ONE, PLAIN, tables, versions


OUTSIDE = {"1_a.sql": "-- gate: no-transaction\nCREATE TABLE a ();"}
FORBIDS = """
CREATE FUNCTION forbid() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
    {what}
END $$;
CREATE EVENT TRIGGER no_tables ON {event} {when} EXECUTE FUNCTION forbid();
"""
RAISES = "RAISE EXCEPTION 'ask hunter2 for a table';"
# What an event trigger does, and the SQLSTATE and words that are told of it.
TRIGGERS = {
    "raises": (RAISES, "P0001", "an error that PL/pgSQL function forbid() line 3"),
    "forbids": (
        "RAISE insufficient_privilege USING MESSAGE = 'hunter2';",
        "42501",
        "an error that PL/pgSQL function forbid() line 3",
    ),
    "divides": ("PERFORM 1/0;", "22012", "division by zero"),
    "is broken": ("PERFORM nowhere();", "42883", "function nowhere() does not exist"),
    "says that the connection failed": (
        "RAISE connection_failure USING MESSAGE = 'hunter2';",
        "08006",
        "an error that",
    ),
}


@pytest.mark.parametrize(
    "table",
    [
        pytest.param("schema_migrations", marks=pytest.mark.server),
        "schema_migrations_progress",
    ],
)
@pytest.mark.parametrize("what", TRIGGERS)
def test_an_event_trigger_that_forbids_a_table_is_named(
    gate: Gate, database: Database, what: str, table: str
) -> None:
    """With the table, the cleaned words and the SQLSTATE; nothing is left."""
    body, sqlstate, words = TRIGGERS[what]
    role = database.role("deployer")
    database.execute(f"GRANT CREATE ON SCHEMA public TO {role.user}")
    if table != "schema_migrations":
        assert gate(database=role, migrations={"0_x.sql": "SELECT 1;"}).exit_code == 0
    script = FORBIDS.format(
        what=body, event="ddl_command_start", when="WHEN TAG IN ('CREATE TABLE')"
    )
    database.execute(script)

    files = OUTSIDE if table != "schema_migrations" else ONE
    run = gate(database=role, migrations={"0_x.sql": "SELECT 1;", **files})

    verdict = run.verdict
    assert (run.exit_code, verdict["reason"]) == (1, "refused"), run.output
    assert verdict["sqlstate"] == sqlstate
    named = f'could not make table "public.{table}": {words}'
    assert verdict["error_message"].startswith(named), verdict
    assert "ALTER EVENT TRIGGER no_tables DISABLE;" in verdict["hint"]
    assert f"role {role.user} makes it" in verdict["hint"]
    assert "hunter2" not in run.output
    assert len(run.all("plan.made")) == 1
    assert tables(database) == []


@pytest.mark.server
def test_the_words_of_an_event_trigger_are_shown_where_they_may_be(
    gate: Gate, database: Database
) -> None:
    """GATE_LOG_DETAIL=full."""
    when = "WHEN TAG IN ('CREATE TABLE')"
    database.execute(FORBIDS.format(what=RAISES, event="ddl_command_start", when=when))
    run = gate(database=database, migrations=ONE, env={"GATE_LOG_DETAIL": "full"})
    assert "ask hunter2 for a table" in run.verdict["error_message"]


@pytest.mark.server
def test_a_right_that_lacks_is_told_from_a_trigger_that_forbids(
    gate: Gate, database: Database
) -> None:
    """The GRANT is what mends it, also where event triggers are."""
    role = database.role("poor")
    database.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    database.execute(FORBIDS.format(what="", event="ddl_command_end", when=""))
    closed = gate(database=role, migrations=ONE)
    assert "lacks CREATE on schema" in closed.verdict["error_message"], closed.output
    database.execute(closed.verdict["hint"])
    assert gate(database=role, migrations={"1_a.sql": "SELECT 1;"}).exit_code == 0


BARE = """
CREATE TABLE schema_migrations (version text NOT NULL UNIQUE, applied_at timestamp,
    checksum text, duration_ms bigint, gate_version text);
CREATE PUBLICATION everything FOR ALL TABLES;
"""
MEND = "ALTER TABLE public.schema_migrations REPLICA IDENTITY FULL;"


@pytest.mark.server
def test_a_history_that_is_published_without_identity_blames_no_file(
    gate: Gate, database: Database
) -> None:
    """The hint, run as it is, opens the gate."""
    database.execute(BARE)
    closed = gate(database=database, migrations=ONE)
    assert (closed.exit_code, closed.verdict["reason"]) == (1, "history"), closed.output
    assert closed.verdict["sqlstate"] == "55000"
    assert 'finish migration "1_a.sql"' in closed.verdict["error_message"]
    assert "file" not in closed.verdict
    assert closed.verdict["hint"].startswith(MEND)
    assert tables(database) == []
    database.execute(MEND)
    assert gate(database=database, migrations=ONE).verdict["applied"] == ["1_a.sql"]


@pytest.mark.server
def test_resolve_says_why_a_published_history_cannot_lose_a_row(
    gate: Gate, database: Database
) -> None:
    """No connection was lost."""
    database.execute(BARE + "INSERT INTO schema_migrations VALUES ('1_a.sql', now())")
    said = ("resolve", "1_a.sql", "--not-applied")
    run = gate(*said, database=database, migrations=ONE)
    assert (run.exit_code, run.verdict["reason"]) == (1, "history"), run.output
    assert run.verdict["sqlstate"] == "55000"
    assert run.verdict["hint"].startswith(MEND)
    assert versions(database) == ["1_a.sql"]


@pytest.mark.server
def test_a_trigger_that_a_file_puts_on_the_history_is_named(
    gate: Gate, database: Database
) -> None:
    """An updated_at trigger for each table: it never runs as the login role."""
    database.execute(PLAIN)
    files = {
        "1_a.sql": "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$\n"
        "BEGIN NEW.updated_at := now(); RETURN NEW; END $$;\n"
        "CREATE TRIGGER touch BEFORE UPDATE ON schema_migrations\n"
        "FOR EACH ROW EXECUTE FUNCTION touch();\n"
    }
    run = gate(database=database, migrations=files)
    assert (run.exit_code, run.verdict["reason"]) == (1, "history"), run.output
    message = run.verdict["error_message"]
    assert message.startswith("1_a.sql:3: the migration leaves the history table")
    assert message.endswith("with a trigger")
    assert versions(database) == []


@pytest.mark.server
@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        ("ALTER COLUMN version TYPE varchar(5)", "version TYPE varchar(255);"),
        ("ADD CHECK (version < '1')", "a constraint that keeps the gate's row out"),
    ],
)
def test_a_column_or_constraint_that_keeps_a_row_out_is_told(
    gate: Gate, database: Database, change: str, remedy: str
) -> None:
    """With what mends it; nothing of the file is left."""
    database.execute(f"{PLAIN} ALTER TABLE schema_migrations {change}")
    run = gate(database=database, migrations=ONE)
    assert run.verdict["reason"] == "history"
    assert remedy in run.verdict["hint"]
    assert tables(database) == []
