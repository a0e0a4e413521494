"""psql's variables are filled in as psql does it, or refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from random import Random

import pytest

from hypothesis import given
from hypothesis import strategies as st

from dev.postgres import tool
from migration_gate.statements import Filled, ScriptError
from migration_gate.statements.variables import fill_variables
from tests.differential import ObedientServer
from tests.variables import build, choose, compare


VALUES_HERE = {"a": "x", "q": "it's", "b": "C:\\d", "n": ":a + :n", "i": 'a "b"'}
FILLED = {
    "SELECT :a;": "SELECT x;",
    "SELECT :'q', :\"i\";": 'SELECT \'it\'\'s\', "a ""b""";',
    "SELECT:'b';": "SELECT E'C:\\\\d';",
    "SELECT 1::a, b:=a, c :: a, ::::a;": None,
    "SELECT 1:::a;": "SELECT 1::x;",
    "SELECT :n;": "SELECT x + :n;",
    "SELECT t_:a, :a_b, ::a;": "SELECT t_x, :a_b, ::a;",
    "SELECT ':a', \":a\", $$:a$$, $t$:a$t$, E'\\':a';": None,
    "SELECT 1 -- :a\n /* :a /* :a */ :a */;": None,
    "SELECT ':a'\n':a', :a;": "SELECT ':a'\n':a', x;",
    "SELECT :{?a}, :{?z};": "SELECT TRUE, FALSE;",
    "SELECT a[1:2], a[:a:2];": "SELECT a[1:2], a[x:2];",
    "COPY t FROM stdin;\n:a\n\\.\nSELECT :a;": "COPY t FROM stdin;\n:a\n\\.\nSELECT x;",
    "\\echo :a\nSELECT :a;": "\\echo :a\nSELECT x;",
    "SELECT :z, :'z', :\"z\", : a;": None,
}


def fill(script: str, values: dict[str, str] | None = None) -> Filled:
    """Fill in a script."""
    given_values = VALUES_HERE if values is None else values
    return fill_variables(Filled(script.encode()), given_values)


@pytest.mark.parametrize("script", FILLED)
def test_what_is_filled_in_is_psqls(script: str) -> None:
    """Row by row; None stays as it is, and is no copy."""
    expected = FILLED[script]
    filled = fill(script)
    assert filled.text[:].decode() == (script if expected is None else expected)
    assert bool(filled.layers) == (expected is not None)


@given(
    parts=st.lists(st.sampled_from([":a", ":'q'", ' :"i"', " é", "\n", ", "])),
    value=st.text("ab\n", min_size=1, max_size=9),
)
def test_each_byte_is_found_again(parts: list[str], value: str) -> None:
    """What was not filled in is where it was; what was, is at its variable."""
    script = "SELECT 1 " + " ".join(parts) + ";"
    filled = fill(script, {**VALUES_HERE, "a": value})
    source, text = script.encode(), filled.text[:]
    for offset in range(len(text)):
        at = filled.to_source(offset)
        if filled.is_filled_in(offset):
            assert source[at : at + 1] == b":"
        else:
            assert source[at] == text[offset]
            assert filled.from_source(at) == offset
    assert filled.to_source(len(text)) == len(source)


@pytest.fixture(scope="module")
def obedient_server() -> Iterator[ObedientServer]:
    """A server that notes what psql sends."""
    with ObedientServer() as server:
        yield server


@pytest.mark.parametrize(
    ("seed", "count"), [(1, 20), pytest.param(2, 1500, marks=pytest.mark.thorough)]
)
@pytest.mark.timeout(300)
def test_psql_sends_the_same(
    obedient_server: ObedientServer, seed: int, count: int
) -> None:
    """Whatever stands beside a variable, and whatever its value, if not refused."""
    random, counts = Random(seed), Counter[str]()  # noqa: S311  # again, by its seed
    while counts["files"] < count:
        script = build(random)
        values = choose(random)
        try:
            fault = compare(script, values, tool("psql"), obedient_server)
        except ScriptError:
            counts["refused"] += 1
            continue
        counts["files"] += 1
        assert fault is None
    assert counts["refused"] < 3 * count
