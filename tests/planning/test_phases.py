"""What comes before a deployment, and what comes after it."""

from __future__ import annotations

import pytest

from migration_gate.files.migration import AppliedMigration, Migration, version_to_key
from migration_gate.files.names import classify
from migration_gate.planning.phases import asked_of, in_phase, require_first_phase
from migration_gate.planning.plan import Plan, make_plan
from migration_gate.report.errors import IncompleteError
from migration_gate.settings.settings import Phase


def file(version: str) -> Migration:
    """Return a migration; one whose words say so waits for the deployment."""
    return Migration(
        version=version,
        number=classify(version).number,
        key=version_to_key(version),
        checksum="",
        is_after="after" in version,
    )


FILES = [file("1_a.sql"), file("2_after.sql"), file("3_b.sql"), file("4_after.sql")]


def plan(*applied: str, phase: Phase) -> Plan:
    """Plan what is left of the files."""
    rows = [AppliedMigration(version) for version in applied]
    return in_phase(make_plan(FILES, rows), phase)


def names(migrations: tuple[Migration, ...]) -> list[str]:
    """Return the versions."""
    return [migration.version for migration in migrations]


def test_all_is_done_in_order() -> None:
    """Without a phase, the directive means nothing."""
    made = plan(phase="all")

    assert names(made.pending) == names(tuple(FILES))
    assert (made.held_back, made.overdue, made.out_of_order) == ((), (), ())


def test_before_a_deployment_the_rest_is_held_back() -> None:
    """What is newer than it goes first."""
    made = plan("1_a.sql", phase="before")

    assert names(made.pending) == ["3_b.sql"]
    assert names(made.held_back) == ["2_after.sql", "4_after.sql"]
    require_first_phase(made)


def test_after_a_deployment_only_the_rest_is_done() -> None:
    """Though newer files are applied, none of it is out of order."""
    made = plan("1_a.sql", "3_b.sql", phase="after")

    assert names(made.pending) == ["2_after.sql", "4_after.sql"]
    assert (made.overdue, made.out_of_order, made.below_applied) == ((), (), ())


def test_the_first_phase_has_to_be_over() -> None:
    """Else the application that runs may be the old one."""
    made = plan("1_a.sql", phase="after")

    assert names(made.overdue) == ["3_b.sql"]
    with pytest.raises(IncompleteError, match="which come before the deployment"):
        require_first_phase(made)


@pytest.mark.parametrize(
    ("applied", "late"),
    [
        (("1_a.sql", "4_after.sql"), ("2_after.sql", "3_b.sql")),
        (("3_b.sql",), ("1_a.sql",)),
        (("2_after.sql", "3_b.sql"), ("1_a.sql",)),
        (("1_a.sql", "3_b.sql"), ()),
    ],
)
def test_what_is_late_is_still_out_of_order(
    applied: tuple[str, ...], late: tuple[str, ...]
) -> None:
    """Each phase by its own: a second one never by a first, but a first by both."""
    assert plan(*applied, phase="all").out_of_order == late


def test_what_is_asked_where_a_phase_is_over() -> None:
    """After the second one, everything is there."""
    assert [asked_of(p) for p in ("all", "before", "after")] == ["all", "before", "all"]
