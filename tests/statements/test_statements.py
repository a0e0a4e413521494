"""Scripts are cut where PostgreSQL cuts them: one row per rule of psqlscan.l."""

from __future__ import annotations

import pytest

from migration_gate.statements import (
    ScriptError,
    Statement,
    leading_comments,
    place,
    psql_command,
    split,
)


# The pieces that each script is to come back as.
PIECES = {
    "semicolon ends": (b"SELECT 1;", b" SELECT 2;"),
    "last one without semicolon": (b"SELECT 1;", b"\nSELECT 2\n"),
    "empty statements join the next": (b";; SELECT 1;", b" ; /* x */ ; SELECT 2;"),
    "byte order mark is white space": (b"\xef\xbb\xbfSELECT 1;",),
    "every kind of white space": (b" \t\n\r\f\vSELECT 1;", b"\r\nSELECT 2;"),
    # comments
    "line comment": (b"SELECT 1 -- a; 'b\n;", b"SELECT 2;"),
    "line comment ends at a carriage return": (b"SELECT 1 -- a;\r;", b"SELECT 2;"),
    "line comment before a statement": (b"-- a; b\nSELECT 1;",),
    "block comment": (b"SELECT /* ; ' */ 1;", b"SELECT 2;"),
    "block comments nest": (b"SELECT /* /* ; */ ; ' */ 1;", b"SELECT 2;"),
    "block comments nest before a statement": (b"/*/* ; */;*/ SELECT 1;",),
    "stars and slashes in a comment": (b"SELECT /***/ 1;", b"SELECT /*/ ; */ 2;"),
    "comment that opens on its last slash": (b"SELECT /*//* ; */*/ 1;", b"SELECT 2;"),
    "no line comment in a block comment": (b"SELECT /* -- */ 1;", b"SELECT 2;"),
    "no block comment in a line comment": (b"SELECT 1 -- /*\n;", b"SELECT 2;"),
    "backslash in a comment": (b"SELECT 1 -- \\q\n/* \\q */;",),
    # strings
    "string": (b"SELECT ';';", b"SELECT 2;"),
    "doubled quote": (b"SELECT 'a'';';", b"SELECT 2;"),
    "backslash in a string": (b"SELECT '\\';", b"SELECT ';';"),
    "comment marks in a string": (b"SELECT '--', '/*';", b"SELECT 2;"),
    "string goes on behind a line end": (b"SELECT 'a'\n  ';';", b"SELECT 2;"),
    "escape string": (rb"SELECT E'\';';", b"SELECT 2;"),
    "escape string with a doubled quote": (rb"SELECT e'a'';\';';", b"SELECT 2;"),
    "escaped backslash": (rb"SELECT E'\\';", b"SELECT ';';"),
    "escape string goes on": (b"SELECT E'a'\n'\\';';", b"SELECT 2;"),
    "escape string goes on behind a comment": (
        b"SELECT E'a' -- b\n -- c\n '\\';';",
        b"SELECT 2;",
    ),
    "escape string ends with its line": (b"SELECT E'a' '\\';", b"SELECT 2;"),
    "escape string ends at a block comment": (
        b"SELECT E'a' /* b\n */ '\\';",
        b"SELECT 2;",
    ),
    "escape string right behind a string": (rb"SELECT ''E'\';';", b"SELECT 2;"),
    "escape string right behind a dollar quote": (rb"SELECT $$;$$E'\';';",),
    "letter E at a word's end": (rb"SELECT date'\';", b"SELECT 2;"),
    "letter E behind an underscore": (rb"SELECT _e'\';", b"SELECT 2;"),
    "letter E behind a dollar": (rb"SELECT a$e'\';", b"SELECT 2;"),
    "bit string": (b"SELECT B'0;', x';';", b"SELECT 2;"),
    "national string": (rb"SELECT N'\';", b"SELECT n';';"),
    "unicode string": (rb"SELECT U&'\0061\';", b"SELECT u&';' UESCAPE '!';"),
    "letters U and ampersand": (b"SELECT u & ';';", b"SELECT 2;"),
    # quoted identifiers
    "quoted identifier": (b'SELECT ";";', b"SELECT 2;"),
    "doubled double quote": (b'SELECT "a"";";', b"SELECT 2;"),
    "quote in a quoted identifier": (b'SELECT "\'";', b"SELECT 2;"),
    "unicode identifier": (b'SELECT U&"\\0061;";', b"SELECT 2;"),
    # dollar quotes
    "dollar quote": (b"DO $$ ; ' $$;", b"SELECT 2;"),
    "dollar quote with a tag": (b"DO $a1_$ ; $$ ; $a$ $a1_$;", b"SELECT 2;"),
    "dollar quote with a non-ASCII tag": ("DO $é$ ; $é$;".encode(), b"SELECT 2;"),
    "tag inside a longer one": (b"DO $a$ $ba$a$;", b"SELECT 2;"),
    "final dollar is rescanned": (b"DO $a$ ; $b$a$;", b"SELECT 2;"),
    "tags are case-sensitive": (b"DO $a$ $A$ ; $a$;", b"SELECT 2;"),
    "dollar in an identifier": (b"SELECT a$b$, c$b$;", b"SELECT 2;"),
    "dollar behind a letter": (b"SELECT a$$;", b"SELECT b$$;"),
    "parameter": (b"SELECT $1;", b"SELECT $2;"),
    "parameter before a dollar quote": (b"SELECT $1$$;$$;", b"SELECT 2;"),
    "number before a dollar quote": (b"SELECT 1$a$;$a$;", b"SELECT 2;"),
    "dollar that opens nothing": (b"SELECT $;", b"SELECT $a;"),
    # operators and numbers
    "operator ends at a line comment": (b"SELECT 1 +-- ;\n 2;", b"SELECT 2;"),
    "operator ends at a block comment": (b"SELECT 1 @/* ; */ 2;", b"SELECT 2;"),
    "operator that begins like a comment": (b"SELECT 1 */* ; */ 2;", b"SELECT 2;"),
    "minus and slash alone": (b"SELECT 1 - 2 / 3;", b"SELECT - - 2;"),
    "range of numbers": (b"SELECT 1..2;", b"SELECT .5, 1., 0x1F, 1_000, 1e-5;"),
    "typecast and slice": (b"SELECT a::text, b[1:2], c := 1;", b"SELECT :'x';"),
    # what hides a semicolon
    "parentheses": (b"CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2);",),
    "parentheses nest": (b"SELECT (((((1; (2); 3)))));", b"SELECT 2;"),
    "parenthesis in a string": (b"SELECT '(';", b"SELECT 2;"),
    "parenthesis in parentheses in a string": (b"SELECT (1, '(', (2));", b"SELECT 2;"),
    "closing parenthesis too many": (b"SELECT 1);", b"SELECT (2);"),
    "dollar quote in parentheses": (b"SELECT (f($$ ) ; $$));", b"SELECT 2;"),
    "begin atomic": (
        b"CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END;",
        b"SELECT 2;",
    ),
    "begin atomic of a procedure": (
        b"create or replace procedure p() begin atomic insert into t values (1); end;",
        b"SELECT 2;",
    ),
    "case in begin atomic": (
        b"CREATE FUNCTION f() BEGIN ATOMIC SELECT (case 1 WHEN 2 THEN 3 END); END;",
        b"SELECT 2;",
    ),
    "case in case": (
        b"CREATE FUNCTION f() BEGIN ATOMIC VALUES (CASE CASE 1 END END); END;",
        b"SELECT 2;",
    ),
    "begin atomic at the end of the script": (
        b"CREATE FUNCTION f() BEGIN ATOMIC SELECT 1; END",
    ),
    "empty begin atomic": (b"CREATE FUNCTION f() BEGIN ATOMIC END;", b"SELECT 2;"),
    "column named end": (
        b"CREATE FUNCTION f() BEGIN ATOMIC SELECT 1 AS end; SELECT t.end; END;",
        b"SELECT 2;",
    ),
    "routine named begin": (
        b"CREATE FUNCTION begin() RETURNS int LANGUAGE sql AS '1';",
        b"SELECT 2;",
    ),
    "comment between create and function": (
        b"CREATE /* a /* b */ */ FUNCTION f() BEGIN -- c\n ATOMIC SELECT 1; END;",
        b"SELECT 2;",
    ),
    "begin atomic in quotes": (
        b"CREATE FUNCTION f() LANGUAGE plpgsql AS $$ BEGIN ATOMIC; $$;",
        b"SELECT 2;",
    ),
    "parentheses in begin atomic": (
        b"CREATE FUNCTION f() BEGIN ATOMIC SELECT ((1))); SELECT (2); END;",
        b"SELECT 2;",
    ),
    "begin outside a routine": (b"BEGIN;", b"SELECT 1;", b"END;"),
    "begin atomic outside a routine": (b"SELECT begin atomic;", b"SELECT 2;"),
    # COPY data
    "data behind copy": (b"COPY t FROM stdin;\n1\t;'\n\\.\n", b"SELECT 2;"),
    "no data at all": (b"COPY t FROM STDIN;\n\\.\n", b"SELECT 2;"),
    "data with Windows line ends": (
        b"COPY t FROM stdin;\r\n1\r\n\\.\r\n",
        b"SELECT 2;",
    ),
    "data that ends with the file": (b"COPY t FROM stdin;\n1\n\\.",),
    "terminator inside a line": (
        b"COPY t FROM stdin;\na\\.\n\\.b\n\\.\n",
        b"SELECT 2;",
    ),
    "copy with columns and options": (
        b'COPY s.t (a, "b") FROM stdin WITH (FORMAT csv, NULL \'\');\n"\n\\.\n',
        b"SELECT 2;",
    ),
    "copy binary, and from stdout": (b"COPY BINARY t FROM STDOUT;\nx\n\\.\n",),
    "comment behind copy": (b"COPY t FROM stdin; -- 1\n1\n\\.\n", b"SELECT 2;"),
    "copy from a file": (b"COPY t FROM '/stdin';", b"SELECT 2;"),
    "copy from a program": (b"COPY t FROM PROGRAM 'stdin';", b"SELECT 2;"),
    "copy to the client": (b"COPY t TO stdout;", b"SELECT 2;"),
    "copy of a query": (b"COPY (SELECT 1 FROM stdin) TO stdout;", b"SELECT 2;"),
    "table named stdin": (b"SELECT * FROM stdin;", b"SELECT 2;"),
    # psql commands
    "psql command takes its line": (b"\\restrict abc;\n", b"SELECT 1;"),
    "psql command between statements": (
        b"SELECT 1;",
        b"\n \\echo 'a\r\n",
        b"SELECT 2;",
    ),
    "psql command ends at the next": (b"\\a ", b"\\t\n", b"SELECT 2;"),
    "psql command separator": (b"\\a ", b"\\\\ SELECT 2;"),
}

INSIDE = "psql command inside a statement"
UNCLOSED = "parenthesis without end"
FAULTS = (
    (b"SELECT 1; SELECT 'a; b", 17, "unterminated quoted string"),
    (b"SELECT '''", 7, "unterminated quoted string"),
    (rb"SELECT E'\'; ", 7, "unterminated quoted string"),
    (b"SELECT e'a\\", 7, "unterminated quoted string"),
    (b"SELECT U&'a", 7, "unterminated quoted string"),
    (b'SELECT \'""', 7, "unterminated quoted string"),
    (b"SELECT E'\"", 7, "unterminated quoted string"),
    (b"SELECT (('", 9, "unterminated quoted string"),
    (b'SELECT "a; b', 7, "unterminated quoted identifier"),
    (b'SELECT U&"a; b', 7, "unterminated quoted identifier"),
    (b"DO $a$ ; $b$", 3, "unterminated dollar-quoted string"),
    (b"SELECT 1;\n/* a", 10, "unterminated /* comment"),
    (b"SELECT /* /* a */ 1;", 7, "unterminated /* comment"),
    (b"SELECT (1, (2); SELECT 3;", 7, UNCLOSED),
    (b"CREATE FUNCTION f(; SELECT 3;", 17, UNCLOSED),
    (b"CREATE FUNCTION f() BEGIN ATOMIC SELECT 1;", 20, "BEGIN ATOMIC without END"),
    (b"CREATE FUNCTION f() BEGIN ATOMIC SELECT 1; (SELECT (2;", 43, UNCLOSED),
    (b"CREATE FUNCTION f() BEGIN ATOMIC SELECT 1; \\g\n", 43, INSIDE),
    (b"SELECT 1; COPY t FROM stdin;\n1\n", 10, "COPY data without end"),
    (b"COPY t FROM stdin", 0, "COPY data without end"),
    (
        b"COPY t FROM stdin; SELECT 1;\n\\.\n",
        18,
        "text after COPY ... FROM STDIN on the same line",
    ),
    (b"SELECT 1 \\gset\n", 9, INSIDE),
    (b"SELECT 1\\; SELECT 2;", 8, INSIDE),
    (b"CREATE FUNCTION f() \\g\n", 20, INSIDE),
)


@pytest.mark.parametrize("pieces", PIECES.values(), ids=PIECES.keys())
def test_a_script_comes_back_in_the_pieces_it_was_built_of(
    pieces: tuple[bytes, ...],
) -> None:
    """Each rule of the lexer, by a statement that only it can cut right."""
    script = b"".join(pieces)
    assert [script[piece.start : piece.end] for piece in split(script)] == list(pieces)


@pytest.mark.parametrize(
    ("script", "offset", "problem"), FAULTS, ids=[str(fault[0]) for fault in FAULTS]
)
def test_a_fault_says_where_it_began(script: bytes, offset: int, problem: str) -> None:
    """The offset is where the open form begins, not where the file ends."""
    with pytest.raises(ScriptError) as caught:
        split(script)
    error = caught.value
    assert (error.offset, error.problem) == (offset, problem)
    assert error.remedy.endswith(".")


def test_what_follows_the_last_statement_is_no_piece() -> None:
    """White space, comments and empty statements are left over."""
    script = b"SELECT 1; -- end\n ; /* ; */\n"
    assert [piece.end for piece in split(script)] == [9]


@pytest.mark.parametrize(
    "script", [b"", b" \n", b"-- a", b"/* a */;;", b"\xef\xbb\xbf"]
)
def test_a_script_without_statements_has_no_pieces(script: bytes) -> None:
    """Nothing to send is nothing to count."""
    assert split(script) == ()


def test_a_piece_says_what_it_is_and_where() -> None:
    """Comments belong to the piece, its first token comes behind them."""
    script = b"\\restrict k\n-- a\nCOPY t FROM stdin;\n1\t2\n\\.\n;SELECT Now() "
    assert split(script) == (
        Statement(0, 0, 0, 12, None, (b"\\restrict", b"k")),
        Statement(1, 12, 17, 43, (36, 40), (b"copy", b"t", b"from", b"stdin")),
        Statement(2, 43, 44, 57, None, (b"select", b"now", b"(", b")")),
    )


def test_no_piece_shows_its_text() -> None:
    """A repr may reach a log; the tokens of a statement may be secret."""
    assert "hunter2" not in repr(split(b"ALTER ROLE a PASSWORD 'hunter2'"))


def test_tokens_are_folded_where_postgresql_folds_them() -> None:
    """Words lose their case, quoted names and strings keep theirs."""
    script = """SET Ä.B = 'C', "D", E'\\'E', U&"F", $G$H$G$, -1.5""".encode()
    assert split(script)[0].tokens == (
        *(b"set", "Ä".encode(), b".", b"b", b"=", b"'C'", b",", b'"D"', b","),
        *(b"E'\\'E'", b",", b'U&"F"', b",", b"$G$H$G$", b",", b"-", b"1.5"),
    )


def test_tokens_are_few_and_short() -> None:
    """A statement of a gigabyte is recognised by its beginning."""
    script = b"DO $$" + b"x" * 5000 + b"$$ " + b", a" * 5000
    tokens = split(script)[0].tokens
    assert (len(tokens), max(map(len, tokens))) == (24, 1024)


@pytest.mark.parametrize(
    "script",
    [
        b"SELECT '" + b"x" * 10_000_000 + b"';",
        b"SELECT E'" + b"\\n" * 1_000_000 + b"';",
        b"SELECT " + b"(" * 100_000 + b")" * 100_000 + b";",
        b"SELECT " + b"(/* ; */';'" * 100_000 + b")" * 100_000 + b";",
        b"/*" * 100_000 + b"*/" * 100_000 + b" SELECT 1;",
        b"SELECT " + b"-- a\n" * 200_000 + b"1;",
        b"SELECT " + b"'a'\n" * 200_000 + b";",
        b"SELECT " + b"$a" * 200_000 + b";",
        b";" * 1_000_000 + b"SELECT 1;",
    ],
    ids=lambda script: str(script[:16]),
)
def test_long_forms_take_linear_time(script: bytes) -> None:
    """The time limit of a test would not do for a square of these."""
    assert [piece.end for piece in split(script)] == [len(script)]


def test_psql_commands_have_names() -> None:
    """Statements have none; a separator is a command of its own."""
    script = b"\\restrict k\nSELECT 1;\\\\\n\\;\n"
    assert [psql_command(piece) for piece in split(script)] == [
        *("restrict", None, "\\", ";"),
    ]


@pytest.mark.parametrize(
    ("script", "offset", "expected"),
    [
        (b"abc", 0, (1, 1)),
        (b"abc", 3, (1, 4)),
        (b"a\nbc", 3, (2, 2)),
        (b"a\r\nbc", 3, (2, 1)),
        (b"a\r\nbc", 2, (1, 3)),
        (b"a\rb\r\rc", 5, (4, 1)),
        ("é\nüñx".encode(), 7, (2, 3)),
        (b"\xef\xbb\xbfab", 4, (1, 2)),
        (b"\xef\xbb\xbfab", 3, (1, 1)),
        (b"\xef\xbb\xbf\nab", 5, (2, 2)),
        (b"\n" * 3_000_000 + b"a", 3_000_000, (3_000_001, 1)),
        (b"a" * ((1 << 20) - 1) + b"\r\nb", (1 << 20) + 1, (2, 1)),
    ],
)
def test_a_place_is_counted_in_lines_and_characters(
    script: bytes, offset: int, expected: tuple[int, int]
) -> None:
    """As an editor shows it."""
    assert place(script, offset) == expected


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (b"-- a\n  --b\r\nSELECT 1; -- c", [(0, b"-- a"), (7, b"--b")]),
        (b"\xef\xbb\xbf-- a", [(3, b"-- a")]),
        (b"/* -- a /* */ */ -- b\n; -- c", [(17, b"-- b")]),
        (b"-- a\n/* -- b", [(0, b"-- a")]),
        (b"\\restrict -- a", []),
        (b"", []),
    ],
)
def test_comments_before_the_first_token_are_found(
    script: bytes, expected: list[tuple[int, bytes]]
) -> None:
    """Directives may stand there, and nowhere else."""
    assert list(leading_comments(script)) == expected
