"""
Whether a table of the gate's can be trusted, and the statement that mends it. Pure.

A trigger, a rule or a policy would run its functions as whoever writes the table, and
so could an owner who adds one; before PostgreSQL 18 also the triggers of a table that
its deletes reach by a foreign key. A crash empties what is unlogged. What cannot hurt
the login role is no fault: row security that is not active for it.
"""

from __future__ import annotations

import re

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from migration_gate.report.quoting import quote_name


class Owners(NamedTuple):
    """
    Who may own a table of the gate's.

    ``roles`` are the login role and those that it is a member of; ``groups`` are
    GATE_ROLE and the database's owner: they, their members, and superusers.
    """

    roles: tuple[str, ...]
    groups: tuple[str, ...]


class Fault(NamedTuple):
    """Why a table cannot be trusted, and the statement that mends it, if one does."""

    what: str
    remedy: str


def find_faults(facts: Mapping[str, Any]) -> list[Fault]:
    """Return what forbids to trust a table, by the facts that the catalogue gave."""
    if facts["kind"] != "r" or facts["persistence"] == "t":
        return [Fault("it is not an ordinary table", "")]
    faults = [
        Fault(
            f'it has {kind} "{name}"',
            f"DROP {kind.upper()} {quote_name(name)} ON {_shown(facts)};",
        )
        for kind, names in (("rule", facts["rules"]), ("trigger", facts["triggers"]))
        for name in names
    ]
    if facts["persistence"] == "u":
        change = f"ALTER TABLE {_shown(facts)} SET LOGGED;"
        faults.append(Fault("it is unlogged: a crash of the server empties it", change))
    for schema, name, key, owner in facts["followers"]:
        table = f"{quote_name(schema)}.{quote_name(name)}"
        what = f'its deletes reach table "{schema}.{name}" of role "{owner}"'
        drop = f"ALTER TABLE {table} DROP CONSTRAINT {quote_name(key)};"
        faults.append(Fault(what, drop))
    if facts["row_security"] is not None:
        force = facts["row_security"] == "forced" and facts["can_alter"]
        change = "NO FORCE" if force else "DISABLE"
        what = "it has row security, which is " + (
            "forced on its owner too" if force else "active for the login role"
        )
        faults.append(
            Fault(what, f"ALTER TABLE {_shown(facts)} {change} ROW LEVEL SECURITY;")
        )
    if not facts["owner_is_trusted"]:
        owner = quote_name(str(facts["gate_role"] or facts["acting_role"]))
        change = f"ALTER TABLE {_shown(facts)} OWNER TO {owner};"
        if facts["gate_role"] is None:
            name = str(facts["owner"])
            change += f" Where {quote_name(name)} migrates, set GATE_ROLE={name}."
        faults.append(Fault(f'it is owned by role "{facts["owner"]}"', change))
    return faults


def _shown(facts: Mapping[str, Any]) -> str:
    return f"{quote_name(str(facts['schema']))}.{quote_name(str(facts['name']))}"


MARKED: Final = "gate:([a-z ]+)"


def find_marked(message: str | None) -> str | None:
    """Return what is wrong by the words of an error that quotes the expression."""
    marked = re.search(MARKED, message or "")
    return marked[1] if marked else None
