"""Values of variables are taken out of what PostgreSQL says, in every form of them."""

from __future__ import annotations

import pytest

from hypothesis import given
from hypothesis import strategies as st

from migration_gate.report.redaction import KNOWN_BY, Redactor


@pytest.mark.parametrize(
    ("value", "said", "shown"),
    [
        ("shop", 'schema "shop" does not exist', 'schema ":v" does not exist'),
        ("Shop", 'schema "shop" does not exist', 'schema ":v" does not exist'),
        ("it's", "near \"'it''s'\"", "near \"':v'\""),
        ("a\\b'c", "near \" E'a\\\\b''c'\"", "near \" E':v'\""),
        ("x", "extra text at x", "extra text at :v"),
        ("1", "line 11, column 1", "line 11, column :v"),
        ("long enough to cut", 'value "long enough to"...', 'value ":v"...'),
        ("long enough to cut", "a longer one", "a longer one"),
        ("two\nlines here", "lines here", ":v"),
        ("some words here", 'column "words" is', 'column ":v" is'),
        ("Größe", "die größe, DIE GRößE", "die :v, DIE :v"),
        (" ", "a b", "a b"),
    ],
)
def test_the_name_stands_in_the_place_of_the_value(
    value: str, said: str, shown: str
) -> None:
    """Whole words only, where the value is short."""
    assert Redactor({"v": value})(said) == shown


@pytest.mark.parametrize("value", ["3", "001_a"])
def test_the_place_of_an_error_stays(value: str) -> None:
    """It is no value, whatever it looks like: a number is one of many lines."""
    redact = Redactor({"v": value})
    said = '001_a.sql:3:3: near "{}", which began at line 3'
    assert redact(said.format(value), ["001_a.sql"]) == said.format(":v")


def test_the_longest_value_counts() -> None:
    """Where one begins as another does, or is in it."""
    redact = Redactor({"a": "postgres", "b": "postgres-secret-1", "c": "secret"})
    assert redact("postgres postgres-secret-1 secret") == ":a :b :c"


@given(
    value=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40),
    before=st.text(" .:\"'(", max_size=3),
    after=st.text(" .:\"')", max_size=3),
    cut=st.integers(KNOWN_BY, 60),
)
def test_neither_a_value_nor_its_beginning_is_left(
    value: str, before: str, after: str, cut: int
) -> None:
    """Wherever PostgreSQL puts it, and wherever it cuts it."""
    if not value.strip():
        return
    redact = Redactor({"v": value})
    for said in (value, value.replace("'", "''"), value[:cut]):
        shown = redact(f"{before}{said}{after}")
        assert value not in shown.replace(":v", "") or len(value) < KNOWN_BY
        assert len(value) < KNOWN_BY or value[:KNOWN_BY] not in shown.replace(":v", "")


def test_lists_and_what_is_no_text_pass_too() -> None:
    """As the fields of the log are."""
    redact = Redactor({"v": "secret"}).redact
    assert redact(["a secret", 1, None]) == ["a :v", 1, None]


def test_without_values_nothing_is_changed() -> None:
    """As in nearly every run."""
    assert Redactor({})("any text") == "any text"
