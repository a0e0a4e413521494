"""What the text of a file tells by itself, and what plan shows of it."""

from __future__ import annotations

import json

import pytest

from migration_gate.files.migration import Migration
from migration_gate.files.script import parse_script
from migration_gate.rehearsal.wording import Reader
from migration_gate.settings.settings import HistoryTableName
from tests.commands.test_status import answer
from tests.fix_gate import Gate
from tests.fix_postgres import Database
from tests.rehearsal.cases import CASES
from tests.rehearsal.table import DATA, to_key


HISTORY = HistoryTableName(None, "schema_migrations")
MIGRATION = Migration("1_a.sql", (1,), "1_a", "sha256:")
# What depends on more than the words: the text tells it, and it need not be.
UNSURE = {"changes-type", "not-null-without-check", "constraint-validated-at-once"}
FOLLOWS = {"blocks-reads", "blocks-writes", "rewrites-table", "scans-table"}
NEEDS_MORE = {
    "ALTER TABLE p ADD COLUMN n int UNIQUE",  # an index on a column's clause
    "REINDEX INDEX i",
    "REINDEX TABLE p",
    "DO $$ BEGIN EXECUTE 'DELETE FROM q'; END $$",
    "SELECT f()",
}


def told(*texts: str) -> list[tuple[int, str, str | None]]:
    """Return what files that are pending together tell: line, name, table."""
    reader = Reader()
    scripts = [parse_script(MIGRATION, text.encode(), HISTORY) for text in texts]
    found = [each for script in scripts for each in reader.read(script)]
    return [(each.line, each.name, each.table) for each in found]


@pytest.mark.parametrize("case", CASES, ids=to_key)
def test_the_text_tells_what_was_measured(case: object) -> None:
    """Nothing that a rehearsal does not find, but where it depends on more."""
    assert isinstance(case, type(CASES[0]))
    measured = json.loads(DATA.read_text("utf-8"))
    found = {
        name
        for seen in measured.values()
        for name in seen.get(to_key(case), {}).get("findings", ())
    }
    names = {name for _, name, _ in told(case.sql + ";")}
    assert names - found <= UNSURE
    if case.sql not in NEEDS_MORE:
        assert found - names <= FOLLOWS


@pytest.mark.parametrize(
    ("body", "tables"),
    [
        ("BEGIN UPDATE p SET a = 1; DELETE FROM ONLY s.q; END", ["p", "q"]),
        ("DECLARE n int; BEGIN <<x>> LOOP DELETE FROM p; END LOOP; END", ["p"]),
        ("BEGIN IF a THEN UPDATE p SET a = 1; ELSE DELETE FROM q; END IF; END", "pq"),
        ("BEGIN UPDATE p SET a = CASE WHEN a THEN 1 ELSE 2 END WHERE b; END", []),
        ("BEGIN UPDATE p SET a = (SELECT 1 WHERE b); END", ["p"]),
        ("BEGIN MERGE INTO p USING q ON a WHEN MATCHED THEN UPDATE SET a = 1; END", []),
        ("BEGIN INSERT INTO p VALUES (1) ON CONFLICT (a) DO UPDATE SET a = 1; END", []),
        ("BEGIN PERFORM 1 FROM p FOR UPDATE; -- UPDATE p SET a = 1;\n END", []),
        ("BEGIN RAISE '; UPDATE p SET a = 1'; END", []),
        ("BEGIN UPDATE p SET a = ' unclosed; END", ["p"]),  # PostgreSQL refuses it
    ],
)
def test_what_a_block_changes_is_read_too(body: str, tables: list[str]) -> None:
    """In whatever quotes it stands; a block is a string to PostgreSQL as well."""
    for quoted in (f"$x$ {body} $x$", f"'{body.replace(chr(39), chr(39) * 2)}'"):
        assert [each[1:] for each in told(f"DO LANGUAGE plpgsql {quoted};")] == [
            ("changes-many-rows", table) for table in tables
        ]


def test_a_table_that_a_pending_file_makes_is_nobodys() -> None:
    """Whatever its schema is called, and in later files too."""
    assert told(
        "CREATE TABLE IF NOT EXISTS app.p (id int);ALTER TABLE app.p DROP COLUMN a;",
        "CREATE TEMPORARY TABLE t (id int); TRUNCATE t;",
        'DROP TABLE "p", q;\nALTER TABLE q\nRENAME a TO b;',
    ) == [(1, "drops-table", "q"), (2, "renames", "q")]


def test_what_was_validated_before_may_prove_that_there_is_no_null() -> None:
    """Of the same table."""
    not_null = "ALTER TABLE p ALTER a SET NOT NULL;"
    validate = "ALTER TABLE p VALIDATE CONSTRAINT k;"
    assert told(validate, not_null) == []
    assert told("ALTER TABLE q VALIDATE CONSTRAINT k;", not_null) == [
        (1, "not-null-without-check", "p")
    ]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("UPDATE p SET a = (SELECT 1 WHERE true)", ["changes-many-rows"]),
        ("UPDATE ONLY p SET a = 1 WHERE b = 2", []),
        ("DELETE FROM p USING q WHERE p.id = q.id", []),
        (
            "ALTER TABLE p DROP a, DROP CONSTRAINT k, ADD n numeric(4, 2)",
            ["drops-column"],
        ),
        ("ALTER TABLE IF EXISTS ONLY x.p RENAME COLUMN a TO b", ["renames"]),
        ("ALTER TABLE p ADD n text DEFAULT 'random()'", []),
        (
            "ALTER TABLE p ADD n text DEFAULT pg_catalog.random()::text",
            ["volatile-default"],
        ),
        ("ALTER TABLE p ADD CONSTRAINT k UNIQUE USING INDEX i", []),
        ("CREATE INDEX i ON p (a) -- CONCURRENTLY", ["index-not-concurrent"]),
        ("ALTER TABLE p ALTER COLUMN drop SET DEFAULT 1", []),
        ("DROP VIEW v, w CASCADE", ["drops-view", "drops-view"]),
        ("DROP VIEW v; CREATE VIEW v AS SELECT 1", []),
        ("DROP VIEW v; CREATE VIEW w AS SELECT 1", ["drops-view"]),
        ("/* DROP TABLE p */ SELECT 'DROP TABLE p'", []),
    ],
)
def test_words_are_read_as_postgresql_reads_them(text: str, names: list[str]) -> None:
    """Lists, strings, comments and names that look like words of SQL."""
    assert [name for _, name, _ in told(f"{text};")] == names


@pytest.mark.server
def test_plan_shows_it(gate: Gate, database: Database) -> None:
    """In a column of its own; what the file accepts is left to the JSON."""
    files = {
        "1_a.sql": "-- gate: accept renames as agreed\n"
        "ALTER TABLE p RENAME a TO b; SELECT 1;\nALTER TABLE p DROP b;",
        "2_b.sql": "SELECT 1;",
    }
    shown = gate("plan", database=database, migrations=files)
    assert [line.split() for line in shown.stdout.splitlines()] == [
        ["MIGRATION", "STATEMENTS", "TRANSACTION", "FINDINGS", "REFUSED"],
        ["1_a.sql", "3", "inside", "drops-column:3"],
        ["2_b.sql", "1", "inside"],
    ]
    said = answer(gate("plan", "--json", database=database, migrations=files))
    assert [line["findings"] for line in said] == [
        [
            {"line": 2, "name": "renames", "table": "p", "accepted": "as agreed"},
            {"line": 3, "name": "drops-column", "table": "p", "accepted": None},
        ],
        [],
    ]
