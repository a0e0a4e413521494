"""One file takes the place of many, in new databases and in old ones."""

from __future__ import annotations

import json

import pytest

from tests.fix_gate import Gate
from tests.fix_postgres import Database
from tests.history_tables import versions, why


OLD = {"1_a.sql": "CREATE TABLE a ();", "2_b.sql": "CREATE TABLE b ();"}
ALL = "CREATE TABLE a (); CREATE TABLE b ();"
NEXT = {"3_c.sql": "CREATE TABLE c ();"}
FORMS = {
    "2_all.sql": f"-- gate: replaces 2_b.sql\n{ALL}",
    "2_so.sql": f"-- atlas:checkpoint\n\n{ALL}",
    "B2__all.sql": ALL,
}


@pytest.mark.parametrize("name", FORMS)
def test_a_new_database_runs_the_one_file(
    gate: Gate, database: Database, name: str
) -> None:
    """And goes on after it; the next start has nothing to say."""
    files = {**OLD, name: FORMS[name], **NEXT}
    run = gate(database=database, migrations=files)
    again = gate(database=database, migrations=files)
    status = gate("status", "--json", database=database, migrations=files)
    assert (run.exit_code, run.verdict["applied"]) == (0, [name, "3_c.sql"])
    assert (again.exit_code, again.verdict["warnings"]) == (0, [])
    assert {line["version"]: line["state"] for line in json.loads(status.stdout)} == {
        "1_a.sql": "replaced",
        "2_b.sql": "replaced",
        name: "applied",
        "3_c.sql": "applied",
    }


@pytest.mark.parametrize("name", FORMS)
def test_an_old_database_does_not_run_it(
    gate: Gate, database: Database, name: str
) -> None:
    """Whether it has all of them, or some and the others are still here."""
    gate(database=database, migrations={"1_a.sql": OLD["1_a.sql"]})
    files = {**OLD, name: FORMS[name], **NEXT}
    run = gate(database=database, migrations=files)
    assert (run.exit_code, run.verdict["applied"]) == (0, ["2_b.sql", "3_c.sql"])
    assert versions(database) == [*OLD, *NEXT]


def test_what_was_replaced_may_be_deleted(gate: Gate, database: Database) -> None:
    """No warning; a database that had only some of it is told what to do."""
    gate(database=database, migrations=OLD)
    files = {"2_all.sql": FORMS["2_all.sql"], **NEXT}
    run = gate(database=database, migrations=files, env={"GATE_AHEAD": "refuse"})
    check = gate("check", database=database, migrations=files)
    assert (run.exit_code, run.verdict["warnings"]) == (0, []), run.output
    assert run.verdict["applied"] == ["3_c.sql"]
    assert check.exit_code == 0
    database.execute("DELETE FROM schema_migrations WHERE version <> '1_a.sql'")
    for command in ("migrate", "check"):
        closed = gate(command, database=database, migrations=files)
        assert why(closed) == (
            1,
            "history",
            (
                '"2_all.sql" stands for more than the history has: that ends at '
                '"1_a.sql", and lacks "2_b"'
            ),
        )


def test_what_it_does_not_replace_may_not_stand_before_it(
    gate: Gate, database: Database
) -> None:
    """A new database would run that first."""
    files = {**OLD, **NEXT, "4_all.sql": FORMS["2_all.sql"]}
    run = gate(database=database, migrations=files)
    assert why(run) == (
        1,
        "files",
        '4_all.sql: comes after "3_c.sql", which it does not replace',
    )


def test_a_repeatable_one_stands_for_none(gate: Gate, database: Database) -> None:
    """It has no number that all could be up to."""
    files = {**OLD, "R__all.sql": FORMS["2_all.sql"]}
    run = gate(database=database, migrations=files)
    problem = "R__all.sql: repeatable, and says that it stands for others"
    assert why(run) == (1, "files", problem)


def test_a_directive_that_names_nothing_closes_the_gate(
    gate: Gate, database: Database
) -> None:
    """With its line."""
    files = {"2_all.sql": "\n-- gate: replaces everything\nSELECT 1;"}
    run = gate(database=database, migrations=files)
    assert why(run)[:2] == (1, "files")
    assert "2_all.sql:2: names nothing that it replaces" in run.verdict["error_message"]
