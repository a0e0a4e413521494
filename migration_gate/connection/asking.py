"""
Questions at the start: what keeps one from its answer is "not yet".
"""

from __future__ import annotations

import time

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg

from migration_gate.connection.causes import (
    BY_SQLSTATE,
    NO_ANSWER,
    NO_RIGHT,
    NOT_NOW,
    STATEMENT_REFUSED,
)
from migration_gate.connection.dialing import address_of
from migration_gate.connection.limited import (
    ANSWER_TIMEOUT_S,
    LimitedConnection,
    limited,
)
from migration_gate.connection.not_ready import NotReadyError
from migration_gate.connection.refusals import to_outcome
from migration_gate.connection.texts import find_cause, shorten_text
from migration_gate.connection.waits import NoAnswerError, awaiting
from migration_gate.report.errors import ServerRefusedError
from migration_gate.report.outcomes import ConnectionLostError, RefusedForNowError


# What a question has at the very end of a wait, on what has let us in.
ANSWER_TIMEOUT_MIN_S: Final = 5.0


@contextmanager
def asking(
    conn: LimitedConnection,
    doing: str,
    *,
    timeout_s: float = ANSWER_TIMEOUT_S,
    full: bool = False,
) -> Iterator[None]:
    """
    Turn the driver's error for a question at the start into NotReadyError.

    No answer for long is one: a pooler takes the login while its server is away, and
    another session may lock the table. What the server refuses may come right, as a
    right that is being granted does.

    Args:
        doing: What is asked for, as in "could not ...".
        full: GATE_LOG_DETAIL=full, PostgreSQL's words as they are.
    """
    if conn.until_s is not None:
        left_s = max(conn.until_s - time.monotonic(), ANSWER_TIMEOUT_MIN_S)
        timeout_s = min(timeout_s, left_s)
    try:
        with limited(conn, timeout_s), awaiting(lambda: doing):
            yield
    except NoAnswerError as error:
        raise NotReadyError(NO_ANSWER, f"logged in, but {error}") from error
    except psycopg.Error as error:
        raise _to_no_answer(conn, to_outcome(doing, error, full=full)) from error


def _to_no_answer(conn: LimitedConnection, outcome: Exception) -> Exception:
    """Return what keeps a question at the start from its answer as "not yet"."""
    if isinstance(outcome, ConnectionLostError):
        said, sqlstate = outcome.words, outcome.sqlstate or ""
        cause = BY_SQLSTATE.get(sqlstate) or find_cause(said)
        return NotReadyError(cause, shorten_text(said), address=address_of(conn.pgconn))
    if isinstance(outcome, RefusedForNowError):
        refusal = outcome.refusal
        return NotReadyError(NOT_NOW, refusal.message, refusal)
    if isinstance(outcome, ServerRefusedError):
        cause = NO_RIGHT if outcome.sqlstate == "42501" else STATEMENT_REFUSED
        return NotReadyError(cause, outcome.message, outcome)
    return outcome
