"""Which migrations are to be undone, and in which order."""

from __future__ import annotations

import pytest

from migration_gate.files.migration import AppliedMigration, Migration, version_to_key
from migration_gate.files.names import classify
from migration_gate.planning.undoing import Undoing, plan_undoing, still_to_undo
from migration_gate.report.errors import HistoryError, MigrationFilesError


def file(version: str) -> Migration:
    """Return a migration of that name."""
    return Migration(
        version=version,
        number=classify(version).number,
        key=version_to_key(version),
        checksum="",
    )


def row(version: str, second: int = 0) -> AppliedMigration:
    """Return a row, applied at that second."""
    return AppliedMigration(version, applied_at=f"2026-01-01T00:00:{second:02}Z")


FILES = [file("1_a.sql"), file("2_b.sql"), file("3_c.sql")]


def undone(
    history: list[AppliedMigration], to: str | None, half_undone: tuple[str, ...] = ()
) -> list[str]:
    """Return what is to be undone."""
    order = plan_undoing(FILES, history, half_undone, to=to)
    return [undoing.migration.version for undoing in order]


@pytest.mark.parametrize(
    ("history", "to", "expected"),
    [
        ([row("1_a.sql"), row("2_b.sql")], None, ["2_b.sql"]),
        ([row("1_a.sql"), row("2_b.sql")], "0", ["2_b.sql", "1_a.sql"]),
        ([row("1_a.sql"), row("2_b.sql")], "1", ["2_b.sql"]),
        ([row("1_a.sql"), row("2_b.sql")], "2_b", []),
        ([row("1_a.sql", 9), row("2_b.sql", 3)], None, ["1_a.sql"]),
        ([row("1_a.sql", 9), row("2_b.sql", 3)], "2", ["1_a.sql"]),
        ([row("1_a.sql"), AppliedMigration("2_b.sql")], None, ["2_b.sql"]),
        ([row("3_c"), row("3_c.sql"), row("1_a", 9)], "1", []),
        ([], None, []),
        ([], "0", []),
    ],
)
def test_the_last_that_was_applied_is_the_first_to_go(
    history: list[AppliedMigration], to: str | None, expected: list[str]
) -> None:
    """At one time, the order of the files counts."""
    assert undone(history, to) == expected


def test_all_rows_of_a_migration_go_with_it() -> None:
    """Another tool may have written it in another spelling."""
    rows = (row("3_c"), row("3_c.sql", 1))

    assert plan_undoing(FILES, rows, (), to=None) == (Undoing(FILES[2], rows),)


def test_what_is_half_undone_comes_first() -> None:
    """It is the newest, so nothing goes with it unless that is asked for."""
    history = [row("1_a.sql"), row("2_b.sql", 1)]

    assert undone(history, None, ("3_c",)) == ["3_c.sql"]
    assert undone(history, "1", ("3_c",)) == ["3_c.sql", "2_b.sql"]


def test_a_row_without_a_file_stops_it() -> None:
    """Below the one that stays it does not matter."""
    history = [row("0_x.sql"), row("1_a.sql", 1), row("4_d.sql", 2)]

    with pytest.raises(HistoryError, match='cannot undo "4_d'):
        undone(history, None)
    assert undone(history[:2], None) == ["1_a.sql"]


def test_repeatable_migrations_stay() -> None:
    """They are not versions of anything; the next start brings their text."""
    history = [row("1_a.sql"), row("R__v.sql", 1), row("R__gone.sql", 2)]

    assert undone(history, None) == ["1_a.sql"]


def test_what_is_not_applied_cannot_stay() -> None:
    """A slip of the pen must not undo everything."""
    with pytest.raises(MigrationFilesError, match="3: no migration that is applied"):
        undone([row("1_a.sql")], "3")


def test_what_was_applied_again_is_not_undone_again() -> None:
    """After a lost connection, the row's time tells that it is another one."""
    chosen = plan_undoing(FILES, [row("2_b.sql"), row("3_c.sql")], (), to="0")
    later = [row("2_b.sql"), row("3_c.sql", 9)]

    assert [u.migration.version for u in still_to_undo(chosen, later, ())] == [
        "2_b.sql"
    ]
    left = still_to_undo(chosen, later, ("3_c",))
    assert left[0] == Undoing(FILES[2], ())
