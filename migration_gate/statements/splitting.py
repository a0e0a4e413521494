"""
Cut a script into its statements, each with its place. Pure, one pass, nothing copied.

The pieces are what psql would send one by one: they end at a ";" outside parentheses
and outside a BEGIN ATOMIC body; COPY ... FROM STDIN takes its data lines along.
"""

from __future__ import annotations

import re

from collections.abc import Iterator
from typing import Final

from migration_gate.statements.copying import copies_with_client, read_copy_data
from migration_gate.statements.forms import (
    BYTE_ORDER_MARK,
    STANDARD,
    Reading,
    ScriptBytes,
    ScriptError,
    backslashes,
    end_of_form,
    forms,
    skip_blank,
    skip_run,
)
from migration_gate.statements.parameters import string_syntax_set
from migration_gate.statements.statement import Statement
from migration_gate.statements.tokens import read_tokens


_OPEN, _CLOSE, _SEMICOLON, _BACKSLASH, _SLASH = b"();\\/"

_EMPTY_STATEMENTS: Final = re.compile(rb"[ \t\n\r\f\v;]++")
_ATOMIC: Final = re.compile(rb"atomic", re.IGNORECASE)
# psqlscanslash.l: an unquoted backslash begins the next command.
_PSQL_COMMAND: Final = re.compile(rb"\\(?:\\|[^\s\\]*+)[^\n\r\\]*+(?>(?:\r?\n|\r)?)")


def split(data: ScriptBytes) -> tuple[Statement, ...]:
    """
    Return the pieces of a script, in order.

    Joined they are the script, but for a rest of white space, comments and empty
    statements. Empty statements and a byte order mark belong to the piece after them.

    Raises:
        ScriptError: the text cannot be cut; says where the fault began.
    """
    return tuple(iter_statements(data))


def iter_statements(data: ScriptBytes) -> Iterator[Statement]:
    """
    Yield the pieces of a script one by one, for files too large to hold them all.

    Raises:
        ScriptError: as `split`, when it comes to the fault.
    """
    size = len(data)
    start = number = 0
    reading = STANDARD
    while (first := _first_of_piece(data, start)) < size:
        command = data[first] == _BACKSLASH and _PSQL_COMMAND.match(data, first)
        if command:
            words = tuple(command[0].split())
            piece = Statement(0, start, first, command.end(), None, words)
        else:
            number += 1
            piece = _statement(data, start, first, number, reading)
            syntax = string_syntax_set(piece)
            if syntax is not None:
                reading = STANDARD if syntax == "standard" else backslashes()
        yield piece
        start = piece.end


def _first_of_piece(data: ScriptBytes, start: int) -> int:
    position = start
    if start == 0 and data[:3] == BYTE_ORDER_MARK:
        position = len(BYTE_ORDER_MARK)
    while True:
        position = skip_blank(data, position)
        empty = data[position : position + 1] == b";" and _EMPTY_STATEMENTS.match(
            data, position
        )
        if not empty:
            return position
        position = empty.end()


def _statement(
    data: ScriptBytes, start: int, first: int, number: int, reading: Reading
) -> Statement:
    try:
        end = _end_of_statement(data, first, reading)
    except ScriptError:
        # Where the fault is near, a look at each form tells better where it began.
        read_tokens(data, first, len(data), reading)
        raise
    tokens = read_tokens(data, first, end, reading)
    copy_data = None
    kind = tokens[:1]
    if kind == (b"create",) and _is_routine(tokens):
        if _ATOMIC.search(data, first, end):
            end = _end_of_routine(data, first, reading)
    elif kind == (b"copy",) and copies_with_client(tokens, b"from"):
        copy_data, end = read_copy_data(data, first, end)
    return Statement(number, start, first, end, copy_data, tokens)


def _is_routine(tokens: tuple[bytes, ...]) -> bool:
    kind = tokens[3:4] if tokens[1:3] == (b"or", b"replace") else tokens[1:2]
    return kind in {(b"function",), (b"procedure",)}


def _end_of_statement(data: ScriptBytes, first: int, reading: Reading) -> int:
    depth = opened_at = 0
    size = len(data)
    position = first
    while (position := skip_run(data, position, reading)) < size:
        byte = data[position]
        if byte == _SEMICOLON:
            position += 1
            if depth == 0:
                return position
        elif byte == _OPEN:
            opened_at = opened_at if depth else position
            depth += 1
            position += 1
        elif byte == _CLOSE:
            depth = max(depth - 1, 0)
            position += 1
        elif byte == _BACKSLASH:
            raise _psql_command_inside(position)
        elif byte == _SLASH:
            position = skip_blank(data, position)
        else:
            position = end_of_form(data, position, reading)
    if depth:
        raise _unclosed_parenthesis(opened_at)
    return size


def _end_of_routine(data: ScriptBytes, first: int, reading: Reading) -> int:
    """
    Return the end of a CREATE FUNCTION or PROCEDURE, past its BEGIN ATOMIC body.

    psqlscan.l counts every BEGIN, CASE and END; the grammar knows the END of a body by
    what stands before it, so a routine or a column named "begin" does no harm here.
    """
    depth = bodies = opened_at = body_at = 0
    before, before_at = b"", first
    for position, end, is_word in forms(data, first, reading):
        token = data[position:end].lower() if is_word else data[position : position + 1]
        if token == b";" and depth == 0 and bodies == 0:
            return end
        if token == b"(":
            opened_at = opened_at if depth else position
            depth += 1
        elif token == b")":
            depth = max(depth - 1, 0)
        elif token == b"\\":
            raise _psql_command_inside(position)
        elif token == b"atomic" and before == b"begin":
            body_at = body_at if bodies else before_at
            bodies += 1
        elif token == b"end" and before in {b";", b"atomic"}:
            bodies = max(bodies - 1, 0)
        before, before_at = token, position
    if depth:
        raise _unclosed_parenthesis(opened_at)
    if bodies:
        raise ScriptError(
            body_at, "BEGIN ATOMIC without END", 'End the body with "END".'
        )
    return len(data)


def _psql_command_inside(position: int) -> ScriptError:
    return ScriptError(
        position,
        "psql command inside a statement",
        "Remove the backslash command; end the statement with a semicolon.",
    )


def _unclosed_parenthesis(position: int) -> ScriptError:
    return ScriptError(
        position, "parenthesis without end", 'Close the parenthesis with a ")".'
    )
