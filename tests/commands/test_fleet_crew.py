"""Threads that work at targets, and what who waits for them hears of their faults."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading

from pathlib import Path
from typing import Final, NamedTuple

import pytest

from migration_gate.commands.fleet.crew import Crew
from migration_gate.commands.fleet.outcomes import Outcome, work_at
from migration_gate.commands.fleet.targets import Target
from migration_gate.connection import waits
from migration_gate.report.errors import GateInterruptedError
from migration_gate.report.log import Log
from migration_gate.report.verdict import Tally
from migration_gate.settings.environment import from_environ
from migration_gate.settings.settings import Settings
from tests.commands.test_fleet import FILES
from tests.fix_gate import write_migrations
from tests.fix_postgres import Database


WAIT_S: Final = 5.0
# The gate, with a fault in what a thread does.
FAULTY: Final = """
import os, sys
from migration_gate.commands.fleet import overview
from migration_gate.commands.main import main
def glance(*arguments):
    raise ZeroDivisionError
overview.glance = glance
sys.exit(main(sys.argv[1:], os.environ))
"""


class Item(NamedTuple):
    """What is worked at."""

    name: str


class PlantedError(Exception):
    """A fault of the gate's own."""


def test_a_fault_in_a_thread_is_raised_by_who_waits_for_all() -> None:
    """When what is under way beside it has ended; no other is begun then."""
    has_failed, outcomes = threading.Event(), list[Outcome]()

    def work(item: Item) -> Outcome:
        if item.name == "b":
            has_failed.set()
            raise PlantedError
        assert has_failed.wait(WAIT_S)
        return Outcome(item.name, "done")

    crew = Crew(2, work)
    items = [Item(name) for name in ("a", "b", *map(str, range(1000)))]
    with pytest.raises(PlantedError):
        crew.run(items, outcomes.append, every=lambda: WAIT_S)
    assert outcomes[0] == Outcome("a", "done")
    assert len(outcomes) < len(items) - 1


def test_a_fault_in_who_is_told_of_an_outcome_is_raised_too() -> None:
    """And the crew works at what it is given next."""
    outcomes = list[Outcome]()

    def take(outcome: Outcome) -> None:
        if outcome.name == "a":
            raise PlantedError
        outcomes.append(outcome)

    crew: Crew[Item] = Crew(1, lambda item: Outcome(item.name, "done"))
    with pytest.raises(PlantedError):
        crew.run([Item("a"), Item("b")], take, every=lambda: WAIT_S)
    crew.run([Item("c")], take, every=lambda: WAIT_S)
    assert outcomes == [Outcome("c", "done")]


def test_a_crew_works_with_as_many_threads_as_the_system_gives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A container has a limit of processes, or of memory."""
    start, started, outcomes = threading.Thread.start, list[object](), list[Outcome]()

    def start_one(thread: threading.Thread) -> None:
        if started:
            text = "can't start new thread"
            raise RuntimeError(text)
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_one)
    crew: Crew[Item] = Crew(3, lambda item: Outcome(item.name, "done"))
    items = [Item(name) for name in "abc"]
    crew.run(items, outcomes.append, every=lambda: WAIT_S)
    assert [outcome.name for outcome in outcomes] == ["a", "b", "c"]
    with pytest.raises(RuntimeError):
        crew.run(items, outcomes.append, every=lambda: WAIT_S)


def test_a_fault_while_a_stop_is_cleaned_up_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a run without a fleet: the target is left, and no line says otherwise."""
    monkeypatch.setattr(waits._process, "wish", None)
    monkeypatch.setattr(waits._process, "woken", None)

    def step(_settings: Settings, _log: Log, _tally: Tally) -> None:
        waits.ask_to_stop(GateInterruptedError("stopped"))
        raise PlantedError

    target = Target("a", from_environ({"DATABASE_URL": "postgresql://u@h/d"}))
    with (tmp_path / "log").open("w+") as file:
        outcome = work_at(target, step, Log(fd=file.fileno()), lambda _: False)
        file.seek(0)
        assert file.read() == ""
    assert outcome.state == "stopped"


@pytest.mark.parametrize("command", ["check", "status", "plan"])
def test_a_fault_in_a_thread_closes_the_gate(
    database: Database, tmp_path: Path, command: str
) -> None:
    """As in a run without a fleet: the last line says so, and the exit code is 1."""
    folder = write_migrations(tmp_path / "migrations", FILES)
    environ = database.environ() | {
        "PATH": os.environ["PATH"],
        "GATE_MIGRATIONS": str(folder),
        "GATE_TARGETS": "databases:SELECT current_database()::text",
    }
    run = subprocess.run(
        [sys.executable, "-c", FAULTY, command],
        env=environ,
        capture_output=True,
        check=False,
        timeout=10,
    )
    log = run.stdout if command == "check" else run.stderr
    verdict = json.loads(log.splitlines()[-1])
    assert (run.returncode, verdict["reason"]) == (1, "internal")
    assert verdict["message"] == "Gate closed: internal error: ZeroDivisionError"
