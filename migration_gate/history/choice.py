"""
Choose the history among the tables of its name, whatever the search path says. Pure.

A migration, a restore or an operator may change the search path, and what was applied
stays applied: so a table is looked for in every schema, and where that leaves a doubt,
the gate closes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from migration_gate.history.catalogue import Facts
from migration_gate.history.table import is_history, may_be_foreign
from migration_gate.report.errors import HistoryError
from migration_gate.report.quoting import quote_name
from migration_gate.settings.settings import HistoryTableName


class Choice(NamedTuple):
    """
    The facts of the table that is the history, None where there is none.

    ``others`` are tables that could be it as well, and that the search path comes to
    later or never. ``hidden_schema`` has one, but the role may not use the schema.
    """

    table: Mapping[str, Any] | None
    is_elsewhere: bool = False
    others: tuple[Mapping[str, Any], ...] = ()
    hidden_schema: str | None = None


def choose_history(
    facts: Facts, name: HistoryTableName
) -> tuple[HistoryTableName, Choice]:
    """
    Choose the table and its name: the second one where the first is another tool's.

    It stays the second one where the other tool's table is gone; and the first one
    where that tool comes later, to a schema that the search path names before ours.

    Raises:
        HistoryError: Several schemas have one, and the search path names none of them.
    """
    first, *others = (name._replace(table=table) for table in name.tables)
    named = _of_name(facts, first)
    own = tuple(t for t in named.tables if not others or not _is_foreign(t))
    if not any(table["is_in_path"] or table["is_named"] for table in own):
        is_taken = len(own) < len(named.tables) and not any(map(is_history, own))
        for other in others:
            second = _of_name(facts, other)
            if second.tables or is_taken:
                return other, choose_table(second, other)
    return first, choose_table(named._replace(tables=own), first)


def _of_name(facts: Facts, name: HistoryTableName) -> Facts:
    tables = (table for table in facts.tables if table["name"] == name.table)
    return facts._replace(tables=tuple(tables))


def _is_foreign(facts: Mapping[str, Any]) -> bool:
    if not may_be_foreign(facts):
        return False
    from migration_gate.history.tools import find_owner  # noqa: PLC0415  # rarely needed

    return find_owner(facts) is not None


def choose_table(facts: Facts, name: HistoryTableName) -> Choice:
    """
    Choose: the search path's first one, else the only one in any other schema.

    Raises:
        HistoryError: Several schemas have one, and the search path names none of them.
    """
    in_path = [table for table in facts.tables if table["is_in_path"]]
    usable = [table for table in in_path if table["is_usable"]]
    alike = [table for table in facts.tables if is_history(table)]
    if usable:
        others = [t for t in alike if t is not usable[0] and _is_readable(t)]
        return Choice(table=usable[0], others=tuple(others))
    hidden = [t for t in facts.tables if t["is_in_path"] or t["is_named"]]
    if hidden:
        return Choice(table=None, hidden_schema=hidden[0]["schema"])
    if len(alike) > 1:
        raise HistoryError(
            f"{len(alike)} tables could be the history, and the search path names the "
            f"schema of none: {name_tables(alike)}",
            hint=ways_out([str(table["schema"]) for table in alike], name),
        )
    if not alike:
        return Choice(table=None)
    if not _is_readable(alike[0]):
        raise _unreadable(facts, alike[0])
    return Choice(table=alike[0], is_elsewhere=True)


def _is_readable(table: Mapping[str, Any]) -> bool:
    return bool(table["is_usable"] and table["can_select"])


def _unreadable(facts: Facts, table: Mapping[str, Any]) -> HistoryError:
    schema, name = str(table["schema"]), str(table["name"])
    role = quote_name(facts.acting_role)
    return HistoryError(
        f'table "{schema}.{name}" could be the history, and role {role} may not read '
        "it",
        hint=f"Where it is the history of these files: GRANT USAGE ON SCHEMA "
        f"{quote_name(schema)} TO {role}; GRANT SELECT, INSERT, UPDATE ON "
        f"{quote_name(schema)}.{quote_name(name)} TO {role}; where another application "
        "keeps it, name a table of this one's own, with its schema: "
        f"GATE_HISTORY_TABLE=SCHEMA.{name}.",
    )


NAMES_SHOWN = 5


def name_tables(tables: Sequence[Mapping[str, Any]]) -> str:
    """Name tables with their schemas, not more than a line has room for."""
    names = [f'"{t["schema"]}.{t["name"]}"' for t in tables[:NAMES_SHOWN]]
    more = len(tables) - NAMES_SHOWN
    return ", ".join(names) + (f" and {more} more" if more > 0 else "")


def ways_out(schemas: Sequence[str], name: HistoryTableName) -> str:
    """Say how a person tells which table is meant."""
    settings = " or ".join(
        f"GATE_HISTORY_TABLE={schema}.{name.table}" for schema in schemas[:2]
    )
    return (
        "Nothing was written. The history of these files is the one whose rows agree "
        "with what is in the database: look there for what the files that only one of "
        f"them has make; the wrong one would have them run twice. Then set {settings}."
    )
