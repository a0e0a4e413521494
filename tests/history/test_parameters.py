"""What the catalogue says is read alike, whatever the database's parameters are."""

from __future__ import annotations

import pytest

from tests.fix_gate import Gate
from tests.fix_postgres import Database
from tests.history_tables import ONE, TWO, versions


pytestmark = [pytest.mark.server, pytest.mark.timeout(60)]
# Each changes how PostgreSQL writes, reads or compares something.
ODD = {
    "array_nulls": "off",
    "backslash_quote": "off",
    "bytea_output": "escape",
    "datestyle": "German, DMY",
    "default_transaction_deferrable": "on",
    "default_transaction_isolation": "serializable",
    "extra_float_digits": "-15",
    "intervalstyle": "sql_standard",
    "row_security": "off",
    "standard_conforming_strings": "off",
    "timezone": "America/St_Johns",
    "transform_null_equals": "on",
    "xmlbinary": "hex",
}


@pytest.mark.parametrize(
    "parameters",
    [{"quote_all_identifiers": "on"}, ODD, {**ODD, "quote_all_identifiers": "on"}],
    ids=["quoted", "odd", "both"],
)
def test_the_gates_own_table_is_known_again(
    gate: Gate, database: Database, parameters: dict[str, str]
) -> None:
    """Made, added to, and found complete."""
    for name, setting in parameters.items():
        database.execute(f"ALTER DATABASE {database.name} SET {name} = '{setting}'")
    assert gate(database=database, migrations=ONE).verdict["applied"] == ["1_a.sql"]
    assert gate(database=database, migrations=TWO).verdict["applied"] == ["2_b.sql"]
    again = gate(database=database, migrations=TWO)
    assert (again.exit_code, again.verdict["applied"]) == (0, []), again.output
    assert versions(database) == ["1_a.sql", "2_b.sql"]
