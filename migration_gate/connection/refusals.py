"""
What the server's no to a statement of the gate's own means: lost, not now, or never.

The one translation of the driver's errors: no other module lets one out. Sends nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg

from migration_gate.connection.waits import awaiting
from migration_gate.report.errors import ServerRefusedError, SqlFailure
from migration_gate.report.outcomes import ConnectionLostError, RefusedForNowError


# PostgreSQL's errcodes.txt: what ends a session, or leaves open how a statement ended.
# 25006: the server was demoted; to wait for the primary, and to look again, is right.
LOSSES: Final = frozenset(
    {
        *("08000", "08001", "08003", "08004", "08006", "08007", "08P01"),
        *("25006", "25P03", "25P04", "40003"),
        *("57P01", "57P02", "57P03", "57P04", "57P05"),
    }
)
# Another try may find it otherwise: a conflict, a lock, a limit, a cancel.
NOT_NOW: Final = frozenset({"40001", "40P01", "55P03", "57014"})

# What ``translated`` raises.
NO_ANSWER: Final = (ConnectionLostError, RefusedForNowError, ServerRefusedError)


@contextmanager
def translated(doing: str, *, full: bool = False) -> Iterator[None]:
    """
    Turn what the driver raises for a statement of the gate's own into the gate's words.

    Args:
        doing: What the statement is for, as in "could not ...".
        full: GATE_LOG_DETAIL=full, PostgreSQL's words as they are.

    Raises:
        ConnectionLostError: The session is gone, or the server is no primary any more.
        RefusedForNowError: Refused, and another try may be answered otherwise.
        ServerRefusedError: Refused.
    """
    try:
        with awaiting(lambda: doing):
            yield
    except psycopg.Error as error:
        raise to_outcome(doing, error, full=full) from error


def to_outcome(doing: str, error: psycopg.Error, *, full: bool = False) -> Exception:
    """Return what the driver's error means; see ``translated``."""
    if isinstance(error, psycopg.OperationalError) and error.sqlstate is None:
        return ConnectionLostError(" ".join(str(error).split()))
    if error.sqlstate is None:  # of the driver itself: a fault of the gate's
        return error
    return refuse(doing, to_failure(error), full=full)


def refuse(doing: str, failure: SqlFailure, *, full: bool = False) -> Exception:
    """Return what an error means that answers a statement of the gate's own."""
    from migration_gate.report.cleaning import (  # noqa: PLC0415  # most hear no error
        clean_failure,
        is_raised,
    )
    from migration_gate.report.remedies import (  # noqa: PLC0415
        find_own_remedy,
    )

    chosen = is_raised(failure)  # by a trigger, which can say any SQLSTATE
    is_lost = failure.sqlstate in LOSSES and not chosen
    if failure.ends_session or failure.sqlstate is None or is_lost:
        words = clean_failure(failure, full=full)["error_message"]
        return ConnectionLostError(words or "", failure.sqlstate)
    refusal = ServerRefusedError(
        doing,
        sqlstate=failure.sqlstate,
        said=clean_failure(failure, full=full),
        hint=find_own_remedy(failure, full=full),
    )
    if failure.sqlstate in NOT_NOW and not chosen:
        return RefusedForNowError(refusal)
    return refusal


def to_failure(error: psycopg.Error) -> SqlFailure:
    """Return the fields of an error as PostgreSQL gave them."""
    diag = error.diag
    position = diag.statement_position
    return SqlFailure(
        sqlstate=error.sqlstate,
        message=diag.message_primary,
        detail=diag.message_detail,
        hint=diag.message_hint,
        context=diag.context,
        constraint=diag.constraint_name,
        table=diag.table_name,
        source=diag.source_function,
        severity=diag.severity_nonlocalized,
        position=int(position) if position else None,
    )
