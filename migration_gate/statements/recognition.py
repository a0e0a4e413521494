"""
What a statement is and names, told from its first tokens. Pure; looks nothing up.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Literal, NamedTuple

from migration_gate.statements.copying import copies_with_client
from migration_gate.statements.names import TokenReader
from migration_gate.statements.statement import Statement
from migration_gate.statements.transactions import (
    is_true,
    read_options,
)


_MAKING: Final = frozenset({(b"create",), (b"copy",)})
# Among the first four words of any of them, as in CREATE LOCAL TEMPORARY TABLE.
_TARGETS: Final = frozenset({b"table", b"copy"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ConcurrentIndex:
    """
    An index statement that runs CONCURRENTLY, and the names in it, None where absent.

    Attributes:
        schema: the index's; where an index is created, its table's; REINDEX SCHEMA's.
        name: the index, None where CREATE INDEX leaves its choice to PostgreSQL, and
            for REINDEX of anything but one index.
        table_schema: the schema named with the table.
        table: the table of CREATE INDEX and REINDEX TABLE.
        columns: those of CREATE INDEX in their order, None for an expression.
        has_more: there may be more of them than the first tokens tell.
    """

    action: Literal["create", "drop", "reindex"]
    schema: str | None = None
    name: str | None = None
    table_schema: str | None = None
    table: str | None = None
    columns: tuple[str | None, ...] = field(default=(), compare=False)
    has_more: bool = field(default=False, compare=False)
    if_not_exists: bool = False


class CreatedIndex(NamedTuple):
    """
    The names in a CREATE INDEX, CONCURRENTLY or not; None where absent.

    ``schema`` is the one named with the table, where the index is too.
    """

    schema: str | None
    table: str | None
    name: str | None
    if_not_exists: bool


def psql_command(statement: Statement) -> str | None:
    """Return the name of a backslash command, such as "restrict"."""
    if statement.number:
        return None
    return statement.tokens[0][1:].decode(errors="replace")


def is_copy_from_stdin(statement: Statement) -> bool:
    """Tell a COPY whose data follows it in the file."""
    return statement.copy_data is not None


def is_copy_to_stdout(statement: Statement) -> bool:
    """Tell a COPY that sends data to the client."""
    return statement.tokens[:1] == (b"copy",) and copies_with_client(
        statement.tokens, b"to"
    )


def tables_written(statement: Statement) -> tuple[tuple[str | None, str], ...]:
    """Return schema and name of the table that CREATE TABLE, COPY or INSERT names."""
    tokens = statement.tokens
    if tokens[:1] == (b"insert",):
        return _tables_inserted(tokens)
    if tokens[:1] not in _MAKING or not _TARGETS.intersection(tokens[:4]):
        return ()
    reader = TokenReader(tokens)
    names_table = False
    if reader.take_words("create"):
        reader.take_any("global", "local")
        if reader.take_any("temp", "temporary"):
            return ()
        reader.take_any("unlogged", "foreign")
        names_table = reader.take_words("table")
        reader.take_words("if not exists")
    elif reader.take_words("copy"):
        reader.take_words("binary")
        table = reader.take_table()
        reader.take_parentheses()
        return (table,) if table and reader.take_words("from") else ()
    table = reader.take_table() if names_table else None
    return (table,) if table else ()


@lru_cache(maxsize=1024)
def _tables_inserted(tokens: tuple[bytes, ...]) -> tuple[tuple[str | None, str], ...]:
    # A dump repeats the same few heads a million times.
    reader = TokenReader(tokens)
    table = reader.take_table() if reader.take_words("insert into") else None
    return (table,) if table else ()


def concurrent_index(statement: Statement) -> ConcurrentIndex | None:
    """Return the names in CREATE, DROP INDEX or REINDEX ... CONCURRENTLY, else None."""
    reader = TokenReader(statement.tokens)
    if reader.take_any("create index concurrently", "create unique index concurrently"):
        made = _created_index(reader)
        columns, has_more = _indexed_columns(reader)
        return ConcurrentIndex(
            action="create",
            schema=made.schema,
            name=made.name,
            table_schema=made.schema,
            table=made.table,
            columns=columns,
            has_more=has_more,
            if_not_exists=made.if_not_exists,
        )
    if reader.take_words("drop index concurrently"):
        reader.take_words("if exists")
        schema, name = reader.take_table() or (None, None)
        return ConcurrentIndex(action="drop", schema=schema, name=name)
    if reader.take_words("reindex"):
        return _reindexed(reader)
    return None


def created_index(statement: Statement) -> CreatedIndex | None:
    """Return the names in CREATE INDEX, else None."""
    reader = TokenReader(statement.tokens)
    if not reader.take_any("create index", "create unique index"):
        return None
    reader.take_words("concurrently")
    return _created_index(reader)


def _created_index(reader: TokenReader) -> CreatedIndex:
    if_not_exists = reader.take_words("if not exists")
    # ON is reserved: an index of that name is quoted.
    name = None if reader.peek() == b"on" else reader.take_name()
    reader.take_words("on")
    reader.take_words("only")
    schema, table = reader.take_table() or (None, None)
    return CreatedIndex(schema, table, name, if_not_exists)


def _indexed_columns(reader: TokenReader) -> tuple[tuple[str | None, ...], bool]:
    """
    Return the columns of an index, and whether there may be more.

    An expression is in parentheses, or a call.
    """
    if reader.take_words("using"):
        reader.take()
    inside = TokenReader(reader.take_parentheses())
    has_more = reader.peek(-1) != b")"
    columns: list[str | None] = []
    while inside.peek():
        is_expression = inside.peek() == b"(" or inside.peek(1) in {b"(", b"."}
        columns.append(None if is_expression else inside.take_name())
        while inside.peek() not in {b"", b","}:
            if not inside.take_parentheses():
                inside.take()
        inside.take()
    # The last one may be cut.
    return tuple(columns[:-1] if has_more else columns), has_more


def _reindexed(reader: TokenReader) -> ConcurrentIndex | None:
    options = read_options(reader.take_parentheses())
    target = reader.take()
    if not reader.take_words("concurrently") and not is_true(
        options.get("concurrently", "false")
    ):
        return None
    schema, name = reader.take_table() or (None, None)
    if target == b"index":
        return ConcurrentIndex(action="reindex", schema=schema, name=name)
    if target == b"table":
        return ConcurrentIndex(action="reindex", table_schema=schema, table=name)
    return ConcurrentIndex(
        action="reindex", schema=name if target == b"schema" else None
    )
