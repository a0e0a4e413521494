"""
What a rehearsal has seen, as values. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias

from migration_gate.files.migration import Migration


# By strength, as PostgreSQL's manual lists them.
MODES: Final = (
    "AccessShare",
    "RowShare",
    "RowExclusive",
    "ShareUpdateExclusive",
    "Share",
    "ShareRowExclusive",
    "Exclusive",
    "AccessExclusive",
)
READS_WAIT: Final = MODES.index("AccessExclusive")
WRITES_WAIT: Final = MODES.index("Share")
TABLES: Final = frozenset("rpmf")
TYPE: Final = "T"
SEQUENCE: Final = "S"
MATERIALIZED: Final = "m"
KINDS: Final = {
    "r": "table",
    "p": "partitioned table",
    "m": "materialized view",
    "v": "view",
    "f": "foreign table",
    "S": "sequence",
    "i": "index",
    "I": "partitioned index",
    "c": "type",
    "T": "type",
}


class Relation(NamedTuple):
    """
    A relation as the catalogue had it last.

    ``of`` is the table of an index; ``is_known`` tells that it was there when the
    rehearsal began, and is not a table of the session's own.
    """

    oid: int
    schema: str
    name: str
    kind: str
    file: int
    of: int | None = None
    is_known: bool = False

    @property
    def full_name(self) -> str:
        """Return schema and name, for people."""
        return f"{self.schema}.{self.name}"


class Counts(NamedTuple):
    """
    PostgreSQL's counters of a relation.

    How often it was read from end to end, the rows that were read so, and the rows that
    were updated or deleted.
    """

    scans: int = 0
    rows_read: int = 0
    rows_changed: int = 0

    def since(self, before: Counts) -> Counts:
        """Return what was counted after these."""
        return Counts(
            *(max(now - then, 0) for now, then in zip(self, before, strict=True))
        )


class Reply(NamedTuple):
    """
    An answer, at ``asked_s`` on the server's clock; what follows begins at ``left_s``.

    ``modes`` are the strongest locks by relation, ``counts`` what was read and changed
    of each, ``relations`` what the catalogue says of them: nothing of what is dropped.
    """

    asked_s: float
    left_s: float
    wal_bytes: int
    modes: Mapping[int, int]
    counts: Mapping[int, Counts]
    relations: Mapping[int, Relation]


class Touched(NamedTuple):
    """
    A relation, and what a statement did to it.

    ``mode`` is the strength of the lock that the statement added, None where it had
    one as strong before; ``held`` is the strength that it has now. ``built`` tells that
    an index of it was built from its rows.
    """

    relation: Relation
    mode: int | None = None
    held: int | None = None
    is_rewritten: bool = False
    is_scanned: bool = False
    built: bool = False
    counts: Counts = Counts()

    @property
    def waits(self) -> tuple[str, ...]:
        """Return which queries of it wait for the lock that was added."""
        if self.mode is None or self.mode < WRITES_WAIT:
            return ()
        if self.relation.kind == MATERIALIZED and self.mode != READS_WAIT:
            return ()  # what writes it is only what refreshes it
        return ("reads", "writes") if self.mode == READS_WAIT else ("writes",)

    @property
    def is_locked(self) -> bool:
        """Return whether queries of it wait, though for an earlier lock."""
        return self.held is not None and self.held >= WRITES_WAIT

    @property
    def is_changed_whole(self) -> bool:
        """Return whether as many rows were changed as there are in it, or more."""
        scans, rows_read, rows_changed = self.counts
        return 0 < rows_read <= rows_changed * scans

    @property
    def works(self) -> bool:
        """Return whether it took as long as the relation is large."""
        return self.is_rewritten or self.is_scanned or self.built


class Size(NamedTuple):
    """A table's size in the real database; ``rows`` as PostgreSQL estimates them."""

    table_bytes: int
    index_bytes: int
    rows: int


Sizes: TypeAlias = Mapping[tuple[str, str], Size]


class Finding(NamedTuple):
    """
    One finding: its name, the relation, and the words that are about this one.

    ``accepted`` is the reason that the file gives for it.
    """

    name: str
    relation: str | None = None
    detail: str = ""
    accepted: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """
    One statement that was done, or several alike that follow one another.

    Attributes:
        number: of the first of them in its file; ``count`` is how many there are.
        command: PostgreSQL's word for it, as in "ALTER TABLE".
        started_s: on the server's clock.
        wal_bytes: what the server wrote meanwhile; the gate's own is in it.
        is_alone: it ran outside a transaction, where nothing keeps its locks.
    """

    number: int
    count: int
    line: int
    column: int
    command: str
    started_s: float
    duration_ms: float
    rows: int | None
    wal_bytes: int
    touched: tuple[Touched, ...]
    says: tuple[Said, ...] = ()
    is_alone: bool = False


class Said(NamedTuple):
    """What the text of a statement tells: a finding, and the table that it names."""

    name: str
    table: tuple[str | None, str] | None = None

    @property
    def bare_name(self) -> str | None:
        """Return the table's name without its schema."""
        return None if self.table is None else self.table[1]


@dataclass(slots=True)
class Transaction:
    """
    The statements of one transaction; ``ended_s`` is None where it was rolled back.
    """

    migration: Migration
    accepted: tuple[tuple[str, str], ...] = ()
    done: list[Done] = field(default_factory=list)
    ended_s: float | None = None
