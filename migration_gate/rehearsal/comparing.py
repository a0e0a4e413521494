"""
Two answers side by side: what a statement between them did to each relation. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from migration_gate.rehearsal.facts import (
    SEQUENCE,
    TABLES,
    WRITES_WAIT,
    Counts,
    Relation,
    Reply,
    Said,
    Touched,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """
    What is known from before a statement, and the answer after it.

    ``catalogue`` is what the answers before it have left, ``own`` are the gate's own
    tables, by schema and name. A statement that runs alone locks indexes that nobody
    uses yet, or any more, and does not show what it has read.
    """

    catalogue: Mapping[int, Relation]
    own: frozenset[tuple[str, str]]
    modes: Mapping[int, int]
    counts: Mapping[int, Counts]
    after: Reply
    is_alone: bool = False

    def find_touched(self) -> tuple[Touched, ...]:
        """Return each table, or view, that it did something to, by name."""
        touched: dict[int, Touched] = {}
        for oid, mode in self.after.modes.items():
            relation = self.catalogue.get(oid)
            table = self._table_of(self.after.relations.get(oid) or relation)
            if table is not None:
                seen = touched.get(table.oid, Touched(table))
                is_table = oid == table.oid
                look = self._look_at_table if is_table else self._look_at_index
                touched[table.oid] = look(seen, oid, mode)
        found = sorted(touched.values(), key=lambda each: each.relation.full_name)
        return tuple(map(self._settle_built, found))

    def _table_of(self, relation: Relation | None) -> Relation | None:
        """Return the relation that is told of; None where it is nobody's."""
        if relation is None:
            return None
        table = self.catalogue.get(relation.of or relation.oid)
        if table is None or not table.is_known or table.schema.startswith("pg_"):
            return None
        return None if (table.schema, table.name) in self.own else table

    def _look_at_table(self, seen: Touched, oid: int, mode: int) -> Touched:
        before = self.counts.get(oid, Counts())
        counts = self.after.counts.get(oid, before).since(before)
        is_written = self._has_new_file(oid) and seen.relation.kind != SEQUENCE
        return self._add_lock(seen, oid, mode)._replace(
            held=mode,
            is_scanned=counts.scans > 0,
            is_rewritten=is_written,
            counts=counts,
        )

    def _look_at_index(self, seen: Touched, oid: int, mode: int) -> Touched:
        """Look at a part of a table; one that is new was built, if that was read."""
        was = self.catalogue.get(oid)
        is_new = was is None or not was.is_known
        # What reads or changes rows opens every index of the table.
        if mode >= WRITES_WAIT and not is_new and not self.is_alone:
            seen = self._add_lock(seen, oid, mode)
        is_built = was is None or (was.is_known and self._has_new_file(oid))
        return seen._replace(built=seen.built or is_built)

    def _add_lock(self, seen: Touched, oid: int, mode: int) -> Touched:
        if mode <= self.modes.get(oid, -1):
            return seen
        return seen._replace(mode=max(seen.mode or 0, mode))

    def _has_new_file(self, oid: int) -> bool:
        was, now = self.catalogue.get(oid), self.after.relations.get(oid)
        return was is not None and now is not None and was.file != now.file

    def _settle_built(self, touched: Touched) -> Touched:
        """An index that took over another one has read nothing."""
        has_rows = touched.relation.kind in TABLES - {"p"}
        was_read = touched.is_scanned or self.is_alone
        return touched._replace(built=touched.built and has_rows and was_read)


def only_told(
    touched: Sequence[Touched], says: Sequence[Said], *, is_emptied: bool = False
) -> tuple[Touched, ...]:
    """
    Leave out what a statement only finds locked, unless its words name it.

    Args:
        is_emptied: By TRUNCATE: there are new files, with nothing in them.
    """
    named = {said.bare_name for said in says}
    if is_emptied:
        touched = [Touched(each.relation, each.mode, each.held) for each in touched]
    return tuple(
        each
        for each in touched
        if each.mode is not None
        or each.works
        or each.counts.rows_changed
        or each.relation.name in named
    )
