"""
What the gate sends, read by PostgreSQL's own parser: what of it has no schema.

A name without one is found by the search path, in which others may make things.
"""

from __future__ import annotations

import json

from collections.abc import Iterator
from typing import Any

from pglast.parser import parse_sql_json

from tests.fix_proxy import Link


OPERATIONS = {"AEXPR_OP", "AEXPR_OP_ANY", "AEXPR_OP_ALL"}
# CASE with a value, and JOIN with columns, compare by an operator that is not written.
COMPARING = {"CaseExpr": ("arg",), "JoinExpr": ("usingClause", "isNatural")}
# CREATE TABLE knows these by their names, and looks for no type.
SERIALS = {"serial", "bigserial"}


def sent(link: Link) -> list[str]:
    """Return every text of SQL that a client has sent, in order."""
    texts = []
    for message in link.messages:
        if message.sender == "client" and message.type == "Q":
            texts.append(message.payload.rstrip(b"\0").decode())
        if message.sender == "client" and message.type == "P":
            texts.append(message.payload.split(b"\0")[1].decode())
    return texts


def unqualified(text: str) -> list[str]:
    """Return what in a text PostgreSQL would look for in the search path."""
    tree = json.loads(parse_sql_json(text))
    names = {found["ctename"] for kind, found in _walk(tree) if "ctename" in found}
    return [
        fault
        for kind, found in _walk(tree)
        for fault in _judge(kind, found)
        if fault not in names
    ]


def _walk(tree: Any, kind: str = "") -> Iterator[tuple[str, dict[str, Any]]]:  # noqa: ANN401  # JSON
    if isinstance(tree, dict):
        yield kind, tree
        for name, branch in tree.items():
            yield from _walk(branch, name)
    elif isinstance(tree, list):
        for branch in tree:
            yield from _walk(branch, kind)


def _judge(kind: str, found: dict[str, Any]) -> Iterator[str]:
    if kind == "A_Expr":
        if found["kind"] not in OPERATIONS:
            yield found["kind"]
        else:
            yield from _judge_names("operator", found["name"])
    elif kind == "FuncCall":
        yield from _judge_names("function", found["funcname"])
    elif kind in {"TypeName", "typeName"}:
        yield from _judge_names("type", found["names"])
    elif "relname" in found and "schemaname" not in found:
        yield str(found["relname"])
    elif kind == "SubLink" and "testexpr" in found:
        yield from _judge_names("operator", found.get("operName", []))
    if any(form in found for form in COMPARING.get(kind, ())):
        yield f"{kind} that compares"


def _judge_names(what: str, names: list[Any]) -> Iterator[str]:
    parts = [name["String"]["sval"] for name in names]
    if parts[:1] != ["pg_catalog"] and not SERIALS.intersection(parts):
        yield f"{what} {'.'.join(parts) or 'of IN'}"
