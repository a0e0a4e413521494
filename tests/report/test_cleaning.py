"""What of PostgreSQL's words may be logged."""

from __future__ import annotations

import pytest

from hypothesis import given
from hypothesis import strategies as st

from migration_gate.report.cleaning import (
    clean_context,
    clean_detail,
    clean_failure,
    clean_message,
)
from migration_gate.report.errors import SqlFailure


@pytest.mark.parametrize(
    ("sqlstate", "message", "expected"),
    [
        (
            "22P02",
            'invalid input syntax for type integer: "hunter2"',
            "invalid input syntax for type integer: …",
        ),
        (
            "22P02",
            'invalid input value for enum mood: "hun"ter"2"',
            "invalid input value for enum mood: …",
        ),
        (
            "22003",
            'value "99999999999" is out of range for type integer',
            "value … is out of range for type integer",
        ),
        (
            "22007",
            'invalid input syntax for type date: "two\nlines"',
            "invalid input syntax for type date: …",
        ),
        (
            "22P02",
            "неверный синтаксис для типа integer: «hunter2»",
            "неверный синтаксис для типа integer: …",
        ),
        (
            "22P02",
            "ungültige Eingabesyntax für Typ integer: „hunter2“",
            "ungültige Eingabesyntax für Typ integer: …",
        ),
        ("22012", "division by zero", "division by zero"),
        ("42601", 'syntax error at or near "hunter2"', "syntax error"),
        ("42601", 'syntax error at or near ""hunter2""', "syntax error"),
        (
            "42601",
            'unterminated quoted string at or near "\'hunter2;\nmore"',
            "unterminated quoted string",
        ),
        ("42601", "Syntaxfehler bei »hunter2«", "Syntaxfehler bei"),
        ("42601", "syntax error at end of input", "syntax error at end of input"),
        (
            "42601",
            'invalid connection string syntax: missing "=" after "hunter2" in',
            "invalid connection string syntax: missing",
        ),
        (
            "42P01",
            'relation "orders" does not exist',
            'relation "orders" does not exist',
        ),
        (
            "23505",
            'duplicate key value violates unique constraint "orders_pkey"',
            'duplicate key value violates unique constraint "orders_pkey"',
        ),
        (None, "the connection is lost", "the connection is lost"),
    ],
)
def test_a_message_loses_what_it_quotes_of_rows_and_files(
    sqlstate: str | None, message: str, expected: str
) -> None:
    """Class 22 quotes values, 42601 the text of the file; names stay."""
    assert clean_message(sqlstate, message) == expected


@pytest.mark.parametrize(
    "sqlstate",
    ["23502", "23503", "23505", "23514", "23P01", "44000", "22P02", "08001", "P0003"],
)
def test_a_detail_that_may_hold_a_row_is_dropped(sqlstate: str) -> None:
    """Constraints, values, views, connection strings, parameters of a query."""
    assert clean_detail(sqlstate, "Key (email)=(hunter2) already exists.") is None


def test_any_other_detail_stays() -> None:
    """It says which objects are in the way."""
    assert clean_detail("2BP01", "view v depends on t") == "view v depends on t"
    assert clean_detail("2BP01", None) is None
    assert clean_detail(None, "anything") is None


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        (None, None),
        ("SQL statement \"INSERT INTO t VALUES ('hunter2')\"", None),
        (
            (
                "SQL statement \"SELECT 'hunter2'\"\n"
                "PL/pgSQL function inline_code_block line 3 at EXECUTE"
            ),
            "PL/pgSQL function inline_code_block line 3",
        ),
        (
            (
                "PL/pgSQL function f(integer,text) line 7 at RAISE\n"
                'SQL function "g" statement 1\n'
                "PL/pgSQL function h() line 2 at PERFORM"
            ),
            "PL/pgSQL function f(integer,text) line 7; PL/pgSQL function h() line 2",
        ),
        ('COPY users, line 3, column age: "hunter2"', "COPY users, line 3"),
        ("JSON data, line 1: {hunter2...", None),
    ],
)
def test_a_context_keeps_functions_and_lines_only(
    context: str | None, expected: str | None
) -> None:
    """Never the SQL between them."""
    assert clean_context(context) == expected


FAILURE = SqlFailure(
    sqlstate="22P02",
    message='invalid input syntax for type json: "hunter2"',
    detail='Token "hunter2" is invalid.',
    hint="Look at the manual.",
    context="JSON data, line 1: hunter2",
    constraint=None,
    table=None,
    position=17,
)


def test_safe_and_full_differ() -> None:
    """GATE_LOG_DETAIL=full passes on everything."""
    assert clean_failure(FAILURE, full=False) == {
        "error_message": "invalid input syntax for type json: …",
        "error_detail": None,
        "error_hint": "Look at the manual.",
        "error_context": None,
    }
    assert clean_failure(FAILURE, full=True) == {
        "error_message": FAILURE.message,
        "error_detail": FAILURE.detail,
        "error_hint": FAILURE.hint,
        "error_context": FAILURE.context,
    }


def test_a_failure_is_not_shown_by_its_repr() -> None:
    """An exception that quotes one shows nothing of the file or a row."""
    assert "hunter2" not in repr(FAILURE)


@given(st.text(alphabet="abc \n\"'", max_size=30))
def test_no_quoted_value_survives(value: str) -> None:
    """Whatever a value holds, quotation marks and line ends included."""
    marked = f"<{value}>"
    for sqlstate, prefix in (
        ("22P02", "invalid input: "),
        ("42601", "bad at or near "),
    ):
        assert "<" not in clean_message(sqlstate, f'{prefix}"{marked}"')
        assert ">" not in clean_message(sqlstate, f'{prefix}"{marked}"')
