"""A prepared transaction in the way belongs to no session: it is named, and its end."""

from __future__ import annotations

from contextlib import closing

import pytest

from tests.fix_gate import Gate
from tests.fix_postgres import NewServer, database_of


pytestmark = pytest.mark.timeout(60)
FILES = {"001_alter.sql": "ALTER TABLE held ADD COLUMN more int;"}
GID = "shop's order 7"


def test_the_prepared_transaction_in_the_way_is_named_with_what_ends_it(
    gate: Gate, new_server: NewServer
) -> None:
    """Left by a transaction manager that is gone; another one is not named."""
    database = database_of(new_server(settings={"max_prepared_transactions": "5"}))
    database.execute("CREATE TABLE held (id int); CREATE TABLE other (id int)")
    with closing(database.connect()) as conn:
        for table, gid in (("held", GID), ("other", "not this one")):
            conn.execute("BEGIN")
            conn.execute(f"INSERT INTO {table} VALUES (1)")
            quoted = gid.replace("'", "''")
            conn.execute(f"PREPARE TRANSACTION '{quoted}'")
    env = {"GATE_DDL_LOCK_TIMEOUT": "300ms", "GATE_DDL_RETRY_TIMEOUT": "1s"}
    run = gate(database=database, env=env, migrations=FILES)
    assert (run.exit_code, run.verdict["reason"]) == (1, "blocked")
    ending = "ROLLBACK PREPARED 'shop''s order 7'"
    hint = run.verdict["hint"]
    assert f"which {ending} or COMMIT PREPARED 'shop''s order 7' ends, in data" in hint
    assert "not this one" not in run.output
    assert "end those sessions" not in hint
    database.execute(ending)
    assert gate(database=database, env=env, migrations=FILES).exit_code == 0
    database.execute("ROLLBACK PREPARED 'not this one'")
