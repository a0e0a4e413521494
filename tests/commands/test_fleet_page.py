"""The page of a fleet: every target, the worst first, chosen from without a script."""

from __future__ import annotations

from migration_gate.commands.fleet.board import KINDS, to_board
from migration_gate.commands.fleet.target_lines import State, TargetLine
from migration_gate.commands.page import STYLE
from tests.commands.test_fleet import FILES, schemas
from tests.commands.test_status_page import HEADING, NASTY, Page, read, rows
from tests.fix_gate import Gate
from tests.fix_postgres import Database


def target(name: str, state: State = "up to date", **more: object) -> TargetLine:
    """Return a line of the answer."""
    known = {"version": "001_a.sql", "pending": (), "reason": None, **more}
    return TargetLine(target=name, state=state, **known)  # type: ignore[arg-type]


def test_the_page_shows_every_target(gate: Gate, database: Database) -> None:
    """Who is behind stands before who is not, and the head says what closes."""
    env = schemas(database, ["a", "b", "c"])
    first = {"001_orders.sql": FILES["001_orders.sql"]}
    gate(database=database, migrations=FILES, env={**env, "GATE_TARGET": "b"})
    gate(database=database, migrations=first, env=env)
    run = gate("status", "--html", database=database, migrations=FILES, env=env)
    assert run.exit_code == 1
    body = read(run.stdout)
    assert body.all("h1")[0].words == "Fleet of 3 targets on 127.0.0.1"
    assert [title.words for title in body.all("h2")] == ["Behind (2)", "Up to date (1)"]
    assert [row[:4] for row in rows(body)] == [
        ["behind", "a", "001_orders.sql", "1 pending"],
        ["behind", "c", "001_orders.sql", "1 pending"],
        ["up to date", "b", "002_more.sql", ""],
    ]
    assert "1 of 3 targets done, 2 failed" in body.all("header")[0].words


def test_a_fleet_that_is_up_to_date_is_open(gate: Gate, database: Database) -> None:
    """And has an exit code that says it too."""
    env = schemas(database, ["a", "b"])
    gate(database=database, migrations=FILES, env=env)
    run = gate("status", "--html", database=database, migrations=FILES, env=env)
    assert run.exit_code == 0
    assert [title.words for title in read(run.stdout).all("h2")] == ["Up to date (2)"]


def test_a_choice_has_the_number_of_its_lines() -> None:
    """By the same names as on the page of one database, which the style knows."""
    lines = [
        target("a"),
        target("b", "behind", pending=("2.sql",)),
        target("c", "behind", pending=("2.sql",), reason="the last attempt failed"),
        target("d", "refused", reason="changed"),
    ]
    body = read(to_board(HEADING, lines))
    assert [label.words for label in body.all("label")] == [
        "All (4)",
        "Behind (2)",
        "Worth a look (2)",
    ]
    assert [button.attributes["id"] for button in body.all("input")] == [
        *("all", "pending", "look")
    ]
    assert [row[1] for row in rows(body)] == ["d", "b", "c", "a"]
    assert all(f".{kind} {{" in STYLE for kind in KINDS.values())


def test_every_text_is_nothing_but_text() -> None:
    """A target's name may be anything."""
    text = to_board(
        HEADING, [target(NASTY, "behind", version=NASTY, pending=("x",), reason=NASTY)]
    )
    assert read(text).all("script") == []
    assert read(text).words.count(NASTY) == 3
    for tag in ("script", "link", "img", "iframe", "a", "form"):
        assert Page(text).root.all(tag) == []
