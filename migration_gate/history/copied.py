"""
Read the rows of small tables as they are, and tell here which are alike. Reads only.

COPY takes the server a third of what a query does: there is nothing to plan, for which
it would open each of a table's indexes.
"""

from __future__ import annotations

import re

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Final, NamedTuple, TypeAlias

import psycopg

from psycopg import sql

from migration_gate.connection.qualified import quoted
from migration_gate.connection.simple_query import copy_out
from migration_gate.history.plain_rows import Row, to_row
from migration_gate.history.rows import VERSION_READ_MAX, require_same
from migration_gate.history.table import HistoryTable


# A table with its oid.
Place: TypeAlias = tuple[HistoryTable, int]

# Times are written so that their text can be sorted.
BEGIN: Final = (
    b"BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; "
    b"SET LOCAL lock_timeout = '500ms'; SET LOCAL row_security = off; "
    b"SET LOCAL datestyle = 'ISO'; SET LOCAL timezone = 'UTC'; "
)
OURS: Final = ("checksum", "superseded", "gate_version")
NULL: Final = b"\\N"
ESCAPE: Final = b"\\"
BETWEEN: Final = b"\t"
# A char(…) ends in some that mean nothing.
BLANK: Final = b" "
# A table may never have been counted; twice what its pages have room for.
BYTES_MAX: Final = 64 << 10
# A time of this calendar's first ten thousand years, or none.
SORTABLE: Final = re.compile(rb"\d{4}-.*(?<!BC)|\\N")


class Copied(NamedTuple):
    """
    What the rows of a table have alike with those of others: lines without times.

    They are in the order of the times; a line has the version, then what there is of
    ``OURS`` among ``our_columns``, as COPY writes them.
    """

    our_columns: frozenset[str]
    lines: tuple[bytes, ...]


def read_copies(
    conn: psycopg.Connection[Any], tables: Mapping[str, Place]
) -> Iterator[tuple[str, Copied | None]]:
    """
    Return the rows of each table. One round trip.

    None stands for more than a small table has. One with a time that cannot be sorted
    as text is left out.

    Raises:
        psycopg.Error: Nothing is known of any of them.
    """
    judged = list(tables.values())
    parts = [BEGIN, require_same(judged).as_bytes(conn)]
    for table, _ in judged:
        name = quoted(table.schema, table.name).as_bytes(conn)
        parts += [b"COPY ", name, _columns(table.our_columns), b" TO STDOUT; "]
    copies = copy_out(conn, b"".join([*parts, b"COMMIT"]), BYTES_MAX)
    return _to_copied(tables, copies)


def _to_copied(
    tables: Mapping[str, Place], copies: Sequence[Sequence[bytes] | None]
) -> Iterator[tuple[str, Copied | None]]:
    for (schema, (table, _)), lines in zip(tables.items(), copies, strict=True):
        if lines is None:
            yield schema, None
            continue
        sorted_lines = _sort(lines)
        if sorted_lines is not None:
            yield schema, Copied(table.our_columns, sorted_lines)


@cache
def _columns(our_columns: frozenset[str]) -> bytes:
    names = "applied_at", "version", *(name for name in OURS if name in our_columns)
    columns = sql.SQL(", ").join(map(sql.Identifier, names))
    return sql.SQL(" ({})").format(columns).as_bytes()


def _sort(lines: Sequence[bytes]) -> tuple[bytes, ...] | None:
    """Return the lines without their times, in the order of these; without one last."""
    timed = []
    for line in lines:
        time, _, rest = line.partition(BETWEEN)
        if not SORTABLE.fullmatch(time):
            return None
        timed.append((time == NULL, time, rest))
    timed.sort()
    return tuple(rest for *_, rest in timed)


def to_rows(copied: Copied) -> tuple[Row, ...]:
    """
    Return the rows that have a version; none where one cannot be read.

    A text that COPY writes in another way than a query is not.
    """
    has = [name in copied.our_columns for name in OURS]
    rows = []
    for line in copied.lines:
        version, *more = line.rstrip(b"\n").split(BETWEEN)
        if version == NULL:
            continue
        values = iter(more)
        texts = [version, *(next(values) if there else NULL for there in has)]
        if version.endswith(BLANK):
            return ()
        if any(ESCAPE in text and text != NULL for text in texts):
            return ()
        try:
            name = version.decode()[:VERSION_READ_MAX]
            rows.append(to_row(name, *map(_to_text, texts[1:])))
        except UnicodeDecodeError:
            return ()
    return tuple(rows)


def _to_text(value: bytes) -> str | None:
    return None if value == NULL else value.decode()
