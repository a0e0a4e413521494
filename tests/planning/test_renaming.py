"""What another tool knows by its number stays the same under another name."""

from __future__ import annotations

import pytest

from migration_gate.files.migration import AppliedMigration, Migration, version_to_key
from migration_gate.files.names import classify
from migration_gate.planning.plan import Plan, make_plan
from migration_gate.planning.renaming import note_begun


def plan(tool: str | None, files: str, rows: str) -> Plan:
    """Compare files and rows by their names."""
    migrations = [
        Migration(
            version=name,
            number=classify(f"{name.removesuffix('.sql')}.sql").number,
            key=version_to_key(name),
            checksum="sha256:2",
        )
        for name in files.split()
    ]
    history = [AppliedMigration(name, "sha256:1") for name in rows.split()]
    return make_plan(migrations, history, tool=tool)


@pytest.mark.parametrize(
    ("tool", "row", "file"),
    [
        ("goose", "0001_a.sql", "1_b.sql"),
        ("golang-migrate", "1_a.up.sql", "1_b.up.sql"),
        ("dbmate", "001_a.sql", "001-b.sql"),
        ("atlas", "20260101_a.sql", "20260101_b.sql"),
        ("diesel", "2026-01-01-000001_a", "2026-01-01-000001_b"),
        ("flyway", "V1_0__a.sql", "V1__b.sql"),
        (None, "V1_0__a.sql", "V1__b.sql"),
    ],
)
def test_a_row_is_of_the_file_with_the_same_key(
    tool: str | None, row: str, file: str
) -> None:
    """It counts as applied, and is compared like any other."""
    made = plan(tool, file, row)
    assert [m.version for m in made.applied] == [file]
    assert (made.pending, made.unknown, made.lookalikes) == ((), (), ())
    assert made.renamed == {row: file}
    assert made.changed == (file,)


@pytest.mark.parametrize(
    ("tool", "version", "file"),
    [
        ("goose", "0001_a.sql", "1_b.sql"),
        (None, "V1_0__a.sql", "V1__b.sql"),
        (None, "1_a.sql", "1_a.up.sql"),
        (None, "1_a", "1_a.sql"),
    ],
)
def test_progress_is_of_the_file_with_the_same_key(
    tool: str | None, version: str, file: str
) -> None:
    """It is gone on with, and recorded, under the version that it began with."""
    made = note_begun(plan(tool, f"{file} 2_x.sql", ""), [version, "3_y.sql"], tool)
    assert made.begun == {version: file}
    assert made.key_of(version) == version_to_key(file)
    assert [step.version for step in made.steps] == [
        version if m.version == file else m.version for m in made.pending
    ]


@pytest.mark.parametrize(
    ("tool", "rows", "files"),
    [
        (None, "1_a.sql", "1_b.sql"),
        ("dbmate", "1_a.sql", "001_b.sql"),
        ("prisma", "20260101_a", "20260101_b"),
        ("sql-migrate", "1_a.sql", "1_b.sql"),
        # whose it is cannot be told
        ("goose", "1_a.sql", "1_b.sql 1_c.sql"),
        ("goose", "1_a.sql 1_x.sql", "1_b.sql"),
        ("goose", "1_a.sql", "1_a.sql 1_b.sql"),
    ],
)
def test_no_other_file_takes_the_place_of_a_row(
    tool: str | None, rows: str, files: str
) -> None:
    """Where the name is the key, or two have the number."""
    made = plan(tool, files, rows)
    assert made.renamed == {}
    left = set(files.split()) - set(rows.split())
    assert {m.version for m in made.pending} == left


@pytest.mark.parametrize(
    ("files", "rows", "twins"),
    [
        ("1_a 2_b 3_d", "1_a 2_b 3_c", (("3_c", "3_d"),)),
        ("1_a 2_b 4_c", "1_a 2_b 3_c", (("3_c", "4_c"),)),
        ("1_a 2_b 4_d", "1_a 2_b 3_c", ()),  # neither number nor words
        ("1_b", "1_a", (("1_a", "1_b"),)),
        ("3_d", "1_x 2_y 3_c", ()),  # most of it is another application's
        ("1_a R__d", "1_a R__c", ()),
    ],
)
def test_a_file_with_the_text_of_one_that_is_gone_is_its_twin(
    files: str, rows: str, twins: tuple[tuple[str, str], ...]
) -> None:
    """All have one text here: the names tell whether it was renamed."""
    migrations = [
        Migration(name, classify(f"{name}.sql").number, version_to_key(name), "same")
        for name in files.split()
    ]
    history = [AppliedMigration(name, "same") for name in rows.split()]
    assert make_plan(migrations, history).twins == twins
