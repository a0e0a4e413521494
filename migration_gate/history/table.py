"""
Judge whether a table is the history: whose it is, and whether it can be trusted. Pure.

Works on facts from the catalogue; never sees a connection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from migration_gate.history.trust import Fault, Owners, find_faults
from migration_gate.report.errors import HistoryError, LoginRefusedError
from migration_gate.report.quoting import quote_name


OUR_COLUMNS = {
    "checksum": "pg_catalog.text",
    "duration_ms": "bigint",
    "gate_version": "pg_catalog.text",
    "superseded": "pg_catalog.text",
}
CHARACTER_TYPES = frozenset({"text", "varchar", "bpchar"})
TIME_TYPES = frozenset({"timestamp", "timestamptz"})
NUMBER_TYPES = frozenset({"int8", "int4", "numeric"})


class Column(NamedTuple):
    """A column of the table; ``type_name`` as pg_type has it."""

    name: str
    type_name: str
    is_optional: bool


class HistoryTable(NamedTuple):
    """
    A table that can serve as the history.

    ``our_columns`` are those of ours that it has; ``has_zone`` tells whether
    applied_at is a timestamp with time zone; the rights are the login role's, and
    ``owners`` are whom it trusts with the table. ``has_failures`` and ``has_progress``
    tell whether tables of these stand beside it.
    """

    schema: str
    name: str
    our_columns: frozenset[str]
    has_zone: bool
    can_insert: bool
    can_update: bool
    can_alter: bool
    owners: Owners
    owner: str
    has_failures: bool = False
    has_progress: bool = False
    can_lock: bool = True
    can_read_all: bool = True

    @property
    def is_complete(self) -> bool:
        """Return whether all of our columns are there."""
        return len(self.our_columns) == len(OUR_COLUMNS)


def recognise_table(facts: Mapping[str, Any]) -> HistoryTable:
    """
    Turn the catalogue's facts into a history table.

    Raises:
        HistoryError: It belongs to another program, or cannot be trusted.
        LoginRefusedError: The login role may not read it.
    """
    table = f'table "{facts["schema"]}.{facts["name"]}"'
    faults = find_faults(facts)
    if faults:
        raise HistoryError(
            f"{table} cannot be trusted as history: "
            f"{'; '.join(fault.what for fault in faults)}",
            hint=_how_to_trust(faults),
        )
    columns = [Column(**column) for column in facts["columns"]]
    fault = find_form_fault(columns, is_unique=facts["version_is_unique"])
    if fault is not None:
        raise HistoryError(
            f"{table} belongs to another program: {fault}",
            hint="Nothing was written. Name a table of the gate's own in "
            "GATE_HISTORY_TABLE, e.g. gate_schema_migrations, and declare what is "
            "applied already with the command resolve VERSION --applied.",
        )
    if not facts["can_select"]:
        raise missing_right("SELECT", str(facts["schema"]), str(facts["name"]), facts)
    by_name = {column.name: column for column in columns}
    return HistoryTable(
        schema=facts["schema"],
        name=facts["name"],
        our_columns=frozenset(by_name.keys() & OUR_COLUMNS.keys()),
        has_zone=by_name["applied_at"].type_name == "timestamptz",
        can_insert=facts["can_insert"],
        can_update=facts["can_update"],
        can_alter=facts["can_alter"],
        owners=facts["owners"],
        owner=facts["owner"],
        has_failures=facts["has_failures"],
        has_progress=facts["has_progress"],
        can_lock=facts["can_lock"],
        can_read_all=facts["can_read_all"],
    )


def may_be_foreign(facts: Mapping[str, Any]) -> bool:
    """Tell a table that may be another tool's: none of theirs has both columns."""
    names = {column["name"] for column in facts["columns"] or ()}
    return not {"version", "applied_at"} <= names


def is_history(facts: Mapping[str, Any]) -> bool:
    """Tell whether a table would serve as the history, of a role that may read it."""
    try:
        recognise_table(facts)
    except HistoryError:
        return False
    except LoginRefusedError:
        return True
    return True


def missing_right(
    right: str, schema: str, name: str, facts: Mapping[str, Any]
) -> LoginRefusedError:
    """Return the error for a right on the history table that the role lacks."""
    role = quote_name(str(facts["acting_role"]))
    where = f"{quote_name(schema)}.{quote_name(name)}"
    hint = f"GRANT {right} ON {where} TO {role};"
    group, owner = facts.get("gate_role"), facts.get("owner")
    if group is not None and owner not in {None, group}:
        # Left by another login role: whoever comes next would lack the same.
        hint = f"ALTER TABLE {where} OWNER TO {quote_name(str(group))};"
    return LoginRefusedError(
        f'role {role} lacks {right} on table "{schema}.{name}"', hint=hint
    )


def _how_to_trust(faults: Sequence[Fault]) -> str:
    """Say what mends a table; never to drop one that may have rows of the gate's."""
    remedies = " ".join(fault.remedy for fault in faults if fault.remedy)
    other = "name a table of the gate's own in GATE_HISTORY_TABLE."
    if not remedies:
        return f"{other[0].upper()}{other[1:]}"
    return (
        "Look first who has made it so, and why. Where it is the history of these "
        f"files and nobody needs that, let its owner or a superuser run: {remedies} "
        f"Where the table is somebody else's, {other}"
    )


def find_form_fault(columns: Sequence[Column], *, is_unique: bool) -> str | None:
    """Return why a table is another program's, by its columns; None where it is not."""
    by_name = {column.name: column for column in columns}
    version, applied_at = by_name.get("version"), by_name.get("applied_at")
    if version is None or version.type_name not in CHARACTER_TYPES:
        return 'it has no column "version" of a character type'
    if applied_at is None or applied_at.type_name not in TIME_TYPES:
        return 'it has no column "applied_at" of a timestamp type'
    if not is_unique:
        return 'its column "version" is not unique'
    for column in columns:
        if column.name in {"version", "applied_at"}:
            continue
        if column.name in OUR_COLUMNS:
            wanted = NUMBER_TYPES if column.name == "duration_ms" else CHARACTER_TYPES
            if column.type_name not in wanted:
                return f'its column "{column.name}" is of type {column.type_name}'
        if not column.is_optional:
            return f'its column "{column.name}" is neither nullable nor has a default'
    return None
