"""
Record in the history what is applied already, all of it or nothing: needs the lock.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from psycopg import sql

from migration_gate.commands.apply import open_worker
from migration_gate.connection.waits import interruptible
from migration_gate.execution.invalid import find_invalid, is_built
from migration_gate.execution.worker import Worker
from migration_gate.files.folder import read_statements
from migration_gate.files.migration import AppliedMigration, Migration
from migration_gate.history.creation import HistoryMadeError
from migration_gate.history.guarding import guarded
from migration_gate.history.progress import SUFFIX
from migration_gate.history.rows import insert_adopted
from migration_gate.history.table import HistoryTable
from migration_gate.history.writing import explain_write
from migration_gate.report.errors import (
    DatabaseUnreachableError,
    HistoryError,
    ServerRefusedError,
    UnresolvedError,
)
from migration_gate.report.log import Log
from migration_gate.report.outcomes import ConnectionLostError, RefusedForNowError
from migration_gate.session.session import Session
from migration_gate.statements import created_index


RIGHTS: Final = ("SELECT", "INSERT", "UPDATE", "DELETE")


@contextmanager
def by_hand() -> Iterator[None]:
    """
    Close the gate where what a person says could not be written.

    Raises:
        DatabaseUnreachableError: It may or may not have been.
        HistoryError: Another gate made the history meanwhile.
        ServerRefusedError: PostgreSQL refused it.
    """
    try:
        yield
    except HistoryMadeError as error:
        raise HistoryError(
            f'another gate made the history, "{error.version}", meanwhile',
            hint="Nothing was written. Look with the command status, then give the "
            "command again.",
        ) from error
    except ConnectionLostError as error:
        raise DatabaseUnreachableError(
            f"the connection was lost while the history was written: {error}",
            hint="Look with the command status whether it was, or give the command "
            "again.",
        ) from error
    except RefusedForNowError as error:
        raise error.refusal from error


def record_first(
    held: Session,
    rows: Sequence[tuple[AppliedMigration, str]],
    log: Log,
    *,
    require_valid_of: Sequence[Migration] = (),
) -> None:
    """
    Write the first rows of the history, in the transaction that makes its table.

    Args:
        held: Holds the lock, and has seen no row.
        rows: Each with what is recorded as gate_version.
        require_valid_of: The files whose indexes must not be invalid.

    Raises:
        UnresolvedError: An index that a file builds is invalid.
    """
    if require_valid_of:
        require_valid(held, require_valid_of)

    def fill(table: HistoryTable) -> sql.Composed:
        return insert_adopted(table, rows)

    with open_worker(held.settings, held, log, fill) as worker:
        if held.seen.table is not None:
            execute(worker, [fill(worker.table)])


class HasRowsError(HistoryError):
    """The history has its first row already."""


def has_rows(what: str) -> HistoryError:
    """Return the error for a first row where there are some."""
    return HasRowsError(
        f"the gate has a history with rows already: {what}",
        hint="The command status shows it; resolve VERSION --applied adds to it.",
    )


def require_valid(worker: Worker | Session, migrations: Sequence[Migration]) -> None:
    """Refuse a word that would leave the application without an index."""
    with worker.translated("ask which indexes are invalid"):
        found = find_invalid(worker.conn)
    for migration in migrations if found else ():
        with interruptible():
            statements = read_statements(worker.settings.migrations, migration)
        created = [index for s in statements if (index := created_index(s))]
        invalid = [index for index in found if is_built(index, created)]
        if invalid:
            verb = "is" if len(invalid) == 1 else "are"
            noun = "index" if len(invalid) == 1 else "indexes"
            raise UnresolvedError(
                f'"{migration.version}" cannot be declared applied: {noun} '
                f"{', '.join(map(str, invalid))}, which it builds, {verb} invalid",
                hint="No query uses what is invalid. Unless somebody is building it "
                f"at this moment: {' '.join(index.remedy for index in invalid)} Then "
                "start the gate, which builds it.",
                version=migration.version,
            )


def execute(worker: Worker, statements: Sequence[sql.Composed]) -> None:
    """Send statements as one message: PostgreSQL does all of them, or none."""
    table, role = worker.table, worker.acting_role
    if not statements:
        return
    try:
        with worker.translated(f'write to table "{table.schema}.{table.name}"'):
            written = ("", SUFFIX) if table.has_progress else ("",)
            every = sql.SQL("; ").join(statements)
            worker.conn.execute(guarded(table, written, every))
    except ServerRefusedError as refusal:
        error = explain_write(worker.conn, table, role, refusal, rights=RIGHTS)
        raise error from refusal
