"""
What may come of a message beside success: outcomes that the run acts on, no verdicts.
"""

from __future__ import annotations

from migration_gate.report.errors import (
    SqlError,
)


class AlreadyAppliedError(Exception):
    """
    The history has the row: another gate was faster, or a lost COMMIT happened.

    ``constraint`` is the one that the row would violate.
    """

    def __init__(self, version: str, constraint: str | None = None) -> None:
        super().__init__(version)
        self.version = version
        self.constraint = constraint


class DefaultsChangedError(Exception):
    """
    The defaults of the role or the database are not those that the session began with.

    Nothing of the migration at hand was done: it belongs in a new session.
    """


class LocksNotFreeError(Exception):
    """The migration was rolled back because it could not get its locks."""

    def __init__(self, error: SqlError) -> None:
        super().__init__(error.error_message)
        self.error = error


class ConnectionLostError(Exception):
    """The connection ended before the answer came: what was sent may have happened."""
