"""A migration and its history row: one transaction, one message, all or nothing."""

from __future__ import annotations

import pytest

from psycopg import sql

from tests.fix_gate import Gate
from tests.fix_postgres import Database, Databases
from tests.fix_proxy import Proxy
from tests.history_tables import tables, versions, why


@pytest.mark.parametrize("pending", [1, 5])
def test_pending_migrations_are_one_message(
    gate: Gate, database: Database, proxy: Proxy, pending: int
) -> None:
    """However many statements they have; two connections in all."""
    files = {
        f"{number}_x.sql": f"CREATE TABLE t{number} (); SELECT 1; SELECT 2;"
        for number in range(1, pending + 1)
    }
    run = gate(database=proxy.through(database), migrations=files)
    assert run.verdict["applied"] == list(files)
    looking, working = proxy.settled()
    # Look; other tools' histories, as there is none; lock; both again.
    assert looking.asked_once == "QQQQQX"
    # The lock of all that make a history, and a look for one; then the history table;
    # what the server can do; then the migrations.
    assert working.asked == "QQQQX"
    assert working.round_trips == 4


@pytest.mark.server
def test_a_failing_migration_leaves_nothing_and_earlier_ones_stay(
    gate: Gate, database: Database
) -> None:
    """A restart with the mended file goes on where it stopped."""
    files = {
        "1_a.sql": "CREATE TABLE a ();",
        "2_b.sql": "CREATE TABLE b (); INSERT INTO b DEFAULT VALUES; SELECT 1/0;",
        "3_c.sql": "CREATE TABLE c ();",
    }
    failed = gate(database=database, migrations=files)
    assert why(failed) == (1, "migration_failed", "division by zero")
    assert failed.verdict["applied"] == ["1_a.sql"]
    assert (versions(database), tables(database)) == (["1_a.sql"], ["a"])
    mended = gate(
        database=database, migrations=files | {"2_b.sql": "CREATE TABLE b ();"}
    )
    assert mended.verdict["applied"] == ["2_b.sql", "3_c.sql"]
    assert (versions(database), tables(database)) == (list(files), ["a", "b", "c"])


FILES: dict[str, tuple[str | bytes, int]] = {
    "only comments": ("-- nothing\n/* to do */\n", 0),
    "nothing at all": ("", 0),
    "a comment without line end": ("CREATE TABLE t (); -- the end", 1),
    "no semicolon at the end": ("CREATE TABLE t ()", 1),
    "empty statements": (";;CREATE TABLE t ();;\n;", 1),
    "a byte order mark": (b"\xef\xbb\xbfCREATE TABLE t ();", 1),
    "line ends of Windows": ("CREATE TABLE t (\r\n);\r\nSELECT 1;\r\n", 2),
    "its own transaction": ("BEGIN;\nCREATE TABLE t ();\nCOMMIT;\n", 1),
    "settings before its own transaction": (
        "SET lock_timeout = '1s';\nBEGIN;\nCREATE TABLE t ();\nEND;\n",
        2,
    ),
    "savepoints": (
        "SAVEPOINT s; CREATE TABLE u (); ROLLBACK TO s; CREATE TABLE t (); RELEASE s;",
        5,
    ),
    "an open savepoint": ("SAVEPOINT s; CREATE TABLE t ();", 2),
    "an open cursor": (
        "CREATE TABLE t (); DECLARE c CURSOR WITH HOLD FOR SELECT 1; FETCH c;",
        3,
    ),
    "old strings": ("CREATE TABLE t (); SELECT 'a\\', E'\\'';", 2),
    "a rule with several statements": (
        (
            "CREATE TABLE t ();"
            "CREATE RULE r AS ON INSERT TO t DO ALSO (SELECT 1; SELECT 2);"
            "INSERT INTO t DEFAULT VALUES; SELECT 1;"
        ),
        4,
    ),
    "functions of every kind": (
        (
            "CREATE TABLE t ();"
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1;';"
            "CREATE PROCEDURE p() LANGUAGE plpgsql AS $x$ BEGIN PERFORM 1; END $x$;"
            "CALL p(); DO $$ BEGIN PERFORM f(); END $$;"
        ),
        5,
    ),
    "many statements": ("CREATE TABLE t (); " + "SELECT 1;" * 500, 501),
}


@pytest.mark.server
def test_files_of_every_shape_are_applied(gate: Gate, database: Database) -> None:
    """And recorded, with the number of their statements."""
    files: dict[str, str | bytes] = {}
    for number, (text, _) in enumerate(FILES.values(), 1):
        files[f"{number:02}_x.sql"] = text
        drop = "DROP TABLE IF EXISTS t CASCADE;"
        files[f"{number:02}_y.sql"] = f"{drop} DROP FUNCTION IF EXISTS f();"
    run = gate(database=database, migrations=files)
    assert run.exit_code == 0, run.output
    counts = {
        event["version"]: event["statement_count"]
        for event in run.all("migration.applied")
    }
    expected = {
        f"{number:02}_x.sql": count
        for number, (_, count) in enumerate(FILES.values(), 1)
    }
    assert {name: counts[name] for name in expected} == expected
    assert sorted(versions(database)) == sorted(files)


CONTROL = ["ROLLBACK", "COMMIT AND CHAIN", "PREPARE TRANSACTION 'x'", "COMMIT", "ABORT"]


def test_transaction_control_is_refused_before_anything_is_applied(
    gate: Gate, database: Database
) -> None:
    """Every fault of every pending file at once, with its line."""
    files = {"0_good.sql": "CREATE TABLE good ();"}
    for number, statement in enumerate(CONTROL, 1):
        files[f"{number}_x.sql"] = f"CREATE TABLE t{number} ();\n\n  {statement};\n"
    files["6_half.sql"] = "BEGIN;\nSELECT 1;\nCOMMIT;\nBEGIN;\nSELECT 2;\n"
    run = gate(database=database, migrations=files)
    assert (run.exit_code, run.verdict["reason"]) == (1, "files")
    for number in range(1, len(CONTROL) + 1):
        assert f"{number}_x.sql:3: " in run.stderr
    assert "6_half.sql:" in run.stderr
    assert "0_good.sql:" not in run.stderr
    assert (run.verdict["file"], run.verdict["line"]) == ("1_x.sql", 3)
    assert database.fetch("SELECT to_regclass('schema_migrations')") == [(None,)]
    assert tables(database) == []


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param("DELETE FROM schema_migrations", marks=pytest.mark.server),
        pytest.param("TRUNCATE schema_migrations", marks=pytest.mark.server),
        "DROP TABLE schema_migrations",
        "UPDATE schema_migrations SET version = 'x' WHERE version = '2_b.sql'",
    ],
)
def test_a_file_that_removes_its_own_row_fails_and_leaves_nothing(
    gate: Gate, database: Database, statement: str
) -> None:
    """The history is the gate's to write."""
    gate(database=database, migrations={"1_a.sql": "SELECT 1;"})
    files = {"1_a.sql": "SELECT 1;", "2_b.sql": f"CREATE TABLE b (); {statement};"}
    run = gate(database=database, migrations=files)
    assert why(run) == (
        1,
        "history",
        "2_b.sql:1: the migration removes the history table, or writes rows of it",
    )
    assert (versions(database), tables(database)) == (["1_a.sql"], [])


@pytest.mark.server
def test_no_default_says_that_a_row_is_there(gate: Gate, database: Database) -> None:
    """What the gate notes of its row counts from the end of the file on."""
    database.execute(
        f"ALTER DATABASE \"{database.name}\" SET migration_gate.recorded = 'on'"
    )
    files = {"1_a.sql": "CREATE TABLE a (); DELETE FROM schema_migrations;"}
    assert why(gate(database=database, migrations=files))[1] == "history"
    assert (versions(database), tables(database)) == ([], [])


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE public.schema_migrations (version text)",
        'CREATE TABLE IF NOT EXISTS "schema_migrations" (version text)',
        "INSERT INTO schema_migrations (version) VALUES ('1_a.sql')",
        "COPY public.schema_migrations (version) FROM stdin;\n1_a.sql\n\\.\n",
    ],
)
def test_a_file_that_makes_or_fills_the_history_is_refused(
    gate: Gate, database: Database, statement: str
) -> None:
    """A dump of a live database: with its line, and how to dump it without."""
    run = gate(database=database, migrations={"1_a.sql": f"SELECT 1;\n{statement};\n"})
    assert (run.exit_code, run.verdict["reason"]) == (1, "files")
    assert (
        'creates or fills the history table "schema_migrations"'
        in (run.verdict["error_message"])
    )
    assert "pg_dump -T 'schema_migrations*'" in run.verdict["hint"]
    assert run.verdict["line"] == 2


@pytest.mark.parametrize("name", ["Änderungen", "HISTORY", 'a"b', "ÄÖÜ" * 10 + "xyz"])
@pytest.mark.parametrize("form", ["quoted", "with escapes"])
def test_a_history_of_any_name_is_not_filled(
    gate: Gate, database: Database, name: str, form: str
) -> None:
    """However the name is written."""
    written = (
        sql.Identifier(name).as_string()
        if form == "quoted"
        else 'U&"' + "".join(f"\\{ord(letter):04x}" for letter in name) + '"'
    )
    run = gate(
        database=database,
        migrations={"1_a.sql": f"INSERT INTO {written} (version) VALUES ('1_a.sql');"},
        env={"GATE_HISTORY_TABLE": sql.Identifier(name).as_string()},
    )
    assert (run.exit_code, run.verdict["reason"]) == (1, "files"), run.output
    assert "creates or fills the history table" in run.verdict["error_message"]


@pytest.mark.server
def test_objects_and_the_history_belong_to_gate_role(
    gate: Gate, database: Database
) -> None:
    """What is made as the login role, after RESET ROLE, belongs to that."""
    login = database.role("login")
    owner = database.role("owner", attributes="NOLOGIN")
    database.execute(
        f"GRANT {owner.user} TO {login.user};"
        f"GRANT CREATE ON SCHEMA public TO {login.user}, {owner.user};"
    )
    files = {
        "1_a.sql": "CREATE TABLE a AS SELECT current_user::text AS me;",
        "2_b.sql": "RESET ROLE; CREATE TABLE b ();",
        "3_c.sql": "CREATE TABLE c AS SELECT current_user::text AS me;",
    }
    run = gate(database=login, migrations=files, env={"GATE_ROLE": owner.user})
    assert run.exit_code == 0, run.output
    owners = (
        "SELECT tablename::text, tableowner::text FROM pg_tables WHERE schemaname = "
    )
    assert dict(database.fetch(owners + "'public'")) == {
        "a": owner.user,
        "b": login.user,
        "c": owner.user,
        "schema_migrations": owner.user,
    }
    assert database.fetch("TABLE a UNION ALL TABLE c") == [(owner.user,)] * 2


@pytest.mark.server
def test_a_role_that_cannot_be_taken_is_explained(
    gate: Gate, database: Database
) -> None:
    """One that does not exist, and one that the login role is no member of."""
    login = database.role("login")
    owner = database.role("owner", attributes="NOLOGIN")
    database.execute(f"GRANT CREATE ON SCHEMA public TO {login.user}, {owner.user}")
    files = {"1_a.sql": "CREATE TABLE a ();"}
    run = gate(database=login, migrations=files, env={"GATE_ROLE": "nobody"})
    assert why(run) == (1, "settings", "GATE_ROLE names a role that does not exist")
    run = gate(database=login, migrations=files, env={"GATE_ROLE": owner.user})
    assert why(run) == (
        1,
        "refused",
        f'role "{login.user}" may not become role "{owner.user}" (GATE_ROLE)',
    )
    database.execute(run.verdict["hint"])
    run = gate(database=login, migrations=files, env={"GATE_ROLE": owner.user})
    assert run.verdict["applied"] == ["1_a.sql"]


@pytest.mark.server
def test_a_member_that_may_not_set_its_role_is_told_which_option_lacks(
    gate: Gate, database: Database
) -> None:
    """Since PostgreSQL 16 a membership may leave that out."""
    if database.server.version < 160000:
        pytest.skip("a member may always become the role")
    login = database.role("login")
    owner = database.role("owner", attributes="NOLOGIN")
    database.execute(
        f"GRANT CREATE ON SCHEMA public TO {login.user}, {owner.user};"
        f"GRANT {owner.user} TO {login.user} WITH SET FALSE"
    )
    files = {"1_a.sql": "CREATE TABLE a ();"}
    run = gate(database=login, migrations=files, env={"GATE_ROLE": owner.user})
    assert run.verdict["reason"] == "refused"
    assert run.verdict["hint"] == f"GRANT {owner.user} TO {login.user} WITH SET TRUE;"
    database.execute(run.verdict["hint"])
    run = gate(database=login, migrations=files, env={"GATE_ROLE": owner.user})
    assert run.verdict["applied"] == ["1_a.sql"]


@pytest.mark.server
@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_of_another_encoding_is_migrated(
    gate: Gate, databases: Databases, encoding: str
) -> None:
    """Text arrives as it is meant; a place is counted in characters all the same."""
    database = databases.name()
    with databases.server.connect() as conn:
        conn.execute(
            f"CREATE DATABASE {database.name} TEMPLATE template0 LC_COLLATE 'C'"
            f" LC_CTYPE 'C' ENCODING '{encoding}'"
        )
    files = {"1_größe.sql": "CREATE TABLE a AS SELECT 'é'::text AS t;"}
    run = gate(database=database, migrations=files)
    assert run.verdict["applied"] == list(files), run.output
    assert gate(database=database, migrations=files).verdict["applied"] == []
    assert database.fetch("SELECT octet_length(t) FROM a") == [
        (1 if encoding == "LATIN1" else 2,)
    ]
    files["2_b.sql"] = "SELECT 'é',\n 'äöü', nothing;"
    run = gate(database=database, migrations=files)
    assert (run.verdict["line"], run.verdict["column"]) == (2, 9)
    files["2_b.sql"] = "SELECT 1;\nSELECT '€';"
    run = gate(database=database, migrations=files)
    assert run.exit_code == (1 if encoding == "LATIN1" else 0)
    if encoding == "LATIN1":
        assert run.verdict["sqlstate"] == "22P05"
        assert (run.verdict["line"], run.verdict["column"]) == (2, 9)
        assert 'encoding "LATIN1"' in run.verdict["error_message"]
        assert "The database's encoding has no such character" in run.verdict["hint"]
