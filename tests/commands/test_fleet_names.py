"""What a line says of one target of a fleet has the target's name."""

from __future__ import annotations

import json

import pytest

from tests.commands.test_fleet import FILES, TARGET_A, schemas
from tests.fix_gate import Gate, parse_event
from tests.fix_postgres import Database


pytestmark = pytest.mark.timeout(60)
CONSOLE = {"GATE_LOG_FORMAT": "console"}


def sentences(text: str) -> list[str]:
    """Return what a person reads of each line, without time and level."""
    return [line[21:] for line in text.splitlines() if line[:1].isdigit()]


@pytest.mark.parametrize("command", ["migrate", "check", "wait", "status"])
def test_each_line_of_a_run_about_one_target_has_its_name(
    gate: Gate, database: Database, command: str
) -> None:
    """The first and the last too, in the pod's status as well."""
    env = schemas(database, ["a", "b"]) | TARGET_A
    env |= {"GATE_ODDLY": "1", "GATE_WAIT_TIMEOUT": "1s"}
    run = gate(command, database=database, migrations=FILES, env=env)
    log = run.stderr if command == "status" else run.stdout
    lines = [line for line in log.splitlines() if line.startswith("{")]
    events = [parse_event(line) for line in lines]
    assert {"settings.unknown", "gate.started"} < {event["event"] for event in events}
    assert {event.get("target") for event in events} == {"a"}
    verdict = json.loads(run.termination_log)
    assert (verdict["event"], verdict["target"]) == (events[-1]["event"], "a")
    assert verdict["message"].partition(": ")[2].startswith("a: ")


def test_a_run_about_one_target_is_closed_by_name(
    gate: Gate, database: Database
) -> None:
    """Where a person reads it, in each sentence; wrong settings too."""
    env = schemas(database, ["a"]) | TARGET_A
    database.execute("CREATE TABLE a.orders ()")
    run = gate(database=database, migrations=FILES, env=env)
    closed = 'a: 001_orders.sql:1:1: relation "orders" already exists'
    assert run.verdict["message"].startswith(f"Gate closed: {closed}")
    assert run.verdict["error_message"] == 'relation "orders" already exists'
    assert run.stderr.startswith(f"migration-gate: closed: {closed}")
    told = gate(database=database, migrations=FILES, env=env | CONSOLE)
    first, *between, last = sentences(told.stdout)
    assert first.startswith("a: Started migrate for database ")
    assert "a: Applying 001_orders.sql" in between
    assert all(sentence.startswith("a: ") for sentence in between)
    assert last.startswith(f"Gate closed: {closed}")
    wrong = gate(database=database, env=env | {"GATE_HEARTBEAT": "soon"})
    assert wrong.verdict["target"] == "a"
    assert wrong.verdict["message"].startswith("Gate closed: a: GATE_HEARTBEAT ")


def test_a_command_without_a_database_is_about_no_target(
    gate: Gate, database: Database
) -> None:
    """A file is for all of them."""
    env = schemas(database, ["a"]) | TARGET_A | CONSOLE
    run = gate("new", "words", database=database, migrations=FILES, env=env)
    assert run.exit_code == 0
    assert "a: " not in run.stderr


def test_sentences_about_targets_begin_with_their_names(
    gate: Gate, database: Database
) -> None:
    """Once each; those about the whole fleet do not."""
    env = schemas(database, ["a", "b"]) | CONSOLE
    database.execute("CREATE TABLE b.orders ()")
    told = sentences(gate(database=database, migrations=FILES, env=env).stdout)
    for name in ("a", "b"):
        assert f"{name}: 2 pending, 0 applied" in told
        assert f"{name}: Applying 001_orders.sql" in told
    for begin in (
        "Started migrate for database ",
        "A fleet of 2 targets, ",
        "a is up to date: 2 applied ",
        "b is not up to date: 001_orders.sql:1:1: ",
        "Gate closed: 1 of 2 targets done, 1 failed; first b: 001_orders.sql:1:1: ",
    ):
        assert [s for s in told if s.startswith(begin)] != [], begin
