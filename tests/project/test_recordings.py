"""The recordings: small, complete in themselves, and what a run says today."""

from __future__ import annotations

import re
import sys

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from dev.record import (
    BROKEN,
    COLUMNS,
    FOLDER,
    IN_THE_WAY,
    OUT_OF_THE_WAY,
    PLAIN,
    UNIQUE,
    Screen,
    Span,
    at_terminal,
)
from tests.fix_gate import Gate, write_migrations
from tests.fix_postgres import Database
from tests.project.pages import ROOT, read


LARGEST_BYTES = 300_000
RECORDINGS = sorted(FOLDER.glob("*.svg"))
NAMESPACE = "{http://www.w3.org/2000/svg}"


def told(recording: Path) -> list[str]:
    """Return the lines that it ends with."""
    (description,) = ET.parse(recording).getroot().iter(f"{NAMESPACE}desc")  # noqa: S314  # our own
    return (description.text or "").splitlines()


def masked(lines: list[str]) -> list[str]:
    """Return lines without what differs from run to run."""
    return [re.sub(r"\d+(\.\d+)?", "N", line) for line in lines]


def wrapped(text: str) -> list[str]:
    """Return lines as a terminal shows them."""
    return [
        line[start : start + COLUMNS]
        for line in text.splitlines()
        for start in range(0, max(1, len(line)), COLUMNS)
    ]


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda path: path.name)
def test_a_recording_needs_nothing_else(recording: Path) -> None:
    """No script and no address; it stands still for who asked for that."""
    text = recording.read_text("utf-8")
    assert len(text.encode()) < LARGEST_BYTES
    elements = ET.parse(recording).iter()  # noqa: S314  # our own
    tags = {element.tag.removeprefix(NAMESPACE) for element in elements}
    assert tags == {"svg", "title", "desc", "style", "rect", "text", "tspan"}
    assert "prefers-reduced-motion" in text
    assert re.findall(r"https?://[^\"]+", text) == ["http://www.w3.org/2000/svg"]
    assert f"({recording.relative_to(ROOT)})" in read("README.md")


def test_a_broken_migration_reads_as_it_does_today(
    gate: Gate, database: Database, tmp_path: Path
) -> None:
    """Its two runs, line by line; only times and numbers may differ."""
    lines = told(FOLDER / "broken-migration.svg")
    files = {p.name: p.read_text() for p in (ROOT / "migrations").glob("*.sql")}
    folder = write_migrations(tmp_path / "files", files)
    gate(database=database, migrations=folder)
    runs = []
    for content in (BROKEN, BROKEN.replace("nots", "note")):
        (folder / "005_order_notes.sql").write_text(content)
        env = {"GATE_LOG_FORMAT": "console"}
        run = gate(env=env, database=database, migrations=folder)
        name = f"database {database.name} on"
        runs.append(wrapped(run.stdout.replace(name, "database shop on")))
    reads_like(lines, runs)


def test_a_fleet_reads_as_it_does_today(
    gate: Gate, database: Database, tmp_path: Path
) -> None:
    """One tenant has a row that is in the way, and then has not."""
    files = {p.name: p.read_text() for p in (ROOT / "migrations").glob("*.sql")}
    folder = write_migrations(tmp_path / "files", files)
    for number in range(1, 7):
        database.execute(f"CREATE SCHEMA tenant_{number}")
    query = "SELECT nspname FROM pg_namespace WHERE nspname ~ '^tenant_' ORDER BY 1"
    env = {
        **database.environ(),
        "GATE_TARGETS": f"schemas:{query}",
        "GATE_MIGRATIONS": str(folder),
    }
    gate(env=env)
    (folder / "005_one_name.sql").write_text(UNIQUE)
    runs = []
    for text in (IN_THE_WAY, OUT_OF_THE_WAY):
        database.execute(text)
        name = f"database {database.name} on"
        shown = "\n".join(seen_at_terminal(tmp_path, env))
        runs.append(shown.replace(name, "database shops on").splitlines())
    reads_like(told(FOLDER / "fleet.svg"), runs)


def seen_at_terminal(folder: Path, environ: dict[str, str]) -> list[str]:
    """Return what is left on the screen when a gate has ended: a fleet says less."""
    screen = Screen()
    command = [sys.executable, str(ROOT / "entrypoint.py"), "migrate"]
    for text, _ in at_terminal(command, folder, environ):
        screen.write(text, 0.0)
    left = [line for line in screen.shown if line.until_s is None]
    return [
        "".join(span.text for span in line.spans)
        for line in sorted(left, key=lambda line: line.row)
    ]


def reads_like(lines: list[str], runs: list[list[str]]) -> None:
    """Compare a recording with a run that fails, and one that does not any more."""
    ends = [at for at, line in enumerate(lines) if line.startswith("exit code")]
    recorded = [
        lines[end - len(run) : end] for end, run in zip(ends, runs, strict=True)
    ]
    assert [masked(run) for run in recorded] == [masked(run) for run in runs]
    assert [lines[end] for end in ends] == ["exit code 1", "exit code 0"]


def test_a_line_that_is_written_over_is_shown_until_then() -> None:
    """And one that is too long goes on below."""
    screen = Screen()
    screen.write("\x1b[K50 %\r", 1.0)
    screen.write("\x1b[K\x1b[31mdone\x1b[0m\r\n", 2.0)
    screen.write("x" * (COLUMNS + 1) + "\r\n", 3.0)
    seen = [(line.row, line.spans, line.since_s, line.until_s) for line in screen.shown]
    assert seen == [
        (0, (Span("50 %", PLAIN),), 1.0, 2.0),
        (0, (Span("done", "#ff7b72"),), 2.0, None),
        (1, (Span("x" * COLUMNS, PLAIN),), 3.0, None),
        (2, (Span("x", PLAIN),), 3.0, None),
    ]
