"""Each remedy for an error that a server can be brought to: its own words, provoked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import NamedTuple

import psycopg
import pytest

from migration_gate.connection.refusals import to_failure
from migration_gate.report.errors import SqlFailure
from migration_gate.report.remedies import find_remedy
from tests.fix_postgres import Database


pytestmark = [pytest.mark.server, pytest.mark.timeout(90)]
SETUP = """
CREATE TABLE t (id int PRIMARY KEY, name text NOT NULL, n int CHECK (n > 0));
INSERT INTO t VALUES (1, 'x', 1);
CREATE TABLE late (id int REFERENCES t DEFERRABLE INITIALLY DEFERRED);
CREATE VIEW v AS SELECT id, name FROM t;
CREATE VIEW checked AS SELECT * FROM t WHERE id < 5 WITH CHECK OPTION;
CREATE MATERIALIZED VIEW m AS TABLE t WITH NO DATA;
CREATE TABLE parted (id int) PARTITION BY LIST (id);
CREATE TABLE apart (id int, EXCLUDE (id WITH =));
INSERT INTO apart VALUES (1);
CREATE TYPE mood AS ENUM ('good');
CREATE TABLE guarded (id int);
ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
CREATE TABLE published (id int);
INSERT INTO published VALUES (1);
CREATE PUBLICATION p FOR TABLE published;
CREATE FUNCTION deep() RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE OR REPLACE FUNCTION deep() RETURNS int LANGUAGE plpgsql AS
  'BEGIN RETURN deep(); END';
"""
DROP_ONESELF = "DO $$ BEGIN EXECUTE format('DROP ROLE %I', current_user); END $$"
RIGHTS = "GRANT ALL ON SCHEMA public TO {0}; GRANT INSERT ON guarded TO {0};"


class Case(NamedTuple):
    """What is run, after what; the SQLSTATE that comes, and a word of its remedy."""

    sqlstate: str
    statement: str
    word: str
    before: str = "BEGIN"


AS_SUPERUSER = [
    Case("25001", "VACUUM t", "no-transaction"),
    Case("25001", "CREATE DATABASE d", "no-transaction"),
    Case("25001", "CREATE INDEX CONCURRENTLY i ON t (n)", "no-transaction"),
    Case(
        "25001",
        "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        "BEGIN ISOLATION LEVEL",
        "BEGIN; SELECT 1",
    ),
    Case("25001", "DO $$ BEGIN EXECUTE 'VACUUM t'; END $$", "can never run in", ""),
    Case("2D000", "DO $$ BEGIN COMMIT; END $$", "no-transaction"),
    Case("25006", "CREATE TABLE x ()", "read-only", "BEGIN READ ONLY"),
    Case("25P01", "SAVEPOINT s", "BEGIN;", ""),
    Case("25P01", "LOCK TABLE t", "BEGIN;", ""),
    Case("26000", "EXECUTE nothing", "clean session"),
    Case("34000", "FETCH nothing", "clean session"),
    Case("3B001", "ROLLBACK TO nothing", "clean session"),
    Case("42P04", "CREATE DATABASE postgres", "resolve", ""),
    Case("42P06", "CREATE SCHEMA public", "resolve"),
    Case("42P07", "CREATE TABLE t ()", "resolve"),
    Case("42701", "ALTER TABLE t ADD n int", "resolve"),
    Case("42701", "INSERT INTO t (id, id) VALUES (1, 1)", "twice in the statement"),
    Case("42710", "CREATE TYPE mood AS ENUM ()", "resolve"),
    Case("42710", "CREATE ROLE postgres", "pg_roles", "BEGIN; CREATE ROLE twice"),
    Case(
        "42723",
        "CREATE FUNCTION deep() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "resolve",
    ),
    Case("42P01", "TABLE nothing", "search_path"),
    Case("42703", "SELECT nothing FROM t", "column's name"),
    Case("3F000", "CREATE TABLE nowhere.x ()", "Create the schema first"),
    Case("42704", "CREATE TABLE x (y citext)", "extension"),
    Case("42883", "SELECT nothing(1)", "search_path"),
    Case("42883", "SELECT uuid_generate_v4()", "gen_random_uuid()"),
    Case("22012", "SELECT 1 / 0", "NULLIF"),
    Case("22P02", "SELECT 'x'::int", "does not fit its type"),
    Case(
        "22001",
        "SELECT 'xxx'::text INTO TEMPORARY x; ALTER TABLE x ALTER COLUMN "
        "text TYPE varchar(1)",
        "does not fit its type",
    ),
    Case("22003", "SELECT 99999999999::int", "does not fit its type"),
    Case("22007", "SELECT 'x'::date", "does not fit its type"),
    Case("22008", "SELECT '2026-02-30'::date", "does not fit its type"),
    Case("22021", "SELECT convert_from('\\xff', 'UTF8')", "encoding"),
    Case("23502", "INSERT INTO t VALUES (2, NULL)", "violate"),
    Case("23503", "INSERT INTO late VALUES (9); SET CONSTRAINTS ALL IMMEDIATE", "viol"),
    Case("23505", "INSERT INTO t VALUES (1, 'x')", "violate"),
    Case("23514", "INSERT INTO t VALUES (2, 'x', 0)", "violate"),
    Case("23514", "INSERT INTO parted VALUES (1)", "create one first"),
    Case("23P01", "INSERT INTO apart VALUES (1)", "violate"),
    Case("44000", "INSERT INTO checked VALUES (9, 'x')", "violate"),
    Case(
        "55006",
        "ALTER TABLE late ADD n int",
        "SET CONSTRAINTS",
        "BEGIN; INSERT INTO late VALUES (9)",
    ),
    Case(
        "55006",
        "DO $$ DECLARE r record; BEGIN FOR r IN TABLE t LOOP "
        "EXECUTE 'DROP TABLE t CASCADE'; END LOOP; END $$",
        "later file",
    ),
    Case("55006", DROP_ONESELF, "administrator"),
    Case("55000", "DELETE FROM published", "REPLICA IDENTITY"),
    Case("55000", "TABLE m", "REFRESH"),
    Case("55P02", "SET max_connections = 7", "administrator"),
    Case(
        "55P04",
        "SELECT 'bad'::mood",
        "ALTER TYPE",
        "BEGIN; ALTER TYPE mood ADD VALUE 'bad'",
    ),
    Case("2BP01", "DROP TABLE t", "CASCADE"),
    Case(
        "54000",
        "CREATE TABLE x AS SELECT string_agg(md5(g::text), '') AS v FROM "
        "generate_series(1, 9000) g; CREATE INDEX ON x (v)",
        "md5(column)",
    ),
    Case("54001", "SELECT deep()", "calls itself"),
    Case("54023", "SELECT f({})".format(", ".join(["1"] * 101)), "A limit of"),
    Case(
        "57014",
        "SELECT pg_sleep(9)",
        "statement-timeout",
        "SET statement_timeout = '20ms'",
    ),
    Case("55P03", "LOCK TABLE t NOWAIT", "GATE_DDL_LOCK_TIMEOUT", "HELD"),
    Case("55P03", "LOCK TABLE t", "GATE_DDL_LOCK_TIMEOUT", "HELD"),
    Case("0A000", "ALTER TABLE t ALTER name TYPE varchar", "create that again"),
    Case("0A000", "CREATE INDEX CONCURRENTLY ON parted (id)", "ATTACH", ""),
    Case("58P01", "COPY t FROM '/nowhere/x.csv'", "FROM STDIN"),
    Case(
        "53400",
        "SELECT count(*) FROM (SELECT g FROM generate_series(1, 99999) g "
        "ORDER BY g DESC) x",
        "temp_file_limit",
        "SET temp_file_limit = '64kB'; SET work_mem = '64kB'",
    ),
]
AS_ANYBODY = [
    Case("42501", "TABLE t", "lacks this right"),
    Case("42501", "ALTER TABLE t ADD x int", "Only its owner"),
    Case("42501", "INSERT INTO guarded VALUES (1)", "policy"),
    Case("42501", "CREATE ROLE x", "administrator"),
    Case("42501", "CREATE DATABASE x", "administrator", ""),
    Case("42501", "SET log_statement = 'all'", "administrator"),
    Case("42501", "SET ROLE postgres", "administrator"),
    Case("42501", "COMMENT ON EXTENSION plpgsql IS 'x'", "--no-comments"),
    Case("42501", "COPY t FROM '/nowhere/x.csv'", "FROM STDIN"),
    Case("42501", "COPY t TO '/nowhere/x.csv'", "FROM STDIN"),
]


@contextmanager
def held(database: Database) -> Iterator[None]:
    """Have somebody hold the table."""
    with closing(database.connect()) as other:
        other.execute("BEGIN; LOCK TABLE t")
        yield


def provoke(conn: psycopg.Connection[tuple[object, ...]], case: Case) -> SqlFailure:
    """Return the error, and leave the session as it was."""
    before = "BEGIN; SET LOCAL lock_timeout = '20ms'" if case.before == "HELD" else ""
    conn.execute(before or case.before or "SELECT 1")
    with pytest.raises(psycopg.Error) as caught:
        conn.execute(case.statement)
    conn.execute("ROLLBACK")
    conn.execute("RESET ALL")
    return to_failure(caught.value)


def test_each_provoked_error_has_the_remedy_of_its_cause(
    database: Database, record_property: Callable[[str, object], None]
) -> None:
    """PostgreSQL's words are those that the remedies are found by."""
    database.execute(SETUP)
    anybody = database.role("anybody")
    database.execute(RIGHTS.format(anybody.user))
    found = []
    for there, cases in ((database, AS_SUPERUSER), (anybody, AS_ANYBODY)):
        with closing(there.connect()) as conn:
            for case in cases:
                if case.before == "HELD":
                    with held(database):
                        failure = provoke(conn, case)
                else:
                    failure = provoke(conn, case)
                remedy = find_remedy(failure)
                found.append((case, failure.sqlstate, case.word in remedy))
    wrong = [each for each in found if each[1:] != (each[0].sqlstate, True)]
    assert wrong == []
    record_property("provoked", len(found))
