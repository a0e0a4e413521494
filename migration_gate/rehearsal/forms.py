"""
A rehearsal's report for people: a table on a terminal, Markdown on a forge. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from migration_gate.rehearsal.judging import depth
from migration_gate.rehearsal.reports import (
    FileLine,
    FindingLine,
    RelationLine,
    Report,
    StatementLine,
)
from migration_gate.report.tables import table


STEP: Final = 1000
BYTES_STEP: Final = 1024
RELATIONS_SHOWN: Final = 3
ROWS_SHOWN: Final = 200  # of a page that a forge takes: 65,536 characters


class Group(NamedTuple):
    """What was found of one relation in one statement; the first is the cause."""

    file: FileLine
    line: StatementLine
    relation: str | None
    findings: tuple[FindingLine, ...]

    @property
    def cause(self) -> FindingLine:
        """Return what the others follow from."""
        return self.findings[0]

    @property
    def is_accepted(self) -> bool:
        """Return whether the file accepts all of it."""
        return all(finding.accepted is not None for finding in self.findings)


def describe(report: Report) -> str:
    """Return the tables that a person reads on a terminal."""
    rows = [("WHERE", "STATEMENT", "TOOK", "WAITING MEANWHILE", "FINDINGS")]
    rows += [
        (
            _place(file, line),
            _command(line),
            duration(line.duration_ms),
            _waiting(line),
            ", ".join(dict.fromkeys(map(_mark, line.findings))),
        )
        for file in report.files
        for line in file.statements
    ]
    said = [table(rows)] if report.files else []
    said += [_tell(group) for group in _groups(report)]
    said.append(summary(report))
    return "\n\n".join(said)


def summary(report: Report) -> str:
    """Return the report in a sentence or two."""
    found = [finding for _, _, finding in report.findings()]
    accepted = sum(finding.accepted is not None for finding in found)
    count = sum(line.statements for f in report.files for line in f.statements)
    said = (
        f"{_count(len(report.files), 'file')}, {_count(count, 'statement')}, "
        f"{_count(len(found), 'finding')}"
    )
    said += f", {accepted} of them accepted" if accepted else ""
    refused = sum(finding.refused for finding in found)
    said += f", {refused} refused" if refused else ""
    if report.closed is not None:
        said += f"; ended before its time: {report.closed}"
    return f"{said}."


def to_markdown(report: Report) -> str:
    """Return what a pull request shows: what was found, the rest folded."""
    parts = [f"### Rehearsal: {escape(summary(report))}"]
    groups = list(_groups(report))
    if groups:
        head = ["where", "table", "findings"]
        head += ["real size", "takes about"] if report.sizes_known else []
        rows = [_cells(report, group) for group in groups[:ROWS_SHOWN]]
        parts += [_markdown_table(head, rows), "\n".join(_remedies(groups))]
    elif report.files and report.closed is None:
        parts.append("Nothing that is used elsewhere is held up, rewritten or lost.")
    if report.files:
        parts.append(_details(report))
    parts.append(
        f"PostgreSQL {report.server_version}, migration-gate {report.gate_version}"
        + ("" if report.sizes_known else "; real sizes are not known")
    )
    return "\n\n".join(parts)


def _details(report: Report) -> str:
    head = ("where", "statement", "took", "rows", "WAL", "locks", "window")
    rows = [
        (
            f"`{_place(file, line)}`",
            _command(line),
            duration(line.duration_ms),
            "" if line.rows is None else str(line.rows),
            size(line.wal_bytes),
            "<br>".join(_lock(relation) for relation in _shown(line.relations)),
            _window(line),
        )
        for file in report.files
        for line in file.statements
    ]
    more = len(rows) - ROWS_SHOWN
    shown = _markdown_table(head, rows[:ROWS_SHOWN])
    left = f"\n\nand {more} more" if more > 0 else ""
    return (
        "<details><summary>Statement by statement</summary>\n\n"
        f"{shown}{left}\n\n</details>"
    )


def _groups(report: Report) -> Iterator[Group]:
    """Yield what was found, a statement and relation at a time, causes first."""
    groups = []
    for file in report.files:
        for line in file.statements:
            found: dict[str | None, list[FindingLine]] = {}
            for finding in line.findings:
                found.setdefault(finding.relation, []).append(finding)
            for relation, findings in found.items():
                findings.sort(key=lambda each: -depth(each.name))
                groups.append(Group(file, line, relation, tuple(findings)))
    yield from sorted(groups, key=lambda group: group.is_accepted)


def _remedies(groups: Sequence[Group]) -> Iterator[str]:
    """Yield what each cause means, and what each file accepts."""
    told = {group.cause.name: group.cause for group in groups if not group.is_accepted}
    for name, finding in told.items():
        yield f"- **{name}**: {finding.means}. {finding.remedy}"
    reasons = {
        f"- `{group.file.file}` accepts **{finding.name}**: {escape(finding.accepted)}"
        for group in groups
        for finding in group.findings
        if finding.accepted is not None and finding == group.cause
    }
    yield from sorted(reasons)


def _cells(report: Report, group: Group) -> list[str]:
    names = "<br>".join(map(_mark, group.findings))
    cells = [
        f"`{_place(group.file, group.line)}`",
        escape(group.relation or ""),
        names,
    ]
    if report.sizes_known:
        cells += _real(group) or ["", ""]
    return cells


def _real(group: Group) -> list[str]:
    """Return a relation's real size, and how long the whole statement may take."""
    named = [each for each in group.line.relations if each.relation == group.relation]
    if not named or named[0].real_bytes is None:
        return []
    relation = named[0]
    rough_ms = sum(each.rough_ms or 0 for each in group.line.relations)
    rough = duration(rough_ms) if rough_ms else ""
    rows = number(relation.real_rows or 0)
    return [f"{size(relation.real_bytes or 0)}, {rows} rows", rough]


def _tell(group: Group) -> str:
    at = f" {group.relation}" if group.relation else ""
    names = ", ".join(finding.name for finding in group.findings)
    said = f"{_place(group.file, group.line)}{at}: {names}"
    known = ", about ".join(filter(None, _real(group)))
    said += f" [{known}]" if known else ""
    cause = group.cause
    means = f"{cause.means[0].upper()}{cause.means[1:]}"
    said += f"\n  {means}" + (f": {cause.detail}." if cause.detail else ".")
    if cause.accepted is not None:
        return f"{said}\n  Accepted: {cause.accepted}"
    return f"{said}\n  {cause.remedy}"


def _mark(finding: FindingLine) -> str:
    if finding.accepted is not None:
        return f"{finding.name} (accepted)"
    return f"{finding.name} (refused)" if finding.refused else finding.name


def _place(file: FileLine, line: StatementLine) -> str:
    return f"{file.file}:{line.line}"


def _command(line: StatementLine) -> str:
    return line.command + (f" x {line.statements}" if line.statements > 1 else "")


def _waiting(line: StatementLine) -> str:
    waiting: dict[str, list[str]] = {}
    for relation in line.relations:
        if relation.waits:
            waiting.setdefault(" and ".join(relation.waits), []).append(
                relation.relation
            )
    said = [f"{what} of {_several(names)}" for what, names in waiting.items()]
    return f"{', '.join(said)} for {_window(line)}" if said else ""


def _several(names: Sequence[str]) -> str:
    more = len(names) - RELATIONS_SHOWN
    shown = ", ".join(names[:RELATIONS_SHOWN])
    return f"{shown} and {more} more" if more > 0 else shown


def _window(line: StatementLine) -> str:
    windows = [each.window_ms for each in line.relations if each.window_ms is not None]
    return duration(max(windows)) if windows else ""


def _shown(relations: Sequence[RelationLine]) -> list[RelationLine]:
    return [relation for relation in relations if relation.lock][:RELATIONS_SHOWN]


def _lock(relation: RelationLine) -> str:
    work = [
        word
        for word, is_so in (
            ("rewritten", relation.rewritten),
            ("scanned", relation.scanned),
            ("index built", relation.index_built),
        )
        if is_so
    ]
    if relation.rows_changed:
        work.append(f"{_count(relation.rows_changed, 'row')} changed")
    said = f"{escape(relation.relation)} {relation.lock}"
    return f"{said} ({', '.join(work)})" if work else said


def duration(ms: float) -> str:
    """Return a duration as people say it."""
    if ms < STEP:
        return f"{ms:.3g} ms" if ms < STEP / 10 else f"{ms:.0f} ms"
    seconds = ms / STEP
    if seconds < 120:  # noqa: PLR2004  # two minutes
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"  # noqa: PLR2004
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"  # noqa: PLR2004


def size(count: float) -> str:
    """Return a size in bytes as people say it."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < BYTES_STEP:
            return f"{count:.3g} {unit}" if count < STEP else f"{count:.0f} {unit}"
        count /= BYTES_STEP
    return f"{count:.3g} TB"


def number(count: float) -> str:
    """Return a number of rows as people say it."""
    for unit in ("", "k", "M"):
        if count < STEP:
            return f"{count:.3g}{unit}"
        count /= STEP
    return f"{count:.3g}G"


def escape(text: str) -> str:
    """Return a text that Markdown shows as it is."""
    for sign in "\\`*_|<>[]":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())


def _count(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
