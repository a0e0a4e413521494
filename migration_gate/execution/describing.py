"""
What may be told of an error, with its place in the file.
"""

from __future__ import annotations

from typing import Any, Final

from migration_gate.execution.worker import Worker
from migration_gate.files.script import Script
from migration_gate.report.cleaning import clean_failure
from migration_gate.report.errors import SqlError, SqlFailure


LOCK_STATES: Final = frozenset({"55P03", "40P01", "40001"})


def describe_failure(  # noqa: PLR0913  # a place has several sides
    worker: Worker,
    script: Script,
    failure: SqlFailure,
    *,
    line: int | None = None,
    column: int | None = None,
    is_filled_in: bool = False,
) -> SqlError:
    """
    Return what may be told of an error, with its place.

    Where PostgreSQL points into a variable's value, it may quote any part of that.
    """
    version = script.migration.version
    full = worker.settings.log_detail == "full" and not is_filled_in
    cleaned: dict[str, Any] = {
        name: worker.redact(said)
        for name, said in clean_failure(failure, full=full).items()
    }
    return SqlError(
        version=version,
        file=script.migration.file,
        sqlstate=failure.sqlstate,
        line=line,
        column=column,
        **cleaned,
    )
