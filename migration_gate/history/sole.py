"""
Refuse a history of which another one makes it doubtful that it is ours. Reads only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg

from migration_gate.files.migration import Migration, version_to_key
from migration_gate.history.choice import ways_out
from migration_gate.history.look import Look, ask_rows
from migration_gate.history.table import recognise_table
from migration_gate.report.errors import HistoryError
from migration_gate.settings.settings import HistoryTableName


def require_sole(
    conn: psycopg.Connection[Any],
    seen: Look,
    name: HistoryTableName,
    applied: Sequence[Migration],
    pending: Sequence[Migration],
) -> tuple[str, ...]:
    """
    Refuse to apply what may be applied already, by another table of the same name.

    Returns the schemas of tables that may be the history of these files too: a gate
    whose search path leads there could apply them at this moment.

    Raises:
        HistoryError: The one table was found in a schema that the search path does not
            name, and has none of these files; or another table has one that is
            pending: as it stands here, or any, where it has another as that stands.
    """
    if seen.is_elsewhere and seen.history and not applied:
        raise _unrelated(seen, name)
    keys = {migration.key for migration in (*applied, *pending)}
    rivals = []
    for facts in seen.others:
        rows, _ = ask_rows(conn, recognise_table(facts), facts["oid"]) or ((), None)
        checksums = {version_to_key(row.version): row.checksum for row in rows}
        # Where it has one of these very files, its others were once these too.
        is_kin = any(checksums.get(m.key) == m.checksum for m in (*applied, *pending))
        for migration in pending:
            checksum = checksums.get(migration.key, "")
            if checksum in {None, migration.checksum} or (checksum and is_kin):
                raise _applied_by_another(seen, name, migration, str(facts["schema"]))
        if not rows or keys & checksums.keys():
            rivals.append(str(facts["schema"]))
    return tuple(rivals)


def _unrelated(seen: Look, name: HistoryTableName) -> HistoryError:
    return HistoryError(
        f'table "{seen.schema}.{name.table}", which the search path does not name, has '
        "rows, and none is of a file here",
        hint="Where it is the history of these files, set "
        f"GATE_HISTORY_TABLE={seen.schema}.{name.table}; where another application "
        "keeps it, name a table of this one's own, with its schema: "
        f"GATE_HISTORY_TABLE=SCHEMA.{name.table}.",
    )


def _applied_by_another(
    seen: Look, name: HistoryTableName, migration: Migration, schema: str
) -> HistoryError:
    return HistoryError(
        f'two tables could be the history: "{migration.version}" is pending by '
        f'"{seen.schema}.{name.table}", and applied by "{schema}.{name.table}"',
        hint=ways_out([str(seen.schema), schema], name),
    )
