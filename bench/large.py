"""
One large file of SQL: a statement of 21 MB, rows that nobody reads, many statements.
"""

# ruff: noqa: S608 -- texts of our own

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from bench.peers import Peer
from bench.work import WORK


MAKE: Final = "CREATE TABLE large (a int, b text);\n"
VALUES: Final = 205_000
STATEMENTS: Final = 1_000_000


def _write_statement() -> str:
    values = ",\n".join(f"({n}, '{'x' * 90}')" for n in range(VALUES))
    return f"{MAKE}INSERT INTO large VALUES {values};\n"


def _write_rows() -> str:
    return f"{MAKE}SELECT n, repeat('x', 50) FROM generate_series(1, 5000000) n;\n"


def _write_statements() -> str:
    inserts = (f"INSERT INTO large VALUES ({n}, 'x');\n" for n in range(STATEMENTS))
    return MAKE + "".join(inserts)


TEXTS: Final[Mapping[str, Callable[[], str]]] = {
    "large-statement": _write_statement,
    "large-result": _write_rows,
    "large-count": _write_statements,
}


def folder_for(peer: Peer, case: str) -> Path:
    """Return a folder with the file as its one migration; made once."""
    form = peer.form.__name__.removeprefix("write_")
    folder = WORK / f"{form}-{case}"
    if not folder.is_dir():
        new = folder.with_suffix(".new")
        new.mkdir(parents=True, exist_ok=True)
        peer.form(new, [TEXTS[case]()])
        new.rename(folder)
    return folder
