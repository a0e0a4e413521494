"""
Why a table of the gate's could not be made: the right that lacks, or who forbids it.

Asks only after a refusal. Reads only, but for the ROLLBACK before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import psycopg

from psycopg import sql

from migration_gate.connection.qualified import qualified
from migration_gate.connection.refusals import NO_ANSWER, translated
from migration_gate.report.errors import (
    GateError,
    LoginRefusedError,
    ServerRefusedError,
)
from migration_gate.report.quoting import quote_name


# insufficient_resources, operator_intervention, system_error, internal_error: whoever
# made the table would have met them.
NOT_FORBIDDEN: Final = ("53", "57", "58", "XX")
RIGHTS: Final = qualified(
    "SELECT (SELECT ARRAY(SELECT privilege "
    "FROM pg_catalog.unnest(ARRAY['USAGE', 'CREATE']) AS wanted (privilege) "
    "WHERE NOT pg_catalog.has_schema_privilege(oid, privilege)) "
    "FROM pg_catalog.pg_namespace WHERE nspname = {}), "
    "pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE'), "
    "ARRAY(SELECT evtname::pg_catalog.text FROM pg_catalog.pg_event_trigger "
    "WHERE evtenabled = ANY (ARRAY['O', 'A']::pg_catalog.\"char\"[]) ORDER BY 1)"
)


@contextmanager
def making(
    conn: psycopg.Connection[Any], schema: str, table: str, role: str, *, full: bool
) -> Iterator[None]:
    """
    Turn a refusal to make a table, or its schema, into what names it and the way out.

    Raises:
        ConnectionLostError: The session is gone.
        RefusedForNowError: Refused, and another try may be answered otherwise.
        LoginRefusedError: The login role lacks a right.
        ServerRefusedError: Refused for another reason.
    """
    try:
        with translated(f'make table "{schema}.{table}"', full=full):
            yield
    except ServerRefusedError as refusal:
        if not refusal.sqlstate.startswith(NOT_FORBIDDEN):
            raise _explain(conn, refusal, schema, table, role) from refusal
        raise


def _explain(
    conn: psycopg.Connection[Any],
    refusal: ServerRefusedError,
    schema: str,
    table: str,
    role: str,
) -> GateError:
    try:
        with translated("ask who forbids it"):
            conn.execute("ROLLBACK")
            lacking, may_make_schema, triggers = conn.execute(
                RIGHTS.format(sql.Literal(schema))
            ).fetchall()[0]
    except NO_ANSWER:
        return refusal
    if refusal.sqlstate == "42501" and lacking:
        return _lacks(lacking, schema, table, role)
    if refusal.sqlstate == "42501" and lacking is None and not may_make_schema:
        return _lacks_schema(schema, role)
    if triggers:
        refusal.hint = f"{_name_triggers(triggers, schema, table, role)} {refusal.hint}"
    return refusal


def _name_triggers(triggers: Sequence[str], schema: str, table: str, role: str) -> str:
    names = ", ".join(map(quote_name, triggers))
    first = quote_name(triggers[0])
    return (
        f"Event triggers of this database may forbid it: {names}. Let them pass "
        f'table "{schema}.{table}" where role {quote_name(role)} makes it, or have an '
        f"administrator run ALTER EVENT TRIGGER {first} DISABLE; for the first start, "
        "and ENABLE after it."
    )


def _lacks(
    rights: Sequence[str], schema: str, table: str, role: str
) -> LoginRefusedError:
    return LoginRefusedError(
        f'role {quote_name(role)} lacks {", ".join(rights)} on schema "{schema}", '
        f'where table "{table}" is to be made',
        hint=f"GRANT USAGE, CREATE ON SCHEMA {quote_name(schema)} "
        f"TO {quote_name(role)};",
    )


def _lacks_schema(schema: str, role: str) -> LoginRefusedError:
    return LoginRefusedError(
        f'role {quote_name(role)} may not create schema "{schema}" for the history '
        "table",
        hint=f"CREATE SCHEMA {quote_name(schema)} AUTHORIZATION {quote_name(role)};",
    )
