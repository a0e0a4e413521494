"""A table that another program has migrated with: taken over, or left alone."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from migration_gate.files.migration import checksum
from migration_gate.history.look import look
from migration_gate.report.errors import HistoryError
from migration_gate.settings.settings import HistoryTableName
from tests.fix_gate import Gate
from tests.fix_postgres import Database
from tests.history_tables import (
    OURS,
    PLAIN,
    TWO,
    columns,
    tables,
    traces,
    versions,
    why,
)


TOOLS = Path(__file__).parent / "tools"
FORMS = {
    "plain": PLAIN,
    "without id": """
        CREATE TABLE schema_migrations (
            version VARCHAR(255) PRIMARY KEY,
            applied_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP
        )
    """,
    "with time zone": """
        CREATE TABLE schema_migrations (
            version TEXT NOT NULL UNIQUE, applied_at TIMESTAMPTZ DEFAULT now()
        )
    """,
    "fixed length": """
        CREATE TABLE schema_migrations (
            version CHAR(40) PRIMARY KEY, applied_at TIMESTAMP
        )
    """,
    "more columns": """
        CREATE TABLE schema_migrations (
            id BIGINT GENERATED ALWAYS AS IDENTITY, version VARCHAR(100) NOT NULL,
            applied_at TIMESTAMP, description TEXT,
            success BOOLEAN NOT NULL DEFAULT true
        );
        CREATE UNIQUE INDEX ON schema_migrations (version)
    """,
}


@pytest.mark.server
@pytest.mark.parametrize("form", FORMS)
def test_a_table_is_taken_over_as_it_is(
    gate: Gate, database: Database, form: str
) -> None:
    """Its rows count, our columns come at the first write, it stays theirs."""
    database.execute(FORMS[form])
    database.execute("INSERT INTO schema_migrations (version) VALUES ('1_a.sql')")
    before = columns(database, "schema_migrations")
    files = {"1_a.sql": "SELECT 'changed, but never compared';"}
    untouched = traces(database, "schema_migrations")
    assert gate(database=database, migrations=files).verdict["applied"] == []
    assert traces(database, "schema_migrations") == untouched

    run = gate(database=database, migrations=TWO)
    assert run.verdict["applied"] == ["2_b.sql"], run.output
    assert columns(database, "schema_migrations") == [
        *before,
        *((name, kind, False, None) for name, kind in OURS),
    ]
    assert database.fetch(
        "SELECT version::text, checksum, gate_version IS NULL, duration_ms IS NULL"
        " FROM schema_migrations ORDER BY version"
    ) == [
        ("1_a.sql", None, True, True),
        ("2_b.sql", checksum(TWO["2_b.sql"].encode()), False, False),
    ]

    database.execute("INSERT INTO schema_migrations (version) VALUES ('3_c.sql')")
    later = {**TWO, "3_c.sql": "CREATE TABLE c ();"}
    assert gate(database=database, migrations=later).verdict["applied"] == []
    assert tables(database) == ["b"]


@pytest.mark.parametrize(
    ("row", "files", "expected"),
    [
        ("1_a", ["1_a.sql", "2_b.sql"], "2_b"),
        ("1_a", ["1_a.up.sql", "2_b.up.sql"], "2_b"),
        ("1_a.up", ["1_a.up.sql", "2_b.up.sql"], "2_b.up"),
        ("1_a.sql", ["1_a.up.sql", "2_b.sql"], "2_b.sql"),
        ("1_a.up.sql", ["1_a.up.sql", "2_b.up.sql"], "2_b.up.sql"),
    ],
)
def test_rows_are_written_in_the_spelling_in_use(
    gate: Gate, database: Database, row: str, files: list[str], expected: str
) -> None:
    """The program that shares the table finds what it expects; the log has files."""
    database.execute(
        f"{PLAIN} INSERT INTO schema_migrations (version) VALUES ('{row}')"
    )
    migrations = {name: f"CREATE TABLE t{name[0]} ();" for name in files}
    run = gate(database=database, migrations=migrations)
    assert run.verdict["applied"] == files[1:]
    assert sorted(versions(database)) == [row, expected]
    assert gate(database=database, migrations=migrations).verdict["applied"] == []


@pytest.mark.server
def test_a_role_that_may_only_insert_works_on(gate: Gate, database: Database) -> None:
    """Without our columns and without UPDATE; the log says so once a run."""
    role = database.role("inserter")
    database.execute(
        f"{PLAIN} GRANT SELECT, INSERT ON schema_migrations TO {role.user};"
        f"GRANT USAGE ON SEQUENCE schema_migrations_id_seq TO {role.user};"
        f"GRANT CREATE ON SCHEMA public TO {role.user};"
    )
    before = columns(database, "schema_migrations")
    run = gate(database=role, migrations=TWO)
    assert run.verdict["applied"] == ["1_a.sql", "2_b.sql"], run.output
    assert run.one("history.not_altered")["reason"] == (
        'the login role does not own table "schema_migrations"'
    )
    assert columns(database, "schema_migrations") == before
    assert versions(database) == ["1_a.sql", "2_b.sql"]
    assert all(event["duration_ms"] >= 0 for event in run.all("migration.applied"))
    again = gate(database=role, migrations=TWO)
    assert again.names == ["gate.started", "database.ready", "plan.made", "gate.opened"]


@pytest.mark.server
def test_a_role_without_update_records_what_it_can(
    gate: Gate, database: Database
) -> None:
    """Our columns are there; the duration stays open, the checksum is compared."""
    gate(database=database, migrations={"0_z.sql": "SELECT 1;"})
    role = database.role("inserter")
    database.execute(
        f"GRANT SELECT, INSERT ON schema_migrations TO {role.user};"
        f"GRANT USAGE ON SEQUENCE schema_migrations_id_seq TO {role.user};"
    )
    files = {"0_z.sql": "SELECT 1;", "1_a.sql": "SELECT 2;"}
    assert gate(database=role, migrations=files).verdict["applied"] == ["1_a.sql"]
    assert database.fetch(
        "SELECT checksum, duration_ms FROM schema_migrations WHERE version = '1_a.sql'"
    ) == [(checksum(b"SELECT 2;"), None)]
    changed = gate(database=role, migrations={**files, "1_a.sql": "SELECT 3;"})
    exit_code, reason, message = why(changed)
    assert (exit_code, reason) == (1, "history")
    assert message.startswith('migration "1_a.sql" was changed after being applied')


def test_a_reader_in_the_way_does_not_keep_the_gate_closed(
    gate: Gate, database: Database
) -> None:
    """Our columns wait for another start; what is pending is applied."""
    database.execute(PLAIN)
    with database.connect() as reader:
        reader.execute("BEGIN; SELECT * FROM schema_migrations")
        run = gate(database=database, migrations=TWO)
    assert run.verdict["applied"] == ["1_a.sql", "2_b.sql"]
    assert run.one("history.not_altered")["reason"] == (
        'other sessions hold table "schema_migrations"'
    )


@pytest.mark.parametrize("row", ["1_A.sql", "1_a.sql ", "1_A"])
def test_a_row_that_differs_in_case_or_space_closes_the_gate(
    gate: Gate, database: Database, row: str
) -> None:
    """It is named; nothing is applied."""
    database.execute(
        f"{PLAIN} INSERT INTO schema_migrations (version) VALUES ('{row}')"
    )
    run = gate(database=database, migrations=TWO)
    differs = f'history row "{row}" differs from file "1_a.sql" only in case, white '
    assert why(run)[:2] == (1, "history")
    assert why(run)[2] == f"{differs}space or the form of its accents"
    assert tables(database) == []


ODD = {
    "NULL::timestamp": "no time yet.sql",
    "'-infinity'": "long ago.sql",
    "'2026-01-02 03:04:05.678'": "quotes \" ' [ ] { } , \\ and <&> of every kind",
    "'2026-01-02 03:04:05.679'": "line\nend\r\n\ttab\x01é€🦥",
}


@pytest.mark.server
def test_rows_of_every_form_are_read(database: Database) -> None:
    """In the order of their times; no name is too long, too odd, or not there."""
    database.execute(
        "CREATE TABLE schema_migrations (version text UNIQUE, applied_at timestamp,"
        " checksum text, duration_ms numeric);"
        "INSERT INTO schema_migrations (duration_ms) VALUES (1), ('NaN')"
    )
    long = "x" * 5000
    with closing(database.connect()) as conn:
        for time, version in ODD.items():
            conn.execute(
                f"INSERT INTO schema_migrations VALUES (%s, {time}, %s, 7)",
                (version, f"sha256:{version}"),
            )
        conn.execute(
            "INSERT INTO schema_migrations VALUES (%s, '2026-01-01', NULL, 'NaN')",
            (long,),
        )
        seen = look(
            conn, HistoryTableName(schema=None, table="schema_migrations"), None
        )
    none, ago, quotes, control = ODD.values()
    assert [(row.version, row.checksum, row.applied_at) for row in seen.history] == [
        ("x" * 300, None, "2026-01-01T00:00:00.000Z"),
        (quotes, f"sha256:{quotes}", "2026-01-02T03:04:05.678Z"),
        (control, f"sha256:{control}", "2026-01-02T03:04:05.679Z"),
        *sorted([(ago, f"sha256:{ago}", ""), (none, f"sha256:{none}", "")]),
    ]
    assert {row.duration_ms for row in seen.history} == {7, None}


# Each tool's own words, and the gate's for them.
SHARED = {
    "golang-migrate": ("golang-migrate or Hasura", "1 row, the newest 3"),
    "dbmate": ("dbmate or Rails", "3 rows, the newest 00003"),
    "ecto": ("Ecto", "2 rows, the newest 20260101000002"),
}


@pytest.mark.parametrize("file", SHARED)
def test_the_table_of_another_tool_is_left_untouched(
    gate: Gate, database: Database, file: str
) -> None:
    """Where it is named as the gate's, the gate says whose it is and what it has."""
    tool, rows = SHARED[file]
    database.execute((TOOLS / f"{file}.sql").read_text("utf-8"))
    before = traces(database, "public.schema_migrations")
    env = {"GATE_HISTORY_TABLE": "public.schema_migrations"}
    run = gate(database=database, migrations=TWO, env=env)
    assert why(run) == (
        1,
        "history",
        f'table "public.schema_migrations" belongs to {tool}: it has {rows}',
    )
    assert run.names == ["gate.started", "gate.closed"]
    assert run.verdict["hint"].startswith("Nothing was written. ")
    assert traces(database, "public.schema_migrations") == before


@pytest.mark.parametrize("file", SHARED)
def test_a_name_that_another_tool_has_taken_is_left_to_it(
    gate: Gate, database: Database, file: str
) -> None:
    """Its history stays as it is, and the gate's stands beside it, whoever asks."""
    database.execute((TOOLS / f"{file}.sql").read_text("utf-8"))
    before = database.fetch("TABLE public.schema_migrations")
    env = {"GATE_ADOPT": "none"}
    run = gate(database=database, migrations=TWO, env=env)
    assert run.verdict["applied"] == ["1_a.sql", "2_b.sql"], run.output
    assert versions(database, "public.gate_schema_migrations") == list(TWO)
    assert database.fetch("TABLE public.schema_migrations") == before
    for command in ("migrate", "check", "status"):
        assert gate(command, database=database, migrations=TWO).exit_code == 0
    database.execute("DROP TABLE public.schema_migrations")
    for command in ("migrate", "check", "status"):
        run = gate(command, database=database, migrations=TWO)
        assert (run.exit_code, run.all("migration.applied")) == (0, [])


def test_an_empty_table_of_another_tool_is_no_matter(
    gate: Gate, database: Database
) -> None:
    """No file has run by it; only the name is taken."""
    database.execute("CREATE TABLE schema_migrations (version bigint, dirty boolean)")
    assert gate(database=database, migrations=TWO).exit_code == 0
    assert versions(database, "gate_schema_migrations") == list(TWO)
    env = {"GATE_HISTORY_TABLE": "gate_schema_migrations"}
    run = gate(database=database, migrations=TWO, env=env)
    assert (run.exit_code, run.all("migration.applied")) == (0, [])


@pytest.mark.parametrize("rows", ["", "INSERT INTO schema_migrations VALUES (3)"])
def test_another_tools_table_that_comes_later_hides_no_history(
    gate: Gate, database: Database, rows: str
) -> None:
    """The gate's own stays the first of its name, whatever schema comes before it."""
    assert gate(database=database, migrations=TWO).exit_code == 0
    database.execute(
        f"""
        ALTER DATABASE "{database.name}" SET search_path = other, public;
        CREATE SCHEMA other; SET search_path = other;
        CREATE TABLE schema_migrations (version bigint, dirty boolean); {rows}
        """
    )
    for env in ({}, {"GATE_ADOPT": "none"}):
        run = gate(database=database, migrations=TWO, env=env)
        assert (run.exit_code, run.all("migration.applied")) == (0, []), run.output


@pytest.mark.server
def test_a_role_that_checks_needs_only_the_gates_own(
    gate: Gate, database: Database
) -> None:
    """Not the other tool's table."""
    database.execute("CREATE TABLE schema_migrations (version bigint, dirty boolean)")
    assert gate(database=database, migrations=TWO).exit_code == 0
    role = database.role("looker")
    database.execute(f"GRANT SELECT ON gate_schema_migrations TO {role.user}")
    assert gate("check", database=role, migrations=TWO).exit_code == 0


@pytest.mark.server
@pytest.mark.parametrize(
    ("form", "fault"),
    [
        (
            "(version bigint PRIMARY KEY, applied_at timestamp)",
            'it has no column "version" of a character type',
        ),
        (
            "(version text PRIMARY KEY, applied_at text)",
            'it has no column "applied_at" of a timestamp type',
        ),
        (
            "(version text, applied_at timestamp, UNIQUE (version, applied_at))",
            'its column "version" is not unique',
        ),
        (
            "(version text PRIMARY KEY, applied_at timestamp, checksum bytea)",
            'its column "checksum" is of type bytea',
        ),
        (
            "(version text PRIMARY KEY, applied_at timestamp, duration_ms text)",
            'its column "duration_ms" is of type text',
        ),
        (
            "(version text PRIMARY KEY, applied_at timestamp, n int NOT NULL)",
            'its column "n" is neither nullable nor has a default',
        ),
    ],
)
def test_a_table_that_cannot_serve_is_refused_with_the_reason(
    database: Database, form: str, fault: str
) -> None:
    """The first thing that keeps it from being the history."""
    database.execute(f"CREATE TABLE schema_migrations {form}")
    with (
        closing(database.connect()) as conn,
        pytest.raises(HistoryError) as caught,
    ):
        look(conn, HistoryTableName(schema=None, table="schema_migrations"), None)
    assert str(caught.value) == (
        f'table "public.schema_migrations" belongs to another program: {fault}'
    )


@pytest.mark.server
def test_a_unique_index_on_some_rows_is_not_unique(
    gate: Gate, database: Database
) -> None:
    """A partial one lets the same version in twice."""
    database.execute(
        "CREATE TABLE schema_migrations (version text NOT NULL, applied_at timestamp);"
        "CREATE UNIQUE INDEX ON schema_migrations (version) WHERE version <> 'x'"
    )
    assert why(gate(database=database, migrations=TWO))[2].endswith("is not unique")
