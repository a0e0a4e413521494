"""
Group a file's statements into what is done as a whole or not at all. Pure.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Final, overload

from migration_gate.statements import (
    Pieces,
    ScriptError,
    Statement,
    forbids_transaction,
    having,
    setting_changed,
    transaction_control,
    without,
)


SAVEPOINTS: Final = frozenset({"savepoint", "release", "rollback_to"})
MODE_WORDS: Final = frozenset(
    b"isolation level serializable repeatable read committed uncommitted write "
    b"not deferrable ,".split()
)
BEFORE_MODES: Final = frozenset(
    b"begin start set session local transaction work".split()
)
READ_ONLY: Final = "READ ONLY transaction in a migration, which has to be recorded"
TAKE_OUT: Final = "Take it out: the gate runs each file in a transaction of its own."
UNDONE: Final = (
    "Take it out together with what it would undo: the gate keeps all that a file does."
)
UNDOING: Final = frozenset({"rollback", "rollback_and_chain"})
CONTROL_WORDS: Final = {"prepare": "PREPARE TRANSACTION"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """
    Statements that are done as a whole or not at all.

    ``modes`` are those of the file's own BEGIN and SET TRANSACTION; ``is_block`` tells
    that it has such a BEGIN. ``alone`` says why PostgreSQL refuses its one statement in
    a transaction; empty where it runs in one.
    """

    statements: Sequence[Statement]
    modes: bytes = field(default=b"", repr=False)
    is_block: bool = False
    alone: str = ""

    @property
    def number(self) -> int:
        """Return the number of its first statement; 0 where it has none."""
        return self.statements[0].number if self.statements else 0


def group_inside(
    statements: Sequence[Statement],
) -> tuple[Unit, tuple[ScriptError, ...]]:
    """
    Make one unit of a file that runs in the gate's transaction.

    The file's own single BEGIN … COMMIT around everything is the gate's transaction;
    the pairs that pg_dump puts around a large object's data are left out too.
    """
    left_out, modes = set[int](), b""
    faults = []
    for block in _find_blocks(statements):
        if _is_around_everything(statements, block):
            modes, problem = _read_modes(statements[block.begin])
            if problem:
                faults.append(_control_fault(statements[block.begin], problem))
        elif not all(
            _is_large_object_work(statement)
            for statement in statements[block.begin + 1 : block.end]
        ):
            continue
        left_out |= {block.begin, block.end}
    kept, modes = _take_modes(without(statements, left_out), modes)
    faults += [*_find_read_only(statements)]
    faults += [_control_fault(s) for _, s in having(kept, _ends_transaction)]
    return Unit(statements=kept, modes=modes), tuple(faults)


def _ends_transaction(statement: Statement) -> bool:
    control = transaction_control(statement)
    return control not in SAVEPOINTS | {None, "set_transaction"}


def _take_modes(
    statements: Sequence[Statement], modes: bytes
) -> tuple[Sequence[Statement], bytes]:
    """
    Take SET TRANSACTION out of a transaction's first statements, as modes of its BEGIN.

    PostgreSQL takes it before any query only, and the gate's own come first.
    """
    taken = set[int]()
    found = [modes] if modes else []
    for index, statement in enumerate(statements):
        if transaction_control(statement) == "set_transaction":
            set_modes, problem = _read_modes(statement)
            if not problem:
                found.append(set_modes)
                taken.add(index)
        elif setting_changed(statement) is None and not _reads_settings(statement):
            break
    return without(statements, taken), b" ".join(found)


def _find_read_only(statements: Sequence[Statement]) -> Iterator[ScriptError]:
    for _, statement in having(statements, transaction_control):
        if transaction_control(statement) == "set_transaction":
            _, problem = _read_modes(statement)
            if problem == READ_ONLY:
                yield _control_fault(statement, problem)


def has_own_blocks(statements: Sequence[Statement]) -> bool:
    """
    Tell a file whose own BEGIN … COMMIT blocks say what is done as a whole.

    Not one that is a single block around everything, nor pg_dump's large objects.
    """
    blocks = [
        block
        for block in _find_blocks(statements)
        if not all(map(_is_large_object_work, statements[block.begin + 1 : block.end]))
    ]
    if not blocks or any(_is_around_everything(statements, b) for b in blocks):
        return False
    _, faults = group_outside(statements)
    return not faults


def group_outside(
    statements: Sequence[Statement], wholes: Sequence[tuple[int, int]] = ()
) -> tuple[Sequence[Unit], tuple[ScriptError, ...]]:
    """
    Make a unit of each statement, or block, of a file that runs outside a transaction.

    A block is a BEGIN … COMMIT of the file, or one of ``wholes``, stretches of bytes
    that the tool the file is written for commits as a whole.
    """
    faults: list[ScriptError] = []
    units = _Units(statements)
    for whole, start, end in _cut_at(statements, wholes):
        part = statements[start:end]
        if whole is not None and not any(map(forbids_transaction, part)):
            unit, found = group_inside(part)
            if unit.statements:
                units.add(replace(unit, is_block=True))
            faults += found
        else:
            faults += _group_each(part, start, units)
    return units if isinstance(statements, Pieces) else tuple(units), tuple(faults)


class _Units(Sequence[Unit]):
    """Units, of which those of one plain statement are made when they are asked for."""

    def __init__(self, statements: Sequence[Statement]) -> None:
        self._statements = statements
        self._indices = array("I")
        self._made: dict[int, Unit] = {}

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, where: int) -> Unit: ...

    @overload
    def __getitem__(self, where: slice) -> tuple[Unit, ...]: ...

    def __getitem__(self, where: int | slice) -> Unit | tuple[Unit, ...]:
        """Return one unit, or some of them."""
        if isinstance(where, slice):
            return tuple(self[at] for at in range(len(self))[where])
        at = range(len(self))[where]
        made = self._made.get(at)
        return made or Unit(statements=(self._statements[self._indices[at]],))

    def add(self, unit: Unit) -> None:
        """Add a unit."""
        self._made[len(self)] = unit
        self._indices.append(0)

    def add_plain(self, index: int) -> None:
        """Add a unit of the one statement of this index."""
        self._indices.append(index)


def _cut_at(
    statements: Sequence[Statement], wholes: Sequence[tuple[int, int]]
) -> Iterator[tuple[tuple[int, int] | None, int, int]]:
    """Yield each stretch, or None between them, with the indices of its statements."""
    if not wholes:
        yield None, 0, len(statements)
        return
    start = 0
    for whole, group in groupby(statements, lambda each: _stretch_of(each, wholes)):
        end = start + sum(1 for _ in group)
        yield whole, start, end
        start = end


def _stretch_of(
    statement: Statement, wholes: Sequence[tuple[int, int]]
) -> tuple[int, int] | None:
    return next((w for w in wholes if w[0] <= statement.first < w[1]), None)


def _group_each(
    statements: Sequence[Statement], start: int, units: _Units
) -> list[ScriptError]:
    """Add a unit of each statement, or block, of those from an index on."""
    blocks = {block.begin: block for block in _find_blocks(statements)}
    faults: list[ScriptError] = []
    index = 0
    while index < len(statements):
        block = blocks.get(index)
        if block is None:
            statement = statements[index]
            control = transaction_control(statement)
            if control is not None and control != "set_transaction":
                faults.append(_control_fault(statement))
            faults += _find_read_only([statement])
            alone = forbids_transaction(statement)
            if alone:
                units.add(Unit(statements=(statement,), alone=alone))
            else:
                units.add_plain(start + index)
            index += 1
            continue
        inner = statements[block.begin + 1 : block.end]
        modes, problem = _read_modes(statements[block.begin])
        if problem:
            faults.append(_control_fault(statements[block.begin], problem))
        faults += [*_find_block_faults(inner), *_find_read_only(inner)]
        inner, modes = _take_modes(inner, modes)
        if inner:
            units.add(Unit(statements=inner, modes=modes, is_block=True))
        index = block.end + 1
    return faults


@dataclass(frozen=True, slots=True)
class _Block:
    """A BEGIN and the next COMMIT, by their index."""

    begin: int
    end: int


def _find_blocks(statements: Sequence[Statement]) -> Iterator[_Block]:
    begin: int | None = None
    for index, statement in having(statements, transaction_control):
        control = transaction_control(statement)
        if control == "begin":
            begin = index
        elif control == "commit" and begin is not None:
            yield _Block(begin, index)
            begin = None
        elif control is not None and control not in SAVEPOINTS | {"set_transaction"}:
            begin = None


def _is_around_everything(statements: Sequence[Statement], block: _Block) -> bool:
    """Tell whether only settings, and what is not for PostgreSQL, stand outside it."""
    return block.end == len(statements) - 1 and all(
        setting_changed(statement) is not None or _reads_settings(statement)
        for statement in statements[: block.begin]
    )


def _reads_settings(statement: Statement) -> bool:
    words = [token for token in statement.tokens if token != b"pg_catalog"]
    return words[:1] == [b"show"] or words[1:2] == [b"current_setting"]


def _is_large_object_work(statement: Statement) -> bool:
    words = [t for t in statement.tokens if t not in {b"pg_catalog", b"."}]
    functions = {b"lo_open", b"lowrite", b"lo_close", b"lo_create", b"lo_put"}
    return words[:1] == [b"select"] and words[1:2] != [] and words[1] in functions


def _find_block_faults(inner: Sequence[Statement]) -> Iterator[ScriptError]:
    for statement in inner:
        why = forbids_transaction(statement)
        if why is not None:
            yield ScriptError(
                statement.first,
                f"{why} in a BEGIN … COMMIT block",
                "PostgreSQL refuses it in a transaction: take it out of the block.",
            )
        control = transaction_control(statement)
        if control not in SAVEPOINTS | {None, "set_transaction"}:
            yield _control_fault(statement)


def _read_modes(begin: Statement) -> tuple[bytes, str]:
    """Return the modes of a BEGIN or SET TRANSACTION, or what is wrong with them."""
    words = [token for token in begin.tokens if token != b";"]
    while words and words[0] in BEFORE_MODES:
        words = words[1:]
    if b"only" in words:
        return b"", READ_ONLY
    if not MODE_WORDS.issuperset(words):
        return b"", "unknown transaction mode"
    return b" ".join(words).upper(), ""


def _control_fault(statement: Statement, problem: str = "") -> ScriptError:
    control = str(transaction_control(statement))
    words = CONTROL_WORDS.get(control, control.replace("_", " ").upper())
    remedy = UNDONE if control in UNDOING else TAKE_OUT
    return ScriptError(statement.first, problem or f"{words} in a migration", remedy)
