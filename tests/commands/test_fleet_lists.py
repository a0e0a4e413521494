"""A fleet whose list is a file: what each line names is a target of its own."""

from __future__ import annotations

import os

from pathlib import Path

import pytest

from tests.commands.test_fleet import FILES, counts, tables
from tests.fix_gate import Gate
from tests.fix_postgres import Database, Databases, NewServer, database_of


def write_list(folder: Path, *lines: str) -> dict[str, str]:
    """Write a list, and return the setting that names it."""
    listed = folder / "fleet.txt"
    listed.write_text("\n".join(lines), "utf-8")
    return {"GATE_TARGETS": f"file:{listed}"}


def write_services(folder: Path, **services: str) -> dict[str, str]:
    """Write a file of services, and return the setting that names it."""
    text = "".join(f"[{name}]\n{lines}\n" for name, lines in services.items())
    (folder / "services.conf").write_text(text, "utf-8")
    return {"PGSERVICEFILE": str(folder / "services.conf")}


@pytest.mark.timeout(60)
def test_lines_with_different_services_are_different_targets(
    gate: Gate, database: Database, new_server: NewServer, tmp_path: Path
) -> None:
    """Each service says where its server is, and a database where the line does not."""
    one, two = (database_of(new_server()) for _ in range(2))
    one.execute("CREATE DATABASE app")
    place = "host={host}\nport={port}".format
    env = write_services(
        tmp_path,
        one=f"{place(**one.conninfo)}\ndbname=app",
        two=place(**two.conninfo),
    )
    env |= write_list(tmp_path, "service=one", "service=two dbname=postgres")
    run = gate(database=database, migrations=FILES, env=env)
    assert (run.exit_code, counts(run)) == (0, [2, 2, 0, 0, 0])
    places = [database, one.changed(dbname="app"), two]
    assert [tables(place) for place in places] == [[], ["public"], ["public"]]
    names = {event["target"] for event in run.all("target.opened")}
    assert names == {"one", "two/postgres"}
    alone = env | {"GATE_TARGET": "two/postgres"}
    assert gate("check", database=database, migrations=FILES, env=alone).exit_code == 0


def test_lines_with_different_addresses_are_different_targets(
    gate: Gate, database: Database, tmp_path: Path
) -> None:
    """Of the configured host, or of one that the lines name."""
    place = "port={port} dbname={dbname}".format(**database.conninfo)
    env = write_list(
        tmp_path,
        f"hostaddr=127.0.0.1 {place}",
        f"hostaddr=127.0.0.2 {place}",
        f"host=localhost hostaddr=127.0.0.1 {place}",
        f"host=localhost hostaddr=127.0.0.2 {place}",
    )
    env["GATE_WAIT_TIMEOUT"] = "1s"
    run = gate(database=database, migrations=FILES, env=env)
    assert (run.exit_code, counts(run)) == (1, [4, 2, 2, 0, 0])
    place = "{port}/{dbname}".format(**database.conninfo)
    assert {event["target"] for event in run.all("target.closed")} == {
        f"127.0.0.2:{place}",
        f"localhost:127.0.0.2:{place}",
    }


def test_lines_that_say_the_same_are_one_target(
    gate: Gate, databases: Databases, tmp_path: Path
) -> None:
    """However they are written."""
    home, other = (databases.create() for _ in range(2))
    env = write_list(tmp_path, other.name, f"dbname={other.name}", f"{other.name}  ")
    run = gate(database=home, migrations=FILES, env=env)
    assert (run.exit_code, counts(run)) == (0, [1, 1, 0, 0, 0])


@pytest.mark.parametrize("command", ["migrate", "check"])
def test_lines_of_one_name_that_differ_are_refused(
    gate: Gate, databases: Databases, tmp_path: Path, command: str
) -> None:
    """By their numbers and what differs, without its value, and before any is begun."""
    home, first, second = (databases.create() for _ in range(3))
    env = write_list(
        tmp_path,
        first.name,
        "# the same database, by two logins",
        f"dbname={second.name} user=login_one sslmode=prefer",
        "",
        f"dbname={second.name} user=login_two",
    )
    run = gate(command, database=home, migrations=FILES, env=env)
    assert (run.exit_code, run.verdict["reason"]) == (1, "settings")
    assert run.verdict["message"] == (
        "Gate closed: GATE_TARGETS names one target in lines 3 and 5, which differ in "
        "sslmode, user"
    )
    assert "login_" not in run.output
    assert tables(first) == []


def test_a_mark_at_the_head_of_the_file_is_no_part_of_a_name(
    gate: Gate, database: Database, databases: Databases, tmp_path: Path
) -> None:
    """Editors write one; a database of such a name would be made."""
    target = databases.create()
    env = write_list(tmp_path, f"\ufeff{target.name}")
    env["GATE_CREATE_DATABASE"] = "true"
    run = gate(database=database, migrations=FILES, env=env)
    assert (run.exit_code, counts(run)) == (0, [1, 1, 0, 0, 0])
    assert tables(target) == ["public"]


def test_a_list_in_a_pipe_is_refused(gate: Gate, tmp_path: Path) -> None:
    """Before anything is begun: the second list, at the end, would be empty."""
    os.mkfifo(tmp_path / "fleet.txt")
    env = {"GATE_TARGETS": f"file:{tmp_path / 'fleet.txt'}", "PGHOST": "h"}
    run = gate(migrations=FILES, env=env)
    told = "Gate closed: GATE_TARGETS names a pipe"
    assert (run.exit_code, run.verdict["message"]) == (1, told)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("host=a dbname=b password=hush", "which has a password"),
        ("postgresql://h/b?currentSchema=hush", "which has "),
        ("postgresql://[hush", "which "),
        ("sslmode=require", "which names neither host nor database"),
    ],
)
def test_a_line_that_cannot_be_used_is_named_by_its_number(
    gate: Gate, tmp_path: Path, line: str, said: str
) -> None:
    """What it says is not told: it may be a secret."""
    env = write_list(tmp_path, "shop", "", line) | {"PGHOST": "h"}
    run = gate(migrations=FILES, env=env)
    assert (run.exit_code, run.verdict["reason"]) == (1, "settings")
    told = f"Gate closed: GATE_TARGETS has line 3, {said}"
    assert run.verdict["message"].startswith(told), run.output
    assert "hush" not in run.output
