"""
SQL of the gate's own, in which nothing is found by the search path. Pure.

Whoever may create in a schema of the search path can make an operator whose types fit
better than those of PostgreSQL's own, and its function runs with the rights of the
role that uses it. What SQL compares without an operator being written (IN, BETWEEN,
LIKE, NULLIF, IS DISTINCT FROM, CASE with a value, JOIN with USING) is compared by the
search path's too, and so is not used.
"""

from __future__ import annotations

import re

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from psycopg import sql


BLANKS: Final = re.compile(r"\s+")
# Of tables: a message of many names each of them in three places.
NAMES_KEPT: Final = 512
OPERATORS: Final = ("=", "<>", "<", ">", "<=", ">=", "||", "+", "-", "*", "/", "~")


def qualified(text: str) -> sql.SQL:
    """
    Return SQL whose operators are PostgreSQL's own: those that stand between spaces.

    On one line: a server that logs it logs little.

    Args:
        text: Names functions, types and relations with their schema.
    """
    text = BLANKS.sub(" ", text)
    for operator in OPERATORS:
        text = text.replace(f" {operator} ", f" OPERATOR(pg_catalog.{operator}) ")
    return sql.SQL(text)


def integers(numbers: Iterable[int]) -> sql.Composed:
    """Return an array of integers; psycopg's own names its type without a schema."""
    listed = ",".join(map(str, numbers))
    return sql.SQL("{}::pg_catalog.int8[]").format(f"{{{listed}}}")


def names(words: Iterable[str]) -> sql.Composed:
    """Return an array of names."""
    listed = sql.SQL(", ").join(map(sql.Literal, words))
    return sql.SQL("ARRAY[{}]::pg_catalog.name[]").format(listed)


@lru_cache(NAMES_KEPT)
def quoted(schema: str, name: str) -> sql.SQL:
    """Return a relation's name as one piece, where very many are put together."""
    return sql.SQL(sql.Identifier(schema, name).as_string())


def relations(named: Iterable[sql.SQL]) -> sql.Composed:
    """Return an array of the oids of relations; one that is not there is an error."""
    escaped = (
        name.as_string().replace("\\", r"\\").replace('"', r"\"") for name in named
    )
    listed = ",".join(f'"{name}"' for name in escaped)
    return sql.SQL(
        "{}::pg_catalog.regclass[]::pg_catalog.oid[]::pg_catalog.int8[]"
    ).format(f"{{{listed}}}")
