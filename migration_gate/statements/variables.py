"""
psql's variables, filled in as psql does it. Pure.

psqlscan.l: ``:name`` is the value as it stands, which is scanned again; ``:'name'`` is
it as a string, ``:"name"`` as a quoted name; ``:{?name}`` tells whether it is set. Only
what is set is filled in, and nothing in quotes, comments and the data of a COPY.

A value that stands as it is must be whole: what it opens it closes, and it forms no
token with what stands beside it. psql would go on in a string or a comment there.
"""

from __future__ import annotations

import re

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from migration_gate.statements.contents import Content, find
from migration_gate.statements.filling import Filled
from migration_gate.statements.forms import (
    STANDARD,
    ScriptError,
    forms,
)
from migration_gate.statements.pieces import reading_after
from migration_gate.statements.splitting import iter_statements
from migration_gate.statements.surroundings import surroundings


_NAME: Final = rb"[A-Za-z_0-9\x80-\xff]++"
# "::" and ":=" are tokens of their own, of which the longest counts.
_VARIABLE: Final = re.compile(
    rb"""
    ::  |  :=
    | : (?P<plain> %(name)b )
    | :' (?P<string> %(name)b ) '
    | :" (?P<identifier> %(name)b ) "
    | :\{\? (?P<test> %(name)b ) \}
    """
    % {b"name": _NAME},
    re.VERBOSE,
)
_WORD: Final = frozenset(
    b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789"
) | frozenset(range(0x80, 0x100))
# What makes a string of another kind of the quote after it.
_STRING_MARK: Final = re.compile(rb"(?<![A-Za-z_0-9$\x80-\xff])(?:[eEbBxXnN]|[uU]&)\Z")
_COMMENTS: Final = frozenset({b"--", b"/*"})
_END: Final = b" ;"
_REACH: Final = 3
OPEN: Final = (
    "is not whole: it opens a quote, a comment or a parenthesis, or has a command of "
    "psql"
)
BESIDE: Final = "would make another kind of token with what stands beside it"
WRITE: Final = "Fill it in as a string, :'{name}', or change the value."


class _Hit(NamedTuple):
    """A variable in the code of a script: where, how it is to stand, and its name."""

    start: int
    end: int
    form: str
    name: str


def fill_variables(filled: Filled, values: Mapping[str, str]) -> Filled:
    """
    Return a script with its variables filled in.

    Raises:
        ScriptError: A value cannot stand where it would; tells of no value. Offsets are
            those of the text before.
    """
    return _fill(filled, values, frozenset())


def _fill(filled: Filled, values: Mapping[str, str], inside: frozenset[str]) -> Filled:
    """Fill in a text, or the value of the variables that it stands inside."""
    if not _may_have_any(filled.text, values):
        return filled
    text = filled.text
    written = [
        (hit, filling)
        for hit in _find_hits(text)
        if (filling := _write(hit, text, values, inside)) is not None
    ]
    replaced = filled.replaced(
        (hit.start, hit.end, hit.name, filling) for hit, filling in written
    )
    if written:
        _require_apart(replaced, [hit.form for hit, _ in written])
        _require_data_untouched(replaced)
    return replaced


def _may_have_any(text: Content, values: Mapping[str, str]) -> bool:
    names = [name.encode() for name in values]
    wanted = [sign + name for name in names for sign in (b":", b":'", b':"')]
    return find(text, b":{?", *wanted) >= 0


def _find_hits(text: Content) -> Iterator[_Hit]:
    reading = STANDARD
    for piece in iter_statements(text):
        if piece.number:
            end = piece.copy_data[0] if piece.copy_data else piece.end
            found = {
                piece.first + match.start(): match
                for match in _VARIABLE.finditer(text[piece.first : end])
                if match.lastgroup is not None
            }
            for at, around in surroundings(text, piece, found, reading):
                match = found[at]
                form = match.lastgroup
                if around.kind == "code" and form is not None:
                    name = match[form].decode(errors="replace")
                    yield _Hit(at, piece.first + match.end(), form, name)
            reading = reading_after(piece, reading)


def _write(
    hit: _Hit, text: Content, values: Mapping[str, str], inside: frozenset[str]
) -> bytes | None:
    """Return what stands in a variable's place; None where it stays as it is."""
    value = values.get(hit.name)
    if hit.form == "test":
        return b"FALSE" if value is None else b"TRUE"
    if hit.form == "plain" and text[hit.end : hit.end + 1] == b"$":
        # For psql a dollar quote may begin there, for the server a word goes on.
        problem = f'variable "{hit.name}" with a "$" right after it'
        raise ScriptError(hit.start, problem, "Put a blank between them.")
    if value is None or (hit.form == "plain" and hit.name in inside):
        return None
    if hit.form == "string":
        return _to_string(value)
    if hit.form == "identifier":
        return b'"' + value.replace('"', '""').encode() + b'"'
    return _to_code(hit, value.encode(), values, inside)


def _to_string(value: str) -> bytes:
    """fe-exec.c: PQescapeInternal, with its blank before an E."""
    doubled = value.replace("'", "''").encode()
    if b"\\" in doubled:
        return b" E'" + doubled.replace(b"\\", b"\\\\") + b"'"
    return b"'" + doubled + b"'"


def _to_code(
    hit: _Hit, value: bytes, values: Mapping[str, str], inside: frozenset[str]
) -> bytes:
    """Fill in what a value itself names, and judge the whole."""
    try:
        written = _fill(Filled(value), values, inside | {hit.name}).text[:]
        starts = [start for start, _, _ in forms(written + _END, 0)]
        is_sql = all(piece.number for piece in iter_statements(written))
    except ScriptError as error:
        raise _unfit(hit.start, hit.name, OPEN) from error
    if not is_sql or starts[-1:] != [len(written) + 1]:
        raise _unfit(hit.start, hit.name, OPEN)
    return written


def _require_apart(filled: Filled, forms_of_edits: Sequence[str]) -> None:
    """Refuse a value that makes another kind of token with what stands beside it."""
    text = filled.text
    for edit, form in zip(filled.layers[-1], forms_of_edits, strict=True):
        if form in {"string", "identifier"}:
            continue  # what is quoted stays apart, whatever it touches
        for at in {edit.begin, edit.stop}:
            before, after = text[max(at - _REACH, 0) : at], text[at : at + 1]
            if before and after and _makes_another(before, after):
                raise _unfit(edit.start, edit.name, BESIDE)


def _makes_another(before: bytes, after: bytes) -> bool:
    last = before[-1:]
    if last + after in _COMMENTS:
        return True
    if after == b"$":
        return last[0] in _WORD or last == b"$"
    if last == b"$":
        return after[0] in _WORD
    return after in {b"'", b'"'} and _STRING_MARK.search(before) is not None


def _require_data_untouched(filled: Filled) -> None:
    """Refuse a value by which a statement takes other lines for its data."""
    edits = filled.layers[-1]
    for piece in iter_statements(filled.text):
        if piece.copy_data is None:
            continue
        start, end = piece.copy_data
        for edit in edits:
            if start <= edit.begin < end:
                raise _unfit(edit.start, edit.name, "stands in the data of a COPY")


def _unfit(offset: int, name: str, problem: str) -> ScriptError:
    return ScriptError(
        offset,
        f'the value of variable "{name}" {problem}',
        WRITE.format(name=name),
    )
