"""Variables: what GATE_VAR_name says is filled in, and never shown."""

from __future__ import annotations

import json

from pathlib import Path

import pytest

from tests.fix_gate import Gate, Run
from tests.fix_pgbouncer import PgBouncers
from tests.fix_postgres import Database
from tests.history_tables import why


SECRET = 'S3cret\' \\ "Wört"\nsecond line; -- /* $$'
TABLE = {"1_a.sql": "CREATE TABLE a (v text);\n"}


def values(**named: str) -> dict[str, str]:
    """Return settings of variables."""
    return {f"GATE_VAR_{name}": value for name, value in named.items()}


def opened(run: Run) -> list[str]:
    """Return what a run that opened has applied."""
    assert run.exit_code == 0, run.output
    applied: list[str] = run.verdict["applied"]
    return applied


@pytest.mark.server
def test_a_variable_is_filled_in_as_psql_does_it(
    gate: Gate, database: Database
) -> None:
    """As it stands, as a string and as a name; not in quotes, comments and data."""
    text = """
    CREATE SCHEMA :"schema"; -- :schema
    CREATE TABLE :"schema".t (n int DEFAULT :number, v text DEFAULT :'word');
    INSERT INTO :"schema".t (n) VALUES (DEFAULT), (:number::int + 1);
    INSERT INTO :"schema".t (v) VALUES (':word'), ($$:word$$), (:'word' /* :word */);
    INSERT INTO :"schema".t VALUES ((ARRAY[1, 2, 3])[1 :number], 'slice') \n;
    COPY :"schema".t (v) FROM stdin;
:word
\\.
    """.replace("[1 :number]", "[2]")
    env = values(schema='My "schema"', number="42", word="it's \\ Größe")
    run = gate(database=database, migrations={"1_a.sql": text}, env=env)
    assert opened(run) == ["1_a.sql"]
    word = env["GATE_VAR_word"]
    assert database.fetch('SELECT n, v FROM "My ""schema""".t') == [
        *((42, word), (43, word)),
        *((42, ":word"), (42, ":word"), (42, word)),
        *((2, "slice"), (42, ":word")),
    ]


@pytest.mark.parametrize(
    "value",
    [
        *("it's", "a\\b", 'a "b"', "a\nb\r\nc", "Größe €", "$$;--/*", "x" * (1 << 20)),
        *(":v", "%s {0}", " ", SECRET),
    ],
    ids=range(11),
)
def test_any_value_arrives_as_it_is(gate: Gate, database: Database, value: str) -> None:
    """By its place in the text, and asked for in a block."""
    text = (
        "INSERT INTO a VALUES ('1' || :'v');"
        "DO $$ BEGIN INSERT INTO a VALUES ('2' || current_setting('gate.v')); END $$;"
    )
    folder = gate.folder / "value"
    folder.write_bytes(value.encode() + b"\n")
    files = {**TABLE, "2_b.sql": text}
    env = {"GATE_VAR_v_FILE": str(folder)}
    run = gate(database=database, migrations=files, env=env)
    assert opened(run) == ["1_a.sql", "2_b.sql"]
    found = [v for (v,) in database.fetch("SELECT v FROM a ORDER BY v")]
    assert found == ["1" + value, "2" + value]


@pytest.mark.server
def test_functions_ask_for_variables_wherever_a_file_runs(
    gate: Gate, database: Database
) -> None:
    """In a transaction, outside one, and in a statement that runs alone."""
    function = (
        "CREATE FUNCTION f() RETURNS text LANGUAGE sql AS "
        "$$SELECT current_setting('gate.word')$$;"
        "CREATE PROCEDURE p() LANGUAGE plpgsql AS "
        "$$BEGIN INSERT INTO a VALUES ('alone ' || f()); COMMIT; END$$;"
    )
    files = {
        **TABLE,
        "2_b.sql": f"{function} INSERT INTO a VALUES ('inside ' || f());",
        "3_c.sql": "-- gate: no-transaction\n"
        "INSERT INTO a VALUES ('outside ' || f());\nCALL p();\n",
    }
    run = gate(database=database, migrations=files, env=values(word="here"))
    assert opened(run) == list(files)
    found = [v for (v,) in database.fetch("SELECT v FROM a ORDER BY v")]
    assert found == ["alone here", "inside here", "outside here"]


def test_no_value_is_left_in_a_pooled_session(
    gate: Gate, database: Database, pgbouncer: PgBouncers
) -> None:
    """A stranger gets the session next."""
    pooled = pgbouncer("transaction", database).through(database)
    files = {**TABLE, "2_b.sql": "INSERT INTO a VALUES (current_setting('gate.word'));"}
    env = values(word="xyzzy")
    assert opened(gate(database=pooled, migrations=files, env=env)) == list(files)
    assert database.fetch("SELECT v FROM a") == [("xyzzy",)]
    for _ in range(4):
        ((found,),) = pooled.fetch("SELECT current_setting('gate.word', true)")
        assert found in {None, ""}


@pytest.mark.parametrize("value", ["x", "a\nb\nc", "x" * 5000, "'it''s'", "Ä" * 7])
def test_a_place_is_that_of_the_file_whatever_was_filled_in_before(
    gate: Gate, database: Database, value: str
) -> None:
    """Longer, shorter, or of more lines."""
    text = (
        "SELECT :'v', :\"v\" FROM (SELECT 1 AS :\"v\") AS s;\nSELECT :'v', nothing;\n"
    )
    run = gate(database=database, migrations={"1_a.sql": text}, env=values(v=value))
    assert run.verdict["sqlstate"] == "42703", run.output
    assert (run.verdict["line"], run.verdict["column"]) == (2, 14)


def test_a_variable_that_is_not_set_is_named_with_its_place(
    gate: Gate, database: Database
) -> None:
    """Before anything is applied; an empty value is none."""
    files = {**TABLE, "2_b.sql": "INSERT INTO a\nVALUES (:'word');"}
    for env in ({}, values(word="")):
        run = gate(database=database, migrations=files, env=env)
        assert why(run) == (1, "files", "2_b.sql:2: variable :'word' is not set")
        assert run.verdict["hint"].startswith("Set GATE_VAR_word, or write its value")
        assert run.verdict["applied"] == []


def test_a_large_file_tells_of_a_variable_that_is_not_set_when_it_fails(
    gate: Gate, database: Database
) -> None:
    """It is not looked through before: a program has written it."""
    text = f"-- {'x' * (1 << 20)}\nSELECT :word;"
    run = gate(database=database, migrations={"1_a.sql": text})
    assert (run.verdict["line"], run.verdict["column"]) == (2, 8)
    assert "Variable word is not set: GATE_VAR_word" in run.verdict["hint"]


@pytest.mark.parametrize(
    ("text", "value", "problem"),
    [
        ("SELECT 1, :v;", "2 /*", "is not whole"),
        ("SELECT 1, :v;", "2 --", "is not whole"),
        ("SELECT 1, :v;", "'a", "is not whole"),
        ("SELECT 1, :v;", "$$", "is not whole"),
        ("SELECT 1, :v;", "\\! id", "is not whole"),
        ("SELECT 1 -:v;", "-2", "would make another kind of token"),
        ("SELECT 1 /:v;", "* 2", "would make another kind of token"),
        ("SELECT :v'a';", "E", "would make another kind of token"),
    ],
)
def test_a_value_that_would_change_how_the_file_is_read_is_refused(
    gate: Gate, database: Database, text: str, value: str, problem: str
) -> None:
    """With the place of the variable, and the way to mean it as a string."""
    run = gate(
        database=database, migrations={"1_a.sql": f"\n{text}"}, env=values(v=value)
    )
    assert (run.exit_code, run.verdict["reason"]) == (1, "files")
    assert run.verdict["line"] == 2
    assert f'the value of variable "v" {problem}' in run.verdict["error_message"]
    assert ":'v'" in run.verdict["hint"]


FAILING = {
    "a string where a number belongs": "SELECT :'v'::int;",
    "a name that is not there": 'SELECT * FROM :"v";',
    "a syntax error at it": "SELECT 1 :'v' :'v';",
    "a key that is there": "CREATE UNIQUE INDEX ON a (v);"
    "INSERT INTO a VALUES (:'v'), (:'v');",
    "a notice": "DO $$ BEGIN RAISE NOTICE '%', current_setting('gate.v'); END $$; X;",
    "an exception": "DO $$ BEGIN RAISE '%', current_setting('gate.v'); END $$;",
    "a query in a function": "DO $$ BEGIN EXECUTE current_setting('gate.v'); END $$;",
    "a parameter": 'SET :"v" = 1;',
    "a hint": "DO $$ BEGIN RAISE 'x' USING HINT = current_setting('gate.v'); END $$;",
    "a value of an enum": "CREATE TYPE e AS ENUM ('x'); SELECT :'v'::e;",
    "json": "SELECT :'v'::json;",
}


@pytest.mark.parametrize(
    "detail", ["safe", pytest.param("full", marks=pytest.mark.server)]
)
@pytest.mark.parametrize("case", FAILING)
def test_no_value_is_shown_however_a_file_fails(
    gate: Gate, database: Database, case: str, detail: str
) -> None:
    """Where PostgreSQL quotes it too: neither whole, nor its beginning."""
    env = {**values(v="Xyzzy-plugh-frotz " * 4), "GATE_LOG_DETAIL": detail}
    files = {**TABLE, "2_b.sql": FAILING[case]}
    run = gate(database=database, migrations=files, env=env)
    assert run.exit_code == 1
    shown = run.output.lower()
    kept = str(database.fetch("SELECT * FROM schema_migrations_failures")).lower()
    status = gate("status", database=database, migrations=files).output.lower()
    for output in (shown, kept, status):
        assert "xyzzy" not in output
        assert "frotz" not in output


def test_a_value_of_code_is_not_shown_in_parts(gate: Gate, database: Database) -> None:
    """PostgreSQL points to one word of it, and names that."""
    env = {**values(v="xyzzy, plugh FROM pg_class"), "GATE_LOG_DETAIL": "full"}
    run = gate(database=database, migrations={"1_a.sql": "SELECT\n:v;"}, env=env)
    assert (run.verdict["line"], run.verdict["column"]) == (2, 1)
    assert "xyzzy" not in run.output


def test_the_checksum_is_that_of_the_file_as_it_stands(
    gate: Gate, database: Database
) -> None:
    """Another value makes no other migration, nor one half done another."""
    files = {"1_a.sql": 'CREATE TABLE :"v" ();'}
    opened(gate(database=database, migrations=files, env=values(v="one")))
    assert opened(gate(database=database, migrations=files, env=values(v="two"))) == []
    files["2_b.sql"] = (
        '-- gate: no-transaction\nCREATE TABLE :"v" ();\nDROP TABLE three;\n'
    )
    half = gate(database=database, migrations=files, env=values(v="two"))
    assert half.verdict["line"] == 3, half.output
    database.execute("CREATE TABLE three ()")
    rest = gate(database=database, migrations=files, env=values(v="four"))
    assert opened(rest) == ["2_b.sql"]
    assert database.fetch("SELECT to_regclass('four')") == [(None,)]


def test_plan_fills_in_what_migrate_would(gate: Gate, database: Database) -> None:
    """What a value makes of the file, and what would be refused."""
    files = {"1_a.sql": "SELECT 1; :more", "2_b.sql": "SELECT :unset;"}
    env = values(more="SELECT 2; VACUUM")
    run = gate("plan", "--json", database=database, migrations=files, env=env)
    first, second = json.loads(run.stdout)
    assert (first["statement_count"], first["in_transaction"]) == (3, False)
    assert "variable :unset is not set" in second["refused"]


def test_a_file_of_a_value_may_come_a_little_later(
    gate: Gate, database: Database, tmp_path: Path
) -> None:
    """As a password's; one that never comes closes the gate."""
    path = tmp_path / "secret"
    files = {**TABLE, "2_b.sql": "INSERT INTO a VALUES (:'v');"}
    env = {"GATE_VAR_v_FILE": str(path), "GATE_AUTH_GRACE": "200ms"}
    closed = gate(database=database, migrations=files, env=env)
    assert closed.exit_code == 1
    assert "GATE_VAR_v_FILE" in closed.verdict["error_message"]
    assert str(path) not in closed.output
    env["GATE_AUTH_GRACE"] = "20s"
    process = gate.start(database=database, migrations=files, env=env)
    process.wait_for("database.retry_scheduled")
    path.write_text("found\n")
    assert opened(process.wait()) == list(files)
    assert database.fetch("SELECT v FROM a") == [("found",)]


FLYWAY = {
    "V1__a.sql": "CREATE TABLE ${Name}_t (v text DEFAULT '${word}'); -- ${word}\n",
    "R__f.sql": "CREATE OR REPLACE FUNCTION f() RETURNS text LANGUAGE sql AS $$\n"
    "SELECT '${word}'$$;",
}


def test_flyways_placeholders_are_filled_in_everywhere(
    gate: Gate, database: Database
) -> None:
    """In strings, comments and bodies too, whatever the case of the name."""
    env = values(name="flown", word="up")
    assert opened(gate(database=database, migrations=FLYWAY, env=env)) == list(FLYWAY)
    assert database.fetch("INSERT INTO flown_t DEFAULT VALUES RETURNING v, f()") == [
        ("up", "up")
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("SELECT 1;\nSELECT '${word}';", 'variable "word" is not set'),
        ("SELECT 1;\n-- ${flyway:user}", "placeholder of Flyway's own"),
        ("SELECT 1;\nSELECT '${a b}';", "placeholder whose name is none"),
    ],
)
def test_what_flyway_would_fill_in_and_nobody_has_set_is_refused(
    gate: Gate, database: Database, text: str, problem: str
) -> None:
    """With its line; a directive says that no placeholder is meant."""
    run = gate(database=database, migrations={"V1__a.sql": text})
    assert (run.exit_code, run.verdict["reason"]) == (1, "files")
    assert (run.verdict["line"], problem in run.verdict["error_message"]) == (2, True)
    meant = f"-- gate: no-placeholders\n{text}"
    assert opened(gate(database=database, migrations={"V1__a.sql": meant}))


def test_in_other_files_a_brace_in_a_string_is_no_placeholder(
    gate: Gate, database: Database
) -> None:
    """Only Flyway's form and goose's marks say so."""
    files = {**TABLE, "2_b.sql": "INSERT INTO a VALUES ('${word}');"}
    opened(gate(database=database, migrations=files, env=values(word="x")))
    assert database.fetch("SELECT v FROM a") == [("${word}",)]


GOOSE = """-- +goose Up
INSERT INTO a VALUES ('1 ${word}');
-- +goose ENVSUB ON
INSERT INTO a VALUES ('2 ${word}'), ('3 ${none:-by default}'), ('4 ${none:-}');
-- +goose ENVSUB OFF
INSERT INTO a VALUES ($$5 ${word}$$);
-- +goose Down
DROP TABLE a;
"""


def test_goose_fills_in_between_its_marks(gate: Gate, database: Database) -> None:
    """With a default where that is written."""
    files = {**TABLE, "2_b.sql": GOOSE}
    opened(gate(database=database, migrations=files, env=values(word="up")))
    found = [v for (v,) in database.fetch("SELECT v FROM a ORDER BY v")]
    assert found == ["1 ${word}", "2 up", "3 by default", "4 ", "5 ${word}"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [("${none}", 'variable "none" is not set'), ("$word", 'a "$" where goose fills')],
)
def test_what_goose_would_fill_in_otherwise_is_refused(
    gate: Gate, database: Database, text: str, problem: str
) -> None:
    """A name that is not set, and the forms that the gate does not know."""
    up = f"-- +goose Up\n-- +goose ENVSUB ON\nSELECT '{text}';\n"
    run = gate(database=database, migrations={"1_a.sql": up}, env=values(word="x"))
    assert (run.exit_code, run.verdict["reason"]) == (1, "files")
    assert (run.verdict["line"], problem in run.verdict["error_message"]) == (3, True)
