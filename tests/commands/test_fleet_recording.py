"""What adopt, baseline and rollback answer over a fleet: who is alike is told once."""

from __future__ import annotations

import json

from typing import Final

import pytest

from tests.commands.test_fleet import FILES, schemas
from tests.fix_gate import Gate
from tests.fix_postgres import Database


pytestmark = pytest.mark.timeout(60)

BACK: Final = {
    **FILES,
    "001_orders.down.sql": "DROP TABLE orders;",
    "002_more.down.sql": "ALTER TABLE orders DROP COLUMN note;",
}
# Where the list is begun in its middle, targets end in another order.
LATE: Final = {"JOB_COMPLETION_INDEX": "1", "GATE_TARGETS_AT_ONCE": "1"}
PLAIN: Final = {"GATE_LOG_FORMAT": "console"}
COMMAND: Final = ("rollback", "--to", "001")


def test_a_rollback_tells_once_what_is_undone_in_many(
    gate: Gate, database: Database
) -> None:
    """In the order of the list, and nothing of one with nothing to undo."""
    env = schemas(database, ["d", "c", "b", "a"]) | LATE | PLAIN
    assert gate(database=database, migrations=BACK, env=env).exit_code == 0
    only = env | {"GATE_TARGET": "b"}
    gate("rollback", database=database, migrations=BACK, env=only)
    for command, head, end in (
        ((*COMMAND, "--dry-run"), "TO UNDO", "3 to undo, nothing was undone"),
        (COMMAND, "UNDONE", "3 undone"),
    ):
        run = gate(*command, database=database, migrations=BACK, env=env)
        assert (run.exit_code, run.stdout.count(head)) == (0, 1)
        assert run.stdout.startswith(f"In 3 targets, the first d:\n{head}")
        assert f"Gate open: 4 of 4 targets done, {end}\n" in run.stderr
    again = gate(*COMMAND, database=database, migrations=BACK, env=env)
    assert (again.exit_code, again.stdout) == (0, "")
    assert "Gate open: 4 of 4 targets done, 0 undone\n" in again.stderr


def test_programs_get_the_targets_in_the_order_of_the_list(
    gate: Gate, database: Database
) -> None:
    """With what was done in each; those in which nothing was are left out."""
    env = schemas(database, ["d", "c", "b", "a"]) | LATE
    gate(database=database, migrations=BACK, env=env)
    only = env | {"GATE_TARGET": "b"}
    gate("rollback", database=database, migrations=BACK, env=only)
    for options in (("--dry-run", "--json"), ("--json",)):
        run = gate(*COMMAND, *options, database=database, migrations=BACK, env=env)
        told = json.loads(run.stdout)
        assert list(told) == ["d", "c", "a"]
        assert [line["version"] for line in told["a"]] == ["002_more.sql"]
    again = gate(*COMMAND, "--json", database=database, migrations=BACK, env=env)
    assert (again.exit_code, again.stdout) == (0, "")


def test_what_a_dry_run_finds_refused_is_in_the_answer(
    gate: Gate, database: Database
) -> None:
    """Beside those that would be undone, as for one target."""
    env = schemas(database, ["a", "b"])
    files = {name: BACK[name] for name in (*FILES, "002_more.down.sql")}
    gate(database=database, migrations=files, env=env)
    command = ("rollback", "--to", "001", "--dry-run")
    only = env | {"GATE_TARGET": "b"}
    gate("rollback", database=database, migrations=files, env=only)
    files = {**files, "003_last.sql": "CREATE TABLE last (id int);"}
    gate(database=database, migrations=files, env=only)
    run = gate(*command, database=database, migrations=files, env=env)
    assert run.exit_code == 1
    first, second = run.stdout.rstrip().split("\n\n")
    assert first.startswith("In a:\nTO UNDO")
    assert second.startswith("In b:\nTO UNDO")
    assert "003_last.sql: no way back" in second


def test_a_baseline_says_how_many_were_recorded(gate: Gate, database: Database) -> None:
    """And not that none was applied; a second one has nothing to say."""
    env = schemas(database, ["a", "b", "c"]) | PLAIN
    command = ("baseline", "002")
    run = gate(*command, database=database, migrations=FILES, env=env)
    assert run.stdout.startswith("In 3 targets, the first a:\nRECORDED")
    assert run.stdout.count("applied, not run") == 2
    said = "recorded as applied, nothing was applied\n"
    assert f"Gate open: 3 of 3 targets done, 6 {said}" in run.stderr
    again = gate(*command, database=database, migrations=FILES, env=env)
    assert (again.exit_code, again.stdout) == (0, "")
    assert f"Gate open: 3 of 3 targets done, 0 {said}" in again.stderr
    run = gate(*command, "--json", database=database, migrations=FILES, env=env)
    assert (run.exit_code, run.stdout) == (0, "")


def test_what_is_taken_over_is_counted(gate: Gate, database: Database) -> None:
    """Each file of each target; where all are refused, nothing is answered."""
    env = schemas(database, ["a", "b"]) | PLAIN
    for schema in ("a", "b"):
        database.execute(
            f"CREATE TABLE {schema}.schema_migrations (version bigint PRIMARY KEY, "
            f"dirty boolean NOT NULL)"
        )
        database.execute(f"INSERT INTO {schema}.schema_migrations VALUES (1, true)")
    command = ("adopt", "--from", "golang-migrate")
    run = gate(*command, "--json", database=database, migrations=FILES, env=env)
    assert (run.exit_code, run.stdout) == (1, "")
    for schema in ("a", "b"):
        database.execute(f"UPDATE {schema}.schema_migrations SET dirty = false")
    run = gate(*command, database=database, migrations=FILES, env=env)
    assert run.stdout.startswith("In 2 targets, the first a:\nTAKEN OVER")
    said = "2 of 2 targets done, 2 taken over, nothing was applied\n"
    assert f"Gate open: {said}" in run.stderr
