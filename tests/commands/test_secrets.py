"""No secret, no SQL text and no row data reaches what the process writes."""

from __future__ import annotations

import secrets

import psycopg
import pytest

from migration_gate.settings.environment import from_environ
from tests.execution.test_failing_sql import BATCH, run_all
from tests.fix_gate import Gate, Run
from tests.fix_postgres import Database


PART = 4
SECRET = "xQ7vKzW9pLm2"
SETUP = """
CREATE TABLE t (
    id int PRIMARY KEY, name text NOT NULL, parent int REFERENCES t,
    age int CHECK (age > 0), room int4range, EXCLUDE USING gist (room WITH &&)
);
CREATE TABLE part (k text) PARTITION BY LIST (k);
CREATE TABLE texts (v text);
CREATE TYPE mood AS ENUM ('good');
CREATE VIEW young AS SELECT v FROM texts WHERE v < 'a' WITH CHECK OPTION;
INSERT INTO t (id, name) VALUES (1, 'one');
INSERT INTO texts VALUES ('{s}'), ('{s}');
"""
FILES: dict[str, str | bytes] = {
    "EXECUTE of a DO block": "DO $$ BEGIN EXECUTE 'ALTER ROLE x PASSWORD ''{s}'' BAD';"
    " END $$;",
    "EXECUTE that fails": "DO $$ BEGIN EXECUTE 'SELECT ''{s}''::int'; END $$;",
    "query of a function": "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS "
    "$$ BEGIN PERFORM * FROM gone WHERE x = '{s}'; END $$; SELECT f();",
    "query of an SQL function": "CREATE FUNCTION g() RETURNS int LANGUAGE sql AS "
    "$$ SELECT '{s}'::text::int $$; SELECT g();",
    "raised with a query": "DO $$ BEGIN INSERT INTO t VALUES (1, '{s}'); END $$;",
    "unique": "INSERT INTO t (id, name) VALUES (1, '{s}');",
    "unique index": "CREATE UNIQUE INDEX ON texts (v);",
    "not null": "INSERT INTO t VALUES (2, NULL, NULL, 1); "
    "INSERT INTO t SELECT 3, nullif('{s}', '{s}'), 1 WHERE '{s}' <> '';",
    "not null of a row": "ALTER TABLE texts ADD w int; "
    "INSERT INTO texts VALUES ('{s}', NULL); ALTER TABLE texts ALTER w SET NOT NULL;",
    "row that is shown": "CREATE TABLE n (a text, b int NOT NULL); "
    "INSERT INTO n VALUES ('{s}', NULL);",
    "foreign key": "CREATE TABLE k (v text REFERENCES nowhere); SELECT '{s}';",
    "foreign key row": "CREATE TABLE p (v text PRIMARY KEY); CREATE TABLE c (v text "
    "REFERENCES p); INSERT INTO c VALUES ('{s}');",
    "deferred": "CREATE TABLE p (v text PRIMARY KEY); CREATE TABLE c (v text "
    "REFERENCES p DEFERRABLE INITIALLY DEFERRED); INSERT INTO c VALUES ('{s}');",
    "check": "INSERT INTO t (id, name, age) VALUES (5, '{s}', -1);",
    "check of old rows": "ALTER TABLE texts ADD CHECK (v = '');",
    "exclusion": "CREATE TABLE e (v text, EXCLUDE (v WITH =)); "
    "INSERT INTO e VALUES ('{s}'), ('{s}');",
    "partition": "INSERT INTO part VALUES ('{s}');",
    "view": "INSERT INTO young VALUES ('z{s}');",
    "int": "SELECT '{s}'::int;",
    "int column": "INSERT INTO t (id, name) VALUES ('{s}', 'x');",
    "date": "SELECT '{s}'::date;",
    "timestamp": "SELECT to_date('{s}', 'YYYY-MM-DD');",
    "json": "SELECT '{{\"a\": {s}'::json;",
    "jsonb": "SELECT jsonb '[\"{s}';",
    "jsonpath": "SELECT '$.{s} ?? {s}'::jsonpath;",
    "enum": "SELECT '{s}'::mood;",
    "uuid": "SELECT '{s}'::uuid;",
    "boolean": "SELECT '{s}'::boolean;",
    "inet": "SELECT '{s}'::inet;",
    "array": "SELECT '{{{s}'::int[];",
    "record": "SELECT '({s}'::young;",
    "xml": "SELECT '<{s}'::xml;",
    "bytea": "SELECT decode('{s}!', 'hex');",
    "numeric": "SELECT '{s}'::numeric;",
    "regex": "SELECT 'a' ~ '({s}';",
    "tsquery": "SELECT '{s} & ('::tsquery;",
    "long text": "CREATE TABLE v (a varchar(3)); INSERT INTO v VALUES ('{s}');",
    "cast of a column": "ALTER TABLE texts ALTER v TYPE int USING v::int;",
    "setting": "SET timezone = '{s}';",
    "syntax error beside": "ALTER ROLE x PASSWORD '{s}' NONSENSE;",
    "syntax error at": "ALTER ROLE x PASSWORD {s};",
    "syntax error at a quoted name": 'ALTER ROLE x PASSWORD "{s}";',
    "syntax error at a dollar string": "SELECT 1 $${s}$$ $${s}$$;",
    "syntax error at a string": "SELECT 'a' '{s}';",
    "syntax error of escapes": "SELECT E'\\u00zz{s}';",
    "junk after a number": "SELECT 123{s};",
    "unterminated string": "SELECT 1;\nSELECT '{s};\n",
    "unterminated dollar string": "SELECT $a${s};\n",
    "unterminated quoted name": 'SELECT "{s};\n',
    "unterminated comment": "/* {s}",
    "psql command": "\\set password {s}",
    "directive": "-- gate: {s}\nSELECT 1;",
    "not UTF-8": b"SELECT '{s}\xff';",
    "nested query": "CREATE FUNCTION h() RETURNS void LANGUAGE plpgsql AS $$ BEGIN "
    "EXECUTE 'SELEC ''{s}'''; END $$; DO $$ BEGIN PERFORM h(); END $$;",
}


def leaks(text: str, secret: str) -> list[str]:
    """Return the parts of a secret that a text shows."""
    return [
        secret[start : start + PART]
        for start in range(len(secret) - PART + 1)
        if secret[start : start + PART] in text
    ]


@pytest.mark.server
@pytest.mark.timeout(90)
def test_a_secret_in_a_failing_file_is_not_shown(
    gate: Gate, database: Database
) -> None:
    """In a DO block, a row, a value of the wrong type, or beside a syntax error."""
    database.execute(SETUP.format(s=SECRET))
    files = {
        name: text.replace(b"{s}", SECRET.encode())
        if isinstance(text, bytes)
        else text.format(s=SECRET)
        for name, text in FILES.items()
    }
    if database.server.version < 150000:
        del files["junk after a number"]  # an alias there, and no fault
    runs = run_all(gate, database, files, GATE_LOG_LEVEL="debug")
    shown = {name: leaks(run.output, SECRET) for name, run in runs.items()}
    assert {name: parts for name, parts in shown.items() if parts} == {}
    assert {name for name, run in runs.items() if run.exit_code != 1} == set()
    for run in runs.values():
        assert run.verdict["reason"] in {"migration_failed", "files"}, run.output


def failing_runs(gate: Gate, role: Database, url: str) -> list[Run]:
    """Return runs that end in every way that has to do with a login."""
    good = {"1_a.sql": "SELECT 1;"}
    now = {"GATE_WAIT_TIMEOUT": "0", "GATE_AUTH_GRACE": "0"}
    split = role.environ()
    return [
        gate("migrate", migrations={"1_a.sql": "SELEC;"}, env={"DATABASE_URL": url}),
        gate("status", migrations=good, env={"DATABASE_URL": url}),
        gate(migrations=good, env={"DATABASE_URL": url + "x", **now}),
        gate(migrations=good, env={**split, "POSTGRES_DB": "nowhere", **now}),
        gate(migrations=good, env={**split, "POSTGRES_PORT": "1", **now}),
        gate(migrations=good, env={**split, "POSTGRES_PORT": "no", **now}),
        gate(migrations=good, env={"DATABASE_URL": f"{url}@x/{url}", **now}),
        gate(migrations=good, env={**split, "POSTGRES_SSL_MODE": "wrong", **now}),
    ]


@pytest.mark.timeout(60)
def test_the_password_is_not_shown(gate: Gate, database: Database) -> None:
    """Whatever becomes of the login, at every level of the log."""
    password = f"{SECRET}@:/?#%&ü {secrets.token_hex(8)}"
    role = database.role("guarded", password=password)
    for run in failing_runs(gate, role, role.url):
        assert run.exit_code == 1
        assert leaks(run.output, SECRET) == [], run.output
        assert leaks(run.output, password[-16:]) == [], run.output


# What people write, with the part of the rule that explains it.
MALFORMED = {
    "postgresql://app:{s}@{s}@db/shop": 'has two "@" before its path',
    "postgresql://app:{s}/{s}@db/shop": 'has an "@" or a "/" in its database',
    "postgresql://app:{s}%{s}@db/shop": 'has a "%" in its password',
    "postgresql://app:{s}#{s}/{s}@db/shop": 'has an "@" or a "/" in its database',
    "postgresql://app:{s} {s}@db/shop": "contains white space",
    " postgresql://app:{s}@db/shop": "has white space around it",
    "postgresql://app:{s}@db/shop\n": "has white space around it",
    '"postgresql://app:{s}@db/shop"': "has quotes around it",
    "'postgresql://app:{s}@db/shop'": "has quotes around it",
    "postgresql://app:{s}@db/shop?shema=public": 'not known: "shema"',
    "postgresql://app:{s}@db:{s}/shop": "has a port that is not a number",
    "postgresql+psycopg://app:{s}@[db/shop": "not written as [address]",
    "postgres:app:{s}@db/shop": 'has no "//" after its scheme',
    "mysql://app:{s}@db/shop": 'has the scheme "mysql"',
    "app:{s}@db/shop": 'does not begin with "postgresql://"',
    "{s}": "is neither a URL nor a key=value string",
    "host=db user=app password={s} {s}": 'has no "=" in its fourth',
    "host=db user=app password='{s}": "has a single quote that is not closed",
    "host=db;user=app;password={s}": "has no user",
    "host=db;password={s} user=app": "has a host that contains a semicolon",
    "host=db user=app;password={s}": "has a user that contains a semicolon",
    "host=db user=app dbname=shop;password={s}": "has a database that contains",
}


@pytest.mark.timeout(60)
def test_a_malformed_url_is_explained_without_a_piece_of_it(gate: Gate) -> None:
    """The rule that is broken, at once, and nothing else of what was written."""
    urls = list(MALFORMED)
    for start in range(0, len(urls), BATCH):
        batch = urls[start : start + BATCH]
        processes = [
            gate.start(
                env={"DATABASE_URL": url.format(s=SECRET), "GATE_LOG_LEVEL": "debug"}
            )
            for url in batch
        ]
        for url, process in zip(batch, processes, strict=True):
            run = process.wait()
            assert (run.exit_code, run.verdict["reason"]) == (1, "settings"), url
            assert MALFORMED[url] in run.verdict["error_message"], url
            assert leaks(run.output, SECRET) == [], url


def test_the_password_is_in_no_process_list_and_no_repr(
    gate: Gate, database: Database
) -> None:
    """Arguments are visible to all; settings print without secrets."""
    role = database.role("guarded", password=SECRET)
    with psycopg.connect(**database.conninfo) as other:  # type: ignore[arg-type]  # texts
        other.execute("CREATE TABLE t (); LOCK TABLE t")
        process = gate.start(
            database=role,
            migrations={"1_a.sql": f"/* {SECRET} */ TABLE t;"},
            is_fork=False,
        )
        process.wait_for("database.ready")
        with open(f"/proc/{process.pid}/cmdline", "rb") as file:  # noqa: PTH123 -- proc
            assert SECRET.encode() not in file.read()
        process.kill()
    for environ in (role.environ(), {"DATABASE_URL": role.url}, {"PGPASSWORD": SECRET}):
        settings = from_environ({"PGHOST": "h", **environ})
        assert leaks(repr(settings), SECRET) == []
        assert leaks(str(settings), SECRET) == []
