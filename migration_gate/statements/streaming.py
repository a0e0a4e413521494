"""
The lexical forms of a text that is never in memory as a whole. Pure.

As ``forms`` does it, window by window: a quoted form that is longer than a window is
followed to its end without being kept.
"""

from __future__ import annotations

import re

from collections.abc import Iterator
from typing import Final

from migration_gate.statements.contents import (
    Content,
    LargeText,
    around,
    find,
)
from migration_gate.statements.forms import (
    BLANK,
    COMMENT_EDGE,
    DOLLAR_TAG,
    IS_WORD,
    STANDARD,
    Reading,
    forms,
    unterminated,
    unterminated_comment,
    unterminated_dollar,
)


_SPACES: Final = re.compile(rb"[ \t\n\r\f\v]*+")
_QUOTE: Final = re.compile(rb"(?P<prefix>[uU]&|[bBeEnNxX])?(?P<quote>['\"])")
_IN_ESCAPES: Final = re.compile(rb"(?>(?:[^'\\]++|\\.)*)", re.DOTALL)
# What no word goes over.
_CUTS: Final = (b",", b")", b"(", b" ")
_DOLLAR: Final = ord("$")
_TWO: Final = 2


def iter_forms(
    content: Content, position: int, reading: Reading = STANDARD
) -> Iterator[tuple[int, int, bool]]:
    """
    Yield start, end and "is an unquoted word" of each form from `position` on.

    Raises:
        ScriptError: a quoted form or a comment has no end.
    """
    if isinstance(content, bytes):
        yield from forms(content, position, reading)
        return
    while (position := pass_blank(content, position)) < len(content):
        end, is_word = pass_form(content, position, reading)
        yield position, end, is_word
        position = end


def pass_blank(text: LargeText, position: int) -> int:
    """
    Return the offset after the white space and comments at `position`.

    Raises:
        ScriptError: a comment has no end.
    """
    while True:
        base, window = text.window(position, text.reach_bytes)
        is_last = base + len(window) == len(text)
        blank = BLANK.match(window, position - base)
        end = blank.end() if blank else position - base
        if not is_last and len(window) - end < _TWO:
            # A comment of a line may go on: up to one that has ended, or step by step.
            cut = window.rfind(b"\n", position - base) + 1
            ended = BLANK.match(window, position - base, max(cut, position - base))
            passed = base + ended.end() if ended else position
            position = passed if passed > position else _step(text, position)
            continue
        if window[end : end + _TWO] != b"/*":
            return base + end
        position = pass_block_comment(text, base + end)


def _step(text: LargeText, position: int) -> int:
    """Pass white space and one comment, however long."""
    base, window = text.window(position, text.block_bytes)
    spaces = _SPACES.match(window, position - base)
    start = base + (spaces.end() if spaces else 0)
    opening = text[start : start + _TWO]
    if opening == b"--":
        end = find(text, b"\n", b"\r", start=start)
        return len(text) if end < 0 else end
    return pass_block_comment(text, start) if opening == b"/*" else start


def pass_block_comment(content: Content, position: int) -> int:
    """
    Return the offset after the block comment at `position`; such comments nest.

    Raises:
        ScriptError: the comment has no end.
    """
    depth, at = 0, position
    while True:
        base, window = around(content, at, _TWO)
        edge = COMMENT_EDGE.search(window, at - base)
        if edge:
            depth += 1 if edge[0] == b"/*" else -1
            at = base + edge.end()
            if depth == 0:
                return at
        elif base + len(window) == len(content):
            raise unterminated_comment(position)
        else:
            at = base + len(window) - 1


def pass_run(text: LargeText, position: int, reading: Reading) -> int:
    """
    Return an offset before the next byte that may end a statement, or needs a look.

    It is `position` itself where no pattern tells.
    """
    while True:
        base, window = text.window(position, text.reach_bytes)
        start = position - base
        cut = len(window)
        if base + cut < len(text):
            cut = _find_cut(window, start)
            if cut <= start and base < position:
                base, window = text.window(position, text.block_bytes)
                start, cut = position - base, _find_cut(window, position - base)
        run = reading.run.match(window, start, cut) if cut > start else None
        end = run.end() if run else start
        position = base + end
        if end < cut or end == start or position == len(text):
            return position


def _find_cut(window: bytes, start: int) -> int:
    """Return the end of a stretch of which no form but a quoted one leads out."""
    line = window.rfind(b"\n", start) + 1
    comment = window.find(b"--", start)
    end = len(window) if comment < 0 else comment
    return line or max(window.rfind(each, start, end) + 1 for each in _CUTS)


def pass_form(text: LargeText, position: int, reading: Reading) -> tuple[int, bool]:
    """
    Return the offset after the form at `position`, and whether it is a word.

    Raises:
        ScriptError: a quoted form has no end.
    """
    for reach in (text.reach_bytes, text.block_bytes):
        base, window = text.window(position, reach)
        form = reading.form.match(window, position - base)
        is_last = base + len(window) == len(text)
        if form and form.lastindex and (is_last or _is_over(window, form.end())):
            return base + form.end(), form.lastindex == IS_WORD
    if text[position] == _DOLLAR:
        return _pass_dollar_form(text, position), False
    quoted = _QUOTE.match(window, position - base)
    if quoted:
        return _pass_quoted(text, position, quoted, reading), False
    if form and form.lastindex:
        return base + form.end(), form.lastindex == IS_WORD
    raise unterminated(window, position - base, position)


def _is_over(window: bytes, end: int) -> bool:
    """Tell whether what follows a form is in a window: a string may go on there."""
    blank = BLANK.match(window, end)
    return (blank.end() if blank else end) + _TWO <= len(window)


def _pass_dollar_form(text: LargeText, position: int) -> int:
    tag = DOLLAR_TAG.match(text[position : position + text.block_bytes])
    if not tag:
        return position + 1
    end = find(text, tag[0], start=position + len(tag[0]))
    if end < 0:
        raise unterminated_dollar(position)
    return end + len(tag[0])


def _pass_quoted(
    text: LargeText, position: int, quoted: re.Match[bytes], reading: Reading
) -> int:
    prefix, quote = (quoted["prefix"] or b"").lower(), quoted["quote"]
    start = position + len(quoted[0])
    is_plain = reading is STANDARD or prefix not in {b"", b"n"}
    if prefix != b"e" and (quote == b'"' or is_plain):
        while (end := find(text, quote, start=start)) >= 0:
            if text[end + 1 : end + 2] != quote:
                return end + 1
            start = end + _TWO
        raise unterminated(quoted.string, quoted.start(), position)
    while True:
        end = _pass_escapes(text, start)
        if end == len(text):
            raise unterminated(quoted.string, quoted.start(), position)
        following = pass_blank(text, end + 1)
        between = text[end + 1 : min(following, end + 1 + text.block_bytes)]
        is_joined = not between or b"\n" in between or b"\r" in between
        if following == len(text) or text[following] != quote[0] or not is_joined:
            return end + 1
        start = following + 1


def _pass_escapes(text: LargeText, position: int) -> int:
    """Return the offset of the quote that ends a string with backslashes in it."""
    while position < len(text):
        base, window = text.window(position, _TWO)
        inside = _IN_ESCAPES.match(window, position - base)
        end = inside.end() if inside else 0
        if window[end : end + 1] == b"'":
            return base + end
        if base + end == position:
            break  # a backslash at the end of the text
        position = base + end
    return len(text)
