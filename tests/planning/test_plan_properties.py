"""What holds for the plan of any folder and any history."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from migration_gate.files.migration import AppliedMigration, Migration, version_to_key
from migration_gate.planning.plan import make_plan


WORDS = st.sampled_from(["a", "b", "A", "a.up", "ä", "a b"])
VERSIONS = st.builds("{}_{}".format, st.integers(0, 12), WORDS)
CHECKSUMS = st.sampled_from(["sha256:1", "sha256:2"])


@st.composite
def folders(draw: st.DrawFn) -> list[Migration]:
    """Return files in any order, no two of which share a key."""
    versions = draw(st.lists(VERSIONS, unique_by=version_to_key))
    return [
        Migration(
            version=f"{version}.sql",
            number=(int(version.partition("_")[0]),),
            key=version_to_key(f"{version}.sql"),
            checksum=draw(CHECKSUMS),
        )
        for version in versions
    ]


@st.composite
def histories(draw: st.DrawFn) -> list[AppliedMigration]:
    """Return rows with any spelling, some of other programs, some of no form."""
    stems = draw(st.lists(st.one_of(VERSIONS, st.text(max_size=5))))
    endings = st.sampled_from(["", ".sql", ".up", ".up.sql"])
    versions = dict.fromkeys(stem + draw(endings) for stem in stems)
    checksums = st.none() | CHECKSUMS
    return [AppliedMigration(version=v, checksum=draw(checksums)) for v in versions]


@given(folders(), histories())
def test_every_file_is_either_pending_or_applied(
    folder: list[Migration], history: list[AppliedMigration]
) -> None:
    """Both are sorted and parts of the folder; a pending one has no row."""
    plan = make_plan(folder, history)
    assert sorted((*plan.pending, *plan.applied), key=lambda m: m.order) == sorted(
        folder, key=lambda m: m.order
    )
    for part in (plan.pending, plan.applied):
        assert list(part) == sorted(part, key=lambda m: m.order)
    keys = {version_to_key(row.version) for row in history}
    assert keys.isdisjoint(migration.key for migration in plan.pending)
    assert set(plan.out_of_order) <= {m.version for m in plan.pending}
    assert set(plan.changed) <= {m.version for m in plan.applied}


@given(folders(), histories())
def test_every_row_is_explained_or_named(
    folder: list[Migration], history: list[AppliedMigration]
) -> None:
    """A row belongs to a file, is unknown, or looks like a file's."""
    plan = make_plan(folder, history)
    applied = {migration.key for migration in plan.applied}
    explained = {r.version for r in history if version_to_key(r.version) in applied}
    alike = {version for version, _ in plan.lookalikes}
    assert explained | alike | set(plan.unknown) == {row.version for row in history}
    assert explained.isdisjoint(alike | set(plan.unknown))
    assert alike.isdisjoint(plan.unknown)


@given(folders(), histories())
def test_after_applying_nothing_is_pending_or_changed_anew(
    folder: list[Migration], history: list[AppliedMigration]
) -> None:
    """Rows as the gate records them make the next plan empty."""
    plan = make_plan(folder, history)
    added = [
        AppliedMigration(version=plan.version_to_record(m), checksum=m.checksum)
        for m in plan.pending
    ]
    again = make_plan(folder, [*history, *added])
    assert again.pending == ()
    assert again.out_of_order == ()
    assert again.changed == plan.changed
    assert again.unknown == plan.unknown
    assert again.lookalikes == plan.lookalikes


@given(folders(), histories(), st.randoms(use_true_random=False))
def test_the_order_of_the_files_does_not_matter(
    folder: list[Migration],
    history: list[AppliedMigration],
    random: Random,
) -> None:
    """A folder is a set."""
    shuffled = list(folder)
    random.shuffle(shuffled)
    assert make_plan(shuffled, history) == make_plan(folder, history)
