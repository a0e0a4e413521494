"""
Read another tool's history, to take it over. Reads only.
"""

from __future__ import annotations

from typing import Any, Final

import psycopg

from psycopg import sql

from migration_gate.connection.qualified import qualified
from migration_gate.files.migration import ForeignRow
from migration_gate.history.foreign import Foreign, read_same
from migration_gate.history.readers import READERS


# A time without zone is that of the session.
ROWS: Final = sql.SQL(
    "SELECT ({version})::pg_catalog.text, {state}, "
    "coalesce(pg_catalog.to_char(({time})::pg_catalog.timestamptz AT TIME ZONE 'UTC', "
    "'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), ''), "
    "coalesce(({checksum})::pg_catalog.text, '') "
    "FROM ONLY {table} WHERE {counts} ORDER BY {order}"
)


def read_foreign(
    conn: psycopg.Connection[Any], tool: str, found: Foreign
) -> tuple[ForeignRow, ...]:
    """Return the rows of a tool's history, in the order in which they hold."""
    reader = READERS[tool]
    query = ROWS.format(
        version=qualified(reader.version),
        state=qualified(reader.state),
        time=qualified(reader.time),
        checksum=sql.SQL(reader.checksum),
        table=sql.Identifier(found.schema, found.table),
        counts=qualified(reader.counts),
        order=sql.SQL(reader.order),
    )
    return tuple(ForeignRow(*row) for row in read_same(conn, found, query))
