"""The verdict: exit code, fields, and a last line that is shown whole."""

from __future__ import annotations

import json

from typing import Any

import pytest

from hypothesis import given
from hypothesis import strategies as st

from migration_gate.report.errors import (
    FileFault,
    GateError,
    HistoryError,
    MigrationFailedError,
    MigrationFilesError,
    SqlError,
)
from migration_gate.report.events import GATE_CLOSED
from migration_gate.report.verdict import Tally, Verdict, closed, opened, shorten


LINE_MAX_BYTES = 2048


def size(record: dict[str, Any]) -> int:
    """Return the length of a record's line."""
    line = json.dumps(record, ensure_ascii=False) + "\n"
    return len(line.encode(errors="backslashreplace"))


def tallied(**fields: Any) -> Tally:  # noqa: ANN401  # of any type
    """Return what a run has done."""
    tally = Tally()
    for name, value in fields.items():
        setattr(tally, name, value)
    return tally


def test_an_open_gate_exits_0() -> None:
    """Its fields are the summary."""
    tally = tallied(applied=["1_a.sql"], waited_s=0.12345, lock_waited_s=1.0)
    verdict = opened(tally, duration_ms=7)
    assert verdict == Verdict(
        is_open=True,
        message="1 applied in 7 ms",
        fields={
            "applied": ["1_a.sql"],
            "applied_count": 1,
            "waited_s": 0.123,
            "lock_waited_s": 1.0,
            "duration_ms": 7,
            "exit_code": 0,
            "warnings": [],
        },
    )
    assert verdict.exit_code == 0


def test_an_open_gate_names_its_warnings() -> None:
    """Whoever reads nothing but the last line learns that there is more to read."""
    verdict = opened(tallied(warnings=["history.unknown_versions"]), duration_ms=7)
    assert (
        verdict.message == "0 applied in 7 ms, with warnings: history.unknown_versions"
    )
    assert verdict.fields["warnings"] == ["history.unknown_versions"]


def test_an_open_gate_has_the_outcome_of_its_command() -> None:
    """What a command found that is not there to apply anything."""
    verdict = opened(tallied(outcome="2 pending, nothing was applied"), duration_ms=7)
    assert verdict.message == "2 pending, nothing was applied"


def test_a_closed_gate_exits_1() -> None:
    """Its fields are those that are known."""
    error = HistoryError("no", hint="Do.")
    verdict = closed(error, Tally(), duration_ms=7)
    assert verdict == Verdict(
        is_open=False,
        message="no",
        fields={
            "reason": "history",
            "error_message": "no",
            "hint": "Do.",
            "applied": [],
            "applied_count": 0,
            "waited_s": 0.0,
            "lock_waited_s": 0.0,
            "duration_ms": 7,
            "exit_code": 1,
        },
    )
    assert verdict.exit_code == 1


def test_a_failed_migration_has_its_place() -> None:
    """What PostgreSQL gave, and nothing that it did not."""
    said = SqlError(
        version="2_b.sql",
        file="2_b.sql",
        sqlstate="42P01",
        error_message='relation "t" does not exist',
        line=3,
        column=5,
    )
    verdict = closed(
        MigrationFailedError(said, hint="Fix."),
        tallied(applied=["1_a.sql"]),
        duration_ms=1,
    )
    assert verdict.message == (
        '2_b.sql:3:5: relation "t" does not exist (SQLSTATE 42P01)'
    )
    assert verdict.fields == {
        "reason": "migration_failed",
        "error_message": 'relation "t" does not exist',
        "hint": "Fix.",
        "version": "2_b.sql",
        "file": "2_b.sql",
        "sqlstate": "42P01",
        "line": 3,
        "column": 5,
        "applied": ["1_a.sql"],
        "applied_count": 1,
        "waited_s": 0.0,
        "lock_waited_s": 0.0,
        "duration_ms": 1,
        "exit_code": 1,
    }


def test_a_verdict_has_no_field_that_the_log_would_drop() -> None:
    """Every field of every error is one of gate.closed's."""
    errors: list[GateError] = [
        GateError("x", hint="y"),
        MigrationFilesError([FileFault(file="f", problem="p", line=1, column=2)]),
        MigrationFailedError(
            SqlError(version="v", file="f", sqlstate="00000", error_message="m"),
            hint="h",
        ),
    ]
    for error in errors:
        fields = closed(error, Tally(), duration_ms=1).fields
        assert set(fields) <= set(GATE_CLOSED.fields)


def test_a_short_record_is_left_as_it_is() -> None:
    """Ten names and 600 characters."""
    record = {"applied": ["x"] * 10, "hint": "y" * 600, "line": 3, "column": None}
    assert shorten(record) == record


def test_long_lists_are_cut_and_counted() -> None:
    """The first names, and how many more."""
    names = [f"{number:04}_x.sql" for number in range(3000)]
    assert shorten({"applied": names, "applied_count": 3000}) == {
        "applied": [*names[:10], "… 2990 more"],
        "applied_count": 3000,
    }


WORST = {
    **dict.fromkeys(GATE_CLOSED.fields, "🦥" * 5000),
    "message": "\udcff" * 5000,
    "error_message": '\\"\x01' * 5000,
    "pod_name": "p" * 253,
    "pod_namespace": "n" * 63,
    "node_name": "h" * 253,
    "timestamp": "2026-11-23T09:00:00.000Z",
    "applied": ["\U0001f9a5" * 255] * 3000,
}


@pytest.mark.parametrize("record", [WORST], ids=["worst"])
def test_the_worst_record_fits(record: dict[str, Any]) -> None:
    """Every text as long and as wide as it can be."""
    assert size(shorten(record)) < LINE_MAX_BYTES


@given(
    st.dictionaries(
        st.sampled_from(["message", "pod_name", *GATE_CLOSED.fields]),
        st.one_of(
            st.integers(0, 10**9),
            st.none(),
            st.text(max_size=300).map(lambda text: text * 30),
            st.lists(st.text(max_size=255), max_size=20).map(lambda names: names * 50),
        ),
    )
)
def test_any_record_fits_and_keeps_its_fields(record: dict[str, Any]) -> None:
    """Fields are cut, never dropped; numbers stay."""
    short = shorten(record)
    assert size(short) < LINE_MAX_BYTES
    assert list(short) == list(record)
    for name, field in record.items():
        if not isinstance(field, str | list):
            assert short[name] == field


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("plain", "plain"),
        ("\x1b[31mred\x07", "\ufffd[31mred\ufffd"),
        ("« été »\n\tun", "« été »\n\tun"),
        ("\u202egnirts", "\ufffdgnirts"),
        ("file\udcff.sql", "file\udcff.sql"),
        ("日本語　", "日本語　"),
    ],
)
def test_nothing_that_cannot_be_read_reaches_a_line(said: str, told: str) -> None:
    """Whatever a library says; lists too."""
    assert shorten({"text": said, "list": [said]}) == {"text": told, "list": [told]}
