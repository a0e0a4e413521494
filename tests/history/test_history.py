"""The gate's own history table: how it is made, found, filled and read."""

from __future__ import annotations

import datetime as dt
import re

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from migration_gate import __version__
from migration_gate.files.migration import checksum
from migration_gate.history.look import look
from migration_gate.history.rows import finish_row
from migration_gate.settings.settings import HistoryTableName
from tests.fix_gate import Gate
from tests.fix_postgres import Database
from tests.history_tables import FULL, OURS, PLAIN, TWO, columns, tables, versions, why


@pytest.mark.server
def test_the_first_start_makes_the_table(gate: Gate, database: Database) -> None:
    """The plain table of the specification, with nullable columns beside."""
    before = dt.datetime.now(dt.UTC)
    run = gate(database=database, migrations=TWO)
    after = dt.datetime.now(dt.UTC)
    assert run.exit_code == 0
    made = columns(database, "schema_migrations")
    database.execute(f"CREATE SCHEMA plain; SET search_path = plain; {PLAIN}")
    plain = [
        (name, kind, not_null, default and default.replace("plain.", ""))
        for name, kind, not_null, default in columns(
            database, "plain.schema_migrations"
        )
    ]
    assert made == [*plain, *((name, kind, False, None) for name, kind in OURS)]
    constraints = (
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = "
        "'{}.schema_migrations'::regclass AND contype <> 'n' ORDER BY 1"
    )
    assert database.fetch(constraints.format("public")) == database.fetch(
        constraints.format("plain")
    )
    rows = database.fetch(
        "SELECT id, version, applied_at, checksum, duration_ms, gate_version"
        " FROM public.schema_migrations ORDER BY id"
    )
    for row, (version, text), event in zip(
        rows, TWO.items(), run.all("migration.applied"), strict=True
    ):
        number, name, applied_at, recorded, duration_ms, gate_version = row
        assert (number, name) == (int(version[0]), version)
        assert recorded == checksum(text.encode())
        assert gate_version == __version__
        assert duration_ms == event["duration_ms"] >= 0
        assert before <= applied_at.replace(tzinfo=dt.UTC) <= after
        assert event["applied_at"] == (
            applied_at.isoformat(timespec="milliseconds") + "Z"
        )


def test_the_duration_is_the_servers_own(gate: Gate, database: Database) -> None:
    """As long as the file took there."""
    files = {"1_a.sql": "SELECT pg_sleep(0.15);"}
    run = gate(database=database, migrations=files)
    ((duration_ms,),) = database.fetch("SELECT duration_ms FROM schema_migrations")
    assert 150 <= duration_ms == run.one("migration.applied")["duration_ms"] < 5000


def test_no_duration_is_less_than_none(database: Database) -> None:
    """A clock may be set back, and a column that keeps whole seconds rounds up."""
    database.execute(FULL)
    with closing(database.connect()) as conn:
        table = look(conn, HistoryTableName(None, "schema_migrations"), None).table
        assert table is not None
        conn.execute(
            "INSERT INTO schema_migrations (version, applied_at, duration_ms)"
            " VALUES ('1_a.sql', clock_timestamp() AT TIME ZONE 'UTC' + '1 h', 0)"
        )
        row = conn.execute(finish_row(table, "1_a.sql")).fetchone()
    assert row is not None
    assert row[0] == 0


@pytest.mark.parametrize("kind", ["timestamp", "timestamptz"])
def test_times_are_utc_whatever_the_role_says(
    gate: Gate, database: Database, kind: str
) -> None:
    """In the table, in the log and in status; neither TimeZone nor DateStyle counts."""
    role = database.role("zoned")
    database.execute(
        f"ALTER ROLE {role.user} SET timezone = 'America/St_Johns';"
        f"ALTER ROLE {role.user} SET datestyle = 'German';"
        f"GRANT ALL ON SCHEMA public TO {role.user};"
    )
    role.execute(PLAIN.replace(" TIMESTAMP", f" {kind}"))
    before = dt.datetime.now(dt.UTC).replace(microsecond=0)
    run = gate(database=role, migrations={"1_a.sql": "SELECT 1;"})
    shown = gate("status", "--json", database=role, migrations={"1_a.sql": "SELECT 1;"})
    text = run.one("migration.applied")["applied_at"]
    assert abs(dt.datetime.fromisoformat(text) - before) < dt.timedelta(seconds=10)
    ((stored,),) = database.fetch(
        "SELECT applied_at"
        + (" AT TIME ZONE 'UTC'" if kind == "timestamptz" else "")
        + " FROM schema_migrations"
    )
    assert stored.isoformat(timespec="milliseconds") + "Z" == text
    assert f'"applied_at": "{text}"' in shown.stdout


def test_rows_that_are_deleted_are_applied_again(
    gate: Gate, database: Database
) -> None:
    """The supported emergency procedure."""
    files = {"1_a.sql": "CREATE TABLE IF NOT EXISTS a ();", "2_b.sql": "SELECT 1;"}
    gate(database=database, migrations=files)
    database.execute("DELETE FROM schema_migrations WHERE version = '1_a.sql'")
    run = gate(database=database, migrations=files)
    assert run.verdict["applied"] == ["1_a.sql"]
    assert run.one("history.out_of_order")["versions"] == ["1_a.sql"]
    assert sorted(versions(database)) == ["1_a.sql", "2_b.sql"]


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("gate_history", "public.gate_history"),
        ("ops.history", "ops.history"),
        ("Ops.History", '"Ops"."History"'),
        ('"o.p s"."h""i\'%s"', '"o.p s"."h""i\'%s"'),
        ("grün.geschichte", '"grün"."geschichte"'),
        ("select.order", '"select"."order"'),
    ],
)
def test_the_table_may_have_any_name(
    gate: Gate, database: Database, setting: str, expected: str
) -> None:
    """A schema that is missing is made; a second start finds all of it."""
    env = {"GATE_HISTORY_TABLE": setting}
    run = gate(database=database, migrations=TWO, env=env)
    assert run.verdict["applied"] == ["1_a.sql", "2_b.sql"], run.output
    assert versions(database, expected) == ["1_a.sql", "2_b.sql"]
    assert gate(database=database, migrations=TWO, env=env).verdict["applied"] == []


def test_the_table_is_found_through_the_roles_search_path(
    gate: Gate, database: Database
) -> None:
    """It is made in the first schema that exists, and found where the path has it."""
    database.execute("CREATE SCHEMA app")
    role = database.role("finder")
    database.execute(
        f"GRANT ALL ON SCHEMA public, app TO {role.user};"
        f"ALTER ROLE {role.user} SET search_path = nowhere, app, public;"
    )
    gate(database=role, migrations={"1_a.sql": "CREATE TABLE a ();"})
    assert versions(database, "app.schema_migrations") == ["1_a.sql"]
    database.execute(f"ALTER ROLE {role.user} SET search_path = public, app;")
    run = gate(database=role, migrations=TWO)
    assert run.verdict["applied"] == ["2_b.sql"]
    assert versions(database, "app.schema_migrations") == ["1_a.sql", "2_b.sql"]
    assert tables(database) == ["b"]


@pytest.mark.server
def test_a_search_path_without_a_schema_is_explained(
    gate: Gate, database: Database
) -> None:
    """There is nowhere to make the table."""
    role = database.role("lost")
    database.execute(f"ALTER ROLE {role.user} SET search_path = ''")
    run = gate(database=role, migrations=TWO)
    assert why(run) == (
        1,
        "refused",
        f"the search path of role {role.user} names no schema that it may use",
    )
    assert "GATE_HISTORY_TABLE=schema.schema_migrations" in run.verdict["hint"]


@pytest.mark.server
def test_a_search_path_that_begins_with_the_sessions_own_schema_is_explained(
    gate: Gate, database: Database
) -> None:
    """A history there would be gone with the session, and every file run again."""
    role = database.role("passing")
    database.execute(f"ALTER ROLE {role.user} SET search_path = pg_temp, public")
    run = gate(database=role, migrations=TWO)
    assert run.verdict["reason"] == "refused"
    assert "begins with pg_temp" in run.verdict["error_message"]


@pytest.mark.server
@pytest.mark.timeout(90)
def test_twenty_gates_at_once_make_it_once(gate: Gate, database: Database) -> None:
    """All open, each migration is applied once, and no error is in the server's log."""
    files = {f"{number}_x.sql": f"CREATE TABLE t{number} ();" for number in range(1, 4)}
    processes = [gate.start(database=database, migrations=files) for _ in range(20)]
    with ThreadPoolExecutor(20) as pool:
        runs = list(pool.map(lambda process: process.wait(60), processes))
    assert [run.exit_code for run in runs] == [0] * 20
    applied = [version for run in runs for version in run.verdict["applied"]]
    assert sorted(applied) == sorted(files) == sorted(versions(database))
    if database.server.embedded is not None:
        assert re.findall("(?:ERROR|FATAL|WARNING): .*", database.log) == []


def test_another_program_may_make_it_at_the_same_time(
    gate: Gate, database: Database
) -> None:
    """The gate looks again, takes over what it finds, and counts its rows."""
    with closing(database.connect()) as other:
        other.execute(f"BEGIN; {PLAIN}")
        other.execute("INSERT INTO schema_migrations (version) VALUES ('1_a.sql')")
        process = gate.start(database=database, migrations=TWO)
        process.wait_for("lock.acquired")
        waits = (
            "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            " AND datname = current_database()"
        )
        while not database.fetch(waits):
            assert process.is_running
        other.execute("COMMIT")
        run = process.wait()
    assert run.exit_code == 0, run.output
    assert run.verdict["applied"] == ["2_b.sql"]
    assert sorted(versions(database)) == ["1_a.sql", "2_b.sql"]


RIGHTS = {
    "USAGE": "REVOKE USAGE ON SCHEMA app FROM {role}",
    "SELECT": "REVOKE SELECT ON app.schema_migrations FROM {role}",
    "INSERT": "REVOKE INSERT ON app.schema_migrations FROM {role}",
    "sequence": "REVOKE ALL ON SEQUENCE app.schema_migrations_id_seq FROM {role}",
    "CREATE": (
        "DROP TABLE app.schema_migrations; REVOKE CREATE ON SCHEMA app FROM {role}"
    ),
    "USAGE to create": (
        "DROP TABLE app.schema_migrations; REVOKE USAGE ON SCHEMA app FROM {role}"
    ),
    "schema": "DROP SCHEMA app CASCADE",
}


@pytest.mark.server
@pytest.mark.parametrize("right", RIGHTS)
def test_a_missing_right_is_named_with_the_grant_that_mends_it(
    gate: Gate, database: Database, right: str
) -> None:
    """The hint, run as it is by an administrator, opens the gate."""
    role = database.role("Poor-role")
    quoted = f'"{role.user}"'
    database.execute(
        f"CREATE SCHEMA app; GRANT USAGE, CREATE ON SCHEMA app TO {quoted};"
        f"SET search_path = app; {PLAIN}"
        f"GRANT ALL ON schema_migrations, schema_migrations_id_seq TO {quoted};"
        + RIGHTS[right].format(role=quoted)
    )
    env = {"GATE_HISTORY_TABLE": "app.schema_migrations"}
    files = {"1_a.sql": "SELECT 1;"}
    closed = gate(database=role, migrations=files, env=env)
    assert (closed.exit_code, closed.verdict["reason"]) == (1, "refused"), closed.output
    expected = {
        "USAGE": 'lacks USAGE on schema "app", which has the history table',
        "SELECT": 'lacks SELECT on table "app.schema_migrations"',
        "INSERT": 'lacks SELECT, INSERT, UPDATE on table "app.schema_migrations"',
        "sequence": 'lacks USAGE on sequence "app.schema_migrations_id_seq"',
        "CREATE": 'lacks CREATE on schema "app", where table "schema_migrations" is',
        "USAGE to create": 'lacks USAGE on schema "app", where table "schema_migr',
        "schema": 'may not create schema "app" for the history table',
    }[right]
    said = closed.verdict["error_message"]
    assert said.startswith(f"role {quoted} {expected}"), said
    database.execute(closed.verdict["hint"])
    mended = gate(database=role, migrations=files, env=env)
    assert mended.verdict["applied"] == ["1_a.sql"], mended.output


@pytest.mark.server
def test_columns_alone_may_be_granted(gate: Gate, database: Database) -> None:
    """Rights on the columns that the gate uses are enough, and judged as such."""
    role = database.role("narrow")
    database.execute(
        f"{PLAIN} GRANT USAGE ON SEQUENCE schema_migrations_id_seq TO {role.user};"
        f"GRANT SELECT (version, applied_at), INSERT (version) ON schema_migrations"
        f" TO {role.user};"
    )
    closed = gate(database=role, migrations={"1_a.sql": "SELECT 1;"})
    assert closed.verdict["reason"] == "refused"
    database.execute(f"GRANT INSERT (applied_at) ON schema_migrations TO {role.user}")
    run = gate(database=role, migrations={"1_a.sql": "SELECT 1;"})
    assert run.verdict["applied"] == ["1_a.sql"], run.output
