"""Which text of a repeatable migration is newer: decided by the history alone."""

from __future__ import annotations

import itertools

from collections.abc import Sequence

import pytest

from hypothesis import given
from hypothesis import strategies as st

from migration_gate.files.migration import AppliedMigration, Migration, version_to_key
from migration_gate.files.names import classify
from migration_gate.planning.plan import make_plan


History = tuple[AppliedMigration, ...]
NAME = "R__v.sql"


def file(version: str, text: str = "") -> Migration:
    """Return a migration on disk."""
    return Migration(
        version=version,
        number=classify(version).number,
        key=version_to_key(version),
        checksum=f"sha256:{text or version:0<64}",
    )


def image(numbered: int, text: str) -> list[Migration]:
    """Return the files of an image: so many numbered ones, and a repeatable text."""
    return [*(file(f"{n}_x.sql") for n in range(1, numbered + 1)), file(NAME, text)]


def start(files: Sequence[Migration], history: History) -> tuple[History, list[str]]:
    """Return the history after a start of an image, and what the start applied."""
    plan = make_plan(files, history)
    rows = {row.version: row for row in history}
    for migration in plan.pending:
        replaced = plan.find_replacement(migration)
        rows[migration.version] = AppliedMigration(
            version=migration.version,
            checksum=migration.checksum,
            superseded="" if replaced is None else replaced.superseded,
        )
    return tuple(rows.values()), [migration.version for migration in plan.pending]


# Numbered files and text of each image that starts, and the text that holds after it.
TABLE = {
    "a text that is new is applied": [(1, "a", "a"), (1, "b", "b")],
    "an older one does not come back": [(1, "a", "a"), (1, "b", "b"), (1, "a", "b")],
    "nor does any of those before it": [
        *((1, "a", "a"), (1, "b", "b"), (1, "c", "c")),
        *((1, "a", "c"), (1, "b", "c"), (1, "c", "c")),
    ],
    "it comes back with a new number": [
        *((1, "a", "a"), (1, "b", "b"), (2, "a", "a")),
        *((1, "b", "a"), (2, "b", "a"), (1, "a", "a")),
    ],
    "an image that lacks numbers changes nothing": [(2, "b", "b"), (1, "a", "b")],
    "and with them back and forth": [
        *((1, "a", "a"), (2, "b", "b"), (1, "a", "b"), (1, "c", "b")),
        *((2, "a", "b"), (3, "a", "a"), (3, "b", "a"), (2, "b", "a")),
    ],
}


@pytest.mark.parametrize("case", TABLE)
def test_the_table_of_texts(case: str) -> None:
    """Row by row: who starts, and what holds then."""
    history: History = ()
    seen = []
    for numbered, text, _ in TABLE[case]:
        history, _ = start(image(numbered, text), history)
        (row,) = (row for row in history if row.version == NAME)
        seen.append((numbered, text, (row.checksum or "")[7]))
    assert seen == TABLE[case]


IMAGES = st.tuples(st.integers(1, 3), st.sampled_from("abc"))


@given(st.lists(IMAGES, max_size=40))
def test_a_text_is_applied_once_for_each_count_of_numbered_files(
    starts: list[tuple[int, str]],
) -> None:
    """So no images flip a view, in whatever order and however often they start."""
    history: History = ()
    applications = []
    for numbered, text in starts:
        history, pending = start(image(numbered, text), history)
        if NAME in pending:
            applications.append((numbered, text))
        assert NAME not in start(image(numbered, text), history)[1]
    assert len(applications) == len(set(applications))
    counts = [numbered for numbered, _ in applications]
    assert counts == sorted(counts)


@given(st.lists(st.sampled_from("abcd"), max_size=30))
def test_what_every_image_has_that_starts_last_stays(texts: list[str]) -> None:
    """Texts come to rest: after all have started, no start changes anything."""
    history: History = ()
    for text in texts:
        history, _ = start(image(1, text), history)
    for text in set(texts):
        history, pending = start(image(1, text), history)
        assert pending == []


def test_a_row_without_checksum_is_never_compared() -> None:
    """Another program wrote it, or the table has no such column."""
    plan = make_plan(
        image(1, "a"), [AppliedMigration("1_x.sql"), AppliedMigration(NAME)]
    )
    assert (plan.pending, plan.left) == ((), ())


def test_what_is_kept_of_old_texts_grows_by_a_few_bytes_each() -> None:
    """And a hand that spoils it spoils no start."""
    history: History = ()
    for number in range(100):
        history, _ = start(image(1, f"{number:0>4}"), history)
    (row,) = (row for row in history if row.version == NAME)
    assert len(row.superseded) < 99 * 27
    spoiled = row._replace(superseded=f"nonsense @ @1 x@ {row.superseded} y@z")
    history = (*(r for r in history if r.version != NAME), spoiled)
    for number in (0, 50, 98):
        assert NAME not in start(image(1, f"{number:0>4}"), history)[1]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_repeatables_come_last_by_name(order: tuple[int, ...]) -> None:
    """In whatever order the folder gives them."""
    files = [file("R__b.sql"), file("R__a.sql"), file("9_x.sql")]
    plan = make_plan([files[index] for index in order], [])
    assert [m.version for m in plan.pending] == ["9_x.sql", "R__a.sql", "R__b.sql"]
    assert plan.out_of_order == ()


def test_a_repeatable_makes_no_numbered_file_late() -> None:
    """However it is named."""
    files = [*image(1, "a"), file("5_y.sql")]
    rows = [AppliedMigration(m.version, m.checksum) for m in image(1, "a")]
    plan = make_plan(files, rows)
    assert [m.version for m in plan.pending] == ["5_y.sql"]
    assert plan.out_of_order == plan.below_applied == ()
