"""
What status and plan answer on stdout, for people and as JSON: values become text.
"""

from __future__ import annotations

import json

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias

from migration_gate.files.migration import AppliedMigration, version_to_key
from migration_gate.history.failures import Failure
from migration_gate.planning.plan import Plan
from migration_gate.report.tables import table
from migration_gate.report.verdict import printable


State = Literal[
    "applied",
    "pending",
    "held back",
    "to record",
    "replaced",
    "unfinished",
    "half undone",
    "changed",
    "unknown",
    "out of order",
    "left",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusLine:
    """
    One migration in the answer to status.

    ``failed_at`` and ``failure`` tell when and why the last attempt at it failed.
    """

    version: str
    state: State
    applied_at: str | None
    duration_ms: int | None
    failed_at: str | None = None
    failure: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFinding:
    """A finding of a rehearsal's, as far as the text of a file tells it."""

    line: int
    name: str
    table: str | None
    accepted: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanLine:
    """
    One migration in the answer to plan.

    ``refused`` says why migrate would not run it; None where it would. ``findings`` are
    what its text alone tells.
    """

    version: str
    statement_count: int | None
    in_transaction: bool | None
    why: str
    refused: str | None
    findings: tuple[TextFinding, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class UndoLine:
    """
    One migration in the answer to rollback: what is undone, or would be.

    ``file`` is what undoes it; ``refused`` says why that cannot be; None where it can.
    """

    version: str
    file: str
    statement_count: int | None
    in_transaction: bool | None
    why: str
    refused: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptedLine:
    """
    One migration that counts as applied by another tool's history.

    ``row`` is the version there; ``inferred`` tells that it is that of a newer file,
    and ``verified`` that nothing speaks against the file being what was applied.
    ``refused`` says why it is not taken over, None where it is; ``version`` is empty
    where no file is known to be that of the row.
    """

    version: str
    row: str
    applied_at: str | None
    inferred: bool
    verified: bool
    refused: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineLine:
    """One migration that counts as applied by a person's word: that of ``baseline``."""

    version: str
    baseline: str


RecordedLine: TypeAlias = AdoptedLine | BaselineLine


def make_status(
    plan: Plan,
    history: Sequence[AppliedMigration],
    unfinished: Iterable[str] = (),
    half_undone: Iterable[str] = (),
    failures: Iterable[Failure] = (),
) -> tuple[StatusLine, ...]:
    """
    Put files and history side by side, in the order of the files.

    Args:
        unfinished: Versions of which some statements are done and some are not.
        half_undone: Those of them of which some are undone.
        failures: The last failures of what is pending, or was to be undone.
    """
    failed = {version_to_key(failure.version): failure for failure in failures}
    begun = set(map(plan.key_of, unfinished))
    undone = set(map(plan.key_of, half_undone))
    rows = {plan.key_of(row.version): row for row in history}
    applied = {migration.key for migration in plan.applied}
    changed, out_of_order = set(plan.changed), set(plan.out_of_order)
    lines = []
    replaced = {migration.key for migration in plan.replaced}
    pending = {migration.key for migration in plan.pending}
    left = {migration.key for migration in plan.left}
    held_back = {migration.key for migration in plan.held_back}
    files = (*plan.applied, *plan.pending, *plan.held_back, *plan.replaced, *plan.left)
    for migration in sorted(files, key=lambda m: m.order):
        row = rows.get(migration.key)
        state: State = "pending" if migration.key in pending else "applied"
        if row is None and migration.key in applied:
            state = "to record"
        if migration.key in replaced:
            state = "replaced"
        if migration.key in held_back:
            state = "held back"
        if migration.key in left:
            state = "left"
        if migration.version in changed:
            state = "changed"
        if migration.version in out_of_order:
            state = "out of order"
        if migration.key in begun & pending:
            state = "half undone" if migration.key in undone else "unfinished"
        failure = failed.get(migration.key)
        lines.append(
            StatusLine(
                version=migration.version,
                state=state,
                applied_at=None if row is None else row.applied_at,
                duration_ms=None if row is None else row.duration_ms,
                failed_at=None if failure is None else failure.failed_at,
                failure=None if failure is None else str(failure),
            )
        )
    unknown = [
        *plan.unknown,
        *(row for row, _ in plan.lookalikes),
        *plan.repeatables_gone,
    ]
    by_version = {row.version: row for row in history}
    lines += [
        StatusLine(
            version=version,
            state="unknown",
            applied_at=by_version[version].applied_at,
            duration_ms=by_version[version].duration_ms,
        )
        for version in unknown
    ]
    return tuple(lines)


def describe_status(lines: Sequence[StatusLine]) -> str:
    """Return the table that a person reads."""
    rows = [("STATE", "APPLIED AT (UTC)", "TOOK", "MIGRATION")]
    rows += [
        (
            line.state,
            (line.applied_at or "").partition(".")[0].replace("T", " "),
            "" if line.duration_ms is None else f"{line.duration_ms} ms",
            line.version,
        )
        for line in lines
    ]
    failures = [
        printable(f"last attempt failed at {line.failed_at}: {line.failure}")
        for line in lines
        if line.failure is not None
    ]
    return "\n".join([table(rows), *failures])


def describe_plan(lines: Sequence[PlanLine]) -> str:
    """Return the table that a person reads; a column for findings where some are."""
    if not lines:
        return "nothing pending"
    found = [_findings(line) for line in lines]
    width = 1 if any(found) else 0
    rows = [
        ("MIGRATION", "STATEMENTS", "TRANSACTION", *["FINDINGS"][:width], "REFUSED")
    ]
    rows += [
        (
            line.version,
            "" if line.statement_count is None else str(line.statement_count),
            _transaction(line),
            *[said][:width],
            line.refused or "",
        )
        for line, said in zip(lines, found, strict=True)
    ]
    return table(rows)


def _findings(line: PlanLine) -> str:
    """Return each finding once, with the lines; what the file accepts is left out."""
    lines: dict[str, list[int]] = {}
    for finding in line.findings:
        if finding.accepted is None:
            lines.setdefault(finding.name, []).append(finding.line)
    return ", ".join(f"{name}:{min(numbers)}" for name, numbers in lines.items())


def describe_undoing(lines: Sequence[UndoLine], *, is_done: bool) -> str:
    """Return the table that a person reads, newest first."""
    if not lines:
        return "nothing undone" if is_done else "nothing to undo"
    head = "UNDONE" if is_done else "TO UNDO"
    rows = [(head, "BY", "STATEMENTS", "TRANSACTION", "REFUSED")]
    rows += [
        (
            line.version,
            line.file,
            "" if line.statement_count is None else str(line.statement_count),
            _transaction(line),
            line.refused or "",
        )
        for line in lines
    ]
    return table(rows)


def describe_adopted(lines: Sequence[AdoptedLine]) -> str:
    """Return the table that a person reads."""
    rows = [("TAKEN OVER", "APPLIED AT (UTC)", "BY ROW", "MIGRATION", "REFUSED")]
    for line in lines:
        state = "applied" if line.verified else "applied, changed"
        state = "applied, by a newer row" if line.inferred else state
        rows.append(
            (
                "no" if line.refused else state,
                (line.applied_at or "").partition(".")[0].replace("T", " "),
                line.row,
                line.version,
                line.refused or "",
            )
        )
    is_refused = any(line.refused for line in lines)
    return table(rows if is_refused else [row[:-1] for row in rows])


def describe_baseline(lines: Sequence[BaselineLine]) -> str:
    """Return the table that a person reads."""
    rows = [("RECORDED", "BASELINE", "MIGRATION")]
    rows += [("applied, not run", line.baseline, line.version) for line in lines]
    return table(rows)


def describe_recorded(lines: Sequence[RecordedLine]) -> str:
    """Return the table that a person reads."""
    adopted = [line for line in lines if isinstance(line, AdoptedLine)]
    if adopted:
        return describe_adopted(adopted)
    return describe_baseline([x for x in lines if isinstance(x, BaselineLine)])


def to_json(lines: Iterable[StatusLine | PlanLine | UndoLine | RecordedLine]) -> str:
    """Return the lines as a JSON array."""
    return json.dumps([asdict(line) for line in lines], ensure_ascii=False, indent=2)


def _transaction(line: PlanLine | UndoLine) -> str:
    if line.in_transaction is None:
        return ""
    side = "inside" if line.in_transaction else "outside"
    return f"{side}: {line.why}" if line.why else side
