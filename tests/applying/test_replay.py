"""Which settings of a file hold in the session that comes next."""

from __future__ import annotations

import pytest

from migration_gate.applying.settings_so_far import settings_after
from migration_gate.statements import split


AUTHORIZATION = "SET SESSION AUTHORIZATION b;"
CONFIG = "SELECT set_config('a.b', '1', false);"
KEPT = {
    "SET a.b = 1; CREATE TABLE t (); SET c.d = 2;": ["SET a.b = 1;", "SET c.d = 2;"],
    "SET search_path = a; SET SCHEMA 'b';": ["SET SCHEMA 'b';"],
    "SET ROLE a; RESET ROLE;": ["RESET ROLE;"],
    "SET LOCAL a.b = 1; SELECT set_config('c.d', '1', true);": [],
    f"SET ROLE a; {AUTHORIZATION}": [AUTHORIZATION],
    f"{AUTHORIZATION} SET ROLE a; SET x.y = 1; RESET ALL;": [
        *(AUTHORIZATION, "SET ROLE a;"),
    ],
    "SET ROLE a; SET x.y = 1; DISCARD ALL; SET x.z = 2;": ["SET x.z = 2;"],
    f"{CONFIG} SET a.b = 2;": [CONFIG, "SET a.b = 2;"],
    "SET a.b = 1; SAVEPOINT x; SET a.b = 2; ROLLBACK TO x;": ["SET a.b = 1;"],
    "SAVEPOINT x; SET a.b = 2; SAVEPOINT y; SET c.d = 1; ABORT TO SAVEPOINT x;": [],
    "SAVEPOINT x; SET a.b = 2; RELEASE SAVEPOINT x;": ["SET a.b = 2;"],
    'SAVEPOINT x; SET a.b = 2; SAVEPOINT x; RELEASE "x"; ROLLBACK WORK TO x;': [],
    "SET TRANSACTION READ WRITE; SET CONSTRAINTS ALL DEFERRED;": [],
}


@pytest.mark.parametrize(("script", "kept"), KEPT.items(), ids=KEPT)
def test_what_one_session_would_have_is_kept(script: str, kept: list[str]) -> None:
    """In the order in which it was made."""
    content = script.encode()
    settings = settings_after((), split(content))

    assert [content[s.first : s.end].decode().strip() for s in settings] == kept
