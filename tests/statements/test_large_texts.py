"""A text that is read block by block is split as one that is in memory."""

from __future__ import annotations

from typing import Final

import pytest

from hypothesis import example, given
from hypothesis import strategies as st

from migration_gate.statements import (
    Content,
    LargeText,
    Pieces,
    ScriptError,
    Statement,
    having,
    iter_forms,
    iter_statements,
    leading_comments,
    place,
    split,
    string_syntax_set,
    up_to,
    without,
)
from migration_gate.statements.pieces import FEW, KINDS_MAX
from tests.statements.test_statements_properties import built_scripts, scripts


BLOCK_BYTES: Final = 1 << 14
BLOCKS: Final = st.sampled_from([32, 48, 64, 256])


def large(script: bytes, block_bytes: int = BLOCK_BYTES) -> LargeText:
    """Return a text of blocks, which are counted from 0."""

    def read(number: int) -> bytes:
        return script[number * block_bytes : (number + 1) * block_bytes]

    return LargeText(len(script), read, block_bytes)


def cut(content: Content) -> list[Statement] | tuple[int, str]:
    """Return the pieces of a script, or where and why it cannot be cut."""
    try:
        return list(iter_statements(content))
    except ScriptError as error:
        return error.offset, error.problem


def bounds(content: Content) -> list[Statement] | tuple[int, str]:
    """Cut a script; strings that are joined over many blocks are several tokens."""
    found = cut(content)
    if isinstance(found, tuple):
        return found
    return [piece._replace(tokens=()) for piece in found]


@given(scripts, BLOCKS)
@example("SELECT 'a' " + "-- x\n" * 20 + "'b';", 32)
@example("SELECT E'a' " + "-- x\n" * 20 + "'b\\';';", 32)
@example("SELECT 1 /*" + "*/*/*" * 20 + ";", 32)
@example("--" + "-" * 60 + "\rSELECT 1;", 32)
@example("SELECT $" + "a" * 40 + "$;$" + "a" * 40 + "$;", 48)
@example("SELECT  create function f() '''''", 32)
@example("SELECT a, b, c, d, e, 'it''s ''not''", 32)
def test_any_text_is_cut_as_one_in_memory(text: str, block_bytes: int) -> None:
    """Wherever a block ends: the same pieces, or the same fault."""
    script = text.encode()
    assert bounds(large(script, block_bytes)) == bounds(script)


@given(built_scripts, BLOCKS)
def test_a_script_is_cut_as_one_in_memory(parts: list[str], block_bytes: int) -> None:
    """Strings, bodies and rules go over the ends of blocks."""
    script = "".join(parts).encode()
    assert bounds(large(script, block_bytes)) == bounds(script)


LONG: Final = {
    "a string": b"SELECT '%b';" % (b"x;" * BLOCK_BYTES),
    "a string in one line, with what reads as a comment": b"SELECT %b;"
    % b", ".join([b"'a -- ;'"] * 5_000),
    "an escape string": b"SELECT E'%b';" % (b"\\';" * BLOCK_BYTES),
    "a body": b"DO $a$ %b $a$;" % (b"$b$ ;\n" * (BLOCK_BYTES // 3)),
    "a name": b'SELECT "%b";' % (b"x;" * BLOCK_BYTES),
    "a comment": b"/* %b */ SELECT 1;" % (b"/* ; */\n" * (BLOCK_BYTES // 4)),
    "a comment in one line": b"--%b\nSELECT 1;" % (b";" * 2 * BLOCK_BYTES),
    "a list": b"SELECT (%b);" % b",\n".join([b"(1, 'a;', \"b\")"] * 2_500),
    "a list in one line": b"SELECT (%b);" % b", ".join([b"(1, 'a;')"] * 4_000),
    "the data of a COPY": b"COPY t FROM stdin;\n%b\\.\n" % (b"a;'\n" * BLOCK_BYTES),
    "a routine": b"CREATE FUNCTION f() RETURNS int BEGIN ATOMIC %b END;"
    % (b"SELECT 1;\n" * (BLOCK_BYTES // 5)),
}


@pytest.mark.parametrize("middle", LONG.values(), ids=LONG)
def test_what_is_longer_than_a_block_is_followed_to_its_end(middle: bytes) -> None:
    """As in memory, with what stands before and after it."""
    script = b"SELECT 1;\n" + middle + b"\nSELECT 2;\n\\echo a\nSELECT 3"
    text = large(script)
    assert cut(text) == cut(script)
    last = len(script) - 1
    assert place(text, last) == place(script, last)


@pytest.mark.parametrize("opening", ["'", "E'", '"', "$$", "/*", "(", "SELECT E'\\"])
def test_an_open_end_is_told_as_in_memory(opening: str) -> None:
    """With the place where it began."""
    script = b"SELECT 1;\nSELECT 2, " + opening.encode() + b" x" * BLOCK_BYTES
    assert cut(large(script)) == cut(script)


def test_comments_at_the_head_are_found_as_in_memory() -> None:
    """Directives stand in them."""
    script = b"/*%b*/ -- gate: one-way\n--%b\n-- b\nSELECT 1;" % (
        b"x" * 2 * BLOCK_BYTES,
        b"y" * 100,
    )
    assert [*leading_comments(large(script))] == [*leading_comments(script)]


def test_the_forms_of_a_statement_are_found_as_in_memory() -> None:
    """What stumbles is named by them."""
    script = b"SELECT a, 'b' || U&\"c\" -- d\n, $1.5, $x$ y $x$;\n" * 1_000
    assert [*iter_forms(large(script), 0)] == [*iter_forms(script, 0)]


def test_a_part_of_a_text_ends_where_it_ends() -> None:
    """The part of a file that goes up."""
    script = b"SELECT 'a';" * 4_000
    part = up_to(large(script), 11 * 3_000)
    assert (len(part), len(cut(part))) == (11 * 3_000, 3_000)


MANY: Final = (
    "SET standard_conforming_strings = off;\nSELECT 'a\\';b';\n"
    "SET standard_conforming_strings = on;\n\\echo a\n"
    + "".join(f"COMMENT ON TABLE t{n} IS '{n}';\n" for n in range(KINDS_MAX + 10))
    + "COPY t FROM stdin;\n1;\n\\.\n"
    + "INSERT INTO t VALUES (1);\n" * FEW
).encode()


def test_many_pieces_are_what_few_are() -> None:
    """Each is made anew from some numbers, tokens and copied data included."""
    pieces, whole = split(MANY), list(iter_statements(MANY))
    assert isinstance(pieces, Pieces)
    assert [*pieces] == whole
    assert [*pieces[3:2000]] == whole[3:2000]
    assert pieces[-1] == whole[-1]


def test_of_many_pieces_some_are_found_and_left_out() -> None:
    """By what a test says of their tokens."""
    pieces, whole = split(MANY), list(iter_statements(MANY))
    found = [*having(pieces, string_syntax_set)]
    assert found == [(0, whole[0]), (2, whole[2])]
    comments = [
        at for at, _ in having(pieces, lambda piece: b"comment" in piece.tokens)
    ]
    assert comments == [at for at, p in enumerate(whole) if b"comment" in p.tokens]
    kept = without(pieces, {0, 2})
    assert [*kept] == [piece for at, piece in enumerate(whole) if at not in {0, 2}]
    assert [*without(kept[:5], {1})] == [*[*kept][:1], *[*kept][2:5]]
