"""
What PostgreSQL stumbled on in a file, as far as it may be told. Pure.

A word of the grammar or a name is no secret; a literal is, and so is a word where a
literal belongs: after a string that ended too early, after PASSWORD, or in a statement
that writes rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from migration_gate.report.quoting import RESERVED
from migration_gate.statements import Content, ScriptError, iter_forms, place


# Of a statement that is longer up to there, the word before is not looked for.
LOOK_BACK_BYTES: Final = 1 << 16
NAME_BYTES: Final = 63
SECRET_NEXT: Final = frozenset({b"password", b"by", b"=", b"user", b"values"})
STRING_ENDS: Final = (b"'", b"$")
WRITES_ROWS: Final = frozenset({b"insert", b"update", b"merge", b"values", b"call"})
BEGINS_STATEMENT: Final = frozenset(
    b"alter analyze begin call comment commit copy create delete do drop grant insert "
    b"lock refresh reindex revoke select set truncate update vacuum with".split()
)


def name_token(content: Content, first: int, offset: int) -> str | None:
    """
    Return the token at an offset in quotes, or what kind it is; None where none is.

    Args:
        content: The file.
        first: Where the statement begins.
        offset: Where PostgreSQL points to.
    """
    try:
        start, end, is_word = next(iter_forms(content, offset))
        if start != offset:
            return None
        token = _shorten(content, start, end)
        if is_word:
            shown = _is_grammar(content, first, offset)
            return f'"{_decode(token)}"' if shown else "a word"
    except (ScriptError, StopIteration):
        return None
    return _name_kind(token)


def missing_semicolon(content: Content, first: int, offset: int) -> str:
    """Return where the statement began, if above, and a guess; empty if not."""
    began, _ = place(content, first)
    line, _ = place(content, offset)
    if line == began:
        return ""
    before = content[max(first, offset - LOOK_BACK_BYTES) : offset]
    stands_first = not before[before.rfind(b"\n") + 1 :].strip()
    word = content[offset : offset + 16].split(None, 1)[:1]
    if stands_first and word and word[0].lower() in BEGINS_STATEMENT:
        return (
            f"The statement began at line {began}: a semicolon may be missing before "
            f"line {line}. "
        )
    return f"The statement began at line {began}. "


def _shorten(content: Content, start: int, end: int) -> bytes:
    """Return a token, of a long one what tells its kind."""
    if end - start <= LOOK_BACK_BYTES:
        return content[start:end]
    return content[start : start + NAME_BYTES] + content[end - 1 : end]


def _is_grammar(content: Content, first: int, offset: int) -> bool:
    """Tell whether a word stands where no literal belongs."""
    if offset - first > LOOK_BACK_BYTES:
        return False
    words = [content[start:end] for start, end in _up_to(content, first, offset)]
    *earlier, word = words
    if not earlier:
        return True
    if earlier[0].lower() in WRITES_ROWS:
        return _decode(word).lower() in RESERVED
    before = earlier[-1]
    return not before.endswith(STRING_ENDS) and before.lower() not in SECRET_NEXT


def _up_to(content: Content, first: int, offset: int) -> Iterator[tuple[int, int]]:
    """Yield the tokens of a statement up to the one at the offset, with it."""
    for start, end, _ in iter_forms(content, first):
        yield start, end
        if start >= offset:
            return


def _name_kind(token: bytes) -> str:
    start = token[:3].lstrip(b"eEbBxXnNuU&")[:1]
    if start == b"'" or (token[:1] == b"$" and token[-1:] == b"$" and token != b"$"):
        return "a string"
    if start == b'"':
        return "a quoted name"
    if token[:1].isdigit() or (token[:1] == b"." and token[1:2].isdigit()):
        return "a number"
    if token[:1] == b"$":
        return "a parameter"
    return f'"{_decode(token)}"'


def _decode(token: bytes) -> str:
    return token[:NAME_BYTES].decode("utf-8", "replace")
