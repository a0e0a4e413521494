"""
The lexical forms of SQL: where each begins and ends, as psqlscan.l and scan.l say.

Works on bytes and offsets only. Bytes from 0x80 up are letters (UTF-8), and where psql
and the server differ the server is followed.
"""

from __future__ import annotations

import re

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Final


BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"

# Groups are repeated in atomic ones, (?>(?:...)*): Python before 3.11.5 matches
# (?:...)*+ wrongly (https://github.com/python/cpython/issues/106052).
_WORD: Final = rb"[A-Za-z_\x80-\xff][A-Za-z_0-9$\x80-\xff]*+"
_LINE_COMMENT: Final = rb"--[^\n\r]*+"
_FLAT_COMMENT: Final = rb"/\*(?>(?:[^*/]++|\*(?!/)|/(?!\*))*)\*/"

# scan.l: quotecontinue. Only white space with a line end in it joins two strings.
_JOINT: Final = (
    rb"(?>(?:[ \t\f\v]++|%(comment)b)*)[\n\r](?>(?:[ \t\n\r\f\v]++|%(comment)b[\n\r])*)"
    % {b"comment": _LINE_COMMENT}
)

_FLAT_BLANK: Final = rb"(?>(?:[ \t\n\r\f\v]++|%b|%b)*)" % (_LINE_COMMENT, _FLAT_COMMENT)
BLANK: Final = re.compile(_FLAT_BLANK)
COMMENT_EDGE: Final = re.compile(rb"/\*|\*/")
DOLLAR_TAG: Final = re.compile(rb"\$(?:[A-Za-z_\x80-\xff][A-Za-z_0-9\x80-\xff]*+)?\$")
_QUOTED_NAME: Final = re.compile(rb"(?:[uU]&)?\"")

_PLAIN: Final = rb"' [^']*+ (?>(?: ' (?>(?:%b)?) ' [^']*+ )*) '" % _JOINT
_ESCAPED: Final = rb"' (?>(?: [^'\\]++ | \\. | ' (?>(?:%b)?) ' )*) '" % _JOINT

# The next form after what is blank: group 1 when it is an unquoted word, else group 2;
# neither at the end, and where a pattern is not enough. An operator counts byte by
# byte: what ends one early is a comment.
_FORM: Final = rb"""
    %(blank)b
    (?: ( (?! [eE]' | [bBnNxX]' | [uU]&['"] ) %(word)b )
    | ( (?: [bBxX] | [uU]& ) %(plain)b
      | [nN]?+ %(unmarked)b
      | [eE] %(escaped)b
      | (?>(?: [uU]& )?) " [^"]*+ (?>(?: "" [^"]*+ )*) "
      | [0-9]++ (?>(?: \.(?!\.) [0-9]*+ )?) | \.[0-9]++
      | \$[0-9]++
      | [^A-Za-z_\x80-\xff'"$/] | / (?!\*)
      )
    | . | \Z
    )
    """

IS_WORD: Final = 1

# What cannot end a statement, swallowed at one go: everything but ";", "\", the forms
# that need more than a pattern, and parentheses nested deeper than two. A doubled quote
# reads as two strings that touch, which ends at the same place.
_ATOM: Final = rb"""
      [^A-Za-z_\x80-\xff'"$\\();/\-]++
    | (?! %(marked)b ) %(word)b
    | %(unmarked)b
    | "[^"]*+"
    | %(line_comment)b | -
    | %(flat_comment)b | / (?!\*)
    """


@dataclass(frozen=True, slots=True)
class Reading:
    """
    How an unmarked string is read: one of two ways, by standard_conforming_strings.

    Attributes:
        form: matches white space and the next form; without a group at the end, and at
            a form whose end no pattern tells.
        run: matches everything up to where a statement may end, or a look is needed.
    """

    form: re.Pattern[bytes]
    run: re.Pattern[bytes]


def _reading(form_string: bytes, run_string: bytes, marked: bytes) -> Reading:
    form = _FORM % {
        b"blank": _FLAT_BLANK,
        b"word": _WORD,
        b"plain": _PLAIN,
        b"escaped": _ESCAPED,
        b"unmarked": form_string,
    }
    atom = _ATOM % {
        b"word": _WORD,
        b"marked": marked,
        b"unmarked": run_string,
        b"line_comment": _LINE_COMMENT,
        b"flat_comment": _FLAT_COMMENT,
    }
    group = rb"\( (?>(?: %b )*) \)" % atom
    nested_group = rb"\( (?>(?: %b | %b )*) \)" % (atom, group)
    return Reading(
        form=re.compile(form, re.DOTALL | re.VERBOSE),
        run=re.compile(
            rb"(?>(?: %b | %b )*)" % (atom, nested_group), re.DOTALL | re.VERBOSE
        ),
    )


STANDARD: Final = _reading(_PLAIN, rb"'[^']*+'", rb"[eE]'")


@cache
def backslashes() -> Reading:
    """
    Return how strings are read where standard_conforming_strings is off.

    psqlscan.l: xqstart begins an escape string then; so does xnstart.
    """
    return _reading(_ESCAPED, rb"'(?>(?:[^'\\]++|\\.)*)'", rb"[bBeExX]'|[uU]&'")


class ScriptError(Exception):
    """
    The text is not a script that PostgreSQL would take.

    Attributes:
        offset: the byte where the fault began.
        problem: what is wrong, without any of the text.
        remedy: what to do about it, a sentence.
    """

    def __init__(self, offset: int, problem: str, remedy: str) -> None:
        super().__init__(offset, problem, remedy)
        self.offset = offset
        self.problem = problem
        self.remedy = remedy


def skip_blank(data: bytes, position: int) -> int:
    """
    Return the offset after the white space and comments at `position`.

    Raises:
        ScriptError: a comment has no end.
    """
    while True:
        position = _skip(BLANK, data, position)
        if data[position : position + 2] != b"/*":
            return position
        position = skip_block_comment(data, position)


def skip_block_comment(data: bytes, position: int) -> int:
    """
    Return the offset after the block comment at `position`; such comments nest.

    Raises:
        ScriptError: the comment has no end.
    """
    depth = 0
    for edge in COMMENT_EDGE.finditer(data, position):
        depth += 1 if edge[0] == b"/*" else -1
        if depth == 0:
            return edge.end()
    raise unterminated_comment(position)


def skip_run(data: bytes, position: int, reading: Reading) -> int:
    """Return the offset of the next byte that may end a statement, or needs a look."""
    return _skip(reading.run, data, position)


def end_of_form(data: bytes, position: int, reading: Reading) -> int:
    """
    Return the offset after the form at `position`, which is not blank.

    Raises:
        ScriptError: a quoted form has no end.
    """
    form = reading.form.match(data, position)
    if form and form.lastindex:
        return form.end()
    if data[position] == ord("$"):
        return _end_of_dollar_form(data, position)
    raise unterminated(data, position, position)


def forms(
    data: bytes, position: int, reading: Reading = STANDARD
) -> Iterator[tuple[int, int, bool]]:
    """
    Yield start, end and "is an unquoted word" of each form from `position` on.

    Raises:
        ScriptError: a quoted form or a comment has no end.
    """
    size = len(data)
    while position < size:
        form = reading.form.match(data, position)
        kind = form.lastindex if form else None
        if form and kind:
            yield form.start(kind), form.end(), kind == IS_WORD
            position = form.end()
            continue
        blank_end = skip_blank(data, position)
        if blank_end == position:
            end = end_of_form(data, position, reading)
            yield position, end, False
            position = end
        else:
            position = blank_end


def _skip(pattern: re.Pattern[bytes], data: bytes, position: int) -> int:
    match = pattern.match(data, position)
    return match.end() if match else position


def _end_of_dollar_form(data: bytes, position: int) -> int:
    tag = DOLLAR_TAG.match(data, position)
    if not tag:
        # scan.l: dolqfailed puts back all but the initial "$".
        return position + 1
    end = data.find(tag[0], tag.end())
    if end < 0:
        raise unterminated_dollar(position)
    return end + len(tag[0])


def unterminated_comment(position: int) -> ScriptError:
    """Return the fault of a block comment that begins there."""
    return ScriptError(
        position, "unterminated /* comment", 'Close the comment with "*/".'
    )


def unterminated_dollar(position: int) -> ScriptError:
    """Return the fault of a dollar-quoted string that begins there."""
    return ScriptError(
        position,
        "unterminated dollar-quoted string",
        "Close the string with the tag that opened it.",
    )


def unterminated(data: bytes, at: int, position: int) -> ScriptError:
    """
    Return the fault of another quoted form.

    Args:
        data: What it is in.
        at: Where it begins in `data`.
        position: Where it begins in the script.
    """
    if _QUOTED_NAME.match(data, at):
        return ScriptError(
            position, "unterminated quoted identifier", "Close the name with a '\"'."
        )
    return ScriptError(
        position,
        "unterminated quoted string",
        'Close the string with a "\'"; an apostrophe in it is written twice.',
    )
