"""
Who is told what a file's statements did, in a rehearsal. Values; asks nothing itself.

A run that rehearses nothing has none, and composes what it always has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final

from migration_gate.connection.simple_query import Answer
from migration_gate.execution.message import Own, Part, Task
from migration_gate.statements import Statement


Looks = Callable[[], float]

# Of those that follow one another, each into the same table, only the last is asked
# about: a dump has a million.
COUNTED: Final = frozenset({b"insert", b"update", b"delete"})
ALIKE: Final = 5  # tokens: the kind and the name of the table


@dataclass(frozen=True, slots=True, kw_only=True)
class Observer:
    """
    The questions that are asked between a file's statements, and who takes the answers.

    ``opening`` is asked before the first statement of a transaction, ``resuming``
    before that of a message that goes on with one; ``question`` after each statement,
    and ``closing`` before the COMMIT. ``on_answer`` gets every answer of a message,
    with what it answers; ``on_sent`` is called before each message. ``watching``
    watches a statement that runs alone from another session, for as long as it is
    entered, and gives what is to be called meanwhile, which says in how many seconds
    again.
    """

    opening: bytes
    resuming: bytes
    question: bytes
    closing: bytes
    on_sent: Callable[[], None]
    on_answer: Callable[[Task, Part, Answer], None]
    watching: Callable[[Task, Statement, int], AbstractContextManager[Looks]]


def with_questions(observer: Observer, parts: list[Part]) -> Iterator[Part]:
    """Yield the parts of a message, with the questions between them."""
    statements = [part for part in parts if isinstance(part, Statement)]
    following = iter([*statements[1:], None])
    for part in parts:
        if statements and part is statements[0]:
            begins = isinstance(parts[0], Own) and parts[0].name == "begin"
            yield Own("asked", observer.opening if begins else observer.resuming)
        if isinstance(part, Own) and part.name == "commit":
            yield Own("asked", observer.closing)
        yield part
        if isinstance(part, Statement) and not _goes_on(part, next(following)):
            yield Own("asked", observer.question)


def _goes_on(statement: Statement, following: Statement | None) -> bool:
    if following is None or statement.tokens[:1] not in {(word,) for word in COUNTED}:
        return False
    return statement.tokens[:ALIKE] == following.tokens[:ALIKE]
