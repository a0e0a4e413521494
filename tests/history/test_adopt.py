"""Another tool's history is taken over, as the tool has written it."""

from __future__ import annotations

import json
import re

from collections.abc import Mapping
from pathlib import Path

import pytest

from migration_gate.files.tool_checksums import TOOL_CHECKSUMS
from tests.fix_gate import Gate
from tests.fix_postgres import Database
from tests.history_tables import TWO, tables, versions, why


TOOLS = Path(__file__).parent / "tools"
A, B, C = (f"create table {name}(id int);\n" for name in "abc")
# Tool: the file of its table; what it has applied, by row; what is left.
ADOPTED = {
    "golang-migrate": (
        "golang-migrate",
        {"1_a.up.sql": "3", "2_b.up.sql": "3", "3_c.up.sql": "3"},
        ["4_d.up.sql"],
    ),
    "dbmate": (
        "dbmate",
        {"00001_a.sql": "00001", "00002_b.sql": "00002", "00003_c.sql": "00003"},
        ["00004_d.sql"],
    ),
    "goose": (
        "goose",
        {"00001_a.sql": "1", "00002_b.sql": "2", "3_c.sql": "3"},
        ["00004_d.sql"],
    ),
    "tern": (
        "tern",
        {"001_a.sql": "3", "002_b.sql": "3", "003_c.sql": "3"},
        ["004_d.sql"],
    ),
    "sql-migrate": (
        "sql-migrate",
        {"0001_a.sql": "0001_a.sql", "0002_b.sql": "0002_b.sql"},
        ["0003_d.sql"],
    ),
    "node-pg-migrate": (
        "node-pg-migrate",
        {f"170000000000{n}_small.sql": f"170000000000{n}_small" for n in (1, 2, 3)},
        ["1700000000004_d.sql"],
    ),
    "supabase": (
        "supabase",
        {f"2026010100000{n}_x{n}.sql": f"2026010100000{n}" for n in (1, 2)},
        ["20260101000003_d.sql"],
    ),
    "sqlx": (
        "sqlx",
        {
            "20260101000001_a.sql": "20260101000001",
            "20260101000002_b.sql": "20260101000002",
        },
        ["20260101000003_d.sql"],
    ),
    "flyway": (
        "flyway-2",
        {"V1__a.sql": "1", "V4.0__z.sql": "4"},
        ["V1_1__b.sql", "V5__d.sql"],
    ),
    "diesel": (
        "diesel",
        {
            "2026-01-01-000001_a/up.sql": "20260101000001",
            "2026-01-01-000002_b/up.sql": "20260101000002",
        },
        ["2026-01-01-000003_d/up.sql"],
    ),
    "refinery": (
        "refinery",
        {"V1__a.sql": "1", "V2__b.sql": "2", "V4__u.sql": "4"},
        ["V5__d.sql"],
    ),
    "graphile-migrate": (
        "graphile-migrate-2",
        {"000001-a.sql": "000001", "000002.sql": "000002"},
        ["000003-d.sql"],
    ),
    "atlas": (
        "atlas",
        {
            f"2026010100000{n}_{name}.sql": f"2026010100000{n}"
            for n, name in enumerate("abc", 1)
        },
        ["20260101000004_d.sql"],
    ),
}


# Atlas was told to go on after its second statement.
HALF_DONE = "-- atlas:txmode none\n\ncreate table c(id int);\nselect 1/0;\n"
TEXTS = {"20260101000003_c.sql": HALF_DONE}


def text_of(path: str) -> str:
    """Return the text of a file, as the tool was given it."""
    if path in TEXTS:
        return TEXTS[path]
    words = path.removesuffix("/up.sql").removesuffix(".sql").removesuffix(".up")
    return f"create table {words[-1]}(id int);\n"


def folder_of(*groups: object) -> dict[str, str]:
    """Return files by their paths."""
    return {path: text_of(path) for group in groups for path in group}  # type: ignore[attr-defined]  # dict or list


def write(folder: Path, files: Mapping[str, str]) -> Path:
    """Write files, and the folders that they are in."""
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, "utf-8")
    return folder


def load(database: Database, name: str) -> None:
    """Make another tool's table, as it has written it."""
    database.execute((TOOLS / f"{name}.sql").read_text("utf-8"))
    database.execute("RESET search_path")


@pytest.mark.server
@pytest.mark.parametrize("tool", ADOPTED)
def test_what_the_tool_has_applied_is_not_run_again(
    gate: Gate, database: Database, tmp_path: Path, tool: str
) -> None:
    """One start with GATE_ADOPT; what is new to the tool runs, and only that."""
    name, rows, pending = ADOPTED[tool]
    load(database, name)
    run = gate(
        database=database,
        migrations=write(tmp_path / "files", folder_of(rows, pending)),
        env={"GATE_ADOPT": tool},
    )
    assert run.exit_code == 0, run.output
    left = [path.removesuffix("/up.sql") for path in pending]
    assert run.verdict["applied"] == left
    assert run.one("history.adopted")["row_count"] == len(rows)
    table = "schema_migrations"
    if database.fetch("SELECT to_regclass('gate_schema_migrations') IS NOT NULL")[0][0]:
        table = "gate_schema_migrations"
    found = database.fetch(f"SELECT version, gate_version FROM public.{table}")
    assert {
        version: origin.removeprefix(f"adopted from {tool} ")
        for version, origin in found
        if version not in left
    } == {path.removesuffix("/up.sql"): row for path, row in rows.items()}


def test_drizzles_files_are_known_by_its_journal(
    gate: Gate, database: Database, tmp_path: Path
) -> None:
    """By their time; the hash is compared, and without the journal nothing is told."""
    load(database, "drizzle")
    files = {f"{n:04}_{w}.sql": f"SELECT {n};" for n, w in enumerate(("a", "b", "d"))}
    folder = write(tmp_path / "files", files)
    env = {"GATE_ADOPT": "drizzle"}
    lost = gate(database=database, migrations=folder, env=env)
    times = (1795933283645, 1795933283925, 1795933284000)
    entries = [
        {"tag": name.removesuffix(".sql"), "when": when}
        for name, when in zip(files, times, strict=True)
    ]
    journal = {"meta/_journal.json": json.dumps({"entries": entries})}
    write(folder, journal)
    changed = gate(database=database, migrations=folder, env=env)
    database.execute(
        "UPDATE drizzle.__drizzle_migrations"
        " SET hash = encode(sha256(('SELECT ' || id - 1 || ';')::bytea), 'hex')"
    )
    run = gate(database=database, migrations=folder, env=env)
    assert "by which Drizzle knows its files" in lost.verdict["error_message"]
    assert "Drizzle 1.0 writes none: give the command" in lost.verdict["hint"]
    assert '"0000_a.sql", "0001_b.sql" differ' in changed.verdict["error_message"]
    assert run.verdict["applied"] == ["0002_d.sql"], run.output


def test_liquibases_change_sets_are_those_of_a_file(
    gate: Gate, database: Database
) -> None:
    """A file counts when all of them are there, whatever came of the others."""
    load(database, "liquibase-2")
    database.execute("UPDATE databasechangelog SET filename = 'classpath:db/1_a.sql'")
    sets = ["alice:1", "bob:2-b", "alice:3", "alice:5", "alice:6"]
    sets.append("alice:9 dbms:mysql")
    text = "\n".join(["--liquibase formatted sql", *(f"--changeset {s}" for s in sets)])
    more = "--liquibase formatted sql\n--changeset alice:7\nSELECT 7;"
    files = {"1_a.sql": text, "2_b.sql": more}
    env = {"GATE_ADOPT": "liquibase"}
    part = gate(
        database=database,
        migrations={**files, "1_a.sql": f"{text}\n--changeset alice:8\n"},
        env=env,
    )
    run = gate(database=database, migrations=files, env=env)
    assert "1_a.sql (5 of 6 change sets)" in part.verdict["error_message"]
    assert run.verdict["applied"] == ["2_b.sql"], run.output


def test_yoyos_migrations_are_known_by_their_ids(
    gate: Gate, database: Database
) -> None:
    """Its times are in UTC, whatever the session's zone is."""
    load(database, "yoyo-2")
    database.execute("UPDATE _yoyo_migration SET migration_id = '0001_a'")
    database.execute(f"ALTER DATABASE {database.name} SET timezone = 'Asia/Tokyo'")
    files = {"0001_a.sql": A, "0002_b.sql": "-- transactional: false\n" + B}
    run = gate(database=database, migrations=files, env={"GATE_ADOPT": "yoyo"})
    assert run.verdict["applied"] == ["0002_b.sql"], run.output
    assert not run.one("migration.started")["in_transaction"]
    assert database.fetch(
        "SELECT applied_at::text FROM schema_migrations WHERE version = '0001_a.sql'"
    ) == [("2026-11-29 06:16:13.555661",)]


def test_what_prisma_has_rolled_back_is_pending(
    gate: Gate, database: Database, tmp_path: Path
) -> None:
    """A name may have several rows; a row by hand has a checksum of no file."""
    load(database, "prisma")
    database.execute(
        "DELETE FROM _prisma_migrations WHERE finished_at IS NULL"
        " AND rolled_back_at IS NULL"
    )
    applied = database.fetch(
        "SELECT migration_name FROM _prisma_migrations WHERE rolled_back_at IS NULL"
    )
    paths = [f"{name}/migration.sql" for (name,) in applied]
    files = dict.fromkeys(paths, "SELECT 1;")
    files["20260101000003_c/migration.sql"] = "SELECT 3;"
    run = gate(
        database=database,
        migrations=write(tmp_path / "files", files),
        env={"GATE_ADOPT": "prisma", "GATE_CHANGED": "warn"},
    )
    assert run.verdict["applied"] == ["20260101000003_c"], run.output
    assert run.one("history.adopted")["row_count"] == len(paths)


def test_times_and_checksums_are_taken_over(gate: Gate, database: Database) -> None:
    """Where the tool has them; a later change of the file is found."""
    load(database, "sqlx")
    files = folder_of(ADOPTED["sqlx"][1])
    env = {"GATE_ADOPT": "sqlx"}
    assert gate(database=database, migrations=files, env=env).exit_code == 0
    assert database.fetch(
        "SELECT applied_at::text, checksum IS NULL FROM schema_migrations ORDER BY 1"
    ) == [("2026-11-29 06:17:29.80336", False), ("2026-11-29 06:17:29.907027", False)]
    files["20260101000001_a.sql"] = "SELECT 1;"
    run = gate(database=database, migrations=files)
    assert "changed after being applied" in run.verdict["error_message"]


def test_a_file_that_is_not_what_was_applied_closes_the_gate(
    gate: Gate, database: Database
) -> None:
    """By the tool's own checksum, unless GATE_CHANGED says otherwise."""
    load(database, "flyway-2")
    files = {"V1__a.sql": "SELECT 1;", "V4__z.sql": "SELECT 4;"}
    env = {"GATE_ADOPT": "flyway"}
    run = gate(database=database, migrations=files, env=env)
    assert why(run) == (
        1,
        "history",
        '"V1__a.sql", "V4__z.sql" differ from what flyway has applied, by its checksum',
    )
    assert database.fetch("SELECT to_regclass('schema_migrations')") == [(None,)]
    env["GATE_CHANGED"] = "warn"
    assert gate(database=database, migrations=files, env=env).exit_code == 0
    found = database.fetch("SELECT version, checksum FROM schema_migrations ORDER BY 1")
    assert found == [("V1__a.sql", None), ("V4__z.sql", None)]


@pytest.mark.parametrize("is_same", [True, False])
def test_what_flyway_repeats_is_taken_over_by_its_text(
    gate: Gate, database: Database, *, is_same: bool
) -> None:
    """The newest row counts; with another text, or one that is new, it runs."""
    load(database, "flyway-2")
    text = "CREATE VIEW v AS SELECT 1 AS n;\n"
    then = text.encode() if is_same else b"other"
    (last,) = TOOL_CHECKSUMS["flyway"]("R__view_v.sql", then)
    database.execute(
        f"UPDATE flyway_schema_history SET checksum = {last} WHERE installed_rank = 5;"
        "INSERT INTO flyway_schema_history SELECT 7, NULL, 'gone', type, "
        "'old/R__gone.sql', 1, installed_by, installed_on, 1, true "
        "FROM flyway_schema_history WHERE installed_rank = 5"
    )
    files = {"V1__a.sql": A, "V4__z.sql": A, "R__view_v.sql": text, "R__w.sql": A}
    run = gate(
        database=database,
        migrations=files,
        env={"GATE_ADOPT": "flyway", "GATE_CHANGED": "warn"},
    )
    taken_over = ["R__view_v.sql"] if is_same else []
    assert run.one("history.adopted")["versions"] == [
        *("V1__a.sql", "V4__z.sql", *taken_over)
    ]
    left = [] if is_same else ["R__view_v.sql"]
    assert run.verdict["applied"] == [*left, "R__w.sql"], run.output
    assert gate(database=database, migrations=files).verdict["applied"] == []


@pytest.mark.parametrize(
    ("source", "files", "message"),
    [
        (
            "golang-migrate:golang-migrate-dirty",
            {"1_a.up.sql": A, "2_b.up.sql": B, "3_c.up.sql": C},
            "as failed or not finished",
        ),
        (
            "prisma:prisma",
            {
                "20260101000001_a/migration.sql": A,
                "20260101000002_b/migration.sql": B,
                "20260101000003_c/migration.sql": C,
            },
            'prisma records "20260101000003_c" as failed or not finished',
        ),
        ("flyway:flyway-failed", {"V1__a.sql": A, "V1.1__b.sql": B}, 'records "3"'),
        ("goose:goose", TWO, 'goose has applied "3", which no file here explains'),
        ("dbmate:goose", TWO, "goose has a history in this database"),
        (
            "goose:goose",
            {"1_a.sql": A, "01_b.sql": B, "2_c.sql": C, "3_d.sql": A},
            '"01_b.sql", "1_a.sql" are one version to goose',
        ),
    ],
)
def test_a_doubt_closes_the_gate(  # noqa: PLR0913, PLR0917  # a fault and its words
    gate: Gate,
    database: Database,
    tmp_path: Path,
    source: str,
    files: dict[str, str],
    message: str,
) -> None:
    """Nothing is written; what to do is said."""
    tool, _, name = source.partition(":")
    load(database, name)
    before = tables(database)
    folder = write(tmp_path / "files", files)
    run = gate(database=database, migrations=folder, env={"GATE_ADOPT": tool})
    assert why(run)[:2] == (1, "history")
    assert message in run.verdict["error_message"]
    assert run.verdict["hint"].startswith("Nothing was ")
    assert tables(database) == before


def test_a_database_without_that_history_gets_every_file(
    gate: Gate, database: Database
) -> None:
    """One manifest serves environments that are new and such that are not."""
    env = {"GATE_ADOPT": "goose"}
    run = gate(database=database, migrations=TWO, env=env)
    assert run.verdict["applied"] == list(TWO)


def test_a_history_of_another_name_is_told_with_its_schema(
    gate: Gate, database: Database
) -> None:
    """After the tool's name."""
    load(database, "tern")
    database.execute(
        "CREATE SCHEMA audit; ALTER TABLE schema_version RENAME TO steps;"
        "ALTER TABLE steps SET SCHEMA audit; UPDATE audit.steps SET version = 1"
    )
    env = {"GATE_ADOPT": "tern:audit.steps"}
    run = gate(database=database, migrations=TWO, env=env)
    assert run.verdict["applied"] == ["2_b.sql"], run.output


def test_a_renamed_file_is_no_new_one(gate: Gate, database: Database) -> None:
    """The history goes on by the tool's key, for what came later too."""
    load(database, "goose-2")
    files = folder_of(["1_a.sql", "2_b.sql", "3_c.sql"])
    env = {"GATE_ADOPT": "goose"}
    assert gate(database=database, migrations=files, env=env).exit_code == 0
    files = {
        "0001_first.sql": files["1_a.sql"],
        "2_b.sql": files["2_b.sql"],
        "3_third.sql": files["3_c.sql"],
    }
    run = gate(database=database, migrations=files)
    status = gate("status", "--json", database=database, migrations=files)
    assert (run.exit_code, run.verdict["applied"]) == (0, []), run.output
    assert run.verdict["warnings"] == []
    lines = json.loads(status.stdout)
    assert [(line["version"], line["state"]) for line in lines] == [
        (name, "applied") for name in files
    ]
    assert all(line["applied_at"] for line in lines)
    files["3_third.sql"] = "SELECT 3;"
    closed = gate(database=database, migrations=files)
    said = gate("resolve", "3", "--applied", database=database, migrations=files)
    assert "changed after being applied" in closed.verdict["error_message"]
    assert said.exit_code == 0, said.output
    assert gate(database=database, migrations=files).exit_code == 0


def test_plan_shows_the_mapping_and_writes_nothing(
    gate: Gate, database: Database
) -> None:
    """File by file; the rest is what migrate would run."""
    load(database, "goose-2")
    files = folder_of(["1_a.sql", "2_b.sql", "3_c.sql"])
    env = {"GATE_ADOPT": "goose"}
    before = tables(database)
    run = gate("plan", "--json", database=database, migrations=files, env=env)
    assert run.exit_code == 0, run.output
    lines = json.loads(run.stdout)
    assert [(line["version"], line.get("row")) for line in lines] == [
        ("1_a.sql", "1"),
        ("2_b.sql", "2"),
        ("3_c.sql", None),
    ]
    assert tables(database) == before


def test_plan_shows_why_a_history_is_not_taken_over(
    gate: Gate, database: Database
) -> None:
    """File by file and row by row, though nothing of it is."""
    load(database, "goose-2")
    database.execute(
        "INSERT INTO goose_db_version (version_id, is_applied) VALUES (7, true)"
    )
    files = folder_of(["1_a.sql", "2_b.sql", "02_c.sql", "3_d.sql"])
    env = {"GATE_ADOPT": "goose"}
    run = gate("plan", database=database, migrations=files, env=env)
    assert run.exit_code == 1
    told = [re.split(" {2,}", line) for line in run.stdout.splitlines() if line]
    assert [(line[0], *line[2:]) for line in told] == [
        ("TAKEN OVER", "BY ROW", "MIGRATION", "REFUSED"),
        ("applied", "1", "1_a.sql"),
        ("no", "2", "02_c.sql", "one of 2 files of it"),
        ("no", "2", "2_b.sql", "one of 2 files of it"),
        ("no", "7", "no file here explains it"),
    ]
    said = gate("plan", "--json", database=database, migrations=files, env=env)
    assert [(line["version"], line["refused"]) for line in json.loads(said.stdout)] == [
        ("1_a.sql", None),
        ("02_c.sql", "one of 2 files of it"),
        ("2_b.sql", "one of 2 files of it"),
        ("", "no file here explains it"),
    ]


def test_status_and_check_before_the_first_start(
    gate: Gate, database: Database
) -> None:
    """What is to be taken over is neither pending nor applied, and check waits."""
    load(database, "goose-2")
    files = folder_of(["1_a.sql", "2_b.sql"])
    env = {"GATE_ADOPT": "goose", "GATE_WAIT_TIMEOUT": "0s"}
    status = gate("status", "--json", database=database, migrations=files, env=env)
    check = gate("check", database=database, migrations=files, env=env)
    assert [line["state"] for line in json.loads(status.stdout)] == ["to record"] * 2
    assert status.exit_code == 1
    assert "2 migrations count as applied, and are not recorded" in status.stderr
    assert check.verdict["reason"] == "incomplete"
    assert gate(database=database, migrations=files, env=env).exit_code == 0
    for command in ("status", "check"):
        assert gate(command, database=database, migrations=files).exit_code == 0


def test_the_command_takes_over_and_applies_nothing(
    gate: Gate, database: Database
) -> None:
    """Once: a second time the gate has a history."""
    load(database, "goose-2")
    files = folder_of(["1_a.sql", "2_b.sql", "3_c.sql"])
    call = ("adopt", "--from", "goose")
    assert gate(*call, database=database, migrations=files).exit_code == 0
    assert versions(database) == ["1_a.sql", "2_b.sql"]
    again = gate(*call, database=database, migrations=files)
    assert again.exit_code == 1
    assert "has a history with rows already" in again.stderr
    assert gate(database=database, migrations=files).verdict["applied"] == ["3_c.sql"]


def test_what_the_tool_has_applied_since_is_told(
    gate: Gate, database: Database
) -> None:
    """Before it runs again: two tools apply to one database."""
    load(database, "goose-2")
    files = folder_of(["1_a.sql", "2_b.sql"])
    env = {"GATE_ADOPT": "goose"}
    assert gate(database=database, migrations=files, env=env).exit_code == 0
    files = folder_of(["1_a.sql", "2_b.sql", "3_c.sql"])
    run = gate(database=database, migrations=files)
    assert (run.exit_code, run.all("history.other_tool")) == (0, [])
    database.execute(
        "INSERT INTO goose_db_version (version_id, is_applied) VALUES (4, true)"
    )
    run = gate(
        database=database, migrations={**files, **folder_of(["4_d.sql", "5_e.sql"])}
    )
    warned = run.one("history.other_tool")
    assert warned["versions"] == ["4_d.sql"]
    assert warned["message"] == (
        "Applied by goose too, by table public.goose_db_version "
        f"(rows: {warned['row_count']}, the newest 4), and run again now: 4_d.sql; "
        "switch that tool off, and declare what must not run twice with resolve "
        "VERSION --applied"
    )
    assert run.verdict["applied"] == ["4_d.sql", "5_e.sql"]


def test_two_gates_take_over_once(gate: Gate, database: Database) -> None:
    """The second one finds the history of the first."""
    load(database, "goose")
    files = folder_of(["1_a.sql", "2_b.sql", "3_c.sql", "4_d.sql"])
    env = {"GATE_ADOPT": "goose"}
    both = [gate.start(database=database, migrations=files, env=env) for _ in range(2)]
    runs = [process.wait() for process in both]
    assert [run.exit_code for run in runs] == [0, 0]
    assert sum(len(run.all("history.adopted")) for run in runs) == 1
    assert len(versions(database)) == 4


def test_a_killed_take_over_leaves_nothing(gate: Gate, database: Database) -> None:
    """The rows come with the table, or not at all."""
    load(database, "goose")
    files = folder_of(["1_a.sql", "2_b.sql", "3_c.sql"])
    database.execute(
        "CREATE FUNCTION no() RETURNS event_trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); END $$;"
        "CREATE EVENT TRIGGER no ON ddl_command_end WHEN TAG IN ('CREATE TABLE')"
        " EXECUTE FUNCTION no()"
    )
    env = {"GATE_ADOPT": "goose"}
    assert gate(database=database, migrations=files, env=env).exit_code == 1
    assert database.fetch("SELECT to_regclass('schema_migrations')") == [(None,)]
    database.execute("DROP EVENT TRIGGER no")
    run = gate(database=database, migrations=files, env=env)
    assert run.one("history.adopted")["row_count"] == 3


@pytest.mark.thorough
@pytest.mark.timeout(60)
def test_ten_thousand_rows_are_taken_over(gate: Gate, database: Database) -> None:
    """One statement, one transaction."""
    load(database, "goose")
    database.execute(
        "INSERT INTO goose_db_version (id, version_id, is_applied, tstamp)"
        " SELECT n, n, true, now() FROM generate_series(5, 10000) n;"
        "INSERT INTO goose_db_version (id, version_id, is_applied, tstamp)"
        " VALUES (10001, 4, true, now())"
    )
    files = {f"{number:05}_x.sql": "" for number in range(1, 10001)}
    run = gate(database=database, migrations=files, env={"GATE_ADOPT": "goose"})
    assert run.one("history.adopted")["row_count"] == 10000
    assert run.verdict["applied"] == []
