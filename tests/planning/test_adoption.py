"""Rows of another tool and files here, side by side."""

from __future__ import annotations

import hashlib

from pathlib import Path

import pytest

from bench.work import write_graphile_migrate
from migration_gate.files.migration import (
    ForeignRow,
    Migration,
    Replaced,
    version_to_key,
)
from migration_gate.files.names import classify
from migration_gate.files.tool_checksums import TOOL_CHECKSUMS, running_checksums
from migration_gate.planning.adoption import RULES, Adopted, Known, map_rows
from migration_gate.planning.changesets import to_file_rows
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
    return map_rows(tool, files, rows, known=Known(), changed="refuse")


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


def test_several_rows_stand_for_themselves_alone() -> None:
    """As Hasura writes them; what none of them names may have run, or may not."""
    files = "1_a.sql 2_b.sql 3_c.sql 4_d.sql"
    assert names(adopt("golang-migrate", files, *applied("1", "2"))) == [
        *("1_a.sql", "2_b.sql")
    ]
    with pytest.raises(HistoryError, match=r'none of "1_a\.sql", "3_c\.sql", below'):
        adopt("golang-migrate", files, *applied("4", "2"))


@pytest.mark.parametrize(
    ("tool", "remedy"),
    [
        ("golang-migrate", "say migrate force VERSION with the last one that is there"),
        ("flyway", "Look what of it is there, undo it, say flyway repair, and start"),
        ("prisma", "or undo it and say prisma migrate resolve --rolled-back NAME"),
        ("sqlx", "or undo it and delete the row, and start the gate again."),
        ("goose", "Look what of it is there, finish or undo it, and start the gate"),
    ],
)
def test_what_failed_is_mended_as_the_tool_does(tool: str, remedy: str) -> None:
    """Flyway's repair forgets the row: what was finished would run once more."""
    with pytest.raises(HistoryError) as caught:
        adopt(tool, "", ForeignRow("3", "failed"))
    assert remedy in caught.value.hint


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
            known=Known(),
            changed="refuse",
        )
        assert set(names(adopted)) == {"(B2__s.sql)", "V2__b.sql", "V3__c.sql"}
    with pytest.raises(HistoryError, match='has applied "1", which no file'):
        map_rows("flyway", [squash], applied("1"), known=Known(), changed="refuse")


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
    ("tool", "version", "expected"),
    [
        ("flyway", "V1__a.sql", "-1193849269"),
        (
            "prisma",
            "20260101000001_a",
            "780cd65365cbfe31c11fdb4fc7bb925f12a9e467c577d65c840cd25d517e9d90",
        ),
        (
            "sqlx",
            "20260101000001_a.sql",
            (
                "0fa4f612848e3efb6b0407d1aeb08db0b11583b56df403fb9a6c9995c9a0637934f0c90e5fc"
                "992c8ba8141a040a0062c"
            ),
        ),
        ("refinery", "V1__a.sql", "5959330983540576460"),
        ("refinery", "V2__b.sql", "11456385696052992085"),
    ],
)
def test_checksums_are_those_that_the_tool_has_written(
    tool: str, version: str, expected: str
) -> None:
    """Flyway's is of the lines alone."""
    compute = TOOL_CHECKSUMS[tool]
    assert any(
        expected in compute(version, f"create table {name}(id int);\n".encode())
        for name in "abc"
    )
    if tool == "flyway":
        text = b"\xef\xbb\xbfcreate table a(id int);\r\n"
        assert compute(version, text) == (expected,)


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


def test_prismas_checksum_is_that_of_any_line_end() -> None:
    """And of a time when a zero before a digit was left out."""
    compute = TOOL_CHECKSUMS["prisma"]
    for text in (b"SELECT 1;\nSELECT 2;\n", b"SELECT 1;\r\nSELECT 2;\r\n"):
        digest = hashlib.sha256(text).digest()
        for other in (text.replace(b"\r", b""), text):
            assert digest.hex() in compute("1_a", other)
            assert "".join(f"{byte:x}" for byte in digest) in compute("1_a", other)


def test_graphile_migrates_checksums_are_a_chain(tmp_path: Path) -> None:
    """Each is of the one before; the tool itself accepts these files."""
    write_graphile_migrate(tmp_path, ["SELECT 1;", "SELECT 2;\n"])
    for path in sorted((tmp_path / "migrations" / "committed").iterdir()):
        said = path.read_text("utf-8").splitlines()[1].removeprefix("--! Hash: ")
        compute = TOOL_CHECKSUMS["graphile-migrate"]
        assert compute(path.name, path.read_bytes()) == (said,)
        assert compute(path.name, path.read_bytes() + b"--") != (said,)
        assert compute(path.name, b"SELECT 1;") == ()


def test_atlas_checksums_are_of_all_files_so_far() -> None:
    """As Atlas has written them; a file that it is to pass over has none."""
    files = [
        (f"2026010100000{n}_{name}.sql", f"create table {name}(id int);\n".encode())
        for n, name in ((1, "a"), (2, "b"))
    ]
    assert list(running_checksums(files).values()) == [
        "3fvt3nSZrK/P0aog5yzmekOrIAveBF4k6CYOLvIyCTU=",
        "R91BFx/PAkDUtQk5P1rcYaOBJfhhj2Lb59fyvKVVFnU=",
    ]
    ignored = ("3_c.sql", b"-- atlas:sum ignore\n\nSELECT 1;")
    assert list(running_checksums([ignored])) == []


def test_the_first_change_is_told_where_all_after_it_differ() -> None:
    """Atlas' checksums depend on each other."""
    rows = [ForeignRow(n, "applied", checksum="x") for n in ("1", "2")]
    files = [file("1_a.sql"), file("2_b.sql")]
    known = Known(checksums=lambda _: ["y"])
    with pytest.raises(HistoryError) as caught:
        map_rows("atlas", files, rows, known=known, changed="refuse")
    assert str(caught.value).startswith('"1_a.sql" differs from what atlas')


def change_sets(*found: str) -> list[ForeignRow]:
    """Return Liquibase's rows of change sets."""
    return [ForeignRow(each, "applied") for each in found]


def test_a_file_has_all_of_its_change_sets() -> None:
    """Some of them are none, and what no file explains is told."""
    one, two = file("1_a.sql"), file("2_b.sql")
    plain = file("3_c.sql")._replace(path="more/3_c.sql")
    files = {one: ["1::al", "2::al"], two: ["1::al", "2::bo"], plain: []}
    rows = change_sets(
        "classpath:db/changelog/1_a.sql::1::al",
        "db\\changelog\\1_a.sql::2::al",
        "2_b.sql::2::bo",
        "/more/3_c.sql::raw::includeAll",
        "master.xml::9::al",
    )
    assert [(row.version, row.state) for row in to_file_rows(files, rows)] == [
        ("master.xml::9::al", "applied"),
        ("1_a.sql", "applied"),
        ("2_b.sql (1 of 2 change sets)", "failed"),
        ("3_c.sql", "applied"),
    ]
