"""What a database has already is recorded, and not run."""

from __future__ import annotations

import json

from pathlib import Path

import pytest

from tests.fix_gate import Gate
from tests.fix_postgres import Database
from tests.history_tables import tables, versions, why


FILES = {
    "001_a.sql": "CREATE TABLE a ();",
    "002_b.up.sql": "CREATE TABLE b ();",
    "003_c.sql": "CREATE TABLE c ();",
}
HERE = "CREATE TABLE a (); CREATE TABLE b ();"
UP_TO_TWO = {"GATE_BASELINE": "002_b"}


@pytest.mark.parametrize("word", ["002_b.up.sql", "002_b", "2"])
def test_one_manifest_serves_old_databases_and_new_ones(
    gate: Gate, database: Database, word: str
) -> None:
    """Where there are tables, all up to the version counts as applied."""
    database.execute(HERE)
    run = gate(database=database, migrations=FILES, env={"GATE_BASELINE": word})
    assert run.verdict["applied"] == ["003_c.sql"], run.output
    assert run.one("history.baseline")["versions"] == ["001_a.sql", "002_b.up.sql"]
    assert database.fetch(
        "SELECT version, checksum LIKE 'sha256:%', gate_version"
        " FROM schema_migrations ORDER BY 1 LIMIT 2"
    ) == [
        ("001_a.sql", True, "baseline 002_b.up.sql"),
        ("002_b.up.sql", True, "baseline 002_b.up.sql"),
    ]
    again = gate(database=database, migrations=FILES, env={"GATE_BASELINE": "9"})
    assert (again.exit_code, again.all("history.baseline")) == (0, [])


@pytest.mark.server
def test_a_new_database_gets_every_file(gate: Gate, database: Database) -> None:
    """An extension's table, and a view, make it no old one."""
    database.execute(
        "CREATE VIEW v AS SELECT 1; CREATE SCHEMA auth; CREATE TABLE auth.users ();"
        "CREATE TABLE schema_migrations (id serial PRIMARY KEY,"
        " version varchar(255) NOT NULL UNIQUE, applied_at timestamp NOT NULL"
        " DEFAULT CURRENT_TIMESTAMP)"
    )
    run = gate(database=database, migrations=FILES, env=UP_TO_TWO)
    assert run.verdict["applied"] == list(FILES), run.output


def test_an_empty_history_is_filled(gate: Gate, database: Database) -> None:
    """The table may be there already."""
    database.execute(
        HERE + "CREATE TABLE schema_migrations (id serial PRIMARY KEY,"
        " version varchar(255) NOT NULL UNIQUE, applied_at timestamp NOT NULL"
        " DEFAULT CURRENT_TIMESTAMP)"
    )
    run = gate(database=database, migrations=FILES, env=UP_TO_TWO)
    assert run.verdict["applied"] == ["003_c.sql"], run.output


@pytest.mark.server
def test_tables_of_nobody_knows_whom_close_the_gate(
    gate: Gate, database: Database
) -> None:
    """In another schema than the search path names: nothing is recorded or run."""
    database.execute("CREATE SCHEMA shop; CREATE TABLE shop.orders ()")
    before = tables(database)
    run = gate(database=database, migrations=FILES, env=UP_TO_TWO)
    assert run.verdict["reason"] == "history"
    assert '"shop.orders"' in run.verdict["error_message"]
    assert "GATE_BASELINE=none" in run.verdict["hint"]
    assert tables(database) == before


@pytest.mark.server
def test_tables_of_a_stranger_close_the_gate(gate: Gate, database: Database) -> None:
    """Whoever may create in public could have every file passed over."""
    owner, stranger = database.role("owner"), database.role("stranger")
    database.execute(
        f"ALTER DATABASE {database.name} OWNER TO {owner.user};"
        f"GRANT ALL ON SCHEMA public TO {owner.user}, {stranger.user}"
    )
    stranger.execute("CREATE TABLE public.planted ()")
    closed = gate(database=owner, migrations=FILES, env=UP_TO_TWO)
    owner.execute("CREATE TABLE public.a (); CREATE TABLE public.b ()")
    run = gate(database=owner, migrations=FILES, env=UP_TO_TWO)
    assert '"public.planted"' in closed.verdict["error_message"], closed.output
    assert "GATE_ROLE" in closed.verdict["hint"]
    assert run.verdict["applied"] == ["003_c.sql"], run.output


def test_a_version_that_no_file_has_closes_the_gate(
    gate: Gate, database: Database
) -> None:
    """On a new database too: it is a slip of the pen."""
    for word in ("004", "2_b"):
        run = gate(database=database, migrations=FILES, env={"GATE_BASELINE": word})
        assert why(run) == (
            1,
            "files",
            f"{word}: no file in the folder has this name",
        )


def test_the_command_asks_for_no_tables(gate: Gate, database: Database) -> None:
    """It is a person's word; a second one finds a history."""
    said = gate("baseline", "2", "--json", database=database, migrations=FILES)
    again = gate("baseline", "3", database=database, migrations=FILES)
    assert said.exit_code == 0, said.output
    assert json.loads(said.stdout) == [
        {"version": version, "baseline": "002_b.up.sql"}
        for version in ("001_a.sql", "002_b.up.sql")
    ]
    assert again.exit_code == 1
    assert "has a history with rows already" in again.stderr
    assert versions(database) == ["001_a.sql", "002_b.up.sql"]


def test_plan_and_status_show_what_would_be_recorded(
    gate: Gate, database: Database
) -> None:
    """Nothing is written, and status does not call it applied."""
    database.execute(HERE)
    before = tables(database)
    plan = gate("plan", database=database, migrations=FILES, env=UP_TO_TWO)
    status = gate(
        "status", "--json", database=database, migrations=FILES, env=UP_TO_TWO
    )
    most = {"GATE_BASELINE": "3"}
    last = gate("status", database=database, migrations=FILES, env=most)
    assert plan.exit_code == 0, plan.output
    assert plan.stdout.splitlines()[1:] == [
        "applied, not run  002_b.up.sql  001_a.sql",
        "applied, not run  002_b.up.sql  002_b.up.sql",
        "",
        "MIGRATION  STATEMENTS  TRANSACTION  REFUSED",
        "003_c.sql  1           inside",
    ]
    assert [line["state"] for line in json.loads(status.stdout)] == [
        *("to record", "to record", "pending"),
    ]
    assert (status.exit_code, last.exit_code) == (1, 1)
    assert "are not recorded" in last.stderr
    assert tables(database) == before


def test_check_waits_for_who_records(gate: Gate, database: Database) -> None:
    """It writes nothing itself, and another tool's history does not close it."""
    database.execute(
        HERE + "CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY);"
        "INSERT INTO alembic_version VALUES ('ba00241b441c')"
    )
    env = {"GATE_BASELINE": "3", "GATE_WAIT_TIMEOUT": "0s"}
    early = gate("check", database=database, migrations=FILES, env=env)
    run = gate(database=database, migrations=FILES, env=env)
    late = gate("check", database=database, migrations=FILES, env=env)
    assert early.verdict["reason"] == "incomplete", early.output
    assert (run.exit_code, run.verdict["applied"], late.exit_code) == (0, [], 0)


def test_a_history_that_can_be_taken_over_is_not_guessed(
    gate: Gate, database: Database
) -> None:
    """GATE_ADOPT knows more; where both are set, the history comes first."""
    database.execute(
        HERE + "CREATE TABLE c (); CREATE TABLE schema_version (version int4);"
        "INSERT INTO schema_version VALUES (3)"
    )
    closed = gate(database=database, migrations=FILES, env=UP_TO_TWO)
    env = {**UP_TO_TWO, "GATE_ADOPT": "tern"}
    run = gate(database=database, migrations=FILES, env=env)
    assert closed.verdict["reason"] == "history"
    assert "GATE_ADOPT=tern" in closed.verdict["hint"]
    assert (run.exit_code, run.verdict["applied"]) == (0, [])
    assert run.one("history.adopted")["row_count"] == 3


def test_rails_table_is_not_taken_for_dbmates(gate: Gate, database: Database) -> None:
    """Its migrations are code; where dbmate goes on by the table, that is said."""
    rails = Path(__file__).parents[1] / "history" / "tools" / "rails.sql"
    database.execute(HERE + rails.read_text("utf-8"))
    closed = gate(database=database, migrations=FILES)
    adopted = gate(
        "plan",
        database=database,
        migrations={"20260101000001_a.sql": "", "20260101000002_b.sql": ""},
        env={"GATE_ADOPT": "dbmate"},
    )
    run = gate(database=database, migrations=FILES, env=UP_TO_TWO)
    assert closed.verdict["error_message"].startswith("Rails has a history in this")
    assert "GATE_BASELINE=VERSION" in closed.verdict["hint"]
    assert adopted.exit_code == 0, adopted.output
    assert (run.exit_code, run.verdict["applied"]) == (0, ["003_c.sql"]), run.output


@pytest.mark.server
def test_what_builds_an_invalid_index_is_not_recorded(
    gate: Gate, database: Database
) -> None:
    """The application would be without it."""
    database.execute(
        "CREATE TABLE a (n integer); INSERT INTO a VALUES (1), (1);"
        "CREATE UNIQUE INDEX i ON a (n) WHERE false;"
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'i'::regclass"
    )
    files = {"1_i.sql": "CREATE UNIQUE INDEX CONCURRENTLY i ON a (n);"}
    run = gate(database=database, migrations=files, env={"GATE_BASELINE": "1"})
    assert run.verdict["reason"] == "unresolved"
    assert database.fetch("SELECT to_regclass('schema_migrations')") == [(None,)]


@pytest.mark.server
def test_a_history_that_the_role_may_not_use_is_not_begun_anew(
    gate: Gate, database: Database
) -> None:
    """Neither by a baseline nor by what another tool has applied."""
    reader = database.role()
    gate(database=database, migrations=FILES)
    database.execute(
        "CREATE SCHEMA hidden; ALTER TABLE schema_migrations SET SCHEMA hidden;"
        "CREATE TABLE schema_version (version int4);"
        "INSERT INTO schema_version VALUES (2);"
        f"ALTER DATABASE {database.name} SET search_path = hidden, public;"
        f"GRANT ALL ON SCHEMA public TO {reader.user};"
        f"GRANT SELECT ON schema_version TO {reader.user}"
    )
    for env in ({"GATE_BASELINE": "2"}, {"GATE_ADOPT": "tern"}):
        run = gate(database=reader, migrations=FILES, env=env)
        assert "lacks USAGE on schema" in run.verdict["error_message"], run.output


def test_two_gates_record_once(gate: Gate, database: Database, tmp_path: Path) -> None:
    """The second one finds the history of the first."""
    database.execute(HERE)
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, "utf-8")
    both = [
        gate.start(database=database, migrations=tmp_path, env=UP_TO_TWO)
        for _ in range(2)
    ]
    runs = [process.wait() for process in both]
    assert [run.exit_code for run in runs] == [0, 0]
    assert sum(len(run.all("history.baseline")) for run in runs) == 1
    assert versions(database) == list(FILES)
