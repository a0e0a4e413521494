"""What is odd about the history of a target is told with the target's name."""

from __future__ import annotations

import json

from typing import Final

import pytest

from tests.commands.test_fleet import FILES, list_names, schemas
from tests.fix_gate import Gate, parse_event
from tests.fix_postgres import Database, Databases


pytestmark = pytest.mark.timeout(60)

UNKNOWN: Final = "history.unknown_versions"
ODD: Final = "the history has what no file here explains: 099_x.sql"
INSERT: Final = (
    "INSERT INTO {}.schema_migrations (version, checksum) VALUES ('099_x.sql', 'x')"
)
NAMES: Final = [f"t{number}" for number in range(8)]


@pytest.mark.parametrize("command", ["migrate", "check", "status", "plan"])
@pytest.mark.parametrize("kind", ["schemas", "databases"])
def test_a_row_that_no_file_explains_is_told_of_its_target(
    gate: Gate, databases: Databases, kind: str, command: str
) -> None:
    """By all commands, however fast they have looked."""
    home, *others = (databases.create() for _ in range(4))
    names = [other.name for other in others]
    if kind == "schemas":
        schemas(home, names)
    env = {"GATE_TARGETS": f"{kind}:{list_names(names)}"}
    assert gate(database=home, migrations=FILES, env=env).exit_code == 0
    if kind == "schemas":
        home.execute(INSERT.format(names[1]))
    else:
        others[1].execute(INSERT.format("public"))
    run = gate(command, database=home, migrations=FILES, env=env)
    lines = [line for line in run.output.splitlines() if line.startswith("{")]
    events = [parse_event(line) for line in lines]
    (log,) = [event for event in events if event["event"] == UNKNOWN]
    assert (log["target"], log["versions"]) == (names[1], ["099_x.sql"])
    assert (run.exit_code, events[-1]["warnings"]) == (0, [UNKNOWN])


def test_what_many_have_is_told_once_with_the_first_of_them(
    gate: Gate, database: Database
) -> None:
    """And how many more there are."""
    env = schemas(database, NAMES)
    assert gate(database=database, migrations=FILES, env=env).exit_code == 0
    for name in NAMES[1:]:
        database.execute(INSERT.format(name))
    run = gate(database=database, migrations=FILES, env=env)
    log = run.one(UNKNOWN)
    assert (run.exit_code, log["targets"]) == (0, [*NAMES[1:6], "… 2 more"])
    assert "target" not in log
    plain = env | {"GATE_LOG_FORMAT": "console"}
    told = gate(database=database, migrations=FILES, env=plain)
    assert "explains: 099_x.sql\n             target  t1\n" in told.stdout


def test_status_marks_what_is_odd(gate: Gate, database: Database) -> None:
    """Beside those that are behind; on the page and for programs too."""
    env = schemas(database, NAMES)
    assert gate(database=database, migrations=FILES, env=env).exit_code == 0
    assert (
        "WORTH"
        not in gate("status", database=database, migrations=FILES, env=env).stdout
    )
    for name in NAMES[5:]:
        database.execute(INSERT.format(name))
    told = gate("status", database=database, migrations=FILES, env=env)
    head, row = told.stdout.splitlines()[-2:]
    assert head.split() == ["TARGETS", "WORTH", "A", "LOOK", "FIRST", "OF", "THEM"]
    assert [cell.strip() for cell in row.split("  ") if cell] == ["3", ODD, "t5"]
    assert told.exit_code == 0
    run = gate("status", "--json", database=database, migrations=FILES, env=env)
    reasons = {line["target"]: line["reason"] for line in json.loads(run.stdout)}
    assert reasons == dict.fromkeys(NAMES[:5]) | dict.fromkeys(NAMES[5:], ODD)
    page = gate("status", "--html", database=database, migrations=FILES, env=env)
    assert page.stdout.count(ODD) == 3
