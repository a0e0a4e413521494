"""How a file's statements are grouped into what is done as a whole."""

from __future__ import annotations

import pytest

from migration_gate.files.units import group_inside, group_outside
from migration_gate.statements import split


def inside(script: str) -> tuple[list[int], bytes, list[str]]:
    """Return the numbers of the statements that are sent, the modes, the faults."""
    unit, faults = group_inside(split(script.encode()))
    numbers = [statement.number for statement in unit.statements]
    return numbers, unit.modes, [fault.problem for fault in faults]


def outside(script: str) -> tuple[list[tuple[list[int], bytes, str]], list[str]]:
    """Return numbers, modes and reason to be alone of each unit, and the faults."""
    units, faults = group_outside(split(script.encode()))
    shown = [
        ([statement.number for statement in unit.statements], unit.modes, unit.alone)
        for unit in units
    ]
    return shown, [fault.problem for fault in faults]


@pytest.mark.parametrize(
    ("script", "numbers", "modes"),
    [
        ("", [], b""),
        ("A; B", [1, 2], b""),
        ("BEGIN; A; B; COMMIT;", [2, 3], b""),
        ("START TRANSACTION; A; END;", [2], b""),
        ("SET x = 1; SHOW x; BEGIN WORK; A; COMMIT WORK", [1, 2, 4], b""),
        (
            "BEGIN ISOLATION LEVEL SERIALIZABLE, DEFERRABLE; A; COMMIT",
            [2],
            b"ISOLATION LEVEL SERIALIZABLE , DEFERRABLE",
        ),
        ("START TRANSACTION READ WRITE; A; COMMIT", [2], b"READ WRITE"),
        (
            "SET x = 1; SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; A",
            [1, 3],
            b"ISOLATION LEVEL SERIALIZABLE",
        ),
        (
            "BEGIN READ WRITE; SET LOCAL TRANSACTION DEFERRABLE; A; COMMIT",
            [3],
            b"READ WRITE DEFERRABLE",
        ),
        ("SET TRANSACTION SNAPSHOT '1'; A; SET TRANSACTION DEFERRABLE", [1, 2, 3], b""),
        ("SAVEPOINT a; B; ROLLBACK TO a; RELEASE a", [1, 2, 3, 4], b""),
        (
            (
                "A; BEGIN; SELECT pg_catalog.lo_open('1', 131072);"
                "SELECT pg_catalog.lowrite(0, '\\x00'); SELECT pg_catalog.lo_close(0);"
                "COMMIT; B"
            ),
            [1, 3, 4, 5, 7],
            b"",
        ),
    ],
)
def test_the_files_own_transaction_is_the_gates(
    script: str, numbers: list[int], modes: bytes
) -> None:
    """Its BEGIN and COMMIT are not sent; its modes are kept."""
    assert inside(script) == (numbers, modes, [])


@pytest.mark.parametrize(
    ("script", "problems"),
    [
        ("A; COMMIT", ["COMMIT in a migration"]),
        ("BEGIN; A", ["BEGIN in a migration"]),
        ("A; BEGIN; B; COMMIT", ["BEGIN in a migration", "COMMIT in a migration"]),
        ("BEGIN; A; COMMIT; B", ["BEGIN in a migration", "COMMIT in a migration"]),
        ("BEGIN; A; ROLLBACK", ["BEGIN in a migration", "ROLLBACK in a migration"]),
        ("A; ABORT", ["ROLLBACK in a migration"]),
        (
            "BEGIN; A; COMMIT AND CHAIN",
            ["BEGIN in a migration", "COMMIT AND CHAIN in a migration"],
        ),
        ("PREPARE TRANSACTION 'x'", ["PREPARE TRANSACTION in a migration"]),
        (
            "A; SET TRANSACTION READ ONLY",
            ["READ ONLY transaction in a migration, which has to be recorded"],
        ),
        (
            "BEGIN READ ONLY; A; COMMIT",
            ["READ ONLY transaction in a migration, which has to be recorded"],
        ),
    ],
)
def test_other_transaction_control_is_refused(script: str, problems: list[str]) -> None:
    """Each statement that would end or open a transaction is a fault of its own."""
    assert inside(script)[2] == problems


def test_outside_each_statement_and_each_block_is_a_unit() -> None:
    """Only what PostgreSQL refuses in a transaction is alone."""
    script = (
        "A; BEGIN READ WRITE; B; C; COMMIT; VACUUM; BEGIN; COMMIT; D;"
        "BEGIN; SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; E; COMMIT"
    )

    assert outside(script) == (
        [
            ([1], b"", ""),
            ([3, 4], b"READ WRITE", ""),
            ([6], b"", "VACUUM"),
            ([9], b"", ""),
            ([12], b"ISOLATION LEVEL SERIALIZABLE", ""),
        ],
        [],
    )


@pytest.mark.parametrize(
    ("script", "problems"),
    [
        ("VACUUM; COMMIT", ["COMMIT in a migration"]),
        ("BEGIN; VACUUM; COMMIT", ["VACUUM in a BEGIN … COMMIT block"]),
        ("BEGIN; A; ROLLBACK", ["BEGIN in a migration", "ROLLBACK in a migration"]),
        ("SAVEPOINT a", ["SAVEPOINT in a migration"]),
        (
            "BEGIN; A; SET TRANSACTION READ ONLY; COMMIT",
            ["READ ONLY transaction in a migration, which has to be recorded"],
        ),
    ],
)
def test_outside_a_block_must_be_whole(script: str, problems: list[str]) -> None:
    """What is unbalanced, or refused in a transaction, is a fault."""
    assert outside(script)[1] == problems
