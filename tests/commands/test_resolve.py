"""A person says of one migration that it is applied, or that it is not."""

from __future__ import annotations

import re

import psycopg
import pytest

from tests.fix_gate import Gate, Run
from tests.fix_postgres import Database
from tests.history_tables import PLAIN, versions


EXISTING = {"001_t.sql": "CREATE TABLE t (id integer);"}
STEPS = (
    "CREATE PROCEDURE steps(stop boolean) LANGUAGE plpgsql AS $$ BEGIN "
    "INSERT INTO t VALUES (1); COMMIT; IF stop THEN RAISE 'stopped'; END IF; END $$;"
)
CALLS = {
    "001_x.sql": "-- gate: no-transaction\nINSERT INTO t VALUES (0);\n"
    "CALL steps({});\nINSERT INTO t VALUES (2);"
}


def say(run: Run) -> tuple[int, str, str]:
    """Return exit code, and what was recorded of which migration."""
    resolved = run.one("migration.resolved")
    return run.exit_code, resolved["version"], resolved["as"]


def test_objects_that_exist_already_are_recorded(
    gate: Gate, database: Database
) -> None:
    """The file is not run; its row has the checksum."""
    database.execute("CREATE TABLE t (id integer)")
    closed = gate(database=database, migrations=EXISTING)
    said = gate("resolve", "001_t", "--applied", database=database, migrations=EXISTING)
    opened = gate(database=database, migrations=EXISTING)

    assert closed.verdict["sqlstate"] == "42P07"
    assert "resolve" in closed.verdict["hint"]
    assert said.exit_code == 0, said.output
    assert (opened.exit_code, opened.verdict["applied"]) == (0, [])
    assert database.fetch(
        "SELECT version, checksum LIKE 'sha256:%' FROM schema_migrations"
    ) == [("001_t.sql", True)]


@pytest.mark.parametrize("new", ["002_other_words.sql", "V0003__fill.sql"])
def test_a_file_that_was_renamed_does_not_run_once_more(
    gate: Gate, database: Database, new: str
) -> None:
    """The two commands of the hint let the history have its new name."""
    text = "INSERT INTO t VALUES (1);"
    files = EXISTING | {"002_fill.sql": text}
    assert gate(database=database, migrations=files).exit_code == 0
    renamed = EXISTING | {new: text}
    closed = gate(database=database, migrations=renamed)
    assert (closed.exit_code, closed.verdict["reason"]) == (1, "history")
    first, second = re.findall(
        r"resolve \S+ --(?:not-)?applied", closed.verdict["hint"]
    )
    assert gate(*first.split(), database=database, migrations=renamed).exit_code == 0
    for image in (renamed, files):  # a rollout has both
        assert gate(database=database, migrations=image).verdict["applied"] == []
    assert gate(*second.split(), database=database, migrations=renamed).exit_code == 0
    opened = gate(database=database, migrations=renamed)
    assert (opened.exit_code, opened.verdict["applied"]) == (0, [])
    assert opened.verdict["warnings"] == []
    assert versions(database) == sorted(renamed)
    assert database.fetch("SELECT id FROM t") == [(1,)]


def test_a_row_is_taken_back(gate: Gate, database: Database) -> None:
    """The next start applies the file again."""
    gate(database=database, migrations=EXISTING)
    database.execute("DROP TABLE t")
    said = gate(
        "resolve", "001_t.sql", "--not-applied", database=database, migrations=EXISTING
    )
    left = versions(database)
    again = gate(database=database, migrations=EXISTING)

    assert say(said) == (0, "001_t.sql", "not applied")
    assert left == []
    assert again.verdict["applied"] == ["001_t.sql"]


@pytest.mark.parametrize(
    ("answer", "rows"),
    [
        pytest.param("--applied", [0, 1, 2], marks=pytest.mark.server),
        ("--not-applied", [0, 1, 1, 2]),
    ],
)
def test_an_unfinished_statement_is_answered(
    gate: Gate, database: Database, answer: str, rows: list[int]
) -> None:
    """Done, the file goes on after it; not done, it runs again."""
    database.execute("CREATE TABLE t (id integer);" + STEPS)
    stops = {name: text.format("true") for name, text in CALLS.items()}
    closed = gate(database=database, migrations=stops)
    asked = gate(database=database, migrations=stops)
    mended = STEPS.replace("CREATE", "CREATE OR REPLACE").replace("RAISE", "RAISE LOG")
    database.execute(mended)
    said = gate("resolve", "001_x.sql", answer, database=database, migrations=stops)
    opened = gate(database=database, migrations=stops)

    assert [closed.verdict["reason"], asked.verdict["reason"]] == [
        *("migration_failed", "unresolved"),
    ]
    assert said.exit_code == 0, said.output
    assert opened.exit_code == 0, opened.output
    assert database.fetch("SELECT id FROM t ORDER BY 1") == [(row,) for row in rows]
    assert database.fetch("TABLE schema_migrations_progress") == []


def test_an_edited_file_is_begun_anew_after_not_applied(
    gate: Gate, database: Database
) -> None:
    """Nothing unfinished: the progress of the whole file is forgotten."""
    start = "-- gate: no-transaction\nCREATE TABLE IF NOT EXISTS {} (id integer);\n"
    gate(database=database, migrations={"001_x.sql": start.format("a") + "SELECT 1/0;"})
    edited = {"001_x.sql": start.format("b") + "SELECT 1;"}
    refused = gate(database=database, migrations=edited)
    said = gate(
        "resolve", "001_x.sql", "--not-applied", database=database, migrations=edited
    )
    opened = gate(database=database, migrations=edited)

    assert (refused.exit_code, refused.verdict["line"]) == (1, 2)
    assert "resolve" in refused.verdict["hint"]
    assert said.exit_code == 0, said.output
    assert opened.exit_code == 0, opened.output
    assert database.fetch("SELECT to_regclass('b') IS NULL") == [(False,)]


def test_a_changed_file_is_taken_as_it_stands(gate: Gate, database: Database) -> None:
    """Its row gets the new checksum, and the next start has nothing to refuse."""
    gate(database=database, migrations=EXISTING)
    edited = {"001_t.sql": EXISTING["001_t.sql"] + "\n-- of the orders"}
    refused = gate(database=database, migrations=edited)
    said = gate("resolve", "001_t", "--applied", database=database, migrations=edited)
    opened = gate(database=database, migrations=edited)
    again = gate("resolve", "001_t", "--applied", database=database, migrations=edited)

    assert (refused.exit_code, refused.verdict["reason"]) == (1, "history")
    assert say(said)[::2] == (0, "applied as it stands now")
    assert (opened.exit_code, opened.verdict["warnings"]) == (0, [])
    assert again.exit_code == 0, again.output
    assert again.all("migration.resolved") == []
    assert "nothing was to do" in again.verdict["message"]


def test_a_row_without_a_checksum_gets_none(gate: Gate, database: Database) -> None:
    """What another program recorded is never compared."""
    database.execute(PLAIN)
    database.execute("INSERT INTO schema_migrations (version) VALUES ('001_t')")
    said = gate("resolve", "001_t", "--applied", database=database, migrations=EXISTING)

    assert said.exit_code == 0, said.output
    assert "nothing was to do" in said.verdict["message"]
    assert database.fetch("SELECT checksum FROM schema_migrations") == [(None,)]


BUILDS = {
    "concurrently": "CREATE UNIQUE INDEX CONCURRENTLY t_id ON t (id);",
    "without a name": "CREATE INDEX CONCURRENTLY ON s.t (id);",
    "plain": "CREATE UNIQUE INDEX t_id ON s.t (id);",
    "in a file that cannot be read to its end": "CREATE INDEX t_id ON t (id); SELECT '",
}


@pytest.mark.parametrize(
    "build",
    [
        pytest.param(
            build, id=name, marks=pytest.mark.server if "CONCURRENTLY" in build else []
        )
        for name, build in BUILDS.items()
    ],
)
def test_an_index_that_is_invalid_is_not_declared_applied(
    gate: Gate, database: Database, build: str
) -> None:
    """The hint drops it, and nothing is recorded; a valid one may be declared."""
    database.execute(
        "CREATE SCHEMA s; CREATE TABLE s.t AS SELECT 1 AS id UNION ALL SELECT 1"
    )
    with pytest.raises(psycopg.errors.UniqueViolation):
        database.execute("CREATE UNIQUE INDEX CONCURRENTLY t_id ON s.t (id)")
    files = {"001_i.sql": build}
    said = gate("resolve", "001_i", "--applied", database=database, migrations=files)
    drop = re.search(r"DROP INDEX [^;]+;", said.verdict["hint"])
    assert drop is not None, said.output
    recorded = versions(database)
    database.execute(drop[0])
    database.execute("CREATE INDEX t_id ON s.t (id)")
    valid = gate("resolve", "001_i", "--applied", database=database, migrations=files)

    assert (said.exit_code, said.verdict["reason"]) == (1, "unresolved")
    assert 'index "s.t_id", which it builds, is invalid' in said.verdict["message"]
    assert drop[0] == "DROP INDEX CONCURRENTLY s.t_id;"
    assert recorded == []
    assert valid.exit_code == 0, valid.output


SEVERAL = {
    "001_a.sql": "CREATE TABLE a ();",
    "002_b.up.sql": "CREATE TABLE b ();",
    "003_c.sql": "CREATE TABLE c ();",
    "003_d.sql": "CREATE TABLE d ();",
    "010_e.sql": "CREATE TABLE e ();",
}


def test_several_are_declared_at_once_by_name_or_number(
    gate: Gate, database: Database
) -> None:
    """One event each, in the order of the files; the rest is still to be run."""
    words = ("10", "002_b", "003_c.sql", "2")
    applied = gate(
        "resolve", *words, "--applied", database=database, migrations=SEVERAL
    )
    recorded = versions(database)
    back = gate(
        *("resolve", "002_b", "10", "--not-applied"),
        database=database,
        migrations=SEVERAL,
    )
    opened = gate(database=database, migrations=SEVERAL)

    expected = ["002_b.up.sql", "003_c.sql", "010_e.sql"]
    resolved = applied.all("migration.resolved")
    assert [event["version"] for event in resolved] == expected
    assert applied.verdict["message"] == "Gate open: 3 were declared applied"
    assert recorded == expected
    assert back.exit_code == 0, back.output
    assert opened.verdict["applied"] == [
        *("001_a.sql", "002_b.up.sql", "003_d.sql", "010_e.sql"),
    ]


def test_all_up_to_one_are_declared(gate: Gate, database: Database) -> None:
    """What was applied before is left as it is."""
    gate("resolve", "1", "--applied", database=database, migrations=SEVERAL)
    edited = SEVERAL | {"001_a.sql": "SELECT 1;"}
    through = ("resolve", "--applied", "--through", "003_c")
    said = gate(*through, database=database, migrations=edited)
    refused = gate(database=database, migrations=edited)
    again = gate(*through, database=database, migrations=SEVERAL)
    opened = gate(database=database, migrations=SEVERAL)

    resolved = said.all("migration.resolved")
    assert [event["version"] for event in resolved] == ["002_b.up.sql", "003_c.sql"]
    assert refused.verdict["reason"] == "history"
    assert "nothing was to do" in again.verdict["message"]
    assert opened.verdict["applied"] == ["003_d.sql", "010_e.sql"]


@pytest.mark.parametrize("wrong", ["3", "999"])
def test_one_wrong_name_leaves_all_as_they_are(
    gate: Gate, database: Database, wrong: str
) -> None:
    """A number that two files have names both; nothing is guessed."""
    words = ("001_a", wrong, "--applied")
    run = gate("resolve", *words, database=database, migrations=SEVERAL)

    assert (run.exit_code, run.verdict["reason"]) == (1, "files")
    told = run.verdict["error_message"]
    assert ("003_c.sql, 003_d.sql" in told) == (wrong == "3")
    assert "database.ready" not in run.names


def test_what_cannot_be_written_leaves_all_as_they_are(
    gate: Gate, database: Database
) -> None:
    """All of them, or none."""
    gate(database=database, migrations={"001_a.sql": SEVERAL["001_a.sql"]})
    database.execute("ALTER TABLE schema_migrations ADD CHECK (version <> '003_c.sql')")
    words = ("002_b", "003_c", "--applied")
    run = gate("resolve", *words, database=database, migrations=SEVERAL)

    assert (run.exit_code, run.verdict.get("sqlstate")) == (1, "23514")
    assert versions(database) == ["001_a.sql"]


@pytest.mark.parametrize("answer", ["--applied", "--not-applied"])
def test_an_unknown_name_is_refused(
    gate: Gate, database: Database, answer: str
) -> None:
    """Nothing is recorded."""
    gate(database=database, migrations=EXISTING)
    run = gate("resolve", "002_u", answer, database=database, migrations=EXISTING)

    assert (run.exit_code, run.verdict["reason"]) == (1, "files")
    assert versions(database) == ["001_t.sql"]


def test_a_repeatable_text_is_taken_as_it_stands(
    gate: Gate, database: Database
) -> None:
    """It is not run, and the text that it replaces is an older one from then on."""
    one, two = ({"R__v.sql": f"CREATE VIEW v{n} AS SELECT 1;"} for n in (1, 2))
    gate(database=database, migrations=one)
    said = gate("resolve", "R__v", "--applied", database=database, migrations=two)
    assert say(said) == (0, "R__v.sql", "applied as it stands now")
    for files in (two, one):
        assert gate(database=database, migrations=files).verdict["applied"] == []
    assert database.fetch("SELECT to_regclass('v2')") == [(None,)]


def test_a_repeatable_migration_that_is_forgotten_comes_back_as_it_is_here(
    gate: Gate, database: Database
) -> None:
    """An older text too: a person wants it."""
    one, two = (
        {"R__v.sql": f"CREATE OR REPLACE VIEW v AS SELECT {n} AS n;"} for n in (1, 2)
    )
    for files in (one, two):
        gate(database=database, migrations=files)
    said = gate(
        "resolve", "R__v.sql", "--not-applied", database=database, migrations=one
    )
    assert say(said) == (0, "R__v.sql", "not applied")
    assert gate(database=database, migrations=one).verdict["applied"] == ["R__v.sql"]
    assert database.fetch("SELECT n FROM v") == [(1,)]


def test_through_a_number_says_nothing_of_repeatable_ones(
    gate: Gate, database: Database
) -> None:
    """They come after it."""
    files = {**EXISTING, "R__v.sql": "SELECT 1;"}
    gate("resolve", "--applied", "--through", "1", database=database, migrations=files)
    assert versions(database) == ["001_t.sql"]
