"""Folder and history, side by side."""

from __future__ import annotations

import pytest

from migration_gate.files.migration import AppliedMigration, Migration, version_to_key
from migration_gate.planning.agreement import require_agreement
from migration_gate.planning.plan import Change, Plan, find_shared_numbers, make_plan
from migration_gate.report.errors import HistoryError


def file(version: str, checksum: str = "sha256:1") -> Migration:
    """Return a migration on disk."""
    number = (int(version.partition("_")[0]),)
    key = version_to_key(version)
    return Migration(version=version, number=number, key=key, checksum=checksum)


def row(version: str, checksum: str | None = None) -> AppliedMigration:
    """Return a row of the history."""
    return AppliedMigration(version=version, checksum=checksum)


def plan(**facts: object) -> Plan:
    """Return a plan in which nothing is to be said but these facts."""
    nothing = {
        "pending": (),
        "applied": (),
        "changes": (),
        "unknown": (),
        "out_of_order": (),
        "lookalikes": (),
        "spelling": "file name",
    }
    return Plan(**(nothing | facts))  # type: ignore[arg-type]  # the tests' own facts


def change(version: str, *, applied_at: str = "") -> Change:
    """Return a file that differs from what was applied."""
    recorded = AppliedMigration(version, "sha256:0123456789abcdef", applied_at)
    return Change(file(version, "sha256:fedcba9876543210"), recorded)


def test_without_history_everything_is_pending_in_order() -> None:
    """The order is the files' own, not the one they are given in."""
    one, two, ten = file("1_a.sql"), file("2_b.sql"), file("10_c.sql")
    assert make_plan([ten, two, one], []) == plan(pending=(one, two, ten))


def test_what_is_in_the_history_is_applied() -> None:
    """The rest is pending."""
    one, two = file("1_a.sql"), file("2_b.sql")
    assert make_plan([one, two], [row("1_a.sql", "sha256:1")]) == plan(
        applied=(one,), pending=(two,)
    )


def test_a_file_that_differs_is_changed() -> None:
    """Its checksum is not the one that was recorded."""
    one = file("1_a.sql", "sha256:2")
    assert make_plan([one], [row("1_a.sql", "sha256:1")]) == plan(
        applied=(one,), changes=(Change(one, row("1_a.sql", "sha256:1")),)
    )


def test_a_row_without_checksum_is_never_compared() -> None:
    """Another program wrote it."""
    one = file("1_a.sql")
    assert make_plan([one], [row("1_a.sql")]) == plan(applied=(one,))


def test_a_second_row_of_another_program_changes_nothing() -> None:
    """One row with the right checksum is enough."""
    one = file("1_a.sql")
    rows = [row("1_a", None), row("1_a.sql", "sha256:1"), row("1_a.up", "sha256:0")]
    assert make_plan([one], rows).changed == ()


def test_a_row_that_no_file_explains_is_unknown() -> None:
    """An older image after a rollback, or a squashed file."""
    one = file("1_a.sql")
    rows = [row("1_a.sql"), row("2_b.sql"), row("20251020160504"), row("something")]
    assert make_plan([one], rows) == plan(
        applied=(one,), unknown=("2_b.sql", "20251020160504", "something")
    )


def test_a_pending_file_below_the_newest_applied_is_out_of_order() -> None:
    """By number and by name; rows that no file explains count."""
    files = [file("1_a.sql"), file("2_b.sql"), file("3_a.sql"), file("3_c.sql")]
    assert make_plan(files, [row("2_b.sql"), row("3_b.sql")]) == plan(
        applied=(files[1],),
        pending=(files[0], files[2], files[3]),
        unknown=("3_b.sql",),
        out_of_order=("1_a.sql", "3_a.sql"),
    )


@pytest.mark.parametrize(
    "version",
    [
        "001_Initi\u00e9.sql",
        "001_initi\u00e9.SQL ",
        " 001_initie\u0301",
        "001_initi \u00e9",
    ],
)
def test_a_row_that_differs_in_case_or_space_is_named(version: str) -> None:
    """Or in how an accent is written: it is neither applied nor unknown."""
    one = file("001_initi\u00e9.sql")
    made = make_plan([one], [row(version)])
    assert made.lookalikes == ((version, one.version),)
    assert (made.pending, made.applied, made.unknown) == ((one,), (), ())


@pytest.mark.parametrize(
    ("rows", "file_name", "expected"),
    [
        (["1_a"], "1_a.sql", "2_b"),
        (["1_a.up"], "1_a.up.sql", "2_b.up"),
        (["1_a"], "1_a.up.sql", "2_b"),
        (["1_a.sql"], "1_a.sql", "2_b.up.sql"),
        (["1_a.sql"], "1_a.up.sql", "2_b.up.sql"),
        (["0_z", "1_a.up.sql"], "1_a.up.sql", "2_b.up.sql"),
        ([], "1_a.up.sql", "2_b.up.sql"),
        (["unknown"], "1_a.up.sql", "2_b.up.sql"),
        (["1_a.up.sql", "unknown"], "1_a.up.sql", "2_b.up.sql"),
    ],
)
def test_a_new_row_takes_the_spelling_in_use(
    rows: list[str], file_name: str, expected: str
) -> None:
    """The newest row that belongs to a file shows it."""
    ending = "" if expected == "2_b" and file_name == "1_a.sql" else ".up"
    two = file(f"2_b{ending}.sql")
    made = make_plan([file(file_name), two], [row(version) for version in rows])
    assert made.version_to_record(two) == expected


def test_what_the_settings_allow_is_allowed() -> None:
    """The defaults are changed=refuse, out_of_order=apply, ahead=allow."""
    odd = plan(
        changes=(change("1_a.sql"),), unknown=("2_b",), out_of_order=("0_z.sql",)
    )
    require_agreement(odd, changed="warn", out_of_order="apply", ahead="allow")
    require_agreement(plan(), changed="refuse", out_of_order="refuse", ahead="refuse")


def test_every_disagreement_is_reported_at_once() -> None:
    """One error names all of them, each with its remedy."""
    odd = plan(
        applied=(file("1_a.sql"), file("5_e.sql")),
        changes=(change("1_a.sql", applied_at="2026-01-02T03:04:05.678Z"),),
        unknown=("2_b", "3_c"),
        out_of_order=("0_y.sql", "0_z.sql"),
        lookalikes=(("4_D.sql", "4_d.sql"),),
    )
    with pytest.raises(HistoryError) as caught:
        require_agreement(odd, changed="refuse", out_of_order="refuse", ahead="refuse")
    assert str(caught.value) == (
        'history row "4_D.sql" differs from file "4_d.sql" only in case, '
        'white space or the form of its accents; migration "1_a.sql" was changed after '
        "being applied: at "
        "2026-01-02T03:04:05.678Z, sha256:0123456789ab then, sha256:fedcba987654 here; "
        "migrations "
        '"0_y.sql", "0_z.sql" were added below the newest applied one: out of order; '
        'the history has "2_b", "3_c", which no file here explains'
    )
    assert caught.value.hint == (
        "Correct the row's version in the history, or the file's name. See what was "
        "changed: git log -p -- '*1_a.sql'. Restore the file as it was applied, and "
        "put the change in a new migration. Where it changes nothing in the database: "
        "resolve 1_a.sql --applied, or GATE_CHANGED=warn for this start. Where no "
        "other database has it applied, give it the next free number; else, where it "
        "does not need to run before those, set GATE_OUT_OF_ORDER=apply for this "
        "start. A newer image has applied it: start that one, or a later one. Only "
        "where this version is known to work with that schema, as after a deliberate "
        "return to it, set GATE_AHEAD=allow."
    )


def test_a_long_list_is_cut_and_counted() -> None:
    """Ten names, and how many more."""
    changes = tuple(change(f"{number}_x.sql") for number in range(1, 13))
    with pytest.raises(HistoryError, match=r'"10_x\.sql" and 2 more were changed'):
        require_agreement(
            plan(changes=changes),
            changed="refuse",
            out_of_order="apply",
            ahead="allow",
        )


def test_of_several_changed_files_the_first_have_their_checksums() -> None:
    """The last line has no room for all of them."""
    odd = plan(changes=tuple(change(f"{number}_x.sql") for number in range(1, 6)))
    with pytest.raises(HistoryError) as caught:
        require_agreement(odd, changed="refuse", out_of_order="apply", ahead="allow")
    assert str(caught.value).count("sha256:0123456789ab then") == 3


def test_where_most_rows_are_unknown_another_history_table_is_the_remedy() -> None:
    """A changed file may be another application's: GATE_CHANGED would open too soon."""
    unknown = ("2_b", "3_c")
    odd = plan(
        applied=(file("1_a.sql"),), changes=(change("1_a.sql"),), unknown=unknown
    )
    with pytest.raises(HistoryError) as caught:
        require_agreement(odd, changed="refuse", out_of_order="apply", ahead="allow")
    assert "GATE_HISTORY_TABLE" in caught.value.hint
    assert "GATE_CHANGED" not in caught.value.hint


def test_below_what_is_unknown_is_no_second_warning() -> None:
    """Rows of another application say nothing of this one's order."""
    one, two, three = file("1_a.sql"), file("2_b.sql"), file("3_c.sql")
    made = make_plan([one, two, three], [row("2_b.sql"), row("9_z.sql")])
    assert made.out_of_order == ("1_a.sql", "3_c.sql")
    assert made.below_applied == ("1_a.sql",)


def test_migrations_that_share_a_number_are_found() -> None:
    """001 and 1 are one number."""
    names = ["2_b.sql", "001_z.sql", "3_c.sql", "1_a.sql", "3_d.sql"]
    assert find_shared_numbers([file(name) for name in names]) == (
        "001_z.sql",
        "1_a.sql",
        "3_c.sql",
        "3_d.sql",
    )
