"""The page of status: what stands on it, how it is read, and what it never does."""

from __future__ import annotations

import re

from dataclasses import dataclass, field
from html.parser import HTMLParser

import pytest

from migration_gate.commands.answers import StatusLine
from migration_gate.commands.page import (
    KINDS,
    STYLE,
    Heading,
    describe_duration,
    to_html,
)
from tests.fix_gate import Gate
from tests.fix_postgres import Database


HEADING = Heading(
    database="shop",
    host="db",
    server_version="17.10",
    made_at="2026-11-29 12:00:00",
    outcome="2 applied, nothing pending",
)
VOID = {"meta", "input"}
NASTY = "<script>alert(1)</script>\"'&"


def line(version: str, state: str = "applied", **more: object) -> StatusLine:
    """Return a line of the answer."""
    known = {"applied_at": None, "duration_ms": None, **more}
    return StatusLine(version=version, state=state, **known)  # type: ignore[arg-type]


@dataclass
class Element:
    """An element, with what is in it."""

    tag: str
    attributes: dict[str, str | None]
    text: str = ""
    inside: list[Element] = field(default_factory=list)

    def all(self, tag: str) -> list[Element]:
        """Return the elements of a tag, at any depth, in order."""
        found = [self] if self.tag == tag else []
        return found + [each for child in self.inside for each in child.all(tag)]

    @property
    def words(self) -> str:
        """All that can be read in it."""
        said = [self.text, *(child.words for child in self.inside)]
        return " ".join(" ".join(said).split())


class Page(HTMLParser):
    """A page, read strictly: every element is closed, in its order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.root = Element("", {})
        self._open = [self.root]
        self.feed(text)
        self.close()
        assert self._open == [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin an element."""
        element = Element(tag, dict(attrs))
        self._open[-1].inside.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        """End it."""
        assert self._open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        """Read a text."""
        self._open[-1].text += data


def read(text: str) -> Element:
    """Return the body of a page."""
    (body,) = Page(text).root.all("body")
    return body


def rows(body: Element) -> list[list[str]]:
    """Return what stands in each line."""
    return [[cell.words for cell in row.inside] for row in body.all("li")]


def test_the_page_shows_files_and_history(gate: Gate, database: Database) -> None:
    """The same lines as the answer for people, and what closes the gate."""
    files = {"001_a.sql": "CREATE TABLE a ();", "002_b.sql": "CREATE TABLE b ();"}
    gate(database=database, migrations=files)
    gate(database=database, migrations={**files, "003_c.sql": "SELECT no_such;"})
    run = gate(
        "status", "--html", database=database, migrations={**files, "003_c.sql": ""}
    )
    assert run.exit_code == 1
    body = read(run.stdout)
    (heading,) = body.all("h1")
    assert heading.words == f"Migrations of {database.name} on 127.0.0.1"
    pending, *applied = rows(body)
    assert pending[1:3] == ["pending", "003_c.sql"]
    assert "column" in pending[-1]
    assert [row[1:3] for row in applied] == [
        ["applied", "002_b.sql"],
        ["applied", "001_a.sql"],
    ]
    assert all(re.fullmatch(r"\d\d:\d\d:\d\d", row[0]) for row in applied)
    assert 'not applied: "003_c.sql"' in body.all("header")[0].words


def test_an_open_gate_says_so(gate: Gate, database: Database) -> None:
    """And has an exit code that says it too."""
    files = {"001_a.sql": "CREATE TABLE a ();"}
    gate(database=database, migrations=files)
    run = gate("status", "--html", database=database, migrations=files)
    assert run.exit_code == 0
    assert "1 applied, nothing pending" in read(run.stdout).all("header")[0].words


def test_a_page_and_json_are_not_asked_for_together(gate: Gate) -> None:
    """One answer to one call."""
    run = gate("status", "--html", "--json")
    assert (run.exit_code, run.stdout) == (1, "")
    assert "[--json | --html]" in run.stderr


def test_it_needs_nothing_else() -> None:
    """No script, no request, no address; the browser is told so as well."""
    text = to_html(HEADING, [line("1_a.sql")])
    root = Page(text).root
    assert {meta.attributes.get("http-equiv"): meta for meta in root.all("meta")}[
        "Content-Security-Policy"
    ].attributes["content"] == "default-src 'none'; style-src 'unsafe-inline'"
    for tag in ("script", "link", "img", "iframe", "a", "form"):
        assert root.all(tag) == []
    assert not re.search(r"https?:|url\(|@import|\bon\w+=", text)


def test_every_text_is_nothing_but_text() -> None:
    """A name, a database, a message, wherever it stands."""
    heading = Heading(
        database=NASTY,
        host=NASTY,
        server_version=NASTY,
        made_at=NASTY,
        outcome=NASTY,
        closed=NASTY,
        hint=NASTY,
    )
    nasty = line(NASTY, applied_at=NASTY, failure=NASTY, failed_at=NASTY)
    body = read(to_html(heading, [nasty]))
    assert body.all("script") == []
    assert body.words.count(NASTY) >= 6


@pytest.mark.parametrize("state", KINDS)
def test_a_state_is_told_in_words_and_not_by_colour_alone(state: str) -> None:
    """Its colour is that of its kind."""
    (row,) = read(to_html(HEADING, [line("1_a.sql", state)])).all("li")
    (found,) = (cell for cell in row.inside if cell.words == state)
    assert found.attributes["class"] == KINDS[state]  # type: ignore[index]
    assert f".{found.attributes['class']} {{" in STYLE


def test_the_choice_is_made_without_a_script() -> None:
    """Each says how many lines it has, and is named in the style."""
    lines = [
        line("1_a.sql"),
        line("2_b.sql", "pending"),
        line("3_c.sql", "changed"),
        line("4_d.sql", "pending", failure="why"),
    ]
    body = read(to_html(HEADING, lines))
    assert [label.words for label in body.all("label")] == [
        "All (4)",
        "Pending (2)",
        "Worth a look (2)",
    ]
    names = [button.attributes["id"] for button in body.all("input")]
    assert names == ["all", "pending", "look"]
    assert all(f"body:has(#{name}:checked)" in STYLE for name in names[1:])


def test_days_are_the_newest_first() -> None:
    """What is not applied stands before them, in the order of the files."""
    lines = [
        line("1_a.sql", applied_at="2026-11-01T10:00:00Z"),
        line("2_b.sql", applied_at="2026-11-02T09:00:00Z"),
        line("3_c.sql", applied_at="2026-11-02T10:00:00Z"),
        line("4_d.sql", "pending"),
        line("5_e.sql", "pending"),
    ]
    body = read(to_html(HEADING, lines))
    assert [title.words for title in body.all("h2")] == [
        "Not applied",
        "2026-11-02",
        "2026-11-01",
    ]
    assert [row[2] for row in rows(body)] == [
        *("4_d.sql", "5_e.sql", "3_c.sql", "2_b.sql", "1_a.sql")
    ]


@pytest.mark.parametrize(
    ("duration_ms", "words"),
    [(0, "0 ms"), (999, "999 ms"), (1500, "1.5 s"), (61_000, "1 min 1 s")],
)
def test_a_duration_is_said_as_people_do(duration_ms: int, words: str) -> None:
    """To the millisecond, the tenth of a second, the second."""
    assert describe_duration(duration_ms) == words


def test_the_longest_has_the_longest_bar() -> None:
    """And one that took no time at all has one, too."""
    lines = [line(f"{ms}.sql", duration_ms=ms) for ms in (0, 100, 10_000)]
    bars = re.findall(r"width: (\d+)%", to_html(HEADING, lines))
    assert bars == ["1", "10", "100"]


def contrast(one: str, other: str) -> float:
    """Return the ratio of two colours as the accessibility guidelines have it."""

    def light(colour: str) -> float:
        full = "".join(sign * 2 for sign in colour) if len(colour) == 3 else colour
        parts = [int(full[at : at + 2], 16) / 255 for at in (0, 2, 4)]
        linear = [
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
            for part in parts
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((light(one), light(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_every_text_can_be_read(scheme: int) -> None:
    """At least 4.5 to 1 on its ground, in light and in dark."""
    colours = {
        name: re.findall(rf"--{name}: #([0-9a-f]+);", STYLE)[scheme]
        for name in ("back", "text", "quiet", "good", "wait", "odd", "bad")
    }
    for name, colour in colours.items():
        if name != "back":
            assert contrast(colour, colours["back"]) >= 4.5, name
