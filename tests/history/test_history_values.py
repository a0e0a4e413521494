"""What the columns of a history that was taken over may hold, and nobody expects."""

from __future__ import annotations

import pytest

from tests.fix_gate import Gate
from tests.fix_postgres import Database


TABLE = """
CREATE TABLE schema_migrations (
    version text UNIQUE, applied_at {type}, checksum text, duration_ms {number},
    gate_version text
);
INSERT INTO schema_migrations VALUES ('1_a.sql', now(), NULL, 1, NULL);
INSERT INTO schema_migrations VALUES ({row});
"""
ROWS = {
    "NULL everywhere": "NULL, NULL, NULL, NULL, NULL",
    "NULL version": "NULL, now(), 'sha256:x', 1, '0'",
    "infinity": "'0_x.sql', 'infinity', NULL, 1, NULL",
    "-infinity": "'0_x.sql', '-infinity', NULL, 1, NULL",
    "before Christ": "'0_x.sql', '0044-03-15 BC', NULL, 1, NULL",
    "year 290000": "'0_x.sql', '290000-01-01', NULL, 1, NULL",
    "negative duration": "'0_x.sql', now(), NULL, -1, NULL",
    "largest duration": "'0_x.sql', now(), NULL, 9223372036854775807, NULL",
    "no version": "'', now(), '', 0, ''",
    "control characters": "E'0_\\x01\\x1b[2J\\n.sql', now(), E'\\x02', 1, E'\\n'",
    "huge": "repeat('x', 2000), now(), repeat('y', 1000000), 1, repeat('z', 9999)",
    "not a character": "U&'0_\\FFFF\\202E.sql', now(), NULL, 1, NULL",
}
ROWS["quotes and backslashes"] = "'0_\"''\\.sql', now(), '\"', 1, '\\'"
# Times and numbers that the server makes text of; the rest is the same text everywhere.
SERVERS_OWN = ("infinity", "year 290000", "largest duration")


@pytest.mark.parametrize("kind", ["timestamp/bigint", "timestamptz/numeric"])
@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, marks=pytest.mark.server if row in SERVERS_OWN else [])
        for row in ROWS
    ],
)
def test_no_value_makes_the_gate_fail(
    gate: Gate, database: Database, row: str, kind: str
) -> None:
    """It is a row like any other, or none; the gate opens and says so in JSON."""
    when, number = kind.split("/")
    value = (
        ROWS[row].replace("9223372036854775807", "'NaN'")
        if number == "numeric"
        else ROWS[row]
    )
    database.execute(TABLE.format(type=when, number=number, row=value))
    files = {"1_a.sql": "SELECT 1;", "2_b.sql": "SELECT 2;"}
    run = gate(database=database, migrations=files, env={"GATE_AHEAD": "allow"})
    assert run.verdict.get("reason") in {None, "history"}, run.output
    assert run.exit_code == 0 or row in {"huge", "no version"}, run.output
    assert gate("status", "--json", database=database, migrations=files).stdout
