"""
Which of a file's settings a new session has to be given again. Pure.

A file that runs outside a transaction runs in several; each begins with the settings
that the file has made so far, as they would be in one session of psql's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from migration_gate.statements import (
    Statement,
    savepoint_name,
    setting_changed,
    transaction_control,
)


# guc_tables.c: GUC_NO_RESET_ALL.
KEPT_BY_RESET_ALL: Final = frozenset({"role", "session_authorization"})


def settings_after(
    made: Sequence[Statement], statements: Sequence[Statement]
) -> tuple[Statement, ...]:
    """
    Return the settings that hold after a unit, in the order in which they were made.

    What a later one replaces, what holds for one transaction only, and what ROLLBACK TO
    undoes, is left out.

    Args:
        made: Those that held before it.
        statements: The unit's.
    """
    kept = tuple(made)
    savepoints: list[tuple[str | None, tuple[Statement, ...]]] = []
    for statement in statements:
        control = transaction_control(statement)
        if control == "savepoint":
            savepoints.append((savepoint_name(statement), kept))
        elif control == "release":
            name = savepoint_name(statement)
            while savepoints and savepoints.pop()[0] != name:
                pass
        elif control == "rollback_to":
            name = savepoint_name(statement)
            while savepoints and savepoints[-1][0] != name:
                savepoints.pop()
            kept = savepoints[-1][1] if savepoints else kept
        else:
            kept = _add(kept, statement)
    return kept


def _add(kept: tuple[Statement, ...], statement: Statement) -> tuple[Statement, ...]:
    if statement.tokens[:2] == (b"discard", b"all"):
        return ()
    change = setting_changed(statement)
    if change is None or change[2] == "local":
        return kept
    name = change[0]
    if name == "all":
        return tuple(s for s in kept if _name(s) in KEPT_BY_RESET_ALL)
    replaced = {name}
    if name == "session_authorization":
        replaced.add("role")  # which it sets to none
    # A SELECT may make more than one.
    others = (s for s in kept if s.tokens[0] == b"select" or _name(s) not in replaced)
    return (*others, statement)


def _name(statement: Statement) -> str:
    change = setting_changed(statement)
    return "" if change is None else change[0]
