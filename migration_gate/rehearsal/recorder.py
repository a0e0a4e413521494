"""
Keep what the answers between statements tell: who was locked, rewritten, scanned.

Takes answers as they come and asks nothing itself.
"""

from __future__ import annotations

import json

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from migration_gate.connection.simple_query import Answer
from migration_gate.execution.message import Part, Task
from migration_gate.rehearsal.facts import (
    SEQUENCE,
    TABLES,
    TYPE,
    WRITES_WAIT,
    Done,
    Relation,
    Said,
    Touched,
    Transaction,
)
from migration_gate.rehearsal.questions import Reply, read_reply
from migration_gate.rehearsal.wording import read_statement
from migration_gate.statements import Statement


EMPTIES: Final = "TRUNCATE TABLE"


@dataclass(slots=True)
class Recorder:
    """
    What was there, and what the statements of each transaction did to it.

    ``relations`` is the catalogue as the last answer left it. ``own`` are the gate's
    own tables, by oid or name, of which nothing is told.
    """

    relations: dict[int, Relation]
    own: frozenset[tuple[str, str]]
    transactions: list[Transaction] = field(default_factory=list)
    _last: Reply | None = None
    _scans: dict[int, int] = field(default_factory=dict)
    _unasked: list[tuple[Statement, Answer]] = field(default_factory=list)
    _open: Transaction | None = None

    def on_sent(self) -> None:
        """Note that a message begins: PostgreSQL may have reported its counters."""
        self._last = None
        self._scans.clear()
        self._unasked.clear()

    def on_answer(self, task: Task, part: Part, answer: Answer) -> None:
        """Take the answer to one part of a message."""
        if isinstance(part, Statement):
            self._unasked.append((part, answer))
        elif part.name == "begin":
            self._drop_unfinished(task)
            self._open = None
        elif part.name == "asked":
            (text,) = answer.row
            self._take(task, read_reply(json.loads(text or "[]")))
        elif part.name == "commit":
            self._commit()

    def add(self, task: Task, done: Done) -> None:
        """Take a statement that ran alone, and was watched."""
        transaction = _begin(task)
        transaction.done.append(done)
        transaction.ended_s = done.started_s + done.duration_ms / 1000
        self.transactions.append(transaction)

    def known(self, relation: Relation | None) -> Relation | None:
        """Return a relation that somebody uses; None of any other."""
        if relation is None or not relation.is_known:
            return None
        if relation.schema.startswith("pg_") or (
            (relation.schema, relation.name) in self.own
        ):
            return None
        return relation

    def learn(self, relations: Iterable[Relation]) -> None:
        """Take over what the catalogue says; what is new is nobody's yet."""
        for relation in relations:
            before = self.relations.get(relation.oid)
            is_known = before is not None and before.is_known
            self.relations[relation.oid] = relation._replace(is_known=is_known)

    def _drop_unfinished(self, task: Task) -> None:
        """Forget an attempt that is repeated."""
        last = self.transactions[-1] if self.transactions else None
        is_same = last is not None and last.migration == task.script.migration
        if last is not None and is_same and last.ended_s is None:
            self.transactions.pop()

    def _take(self, task: Task, reply: Reply) -> None:
        if self._open is None:
            self._open = _begin(task)
            self.transactions.append(self._open)
        if self._unasked and self._last is not None:
            self._open.done.append(self._to_done(task, self._last, reply))
            self._unasked.clear()
        self._last = reply
        self._scans |= reply.scans
        self.learn(reply.relations.values())

    def _commit(self) -> None:
        if self._open is not None and self._last is not None:
            self._open.ended_s = self._last.left_s
        self._open, self._last = None, None

    def _to_done(self, task: Task, before: Reply, after: Reply) -> Done:
        (first, answer), *more = self._unasked
        line, column = task.script.place(first.first)
        answers = [answer, *(other for _, other in more)]
        command = command_of(answer)
        says = tuple(read_statement(task.script.content, first))
        counts = [c for a in answers if (c := _count_rows(a)) is not None]
        return Done(
            number=first.number,
            count=len(answers),
            line=line,
            column=column,
            command=command,
            started_s=before.left_s,
            duration_ms=round((after.asked_s - before.left_s) * 1000, 3),
            rows=sum(counts) if counts else None,
            wal_bytes=after.wal_bytes - before.wal_bytes,
            touched=only_told(
                says,
                *self.find_touched(
                    before.modes,
                    self._scans,
                    after,
                    is_emptied=command == EMPTIES,
                ),
                *self._find_types(says),
            ),
            says=says,
        )

    def _find_types(self, says: Iterable[Said]) -> Iterator[Touched]:
        """Find the types that a statement names, which have no locks of their own."""
        named = {said.table[1] for said in says if said.table is not None}
        for relation in self.relations.values() if named else ():
            if relation.kind == TYPE and relation.name in named and relation.is_known:
                yield Touched(relation)

    def find_touched(
        self,
        before: Mapping[int, int],
        scans: Mapping[int, int],
        after: Reply,
        *,
        is_alone: bool = False,
        is_emptied: bool = False,
    ) -> tuple[Touched, ...]:
        """
        Compare two answers; an index counts as its table, of which it is a part.

        An index that is new and whose table was read has been built from its rows. A
        statement that runs alone locks an index that nobody uses yet, or any more.
        """
        touched: dict[int, Touched] = {}
        for oid, mode in after.modes.items():
            was = self.relations.get(oid)
            relation = was or after.relations.get(oid)
            if relation is None:
                continue
            if was is None:
                relation = relation._replace(is_known=False)
            is_index = relation.kind in {"i", "I"}
            table = self.known(
                self.relations.get(relation.of or 0) if is_index else relation
            )
            if table is None:
                continue
            now = after.relations.get(oid)
            is_new = was is None or (is_index and not was.is_known)
            is_changed = not is_new and now is not None and now.file != relation.file
            is_changed = is_changed and relation.kind != SEQUENCE
            was_read = after.scans.get(oid, 0) > scans.get(oid, 0) and not is_index
            seen = touched.get(table.oid, Touched(table))
            # What reads or changes rows opens every index of the table.
            counts_index = mode >= WRITES_WAIT and not (is_new or is_alone)
            is_stronger = mode > before.get(oid, -1)
            if is_stronger and (not is_index or counts_index):
                seen = seen._replace(mode=max(seen.mode or 0, mode))
            if not is_index:
                seen = seen._replace(held=mode)
            touched[table.oid] = seen._replace(
                is_rewritten=seen.is_rewritten or (is_changed and not is_index),
                is_scanned=seen.is_scanned or was_read,
                built=seen.built or (is_index and (was is None or is_changed)),
            )
        if is_emptied:  # by TRUNCATE: new files, with nothing in them
            return tuple(Touched(e.relation, e.mode, e.held) for e in touched.values())
        return tuple(
            _settle_built(each, is_alone=is_alone) for each in touched.values()
        )


def only_told(says: Sequence[Said], *touched: Touched) -> tuple[Touched, ...]:
    """Leave out what a statement only finds locked, unless its words name it."""
    named = {said.table[1] for said in says if said.table is not None}
    return tuple(
        each
        for each in touched
        if each.mode is not None or each.works or each.relation.name in named
    )


def _settle_built(touched: Touched, *, is_alone: bool) -> Touched:
    """An index that took over another one, or is of a partitioned table, reads none."""
    has_rows = touched.relation.kind in TABLES - {"p"}
    built = touched.built and has_rows and (touched.is_scanned or is_alone)
    return touched._replace(built=built)


def _begin(task: Task) -> Transaction:
    return Transaction(task.script.migration, accepted=task.script.directives.accept)


def command_of(answer: Answer) -> str:
    """Return PostgreSQL's word for a statement, without its counts."""
    tag = (answer.result.command_status or b"").decode("ascii", "replace")
    return tag.rstrip("0123456789 ")


def _count_rows(answer: Answer) -> int | None:
    tag = (answer.result.command_status or b"").split()
    is_count = len(tag) > 1 and tag[-1].isdigit()
    return int(tag[-1]) if is_count else None
