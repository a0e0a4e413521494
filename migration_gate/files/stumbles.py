"""
What PostgreSQL would call a syntax error and no more: named, with its place. Pure.

Variables of other programs, signs that only look like white space or quotes, and
directives that stand where nobody reads them.
"""

from __future__ import annotations

import re
import unicodedata

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

from migration_gate.files.migration import Content
from migration_gate.statements import (
    ScriptError,
    Statement,
    string_syntax_set,
    surroundings,
)


# What is larger was written by a program; JSON in its strings would take long to pass.
STUMBLE_MAX_BYTES: Final = 1 << 20
SHOWN: Final = 10

STUMBLE: Final = re.compile(
    rb"""
    (?P<directive> (?: -- | /\* ) [ \t]* gate: )
  | (?P<variable> (?<!:) : (?= [A-Za-z_] | '[A-Za-z_]\w*' | "[A-Za-z_]\w*" )
        (?P<name> ['"]? \w++ )? )
  | (?P<placeholder> \$?\{ [{]? )
  | (?P<blank> \xc2\xa0 | \xe1\x9a\x80 | \xe2\x80[\x80-\x8b\xa8\xa9\xaf]
        | \xe2\x81[\x9f\xa0] | \xe3\x80\x80 )
  | (?P<mark> \xef\xbb\xbf )
  | (?P<quote> \xe2\x80[\x98\x99\x9c\x9d] )
    """,
    re.VERBOSE | re.IGNORECASE,
)
# JSON_OBJECT('key': value), where what stands after the ":" is an expression.
KEYED: Final = re.compile(rb"json_object", re.IGNORECASE)


def find_stumbles(
    content: Content, pieces: Sequence[Statement]
) -> Iterator[ScriptError]:
    """Yield what would stop PostgreSQL, or be passed over, and why."""
    if len(content) > STUMBLE_MAX_BYTES or any(map(string_syntax_set, pieces)):
        return
    yield from islice(_find_all(content, pieces), SHOWN)


def _find_all(content: Content, pieces: Sequence[Statement]) -> Iterator[ScriptError]:
    matches = list(STUMBLE.finditer(content))
    first = pieces[0].first if pieces else len(content)
    index = 0
    for piece in pieces:
        found = {}
        while index < len(matches) and matches[index].start() < piece.end:
            found[matches[index].start()] = matches[index]
            index += 1
        if piece.number == 0:  # what psql reads is for psql to read
            found = {at: match for at, match in found.items() if at < piece.first}
        for at, around in surroundings(content, piece, found) if found else ():
            match = found[at]
            if around.kind == "comment":
                yield from _judge_comment(match, is_late=at > first)
            elif around.kind == "code" and not (
                match["directive"] or (match["variable"] and around.brackets)
            ):
                yield from _judge_code(match, content, piece)
    for match in matches[index:]:
        yield from _judge_comment(match, is_late=match.start() > first)


def _judge_comment(match: re.Match[bytes], *, is_late: bool) -> Iterator[ScriptError]:
    if match["directive"] is None:
        return
    if match["directive"].startswith(b"/*"):
        problem = "directive in a block comment"
        yield ScriptError(match.start(), problem, 'Write it after "--".')
    elif is_late:
        yield ScriptError(
            match.start(),
            "directive after the first statement",
            "Move it above the first statement.",
        )


def _judge_code(
    match: re.Match[bytes], content: Content, piece: Statement
) -> Iterator[ScriptError]:
    is_keyed = match["variable"] and KEYED.search(content, piece.first, piece.end)
    if not is_keyed:
        yield _describe(match)


def _describe(match: re.Match[bytes]) -> ScriptError:
    at = match.start()
    if match["variable"]:
        name = (match["name"] or b"").decode(errors="replace")
        quote = name[:1] if name[:1] in {"'", '"'} else ""
        return ScriptError(
            at,
            f"variable :{name}{quote}, which psql would fill in",
            "Write its value; in a list of bounds, put a blank after the colon.",
        )
    if match["placeholder"]:
        return ScriptError(
            at,
            f'placeholder that begins with "{match["placeholder"].decode()}", which '
            "another program would fill in",
            "Write what it stands for.",
        )
    if match["mark"]:
        return ScriptError(
            at,
            "byte order mark (U+FEFF) inside the text",
            "Take it out: files that were joined leave it.",
        )
    sign = match[0].decode()
    name = f"{unicodedata.name(sign, 'sign').lower()} (U+{ord(sign):04X})"
    if match["quote"]:
        return ScriptError(at, f"{name} in place of a quote", "Write ' or \".")
    return ScriptError(
        at,
        f"{name} outside quotes, which PostgreSQL takes for a letter",
        "Write a plain blank, or nothing.",
    )
