"""What PostgreSQL would only call a syntax error is named, before anything runs."""

from __future__ import annotations

import pytest

from migration_gate.files.stumbles import find_stumbles
from migration_gate.statements import Filled, place, split
from tests.fix_gate import Gate
from tests.fix_postgres import Database


def stumbles(script: str) -> list[tuple[int, int, str]]:
    """Return line, column and problem of each."""
    content = script.encode()
    return [
        (*place(content, fault.offset), fault.problem)
        for fault in find_stumbles(Filled(content), split(content))
    ]


VARIABLE = "variable :{} is not set"
PLACEHOLDER = 'placeholder that begins with "{}", which another program would fill in'
LATE = "directive after the first statement"
LETTER = "{} outside quotes, which PostgreSQL takes for a letter"


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("ALTER TABLE t\n  OWNER TO :owner;", (2, 12, VARIABLE.format("owner"))),
        ("SELECT :'name';", (1, 8, VARIABLE.format("'name'"))),
        ('SELECT * FROM :"s".t;', (1, 15, VARIABLE.format('"s"'))),
        ("CREATE SCHEMA ${schema};", (1, 15, PLACEHOLDER.format("${"))),
        ("CREATE SCHEMA {{ x }};", (1, 15, PLACEHOLDER.format("{{"))),
        ("SELECT {x};", (1, 8, PLACEHOLDER.format("{"))),
        (
            "SELECT\u00a01;",
            (1, 7, LETTER.format("no-break space (U+00A0)")),
        ),
        (
            "SELECT 'é' \u200b;",
            (1, 12, LETTER.format("zero width space (U+200B)")),
        ),
        (
            "\ufeff\ufeffSELECT 1;",
            (1, 1, "byte order mark (U+FEFF) inside the text"),
        ),
        (
            "SELECT 1;\n\ufeffSELECT 1;",
            (2, 1, "byte order mark (U+FEFF) inside the text"),
        ),
        (
            "SELECT \u2018x\u2019;",
            (1, 8, "left single quotation mark (U+2018) in place of a quote"),
        ),
        (
            "SELECT 1;\n-- gate: no-transaction\n",
            (2, 1, LATE),
        ),
        (
            "SELECT 1; -- gate: transaction\nSELECT 2;",
            (1, 11, LATE),
        ),
        (
            "\\set x\n-- gate: transaction\nA;",
            (2, 1, LATE),
        ),
        ("/* gate: no-transaction */ A;", (1, 1, "directive in a block comment")),
    ],
)
def test_a_stumble_has_its_line_and_column(
    script: str, expected: tuple[int, int, str]
) -> None:
    """And the name of the sign, where it looks like another."""
    assert stumbles(script)[0] == expected


@pytest.mark.parametrize(
    "script",
    [
        "SELECT 1::int, x :: text, now()::timestamp;",
        "SELECT a[1:n], a[lo:hi], a[:n], a[(1):b.c], (array[1,2])[i:j];",
        "CALL f(a := 1, b => 2);",
        "SELECT 'a :name ${x} {{y}} \u00a0 \u200b \ufeff \u2019';",
        'SELECT 1 AS ":name", 2 AS "a\u00a0b {c}";',
        "SELECT $$ :name ${x} {y} \u00a0 -- gate: x $$, $t$ :a $t$;",
        "SELECT E'\\':name', '{1,2}'::int[];",
        "-- :name ${x} {y} \u00a0 \u2019\n/* :name {z} */ SELECT 1;",
        "COPY t FROM stdin;\n:name ${x} \u00a0 -- gate: x\n\\.\n",
        "SELECT json_object('a':b, 'c':'d');",
        "SELECT '10:20:30'::time, '{\"a\":\"b\"}'::jsonb;",
        "\\echo :name\nSELECT 1;",
        "-- gate: transaction\n/* x */ -- gate: lock-timeout=1s\nSELECT 1;",
        "SELECT '-- gate: x';",
        "SET standard_conforming_strings = off; SELECT '\\':name';",
    ],
)
def test_what_postgresql_takes_is_none(script: str) -> None:
    """Casts, slices, named arguments, and all that is quoted, data or comment."""
    assert stumbles(script) == []


def test_no_more_are_shown_than_help() -> None:
    """A file with a thousand variables has ten faults."""
    assert len(stumbles("SELECT :a;\n" * 1000)) == 10


def test_a_stumble_closes_the_gate_before_anything_is_applied(
    gate: Gate, database: Database
) -> None:
    """The verdict has the place and what to do."""
    files = {
        "001_a.sql": "CREATE TABLE a ();",
        "002_b.sql": "CREATE TABLE b ();\nALTER TABLE b OWNER TO :owner;\n",
    }
    run = gate(database=database, migrations=files)

    assert (run.exit_code, run.verdict["reason"]) == (1, "files")
    assert run.verdict["error_message"] == (f"002_b.sql:2: {VARIABLE.format('owner')}")
    assert (run.verdict["line"], run.verdict["column"]) == (2, 24)
    assert database.fetch("SELECT to_regclass('a')") == [(None,)]
