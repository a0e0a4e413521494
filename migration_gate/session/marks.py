"""
Marks: how far a message is, in the session's application_name.

The server answers a message at its end; a session's name is seen by others at once.
"""

from __future__ import annotations

import re

from typing import Final

from migration_gate.connection.connect import APPLICATION_NAME


MARK: Final = re.compile(r" file (\d+) statement (\d+)$")


def to_mark(index: int, statement: int) -> str:
    """
    Return the name of a session that has come to a statement.

    Args:
        index: The migration's among those of the message, from 0.
        statement: The statement's number in its file.
    """
    return f"{APPLICATION_NAME} file {index + 1} statement {statement}"


def from_mark(name: str) -> tuple[int, int] | None:
    """Return what a mark says; None for a name that is none."""
    found = MARK.search(name)
    return (int(found[1]) - 1, int(found[2])) if found else None
