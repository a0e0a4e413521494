"""A login name that changes: Vault, alternating users, a new identity."""

from __future__ import annotations

import re

import pytest

from tests.fix_gate import Gate
from tests.fix_postgres import Database
from tests.history_tables import ONE, PLAIN, TWO, versions, why


pytestmark = pytest.mark.server
OWNERS = """
SELECT relname::text, relowner::regrole::text FROM pg_class
WHERE relname LIKE 'schema_migrations%' AND relkind IN ('r', 'S') ORDER BY 1
"""
FAILS = {**TWO, "3_c.sql": "-- gate: no-transaction\nSELECT 1;\nSELECT 1/0;"}


def members(database: Database) -> tuple[Database, Database, Database]:
    """Return a group and two login roles that are members of it."""
    group = database.role("shop_owner", attributes="NOLOGIN")
    first, second = database.role("v1"), database.role("v2")
    database.execute(
        f"GRANT CREATE ON SCHEMA public TO {group.user};"
        f"GRANT {group.user} TO {first.user}, {second.user};"
    )
    return group, first, second


def require_droppable(database: Database, role: Database) -> None:
    """Require that nothing depends on a role."""
    database.execute(f"BEGIN; DROP ROLE {role.user}; ROLLBACK")


def test_the_next_login_role_goes_on_and_the_first_can_be_dropped(
    gate: Gate, database: Database
) -> None:
    """All that the gate makes belongs to GATE_ROLE."""
    group, first, second = members(database)
    env = {"GATE_ROLE": group.user}
    gate(database=first, migrations=FAILS, env=env)
    owners = {owner for _, owner in database.fetch(OWNERS)}
    require_droppable(database, first)
    run = gate(database=second, migrations=TWO | {"4_d.sql": "SELECT 1;"}, env=env)

    assert owners == {group.user}
    assert len(database.fetch(OWNERS)) == 4
    assert run.verdict["applied"] == ["4_d.sql"], run.output


def test_what_the_login_role_owned_is_handed_over(
    gate: Gate, database: Database
) -> None:
    """A history from before GATE_ROLE was set, with what stands beside it."""
    group, first, second = members(database)
    database.execute(f"GRANT CREATE ON SCHEMA public TO {first.user}")
    gate(database=first, migrations=FAILS)
    env = {"GATE_ROLE": group.user}
    handed = gate(database=first, migrations=FAILS, env=env).one("history.handed_over")
    assert (handed["table"], handed["owner"]) == (
        "public.schema_migrations",
        group.user,
    )
    database.execute(f"REVOKE CREATE ON SCHEMA public FROM {first.user}")

    assert {owner for _, owner in database.fetch(OWNERS)} == {group.user}
    run = gate(database=second, migrations=TWO | {"4_d.sql": "SELECT 1;"}, env=env)
    assert run.verdict["applied"] == ["4_d.sql"], run.output
    assert run.all("history.handed_over") == []


def test_what_another_member_owns_is_trusted(gate: Gate, database: Database) -> None:
    """Whoever may act as GATE_ROLE already; the remedy for the right is the ALTER."""
    group, first, second = members(database)
    database.execute(f"{PLAIN} ALTER TABLE schema_migrations OWNER TO {first.user}")
    env = {"GATE_ROLE": group.user}
    closed = gate(database=second, migrations=ONE, env=env)
    statement = f"ALTER TABLE public.schema_migrations OWNER TO {group.user};"
    assert why(closed)[:2] == (1, "refused"), closed.output
    assert closed.verdict["hint"] == statement

    database.execute(statement)
    run = gate(database=second, migrations=ONE, env=env)
    assert run.verdict["applied"] == ["1_a.sql"], run.output
    assert versions(database) == ["1_a.sql"]


def test_a_member_of_the_databases_owner_is_trusted(
    gate: Gate, database: Database
) -> None:
    """Without GATE_ROLE: two login roles of the group that owns the database."""
    group, first, second = members(database)
    database.execute(f"ALTER DATABASE {database.name} OWNER TO {group.user}")
    database.execute(f"{PLAIN} ALTER TABLE schema_migrations OWNER TO {first.user};")
    first.execute(
        f"GRANT ALL ON schema_migrations, schema_migrations_id_seq TO {second.user}"
    )
    run = gate(database=second, migrations={"1_x.sql": "SELECT 1;"})
    assert run.verdict["applied"] == ["1_x.sql"], run.output


def test_a_foreign_owner_is_refused_with_the_alter(
    gate: Gate, database: Database
) -> None:
    """As a restored dump leaves it; run as it is, the rows count."""
    login, stranger = database.role("app"), database.role("stranger")
    database.execute(f"GRANT CREATE ON SCHEMA public TO {login.user}")
    gate(database=login, migrations=ONE)
    database.execute(f"ALTER TABLE schema_migrations OWNER TO {stranger.user}")
    closed = gate(database=login, migrations=ONE)
    assert why(closed)[:2] == (1, "history")
    (statement,) = re.findall(r"ALTER [^;]+;", closed.verdict["hint"])
    database.execute(statement)
    run = gate(database=login, migrations=ONE)
    assert (run.exit_code, run.verdict["applied"]) == (0, []), run.output


@pytest.mark.parametrize("lacks", ["CREATE", "inheritance"])
def test_gate_role_that_may_not_own_it_leaves_it_to_the_login_role(
    gate: Gate, database: Database, lacks: str
) -> None:
    """It lacks CREATE on the schema, or the login role does not inherit its rights."""
    group, first, _ = members(database)
    database.execute(f"GRANT CREATE ON SCHEMA public TO {first.user}")
    if lacks == "CREATE":
        # Until PostgreSQL 15 everybody may create there.
        database.execute(f"REVOKE CREATE ON SCHEMA public FROM {group.user}, PUBLIC")
    else:
        database.execute(
            f"REVOKE {group.user} FROM {first.user};"
            f"ALTER ROLE {first.user} NOINHERIT; GRANT {group.user} TO {first.user};"
        )
    files = {"1_x.sql": "SELECT 1;"}
    run = gate(database=first, migrations=files, env={"GATE_ROLE": group.user})
    assert run.verdict["applied"] == ["1_x.sql"], run.output
    assert {owner for _, owner in database.fetch(OWNERS)} == {first.user}


def test_a_default_role_is_the_one_whose_rights_count(
    gate: Gate, database: Database
) -> None:
    """The hint grants to it, and nothing that it makes is lost to the login role."""
    group, login = database.role("owner", attributes="NOLOGIN"), database.role("login")
    database.execute(
        f"ALTER ROLE {login.user} NOINHERIT;"
        f"GRANT {group.user} TO {login.user};"
        f"ALTER ROLE {login.user} SET role = {group.user};"
        f"GRANT CREATE ON SCHEMA public TO {group.user}; {PLAIN}"
    )
    hint = gate(database=login, migrations=FAILS).verdict["hint"]
    assert hint.endswith(f" ON public.schema_migrations TO {group.user};")
    database.execute("DROP TABLE schema_migrations")
    run = gate(database=login, migrations=FAILS)
    assert run.verdict["sqlstate"] == "22012"
    assert {owner for _, owner in database.fetch(OWNERS)} == {group.user}
    query = "SELECT version FROM schema_migrations_failures"
    assert database.fetch(query) == [("3_c.sql",)]
