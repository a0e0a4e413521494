"""
Cut a script into its statements, each with its place. Pure, one pass, nothing copied.

The pieces are what psql would send one by one: they end at a ";" outside parentheses
and outside a BEGIN ATOMIC body; COPY ... FROM STDIN takes its data lines along.
"""

from __future__ import annotations

import re

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Final

from migration_gate.statements.contents import (
    Content,
    LargeText,
    has_any,
)
from migration_gate.statements.copying import copies_with_client, read_copy_data
from migration_gate.statements.forms import (
    BYTE_ORDER_MARK,
    STANDARD,
    Reading,
    ScriptError,
    end_of_form,
    skip_blank,
    skip_run,
)
from migration_gate.statements.parameters import CHANGING
from migration_gate.statements.pieces import gather, reading_after
from migration_gate.statements.statement import Statement
from migration_gate.statements.streaming import (
    iter_forms,
    pass_blank,
    pass_form,
    pass_run,
)
from migration_gate.statements.tokens import read_tokens


_OPEN, _CLOSE, _SEMICOLON, _BACKSLASH, _SLASH = b"();\\/"

# Of a statement with a fault, so much is looked at form by form.
CLOSER_BYTES: Final = 4 << 20
_EMPTY_STATEMENTS: Final = re.compile(rb"[ \t\n\r\f\v;]++")
# psqlscanslash.l: an unquoted backslash begins the next command.
_PSQL_COMMAND: Final = re.compile(
    rb"""
    \\ (?: \\ | [^\s\\]*+ )
    (?> (?: [^\n\r\\'"]++ | ' (?> (?: [^\n\r\\']++ | \\[^\n\r] )* ) '
        | "[^\n\r"]*+" | ['"] )* )
    (?> (?: \r?\n | \r )? )
    """,
    re.VERBOSE,
)


def split(content: Content) -> Sequence[Statement]:
    """
    Return the pieces of a script, in order.

    Joined they are the script, but for a rest of white space, comments and empty
    statements. Empty statements and a byte order mark belong to the piece after them.

    Raises:
        ScriptError: the text cannot be cut; says where the fault began.
    """
    return gather(content, iter_statements(content))


def iter_statements(content: Content) -> Iterator[Statement]:
    """
    Yield the pieces of a script one by one.

    Raises:
        ScriptError: as `split`, when it comes to the fault.
    """
    if isinstance(content, bytes):
        return _iter_pieces(content, 0, 0, STANDARD)
    return _iter_large(content)


def _iter_large(text: LargeText) -> Iterator[Statement]:
    """Yield the pieces that end in a window; others are followed window by window."""
    start = number = 0
    reading = STANDARD
    while start < len(text):
        window = text[start : start + text.block_bytes]
        end = start + len(window)
        with suppress(ScriptError):  # of which more is known when the rest is seen
            for piece in _iter_pieces(window, start, number, reading):
                if piece.end == end < len(text):
                    break
                yield piece
                start, number = piece.end, piece.number or number
                reading = reading_after(piece, reading)
            else:
                if end == len(text):
                    return
        long_piece = _find_piece(text, start, number, reading)
        if long_piece is None:
            return
        yield long_piece
        start, number = long_piece.end, long_piece.number or number
        reading = reading_after(long_piece, reading)


def _iter_pieces(
    data: bytes, base: int, number: int, reading: Reading
) -> Iterator[Statement]:
    """
    Yield the pieces of a text that is in memory.

    Args:
        data: The text.
        base: Where it begins in the script.
        number: Of the statement before it.
        reading: How it reads strings.
    """
    size = len(data)
    start = 0
    if base == 0 and data[:3] == BYTE_ORDER_MARK:
        start = len(BYTE_ORDER_MARK)
    first = _first_of_piece(data, start)
    start = 0
    while first < size:
        command = data[first] == _BACKSLASH and _PSQL_COMMAND.match(data, first)
        if command:
            end, words = command.end(), tuple(command[0].split())
            piece = Statement(0, base + start, base + first, base + end, None, words)
        else:
            number += 1
            end, copied, tokens = _read_statement(data, first, reading)
            if copied is not None and base:
                copied = base + copied[0], base + copied[1]
            piece = Statement(
                number, base + start, base + first, base + end, copied, tokens
            )
            if tokens[:1] in CHANGING:
                reading = reading_after(piece, reading)
        yield piece
        start = end
        first = _first_of_piece(data, start)


def _first_of_piece(data: bytes, position: int) -> int:
    while True:
        position = skip_blank(data, position)
        empty = data[position : position + 1] == b";" and _EMPTY_STATEMENTS.match(
            data, position
        )
        if not empty:
            return position
        position = empty.end()


def _read_statement(
    data: bytes, first: int, reading: Reading
) -> tuple[int, tuple[int, int] | None, tuple[bytes, ...]]:
    """Return a statement's end, the range of its COPY data, and its first tokens."""
    try:
        end = _end_of_statement(data, first, reading)
    except ScriptError as error:
        _look_closer(data, first, reading, error.offset)
        raise
    tokens = read_tokens(data, first, end, reading)
    copied, end = _take_along(data, first, end, tokens, reading)
    return end, copied, tokens


def _look_closer(content: Content, first: int, reading: Reading, fault: int) -> None:
    """
    Look at each form before a fault, where that is not far.

    What swallows many forms at once takes a doubled quote for two strings that touch,
    and a fault in a string for one of the last of them.

    Raises:
        ScriptError: The fault began before it.
    """
    if fault - first <= CLOSER_BYTES:
        for _, end, _ in iter_forms(content, first, reading):
            if end > fault:
                break


def _take_along(
    content: Content, first: int, end: int, tokens: tuple[bytes, ...], reading: Reading
) -> tuple[tuple[int, int] | None, int]:
    """Return the range of a COPY's data, and the end with it, or with a body."""
    kind = tokens[:1]
    if kind == (b"create",) and _is_routine(tokens):
        if has_any(content, b"atomic", start=first, end=end):
            return None, _end_of_routine(content, first, reading)
    elif kind == (b"copy",) and copies_with_client(tokens, b"from"):
        return read_copy_data(content, first, end)
    return None, end


def _find_piece(
    text: LargeText, start: int, number: int, reading: Reading
) -> Statement | None:
    """Return the piece that begins at `start`, however long; None where none is."""
    is_marked = start == 0 and text[:3] == BYTE_ORDER_MARK
    first = pass_blank(text, start + (len(BYTE_ORDER_MARK) if is_marked else 0))
    while text[first : first + 1] == b";":
        first = pass_blank(text, first + 1)
    if first == len(text):
        return None
    command = text[first] == _BACKSLASH and _find_command(text, first)
    if command:
        end = first + len(command)
        return Statement(0, start, first, end, None, tuple(command.split()))
    try:
        end = _find_end(text, first, reading)
    except ScriptError as error:
        _look_closer(text, first, reading, error.offset)
        raise
    tokens = read_tokens(text, first, end, reading)
    copied, end = _take_along(text, first, end, tokens, reading)
    return Statement(number + 1, start, first, end, copied, tokens)


def _find_command(text: LargeText, first: int) -> bytes:
    """Return the psql command that begins at `first`, its line end included."""
    size = text.block_bytes
    while True:
        window = text[first : first + size]
        command = _PSQL_COMMAND.match(window)
        if not command or command.end() < len(window) or len(window) < size:
            return command[0] if command else b""
        size *= 2


def _find_end(text: LargeText, first: int, reading: Reading) -> int:
    """Return the end of a statement that is longer than what is in memory of it."""
    depth = opened_at = 0
    position = first
    while True:
        position = pass_blank(text, pass_run(text, position, reading))
        if position == len(text):
            break
        byte = text[position]
        if byte == _SEMICOLON and depth == 0:
            return position + 1
        if byte == _BACKSLASH:
            raise _psql_command_inside(position)
        if byte == _OPEN:
            opened_at = opened_at if depth else position
            depth += 1
        elif byte == _CLOSE:
            depth = max(depth - 1, 0)
        position, _ = pass_form(text, position, reading)
    if depth:
        raise _unclosed_parenthesis(opened_at)
    return position


def _is_routine(tokens: tuple[bytes, ...]) -> bool:
    kind = tokens[3:4] if tokens[1:3] == (b"or", b"replace") else tokens[1:2]
    return kind in {(b"function",), (b"procedure",)}


def _end_of_statement(data: bytes, first: int, reading: Reading) -> int:
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


def _end_of_routine(data: Content, first: int, reading: Reading) -> int:
    """
    Return the end of a CREATE FUNCTION or PROCEDURE, past its BEGIN ATOMIC body.

    psqlscan.l counts every BEGIN, CASE and END; the grammar knows the END of a body by
    what stands before it, so a routine or a column named "begin" does no harm here.
    """
    depth = bodies = opened_at = body_at = 0
    before, before_at = b"", first
    for position, end, is_word in iter_forms(data, first, reading):
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
