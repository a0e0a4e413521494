"""The page's table of statements is what PostgreSQL does, and says what was found."""

from __future__ import annotations

import json

from pathlib import Path

import pytest

from migration_gate.files.migration import parse_directives
from migration_gate.report.findings import FINDINGS
from tests.commands.test_status import answer
from tests.fix_gate import Gate
from tests.fix_postgres import Database
from tests.project.pages import read_code, read_table
from tests.rehearsal.cases import CASES
from tests.rehearsal.table import (
    DATA,
    FIRST,
    PAGE,
    read_report,
    render,
    to_key,
    write_files,
)


STATEMENTS_MIN = 60


@pytest.mark.server
@pytest.mark.timeout(90)
def test_each_statement_does_what_the_table_says(
    gate: Gate, database: Database, tmp_path: Path
) -> None:
    """On this server's version, or the nearest before it that was measured."""
    measured = json.loads(DATA.read_text("utf-8"))
    version = max(
        int(known)
        for known in measured
        if int(known) <= database.server.version // 10000
    )
    folder = tmp_path / "statements"
    folder.mkdir()
    for name, text in write_files(version).items():
        (folder / name).write_text(text, "utf-8")
    run = gate(
        *("rehearse", "--json", "--from", str(FIRST)),
        database=database,
        migrations=folder,
        timeout=80,
    )
    assert run.exit_code == 0, run.stderr
    seen = read_report(answer(run), version)
    expected = measured[str(version)]
    assert {key: seen[key] for key in seen if seen[key] != expected[key]} == {}
    assert seen.keys() == expected.keys()


def test_the_page_has_what_was_measured() -> None:
    """Each statement, on each version."""
    measured = json.loads(DATA.read_text("utf-8"))
    assert list(measured) == ["13", "15", "17", "18"]
    assert len({to_key(case) for case in CASES}) == len(CASES) >= STATEMENTS_MIN
    assert render(measured) in PAGE.read_text("utf-8")


def test_the_findings_are_those_of_the_code() -> None:
    """With their meaning and remedy; and each can be accepted."""
    rows = read_table("docs/rehearsal.md", "finding")
    assert [(read_code(row[0])[0], row[1], row[2]) for row in rows] == [
        (name, kind.means, kind.remedy) for name, kind in FINDINGS.items()
    ]
    for name in FINDINGS:
        comment = f"-- gate: accept {name} since it may be"
        directives, faults = parse_directives("1_a.sql", [(1, comment)])
        assert (directives.accept, faults) == (((name, "since it may be"),), ())


@pytest.mark.parametrize("comment", ["accept renmes for a reason", "accept renames"])
def test_what_accepts_nothing_is_an_error(comment: str) -> None:
    """A name that is none, and a reason that is not there."""
    _, faults = parse_directives("1_a.sql", [(1, f"-- gate: {comment}")])
    assert len(faults) == 1
