"""Both directions in one file: what its tool runs as "up" is all that is applied."""

from __future__ import annotations

from typing import Final

import pytest

from migration_gate.files.marks import cut_up_part
from migration_gate.statements import ScriptError, split
from tests.fix_gate import Gate
from tests.fix_postgres import Database


# Each makes two tables, "a" and "b"; its way back would drop them and make "down".
BACK: Final = "CREATE TABLE down (); DROP TABLE a; DROP TABLE b;"
UP_A: Final = "CREATE TABLE a ();"
UP_B: Final = "CREATE TABLE b ();"
FORMS: Final = {
    # jackc/tern migrate/migrate.go: LoadMigrations
    "tern": f"{UP_A}\n{UP_B}\n---- create above / drop below ----\n{BACK}\n",
    "tern_in_a_line": f"{UP_A}{UP_B} ---- create above / drop below ----\n{BACK}",
    # salsita/node-pg-migrate src/sqlMigration.ts: getActions
    "node_pg_migrate": f"-- Up Migration\n{UP_A}{UP_B}\n-- Down Migration\n{BACK}",
    "node_pg_migrate_any_case": f"---- UP  migration\n{UP_A}{UP_B}\n"
    f"  -- - down\tMIGRATION of it\n{BACK}",
    "node_pg_migrate_down_first": f"-- down migration\n{BACK}\n-- up migration\n{UP_A}"
    f"{UP_B}",
    # rubenv/sql-migrate sqlparse/sqlparse.go: ParseMigration
    "sql_migrate": f"-- +migrate Up\n{UP_A}\n{UP_B}\n-- +migrate Down\n{BACK}\n",
    "sql_migrate_several": f"-- +migrate Down\n{BACK}\n-- +migrate Up\n{UP_A}\n"
    f"-- +migrate Down\nSELECT 1/0;\n-- +migrate Up\n{UP_B}\n",
    "sql_migrate_blocks": "-- +migrate Up notransaction\n-- +migrate StatementBegin\n"
    f"DO $$ BEGIN {UP_A} END $$;\n-- +migrate StatementEnd\n{UP_B}\n"
    f"-- +migrate Down\n{BACK}\n",
    # playframework EvolutionsApi.scala: evolutions; Evolutions.scala: statements
    "play": f"# Tables a, b\n\n# --- !Ups\n{UP_A}\n{UP_B}\n\n# --- !Downs\n{BACK}\n",
    "play_dashes": f"-- !Downs\n{BACK}\n  -- !Ups\n{UP_A}\n#--- !Ups\n{UP_B}\n",
    "play_doubled": f"# --- !Ups\nDO $$ BEGIN {UP_A}; {UP_B}; END $$;\n# --- !Downs\n"
    f"{BACK}\n",
    # mybatis/migrations MigrationReader.java: determinePart
    "mybatis": f"-- // first\n{UP_A}\n{UP_B}\n\n-- //@UNDO\n{BACK}\n",
    "mybatis_spaced": f"{UP_A}{UP_B}\n\t--  // @UNDO of it\n{BACK}\n",
    # elwinar/rambler migration.go: scan
    "rambler": f"-- rambler up\n{UP_A}\n-- rambler down\n{BACK}\n-- rambler up\n{UP_B}",
    "rambler_unended": "-- rambler up\nCREATE TABLE a ()\n-- rambler down\n"
    "DROP TABLE a\n-- rambler up\nCREATE TABLE b ()\n",
    # amacneil/dbmate pkg/dbmate/migration.go: parseMigrationContents
    "dbmate_several": f"-- migrate:up\n{UP_A}\n-- migrate:down\n{BACK}\n"
    "-- migrate:up\nCREATE TABLE b ()\n-- migrate:down\nSELECT 1/0",
    "dbmate_several_outside": f"-- migrate:up transaction:false\n{UP_A}\n"
    f"-- migrate:down\n{BACK}\n-- migrate:up\n{UP_B}\n-- migrate:down\n{BACK}",
    "dbmate_carriage_returns": f"-- migrate:up\r{UP_A}{UP_B}\r-- migrate:down\r{BACK}",
    # pressly/goose internal/sqlparser/parser.go: ParseSQLMigration
    "goose": f"--+goose UP\n{UP_A}{UP_B}\n-- +goose Down\n{BACK}\n",
    "goose_marked": f"\ufeff-- +goose Up\n{UP_A}{UP_B}\n-- +goose Down\n{BACK}\n",
}


@pytest.mark.parametrize("name", FORMS)
def test_nothing_of_the_way_back_is_kept(name: str) -> None:
    """What is left has the words of the way forward, each at its place."""
    content = FORMS[name].encode()
    part = cut_up_part(content).content[:]

    assert part.count(b"CREATE TABLE") == 2
    assert b"down ()" not in part
    assert b"DROP" not in part
    assert b"1/0" not in part
    for at, byte in enumerate(part):
        assert byte == content[at] or byte in b" ;"
    assert [*map(len, part.splitlines()[:-1])] == [
        *map(len, content.splitlines()[: len(part.splitlines()) - 1])
    ]
    split(part)


def test_what_the_tool_runs_as_up_is_what_is_applied(
    gate: Gate, database: Database
) -> None:
    """All forms on a server, each in a schema of its own."""
    files = {}
    for number, (name, text) in enumerate(FORMS.items(), start=1):
        made = text
        for table in ("a", "b", "down"):
            made = made.replace(f"TABLE {table}", f"TABLE {name}.{table}")
        database.execute(f"CREATE SCHEMA {name}")
        files[f"{number:03}_{name}.sql"] = made
    run = gate(database=database, migrations=files)

    assert run.exit_code == 0, run.output
    made_by = database.fetch(
        "SELECT schemaname, string_agg(tablename, ' ' ORDER BY tablename) "
        "FROM pg_tables WHERE schemaname = ANY (%s) GROUP BY 1 ORDER BY 1",
        [list(FORMS)],
    )
    assert made_by == [(name, "a b") for name in sorted(FORMS)]
    outside = [
        event["version"]
        for event in run.all("migration.started")
        if not event["in_transaction"]
    ]
    assert [name[4:-4] for name in outside] == [
        "sql_migrate_blocks",
        "dbmate_several_outside",
    ]


def test_a_part_that_its_tool_commits_as_a_whole_is_one(
    gate: Gate, database: Database
) -> None:
    """Where another part runs outside a transaction."""
    script = (
        "-- migrate:up transaction:false\nCREATE TABLE a ();\n-- migrate:down\n"
        "-- migrate:up\nCREATE TABLE b ();\nSELECT 1/0;\n-- migrate:down\n"
    )
    run = gate(database=database, migrations={"001_x.sql": script})

    assert (run.exit_code, run.verdict["line"]) == (1, 6)
    assert database.fetch("SELECT to_regclass('a'), to_regclass('b')") == [("a", None)]


@pytest.mark.parametrize(
    ("content", "offset", "problem"),
    [
        ("A;\n-- Create above / drop below\nB;", 3, "unknown mark"),
        ("A {{ .x }};\n---- create above / drop below ----\n", 2, "template of tern"),
        ("A;\n-- Down Migration\nB;", 3, "no part goes up"),
        ("A;\n-- Up Migration\nB;", 0, "statement before the mark"),
        ("-- up migration\n-- up migration\n", 16, "second mark"),
        ("-- +migrate up\nA;", 0, "unknown mark"),
        ("--+migrate Up\nA;", 0, "unknown mark"),
        ("-- +migrate Up\n-- +migrate StatementBegin\n", 15, "without StatementEnd"),
        ("A;\n-- +migrate Up\nB;", 0, "statement before the mark"),
        ("-- +migrate Down\nA;", 0, "no part goes up"),
        ("-- rambler UP\nA;", 0, "unknown mark"),
        ("  -- rambler up\nA;", 2, "unknown mark"),
        ("# --- !Downs\nA;", 0, "no part goes up"),
        ("# --- !Ups\nINSERT INTO t VALUES ('a;;b');", 35, '";;" in a string'),
        ("-- migrate:up\n$$\n-- migrate:down\n-- migrate:up\n$$", 14, "dollar-quoted"),
        ("-- migrate:up\nA;\n  -- migrate:down\nB;", 19, "unknown mark"),
        ("-- +goose Up\nA;\n\t-- +goose Down\nB;", 17, "unknown mark"),
        ("-- +goose Up\n-- migrate:down\nB;", 13, "marks of two tools"),
    ],
)
def test_marks_that_a_tool_would_read_in_its_own_way_are_refused(
    content: str, offset: int, problem: str
) -> None:
    """What it would leave out, take for a comment, or fill in."""
    with pytest.raises(ScriptError) as refused:
        cut_up_part(content.encode())

    assert problem in refused.value.problem
    assert refused.value.offset == offset


@pytest.mark.parametrize(
    "content",
    [
        "SELECT '---- a';\n-- rambler is a dog\nA;",
        "A;\n-- Down migration: none is needed.\n",
        "-- we migrate: later\nA;",
        "-- Migrate: users to accounts\nA;\n  -- migrate: the rows\nB;",
        "SELECT 'x' -- drop below\n;",
        "A; -- nice!Ups and so on",
    ],
)
def test_a_file_without_marks_is_whole(content: str) -> None:
    """Words of tools inside other comments are no marks."""
    assert cut_up_part(content.encode()).content == content.encode()


def test_goose_takes_no_transaction_anywhere() -> None:
    """After the part that goes down, too: it is said of the file."""
    content = b"-- +goose Up\nA;\n-- +goose Down\nB;\n-- +goose NO TRANSACTION\n"

    assert cut_up_part(content).transaction == "outside"


def test_one_way_means_the_whole_file() -> None:
    """But not where a tool's own mark says that a part goes down."""
    loose = b"A;\n-- Down Migration\nB;"
    marked = b"-- +goose Up\nA;\n-- +goose Down\nB;"

    assert cut_up_part(loose, is_one_way=True).content == loose
    with pytest.raises(ScriptError, match="one-way"):
        cut_up_part(marked, is_one_way=True)
