"""What a statement is and names, told from its first tokens as the grammar has it."""

from __future__ import annotations

import pytest

from migration_gate.statements import (
    ConcurrentIndex,
    Statement,
    concurrent_index,
    forbids_transaction,
    is_copy_from_stdin,
    is_copy_to_stdout,
    may_change_defaults,
    setting_changed,
    split,
    tables_written,
    transaction_control,
)


# As measured on 13.16, 15.18, 17.11 and 18.6 with BEGIN: all of these are 25001.
FORBID = {
    "CREATE DATABASE d": "CREATE DATABASE",
    "DROP DATABASE IF EXISTS d": "DROP DATABASE",
    "CREATE TABLESPACE s LOCATION '/s'": "CREATE TABLESPACE",
    "DROP TABLESPACE s": "DROP TABLESPACE",
    "ALTER SYSTEM SET work_mem = '4MB'": "ALTER SYSTEM",
    "ALTER DATABASE d SET TABLESPACE s": "ALTER DATABASE ... SET TABLESPACE",
    "VACUUM": "VACUUM",
    "VACUUM (ANALYZE) t": "VACUUM",
    "CREATE INDEX CONCURRENTLY ON t (a)": "CREATE INDEX CONCURRENTLY",
    "create /* ; */ unique -- a\n index concurrently i ON t (a)": (
        "CREATE INDEX CONCURRENTLY"
    ),
    "DROP INDEX CONCURRENTLY i": "DROP INDEX CONCURRENTLY",
    "REINDEX TABLE CONCURRENTLY t": "REINDEX CONCURRENTLY",
    "REINDEX (VERBOSE) INDEX CONCURRENTLY i": "REINDEX CONCURRENTLY",
    "REINDEX (CONCURRENTLY, VERBOSE off) TABLE t": "REINDEX CONCURRENTLY",
    "REINDEX SCHEMA s": "REINDEX SCHEMA",
    "REINDEX DATABASE d": "REINDEX DATABASE",
    "REINDEX SYSTEM": "REINDEX SYSTEM",
    "CLUSTER": "CLUSTER without a table",
    "CLUSTER VERBOSE": "CLUSTER without a table",
    "CLUSTER (VERBOSE)": "CLUSTER without a table",
    "DISCARD ALL": "DISCARD ALL",
    "COMMIT PREPARED 'x'": "COMMIT PREPARED",
    "ROLLBACK PREPARED 'x'": "ROLLBACK PREPARED",
    "CREATE SUBSCRIPTION s CONNECTION '' PUBLICATION p WITH (enabled = false)": (
        "CREATE SUBSCRIPTION ... WITH (create_slot = true)"
    ),
    "CREATE SUBSCRIPTION s CONNECTION '' PUBLICATION " + "p, " * 50 + "p": (
        "CREATE SUBSCRIPTION ... WITH (create_slot = true)"
    ),
    "DROP SUBSCRIPTION s": "DROP SUBSCRIPTION",
}
FORBID_SINCE = {
    "ALTER TABLE IF EXISTS ONLY s.t * DETACH PARTITION s.p CONCURRENTLY": (
        140000,
        "ALTER TABLE ... DETACH PARTITION CONCURRENTLY",
    ),
    "ALTER SUBSCRIPTION s REFRESH PUBLICATION": (
        140000,
        "ALTER SUBSCRIPTION ... REFRESH PUBLICATION",
    ),
    "ALTER SUBSCRIPTION s SET PUBLICATION p, q": (
        140000,
        "ALTER SUBSCRIPTION ... PUBLICATION with refresh",
    ),
    "ALTER SUBSCRIPTION s ADD PUBLICATION p WITH (copy_data, refresh = 'on')": (
        140000,
        "ALTER SUBSCRIPTION ... PUBLICATION with refresh",
    ),
    "ALTER SUBSCRIPTION s SET (failover = off)": (
        170000,
        "ALTER SUBSCRIPTION ... SET (failover)",
    ),
    "ALTER SUBSCRIPTION s SET (streaming = on, two_phase = false)": (
        180000,
        "ALTER SUBSCRIPTION ... SET (two_phase = false)",
    ),
}
ALLOW = (
    "ANALYZE t",
    "CREATE INDEX concurrently_built ON t (a)",
    'CREATE INDEX "concurrently" ON t (a)',
    "DROP INDEX i",
    "REINDEX TABLE t",
    "REINDEX (CONCURRENTLY false) INDEX i",
    "REINDEX (other = - 1, CONCURRENTLY = 0) INDEX i",
    "CLUSTER t USING i",
    "CLUSTER VERBOSE t",
    "ALTER TABLE t DETACH PARTITION p",
    "ALTER TABLE t DETACH PARTITION p FINALIZE",
    "ALTER TABLE t ADD COLUMN concurrently int",
    "ALTER DATABASE d SET work_mem = '4MB'",
    "ALTER DATABASE d REFRESH COLLATION VERSION",
    "DISCARD PLANS",
    "REFRESH MATERIALIZED VIEW CONCURRENTLY v",
    "ALTER TYPE e ADD VALUE 'x'",
    "CREATE SUBSCRIPTION s CONNECTION '' PUBLICATION p WITH (connect = false)",
    "CREATE SUBSCRIPTION s CONNECTION '' PUBLICATION p WITH (create_slot = 'off')",
    "ALTER SUBSCRIPTION s SET PUBLICATION p WITH (refresh = false)",
    "ALTER SUBSCRIPTION s SET (two_phase = true)",
    "ALTER SUBSCRIPTION s SET (slot_name = NONE)",
    "ALTER SUBSCRIPTION s DISABLE",
    "COMMENT ON TABLE t IS 'VACUUM'",
)

CONTROL = {
    "BEGIN": "begin",
    "BEGIN WORK": "begin",
    "START TRANSACTION ISOLATION LEVEL SERIALIZABLE": "begin",
    "COMMIT": "commit",
    "COMMIT WORK AND NO CHAIN": "commit",
    "COMMIT AND CHAIN": "commit_and_chain",
    "END": "commit",
    "END TRANSACTION AND CHAIN": "commit_and_chain",
    "ROLLBACK": "rollback",
    "ABORT TRANSACTION": "rollback",
    "ROLLBACK TRANSACTION AND CHAIN": "rollback_and_chain",
    "ABORT AND CHAIN": "rollback_and_chain",
    "ROLLBACK TO a": "rollback_to",
    "ROLLBACK WORK TO SAVEPOINT a": "rollback_to",
    "SAVEPOINT a": "savepoint",
    "RELEASE a": "release",
    "RELEASE SAVEPOINT a": "release",
    "PREPARE TRANSACTION 'x'": "prepare",
    "PREPARE TRANSACTION $$x$$": "prepare",
    "COMMIT PREPARED 'x'": "commit_prepared",
    "ROLLBACK PREPARED 'x'": "rollback_prepared",
    "SET TRANSACTION READ ONLY": "set_transaction",
    "SET LOCAL TRANSACTION READ ONLY": "set_transaction",
    "PREPARE transaction AS SELECT 1": None,
    "PREPARE transaction (int) AS SELECT 1": None,
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY": None,
    "START_TRANSACTION": None,
    '"begin"': None,
    "SELECT 1": None,
}

SETTINGS = {
    "SET work_mem = '4MB'": ("work_mem", "4MB", "session"),
    "SET Work_Mem TO 4096": ("work_mem", "4096", "session"),
    "SET SESSION x.Y = -1.5": ("x.y", "-1.5", "session"),
    "SET LOCAL search_path TO a, \"B\", 'c d'": (
        *("search_path", "a, B, c d", "local"),
    ),
    "SET search_path = DEFAULT": ("search_path", None, "session"),
    "SET standard_conforming_strings TO OFF": (
        *("standard_conforming_strings", "off", "session"),
    ),
    r"SET a = E'\x41\'\n''\\\u00e9\U0001F600\101'": (
        *("a", "A'\n'\\é\U0001f600A", "session"),
    ),
    "SET a = N'b'": ("a", "b", "session"),
    "SET a = 'b'\n  'c''d'": ("a", "bc'd", "session"),
    r"SET a = U&'\00e9\+01F600\\'": ("a", "é\U0001f600\\", "session"),
    "SET a = $x$b'c$x$": ("a", "b'c", "session"),
    "SET TIME ZONE 'UTC'": ("timezone", "UTC", "session"),
    "SET LOCAL TIME ZONE LOCAL": ("timezone", None, "local"),
    "SET TIME ZONE INTERVAL '-08:00' HOUR TO MINUTE": (
        *("timezone", "interval -08:00 hour to minute", "session"),
    ),
    "SET TIME ZONE -8": ("timezone", "-8", "session"),
    "SET NAMES 'LATIN1'": ("client_encoding", "LATIN1", "session"),
    "SET NAMES": ("client_encoding", None, "session"),
    "SET SCHEMA 'a'": ("search_path", "a", "session"),
    "SET ROLE bob": ("role", "bob", "session"),
    "SET LOCAL ROLE 'Bob'": ("role", "Bob", "local"),
    "SET role = NONE": ("role", "none", "session"),
    "SET ROLE NONE": ("role", "none", "session"),
    "SET SESSION AUTHORIZATION bob": ("session_authorization", "bob", "session"),
    "SET SESSION SESSION AUTHORIZATION DEFAULT": (
        *("session_authorization", None, "session"),
    ),
    "SET LOCAL SESSION AUTHORIZATION bob": (
        *("session_authorization", "bob", "local"),
    ),
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY": (
        *("session characteristics", "read only", "session"),
    ),
    "SET XML OPTION DOCUMENT": ("xmloption", "document", "session"),
    "SET " + "a" * 70 + " = 1": ("a" * 63, "1", "session"),
    "RESET work_mem": ("work_mem", None, "reset"),
    "RESET ALL": ("all", None, "reset"),
    "RESET TIME ZONE": ("timezone", None, "reset"),
    "RESET SESSION AUTHORIZATION": ("session_authorization", None, "reset"),
    "SELECT pg_catalog.set_config('search_path', '', false)": (
        *("search_path", "", "session"),
    ),
    "select SET_CONFIG('Role', $$a$$, true)": ("role", "a", "local"),
    "SELECT set_config('a.b', NULL, 'f')": ("a.b", None, "session"),
    "SELECT set_config(a, b, true)": None,
    "SELECT set_config('a')": None,
    "SELECT 1": None,
    "SET work_mem FROM CURRENT": None,
    "SET TRANSACTION READ ONLY": None,
    "SET CONSTRAINTS ALL DEFERRED": None,
}

INDEXES = {
    'CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS "I;""é" ON ONLY S.T (a)': (
        ConcurrentIndex(
            action="create",
            schema="s",
            name='I;"é',
            table_schema="s",
            table="t",
            if_not_exists=True,
        )
    ),
    "CREATE INDEX CONCURRENTLY ON t USING gin (a)": (
        ConcurrentIndex(action="create", table="t")
    ),
    "CREATE INDEX CONCURRENTLY " + "é" * 40 + " ON db.s.t (a)": ConcurrentIndex(
        action="create", schema="s", name="é" * 31, table_schema="s", table="t"
    ),
    "CREATE INDEX CONCURRENTLY U&\"d!0061t!+000061\" UESCAPE '!' ON t (a)": (
        ConcurrentIndex(action="create", name="data", table="t")
    ),
    "CREATE INDEX i ON t (a)": None,
    "DROP INDEX CONCURRENTLY IF EXISTS s.I": (
        ConcurrentIndex(action="drop", schema="s", name="i")
    ),
    "DROP INDEX i": None,
    "REINDEX INDEX CONCURRENTLY s.i": (
        ConcurrentIndex(action="reindex", schema="s", name="i")
    ),
    "REINDEX (CONCURRENTLY true, TABLESPACE t) TABLE s.t": (
        ConcurrentIndex(action="reindex", table_schema="s", table="t")
    ),
    "REINDEX SCHEMA CONCURRENTLY s": ConcurrentIndex(action="reindex", schema="s"),
    "REINDEX DATABASE CONCURRENTLY": ConcurrentIndex(action="reindex"),
    "REINDEX INDEX i": None,
    "SELECT 1": None,
}

TABLES = {
    "CREATE TABLE t (a int)": ((None, "t"),),
    'CREATE UNLOGGED TABLE IF NOT EXISTS "S".T (a int)': (("S", "t"),),
    "CREATE FOREIGN TABLE s.t (a int) SERVER x": (("s", "t"),),
    "CREATE TABLE db.s.t AS SELECT 1": (("s", "t"),),
    "CREATE TEMP TABLE t (a int)": (),
    "CREATE LOCAL TEMPORARY TABLE t (a int)": (),
    "CREATE INDEX t ON u (a)": (),
    "COPY s.t (a, b) FROM '/x'": (("s", "t"),),
    "COPY BINARY t FROM PROGRAM 'x'": ((None, "t"),),
    "COPY t (" + "a, " * 5000 + "a) FROM '/x'": (),
    "COPY t TO '/x'": (),
    "COPY (SELECT 1) TO '/x'": (),
    "INSERT INTO s.t VALUES (1)": (("s", "t"),),
    "INSERT/**/INTO t SELECT 1": ((None, "t"),),
    'INSERT INTO "a.b" VALUES (1)': ((None, "a.b"),),
    "INSERT INTO": (),
    "SELECT 1": (),
}


@pytest.mark.parametrize(("script", "reason"), FORBID.items())
def test_what_no_server_runs_in_a_transaction_is_known(
    script: str, reason: str
) -> None:
    """By the name that PostgreSQL gives it."""
    assert forbids_transaction(only(script), 130000) == reason
    assert forbids_transaction(only(script)) == reason


@pytest.mark.parametrize(("script", "since"), FORBID_SINCE.items())
def test_what_newer_servers_do_not_run_in_a_transaction_is_known(
    script: str, since: tuple[int, str]
) -> None:
    """From the version on that refuses it; before, it may run in one."""
    version, reason = since
    assert forbids_transaction(only(script), version) == reason
    assert forbids_transaction(only(script), version - 1) is None


@pytest.mark.parametrize("script", ALLOW)
def test_what_may_run_in_a_transaction_is_left_there(script: str) -> None:
    """Running outside one gives up rolling back."""
    assert forbids_transaction(only(script)) is None


@pytest.mark.parametrize(("script", "control"), CONTROL.items())
def test_transaction_control_is_known(script: str, control: str | None) -> None:
    """In every spelling, and told from what only looks like it."""
    assert transaction_control(only(script)) == control


@pytest.mark.parametrize(("script", "change"), SETTINGS.items())
def test_a_changed_setting_is_known(
    script: str, change: tuple[str, str | None, str] | None
) -> None:
    """Its name, what it is set to, and how long that lasts."""
    assert setting_changed(only(script)) == change


COLUMNS = {
    "(a)": (("a",), False),
    'USING btree (A DESC, "B" COLLATE "C" text_ops (x = 1) NULLS LAST) INCLUDE (c)': (
        ("a", "B"),
        False,
    ),
    "(lower(a), (b), s.f(c), d)": ((None, None, None, "d"), False),
    "(a1, a2, a3, a4, a5, a6, a7, a8, a9, a10)": (
        ("a1", "a2", "a3", "a4", "a5", "a6", "a7", "a8"),
        True,
    ),
}


@pytest.mark.parametrize(("text", "columns"), COLUMNS.items())
def test_the_columns_of_an_index_are_told(
    text: str, columns: tuple[tuple[str | None, ...], bool]
) -> None:
    """As far as the first tokens tell."""
    index = concurrent_index(only(f"CREATE INDEX CONCURRENTLY ON t {text}"))
    assert index is not None
    assert (index.columns, index.has_more) == columns


@pytest.mark.parametrize(("script", "index"), INDEXES.items())
def test_the_names_of_a_concurrent_index_are_the_catalogues(
    script: str, index: ConcurrentIndex | None
) -> None:
    """Folded, unquoted and cut as PostgreSQL does."""
    assert concurrent_index(only(script)) == index


@pytest.mark.parametrize(
    ("script", "tables"), TABLES.items(), ids=[script[:30] for script in TABLES]
)
def test_the_table_that_a_statement_makes_or_fills_is_known(
    script: str, tables: tuple[tuple[str | None, str], ...]
) -> None:
    """A temporary table is nobody else's."""
    assert tables_written(only(script)) == tables


@pytest.mark.parametrize(
    ("script", "from_stdin", "to_stdout"),
    [
        ("COPY t FROM stdin;\n\\.\n", True, False),
        ("COPY t (" + "a, " * 1599 + "a) FROM stdin;\n\\.\n", True, False),
        ("COPY t TO STDOUT", False, True),
        ("COPY (SELECT 1 FROM (SELECT 2) x) TO stdout", False, True),
        ("COPY t TO STDIN", False, True),
        ("COPY t FROM '/x'", False, False),
        ("COPY t", False, False),
        ("SELECT 1", False, False),
    ],
    ids=lambda script: str(script)[:30],
)
def test_copy_with_the_client_is_known(
    script: str, *, from_stdin: bool, to_stdout: bool
) -> None:
    """It needs another way of sending."""
    statement = only(script)
    assert is_copy_from_stdin(statement) == from_stdin
    assert is_copy_to_stdout(statement) == to_stdout


def only(script: str) -> Statement:
    """Return the one statement of a script."""
    (statement,) = split(script.encode())
    return statement


@pytest.mark.parametrize(
    ("script", "may"),
    [
        ("ALTER ROLE r SET search_path = a", True),
        ("ALTER USER r RESET ALL", True),
        ("ALTER DATABASE d SET search_path = a", True),
        ("DO $$ BEGIN END $$", True),
        ("SELECT f()", True),
        ("CALL p()", True),
        ("INSERT INTO t VALUES (1)", True),
        ("CREATE EXTENSION e", True),
        ("CREATE TABLE t ()", False),
        ("ALTER TABLE t ADD c int", False),
        ("SET search_path = a", False),
        ("COMMENT ON ROLE r IS 'ALTER ROLE'", False),
    ],
)
def test_what_may_change_the_defaults(script: str, may: bool) -> None:  # noqa: FBT001
    """ALTER ROLE and ALTER DATABASE, and whatever runs code that nobody has read."""
    assert may_change_defaults(only(script)) == may
