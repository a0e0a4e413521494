"""
Whether a database is one that a rehearsal may have: nobody else is in it. Reads only.
"""

from __future__ import annotations

from typing import Any, Final

import psycopg

from migration_gate.connection.qualified import qualified
from migration_gate.report.errors import RehearsalError


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
# The same everywhere on one server, and on no other.
IDENTITY: Final = qualified(
    """
SELECT pg_catalog.pg_postmaster_start_time()::pg_catalog.text,
    (SELECT d.oid::pg_catalog.int8 FROM pg_catalog.pg_database d
     WHERE d.datname = pg_catalog.current_database())
"""
)


def require_alone(conn: psycopg.Connection[Any]) -> None:
    """
    Refuse a database that has other clients.

    Raises:
        RehearsalError: It has.
    """
    ((count,),) = conn.execute(OTHERS).fetchall()
    if count:
        sessions = "another session" if count == 1 else f"{count} other sessions"
        raise RehearsalError(
            f"the database is not disposable: {sessions} connected to it",
            hint="A rehearsal applies files for real: give it an empty database, or a "
            "copy that nobody uses. End the sessions, or say "
            "--yes-it-is-disposable.",
        )


def identity(conn: psycopg.Connection[Any]) -> tuple[str, int]:
    """Return what tells this database from every other."""
    ((started, oid),) = conn.execute(IDENTITY).fetchall()
    return started, oid
