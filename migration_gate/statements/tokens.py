"""
The first tokens of a statement, enough to recognise it by. Bounded and pure.
"""

from __future__ import annotations

import re

from functools import lru_cache
from typing import Final

from migration_gate.statements.contents import Content
from migration_gate.statements.forms import STANDARD, Reading
from migration_gate.statements.streaming import iter_forms


TOKEN_LIMIT: Final = 24
TOKEN_BYTES: Final = 1024

# COPY may name 1600 columns before FROM, SET may list any number of values, and a
# subscription any number of publications before its options.
_LONG_LIMIT: Final = 8192
# The common statements of large files are known by less.
_SHORT_LIMIT: Final = 4
_LIMITS: Final = {
    b"copy": _LONG_LIMIT,
    b"set": _LONG_LIMIT,
    b"insert": 8,
    b"update": _SHORT_LIMIT,
    b"delete": _SHORT_LIMIT,
}
_STOPS: Final = (b";", b"\\")
# Most statements are known by less; what is cut here may read as two forms.
HEAD_BYTES: Final = 400
_CUT_FORMS: Final = 2
_NO_PATTERN: Final = b""
_PLAIN_INSERT: Final = re.compile(
    rb"(?i:insert[ \t\r\n]++into[ \t\r\n]++)"
    rb"(?:[A-Za-z_][A-Za-z_0-9$]*+|\"[^\"]++\")"
    rb"(?>(?:\.(?:[A-Za-z_][A-Za-z_0-9$]*+|\"[^\"]++\"))?)(?=[ \t\r\n(]++[A-Za-z\"(])"
)


def read_tokens(
    data: Content, first: int, end: int, reading: Reading
) -> tuple[bytes, ...]:
    """
    Return the first tokens of the statement from `first` to `end`, up to its first ";".

    There are at most `TOKEN_LIMIT`, fewer where a few tell what it is, and more where
    what matters may stand far from its start.

    Unquoted words are lower-cased, everything else is as written; an operator is given
    byte by byte. A string is cut after `TOKEN_BYTES`.

    Raises:
        ScriptError: a quoted form or a comment has no end.
    """
    if isinstance(data, bytes):
        insert = _PLAIN_INSERT.match(data, first)
        if insert:
            # A dump repeats the same few heads a million times.
            return _insert_tokens(insert[0])
        return _read(data, first, end, reading)
    head = data[first : min(end, first + HEAD_BYTES)]
    insert = _PLAIN_INSERT.match(head)
    return _insert_tokens(insert[0]) if insert else _read_by_form(data, first, reading)


@lru_cache(maxsize=1024)
def _insert_tokens(head: bytes) -> tuple[bytes, ...]:
    return _read(head, 0, len(head), STANDARD)


def _read(data: bytes, first: int, end: int, reading: Reading) -> tuple[bytes, ...]:
    """Find the tokens by one call; form by form where a pattern does not tell them."""
    head_end = min(end, first + HEAD_BYTES)
    found = reading.form.findall(data, first, head_end)
    tokens = [word.lower() or other for word, other in found]
    tokens.pop()  # what matches at the end is nothing
    limit = _limit(tokens)
    if _NO_PATTERN not in tokens[: limit + _CUT_FORMS]:
        if head_end < end:
            del tokens[-_CUT_FORMS:]
        stops = [tokens.index(stop) for stop in _STOPS if stop in tokens[:limit]]
        length = min(stops, default=limit)
        if length <= len(tokens) or head_end == end:
            return tuple(tokens[:length])
    return _read_by_form(data, first, reading)


def _read_by_form(data: Content, first: int, reading: Reading) -> tuple[bytes, ...]:
    tokens: list[bytes] = []
    limit = TOKEN_LIMIT
    for start, end, is_word in iter_forms(data, first, reading):
        token = data[start : min(end, start + TOKEN_BYTES)]
        if token in _STOPS:
            break
        tokens.append(token.lower() if is_word else token)
        if len(tokens) == _SHORT_LIMIT:
            limit = _limit(tokens)
        if len(tokens) == limit:
            break
    return tuple(tokens)


def _limit(tokens: list[bytes]) -> int:
    head = tokens[:_SHORT_LIMIT]
    if head[:1] == [b"select"] and b"set_config" not in head:
        return _SHORT_LIMIT
    if head[1:2] == [b"subscription"]:
        return _LONG_LIMIT
    return _LIMITS.get(head[0], TOKEN_LIMIT) if head else TOKEN_LIMIT
