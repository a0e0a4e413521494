"""
What PostgreSQL would call a syntax error and no more: named, with its place. Pure.

Variables of other programs, signs that only look like white space or quotes, and
directives that stand where nobody reads them.
"""

from __future__ import annotations

import re
import unicodedata

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from migration_gate.statements import (
    Filled,
    ScriptError,
    Statement,
    Surroundings,
    string_syntax_set,
    surroundings,
)


# What is larger was written by a program; JSON in its strings would take long to pass.
STUMBLE_MAX_BYTES: Final = 1 << 20
SHOWN: Final = 10
NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

DIRECTIVE: Final = re.compile(
    rb"(?P<directive> (?: -- | /\* ) [ \t]* gate: )", re.VERBOSE | re.IGNORECASE
)
# Comments and what is quoted are passed at one go, as far as a pattern tells them:
# what is found after them is looked at closer.
STUMBLE: Final = re.compile(
    rb"""
    (?> (?: [^:'"$/{\-\x80-\xff]++ | ::++ | -- [^\n\r]*+ | -(?!-)
          | /\* (?> (?: [^*]++ | \*(?!/) )* ) \*/ | /(?!\*)
          | ' [^']*+ ' | " [^"]*+ "
          | \$ (?P<tag> [A-Za-z_0-9\x80-\xff]*+ ) \$ .*? \$(?P=tag)\$
        )* )
    (?: (?P<variable> : (?= [A-Za-z_] | '[A-Za-z_]\w*' | "[A-Za-z_]\w*" )
            (?: ['"]? \w++ ['"]? )? )
      | (?P<placeholder> \$?\{ [{]? )
      | (?P<blank> \xc2\xa0 | \xe1\x9a\x80 | \xe2\x80[\x80-\x8b\xa8\xa9\xaf]
            | \xe2\x81[\x9f\xa0] | \xe3\x80\x80 )
      | (?P<mark> \xef\xbb\xbf )
      | (?P<quote> \xe2\x80[\x98\x99\x9c\x9d] )
      | . | \Z
    )
    """,
    re.VERBOSE | re.DOTALL,
)
# JSON_OBJECT('key': value), where what stands after the ":" is an expression.
KEYED: Final = re.compile(rb"json_object", re.IGNORECASE)


def find_stumbles(filled: Filled, pieces: Sequence[Statement]) -> Iterator[ScriptError]:
    """
    Yield what would stop PostgreSQL, or be passed over, and why.

    What a variable's value holds is not looked at: it may be a secret.
    """
    content = filled.text
    if len(content) > STUMBLE_MAX_BYTES or any(map(string_syntax_set, pieces)):
        return
    found = (
        stumble
        for stumble in _find_all(content[:], pieces)
        if not filled.is_filled_in(stumble.offset)
    )
    yield from islice(found, SHOWN)


@dataclass(frozen=True, slots=True)
class _Hit:
    """What may be a stumble: where, of what kind, and its text."""

    at: int
    kind: str
    text: bytes


def _find_hits(content: bytes) -> list[_Hit]:
    hits = [
        _Hit(match.start(match.lastgroup), match.lastgroup, match[match.lastgroup])
        for pattern in (STUMBLE, DIRECTIVE)
        for match in pattern.finditer(content)
        if match.lastgroup is not None and match.lastgroup != "tag"
    ]
    return sorted(hits, key=lambda hit: hit.at)


def _find_all(content: bytes, pieces: Sequence[Statement]) -> Iterator[ScriptError]:
    hits = _find_hits(content)
    first = pieces[0].first if pieces else len(content)
    index = 0
    for piece in pieces if hits else ():
        found = {}
        while index < len(hits) and hits[index].at < piece.end:
            found[hits[index].at] = hits[index]
            index += 1
        if piece.number == 0:  # what psql reads is for psql to read
            found = {at: hit for at, hit in found.items() if at < piece.first}
        for at, around in surroundings(content, piece, found) if found else ():
            hit = found[at]
            if around.kind == "comment" and hit.kind == "directive":
                yield from _judge_directive(hit, is_late=at > first)
            elif around.kind == "code" and not _is_taken(hit, around, content, piece):
                yield _describe(hit)
    for hit in hits[index:]:
        if hit.kind == "directive":
            yield from _judge_directive(hit, is_late=hit.at > first)


def _judge_directive(hit: _Hit, *, is_late: bool) -> Iterator[ScriptError]:
    if hit.text.startswith(b"/*"):
        problem = "directive in a block comment"
        yield ScriptError(hit.at, problem, 'Write it after "--".')
    elif is_late:
        yield ScriptError(
            hit.at,
            "directive after the first statement",
            "Move it above the first statement.",
        )


def _is_taken(
    hit: _Hit, around: Surroundings, content: bytes, piece: Statement
) -> bool:
    """Tell what PostgreSQL takes: a bound of a slice, the value after a key."""
    if hit.kind == "directive":
        return True
    is_keyed = KEYED.search(content, piece.first, piece.end) is not None
    return hit.kind == "variable" and (around.brackets > 0 or is_keyed)


def _describe(hit: _Hit) -> ScriptError:
    if hit.kind == "variable":
        shown = hit.text.decode(errors="replace")
        name = shown.strip(":'\"")
        how = f"Set GATE_VAR_{name}" if NAME.fullmatch(name) else "Set it"
        return ScriptError(
            hit.at,
            f"variable {shown} is not set",
            f"{how}, or write its value; in an array slice, put a blank after the "
            "colon.",
        )
    if hit.kind == "placeholder":
        return ScriptError(
            hit.at,
            f'placeholder that begins with "{hit.text.decode()}", which another '
            "program would fill in",
            "Write what it stands for.",
        )
    if hit.kind == "mark":
        return ScriptError(
            hit.at,
            "byte order mark (U+FEFF) inside the text",
            "Take it out: files that were joined leave it.",
        )
    sign = hit.text.decode()
    name = f"{unicodedata.name(sign, 'sign').lower()} (U+{ord(sign):04X})"
    if hit.kind == "quote":
        return ScriptError(hit.at, f"{name} in place of a quote", "Write ' or \".")
    return ScriptError(
        hit.at,
        f"{name} outside quotes, which PostgreSQL takes for a letter",
        "Write a plain blank, or nothing.",
    )
