"""The `-- gate:` comments before a file's first statement."""

from __future__ import annotations

import pytest

from migration_gate.files.migration import KNOWN, Directives, parse_directives
from migration_gate.report.errors import FileFault


ALMOST = (
    "-- gate : after-deploy",
    "--- gate: after-deploy",
    "-- @gate: after-deploy",
    "-- migration-gate: no-transaction",
    "-- gate after-deploy",
    "-- gate = lock-timeout=3s",
)
REMEDY = f"The directives are: {KNOWN}."


def fault(line: int, problem: str) -> FileFault:
    """Return the fault of the file `x.sql` in that line."""
    return FileFault(file="x.sql", line=line, problem=problem, remedy=REMEDY)


@pytest.mark.parametrize(
    ("comment", "expected"),
    [
        ("-- gate: no-transaction", Directives(transaction="outside")),
        ("-- gate: transaction", Directives(transaction="inside")),
        ("--gate:no-transaction", Directives(transaction="outside")),
        ("--   GATE:   no-transaction  ", Directives(transaction="outside")),
        ("-- gate: lock-timeout=10s", Directives(lock_timeout_s=10)),
        ("-- gate: lock-timeout = 500ms", Directives(lock_timeout_s=0.5)),
        ("-- gate: statement-timeout=0", Directives(statement_timeout_s=0)),
        ("-- gate: statement-timeout=1h", Directives(statement_timeout_s=3600)),
        ("-- gate: statement-timeout=1.5m", Directives(statement_timeout_s=90)),
        ("-- gate: statement-timeout=30", Directives(statement_timeout_s=30)),
    ],
)
def test_a_directive_is_read(comment: str, expected: Directives) -> None:
    """Each directive, in every form that it may be written in."""
    assert parse_directives("x.sql", [(1, comment)]) == (expected, ())


def test_directives_add_up() -> None:
    """Several directives, and comments that are none."""
    comments = [
        (1, "-- Adds an index."),
        (2, "-- gate: no-transaction"),
        (3, "-- the gate: a door"),
        (3, "-- gate transaction log"),
        (4, "-- gate: lock-timeout=3s"),
    ]
    assert parse_directives("x.sql", comments) == (
        Directives(transaction="outside", lock_timeout_s=3),
        (),
    )


def test_every_malformed_directive_is_reported_with_its_line() -> None:
    """An unknown, a misspelt, a repeated and a contradicting one, all at once."""
    comments = [
        (1, "-- gate: no-transactions"),
        (2, "-- gate:"),
        (4, "-- gate: lock-timeout"),
        (5, "-- gate: lock-timeout=soon"),
        (6, "-- gate: statement-timeout=1s"),
        (7, "-- gate: statement-timeout=2s"),
        (8, "-- gate: transaction"),
        (9, "-- gate: no-transaction"),
        (10, "-- gate: no-transaction; lock-timeout=1s"),
        (11, "-- gate: lock-timeout=0s"),
        (12, "-- gate: lock-timeout=600h"),
        (13, "-- gate: statement-timeout="),
        *((14, each) for each in ALMOST),
    ]
    assert parse_directives("x.sql", comments) == (
        Directives(transaction="inside", statement_timeout_s=1),
        (
            fault(1, "unknown directive"),
            fault(2, "unknown directive"),
            fault(4, 'directive "lock-timeout" has no "=" and no duration'),
            fault(5, 'value of directive "lock-timeout" is not a duration'),
            fault(7, "directive is given twice"),
            fault(9, "directive is given twice"),
            fault(10, "unknown directive"),
            fault(11, 'value of directive "lock-timeout" is 0'),
            fault(12, 'value of directive "lock-timeout" is longer than 24 days'),
            fault(13, 'value of directive "statement-timeout" is not a duration'),
            *(
                fault(14, 'directive that does not begin with "-- gate:"')
                for _ in ALMOST
            ),
        ),
    )
