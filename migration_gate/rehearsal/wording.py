"""
What the text of a statement tells by itself: what it drops, renames, sets. Pure.

What depends on what is there (whether a default is volatile, whether a type change
rewrites) is told as far as the words go; a rehearsal knows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice, pairwise, takewhile
from typing import Final, NamedTuple

from migration_gate.files.script import Script
from migration_gate.rehearsal.facts import Said
from migration_gate.statements import (
    Content,
    ScriptError,
    Statement,
    created_index,
    iter_forms,
    tables_written,
)
from migration_gate.statements.names import TokenReader, is_string, string_value


# No findings: what makes others none.
VALIDATED: Final = "validates"
MAKES: Final = "makes"
DROPS_VIEW: Final = "drops-view"
FORMS_READ: Final = 2000  # of a statement: ALTER TABLE with hundreds of actions
STARTS: Final = frozenset(
    {b"alter", b"create", b"drop", b"truncate", b"update", b"delete", b"do"}
)
# Functions that PostgreSQL and its usual extensions mark volatile.
VOLATILE: Final = frozenset(
    {
        b"random",
        b"clock_timestamp",
        b"timeofday",
        b"gen_random_uuid",
        b"uuidv4",
        b"uuidv7",
        b"uuid_generate_v1",
        b"uuid_generate_v4",
        b"nextval",
        b"gen_random_bytes",
    }
)
SERIALS: Final = frozenset(
    {b"serial", b"bigserial", b"smallserial", b"serial2", b"serial4", b"serial8"}
)
# After these a statement begins in PL/pgSQL; ">" ends a label.
BEGINS: Final = frozenset({b";", b"begin", b"then", b"else", b"loop", b">"})
VIEWS: Final = (
    "create view",
    "create or replace view",
    "create recursive view",
    "create materialized view",
)
RENAMED: Final = ("table", "view", "materialized view", "foreign table", "sequence")
Table = tuple[str | None, str]


def read_statement(content: Content, statement: Statement) -> Iterator[Said]:
    """Yield what a statement's text tells, in the order of its words."""
    if statement.tokens[:1] and statement.tokens[0] in STARTS:
        tokens = tuple(_tokens(content, statement.first, statement.end))
        yield from _read(TokenReader(tokens), statement)


class Told(NamedTuple):
    """What a statement of a file tells, and the reason why it may be, if any."""

    line: int
    name: str
    table: str | None
    accepted: str | None


@dataclass(slots=True)
class Reader:
    """
    Reads the texts of what is pending, in their order.

    What they say of a table that one of them makes is about nobody's. SET NOT NULL is
    passed over where a constraint of the table was validated before it, since a CHECK
    may prove it.
    """

    _made: set[str] = field(default_factory=set)
    _validated: set[str] = field(default_factory=set)

    def read(self, script: Script) -> Iterator[Told]:
        """Yield what one file's text tells."""
        accepted = dict(script.directives.accept)
        told: list[Told] = []
        for unit in script.units:
            for statement in unit.statements:
                for said in read_statement(script.content, statement):
                    line, _ = script.place(statement.first)
                    table = said.bare_name
                    if said.name == MAKES:
                        told = [t for t in told if t[1:3] != (DROPS_VIEW, table)]
                    elif self._is_told(said):
                        reason = accepted.get(said.name)
                        told.append(Told(line, said.name, table, reason))
                self._made |= {name for _, name in tables_made(statement)}
        yield from told

    def _is_told(self, said: Said) -> bool:
        name = said.bare_name or ""
        if said.name == VALIDATED:
            self._validated.add(name)
            return False
        is_proved = said.name == "not-null-without-check" and name in self._validated
        return name not in self._made and not is_proved


def tables_made(statement: Statement) -> tuple[Table, ...]:
    """Return the table that CREATE TABLE or CREATE MATERIALIZED VIEW makes."""
    reader = TokenReader(statement.tokens)
    if reader.take_words("create materialized view"):
        reader.take_words("if not exists")
        table = reader.take_table()
        return (table,) if table else ()
    is_create = statement.tokens[:1] == (b"create",)
    temporary = {b"temp", b"temporary"}.intersection(statement.tokens[1:3])
    if is_create and temporary:
        rest = tuple(t for t in statement.tokens if t not in temporary)
        return tables_written(statement._replace(tokens=rest))
    return tables_written(statement) if is_create else ()


def _tokens(
    content: Content, first: int, last: int, *, is_block: bool = False
) -> Iterator[bytes]:
    with suppress(ScriptError):
        forms = iter_forms(content, first)
        for start, end, is_word in islice(forms, FORMS_READ):
            if start >= last:
                return
            token = bytes(content[start:end])
            if token == b";" and not is_block:
                return
            yield token.lower() if is_word else token


def _read(reader: TokenReader, statement: Statement) -> Iterator[Said]:
    if reader.take_any("update", "delete from"):
        yield from _read_change(reader)
    elif reader.take_words("do"):
        for token in filter(is_string, reader.rest()):
            yield from _read_block(string_value(token).encode(errors="replace"))
    elif reader.take_words("truncate"):
        reader.take_words("table")
        reader.take_words("only")
        yield Said("truncates-table", reader.take_table())
    elif reader.take_any("drop table", "drop foreign table"):
        reader.take_words("if exists")
        yield from (Said("drops-table", table) for table in _tables(reader))
    elif reader.take_any("drop view", "drop materialized view"):
        reader.take_words("if exists")
        yield from (Said(DROPS_VIEW, table) for table in _tables(reader))
    elif reader.take_words("alter"):
        yield from _read_alter(reader)
    elif reader.take_any(*VIEWS):
        reader.take_words("if not exists")
        yield Said(MAKES, reader.take_table())
    else:
        created = created_index(statement)
        builds = not {b"concurrently", b"only"}.intersection(statement.tokens[:7])
        if created is not None and builds:
            table = (created.schema, created.table) if created.table else None
            yield Said("index-not-concurrent", table)


def _tables(reader: TokenReader) -> Iterator[Table]:
    while table := reader.take_table():
        yield table
        if not reader.take_words(","):
            return


def _read_change(reader: TokenReader) -> Iterator[Said]:
    """UPDATE or DELETE without WHERE."""
    reader.take_words("only")
    table = reader.take_table()
    depth = 0
    while token := reader.take():
        depth += (token == b"(") - (token == b")")
        if depth == 0 and token == b"where":
            return
    yield Said("changes-many-rows", table)


def _read_block(text: bytes) -> Iterator[Said]:
    """Read what stands in DO: an UPDATE or DELETE where a statement begins."""
    tokens = tuple(_tokens(text, 0, len(text), is_block=True))
    for at, (before, token) in enumerate(pairwise((b";", *tokens))):
        if token in {b"update", b"delete"} and before in BEGINS:
            reader = TokenReader(_until_semicolon(tokens[at:]))
            is_merge = reader.take_words("update set")
            if not is_merge and reader.take_any("update", "delete from"):
                yield from _read_change(reader)


def _until_semicolon(tokens: tuple[bytes, ...]) -> tuple[bytes, ...]:
    return tuple(takewhile(lambda token: token != b";", tokens))


def _read_alter(reader: TokenReader) -> Iterator[Said]:
    if reader.take_words("type"):
        yield from _read_type(reader)
        return
    is_table = reader.take_any(*RENAMED)
    if not is_table:
        return
    reader.take_words("if exists")
    reader.take_words("only")
    table = reader.take_table()
    reader.take_words("*")
    if reader.take_words("rename"):
        if not reader.take_words("constraint"):
            yield Said("renames", table)
        return
    if reader.take_words("set schema"):
        yield Said("renames", table)
        return
    for action in _actions(reader.rest()):
        yield from _read_action(action, table)


def _read_type(reader: TokenReader) -> Iterator[Said]:
    name = reader.take_table()
    if reader.take_any("rename value", "rename attribute", "rename to", "set schema"):
        yield Said("renames", name)


def _actions(tokens: Sequence[bytes]) -> Iterator[tuple[bytes, ...]]:
    """Yield the actions of ALTER TABLE: what stands between commas of no list."""
    action: list[bytes] = []
    depth = 0
    for token in tokens:
        depth += (token in {b"(", b"["}) - (token in {b")", b"]"})
        if token == b"," and depth == 0:
            yield tuple(action)
            action.clear()
        else:
            action.append(token)
    yield tuple(action)


def _read_action(action: tuple[bytes, ...], table: Table | None) -> Iterator[Said]:
    reader = TokenReader(action)
    if reader.take_words("drop"):
        if not reader.take_any("constraint", "expression", "identity"):
            yield Said("drops-column", table)
    elif reader.take_words("validate constraint"):
        yield Said(VALIDATED, table)
    elif reader.take_words("alter"):
        reader.take_words("column")
        reader.take_name()
        if reader.take_words("set not null"):
            yield Said("not-null-without-check", table)
        elif reader.take_any("type", "set data type"):
            yield Said("changes-type", table)
    elif reader.take_words("add"):
        yield from _read_addition(reader, table)


CONSTRAINTS: Final = frozenset(
    {b"check", b"unique", b"primary", b"exclude", b"foreign", b"constraint", b"not"}
)


def _read_addition(reader: TokenReader, table: Table | None) -> Iterator[Said]:
    is_named = reader.take_words("constraint")
    if is_named:
        reader.take_name()
    rest = reader.rest()
    if is_named or (rest[:1] and rest[0] in CONSTRAINTS):
        yield from _read_constraint(rest, table)
        return
    has_default = b"default" in rest or b"generated" in rest
    calls = {name for name, paren in pairwise(rest) if paren == b"("}
    is_made = has_default and (VOLATILE & calls or {b"stored", b"identity"} & {*rest})
    if is_made or SERIALS & {*rest}:
        yield Said("volatile-default", table)


def _read_constraint(rest: tuple[bytes, ...], table: Table | None) -> Iterator[Said]:
    if rest[0] in {b"check", b"foreign"} and rest[-2:] != (b"not", b"valid"):
        yield Said("constraint-validated-at-once", table)
    elif (rest[0] in {b"unique", b"primary"} and b"using" not in rest) or rest[
        0
    ] == b"exclude":
        yield Said("index-not-concurrent", table)
    elif rest[:2] == (b"not", b"null") and rest[-2:] != (b"not", b"valid"):
        yield Said("not-null-without-check", table)
