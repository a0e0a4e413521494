"""Liquibase's formatted SQL is read as what it is."""

from __future__ import annotations

import pytest

from migration_gate.files.liquibase import is_liquibase
from migration_gate.files.marks import cut_up_part
from migration_gate.statements import ScriptError, split
from tests.fix_gate import Gate
from tests.fix_postgres import Database


HEAD = "--liquibase formatted sql\n"
PRECONDITION = "precondition, on which depends whether Liquibase runs the change set"


def kept(script: str) -> list[str]:
    """Return the statements that are kept, without comments."""
    part = cut_up_part((HEAD + script).encode())
    assert part.faults == ()
    return [
        part.content[piece.first : piece.end].decode().rstrip("; \n")
        for piece in split(part.content)
    ]


def faults(script: str) -> list[tuple[int, str]]:
    """Return line and problem of each fault, the first line being the head's."""
    content = (HEAD + script).encode()
    try:
        found = cut_up_part(content).faults
    except ScriptError as error:
        found = (error,)
    return [
        (content[: fault.offset].count(b"\n") + 1, fault.problem) for fault in found
    ]


@pytest.mark.parametrize(
    ("first_lines", "expected"),
    [
        ("--liquibase formatted sql", True),
        ("\n \n -- Liquibase Formatted SQL logicalFilePath:x", True),
        ("\ufeff--liquibase formatted sql", True),
        ("-- a comment\n--liquibase formatted sql", False),
        ("--changeset a:1", False),
    ],
)
def test_the_first_line_tells_the_form(first_lines: str, *, expected: bool) -> None:
    """As Liquibase tells it: the first that is not blank."""
    assert is_liquibase(first_lines.encode()) is expected


@pytest.mark.parametrize(
    ("script", "statements"),
    [
        ("--changeset a:1\nA;\n--rollback B;\n--changeset a:2\nC\n", ["A", "C"]),
        ("--changeset a:1\nA\n--changeset a:2\nC\n", ["A", "C"]),
        ("-- changeset \"a b\":'1' stripComments:false\nA\n;", ["A"]),
        ("--changeset a:1 dbms:postgresql\nA;\n", ["A"]),
        ("--changeset a:1 dbms:mysql\nA;\n--changeset a:2\nB;\n", ["B"]),
        ("--changeset a:1 dbms:mysql,postgresql\nA;\n", ["A"]),
        ("--changeset a:1 dbms:!postgresql\nA;\n--changeset a:2\nB;\n", ["B"]),
        ("--changeset a:1 dbms:!oracle\nA;\n", ["A"]),
        ("--changeset a:1 ignore:true\nA;\n--changeset a:2\nB;\n", ["B"]),
        ("--changeset a:1\nA;\n/* liquibase rollback\nB;\n*/\nC;", ["A", "C"]),
        (
            "--changeset a:1\nA;\n--ignoreLines:start\nB;\n--ignoreLines:end\nC;",
            ["A", "C"],
        ),
        ("--changeset a:1\nA;\n--ignoreLines:2\nB;\nC;\nD;\nE;", ["A", "D", "E"]),
        ("--changeset a:1\nA\nGO\nB\n/\nC 6\n  / 2;", ["A", "B", "C 6\n  / 2"]),
        ("--changeset a:1 endDelimiter:// \nA; B\n//\nC\n  // \n", ["A", "B", "C"]),
        (
            "--changeset a:1 splitStatements:false\nDO $$ A; B; $$",
            ["DO $$ A; B; $$"],
        ),
        ("--changeset a:1 endDelimiter:/\nDO $$ a\n/\nb $$\n/\n", ["DO $$ a\n/\nb $$"]),
        ("--property name:x value:y\n--changeset a:1\n--comment: c\nA;", ["A"]),
    ],
)
def test_what_goes_up_is_kept(script: str, statements: list[str]) -> None:
    """Ways back are comments; change sets of other databases are left out."""
    assert kept(script) == statements


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("A;", [(1, "no change set, where Liquibase runs nothing")]),
        (
            "A;\n--changeset a:1\nB;",
            [(2, "statement before the first change set, which Liquibase leaves out")],
        ),
        ("--changeset 1\nA;", [(2, "malformed change set")]),
        (
            (
                "--changeset a:1 context:prod labels:x runAlways:true\nA;\n"
                '--changeset a:2 contextFilter:"a or b" runOnChange:true\nB;'
            ),
            [
                (2, "change set with the attribute context"),
                (2, "change set with the attribute labels"),
                (2, "change set with the attribute runAlways"),
                (4, "change set with the attribute context"),
                (4, "change set with the attribute runOnChange"),
            ],
        ),
        (
            "--changeset a:1 failOnError:false runWith:psql\nA;",
            [
                (2, "change set with the attribute failOnError:false"),
                (2, "change set with the attribute runWith"),
            ],
        ),
        (
            (
                "--changeset a:1\n--preconditions onFail:MARK_RAN\n"
                "--precondition-sql-check expectedResult:0 SELECT 1\nA;"
            ),
            [(4, PRECONDITION)],
        ),
        (
            "--changeset a:1\nA '${x}';",
            [(3, "placeholder of Liquibase, which only Liquibase fills in")],
        ),
        (
            "--changeset a:1 endDelimiter:#\nA # B\n#\n",
            [(3, "endDelimiter that does not stand on lines of its own")],
        ),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_line(
    script: str, expected: list[tuple[int, str]]
) -> None:
    """What depends on Liquibase's command line, its history or its substitutions."""
    assert faults(script) == expected


def test_attributes_of_change_sets_that_do_not_run_are_not_asked() -> None:
    """One for another database may have what it likes."""
    assert kept("--changeset a:1 dbms:mysql context:x\nA;\n--changeset a:2\nB;") == [
        "B"
    ]


def test_change_sets_are_applied_with_their_transactions(
    gate: Gate, database: Database
) -> None:
    """All in one, and where one asks for none, each of the others as a whole."""
    both = (
        f"{HEAD}--changeset a:1\nCREATE TABLE a ();\n--rollback DROP TABLE a;\n"
        "--changeset a:2 dbms:oracle\nCREATE TABLE never ();\n"
        "--changeset a:3\nCREATE TABLE b ();\n--rollback DROP TABLE b;\n"
    )
    mixed = (
        f"{HEAD}--changeset a:4 runInTransaction:false\nVACUUM a;\n"
        "--changeset a:5\nCREATE TABLE c ();\nSELECT 1/0;\n"
    )
    run = gate(database=database, migrations={"001_a.sql": both, "002_b.sql": mixed})

    started = run.all("migration.started")
    assert [event["in_transaction"] for event in started] == [True, False]
    assert (run.exit_code, run.verdict["line"]) == (1, 6)
    tables = database.fetch(
        "SELECT to_regclass('a'), to_regclass('b'), to_regclass('c'), "
        "to_regclass('never')"
    )
    assert tables == [("a", "b", None, None)]
