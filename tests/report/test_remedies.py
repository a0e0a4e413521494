"""What to do about an error of PostgreSQL's."""

from __future__ import annotations

from dataclasses import replace

import pytest

from migration_gate.report.errors import SqlFailure
from migration_gate.report.remedies import (
    ALREADY_EXISTS,
    BY_STATE,
    FIX_AND_RESTART,
    UUID_REMEDY,
    find_remedy,
)


NOTHING = SqlFailure(
    sqlstate=None,
    message=None,
    detail=None,
    hint=None,
    context=None,
    constraint=None,
    table=None,
    position=None,
)


def remedy(sqlstate: str | None, message: str | None = None, **facts: str) -> str:
    """Return the remedy for an error."""
    failure = replace(NOTHING, sqlstate=sqlstate, message=message)
    return find_remedy(replace(failure, **facts))  # type: ignore[arg-type]  # texts


@pytest.mark.parametrize("sqlstate", ["42P07", "42701", "42710", "42723", "42P06"])
def test_an_object_that_exists_points_to_resolve(sqlstate: str) -> None:
    """A table, column, type, function or schema."""
    assert remedy(sqlstate, 'relation "t" already exists') == ALREADY_EXISTS
    assert "resolve VERSION --applied" in ALREADY_EXISTS


@pytest.mark.parametrize(
    ("sqlstate", "message"),
    [
        ("0A000", 'extension "uuid-ossp" is not available'),
        ("42501", 'permission denied to create extension "uuid-ossp"'),
        ("42883", "function uuid_generate_v4() does not exist"),
    ],
)
def test_uuid_ossp_points_to_the_built_in_function(sqlstate: str, message: str) -> None:
    """However it is missed."""
    assert remedy(sqlstate, message) == UUID_REMEDY


@pytest.mark.parametrize(
    ("sqlstate", "message", "expected"),
    [
        (
            "0A000",
            (
                'extension "hstore" is not allow-listed for users in Azure Database '
                "for PostgreSQL"
            ),
            "azure.extensions",
        ),
        (
            "42501",
            "Only members of azure_pg_admin are allowed to use CREATE EXTENSION",
            "azure.extensions",
        ),
        ("0A000", 'extension "x" is not in rds.allowed_extensions', "rds.allowed"),
        ("0A000", 'extension "words" is not available', "install its package"),
        ("42501", 'permission denied to create extension "x"', "trusted extensions"),
        ("0A000", 'extension "postgis" is not available', "install its package"),
        ("58P01", 'could not open extension control file "x"', "install its package"),
    ],
)
def test_an_extension_points_to_the_one_who_can_make_it(
    sqlstate: str, message: str, expected: str
) -> None:
    """A provider's list, an administrator, or the server's packages."""
    assert expected in remedy(sqlstate, message)


def test_a_constraint_is_named() -> None:
    """Its table too, where PostgreSQL tells."""
    nothing_left = "correct the data or the file. Nothing of this file is left."
    assert remedy("23505", constraint="c", table="t") == (
        f'Rows of table "t" violate constraint "c": {nothing_left}'
    )
    assert remedy("23505", constraint="c") == (
        f'Rows violate constraint "c": {nothing_left}'
    )
    assert remedy("23502") == f"Rows violate a constraint: {nothing_left}"


def test_a_missing_right_points_to_owner_and_role() -> None:
    """GATE_ROLE is the way to act as the owner."""
    assert "GATE_ROLE" in remedy("42501", "permission denied for table t")


def test_every_other_error_has_a_remedy() -> None:
    """By SQLSTATE, or the general one; none is a lost connection."""
    for sqlstate, expected in BY_STATE.items():
        assert remedy(sqlstate, "any") == expected
    assert remedy("42703", "any") == FIX_AND_RESTART
    assert remedy(None) == "The connection was lost; start the gate again."
