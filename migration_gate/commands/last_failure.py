"""
Why the last attempt failed: written down by whoever made it, read by whoever waits.

Changes no verdict: what cannot be written or read is left out.
"""

from __future__ import annotations

import time

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from typing import Final

from psycopg import pq

from migration_gate.connection.connect import open_connection
from migration_gate.connection.limited import LimitedConnection
from migration_gate.connection.not_ready import NotReadyError
from migration_gate.connection.refusals import NO_ANSWER
from migration_gate.connection.waits import Stopped, ending
from migration_gate.files.migration import Migration, version_to_key
from migration_gate.history.failures import (
    UNDOING,
    Failure,
    forget_failures,
    keep_failure,
    read_failures,
    to_failure,
)
from migration_gate.planning.plan import Plan
from migration_gate.report.errors import GateError, IncompleteError
from migration_gate.report.verdict import Tally
from migration_gate.session.session import Session


CONNECT_LIMIT_S: Final = 2.0
NAMES_SHOWN: Final = 5
# Neither amid an answer, as when a signal came, nor failed.
QUIET: Final = (pq.TransactionStatus.IDLE, pq.TransactionStatus.INTRANS)


def find_failures(
    session: Session, plan: Plan, *, of_undoing: bool = False
) -> tuple[Failure, ...]:
    """
    Return why the last attempts at what is pending failed. Reads only.

    Args:
        of_undoing: Those that failed to undo what is applied, too.
    """
    table = session.seen.table
    if table is None or not table.has_failures or not (plan.pending or of_undoing):
        return ()
    pending = [migration.version for migration in plan.pending]
    if not of_undoing:
        return read_failures(session.conn, table, pending)
    keys = {migration.key for migration in plan.pending}
    rows = {version_to_key(row.version): row for row in session.seen.history}
    versions = [*pending, *(row.version for row in session.seen.history)]
    return tuple(
        failure
        for failure in read_failures(session.conn, table, versions)
        if (key := version_to_key(failure.version)) in keys
        or (
            failure.message.startswith(UNDOING)
            and failure.failed_at >= rows[key].applied_at
        )
    )


def incomplete(
    pending: Sequence[Migration], failures: Sequence[Failure] = ()
) -> GateError:
    """Return the error that says what is not applied, and why the last try failed."""
    names = ", ".join(f'"{m.version}"' for m in pending[:NAMES_SHOWN])
    more = len(pending) - NAMES_SHOWN
    message = f"not applied: {names}" + (f" and {more} more" if more > 0 else "")
    hint = (
        "Look at the job or init container that runs migrate with these files; "
        "this command only looks."
    )
    if failures:
        last = failures[0]
        message += f"; the last attempt failed at {last.failed_at}: {last}"
        hint = f"{last.hint} {hint}".lstrip()
    return IncompleteError(message, hint=hint)


@contextmanager
def failures_kept(  # noqa: PLR0913  # what a block was about, and how it is told
    held: Session,
    migrations: Sequence[Migration],
    tally: Tally,
    settled: Sequence[str],
    clean: Callable[[str], str],
    *,
    doing: str = "",
) -> Iterator[None]:
    """
    Write down what a block fails of, and forget what was written of what it settles.

    The lock is held, and the block's own connection gone.

    Args:
        migrations: What the block is about.
        settled: The versions that it has applied, or undone, so far.
        clean: Takes out what the log may not show: others read it in theirs.
        doing: What failed, before the reason; empty where it is to apply.
    """
    try:
        yield
    except GateError as error:
        versions = {migration.file: migration.version for migration in migrations}
        failure = to_failure(error, versions)
        if failure is not None:
            message, hint = clean(failure.message), clean(failure.hint)
            _keep(held, replace(failure, message=doing + message, hint=hint))
        raise
    except Stopped as stop:
        version = next(iter(tally.in_doubt), None)
        if version is not None and not held.is_pooled:
            why = clean(str(stop.error))
            with ending():
                hint = clean(stop.error.hint)
                _keep(held, Failure(version=version, message=doing + why, hint=hint))
        raise
    table = held.seen.table
    if table is not None and table.has_failures and settled:
        with suppress(GateError, NotReadyError), _writing(held) as conn:
            forget_failures(conn, table, settled)


def _keep(held: Session, failure: Failure) -> None:
    """Write a failure down, unless the server or the connection stands in the way."""
    if not held.is_alive or held.conn.info.transaction_status not in QUIET:
        return
    with suppress(GateError, NotReadyError, *NO_ANSWER):
        # A first run has made the history since it looked.
        table = held.seen.table or held.look_again().table
        if table is not None:
            with _writing(held) as conn:
                keep_failure(conn, table, failure)


@contextmanager
def _writing(held: Session) -> Iterator[LimitedConnection]:
    """
    Give the connection to write with.

    Through a pooler the lock is an open transaction, which a failed write would end.
    """
    if not held.is_pooled:
        yield held.conn
        return
    until_s = time.monotonic() + CONNECT_LIMIT_S
    database = held.settings.database
    with closing(open_connection(database, until_s=until_s, **held.address)) as conn:
        yield conn
