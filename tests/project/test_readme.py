"""What the README says of names, defaults, events and codes is what the code does."""

from __future__ import annotations

import ast
import json
import re

from collections.abc import Iterator, Mapping
from typing import Any, get_args

import pytest
import yaml

from dev.postgres import VERSION
from migration_gate.commands.answers import State
from migration_gate.commands.main import FLAGS, OPERANDS
from migration_gate.commands.new import TEMPLATE
from migration_gate.files.migration import KNOWN, parse_directives, parse_name
from migration_gate.report.errors import GateError
from migration_gate.report.events import EVENTS, VERDICTS
from migration_gate.report.verdict import Tally, closed, opened
from migration_gate.settings.database import POSTGRES_VARIABLES
from migration_gate.settings.durations import parse_duration
from migration_gate.settings.libpq import PG_VARIABLES
from migration_gate.settings.settings import POD_FIELDS, SETTINGS, Setting
from tests.project.test_pages import (
    MODULES,
    read,
    read_blocks,
    read_code,
    read_prose,
    read_section,
    read_table,
)


PAGE = "README.md"
COMMON_FIELDS = ("timestamp", "level", "event", "message")
# What PostgreSQL says, not the gate.
POSTGRESQL_SAYS = {
    "already exists",
    "syntax error",
    "canceling statement due to lock timeout",
}
DATABASE_NAMES = ("DATABASE_URL", *POSTGRES_VARIABLES.values(), *PG_VARIABLES.values())
KNOWN_NAMES = {
    *(setting.name for setting in SETTINGS),
    *(name + end for name in DATABASE_NAMES for end in ("", "_FILE")),
    *(name for name, _ in POD_FIELDS),
}


def test_a_run_is_six_lines_that_end_in_the_two_exit_codes() -> None:
    """The whole of it, before anything else."""
    text = read_section(PAGE, "What happens when it runs")
    lines = re.findall(r"^\d\. .+$", text, re.MULTILINE)
    assert len(lines) == 6
    assert [code for code in ("**0**", "**1**") if code in lines[-1]] == [
        "**0**",
        "**1**",
    ]


def test_the_settings_are_those_of_the_code() -> None:
    """Names and defaults, in the code's order."""
    rows = read_table(PAGE, "setting")
    assert [(read_code(row[0])[0], read_code(row[1])[0]) for row in rows] == [
        (setting.name, setting.default) for setting in SETTINGS
    ]


def find_choices(setting: Setting[Any]) -> list[str]:
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
    """Every form that the README shows is one."""
    (line,) = re.findall(r"^Durations are written .*$", read(PAGE), re.MULTILINE)
    assert len(read_code(line)) > 1
    for text in read_code(line):
        parse_duration(text)


def test_the_ways_to_name_a_database_are_those_of_the_code() -> None:
    """The second lists its variables, and each name with _FILE has its value's."""
    text = read_section(PAGE, "Which database")
    (second,) = re.findall(r"^2\. .*$", text, re.MULTILINE)
    assert read_code(second) == list(POSTGRES_VARIABLES.values())
    named = set(re.findall(r"\b(?:POSTGRES|DATABASE|PG)_?[A-Z_]*[A-Z]\b", text))
    assert named <= KNOWN_NAMES


def test_the_commands_are_those_of_the_code() -> None:
    """With their operands and flags."""
    described = {}
    for row in read_table(PAGE, "command"):
        command, *words = re.findall(r"[\w-]+", read_code(row[0])[0])
        flags = frozenset(word for word in words if word.startswith("--"))
        described[command] = flags, [word for word in words if word.isupper()]
    assert described == {
        command: (flags, [OPERANDS[command]] if command in OPERANDS else [])
        for command, flags in FLAGS.items()
    }


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


def find_kinds(kind: type[GateError]) -> Iterator[type[GateError]]:
    """Yield a kind of error and all kinds of it."""
    yield kind
    for special in kind.__subclasses__():
        yield from find_kinds(special)


def test_the_reasons_are_those_of_the_errors() -> None:
    """Every reason that a closed gate can have, and no other."""
    reasons = {kind.reason for kind in find_kinds(GateError)}
    described = [read_code(row[0])[0] for row in read_table(PAGE, "reason")]
    assert sorted(described) == sorted(reasons)


def find_texts() -> Iterator[str]:
    """Yield the strings in the code, of f-strings what stands between the values."""
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_the_messages_to_look_for_are_the_gates() -> None:
    """A message that the code no longer has helps nobody."""
    texts = "\n".join(find_texts())
    rows = read_table(PAGE, "message contains")
    named = {part for row in rows for part in read_code(row[0])}
    assert named >= POSTGRESQL_SAYS
    assert {part for part in named - POSTGRESQL_SAYS if part not in texts} == set()


@pytest.mark.parametrize("heading", ["A run that opens", "A run that stays closed"])
def test_the_logs_are_of_events_as_they_are(heading: str) -> None:
    """Level, sentence and fields of each line are those of its event."""
    by_name = {event.name: event for event in EVENTS}
    lines = [
        json.loads(line)
        for block in read_blocks(PAGE, "json")
        if block in read(PAGE).partition(f"### {heading}\n")[2].partition("\n#")[0]
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


def test_the_names_of_files_are_names_of_migrations() -> None:
    """Wherever the page shows one, in text, commands, SQL and logs."""
    names = set(re.findall(r"(?<![\w.*/])\w[\w.]*\.sql\b", read(PAGE)))
    names -= {"NUMBER_words.sql", "NUMBER_words.up.sql"}
    assert len(names) > 3
    assert {name for name in names if parse_name(name) is None} == set()


def test_the_kinds_of_names_are_as_described() -> None:
    """What the table calls a migration is one, and what undoes it is none."""
    for row in read_table(PAGE, "name"):
        parsed = parse_name(read_code(row[0])[0])
        assert parsed is not None
        assert (parsed.kind == "up") is row[1].startswith("a migration")


def test_the_directives_are_those_of_the_code() -> None:
    """Every one is accepted, and none is missing."""
    comments = [read_code(row[0])[0] for row in read_table(PAGE, "directive")]
    for comment in comments:
        _, faults = parse_directives("001_a.sql", [(1, comment)])
        assert faults == (), comment
    assert [comment.removeprefix("-- gate: ") for comment in comments] == (
        KNOWN.split(", ")
    )


def test_the_template_is_what_new_writes() -> None:
    """But for the date."""
    found = [b for b in read_blocks(PAGE, "sql") if b.startswith("-- Purpose")]
    (date,) = re.findall(r"^-- Created: (\S+)$", found[0], re.MULTILINE)
    assert found == [TEMPLATE.format(words="order notes", date=date)]


def find_variables(node: object) -> Iterator[str]:
    """Yield the names of the environment variables in a manifest."""
    if isinstance(node, list):
        for each in node:
            yield from find_variables(each)
    elif isinstance(node, Mapping):
        for key, inner in node.items():
            if key == "env":
                yield from (variable["name"] for variable in inner)
            elif key == "environment":
                yield from inner
            else:
                yield from find_variables(inner)


def test_the_manifests_parse_and_name_known_settings() -> None:
    """What a reader copies does not close the gate by a slip."""
    manifests = [yaml.safe_load(block) for block in read_blocks(PAGE, "yaml")]
    assert len(manifests) == 2
    for manifest in manifests:
        variables = set(find_variables(manifest))
        assert variables
        assert variables <= KNOWN_NAMES


def test_the_manifests_let_nothing_start_behind_a_closed_gate() -> None:
    """An init container, and the condition without a way around it."""
    deployment, compose = map(yaml.safe_load, read_blocks(PAGE, "yaml"))
    pod = deployment["spec"]["template"]["spec"]
    assert [each["name"] for each in pod["initContainers"]] == ["gate"]
    assert compose["services"]["app"]["depends_on"] == {
        "gate": {"condition": "service_completed_successfully"}
    }


def test_the_servers_named_are_those_tested() -> None:
    """By ``.ci/run``, and by ``make test`` on the embedded one."""
    (line,) = re.findall(r"^- Tested on PostgreSQL .*$", read(PAGE), re.MULTILINE)
    versions = re.search(r'^SERVER_VERSIONS="(.*)"$', read(".ci/run"), re.MULTILINE)
    assert versions is not None
    tested = {*versions[1].split(), VERSION.partition(".")[0]}
    assert set(re.findall(r"\b\d\d\b", line)) == tested


def test_the_python_and_the_user_named_are_those_of_the_project() -> None:
    """pyproject.toml's oldest Python, and the Dockerfile's user."""
    (python,) = set(re.findall(r"Python (\d\.\d+) or newer", read(PAGE)))
    assert f'requires-python = ">={python}"' in read("pyproject.toml")
    for uid in re.findall(r"\buid (\d+)", read_prose(PAGE)):
        assert re.search(rf"^USER {uid}\b", read("Dockerfile"), re.MULTILINE)
