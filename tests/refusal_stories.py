"""
With what a statement is refused, and which of a gate's ends tell that as what it is.
"""

from __future__ import annotations

import re

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from migration_gate.connection.refusals import LOSSES, NOT_NOW
from tests.faults import NotSurvivedError
from tests.forks import Ended


# One of each class that can meet a statement, and of what the gate tells apart.
STATES: Final = (
    *("08006", "0A000", "21000", "22012", "23505", "23514", "25006", "25P02"),
    *("28000", "2BP01", "39P03", "40001", "40003", "40P01", "42501", "42601", "42704"),
    *("42P01", "42P07", "53100", "53200", "53400", "54000", "55000", "55006", "55P03"),
    *("57014", "57P01", "57P03", "57P05", "58030", "F0000", "HV000", "P0001"),
    *("XX000", "XX001"),
)
FATAL: Final = frozenset({"57P01", "57P05", "XX001"})
# Nothing in the gate asks for these: each statement meets some of them in turn.
ALIKE: Final = (
    *("0A000", "21000", "25P02", "28000", "2BP01", "39P03", "53200", "53400", "54000"),
    *("55006", "58030", "F0000", "HV000", "XX000"),
)
# What the gate has a SQLSTATE tell it, by words of the statement that may be answered
# so: its story is then another one than "refused".
# Of a message the gate knows that it was refused, and not which statement of it.
MADE: Final = (("CREATE TABLE|relkind|ROLE|^COMMIT", "was made or moved by others"),)
# The row of the file, or of its statement, or the whole table is not there, though
# nobody else has touched that: so the file did it, before it was rolled back.
REMOVED: Final = "removes the history table, or writes rows of it"
STORIES: Final[Mapping[str, tuple[tuple[str, str], ...]]] = MappingProxyType(
    {
        "22012": (("duration_ms", REMOVED),),
        "42704": (
            ("migration_gate.recorded", REMOVED),
            ("SET (LOCAL )?ROLE", "GATE_ROLE names a role that does not exist"),
        ),
        "42P01": (("relkind|SET applied_at|duration_ms", REMOVED),),
        **dict.fromkeys(("23505", "42P07"), MADE),
    }
)
LACKS: Final = re.compile(r"\blacks\b|\bmay not\b")
# What a file has deferred fails there.
COMMIT_WORDS: Final = (b"COMMIT", b"SET CONSTRAINTS ALL IMMEDIATE")


def judge_story(text: bytes, sqlstate: str, ended: Ended, *, is_file: bool) -> None:
    """
    Require that the run went on, or that its last line says what was refused.

    Args:
        text: The statement.
        is_file: It is a file's.

    Raises:
        NotSurvivedError: It says something else.
    """
    story = _find_fault(text, sqlstate, ended, is_file=is_file)
    if story is not None:
        words = f"{story}: {ended.story}"
        raise NotSurvivedError(words)


def _find_fault(
    text: bytes, sqlstate: str, ended: Ended, *, is_file: bool
) -> str | None:
    verdict = ended.verdict
    reason, message = verdict.get("reason"), str(verdict.get("error_message", ""))
    is_named = sqlstate in message or verdict.get("sqlstate") == sqlstate
    is_lost = sqlstate in LOSSES | FATAL
    is_of_file = is_file or text.strip().startswith(COMMIT_WORDS)
    if ended.exit_code == 0 and verdict:
        return None
    if ended.exit_code != 1 or not verdict:
        return "it has no verdict"
    faults = {
        f"it is {reason}": reason in {"internal", "deadline", None},
        "it tells of a lost connection": reason == "unreachable"
        and not (is_lost or sqlstate in NOT_NOW),
        "it tells of a loss": "lost" in message and not is_lost,
        "it tells of a right that is there": LACKS.search(message),
        "it does not name what was refused": not is_named
        and not _is_told(text, sqlstate, message),
        "it blames a file": reason == "migration_failed" and not is_of_file,
    }
    return next((fault for fault, is_there in faults.items() if is_there), None)


def _is_told(text: bytes, sqlstate: str, message: str) -> bool:
    words = " ".join(text.decode(errors="replace").split())
    return any(
        re.search(statement, words) and re.search(told, message)
        for statement, told in STORIES.get(sqlstate, ())
    )
