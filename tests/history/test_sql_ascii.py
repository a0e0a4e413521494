"""A database that holds bytes of any encoding, and says them as they are."""

from __future__ import annotations

from contextlib import closing

import pytest

from tests.fix_gate import Gate
from tests.fix_postgres import Database, Databases
from tests.history_tables import ONE, PLAIN, versions


pytestmark = pytest.mark.server
LATIN = "ä".encode("latin-1")
SOON = {"GATE_AUTH_GRACE": "0s", "GATE_WAIT_TIMEOUT": "1s"}


def execute(database: Database, script: bytes) -> None:
    """Run statements that may have any bytes in them."""
    with closing(database.connect(client_encoding="SQL_ASCII")) as conn:
        done = conn.pgconn.exec_(script)
        assert not done.error_message, done.error_message


@pytest.fixture
def anything(databases: Databases) -> Database:
    """Return a database whose encoding is SQL_ASCII."""
    database = databases.name()
    with closing(database.server.connect()) as conn:
        conn.execute(
            f"CREATE DATABASE {database.name} ENCODING 'SQL_ASCII' LC_COLLATE 'C'"
            " LC_CTYPE 'C' TEMPLATE template0"
        )
    return database


def test_a_row_that_is_no_utf8_is_told_as_that(gate: Gate, anything: Database) -> None:
    """As in a history that another program wrote; corrected, the gate opens."""
    row = b"INSERT INTO schema_migrations (version) VALUES ('0_" + LATIN + b".sql')"
    execute(anything, PLAIN.encode() + row)
    run = gate(database=anything, migrations=ONE, env=SOON)
    assert (run.exit_code, run.verdict["reason"]) == (1, "refused"), run.output
    assert "SQLSTATE 22021" in run.verdict["error_message"]
    assert "SQL_ASCII" in run.verdict["hint"]
    execute(anything, b"UPDATE schema_migrations SET version = '0_a.sql'")
    assert gate(database=anything, migrations=ONE).exit_code == 0
    assert len(versions(anything)) == 2


def test_what_postgresql_says_that_is_no_utf8_fails_the_file(
    gate: Gate, anything: Database
) -> None:
    """Its own error cannot be told, and another one is in its place."""
    execute(
        anything, b'CREATE TABLE t (n int CONSTRAINT "c' + LATIN + b'" CHECK (n > 1))'
    )
    files = {"1_a.sql": "CREATE TABLE a ();\nINSERT INTO t VALUES (1);"}
    run = gate(database=anything, migrations=files)
    assert (run.exit_code, run.verdict["reason"]) == (1, "migration_failed")
    assert (run.verdict["sqlstate"], run.verdict["line"]) == ("22021", 2)
    assert "SQL_ASCII" in run.verdict["hint"]
    assert anything.fetch("SELECT to_regclass('a')") == [(None,)]
