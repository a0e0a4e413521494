"""Which migration a person means, by a name or a number."""

from __future__ import annotations

import pytest

from migration_gate.planning.naming import find_keys
from migration_gate.report.errors import MigrationFilesError


VERSIONS = (
    *("001_a.sql", "002_b.up.sql", "V1.2__c.sql", "2026-01-05-000001_d"),
    *("010_e.sql", "10_f.sql", "3"),
)


@pytest.mark.parametrize(
    ("word", "key"),
    [
        *(
            ("001_a.sql", "001_a"),
            ("001_a", "001_a"),
            ("1", "001_a"),
            ("0001", "001_a"),
        ),
        *(("002_b.up.sql", "002_b"), ("002_b.up", "002_b"), ("2", "002_b")),
        *(("1.2", "V1.2__c"), ("1_2", "V1.2__c"), ("1.2.0", "V1.2__c")),
        *(("2026-01-05-000001", "2026-01-05-000001_d"), ("10_f", "10_f"), ("3", "3")),
    ],
)
def test_a_name_or_its_number_means_one(word: str, key: str) -> None:
    """With or without ending; a number by its value."""
    assert find_keys([word], VERSIONS, missing="no file") == (key,)


def test_each_is_named_once() -> None:
    """In the order of the words."""
    words = ["2", "001_a", "002_b.up.sql"]
    assert find_keys(words, VERSIONS, missing="no file") == ("002_b", "001_a")


def test_spellings_of_one_migration_are_one() -> None:
    """As a history has them that two programs write."""
    assert find_keys(["1"], ["001_a", "001_a.sql"], missing="no row") == ("001_a",)


def test_every_word_that_means_none_or_several_is_told() -> None:
    """Part of a name, or a number that two have, is never guessed."""
    with pytest.raises(MigrationFilesError) as caught:
        find_keys(["10", "001", "001_", "_a", "99"], VERSIONS, missing="no file")
    assert str(caught.value) == (
        "10: several migrations have this number: 010_e.sql, 10_f.sql; "
        "001_, _a, 99: no file"
    )
