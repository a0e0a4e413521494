"""
A table as a terminal shows it: rows become lines. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from migration_gate.report.verdict import UNREAD


def table(rows: Sequence[Sequence[str]]) -> str:
    """
    Return rows as columns; the first one is their heads.

    What is in the database may steer no terminal, and make no line of its own.
    """
    rows = [[_printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in rows
    )


def _printable(cell: str) -> str:
    if cell.isprintable():
        return cell
    return "".join(c if c.isprintable() else UNREAD for c in cell)
