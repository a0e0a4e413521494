"""Files in the form of other tools: only the part that goes up runs."""

from __future__ import annotations

import pytest

from migration_gate.files.marks import cut_up_part
from migration_gate.files.sections import Part
from migration_gate.statements import ScriptError
from tests.fix_gate import Gate
from tests.fix_postgres import Database


UP = b"CREATE TABLE t ();\n"


@pytest.mark.parametrize(
    ("content", "up", "transaction"),
    [
        (UP, UP, None),
        (b"-- migrate:up\n" + UP, b"-- migrate:up\n" + UP, None),
        (
            b"-- note\n-- migrate:up\nA;\n-- migrate:down\nDROP TABLE t;\n",
            b"-- note\n-- migrate:up\nA;\n",
            None,
        ),
        (
            b"-- migrate:up transaction:false\nA;\n-- migrate:down\nB;\n",
            b"-- migrate:up transaction:false\nA;\n",
            "outside",
        ),
        (
            b"-- migrate:up transaction:true\nA;\n-- migrate:down transaction:false\n",
            b"-- migrate:up transaction:true\nA;\n",
            None,
        ),
        (b"-- +goose Up\nA;\n-- +goose Down\nB;\n", b"-- +goose Up\nA;\n", None),
        (
            b"-- +goose NO TRANSACTION\n-- +goose Up\nA;\n-- +goose Down\nB;\n",
            b"-- +goose NO TRANSACTION\n-- +goose Up\nA;\n",
            "outside",
        ),
        (
            b"-- +goose up\n-- +goose StatementBegin\nA;\n-- +goose StatementEnd\n",
            b"-- +goose up\n-- +goose StatementBegin\nA;\n-- +goose StatementEnd\n",
            None,
        ),
        (
            b"-- +goose up\n-- +goose StatementBegin\nA--B;\n-- +goose StatementEnd\n",
            b"-- +goose up\n-- +goose StatementBegin\nA--B;\n;-- +goose StatementEn\n",
            None,
        ),
        (b"-- no-transaction\nA;\n", b"-- no-transaction\nA;\n", "outside"),
        (b"A;\n-- no-transaction\n", b"A;\n-- no-transaction\n", None),
        (b"-- atlas:txmode none\n\nA;", b"-- atlas:txmode none\n\nA;", "outside"),
        (
            b"A\n--> statement-breakpoint\nB;--> statement-breakpoint\nC",
            b"A\n;                       \nB;;                       \nC",
            None,
        ),
        (
            b"A;\n--> statement-breakpoint\nB;",
            b"A;\n--> statement-breakpoint\nB;",
            None,
        ),
        (b"SELECT 'migrate:down';", b"SELECT 'migrate:down';", None),
        (b"-- about +goose Down\nA;", b"-- about +goose Down\nA;", None),
    ],
)
def test_the_part_that_goes_up_is_cut_out(
    content: bytes, up: bytes, transaction: str | None
) -> None:
    """Every byte of it stays at its offset."""
    expected = Part(content=up, transaction=transaction)  # type: ignore[arg-type]  # a table's text

    assert cut_up_part(content) == expected


@pytest.mark.parametrize(
    ("content", "offset", "problem"),
    [
        (b"A;\n-- migrate:up\n", 0, "statement before the mark"),
        (b"-- migrate:down\nA;\n", 0, "no part goes up"),
        (b"-- migrate:down\n-- migrate:up\n", 0, "comes first"),
        (b"-- migrate:up\n-- migrate:up\n", 14, "second mark of the part that goes up"),
        (b"-- migrate:up\n-- migrate:down\n-- migrate:down\n", 30, "goes down"),
        (b"-- migrate:sideways\n", 0, "unknown mark"),
        (b"-- migrate: down here\n", 0, "unknown mark"),
        (b"-- migrate:up transaction:maybe\n", 0, "unknown mark"),
        (b"-- +goose Up\n-- +goose StatementBegin\n", 13, "without StatementEnd"),
        (b"-- +goose Up\n-- +goose StatementEnd\n", 13, "without StatementBegin"),
        (
            b"-- +goose Up\n-- +goose StatementBegin\n'\n-- +goose StatementEnd\n';\n",
            40,
            "StatementEnd in a quote",
        ),
        (
            b"-- +goose Up\n-- +goose StatementBegin\n-- +goose StatementBegin\n",
            38,
            "in another",
        ),
    ],
)
def test_marks_that_are_not_well_formed_are_refused(
    content: bytes, offset: int, problem: str
) -> None:
    """The fault has the place of the mark."""
    with pytest.raises(ScriptError) as refused:
        cut_up_part(content)

    assert refused.value.offset == offset
    assert problem in refused.value.problem


def test_only_the_part_that_goes_up_is_applied(gate: Gate, database: Database) -> None:
    """Places are those of the whole file."""
    files = {
        "001_dbmate.sql": "-- migrate:up\nCREATE TABLE a ();\n-- migrate:down\nDROP a;",
        "002_goose.sql": (
            "-- +goose NO TRANSACTION\n-- +goose Up\nCREATE TABLE b ();\n"
            "-- +goose Down\nDROP TABLE a;"
        ),
        "003_bad.sql": "-- migrate:up\n\n  SELECT 1/0;\n-- migrate:down\nDROP TABLE a;",
    }
    run = gate(database=database, migrations=files)

    assert (run.verdict["file"], run.verdict["line"], run.verdict["column"]) == (
        "003_bad.sql",
        3,
        3,
    )
    assert [e["in_transaction"] for e in run.all("migration.started")] == [
        True,
        False,
        True,
    ]
    assert database.fetch("SELECT to_regclass('a'), to_regclass('b')") == [("a", "b")]
