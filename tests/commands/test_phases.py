"""Before and after a deployment: GATE_PHASE, through every command that plans."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from psycopg.conninfo import make_conninfo

from tests.fix_gate import Gate, Run
from tests.fix_postgres import Database
from tests.project.pages import ROOT
from tests.project.test_recipes import DEMO, RECIPES, ROWS


FILES = {
    "001_a.sql": "CREATE TABLE a (n integer);",
    "002_drop.sql": "-- gate: after-deploy\nALTER TABLE a DROP COLUMN n;",
    "003_b.sql": "CREATE TABLE b (n integer);",
}


def run(
    gate: Gate,
    database: Database,
    phase: str,
    *arguments: str,
    files: Mapping[str, str] = FILES,
    **settings: str,
) -> Run:
    """Run the gate in a phase."""
    env = {"GATE_PHASE": phase, "GATE_WAIT_TIMEOUT": "0s", **settings}
    return gate(*arguments, database=database, migrations=files, env=env)


def history(database: Database) -> list[str]:
    """Return the versions, in the order in which they were applied."""
    query = "SELECT version FROM schema_migrations ORDER BY applied_at, id"
    return [row[0] for row in database.fetch(query)]


def test_the_second_phase_waits_for_its_run(gate: Gate, database: Database) -> None:
    """Before opens without it; after applies it, and nothing is out of order."""
    before = run(gate, database, "before")
    again = run(gate, database, "before")
    after = run(gate, database, "after", GATE_OUT_OF_ORDER="refuse")

    assert before.verdict["applied"] == ["001_a.sql", "003_b.sql"]
    assert before.one("plan.held_back")["versions"] == ["002_drop.sql"]
    assert (again.exit_code, "lock.acquired" in again.names) == (0, False)
    assert after.verdict["applied"] == ["002_drop.sql"]
    assert after.verdict["warnings"] == []
    assert history(database) == ["001_a.sql", "003_b.sql", "002_drop.sql"]


def test_without_a_phase_all_is_applied_in_order(
    gate: Gate, database: Database
) -> None:
    """An environment that is made anew has no deployment to wait for."""
    assert run(gate, database, "all").verdict["applied"] == list(FILES)


def test_the_second_phase_does_not_come_first(gate: Gate, database: Database) -> None:
    """The old version may still run: nothing is applied, and it says what to do."""
    after = run(gate, database, "after")
    plan = run(gate, database, "after", "plan")

    for closed in (after, plan):
        assert closed.exit_code == 1
        last = json.loads(closed.termination_log)
        assert last["error_message"] == (
            'not applied: "001_a.sql", "003_b.sql", which come before the deployment'
        )
        assert "GATE_PHASE=before" in last["hint"]
    assert after.verdict["reason"] == "incomplete"
    assert database.fetch("SELECT to_regclass('schema_migrations')") == [(None,)]


def test_check_asks_for_what_its_phase_asks(gate: Gate, database: Database) -> None:
    """The pods of the rollout start between the two."""
    codes = []
    for phase in ("before", "after"):
        run(gate, database, phase)
        codes.append(
            [
                run(gate, database, p, "check").exit_code
                for p in ("before", "after", "all")
            ]
        )

    assert codes == [[0, 1, 1], [0, 0, 0]]


def test_status_and_plan_show_the_phase(gate: Gate, database: Database) -> None:
    """What is held back is shown as that, and is no fault before the deployment."""
    run(gate, database, "before")

    before = run(gate, database, "before", "status", "--json")
    after = run(gate, database, "after", "status", "--json")
    plan = run(gate, database, "after", "plan", "--json")

    states = [line["state"] for line in json.loads(before.stdout)]
    assert (before.exit_code, states) == (0, ["applied", "held back", "applied"])
    states = [line["state"] for line in json.loads(after.stdout)]
    assert (after.exit_code, states) == (1, ["applied", "pending", "applied"])
    assert [line["version"] for line in json.loads(plan.stdout)] == ["002_drop.sql"]


def test_a_person_may_speak_of_any_phase(gate: Gate, database: Database) -> None:
    """What was done by hand is recorded, whatever the phase."""
    run(gate, database, "before")

    resolved = run(gate, database, "before", "resolve", "2", "--applied")

    assert resolved.exit_code == 0
    assert run(gate, database, "after").verdict["applied"] == []


def test_the_directive_stands_at_the_head_of_the_file(
    gate: Gate, database: Database
) -> None:
    """Where the folder's reading does not see it, the file is refused."""
    files = {
        "001_a.sql": "-- Down Migration\nSELECT 1;\n-- Up Migration\n"
        "-- gate: after-deploy\nSELECT 2;\n"
    }

    closed = run(gate, database, "all", files=files)

    assert (closed.exit_code, closed.verdict["reason"]) == (1, "files")
    assert "not the first in it" in closed.verdict["error_message"]


@contextmanager
def application(version: str, database: Database) -> Iterator[list[dict[str, object]]]:
    """Let a version of the application query during the block; then say what it met."""
    conninfo = make_conninfo(**database.conninfo)
    counted: list[dict[str, object]] = []
    with subprocess.Popen(
        [sys.executable, "-m", "tests.shop", version, conninfo],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield counted
            process.send_signal(signal.SIGTERM)
            counted.append(json.loads(process.stdout.readline()))
        finally:
            process.kill()


@pytest.mark.timeout(60)
def test_no_query_of_either_version_fails_in_a_rollout(
    gate: Gate, database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before, rollout, after: the rename of the page of recipes, while both query."""
    run(gate, database, "all", files=DEMO)
    database.execute(ROWS.format(orders=1000))
    rename = {name: text for name, text in RECIPES.items() if "013" <= name < "018"}
    files = {**DEMO, **rename}

    with application("old", database) as old:
        before = run(gate, database, "before", files=files)
        checked = run(gate, database, "before", "check", files=files)
        with application("new", database) as new:  # and both run for a while
            rest = run(gate, database, "before", files=files)
    with application("new", database) as newer:
        after = run(gate, database, "after", files=files)

    met = {"old": old[0], "new, beside it": new[0], "new, alone": newer[0]}
    with capsys.disabled():
        sys.stdout.write("\n" + "\n".join(f"{k}: {v}" for k, v in met.items()) + "\n")
    assert before.verdict["applied"] == list(rename)[:-1]
    assert (checked.exit_code, rest.verdict["applied"]) == (0, [])
    assert after.verdict["applied"] == list(rename)[-1:]
    assert [counted["failures"] for counted in met.values()] == [[], [], []]
    columns = database.fetch(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'orders'::regclass "
        "AND attname LIKE '%_cents' AND NOT attisdropped"
    )
    assert columns == [("amount_cents",)]
