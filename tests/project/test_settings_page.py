"""What the page of settings says is what the code does: names, defaults, codes."""

from __future__ import annotations

import re

from typing import get_args

from migration_gate.commands.answers import State
from migration_gate.commands.calls import COMMANDS
from migration_gate.commands.parser import describe
from migration_gate.report.errors import GateError
from migration_gate.report.verdict import Tally, closed, opened
from migration_gate.settings.drivers import (
    PASSED_OVER,
    REFUSED,
    RENAMED,
    SESSION,
    TRANSLATED,
)
from migration_gate.settings.durations import parse_duration
from migration_gate.settings.known import SETTINGS, Setting
from migration_gate.settings.sources import POSTGRES_VARIABLES
from tests.project.pages import read, read_code, read_section, read_table


PAGE = "docs/settings.md"


def test_the_settings_are_those_of_the_code() -> None:
    """Names and defaults, in the code's order."""
    rows = read_table(PAGE, "setting")
    assert [(read_code(row[0])[0], read_code(row[1])[0]) for row in rows] == [
        (setting.name, setting.default) for setting in SETTINGS
    ]


def find_choices(setting: Setting) -> list[str]:
    """Return the words that a setting takes, where it takes no others."""
    try:
        setting.parse("no such word")
    except ValueError as broken:
        rule, words = "is not one of ", str(broken)
        return words.removeprefix(rule).split(", ") if words.startswith(rule) else []
    return []


def test_the_choices_are_those_of_the_code() -> None:
    """A setting that takes one of a few words names each of them, and no other."""
    rows = read_table(PAGE, "setting")
    for setting, row in zip(SETTINGS, rows, strict=True):
        choices = find_choices(setting)
        if choices:
            named = [word for word in read_code(row[2]) if word.islower()]
            assert named == choices, setting.name


def test_the_durations_can_be_written_like_that() -> None:
    """Every form that the page shows is one."""
    (line,) = re.findall(r"^Durations are written .*$", read(PAGE), re.MULTILINE)
    assert len(read_code(line)) > 1
    for text in read_code(line):
        parse_duration(text)


def test_the_ways_to_name_a_database_are_those_of_the_code() -> None:
    """The second lists its variables."""
    text = read_section(PAGE, "Which database")
    (second,) = re.findall(r"^2\. .*$", text, re.MULTILINE)
    assert read_code(second) == list(POSTGRES_VARIABLES.values())


def test_the_parameters_of_other_programs_are_those_of_the_code() -> None:
    """What is passed over in the code's order; the others are named in the text."""
    rows = read_table(PAGE, "of")
    assert {row[0]: tuple(read_code(row[1])) for row in rows} == PASSED_OVER
    text = read_section(PAGE, "The URL that the application has")
    named = {word.partition("=")[0].lower() for word in read_code(text)}
    assert {*SESSION, *RENAMED, *TRANSLATED, *REFUSED} <= named


def read_usage(command: str) -> tuple[set[str], list[str]]:
    """Return the flags and the operands that a command's help shows."""
    shown, _, _ = describe([command]).partition("\n\n")
    (usage,) = re.findall(r"usage: \S+ (.*)", " ".join(shown.split()))
    words = re.findall(r"[\w-]+", usage.replace("[-h]", ""))[1:]
    flags = {word for word in words if word.startswith("--")}
    return flags, list(dict.fromkeys(word for word in words if word.isupper()))


def test_the_commands_are_those_of_the_code() -> None:
    """With their operands and flags; another way to call it stands beside the first."""
    described = {}
    for row in read_table(PAGE, "command"):
        first, *others = read_code(row[0])
        command, *words = re.findall(r"[\w-]+", first)
        flags = set(re.findall(r"--[\w-]+", " ".join([first, *others])))
        described[command] = flags, [word for word in words if word.isupper()]
    assert described == {command: read_usage(command) for command in COMMANDS}


def test_the_states_are_those_of_the_code() -> None:
    """What `status` says of a migration."""
    (line,) = re.findall(r"^In the answer to `status` .*$", read(PAGE), re.MULTILINE)
    assert sorted(read_code(line)[1:]) == sorted(get_args(State))


def test_the_exit_codes_are_those_of_the_verdict() -> None:
    """There are two, and open is the first."""
    codes = [
        opened(Tally(), duration_ms=0).exit_code,
        closed(GateError("x"), Tally(), duration_ms=0).exit_code,
    ]
    rows = read_table(PAGE, "code")
    assert [int(row[0]) for row in rows] == codes
    assert [row[1].partition(":")[0] for row in rows] == ["open", "closed"]
