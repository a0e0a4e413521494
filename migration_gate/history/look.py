"""
Look at the history, and at what else a run wants to know. Reads only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import psycopg

from psycopg import pq

from migration_gate.files.migration import AppliedMigration
from migration_gate.history.catalogue import Before, Facts, asking
from migration_gate.history.choice import Choice, choose_history
from migration_gate.history.rows import ADOPTED_FROM, read_rows, require_same
from migration_gate.history.table import HistoryTable, may_be_foreign, recognise_table
from migration_gate.history.trust import Owners
from migration_gate.report.errors import HistoryError, LoginRefusedError
from migration_gate.report.outcomes import ConnectionLostError
from migration_gate.report.quoting import quote_name
from migration_gate.settings.settings import HistoryTableName


LOOKS_MAX: Final = 3
# Of a time to the microsecond, what comes after the milliseconds.
MICROSECONDS_END: Final = len("456Z")
LOCK_IS_LOST: Final = "the transaction that held the gates' lock has failed"
# What the second query meets when the table was changed after the first one.
CHANGED: Final = (
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.InvalidSchemaName,
    psycopg.errors.InsufficientPrivilege,
    psycopg.errors.WrongObjectType,
    psycopg.errors.UndefinedFunction,
    psycopg.errors.DivisionByZero,
)


class Look(NamedTuple):
    """
    What one look at the database showed.

    ``table`` is None where there is no history table yet, and ``history`` is then
    empty; ``history`` has the oldest row first. ``name`` is that of the table, which
    may have another tool's in its place. ``schema`` is where the table is or
    would be made; None where the search path names no schema that exists.
    ``hidden_schema`` is a schema that has the table but that the role may not use.
    ``is_elsewhere`` tells that the search path does not name the table's schema;
    ``others`` are further tables of its name that could be the history; ``owners`` are
    whom the gate trusts with it; ``is_bare`` tells that there is no table that may be
    another tool's history; ``tool`` is the one whose history was taken over.
    ``search_path`` is that of the session, and ``is_shareable`` tells that it may serve
    another target of a fleet.
    """

    backend_pid: int
    is_writable: bool
    is_standby: bool
    acting_role: str
    name: HistoryTableName
    schema: str | None
    schema_exists: bool
    hidden_schema: str | None
    table: HistoryTable | None
    history: tuple[AppliedMigration, ...]
    is_elsewhere: bool
    owners: Owners
    others: tuple[Mapping[str, Any], ...]
    search_path: str = ""
    is_bare: bool = False
    is_shareable: bool = False
    tool: str | None = None


def look(
    conn: psycopg.Connection[Any],
    name: HistoryTableName,
    role: str | None,
    *,
    after: Before | None = None,
) -> Look:
    """
    Look at the server's state and the history. Reads only.

    One query asks the catalogue, and another one reads the rows of a table that may be
    trusted: a planted view would run its functions as the login role.

    Args:
        name: The history table; without a schema, it is found in any.
        role: GATE_ROLE, which may own the table.
        after: What has to be done first; see ``ask_catalogue``.

    Raises:
        HistoryError: The table is another tool's, or cannot be trusted.
        LoginRefusedError: The login role may not read it.
        ConnectionLostError: The transaction that holds the gates' lock has failed.
    """
    for _ in range(LOOKS_MAX):
        facts = asking.ask(conn, name, role, after=after)
        after = None
        chosen, choice = choose_history(facts, name)
        if choice.table is None:
            return _to_look(facts, chosen, choice, None, ())
        if may_be_foreign(choice.table):
            _require_not_foreign(conn, choice.table)
        table = recognise_table(choice.table)
        found = ask_rows(conn, table, choice.table["oid"])
        if found is not None:
            rows, tool = found
            return _to_look(facts, chosen, choice, table, rows)._replace(tool=tool)
    raise HistoryError(
        f'table "{table.schema}.{table.name}" was changed each time that the gate '
        "looked at it",
        hint="Let what alters, drops or makes it come to its end, then start the gate "
        "again.",
    )


def _require_not_foreign(
    conn: psycopg.Connection[Any], facts: Mapping[str, Any]
) -> None:
    from migration_gate.history.foreign import (  # noqa: PLC0415  # rarely needed
        require_not_foreign,
    )

    require_not_foreign(conn, facts)


def _to_look(
    facts: Facts,
    name: HistoryTableName,
    choice: Choice,
    table: HistoryTable | None,
    history: tuple[AppliedMigration, ...],
) -> Look:
    return Look(
        backend_pid=facts.backend_pid,
        is_writable=not facts.is_read_only and not facts.is_standby,
        is_standby=facts.is_standby,
        acting_role=facts.acting_role,
        name=name,
        schema=facts.schema if table is None else table.schema,
        schema_exists=facts.schema_exists,
        hidden_schema=choice.hidden_schema,
        table=table,
        history=history,
        is_elsewhere=choice.is_elsewhere,
        owners=facts.owners,
        others=choice.others,
        search_path=facts.search_path,
        is_bare=facts.is_bare,
        is_shareable=facts.is_shareable,
    )


def ask_rows(
    conn: psycopg.Connection[Any], table: HistoryTable, oid: int
) -> tuple[tuple[AppliedMigration, ...], str | None] | None:
    """
    Return the rows of a table, oldest first, and the tool that they were taken over of.

    None where the table is not that one any more.

    Raises:
        ConnectionLostError: The transaction that holds the gates' lock has failed.
    """
    try:
        cursor = conn.execute(require_same([(table, oid)]) + read_rows(table))
        while cursor.nextset():
            pass
        _, rows, origin = cursor.fetchall()[0]
    except CHANGED as error:
        if conn.info.transaction_status == pq.TransactionStatus.INERROR:
            raise ConnectionLostError(LOCK_IS_LOST, error.sqlstate) from error
        return None
    return to_history(rows or ()), to_tool(origin)


def to_tool(origin: str | None) -> str | None:
    """Return the tool whose rows were taken over, by how their origin is recorded."""
    return origin and origin.removeprefix(ADOPTED_FROM).partition(" ")[0]


def require_readable(seen: Look) -> None:
    """
    Tell a history that is not there from one that the role may not use.

    Raises:
        LoginRefusedError: A schema of the search path has it, but the role lacks USAGE.
    """
    if seen.hidden_schema is not None:
        role = quote_name(seen.acting_role)
        raise LoginRefusedError(
            f'role {role} lacks USAGE on schema "{seen.hidden_schema}", which has the '
            "history table",
            hint=f"GRANT USAGE ON SCHEMA {quote_name(seen.hidden_schema)} TO {role};",
        )


def to_history(rows: Iterable[Sequence[Any]]) -> tuple[AppliedMigration, ...]:
    """Make records of the rows of ``read_rows``; the oldest comes first."""
    return tuple(
        AppliedMigration(
            version=version,
            checksum=checksum,
            applied_at=_to_milliseconds(applied_at or ""),
            # A table that was taken over may have numeric, and in it what is no number.
            duration_ms=duration_ms if isinstance(duration_ms, int) else None,
            superseded=superseded[0] if superseded else "",
        )
        for version, checksum, applied_at, duration_ms, *superseded in sorted(
            rows, key=_age
        )
    )


def _age(row: Sequence[Any]) -> tuple[bool, str, str]:
    """
    Return what rows are sorted by; one without a time counts as the newest.

    Short files are applied in the same millisecond.
    """
    version, _, applied_at, *_ = row
    return not applied_at, applied_at or "", version


def _to_milliseconds(time: str) -> str:
    return time and f"{time[:-MICROSECONDS_END]}Z"
