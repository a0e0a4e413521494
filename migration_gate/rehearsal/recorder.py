"""
Keep what the answers between statements tell: who was locked, rewritten, scanned.

Takes answers as they come and asks nothing itself.
"""

from __future__ import annotations

import json

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from migration_gate.connection.simple_query import Answer
from migration_gate.execution.message import Part, Task
from migration_gate.rehearsal.comparing import Comparison, only_told
from migration_gate.rehearsal.facts import (
    TYPE,
    Counts,
    Done,
    Relation,
    Reply,
    Said,
    Touched,
    Transaction,
)
from migration_gate.rehearsal.questions import read_reply
from migration_gate.rehearsal.wording import read_statement
from migration_gate.statements import Statement


EMPTIES: Final = "TRUNCATE TABLE"
GOES_BACK: Final = "ROLLBACK"  # to a savepoint


@dataclass(slots=True)
class Recorder:
    """
    What was there, and what the statements of each transaction did to it.

    ``relations`` is the catalogue as the last answer left it; ``own`` are the gate's
    own tables, by schema and name, of which nothing is told.
    """

    relations: dict[int, Relation]
    own: frozenset[tuple[str, str]]
    transactions: list[Transaction] = field(default_factory=list)
    _last: Reply | None = None
    _counts: dict[int, Counts] = field(default_factory=dict)
    _unasked: list[tuple[Statement, Answer]] = field(default_factory=list)
    _open: Transaction | None = None
    # What the catalogue said before the transaction; None of what was not there.
    _undone: dict[int, Relation | None] = field(default_factory=dict)

    def on_sent(self) -> None:
        """Note that a message begins: PostgreSQL may have reported its counters."""
        self._last = None
        self._counts.clear()
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

    def compare(
        self,
        modes: Mapping[int, int],
        counts: Mapping[int, Counts],
        after: Reply,
        *,
        is_alone: bool = False,
    ) -> Comparison:
        """Put an answer beside what is known from before."""
        return Comparison(
            catalogue=self.relations,
            own=self.own,
            modes=modes,
            counts=counts,
            after=after,
            is_alone=is_alone,
        )

    def learn(self, relations: Iterable[Relation]) -> None:
        """Take over what the catalogue says; what is new is nobody's yet."""
        for relation in relations:
            before = self.relations.get(relation.oid)
            self._undone.setdefault(relation.oid, before)
            is_known = before is not None and before.is_known
            self.relations[relation.oid] = relation._replace(is_known=is_known)

    def _forget_changes(self) -> None:
        """Take the catalogue for what it was before the transaction."""
        for oid, relation in self._undone.items():
            if relation is None:
                self.relations.pop(oid, None)
            else:
                self.relations[oid] = relation
        self._undone.clear()

    def _drop_unfinished(self, task: Task) -> None:
        """Forget an attempt that is repeated."""
        last = self.transactions[-1] if self.transactions else None
        is_same = last is not None and last.migration == task.script.migration
        if last is not None and is_same and last.ended_s is None:
            self.transactions.pop()
            self._forget_changes()
        self._undone.clear()

    def _take(self, task: Task, reply: Reply) -> None:
        if self._open is None:
            self._open = _begin(task)
            self.transactions.append(self._open)
        if self._unasked and self._last is not None:
            done = self._to_done(task, self._last, reply)
            self._open.done.append(done)
            self._unasked.clear()
            if done.command == GOES_BACK:
                self._forget_changes()
        self._last = reply
        self._counts |= reply.counts
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
            touched=(
                *only_told(
                    self.compare(before.modes, self._counts, after).find_touched(),
                    says,
                    is_emptied=command == EMPTIES,
                ),
                *self._find_types(says),
            ),
            says=says,
        )

    def _find_types(self, says: Iterable[Said]) -> Iterator[Touched]:
        """Find the types that a statement names, which have no locks of their own."""
        named = {said.bare_name for said in says}
        for relation in self.relations.values() if named else ():
            if relation.kind == TYPE and relation.name in named and relation.is_known:
                yield Touched(relation)


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
