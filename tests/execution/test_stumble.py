"""What a syntax error stumbled on: a word of the grammar is said, a literal never."""

from __future__ import annotations

import pytest

from migration_gate.execution.stumble import missing_semicolon, name_token


# A statement with a mark before the token, and what is said of it.
STUMBLES = [
    ("^SELEC 1", '"SELEC"'),
    ("CREATE TABLE t (a int ^b int)", '"b"'),
    ("SELECT 1 ^FROM FROM t", '"FROM"'),
    ("SELECT (1 ^;", '";"'),
    ("SELECT 1 + ^) 2", '")"'),
    ("INSERT INTO t VALUES ('O'^Brien')", "a word"),
    ("SELECT $$a$$ ^hunter2", "a word"),
    ("INSERT INTO t VALUES (my ^hunter2 text)", "a word"),
    ("UPDATE t SET a = my ^hunter2", "a word"),
    ("INSERT INTO t (a) ^FROM u", '"FROM"'),
    ("ALTER ROLE x PASSWORD ^hunter2", "a word"),
    ("CREATE USER x IDENTIFIED BY ^hunter2", "a word"),
    ('ALTER ROLE x PASSWORD ^"hunter2"', "a quoted name"),
    ("SELECT 'a' ^'hunter2'", "a string"),
    ("SELECT 1 ^E'hunter2'", "a string"),
    ("SELECT 1 ^U&'hunter2'", "a string"),
    ("SELECT 1 ^$$hunter2$$", "a string"),
    ("SELECT 1 ^$x$hunter2$x$", "a string"),
    ("SELECT a ^12345", "a number"),
    ("SELECT a ^.5", "a number"),
    ("SELECT a ^$1", "a parameter"),
    ("SELECT ^'hunter2", None),
    ("SELECT 1 ^", None),
]


@pytest.mark.parametrize(("marked", "expected"), STUMBLES)
def test_a_token_is_named_or_its_kind(marked: str, expected: str | None) -> None:
    """A word after a string may be the rest of one."""
    offset = marked.index("^")
    assert name_token(marked.replace("^", "").encode(), 0, offset) == expected


def test_a_missing_semicolon_is_guessed() -> None:
    """Where a line begins with a word that begins statements."""
    script = b"SELECT 1;\nCREATE TABLE t (\n  a int\n)\nINSERT INTO t VALUES (1);"
    first, offset = script.index(b"CREATE"), script.index(b"INSERT")
    assert missing_semicolon(script, first, offset) == (
        "The statement began at line 2: a semicolon may be missing before line 5. "
    )
    inside = script.index(b"int")
    assert missing_semicolon(script, first, inside) == (
        "The statement began at line 2. "
    )
    assert missing_semicolon(script, first, first) == ""
