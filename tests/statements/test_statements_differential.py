"""Scripts are cut as PostgreSQL's own parser and psql cut them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from hypothesis import example, given
from pglast.parser import ParseError, Token, scan
from pglast.parser import split as parser_split

from dev.postgres import tool
from migration_gate.statements import ScriptError, split
from tests.differential import (
    ObedientServer,
    compare_with_grammar,
    compare_with_psql,
    without_psql_commands,
)
from tests.statements.test_statements import PIECES
from tests.statements.test_statements_properties import (
    built_scripts,
    fragments,
    pieces_or_fault,
)


SCRIPTS = sorted(Path(__file__).parent.glob("sql/*.sql"))
PSQL_DIFFERS = Path(__file__).parent / "sql/psql_differs.sql"
SAMPLES = sorted(Path(__file__).parents[2].glob("migrations/*.sql"))


@pytest.fixture(scope="module")
def obedient_server() -> Iterator[ObedientServer]:
    """A server that notes what psql sends."""
    with ObedientServer() as server:
        yield server


@pytest.mark.parametrize("path", SCRIPTS + SAMPLES, ids=lambda path: path.name)
def test_the_grammar_finds_the_same_statements(path: Path) -> None:
    """Each piece is one statement, and nothing is left that is none."""
    findings = compare_with_grammar(path.read_bytes())
    assert findings.statements > 0
    faults = (findings.refused, findings.unparsed, findings.disagreements)
    assert faults == (None, (), ())


@pytest.mark.parametrize("path", SCRIPTS + SAMPLES, ids=lambda path: path.name)
def test_psql_sends_the_same_statements(
    path: Path, obedient_server: ObedientServer
) -> None:
    """Statement by statement, and the same COPY data; but for its known limits."""
    script = without_psql_commands(path.read_bytes())
    disagreements = compare_with_psql(script, tool("psql"), obedient_server)
    assert bool(disagreements) == (path == PSQL_DIFFERS)


@pytest.mark.parametrize("pieces", PIECES.values(), ids=PIECES.keys())
def test_no_row_of_the_table_is_against_the_grammar(pieces: tuple[bytes, ...]) -> None:
    """What the grammar can parse of the table, it cuts in the same places."""
    assert compare_with_grammar(b"".join(pieces)).disagreements == ()


@given(built_scripts)
def test_a_built_script_is_cut_as_the_grammar_cuts_it(built: list[str]) -> None:
    """Any mix of quotes, comments, parentheses and bodies."""
    script = "".join(built)
    assert len(split(script.encode())) == len(parser_split(script)) == len(built)


@given(fragments)
@example("\\'\n'")
@example("'a'; SELECT 1 \\'\n'")
def test_any_text_has_its_forms_where_the_scanner_has_them(text: str) -> None:
    """What the server's scanner takes, ends at the same semicolons."""
    try:
        tokens = scan(text)
    except ParseError:
        return
    # psqlscan.l: an unquoted backslash begins a command, which the scanner knows not.
    commands = [token.start for token in tokens if token.name == "ASCII_92"]
    if commands:
        text = text[: commands[0]]
        tokens = [token for token in tokens if token.start < commands[0]]
    pieces = pieces_or_fault(text.encode())
    if isinstance(pieces, ScriptError):
        assert "unterminated" not in pieces.problem
    # The scanner knows no psql, no COPY data and no bodies.
    elif "atomic" not in text and all(p.number and not p.copy_data for p in pieces):
        assert [piece.end for piece in pieces] == _ends(text, tokens)


def _ends(text: str, tokens: Sequence[Token]) -> list[int]:
    depth, ends, is_open = 0, [], False
    for token in tokens:
        if token.name == "ASCII_59" and depth == 0:
            ends += [len(text[: token.end + 1].encode())] if is_open else []
            is_open = False
        elif token.name not in {"C_COMMENT", "SQL_COMMENT"}:
            depth += (token.name == "ASCII_40") - (token.name == "ASCII_41")
            depth = max(depth, 0)
            is_open = True
    return ends + [len(text.encode())] * is_open
