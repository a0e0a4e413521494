"""
The end of a file that runs outside a transaction: its row and its progress, in one.
"""

from __future__ import annotations

from psycopg import sql

from migration_gate.applying.file_run import BOTH, FileRun
from migration_gate.connection.qualified import qualified
from migration_gate.connection.simple_query import Row
from migration_gate.execution.exchange import Hooks
from migration_gate.execution.frame import begin
from migration_gate.execution.message import Own, single
from migration_gate.execution.worker import own
from migration_gate.files.migration import AppliedMigration
from migration_gate.history.progress import delete_units, progress_table
from migration_gate.history.rows import insert_row, remove_rows, replace_row, to_text


def record(run: FileRun) -> AppliedMigration:
    """Write the history row and forget the progress, in one transaction."""
    worker, task, table = run.worker, run.task, run.worker.table
    duration = sql.SQL("({})").format(_duration(run))
    read_back = qualified("SELECT {}, {} FROM {} WHERE version = {}").format(
        duration,
        to_text(has_zone=table.has_zone),
        sql.Identifier(table.schema, table.name),
        task.version,
    )
    checksum = task.script.migration.checksum
    if task.replaced is not None:
        row = replace_row(table, task.replaced, checksum, duration)
    else:
        row = insert_row(table, task.version, checksum, duration)
    duration_ms, applied_at = _end(
        run, own(worker, "row", row), own(worker, "finish", read_back)
    )
    return AppliedMigration(
        version=task.version,
        checksum=checksum,
        applied_at=applied_at or "",
        duration_ms=int(duration_ms or 0),
    )


def forget(run: FileRun) -> AppliedMigration:
    """Forget the progress, and the row of a migration of which nothing was to undo."""
    worker, task, table = run.worker, run.task, run.worker.table
    parts = [own(worker, "finish", _duration(run))]
    if task.undoes and not run.row_is_gone:
        parts.append(own(worker, "gone", remove_rows(table, task.undoes)))
    duration_ms, *_ = _end(run, *parts)
    return AppliedMigration(version=task.version, duration_ms=int(duration_ms or 0))


def _duration(run: FileRun) -> sql.Composed:
    """Return the query for how long all units took, in milliseconds."""
    return qualified(
        "SELECT coalesce(pg_catalog.sum(duration_ms), 0)::pg_catalog.int8 FROM {} "
        "WHERE version = {}"
    ).format(progress_table(run.worker.table), run.task.version)


def _end(run: FileRun, *parts: Own) -> Row:
    """Run statements, forget the progress, commit; return the row of "finish"."""
    worker, task = run.worker, run.task
    message = single(
        task,
        [
            *begin(worker, task.script, writes=BOTH),
            *parts,
            own(worker, "forget", delete_units(worker.table, task.version)),
            Own("commit", b"COMMIT"),
        ],
    )
    rows: list[Row] = []
    run.exchange(message, Hooks(on_commit=lambda _, row: rows.append(row)))
    (row,) = rows
    return row
