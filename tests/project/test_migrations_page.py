"""What the page of migrations says of names and directives is what the code does."""

from __future__ import annotations

import re

from migration_gate.commands.new import TEMPLATE
from migration_gate.files.migration import KNOWN, parse_directives
from migration_gate.files.names import classify
from tests.project.pages import (
    read_blocks,
    read_code,
    read_table,
)


PAGE = "docs/migrations.md"


def test_the_kinds_of_names_are_as_described() -> None:
    """What the table calls a migration is one, and what undoes it is none."""
    for row in read_table(PAGE, "name"):
        parsed = classify(read_code(row[0])[0])
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
