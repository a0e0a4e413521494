"""
Findings: of what was seen, and of what the text says. Pure.

Quiet about what is nobody's: tables that were made in the same run, and locks that are
held for a moment. What works as long as the table is large, is judged as if it were.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from migration_gate.rehearsal.estimate import size_of, weigh
from migration_gate.rehearsal.facts import (
    MATERIALIZED,
    MODES,
    READS_WAIT,
    Done,
    Finding,
    Sizes,
    Touched,
    Transaction,
)
from migration_gate.rehearsal.wording import DROPS_VIEW, MAKES, VALIDATED


# What takes less on the real tables is a moment.
MOMENT_MS: Final = 100.0
# The same as it is measured, on a server that may be busy.
SLOW_MS: Final = 500.0
# What reads or changes rows as its purpose: that is no validation.
READING: Final = frozenset(
    {"INSERT", "UPDATE", "DELETE", "MERGE", "SELECT", "COPY", "SELECT INTO"}
)
CHANGING: Final = frozenset({"UPDATE", "DELETE", "MERGE"})
WRITTEN: Final = MODES.index("RowExclusive")
MANY: Final = "changes-many-rows"
MANY_ROWS: Final = 10_000
# What the words say, and only what was seen can confirm.
CONFIRMED: Final = frozenset(
    {
        "index-not-concurrent",
        "not-null-without-check",
        "constraint-validated-at-once",
        "volatile-default",
        "changes-type",
        "changes-many-rows",
        VALIDATED,
        MAKES,
    }
)


# What only follows, and from what: the rest are causes.
BY_DEPTH: Final = (
    frozenset({"blocks-reads", "blocks-writes"}),
    frozenset({"rewrites-table", "scans-table", "long-transaction"}),
)


def judge(
    transaction: Transaction, sizes: Sizes | None
) -> Iterator[tuple[Done, tuple[Finding, ...]]]:
    """
    Yield each statement with its findings, those that the file accepts marked.

    Args:
        sizes: Those of the real database, where they are known.
    """
    for index, done in enumerate(transaction.done):
        later = transaction.done[index + 1 :]
        found = tuple(dict.fromkeys(_find(done, later, transaction.ended_s, sizes)))
        yield done, tuple(_accept(found, dict(transaction.accepted)))


def depth(name: str) -> int:
    """Return how near a finding is to the cause: 0 for what follows from others."""
    return next((at for at, names in enumerate(BY_DEPTH) if name in names), 2)


def _accept(found: Sequence[Finding], accepted: Mapping[str, str]) -> Iterator[Finding]:
    """Mark what is accepted, and what follows from it in the same statement."""
    for finding in found:
        reasons = [
            accepted[other.name]
            for other in found
            if other.name in accepted
            and (other.name == finding.name or depth(other.name) > depth(finding.name))
        ]
        yield finding._replace(accepted=reasons[0] if reasons else None)


def window_ms(done: Done, ended_s: float | None) -> float:
    """Return for how long locks were kept that a statement took, at most."""
    if done.is_alone or ended_s is None:
        return done.duration_ms
    return max(done.duration_ms, round((ended_s - done.started_s) * 1000, 3))


def _find(
    done: Done, later: Sequence[Done], ended_s: float | None, sizes: Sizes | None
) -> Iterator[Finding]:
    yield from _find_locks(done, later, ended_s, sizes)
    for touched in done.touched:
        if takes_long(touched, sizes):
            yield from _find_work(done, touched)
    yield from _find_said(done, later)
    yield from _find_changes(done, sizes)


def _find_locks(
    done: Done, later: Sequence[Done], ended_s: float | None, sizes: Sizes | None
) -> Iterator[Finding]:
    window = window_ms(done, ended_s)
    works = is_long(done, sizes)
    for touched in done.touched:
        if not touched.waits:
            continue
        name = touched.relation.full_name
        if works:
            what = "reads" if touched.mode == READS_WAIT else "writes"
            yield Finding(f"blocks-{what}", name)
            continue
        slow = next((other for other in later if is_long(other, sizes)), None)
        if slow is not None:
            detail = f"line {slow.line} works while it is locked"
            yield Finding("long-transaction", name, detail)
        elif window - done.duration_ms >= SLOW_MS:
            yield Finding("long-transaction", name)


def is_long(done: Done, sizes: Sizes | None) -> bool:
    """Tell whether a statement takes its time, here or where tables are large."""
    works = any(takes_long(touched, sizes) for touched in done.touched)
    return works or done.duration_ms >= SLOW_MS


def takes_long(touched: Touched, sizes: Sizes | None) -> bool:
    """Tell whether a relation keeps a statement busy; one of unknown size may."""
    weight_ms = weigh(touched, sizes)
    return touched.works and (weight_ms is None or weight_ms >= MOMENT_MS)


def _find_work(done: Done, touched: Touched) -> Iterator[Finding]:
    name = touched.relation.full_name
    says = {said.name for said in done.says}
    if touched.relation.kind == MATERIALIZED:
        return
    if touched.is_rewritten:
        yield Finding("rewrites-table", name)
        for cause in ("volatile-default", "changes-type"):
            if cause in says:
                yield Finding(cause, name)
    elif touched.built and touched.is_locked:
        yield Finding("index-not-concurrent", name)
    elif touched.is_scanned and touched.is_locked and done.command not in READING:
        yield Finding("scans-table", name)
    if touched.is_scanned and touched.is_locked and not touched.is_rewritten:
        for confirmed in ("not-null-without-check", "constraint-validated-at-once"):
            if confirmed in says:
                yield Finding(confirmed, name)


def _find_said(done: Done, later: Sequence[Done]) -> Iterator[Finding]:
    """Find what the words say, where they are about a table that somebody uses."""
    made = {s.bare_name for other in later for s in other.says if s.name == MAKES}
    for said in done.says:
        is_replaced = said.name == DROPS_VIEW and said.bare_name in made
        if said.name in CONFIRMED or is_replaced:
            continue
        relation = _relation_of(done, said.table)
        if relation is not None:
            yield Finding(said.name, relation)


def _find_changes(done: Done, sizes: Sizes | None) -> Iterator[Finding]:
    """Find rows that stay locked to the end: all of a table, or many."""
    for touched in done.touched:
        size = size_of(touched, sizes)
        is_written = touched.held is not None and touched.held >= WRITTEN
        is_all, count = _count_changes(done, touched)
        if is_all and size is not None:
            is_all, count = False, max(count, size.rows)
        if is_written and (is_all or count >= MANY_ROWS):
            rows = touched.counts.rows_changed
            is_inside = done.command not in CHANGING and rows
            detail = f"{rows} rows of it were changed" if is_inside else ""
            yield Finding(MANY, touched.relation.full_name, detail)


def _count_changes(done: Done, touched: Touched) -> tuple[bool, int]:
    """
    Tell whether a statement changes every row of a relation, and how many it changed.

    What stands in a function, or in a string, is not read: as many rows as there are,
    are all.
    """
    said = [said for said in done.says if said.name == MANY]
    if done.command in CHANGING:
        return bool(said), max(done.rows or 0, touched.counts.rows_changed)
    if touched.relation.kind == MATERIALIZED:
        return False, 0
    name = touched.relation.name
    is_named = any(each.bare_name == name for each in said)
    return is_named or touched.is_changed_whole, touched.counts.rows_changed


def _relation_of(done: Done, table: tuple[str | None, str] | None) -> str | None:
    names = [touched.relation for touched in done.touched]
    if table is None:
        return names[0].full_name if names else None
    schema, name = table
    for relation in names:
        if relation.name == name and schema in {None, relation.schema}:
            return relation.full_name
    return None
