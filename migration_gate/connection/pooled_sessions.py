"""
Whether a session has what a URL sets in it, where a pooler does not let it be set.

A pooler refuses what it does not keep track of itself, a search path for one, also
where the server's own defaults say the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import psycopg

from psycopg import sql


if TYPE_CHECKING:
    from migration_gate.connection.limited import LimitedConnection


SCHEMAS: Final = sql.SQL("pg_catalog.current_schemas(false)::pg_catalog.text")
# One transaction, whichever session the pooler gives for it.
ASK: Final = sql.SQL(
    "SELECT {asked}; "
    "SELECT pg_catalog.set_config({name}, {value}, true); "
    "SELECT {asked}"
)


def holds(conn: LimitedConnection, session: Mapping[str, str]) -> bool:
    """Tell whether each parameter means the same as if it were set. Sets nothing."""
    return all(_holds(conn, name, value) for name, value in session.items())


def _holds(conn: LimitedConnection, name: str, value: str) -> bool:
    asked: sql.Composable = SCHEMAS
    if name != "search_path":
        asked = sql.SQL("pg_catalog.current_setting({})").format(name)
    try:
        cursor = conn.execute(ASK.format(asked=asked, name=name, value=value))
        before = cursor.fetchall()
        cursor.nextset()
        cursor.nextset()
    except psycopg.Error:
        return False
    return cursor.fetchall() == before
