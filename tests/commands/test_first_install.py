"""The two roles of a first install, made as the page of orchestrators says."""

from __future__ import annotations

import re

from dataclasses import dataclass

import pytest

from tests.ends import FILES
from tests.fix_gate import Gate
from tests.fix_postgres import Database, Databases
from tests.project.pages import read_blocks


pytestmark = [pytest.mark.server, pytest.mark.timeout(60)]

CREATE, DEFAULT_RIGHTS, GRANT = (
    block
    for block in read_blocks("docs/orchestrators.md", "sql")
    if "shop_check" in block
)
SOON = {"GATE_WAIT_TIMEOUT": "1500ms", "GATE_AUTH_GRACE": "0"}


@dataclass(frozen=True, kw_only=True)
class Roles:
    """The one that migrates and the one that checks, under names of their own."""

    shop: Database
    shop_check: Database

    def rename(self, statements: str) -> str:
        """Put their names, and the database's, into the page's SQL."""
        renamed = statements.replace("DATABASE shop ", f"DATABASE {self.shop.name} ")
        renamed = re.sub(r"\bshop_check\b", self.shop_check.user, renamed)
        return re.sub(r"\bshop\b", self.shop.user, renamed)


@pytest.fixture
def roles(database: Database, databases: Databases) -> Roles:
    """Run the first block, as an administrator; it makes the database."""
    made = [database.role("shop"), database.role("shop_check")]
    *create_roles, create_database = CREATE.splitlines()
    assert [line.split()[:2] for line in create_roles] == [["CREATE", "ROLE"]] * 2
    name = databases.name().name
    shop, shop_check = (role.changed(dbname=name) for role in made)
    roles = Roles(shop=shop, shop_check=shop_check)
    database.execute(roles.rename(create_database))
    return roles


def test_the_check_may_read_what_the_first_release_makes(
    gate: Gate, database: Database, roles: Roles
) -> None:
    """It waits while there is no history, and opens on one that nobody granted."""
    admin = database.changed(dbname=roles.shop.name)
    admin.execute(roles.rename(DEFAULT_RIGHTS))
    early = gate("check", database=roles.shop_check, migrations=FILES, env=SOON)
    assert early.verdict["reason"] == "incomplete"
    assert gate(database=roles.shop, migrations=FILES).exit_code == 0
    run = gate("check", database=roles.shop_check, migrations=FILES, env=SOON)
    assert run.exit_code == 0, run.stderr


def test_the_first_migration_can_let_the_check_read_the_history(
    gate: Gate, roles: Roles
) -> None:
    """And nothing else: the table is there before the first file runs."""
    granting = {"000_check_may_read_the_history.sql": roles.rename(GRANT)}
    assert gate(database=roles.shop, migrations=granting | FILES).exit_code == 0
    run = gate(
        "check", database=roles.shop_check, migrations=granting | FILES, env=SOON
    )
    assert run.exit_code == 0, run.stderr
    readable = (
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relowner = {}::regrole"
    )
    owner = f"'{roles.shop.user}'"
    tables = roles.shop_check.fetch(
        readable.format(owner) + " AND has_table_privilege(oid, 'SELECT')"
    )
    assert tables == [("schema_migrations",)]


def test_a_history_of_another_than_the_databases_owner_needs_the_role_named(
    gate: Gate, database: Database, roles: Roles
) -> None:
    """In GATE_ROLE, of which the check need not be a member."""
    admin = database.changed(dbname=roles.shop.name)
    admin.execute(roles.rename(DEFAULT_RIGHTS))
    assert gate(database=roles.shop, migrations=FILES).exit_code == 0
    admin.execute(f"ALTER DATABASE {roles.shop.name} OWNER TO {database.user}")
    refused = gate("check", database=roles.shop_check, migrations=FILES, env=SOON)
    assert "cannot be trusted as history" in refused.verdict["error_message"]
    named = SOON | {"GATE_ROLE": roles.shop.user}
    run = gate("check", database=roles.shop_check, migrations=FILES, env=named)
    assert run.exit_code == 0, run.stderr
