"""Commands of psql in a file: passed over where they change nothing that runs."""

from __future__ import annotations

import pytest

from migration_gate.files.fitness import find_unfit
from migration_gate.settings.settings import HistoryTableName
from migration_gate.statements import split


HISTORY = HistoryTableName(schema="public", table="schema_migrations")


def problems(script: str) -> list[str]:
    """Return what is unfit in a script."""
    return [
        fault.problem
        for piece in split(script.encode())
        for fault in find_unfit(piece, HISTORY)
    ]


@pytest.mark.parametrize(
    "command",
    [
        "\\restrict abc",
        "\\unrestrict abc",
        "\\set ON_ERROR_STOP 1",
        "\\set ON_ERROR_STOP on",
        "\\set ON_ERROR_STOP true",
        "\\set ON_ERROR_STOP",
        "\\set ON_ERROR_ROLLBACK off",
        "\\unset ON_ERROR_ROLLBACK",
        "\\set QUIET 1",
        "\\set QUIET",
        "\\set ECHO all",
        "\\set VERBOSITY terse",
        "\\unset ECHO",
        "\\encoding UTF8",
        "\\echo Creating tables ...",
        "\\qecho done",
        "\\echo '\\n== it\\'s done ==\\n'",
        '\\pset null "\\N"',
        "\\warn careful",
        "\\timing",
        "\\timing on",
        "\\pset pager off",
        "\\pset tuples_only",
        "\\x auto",
        "\\t on",
        "\\a",
        "\\H",
    ],
)
def test_what_only_changes_what_psql_prints_is_passed_over(command: str) -> None:
    """Before, between and after statements."""
    assert problems(f"{command}\nSELECT 1;\n{command}\nSELECT 2;\n{command}") == []


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("\\set ON_ERROR_STOP 0", "ON_ERROR_STOP off"),
        ("\\set ON_ERROR_STOP off", "ON_ERROR_STOP off"),
        ("\\set ON_ERROR_ROLLBACK on", "psql command \\set"),
        ("\\set AUTOCOMMIT off", "psql command \\set"),
        ("\\set owner me", "psql command \\set"),
        ("\\set QUIET `rm x`", "psql command \\set"),
        ("\\echo `date`", "psql command \\echo"),
        ("\\set", "psql command \\set"),
        ("\\unset ON_ERROR_STOP", "psql command \\unset"),
        ("\\encoding LATIN1", "psql command \\encoding"),
        ("\\i other.sql", "psql command \\i"),
        ("\\ir other.sql", "psql command \\ir"),
        ("\\c other", "psql command \\c"),
        ("\\connect other", "psql command \\connect"),
        ("\\if true", "psql command \\if"),
        ("\\gexec", "psql command \\gexec"),
        ("\\q", "psql command \\q"),
        ("\\copy t FROM x", "psql command \\copy"),
        ("\\! rm x", "psql command \\!"),
        ("\\o x", "psql command \\o"),
    ],
)
def test_what_changes_what_runs_is_refused(command: str, problem: str) -> None:
    """Or might, as what a shell does in backquotes."""
    (found,) = problems(f"SELECT 1;\n{command}\n")
    assert found.startswith(problem)


@pytest.mark.parametrize(
    ("statement", "is_refused"),
    [
        ("CREATE TABLE schema_migrations ();", True),
        ("CREATE TABLE public.schema_migrations ();", True),
        ("COPY public.schema_migrations_progress FROM stdin;\n\\.\n", True),
        ("CREATE TABLE auth.schema_migrations ();", False),
        ("INSERT INTO auth.schema_migrations VALUES (1);", False),
    ],
)
def test_the_history_is_told_by_its_schema(statement: str, *, is_refused: bool) -> None:
    """A name without one may mean it; another schema has a table of its own."""
    assert bool(problems(statement)) is is_refused
