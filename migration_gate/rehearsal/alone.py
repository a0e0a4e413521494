"""
Whether a database is one that a rehearsal may have: nobody else is in it. Reads only.
"""

from __future__ import annotations

from typing import Any, Final

import psycopg

from psycopg import sql

from migration_gate.connection.qualified import names, qualified
from migration_gate.report.errors import RehearsalError
from migration_gate.settings.settings import HistoryTableName


# Autovacuum is of no role.
OTHERS: Final = qualified(
    """
SELECT pg_catalog.count(*)::pg_catalog.int8
FROM pg_catalog.pg_stat_get_activity(NULL) a
JOIN pg_catalog.pg_database d ON d.oid = a.datid
WHERE d.datname = pg_catalog.current_database()
  AND a.usesysid IS NOT NULL AND a.pid <> pg_catalog.pg_backend_pid()
"""
)
# The histories of other schemas, where a schema is the target.
OTHER_TARGETS: Final = qualified(
    """
SELECT pg_catalog.count(DISTINCT c.relnamespace)::pg_catalog.int8
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relname = ANY ({tables}) AND c.relkind = 'r' AND n.nspname <> {schema}
"""
)
# The same everywhere on one server, and on no other.
IDENTITY: Final = qualified(
    """
SELECT pg_catalog.pg_postmaster_start_time()::pg_catalog.text,
    (SELECT d.oid::pg_catalog.int8 FROM pg_catalog.pg_database d
     WHERE d.datname = pg_catalog.current_database())
"""
)


def require_alone(conn: psycopg.Connection[Any], name: HistoryTableName) -> None:
    """
    Refuse a database that has other clients, or the schemas of others.

    Args:
        conn: Where to ask.
        name: The history, perhaps of one schema of a fleet.

    Raises:
        RehearsalError: It has.
    """
    ((count,),) = conn.execute(OTHERS).fetchall()
    if count:
        sessions = "another session" if count == 1 else f"{count} other sessions"
        raise _not_disposable(f"{sessions} connected to it", "End the sessions, or say")
    if not name.is_target:
        return
    others = OTHER_TARGETS.format(
        tables=names(name.tables), schema=sql.Literal(name.schema)
    )
    ((count,),) = conn.execute(others).fetchall()
    if count:
        schemas = "another schema" if count == 1 else f"{count} other schemas"
        raise _not_disposable(
            f"{schemas} with a history in it", "Where it is a copy, say"
        )


def _not_disposable(why: str, remedy: str) -> RehearsalError:
    return RehearsalError(
        f"the database is not disposable: {why}",
        hint="A rehearsal applies files for real: give it an empty database, or a copy "
        f"that nobody uses. {remedy} --yes-it-is-disposable.",
    )


def identity(conn: psycopg.Connection[Any]) -> tuple[str, int]:
    """Return what tells this database from every other."""
    ((started, oid),) = conn.execute(IDENTITY).fetchall()
    return started, oid
