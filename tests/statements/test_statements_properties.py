"""Scripts, for any text: nothing lost, nothing cut that belongs together."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import assume, example, given, reject
from hypothesis import strategies as st

from migration_gate.statements import ScriptError, Statement, place, split
from migration_gate.statements.forms import forms
from migration_gate.statements.tokens import HEAD_BYTES, TOKEN_LIMIT


# What the lexer has to tell apart, put together in any order.
FRAGMENTS = (
    *("'", "''", "'a'", "E'", "e'\\'", "U&'", "N'", '"', '""', 'U&"', "\\'", "\\\\"),
    *("$$", "$a$", "$b$", "$", "$1", "a$", "a$b$", "--", "/*", "*/", "/", "*", "-"),
    *(";", ";", "(", ")", "\n", "\r\n", "\r", " ", "\t", "\\", ":", "::", "+", "@"),
    *("1", "1.", "..", "e", "E", "x", "é", "_", "SELECT ", " create function f() "),
    *(" begin atomic ", " end ", " case ", "copy t from stdin;\n", "\n\\.\n"),
)

fragments = st.lists(st.sampled_from(FRAGMENTS), max_size=40).map("".join)
any_text = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40
)
scripts = st.one_of(fragments, any_text, st.lists(st.one_of(fragments)).map("".join))


def short_texts(characters: str, max_size: int) -> st.SearchStrategy[str]:
    """
    Return any text of so many of these characters, drawn as one number.

    A character at a time is two draws each, and most of the time of a test.
    """
    base = len(characters)

    def to_text(number: int) -> str:
        number, size = divmod(number, max_size + 1)
        return "".join(characters[number // base**at % base] for at in range(size))

    return st.integers(0, (max_size + 1) * base**max_size - 1).map(to_text)


# Parts of a statement that is well-formed by the way it is built.
inside = short_texts("ab é;'\"$-/*()\n\\", 12)
plain_strings = inside.map(lambda text: "'" + text.replace("'", "''") + "'")
escape_strings = inside.map(
    lambda text: "E'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
)
quoted_names = inside.map(lambda text: '"x' + text.replace('"', '""') + '"')
dollar_strings = st.builds(
    lambda text, tag: f"${tag}$" + text.replace("$", "") + f"${tag}$",
    inside,
    st.sampled_from(["", "a", "_1", "é"]),
)
words = st.sampled_from(
    ["a", "é", "a1", "a$b$", "begin", "E", "1", "1.5", "$1", "0x1F"]
)
line_comments = inside.map(lambda text: "--" + text.replace("\n", "") + "\n")
block_comments = st.recursive(
    short_texts("ab ;'\"$-\n\\", 6).map(lambda text: f"/*{text}*/"),
    lambda inner: st.lists(inner, max_size=2).map(
        lambda parts: "/*;" + " ".join(parts) + "*/"
    ),
)
blanks = st.one_of(
    st.sampled_from([" ", "\n", "\t", "\r\n"]), line_comments, block_comments
)
expressions = st.recursive(
    st.one_of(plain_strings, escape_strings, quoted_names, dollar_strings, words),
    lambda inner: st.lists(inner, min_size=1, max_size=3).map(
        lambda parts: "(" + " , ".join(parts) + ")"
    ),
)
selects = st.lists(st.tuples(blanks, expressions, blanks), min_size=1, max_size=4).map(
    lambda columns: "SELECT " + ",".join("".join(column) for column in columns)
)
routines = st.lists(selects, max_size=3).map(
    lambda bodies: (
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC "
        + "".join(f"{body}; " for body in bodies)
        + "SELECT CASE WHEN a THEN 1 END; END"
    )
)
rules = st.lists(selects, min_size=1, max_size=3).map(
    lambda bodies: (
        "CREATE RULE r AS ON INSERT TO t DO INSTEAD (" + "; ".join(bodies) + ")"
    )
)
statements = st.one_of(selects, routines, rules)
built_scripts = st.lists(
    st.builds(lambda statement, blank: f"{statement}{blank};", statements, blanks),
    min_size=1,
    max_size=4,
)


def pieces_or_fault(script: bytes) -> Sequence[Statement] | ScriptError:
    """Split what may be no script."""
    try:
        return split(script)
    except ScriptError as error:
        return error


def pieces_of(script: bytes) -> Sequence[Statement]:
    """Split what may be no script, and pass over what is none."""
    pieces = pieces_or_fault(script)
    if isinstance(pieces, ScriptError):
        reject()
    return pieces


@given(scripts)
@example("SELECT 1; -- a")
def test_any_text_is_cut_without_loss_or_refused_with_a_place(text: str) -> None:
    """The pieces joined are the script; a fault is inside the script."""
    script = text.encode()
    pieces = pieces_or_fault(script)
    if isinstance(pieces, ScriptError):
        assert 0 <= pieces.offset < len(script)
        assert place(script, pieces.offset) >= (1, 1)
        return
    ends = [0, *(piece.end for piece in pieces)]
    assert [piece.start for piece in pieces] == ends[:-1]
    assert all(piece.start <= piece.first < piece.end for piece in pieces)
    rest = script[ends[-1] :]
    assert split(rest) == ()


@given(scripts)
def test_a_piece_alone_is_that_piece(text: str) -> None:
    """Nothing that stands before or behind a statement changes how it is read."""
    script = text.encode()
    for piece in pieces_of(script):
        alone = split(script[piece.first : piece.end])
        assert [(one.first, one.end, one.tokens) for one in alone] == [
            (0, piece.end - piece.first, piece.tokens)
        ]


@given(scripts, st.integers(1, 4))
@example("U&'a'", 1)
@example("x'1f'", 1)
@example("-- a", 2)
@example("12.34", 2)
def test_the_tokens_are_the_first_forms(text: str, left: int) -> None:
    """Wherever the end of the part that is read at once comes in them."""
    before = "VALUES" + " a_name_of_16_by" * (TOKEN_LIMIT - 1 - left)
    for length in range(HEAD_BYTES - 8, HEAD_BYTES + 1):
        script = before.ljust(length).encode() + text.encode()
        pieces = pieces_or_fault(script)
        if isinstance(pieces, ScriptError):
            return
        for piece in pieces:
            if not piece.number:
                continue
            expected: list[bytes] = []
            for start, end, is_word in forms(script, piece.first):
                token = script[start:end]
                if token in {b";", b"\\"} or len(expected) == TOKEN_LIMIT:
                    break
                expected.append(token.lower() if is_word else token)
            enough = len(expected) if piece.number == 1 else min(3, len(expected))
            assert len(piece.tokens) >= enough
            assert list(piece.tokens) == expected[: len(piece.tokens)]


@given(built_scripts)
def test_a_built_script_comes_back_as_it_was_built(built: list[str]) -> None:
    """Whatever is in quotes, comments, parentheses and bodies, it ends nothing."""
    pieces = [statement.encode() for statement in built]
    script = b"".join(pieces)
    assert [script[piece.start : piece.end] for piece in split(script)] == pieces


@given(fragments)
def test_the_long_jumps_stop_where_the_single_steps_stop(text: str) -> None:
    """One pattern swallows runs of forms; form by form the ends are the same."""
    script = text.lower().replace("copy", "").replace("function", "").encode()
    pieces = pieces_of(script)
    assume(all(piece.number for piece in pieces))
    depth, ends, open_piece = 0, [], False
    for start, end, _ in forms(script, 0):
        byte = script[start:end]
        depth = max(depth + (byte == b"(") - (byte == b")"), 0)
        if byte == b";" and depth == 0:
            ends += [end] if open_piece else []
            open_piece = False
        else:
            open_piece = True
    assert [piece.end for piece in pieces] == ends + [len(script)] * open_piece


@given(
    st.lists(st.sampled_from(["a", "é", "\u20ac", "\U0001f600", "\n", "\r\n", "\r"])),
    st.data(),
)
def test_a_place_is_where_an_editor_has_it(
    characters: list[str], data: st.DataObject
) -> None:
    """Counted over the decoded text, as str.splitlines() counts."""
    text = "".join(characters)
    index = data.draw(st.integers(0, len(text)))
    assume(text[index - 1 : index + 1] != "\r\n")
    offset = len(text[:index].encode())
    lines = (text[:index] + "x").splitlines()
    assert place(text.encode(), offset) == (len(lines), len(lines[-1]))
