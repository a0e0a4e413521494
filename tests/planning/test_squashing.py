"""A file that stands for many others, beside databases that have all, some or none."""

from __future__ import annotations

import pytest

from hypothesis import assume, given
from hypothesis import strategies as st

from migration_gate.files.migration import (
    AppliedMigration,
    Migration,
    parse_replaced,
    version_to_key,
)
from migration_gate.files.names import classify
from migration_gate.planning.agreement import require_agreement
from migration_gate.planning.plan import Plan, find_shared_numbers, make_plan
from migration_gate.report.errors import HistoryError


def file(name: str) -> Migration:
    """Return a migration: "5_s<5" stands for all up to 5."""
    stem, _, replaces = name.partition("<")
    version = f"{stem}.sql"
    return Migration(
        version=version,
        number=classify(version).number,
        key=version_to_key(version),
        checksum="sha256:1",
        replaces=parse_replaced(replaces) if replaces else None,
    )


def plan(folder: str, history: str) -> Plan:
    """Compare files and rows by their names."""
    rows = [AppliedMigration(f"{name}.sql") for name in history.split()]
    return make_plan([file(name) for name in folder.split()], rows)


def names(migrations: tuple[Migration, ...]) -> str:
    """Return the names of migrations."""
    return " ".join(migration.key for migration in migrations)


@pytest.mark.parametrize(
    ("folder", "history", "pending", "replaced"),
    [
        # a new database
        ("1_a 2_b 2_s<2 3_c", "", "2_s 3_c", "1_a 2_b"),
        ("2_s<2 3_c", "", "2_s 3_c", ""),
        ("0_s<2 1_a 2_b 3_c", "", "0_s 3_c", "1_a 2_b"),
        ("2_s<2_b 3_c", "", "2_s 3_c", ""),
        # one that ran it
        ("1_a 2_b 2_s<2 3_c", "2_s", "3_c", "1_a 2_b"),
        # one that has all
        ("1_a 2_b 2_s<2 3_c", "1_a 2_b", "3_c", "2_s"),
        ("2_s<2 3_c", "1_a 2_b", "3_c", "2_s"),
        ("2_s<2_b 3_c", "1_a 2_b 3_c", "", "2_s"),
        # some, and the rest is here
        ("1_a 2_b 2_s<2 3_c", "1_a", "2_b 3_c", "2_s"),
        # one after the other
        ("2_s<2 3_c 4_d 4_t<4 5_e", "", "4_t 5_e", "2_s 3_c 4_d"),
        ("2_s<2 3_c 4_d 4_t<4 5_e", "1_a 2_b 3_c 4_d", "5_e", "2_s 4_t"),
        ("2_s<2 3_c 4_d 4_t<4 5_e", "2_s 3_c 4_d", "5_e", "4_t"),
        ("2_s<2 3_c 4_d 4_t<4 5_e", "2_s 3_c", "4_d 5_e", "4_t"),
        ("4_t<4 5_e", "2_s 3_c 4_d", "5_e", "4_t"),
        ("B2__s<2 V2__b V3__c", "", "B2__s V3__c", "V2__b"),
        # the last of what one replaces is another
        ("1_s<4 2_b 3_c 4_s<3", "1_a 2_b 3_c", "", "1_s 4_s"),
    ],
)
def test_it_or_what_it_replaces_is_run(
    folder: str, history: str, pending: str, replaced: str
) -> None:
    """Never both, and no row of what is gone is unknown."""
    made = plan(folder, history)
    assert (names(made.pending), names(made.replaced)) == (pending, replaced)
    assert (made.unknown, made.halves) == ((), ())


@pytest.mark.parametrize(
    ("folder", "history", "message"),
    [
        ("3_s<3 4_d", "1_a 2_b", 'ends at "2_b.sql", and lacks "3"'),
        ("3_s<3_c 4_d", "1_a", 'ends at "1_a.sql", and lacks "3_c"'),
        # what is between may be gone too
        ("3_c 3_s<3 4_d", "1_a", 'ends at "1_a.sql", and lacks "3_c.sql"'),
        ("1_a 3_s<3 4_d", "4_d", 'has none of it, and lacks "1_a.sql"'),
    ],
)
def test_a_database_that_has_a_part_closes_the_gate(
    folder: str, history: str, message: str
) -> None:
    """What is missing is named."""
    made = plan(folder, history)
    with pytest.raises(HistoryError, match="stands for more than") as caught:
        require_agreement(made, changed="warn", out_of_order="apply", ahead="allow")
    assert message in str(caught.value)
    assert "Start the newest image that still ships" in caught.value.hint


def test_the_number_of_the_last_one_is_no_shared_one() -> None:
    """It is what the file is called by best."""
    assert find_shared_numbers([file("2_b"), file("2_s<2")]) == ()


NUMBERS = st.integers(1, 6)


def is_misplaced(files: list[str]) -> bool:
    """Tell whether one comes after what it does not stand for, which no folder may."""
    ordered = sorted(map(file, files), key=lambda each: each.order)
    return any(
        not each.replaces.covers(before.number, before.key)
        for place, each in enumerate(ordered)
        if each.replaces is not None
        for before in ordered[:place]
    )


@given(
    st.sets(NUMBERS),
    st.lists(st.tuples(NUMBERS, NUMBERS), max_size=2, unique_by=lambda s: s[0]),
    st.sets(NUMBERS),
)
def test_what_was_run_is_not_run_again(
    folder: set[int], squashes: list[tuple[int, int]], history: set[int]
) -> None:
    """Nothing is pending after the plan was carried out, and nothing is half."""
    files = [f"{n}_x" for n in folder]
    files += [f"{at}_s<{to}" for at, to in squashes]
    assume(not is_misplaced(files))
    rows = [f"{n}_x" for n in history]
    made = plan(" ".join(files), " ".join(rows))
    assert sorted(names((*made.pending, *made.applied, *made.replaced)).split()) == (
        sorted(each.partition("<")[0] for each in files)
    )
    if made.halves:
        return
    done = [*rows, *names(made.pending).split()]
    again = plan(" ".join(files), " ".join(done))
    assert (again.pending, again.halves) == ((), ())
