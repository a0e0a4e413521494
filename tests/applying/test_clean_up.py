"""What a failed statement leaves is cleared under limits of the gate's own."""

from __future__ import annotations

from contextlib import closing

import pytest

from tests.fix_gate import Gate
from tests.fix_postgres import Database


pytestmark = [pytest.mark.server, pytest.mark.timeout(90)]
INVALID = "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid"
FILES = {"1_i.sql": "CREATE INDEX CONCURRENTLY t_i ON t (i);"}


def test_a_time_limit_is_told_as_one_though_the_clean_up_waits_too(
    gate: Gate, database: Database
) -> None:
    """A transaction on the table keeps both; the next start clears and builds."""
    database.execute("CREATE TABLE t (i int); INSERT INTO t VALUES (1)")
    with closing(database.connect()) as other:
        other.execute("BEGIN; UPDATE t SET i = 2")
        limit = {"GATE_STATEMENT_TIMEOUT": "500ms"}
        run = gate(database=database, migrations=FILES, env=limit, timeout=60)
        assert (run.exit_code, run.verdict["reason"]) == (1, "migration_failed")
        assert run.verdict["sqlstate"] == "57014"
        assert run.verdict["line"] == 1
        assert "statement timeout" in run.verdict["error_message"]
        assert "What it left stays for now" in run.verdict["hint"], run.output
        assert "A transaction that is open on its table" in run.verdict["hint"]
        assert database.fetch(INVALID) == [("t_i",)]
        other.execute("ROLLBACK")

    again = gate(database=database, migrations=FILES)
    assert again.verdict["applied"] == ["1_i.sql"], again.output
    assert database.fetch(INVALID) == []
