"""Two applications in one database, and what each is told of the other's rows."""

from __future__ import annotations

from tests.fix_gate import Gate
from tests.fix_postgres import Database
from tests.history_tables import versions


USERS = {
    "001_init.sql": "CREATE TABLE users ();",
    "002_names.sql": "ALTER TABLE users ADD name text;",
    "003_mail.sql": "ALTER TABLE users ADD mail text;",
}
ORDERS = {"001_init.sql": "CREATE TABLE orders ();", "002_x.sql": "SELECT 1;"}


def test_a_file_of_the_same_name_is_answered_with_a_history_of_its_own(
    gate: Gate, database: Database
) -> None:
    """The remedy, followed, applies the second application's files."""
    gate(database=database, migrations=USERS)
    closed = gate(database=database, migrations=ORDERS)
    own = {"GATE_HISTORY_TABLE": "public.orders_migrations"}
    opened = gate(database=database, migrations=ORDERS, env=own)
    first = gate(database=database, migrations=USERS)

    assert (closed.exit_code, closed.verdict["reason"]) == (1, "history")
    assert "GATE_HISTORY_TABLE" in closed.verdict["hint"]
    assert "GATE_CHANGED" not in closed.verdict["hint"]
    assert opened.verdict["applied"] == list(ORDERS)
    assert (first.exit_code, first.verdict["warnings"]) == (0, [])
    assert versions(database) == list(USERS)


def test_a_shared_history_warns_once_a_start(gate: Gate, database: Database) -> None:
    """That what is pending is below the other's numbers says nothing new."""
    gate(database=database, migrations=USERS)
    files = {"001_orders.sql": "CREATE TABLE orders ();"}
    applied = gate(database=database, migrations=files)
    again = gate(database=database, migrations=files)

    assert applied.verdict["applied"] == ["001_orders.sql"]
    assert applied.verdict["warnings"] == ["history.unknown_versions"]
    assert again.verdict["warnings"] == ["history.unknown_versions"]


def test_a_changed_file_is_told_with_when_and_what(
    gate: Gate, database: Database
) -> None:
    """Enough to find the commit that was applied."""
    gate(database=database, migrations=USERS)
    ((applied_at,),) = database.fetch(
        "SELECT to_char(applied_at, 'YYYY-MM-DD\"T\"HH24:MI:SS') "
        "FROM schema_migrations WHERE version = '002_names.sql'"
    )
    edited = USERS | {"002_names.sql": "ALTER TABLE users ADD first_name text;"}
    closed = gate(database=database, migrations=edited)

    message, hint = closed.verdict["error_message"], closed.verdict["hint"]
    assert f"was changed after being applied: at {applied_at}" in message
    assert message.count("sha256:") == 2
    assert "git log -p -- '*002_names.sql'" in hint
