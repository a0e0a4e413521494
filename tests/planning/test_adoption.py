"""Rows of another tool and files here, side by side."""

from __future__ import annotations

import pytest

from migration_gate.files.migration import (
    ForeignRow,
    Migration,
    Replaced,
    version_to_key,
)
from migration_gate.files.names import classify
from migration_gate.files.tool_checksums import TOOL_CHECKSUMS
from migration_gate.planning.adoption import RULES, Adopted, map_rows
from migration_gate.report.errors import HistoryError
from migration_gate.settings.settings import ADOPTED_TOOLS


def file(version: str) -> Migration:
    """Return a migration of this name."""
    number = classify(version if version.endswith(".sql") else f"{version}.sql").number
    return Migration(
        version=version, number=number, key=version_to_key(version), checksum="sha256:x"
    )


def adopt(tool: str, names: str, *rows: ForeignRow) -> tuple[Adopted, ...]:
    """Map rows to the files of these names."""
    files = [file(name) for name in names.split()]
    return map_rows(tool, files, rows, checksum=None, changed="refuse")


def applied(*found: str) -> list[ForeignRow]:
    """Return rows of what is applied."""
    return [ForeignRow(version, "applied") for version in found]


def names(adopted: tuple[Adopted, ...]) -> list[str]:
    """Return what counts as applied; in brackets what only a newer row stands for."""
    return [
        f"({each.migration.version})" if each.is_inferred else each.migration.version
        for each in adopted
    ]


def test_each_tool_of_the_setting_has_rules() -> None:
    """And no other."""
    assert list(RULES) == list(ADOPTED_TOOLS)


def test_where_one_row_is_kept_it_stands_for_all_before_it() -> None:
    """By number, not by name."""
    found = adopt("golang-migrate", "2_b.sql 10_c.sql 1_a.sql", *applied("2"))
    assert names(found) == ["(1_a.sql)", "2_b.sql"]


def test_a_baseline_needs_no_file() -> None:
    """It stands for what is up to it; a row of its own says more."""
    rows = [ForeignRow("1.1", "baseline"), *applied("3")]
    found = adopt("flyway", "V1__a.sql V1.1__b.sql V2__c.sql V3__d.sql", *rows)
    assert names(found) == ["(V1__a.sql)", "V1.1__b.sql", "V3__d.sql"]


def test_what_stands_for_others_counts_with_the_last_of_them() -> None:
    """Those that are gone are explained by it, whichever of the two has run."""
    squash = file("B2__s.sql")._replace(replaces=Replaced((2,)))
    rows = applied("1", "2", "3")
    for found in (rows, [ForeignRow("2", "baseline"), *applied("3")]):
        adopted = map_rows(
            "flyway",
            [file("V2__b.sql"), squash, file("V3__c.sql")],
            found,
            checksum=None,
            changed="refuse",
        )
        assert set(names(adopted)) == {"(B2__s.sql)", "V2__b.sql", "V3__c.sql"}
    with pytest.raises(HistoryError, match='has applied "1", which no file'):
        map_rows("flyway", [squash], applied("1"), checksum=None, changed="refuse")


def test_the_last_row_of_a_version_holds() -> None:
    """1.0 is 1 to Flyway."""
    rows = [*applied("1", "2"), ForeignRow("1.0", "undone")]
    assert names(adopt("flyway", "V1__a.sql V2__b.sql", *rows)) == ["V2__b.sql"]


def test_versions_that_are_text_are_compared_as_text() -> None:
    """1 is not 001 to dbmate."""
    with pytest.raises(HistoryError, match='dbmate has applied "1", which no file'):
        adopt("dbmate", "001_a.sql", *applied("1"))


def test_all_doubts_are_told_at_once() -> None:
    """Each with its remedy."""
    rows = [*applied("1", "7"), ForeignRow("3", "failed")]
    with pytest.raises(HistoryError) as caught:
        adopt("goose", "1_a.sql 01_b.sql 3_c.sql", *rows)
    assert str(caught.value) == (
        'goose records "3" as failed or not finished; goose has applied "7", which no '
        'file here explains; "01_b.sql", "1_a.sql" are one version to goose, which has '
        "applied it"
    )
    assert caught.value.hint.startswith("Nothing was taken over. Look what of it")


@pytest.mark.parametrize(
    ("tool", "expected"),
    [
        ("flyway", "-1193849269"),
        ("prisma", "780cd65365cbfe31c11fdb4fc7bb925f12a9e467c577d65c840cd25d517e9d90"),
        (
            "sqlx",
            (
                "0fa4f612848e3efb6b0407d1aeb08db0b11583b56df403fb9a6c9995c9a0637934f0c90e5fc"
                "992c8ba8141a040a0062c"
            ),
        ),
    ],
)
def test_checksums_are_those_that_the_tool_has_written(
    tool: str, expected: str
) -> None:
    """Flyway's is of the lines alone."""
    found = {
        TOOL_CHECKSUMS[tool](f"create table {name}(id int);\n".encode())
        for name in "abc"
    }
    assert expected in found
    if tool == "flyway":
        text = b"\xef\xbb\xbfcreate table a(id int);\r\n"
        assert TOOL_CHECKSUMS[tool](text) == expected


@pytest.mark.parametrize("tool", ["golang-migrate", "flyway"])
def test_a_row_that_stands_for_all_before_it_stands_for_no_repeatable_one(
    tool: str,
) -> None:
    """They have no number: they come after every one, and run."""
    row = (
        ForeignRow("1", "baseline") if tool == "flyway" else ForeignRow("1", "applied")
    )
    name = "V1__a.sql" if tool == "flyway" else "1_a.sql"
    found = adopt(tool, f"{name} R__v.sql", row)
    assert [each.migration.version for each in found] == [name]
