"""The recipes on the page of migrations, applied by the gate to tables with rows."""

from __future__ import annotations

import re

from contextlib import closing
from itertools import takewhile

import psycopg
import pytest
import yaml

from tests.fix_gate import Gate, Run
from tests.fix_postgres import Database
from tests.project.pages import ROOT, read_blocks


pytestmark = pytest.mark.timeout(60)

PAGE = "docs/migrations.md"
DEMO = {
    path.name: path.read_text("utf-8")
    for path in sorted((ROOT / "migrations").glob("*.sql"))
}
RECIPES = {
    named[1]: block
    for block in read_blocks(PAGE, "sql")
    if (named := re.match(r"-- ((?:\d+|R_)\w+\.sql)\n", block))
}
ROWS = """
INSERT INTO customers (name, email) VALUES ('Ada', 'ada@example.com');
INSERT INTO orders (customer_id, total_cents)
SELECT id, n FROM customers, generate_series(1, {orders}) AS n;
"""
NOT_VALID = """
SELECT indexrelid FROM pg_index WHERE NOT indisvalid
UNION ALL SELECT oid FROM pg_constraint WHERE NOT convalidated
"""
INSERT_AS_BEFORE = """
INSERT INTO orders (customer_id, total_cents) SELECT id, 7 FROM customers
"""


def start_the_shop(gate: Gate, database: Database, *, orders: int = 100) -> None:
    """Apply the files of ``migrations/``, and let the application have been used."""
    assert gate(database=database, migrations=DEMO).exit_code == 0
    database.execute(ROWS.format(orders=orders))


def apply(gate: Gate, database: Database, *, up_to: str = "") -> Run:
    """Apply the recipes, all or up to the one with this number."""
    number = up_to or max(RECIPES)
    files = {
        name: text for name, text in RECIPES.items() if name.partition("_")[0] <= number
    }
    run = gate(database=database, migrations=DEMO | files)
    assert run.exit_code == 0, run.stderr
    return run


def test_the_files_stand_in_the_order_in_which_they_are_applied() -> None:
    """Below each other on the page, after those of ``migrations/``."""
    assert [*DEMO, *RECIPES] == sorted([*DEMO, *RECIPES])
    assert len(RECIPES) == len(
        re.findall(r"^-- (?:\d+|R_)_", "".join(RECIPES.values()), re.MULTILINE)
    )


@pytest.mark.server
def test_the_recipes_do_what_the_page_says(gate: Gate, database: Database) -> None:
    """All in one run: columns, constraints, indexes and the view are as promised."""
    start_the_shop(gate, database)
    run = apply(gate, database)
    assert [event["version"] for event in run.all("migration.applied")] == [*RECIPES]
    assert database.fetch(NOT_VALID) == []
    assert database.fetch(
        "SELECT attname::text FROM pg_attribute"
        " WHERE attrelid = 'orders'::regclass AND attnum > 0 AND NOT attisdropped"
        " ORDER BY attnum"
    ) == [
        (name,)
        for name in (
            *("id", "customer_id", "ordered_at", "status"),
            *("changed_at", "amount_cents"),
        )
    ]
    assert database.fetch(
        "SELECT count(*), count(changed_at), sum(amount_cents) FROM orders"
    ) == [(100, 100, 5050)]
    assert database.fetch("SELECT max(amount_cents) FROM open_orders") == [(100,)]


@pytest.mark.server
def test_the_variables_of_the_page_are_filled_in(
    gate: Gate, database: Database
) -> None:
    """As the environment beside them says; a password is the role's from then on."""
    reader = database.role("reader")
    (file,) = [block for block in read_blocks(PAGE, "sql") if ':"schema"' in block]
    (manifest,) = [b for b in read_blocks(PAGE, "yaml") if "GATE_VAR_schema" in b]
    env = {entry["name"]: entry["value"] for entry in yaml.safe_load(manifest)["env"]}
    secret = gate.folder / "reader-password"
    secret.write_text("of another kind\n")
    env["GATE_VAR_reader_password_FILE"] = str(secret)
    files = {"001_a.sql": file.replace("reader PASSWORD", f"{reader.user} PASSWORD")}
    run = gate(database=database, migrations=files, env=env)
    assert run.exit_code == 0, run.stderr
    told = "SELECT obj_description('reporting'::regnamespace, 'pg_namespace')"
    assert database.fetch(told) == [("team data",)]
    assert reader.changed(password="of another kind").fetch("SELECT 1") == [(1,)]


def test_both_versions_of_an_application_can_write_while_a_column_is_renamed(
    gate: Gate, database: Database
) -> None:
    """Each by the name that it knows, and each reads what the other wrote."""
    start_the_shop(gate, database)
    for number in ("013", "016"):
        apply(gate, database, up_to=number)
        database.execute(INSERT_AS_BEFORE)
        database.execute(INSERT_AS_BEFORE.replace("total", "amount"))
        database.execute("UPDATE orders SET total_cents = 70 WHERE id = 1")
        database.execute("UPDATE orders SET amount_cents = 80 WHERE id = 2")
        assert database.fetch(
            "SELECT DISTINCT total_cents, amount_cents FROM orders"
            " WHERE id < 3 OR id > 100 ORDER BY 1"
        ) == [(7, 7), (70, 70), (80, 80)]
    apply(gate, database)


@pytest.mark.server
@pytest.mark.parametrize("number", ["009", "011"])
def test_others_write_while_old_rows_are_filled_and_validated(
    gate: Gate, database: Database, number: str
) -> None:
    """A transaction that has written and is still open is not waited for."""
    start_the_shop(gate, database)
    before = list(takewhile(lambda name: not name.startswith(number), RECIPES))[-1]
    apply(gate, database, up_to=before.partition("_")[0])
    with closing(database.connect()) as writer:
        writer.autocommit = False
        writer.execute(INSERT_AS_BEFORE)
        run = apply(gate, database, up_to=number)
        writer.execute(INSERT_AS_BEFORE)
        writer.commit()
    assert "migration.retry_scheduled" not in run.names


@pytest.mark.server
def test_a_column_is_not_read_again_to_become_not_null(
    gate: Gate, database: Database
) -> None:
    """PostgreSQL says itself that the constraint is proof enough."""
    start_the_shop(gate, database)
    apply(gate, database, up_to="011")
    (file,) = [name for name in RECIPES if name.startswith("012")]
    said: list[str] = []
    with closing(database.connect()) as conn:
        conn.add_notice_handler(
            lambda notice: said.append(notice.message_primary or "")
        )
        conn.execute("SET client_min_messages = debug1")
        conn.execute(RECIPES[file])
    assert [line for line in said if "sufficient to prove" in line]


def test_the_batches_that_psql_writes_fill_every_row(
    gate: Gate, database: Database
) -> None:
    """The query of the page gives statements that can be run as they are."""
    start_the_shop(gate, database, orders=20500)
    apply(gate, database, up_to="008")
    (command,) = [b for b in read_blocks(PAGE, "sh") if "generate_series" in b]
    query = re.findall(r'--command "(.*)"$', command, re.DOTALL)[0]
    batches = [row[0] for row in database.fetch(query)]
    assert len(batches) == 3
    with closing(database.connect()) as conn:
        counts = [conn.execute(psycopg.sql.SQL(batch)).rowcount for batch in batches]
    assert counts == [10000, 10000, 500]
