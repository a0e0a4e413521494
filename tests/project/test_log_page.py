"""What the page of the log says of events and fields is what the code does."""

from __future__ import annotations

import json
import re

import pytest

from migration_gate.report.console import describe_line
from migration_gate.report.events import EVENTS, VERDICTS
from migration_gate.settings.environment import POD_FIELDS
from tests.project.pages import read, read_blocks, read_code, read_table


PAGE = "docs/log.md"
COMMON_FIELDS = ("timestamp", "level", "event", "message")


def test_the_events_are_those_of_the_code() -> None:
    """Each with its level and its fields, in the code's order."""
    described = [
        (read_code(row[0])[0], row[1], tuple(read_code(row[3])))
        for row in read_table(PAGE, "event")
    ]
    assert described == [(event.name, event.level, event.fields) for event in EVENTS]


def test_the_fields_of_a_pod_are_those_of_the_code() -> None:
    """Fields, then the variables that they come from."""
    (line,) = re.findall(r"^.* stand on every line .*$", read(PAGE), re.MULTILINE)
    fields = [field for _, field in POD_FIELDS]
    assert read_code(line) == [*fields, *(name for name, _ in POD_FIELDS)]


@pytest.mark.parametrize("heading", ["A run that opens", "A run that stays closed"])
def test_the_logs_are_of_events_as_they_are(heading: str) -> None:
    """Level, sentence and fields of each line are those of its event."""
    by_name = {event.name: event for event in EVENTS}
    lines = [
        json.loads(line)
        for block in read_blocks(PAGE, "json")
        if block in read(PAGE).partition(f"## {heading}\n")[2].partition("\n#")[0]
        for line in block.splitlines()
    ]
    assert lines
    for line in lines:
        event = by_name[line["event"]]
        assert line["level"] == event.level
        fields = [name for name in line if name not in COMMON_FIELDS]
        if event in VERDICTS:
            assert fields == [name for name in event.fields if name in line]
        else:
            assert tuple(fields) == event.fields
        if "{message}" not in event.message:
            assert line["message"] == event.message.format(**line)
    is_open = heading == "A run that opens"
    assert (lines[-1]["event"] == "gate.opened") is is_open
    assert lines[-1]["exit_code"] == (0 if is_open else 1)


def test_the_sentences_are_those_of_the_same_lines() -> None:
    """What a person reads, beside what a machine does."""
    (_, lines), (sentences, stderr) = (
        read_blocks(PAGE, "json"),
        read_blocks(PAGE, "text"),
    )
    closed = [json.loads(line) for line in lines.splitlines()]
    told = [describe_line(line, columns=None) for line in closed]
    assert sentences.splitlines() == "\n".join(told).splitlines()
    verdict = closed[-1]["message"].removeprefix("Gate closed: ")
    said = f"migration-gate: closed: {verdict}. {closed[-1]['hint']}"
    assert stderr.splitlines() == [said]
