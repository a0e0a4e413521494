"""The schema of the log describes every event, and real lines are what it says."""

from __future__ import annotations

import copy

from collections.abc import Iterator
from typing import Any

import pytest

from migration_gate.commands import calls
from migration_gate.commands.calls import COMMANDS
from migration_gate.report.errors import GateError
from migration_gate.report.events import EVENTS
from migration_gate.settings.environment import POD_FIELDS
from tests.fix_gate import Gate
from tests.log_schema import SCHEMA, find_faults


HEAD = {"timestamp": "2026-11-23T10:01:22.304Z", "message": "as a sentence"}
LINE = {**HEAD, "event": "lock.acquired", "level": "info", "waited_s": 0.5}


def find_reasons(error: type[GateError]) -> Iterator[str]:
    """Yield why a gate stays closed, by this error and all that are of its kind."""
    yield error.reason
    for kind in error.__subclasses__():
        yield from find_reasons(kind)


def test_the_events_are_those_of_the_code() -> None:
    """Each with its level and its fields, in the code's order; and no others."""
    described = []
    for choice in SCHEMA["oneOf"]:
        event = SCHEMA["$defs"][choice["$ref"].removeprefix("#/$defs/")]
        assert event["description"]
        name, level, *fields = event["properties"]
        assert (name, level) == ("event", "level")
        constants = [event["properties"][head]["const"] for head in (name, level)]
        described.append((*constants, tuple(fields)))
    assert described == [(event.name, event.level, event.fields) for event in EVENTS]


def test_what_stands_in_the_schema_is_used() -> None:
    """An event that the code has no longer leaves nothing behind."""
    names = {event.name for event in EVENTS}
    assert {name for name in SCHEMA["$defs"] if "." in name} == names
    assert {choice["$ref"] for choice in SCHEMA["oneOf"]} == {
        f"#/$defs/{name}" for name in names
    }


def test_the_closed_sets_are_those_of_the_code() -> None:
    """Reasons of a closed gate, commands, and what stands on every line."""
    definitions = SCHEMA["$defs"]
    closed = definitions["gate.closed"]["properties"]
    assert calls.UsageError.reason in closed["reason"]["enum"]
    assert set(closed["reason"]["enum"]) == set(find_reasons(GateError))
    started = definitions["gate.started"]["properties"]
    assert started["command"]["enum"] == list(COMMANDS)
    head = ["timestamp", "level", "event", "message"]
    pod = [field for _, field in POD_FIELDS]
    assert list(SCHEMA["properties"]) == [*head, *pod, "trace_id", "span_id", "target"]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"event": "lock.lost"}, "there is no event lock.lost"),
        ({"level": "error"}, "lock.acquired: level is 'error'"),
        ({"waited_s": "0.5"}, "lock.acquired: waited_s is '0.5'"),
        ({"waited_s": True}, "lock.acquired: waited_s is True"),
        ({"waited_s": -1}, "lock.acquired: waited_s is -1"),
        ({"holder": 1}, "lock.acquired: holder is too much"),
        ({"timestamp": "now"}, "lock.acquired: timestamp is 'now'"),
    ],
)
def test_a_line_that_is_otherwise_is_found(change: dict[str, Any], fault: str) -> None:
    """An unknown event, a field too much, another type, another level."""
    assert find_faults(LINE) == []
    assert find_faults({**LINE, **change}) == [fault]


def test_a_field_that_is_missing_is_found() -> None:
    """Only a closed gate leaves out what it does not know."""
    short = {name: value for name, value in LINE.items() if name != "waited_s"}
    assert find_faults(short) == ["lock.acquired: waited_s is missing"]


def test_each_run_of_a_test_is_held_to_the_schema(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log of every gate that any test runs to its end, not only of this one."""
    definitions = copy.deepcopy(SCHEMA["$defs"])
    del definitions["gate.closed"]["properties"]["reason"]
    monkeypatch.setitem(SCHEMA, "$defs", definitions)
    with pytest.raises(AssertionError, match="reason is too much"):
        gate(env={"GATE_TIMEOUT": "soon"})
