"""
A rehearsal's report as a value, and as JSON: what a program reads. Pure.
"""

from __future__ import annotations

import json

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Final

from migration_gate import __version__
from migration_gate.rehearsal.estimate import rough_ms, size_of
from migration_gate.rehearsal.facts import (
    KINDS,
    MODES,
    Finding,
    Sizes,
    Touched,
    Transaction,
)
from migration_gate.rehearsal.judging import judge, window_ms
from migration_gate.report.findings import FINDINGS


FORMAT: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RelationLine:
    """
    A relation that a statement locked or worked through.

    ``waits`` are the queries that wait for its lock, for ``window_ms`` at most.
    ``rows_changed`` were updated or deleted, by functions too. Real sizes, and the
    rough time from them, are None where they are not known.
    """

    relation: str
    kind: str
    lock: str | None
    waits: tuple[str, ...]
    window_ms: float | None
    rewritten: bool
    scanned: bool
    index_built: bool
    rows_changed: int
    real_bytes: int | None
    real_rows: int | None
    rough_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingLine:
    """One finding; ``accepted`` is the file's reason, ``refused`` closes the gate."""

    name: str
    relation: str | None
    detail: str
    means: str
    remedy: str
    accepted: str | None
    refused: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementLine:
    """One statement, or several alike in a row, and what it did."""

    line: int
    column: int
    statement: int
    statements: int
    command: str
    in_transaction: bool
    duration_ms: float
    rows: int | None
    wal_bytes: int
    relations: tuple[RelationLine, ...]
    findings: tuple[FindingLine, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileLine:
    """One migration; ``committed`` tells that it came to its end."""

    version: str
    file: str
    committed: bool
    statements: tuple[StatementLine, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """
    What a rehearsal found.

    ``closed`` is why it ended early; None where all files were rehearsed.
    """

    format: int
    gate_version: str
    server_version: str
    sizes_known: bool
    closed: str | None
    files: tuple[FileLine, ...]

    def findings(self) -> Iterator[tuple[FileLine, StatementLine, FindingLine]]:
        """Yield each finding, with where it is."""
        for file in self.files:
            for statement in file.statements:
                for finding in statement.findings:
                    yield file, statement, finding

    def refused(self) -> list[tuple[FileLine, StatementLine, FindingLine]]:
        """Return the findings that close the gate."""
        return [found for found in self.findings() if found[2].refused]


def make_report(
    transactions: Iterable[Transaction],
    *,
    server_version: str,
    sizes: Sizes | None,
    refuse: Sequence[str],
    closed: str | None,
) -> Report:
    """Put together what was seen, file by file."""
    files = [
        FileLine(
            version=migration.version,
            file=migration.file,
            committed=all(each.ended_s is not None for each in group),
            statements=tuple(
                line for each in group for line in _lines(each, sizes, refuse)
            ),
        )
        for migration, group in (
            (migration, list(group))
            for migration, group in groupby(transactions, lambda each: each.migration)
        )
    ]
    return Report(
        format=FORMAT,
        gate_version=__version__,
        server_version=server_version,
        sizes_known=sizes is not None,
        closed=closed,
        files=tuple(files),
    )


def report_to_json(report: Report) -> str:
    """Return the report for a program; docs/rehearsal.schema.json describes it."""
    return json.dumps(asdict(report), ensure_ascii=False, indent=2)


def _lines(
    transaction: Transaction, sizes: Sizes | None, refuse: Sequence[str]
) -> Iterator[StatementLine]:
    for done, found in judge(transaction, sizes):
        window = window_ms(done, transaction.ended_s)
        yield StatementLine(
            line=done.line,
            column=done.column,
            statement=done.number,
            statements=done.count,
            command=done.command,
            in_transaction=not done.is_alone,
            duration_ms=done.duration_ms,
            rows=done.rows,
            wal_bytes=done.wal_bytes,
            relations=tuple(_relation(each, window, sizes) for each in done.touched),
            findings=tuple(_finding(each, refuse) for each in found),
        )


def _relation(touched: Touched, window: float, sizes: Sizes | None) -> RelationLine:
    size = size_of(touched, sizes)
    return RelationLine(
        relation=touched.relation.full_name,
        kind=KINDS.get(touched.relation.kind, "relation"),
        lock=None if touched.mode is None else MODES[touched.mode],
        waits=touched.waits,
        window_ms=window if touched.waits else None,
        rewritten=touched.is_rewritten,
        scanned=touched.is_scanned,
        index_built=touched.built,
        rows_changed=touched.counts.rows_changed,
        real_bytes=None if size is None else size.table_bytes + size.index_bytes,
        real_rows=None if size is None else size.rows,
        rough_ms=None if size is None else round(rough_ms(touched, size)),
    )


def _finding(finding: Finding, refuse: Sequence[str]) -> FindingLine:
    kind = FINDINGS[finding.name]
    return FindingLine(
        name=finding.name,
        relation=finding.relation,
        detail=finding.detail,
        means=kind.means,
        remedy=kind.remedy,
        accepted=finding.accepted,
        refused=finding.name in refuse and finding.accepted is None,
    )
