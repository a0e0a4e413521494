"""
Histories as far as a plan depends on them: rows without times, alike in many.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

from migration_gate.files.migration import AppliedMigration
from migration_gate.history.look import to_tool
from migration_gate.history.rows import ADOPTED_FROM


# Version, checksum, earlier texts, and which tool's history it was taken over of.
Row: TypeAlias = tuple[str, str | None, str | None, str | None]


class History(NamedTuple):
    """Rows that many have alike, oldest first; ``tool`` as in ``Look``."""

    digest: str
    rows: tuple[AppliedMigration, ...]
    tool: str | None


def to_row(
    version: str, checksum: str | None, superseded: str | None, gate_version: str | None
) -> Row:
    """Leave out which version of the gate applied it, unless another tool did."""
    is_adopted = gate_version is not None and gate_version.startswith(ADOPTED_FROM)
    return version, checksum, superseded, gate_version if is_adopted else None


def to_history_of(rows: Iterable[Row], digest: str = "") -> History:
    """Make a history of rows, none of which has a time or a duration."""
    rows = tuple(rows)
    history = tuple(
        AppliedMigration(
            version=version,
            checksum=checksum,
            applied_at="",
            duration_ms=None,
            superseded=superseded or "",
        )
        for version, checksum, superseded, _ in rows
    )
    origins = [origin for *_, origin in rows if origin is not None]
    return History(digest, history, to_tool(min(origins, default=None)))
