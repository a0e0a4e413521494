"""
Compare how variables are filled in with what psql sends, over any number of files.

`python -m tests.variables [--psql PATH] [--files N] [--seed N]` builds files in which
variables stand beside everything that has a meaning to a lexer, runs psql with the same
values against a server that takes everything, and prints what was compared and each
disagreement. A file that the gate refuses, since a value is not whole, is counted.
"""

from __future__ import annotations

import argparse
import sys

from collections import Counter
from collections.abc import Mapping
from random import Random

from dev.postgres import tool
from migration_gate.statements import Filled, ScriptError, split
from migration_gate.statements.variables import fill_variables
from tests.differential import ObedientServer, one_line, sent_by_psql


FILES: int = 2000
VALUES = (
    *(
        "x",
        "public",
        "a.b",
        "Größe",
        "42",
        "-1",
        "",
        "it's",
        'a "b"',
        "C:\\dir",
        "a\nb",
    ),
    *("'text'", '"Name"', "E'a\\\\b'", "$$body;$$", "(1, 2)", "1; SELECT 2", "-", "/"),
    *(
        "/* c */",
        "-- c",
        "/*",
        "'",
        '"',
        "$",
        "$a$",
        ":b",
        ":'b'",
        "a:b",
        ":",
        "e",
        "(",
    ),
    *("SELECT 1", "now()", "{1,2}", "a = b", "::int", "x" * 3000),
)
NAMES = ("a", "b", "c_1", "B", "unset")
PARTS = (
    *(":{}", ":{}", ":'{}'", ':"{}"', ":{{?{}}}", "::{}", ":={}", ":::{}", ": {}"),
    *("x:{}", "x_:{}y", ":{}:{}", "'it''s :{}'", "E'\\':{}'", '"q :{}"', "$$ :{} $$"),
    *(
        "$t$ :{}; $t$",
        "-- :{} ;\n",
        "/* :{} /* ; */ */",
        "a[1:{}]",
        "a[:{}:2]",
        "$1:{}",
    ),
    *(
        "1:{}",
        "e:'{}'",
        "U&':{}'",
        "(:{})",
        "(;:{};)",
        ";",
        ";\n",
        ", ",
        " ",
        "\n",
        "a",
    ),
    *("'a'\n':{}'", "+:{}", "-:{}", "/:{}", ":{}-", ":{}/", ":{}$$", ":{}'x'", "n:{}"),
    *("COPY t FROM stdin;\n:{}\t:'{}'\n\\.\n", 'COPY :"a" FROM stdin;\n:{}\n\\.\n'),
)


def build(random: Random) -> bytes:
    """Return a file."""
    parts = random.choices(PARTS, k=random.randrange(1, 12))
    text = "SELECT " + "".join(
        part.format(*(random.choice(NAMES) for _ in range(2))) for part in parts
    )
    # After one that is not set psql reads a dollar quote there, and the server a word.
    text = text.replace(":unset$", ":unset $")
    return text.encode()


def choose(random: Random) -> dict[str, str]:
    """Return values of the variables that are set."""
    values = {name: random.choice(VALUES) for name in NAMES[:-1]}
    # Of a COPY to a table without a name the server takes no data.
    return values | ({} if values["a"] else {"a": "x"})


def compare(
    script: bytes, values: Mapping[str, str], psql: str, server: ObedientServer
) -> str | None:
    """
    Say where psql sends something else; None where it sends the same.

    Raises:
        ScriptError: The gate refuses the file.
    """
    text = fill_variables(Filled(script), values).text[:]
    ours = [
        (
            one_line(
                text[piece.first : piece.copy_data[0] if piece.copy_data else piece.end]
            ),
            text[slice(*piece.copy_data)] if piece.copy_data else None,
        )
        for piece in split(text)
    ]
    sent = sent_by_psql(script, psql, server, values)
    theirs = [(one_line(each.text), each.copy_data) for each in sent]
    if ours == theirs:
        return None
    return f"{script!r} with {values!r}: {ours!r}, and psql sends {theirs!r}"


def main() -> int:
    """Compare as many files as asked for; return 1 when psql disagrees."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--psql", help="path of psql", default=tool("psql"))
    arguments.add_argument("--files", type=int, default=FILES)
    arguments.add_argument("--seed", type=int, default=1)
    options = arguments.parse_args()
    counts: Counter[str] = Counter()
    random = Random(options.seed)  # noqa: S311  # a file again, by its seed
    with ObedientServer() as server:
        while counts["files"] < options.files:
            script = build(random)
            values = choose(random)
            try:
                fault = compare(script, values, options.psql, server)
            except ScriptError:
                counts["refused"] += 1
                continue
            counts["files"] += 1
            counts["variables"] += script.count(b":")
            if fault is not None:
                counts["disagreements"] += 1
                print(fault)  # noqa: T201 - the report
    print(  # noqa: T201
        f"{counts['files']} files with {counts['variables']} colons compared, "
        f"{counts['refused']} refused, {counts['disagreements']} disagreements"
    )
    return 1 if counts["disagreements"] else 0


if __name__ == "__main__":
    sys.exit(main())
