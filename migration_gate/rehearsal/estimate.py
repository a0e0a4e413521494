"""
How long a statement may take on the real tables, roughly. Pure.

The rates are those of a modest server whose tables are not in memory; a table that is
gives less, a disk that is shared more. What is meant is a second, a minute or an hour.
"""

from __future__ import annotations

from typing import Final

from migration_gate.rehearsal.facts import Size, Sizes, Touched


SCANNED_BYTES_PER_MS: Final = 200_000
WRITTEN_BYTES_PER_MS: Final = 40_000
BUILT_ROWS_PER_MS: Final = 500


def size_of(touched: Touched, sizes: Sizes | None) -> Size | None:
    """Return the real size of a relation; None where it is not known."""
    relation = touched.relation
    return (sizes or {}).get((relation.schema, relation.name))


def rough_ms(touched: Touched, size: Size) -> float:
    """Return how long it takes to read, build or write what was."""
    if touched.is_rewritten:
        written = size.table_bytes / WRITTEN_BYTES_PER_MS
        return written + size.rows / BUILT_ROWS_PER_MS * bool(size.index_bytes)
    scanned = size.table_bytes / SCANNED_BYTES_PER_MS
    if touched.built:
        return scanned + size.rows / BUILT_ROWS_PER_MS
    return scanned if touched.is_scanned else 0.0


def weigh(touched: Touched, sizes: Sizes | None) -> float | None:
    """Return for how many milliseconds it keeps a statement busy; None: not known."""
    size = size_of(touched, sizes)
    return None if size is None else rough_ms(touched, size)
