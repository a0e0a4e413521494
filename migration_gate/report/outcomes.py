"""
What may come of a message beside success: outcomes that the run acts on, no verdicts.
"""

from __future__ import annotations

from migration_gate.report.errors import ServerRefusedError, SqlError


class AlreadyAppliedError(Exception):
    """
    The history has the row: another gate was faster, or a lost COMMIT happened.

    ``constraint`` is the one that the row would violate.
    """

    def __init__(self, version: str, constraint: str | None = None) -> None:
        super().__init__(version)
        self.version = version
        self.constraint = constraint


class NotAppliedError(Exception):
    """
    The history has no row of what was to be undone: somebody was faster.

    Nothing of it was done.
    """


class TurnTakenError(Exception):
    """Another gate has the lock, and is not waited for: it has the target."""


class NoRoomError(Exception):
    """The server has no room for a second connection, and the first is given back."""


class DefaultsChangedError(Exception):
    """
    The defaults of the role or the database are not those that the session began with.

    Nothing of the migration at hand was done: it belongs in a new session.
    """


class PathLeftError(Exception):
    """
    A file has led away from the search path that was set for it, in a kept session.

    What resets the path there comes to the role's. Nothing of the migration at hand was
    done: it belongs in a session that begins with the path of its target.
    """


class LocksNotFreeError(Exception):
    """The migration was rolled back because it could not get its locks."""

    def __init__(self, error: SqlError) -> None:
        super().__init__(error.error_message)
        self.error = error


class ConnectionLostError(Exception):
    """
    The connection ended before the answer came: what was sent may have happened.

    ``words`` say why, as far as anybody said; ``sqlstate`` is None where the server
    said nothing.
    """

    def __init__(self, words: str, sqlstate: str | None = None) -> None:
        super().__init__(words + (f" (SQLSTATE {sqlstate})" if sqlstate else ""))
        self.words = words
        self.sqlstate = sqlstate


class RefusedForNowError(Exception):
    """
    PostgreSQL refused a statement of the gate's own, and may answer another try.

    ``refusal`` closes the gate where no try is left.
    """

    def __init__(self, refusal: ServerRefusedError) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal
