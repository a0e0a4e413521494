"""A file that takes from the gate what it is recorded with: told as that."""

from __future__ import annotations

import pytest

from tests.fix_gate import Gate
from tests.fix_postgres import Database
from tests.history_tables import ONE, versions, why


pytestmark = pytest.mark.server
OUTSIDE = "-- gate: no-transaction\n"
READ_ONLY = "DO $$ BEGIN SET TRANSACTION READ ONLY; END $$;"
REVOKES = "REVOKE ALL ON ALL TABLES IN SCHEMA public FROM CURRENT_USER;"
SCHEMA = "SET ROLE {owner}; REVOKE ALL ON SCHEMA public FROM PUBLIC, {login};"


@pytest.mark.parametrize("head", ["", OUTSIDE], ids=["inside", "outside"])
@pytest.mark.parametrize(
    ("text", "told"),
    [
        (READ_ONLY, "makes the transaction read-only in which it is recorded: "),
        (REVOKES, "takes a right from the login role by which it is recorded: "),
        (SCHEMA, "takes a right from the login role by which it is recorded: "),
    ],
    ids=["read only", "tables", "schema"],
)
def test_what_a_file_takes_from_the_gate_is_told_as_its_doing(
    gate: Gate, database: Database, text: str, told: str, head: str
) -> None:
    """Neither as a lost connection, nor as what others have done."""
    login, owner = database.role("app"), database.role("owner", attributes="SUPERUSER")
    database.execute(
        f"GRANT CREATE ON SCHEMA public TO {login.user};"
        f"GRANT {owner.user} TO {login.user}"
    )
    filled = text.format(owner=owner.user, login=login.user)
    run = gate(database=login, migrations={**ONE, "2_b.sql": f"{head}{filled}"})
    assert why(run)[:2] == (1, "history"), run.output
    assert run.verdict["error_message"].startswith(f"2_b.sql: the migration {told}")
    assert "Nothing this" in run.verdict["hint"]
    assert len(run.all("database.ready")) == 1
    assert versions(database) == ["1_a.sql"]
