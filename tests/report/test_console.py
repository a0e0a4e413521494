"""What a person reads under GATE_LOG_FORMAT=console."""

from __future__ import annotations

from typing import Any

import pytest

from migration_gate.report.console import describe_line
from migration_gate.report.tables import table


def line(event: str = "x.y", level: str = "info", **fields: object) -> dict[str, Any]:
    """Return a line of the log."""
    head = {"timestamp": "2026-11-23T10:01:22.287Z", "level": level, "event": event}
    return {**head, "message": "Said", **fields}


FAILED = line(
    level="error",
    message="Gate closed: 1_x.sql:2:1: cannot drop table t (SQLSTATE 2BP01)",
    hint="Correct it.",
    error_detail="view v depends on table t\nview w depends on table t",
    error_hint="Use CASCADE.",
    error_context="PL/pgSQL function f() line 3",
    applied=[],
    exit_code=1,
)


def test_a_line_is_time_level_and_sentence() -> None:
    """The fields are for machines."""
    assert describe_line(line(checksum="sha256:0", attempt=1), columns=None) == (
        "10:01:22.287 info    Said"
    )


def test_why_a_gate_is_closed_stands_below() -> None:
    """PostgreSQL's detail and hint first, then what the gate advises."""
    assert describe_line(FAILED, columns=None) == (
        "10:01:22.287 error   "
        "Gate closed: 1_x.sql:2:1: cannot drop table t (SQLSTATE 2BP01)\n"
        "             detail  view v depends on table t\n"
        "                     view w depends on table t\n"
        "             context PL/pgSQL function f() line 3\n"
        "             hint    Use CASCADE.\n"
        "             hint    Correct it."
    )


def test_who_is_in_the_way_stands_below() -> None:
    """A line for each session."""
    blocked = line(level="warning", blockers=["process 7 of app", "process 8"])
    assert describe_line(blocked, columns=None) == (
        "10:01:22.287 warning Said\n"
        "             blocker process 7 of app\n"
        "             blocker process 8"
    )


def test_progress_is_one_line_that_the_next_overwrites() -> None:
    """
    On a terminal, cut to its width, its level told by a colour alone.

    Elsewhere each report is a line of its own.
    """
    progress = line(
        "migration.progress",
        phase="building index",
        percent=12.5,
        blockers=["proc 7\nof app"],
    )
    whole = "10:01:22.287 Said, phase building index, percent 12.5, blocker proc 7"
    assert describe_line(progress, columns=len(whole) + 1) == f"\033[K{whole}\r"
    odd = describe_line(progress | {"level": "warning"}, columns=len(whole) + 1)
    assert odd == f"\033[K\033[33m{whole}\033[0m\r"
    assert describe_line(progress, columns=30) == f"\033[K{whole[:29]}\r"
    assert describe_line(progress | {"phase": None}, columns=None) == (
        "10:01:22.287 info    Said\n"
        "             percent 12.5\n"
        "             blocker proc 7\n"
        "                     of app"
    )


@pytest.mark.parametrize(
    ("level", "color"), [("warning", "\033[33m"), ("error", "\033[31m")]
)
def test_what_is_odd_has_a_colour_on_a_terminal(level: str, color: str) -> None:
    """All of its lines; what a progress line left is erased before."""
    odd = line(level=level, hint="Do.")
    plain = describe_line(odd, columns=None)
    assert describe_line(odd, columns=80) == f"\033[K{color}{plain}\033[0m"
    calm = line()
    assert describe_line(calm, columns=80) == "\033[K" + describe_line(
        calm, columns=None
    )


def test_a_cell_of_a_table_cannot_steer_the_terminal() -> None:
    """A version is what somebody has written into the history."""
    rows = [("STATE", "MIGRATION"), ("unknown", "a\033[2J\napplied  b")]
    assert table(rows) == "STATE    MIGRATION\nunknown  a�[2J�applied  b"


def test_a_text_cannot_steer_the_terminal() -> None:
    """A notice is the file's: escapes and returns are shown as what they are not."""
    notice = line(message="NOTICE: a\033[2J\rb\x07\r\nc\n\x9bd\u2028e")
    assert describe_line(notice, columns=None) == (
        "10:01:22.287 info    NOTICE: a�[2J�b�\n"
        "                     c\n"
        "                     �d\n"
        "                     e"
    )
