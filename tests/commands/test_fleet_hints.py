"""What to do about a target of a fleet: once, and so that it works as it stands."""

from __future__ import annotations

import shlex

import pytest

from migration_gate.commands.fleet.hints import name_target
from migration_gate.commands.fleet.outcomes import Outcome, Score, to_error
from migration_gate.report.errors import HistoryError
from tests.commands.test_fleet import FILES, history, schemas
from tests.fix_gate import Gate, parse_event
from tests.fix_postgres import Database


pytestmark = pytest.mark.timeout(60)
AGAIN = "tart the gate again"
ONLY_WHAT_IS_LEFT = "it does only what is left."
BROKEN = {**FILES, "003_broken.sql": "ALTER TABLE orders ADD COLUMN;"}
BACK = {
    **FILES,
    "002_more.down.sql": "ALTER TABLE orders DROP COLUMN note;",
    "002_more.sql": "ALTER TABLE orders ADD COLUMN note int;",
}


def last_hint(log: str) -> str:
    """Return the hint of the last line of a log, where it has one."""
    lines = [line for line in log.splitlines() if line.startswith("{")]
    return str(parse_event(lines[-1]).get("hint", ""))


def test_what_is_left_is_for_another_start(gate: Gate, database: Database) -> None:
    """Where the hint of the first failure does not say so."""
    env = schemas(database, ["a", "b"])
    database.execute("CREATE TABLE b.orders ()")
    run = gate(database=database, migrations=FILES, env=env)
    said = "Nothing this file did remains. Start the gate again: "
    assert run.verdict["hint"].endswith(f"{said}{ONLY_WHAT_IS_LEFT}")


def test_another_start_is_asked_for_once(gate: Gate, database: Database) -> None:
    """The hint of the first failure may say it in its own words."""
    env = schemas(database, ["a"])
    run = gate(database=database, migrations=BROKEN, env=env)
    assert run.verdict["hint"].endswith("correct it and start the gate again.")
    assert run.verdict["hint"].count(AGAIN) == 1


def test_a_statement_to_run_stays_apart_from_another_start(
    gate: Gate, database: Database
) -> None:
    """Its semicolon ends it, and the sentence goes on."""
    env = schemas(database, ["a"])
    app = database.role("app")
    run = gate(database=app, migrations=FILES, env=env)
    assert run.verdict["hint"].endswith(
        f"ON SCHEMA a TO {app.user}; then start the gate again: {ONLY_WHAT_IS_LEFT}"
    )
    assert run.one("target.closed")["hint"].endswith(f"ON SCHEMA a TO {app.user};")


@pytest.mark.parametrize("command", ["status", "check"])
def test_who_only_looks_is_not_asked_to_start_again(
    gate: Gate, database: Database, command: str
) -> None:
    """Nothing would come of it."""
    env = schemas(database, ["a", "b"]) | {"GATE_WAIT_TIMEOUT": "1s"}
    gate(database=database, migrations=FILES, env=env | {"GATE_TARGET": "a"})
    run = gate(command, database=database, migrations=FILES, env=env)
    assert run.exit_code == 1
    assert "1 of 2 targets done, 1 failed; first b: " in run.output
    assert AGAIN not in run.output


@pytest.mark.parametrize(
    "command",
    [("baseline", "77"), ("adopt",), ("rollback", "--to", "77")],
    ids=lambda command: command[0],
)
def test_wrong_arguments_are_not_started_again(
    gate: Gate, database: Database, command: tuple[str, ...]
) -> None:
    """They would be as wrong."""
    env = schemas(database, ["a"])
    if command[0] == "rollback":
        assert gate(database=database, migrations=BACK, env=env).exit_code == 0
    run = gate(*command, database=database, migrations=BACK, env=env)
    assert run.exit_code == 1
    assert last_hint(run.stderr) != ""
    assert "again" not in last_hint(run.stderr)


def test_a_rollback_is_what_is_started_again(gate: Gate, database: Database) -> None:
    """The gate's start would apply what it has undone; a look undoes nothing."""
    env = schemas(database, ["a", "b"])
    assert gate(database=database, migrations=BACK, env=env).exit_code == 0
    database.execute("CREATE VIEW b.notes AS SELECT note FROM b.orders")
    command = ("rollback", "--to", "001")
    run = gate(*command, database=database, migrations=BACK, env=env)
    assert run.exit_code == 1
    assert history(database, "a") == ["001_orders.sql"]
    assert "tart the rollback again" in last_hint(run.stderr)
    assert AGAIN not in run.output
    database.execute("UPDATE b.schema_migrations SET checksum = 'other'")
    shown = gate(*command, "--dry-run", database=database, migrations=BACK, env=env)
    assert shown.exit_code == 1
    assert "again" not in last_hint(shown.stderr)


@pytest.mark.parametrize("command", ["status", "plan"])
@pytest.mark.parametrize("setting", ["GATE_CHANGED", "GATE_AHEAD"])
def test_who_looks_tells_a_refusal_as_migrate_does(
    gate: Gate, database: Database, command: str, setting: str
) -> None:
    """With its reason, and what to do about it."""
    env = schemas(database, ["a", "b"]) | {setting: "refuse"}
    env["GATE_TARGETS_AT_ONCE"] = "1"
    assert gate(database=database, migrations=FILES, env=env).exit_code == 0
    files = {"001_orders.sql": FILES["001_orders.sql"]}
    if setting == "GATE_CHANGED":
        files["002_more.sql"] = "ALTER TABLE orders ADD COLUMN more text;"
    refused = gate(database=database, migrations=files, env=env).verdict
    run = gate(command, database=database, migrations=files, env=env)
    *_, last = (line for line in run.stderr.splitlines() if line.startswith("{"))
    told = parse_event(last)
    assert told["failed"] == sorted(refused["failed"]) == ["a: history", "b: history"]
    assert told["reason"] == "history"
    assert told["hint"] in refused["hint"]


@pytest.mark.parametrize("name", ["a", "it's one"])
def test_a_command_for_one_target_is_given_as_it_works(
    gate: Gate, database: Database, name: str
) -> None:
    """Over the fleet it is refused; with the variable it does what it says."""
    env = schemas(database, [name])
    database.execute(f'CREATE TABLE "{name}".orders (id int)')
    run = gate(database=database, migrations=FILES, env=env)
    for said in (run.verdict["hint"], run.one("target.closed")["hint"]):
        _, _, command = said.partition("the command ")
        words = shlex.split(command.partition("; ")[0])
        assert words == [
            *(f"GATE_TARGET={name}", "resolve", "001_orders.sql", "--applied")
        ]
    variable, *argv = words
    env |= dict([variable.split("=")])
    resolved = gate(*argv, database=database, migrations=FILES, env=env)
    assert resolved.exit_code == 0
    assert history(database, name) == ["001_orders.sql"]


def test_the_command_of_another_tool_is_none_of_the_gates() -> None:
    """Prisma's has the same name."""
    said = "say prisma migrate resolve --applied 001_a, then resolve 001 --not-applied."
    assert name_target(said, "a") == (
        "say prisma migrate resolve --applied 001_a, then "
        "GATE_TARGET=a resolve 001 --not-applied."
    )


def test_the_last_line_says_whether_failures_are_one(
    gate: Gate, database: Database
) -> None:
    """One cause or many is what is asked first: by the place, or by the words."""
    env = schemas(database, ["a", "b", "c", "d"]) | {"GATE_TARGETS_AT_ONCE": "1"}
    database.execute("CREATE TABLE d.orders (id int)")
    files = {"001_a.sql": "CREATE TABLE orders (id int);\nSELECT 1 / 0;"}
    run = gate(database=database, migrations=files, env=env)
    assert run.exit_code == 1
    said = "0 of 4 targets done, 4 failed; first a, and 2 alike: 001_a.sql:2:1: "
    assert run.verdict["error_message"].startswith(said)


@pytest.mark.parametrize(
    "words",
    [
        'migration "001_a.sql" was changed after being applied: at {}, sha256:1 then',
        "could not reach a usable PostgreSQL at h ({}): Connection refused",
    ],
)
def test_failures_that_differ_in_their_time_alone_are_one(words: str) -> None:
    """Each history has its own times, and each wait its own count of attempts."""
    score = Score()
    score.target_count = 2
    for name, when in {
        "a": ("2026-11-30T16:02:06.767Z", "34 attempts in 2 s"),
        "b": ("2026-11-29T06:00:00Z", "1 attempt in 0 s"),
    }.items():
        said = words.format(when[words.startswith("could")])
        score.take(Outcome(name, "failed", HistoryError(said)))
    assert "2 failed; first a, and 1 alike: " in str(to_error(score))
