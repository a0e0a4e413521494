"""
Read the rows of small tables as they are, and tell here which are alike. Reads only.

COPY takes the server a third of what a query does: there is nothing to plan, for which
it would open each of a table's indexes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Final, TypeAlias

import psycopg

from psycopg import sql

from migration_gate.connection.simple_query import copy_out
from migration_gate.history.plain_rows import Row, to_row
from migration_gate.history.rows import require_same
from migration_gate.history.table import HistoryTable


# A table with its oid.
Place: TypeAlias = tuple[HistoryTable, int]

# Times are written so that their text can be sorted.
BEGIN: Final = sql.SQL(
    "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; "
    "SET LOCAL lock_timeout = '500ms'; SET LOCAL row_security = off; "
    "SET LOCAL datestyle = 'ISO'; SET LOCAL timezone = 'UTC'; "
)
COMMIT: Final = sql.SQL("COMMIT")
COPY: Final = sql.SQL("COPY ")
TO_CLIENT: Final = sql.SQL(" TO STDOUT; ")
OURS: Final = ("checksum", "superseded", "gate_version")
NULL: Final = b"\\N"
ESCAPE: Final = b"\\"
YEAR_DIGITS: Final = 4


def read_copies(
    conn: psycopg.Connection[Any], tables: Mapping[str, Place]
) -> Iterator[tuple[str, tuple[Row, ...]]]:
    """
    Yield the rows of each table that has any, the oldest first. One round trip.

    One with a text that COPY has to write in another way is left out.

    Raises:
        psycopg.Error: Nothing is known of any of them.
    """
    judged = list(tables.values())
    asks: list[sql.Composable] = []
    for table, _ in judged:
        name = sql.Identifier(table.schema, table.name)
        asks += [COPY, name, _columns(table.our_columns), TO_CLIENT]
    message = sql.Composed([BEGIN, require_same(judged), *asks, COMMIT])
    copies = copy_out(conn, message.as_bytes(conn))
    for (schema, (table, _)), lines in zip(tables.items(), copies, strict=True):
        rows = _to_rows(lines, [name in table.our_columns for name in OURS])
        if rows:
            yield schema, rows


@cache
def _columns(our_columns: frozenset[str]) -> sql.Composed:
    names = "applied_at", "version", *(name for name in OURS if name in our_columns)
    return sql.SQL(" ({})").format(sql.SQL(", ").join(map(sql.Identifier, names)))


def _to_rows(lines: Sequence[bytes], has: Sequence[bool]) -> tuple[Row, ...]:
    """Return the rows in the order of their times; none where one cannot be read."""
    found = []
    for line in lines:
        time, version, *more = line.rstrip(b"\n").split(b"\t")
        if version == NULL:
            continue
        values = iter(more)
        ours = [next(values) if there else NULL for there in has]
        if not _is_sortable(time) or ESCAPE in version:
            return ()
        if any(ESCAPE in value and value != NULL for value in ours):
            return ()
        found.append((time == NULL, time, version, ours))
    found.sort()
    try:
        return tuple(
            to_row(version.decode(), *(_to_text(value) for value in ours))
            for _, _, version, ours in found
        )
    except UnicodeDecodeError:
        return ()


def _is_sortable(time: bytes) -> bool:
    """Tell a time of this calendar's first ten thousand years, or none."""
    if time == NULL:
        return True
    year, dash, _ = time.partition(b"-")
    return (
        bool(dash)
        and len(year) == YEAR_DIGITS
        and year.isdigit()
        and time[-2:] != b"BC"
    )


def _to_text(value: bytes) -> str | None:
    return None if value == NULL else value.decode()
