"""
Why a row of the history could not be written: the right that lacks, or what forbids it.

Asks only after a refusal, in no transaction. Reads only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import psycopg

from psycopg import sql

from migration_gate.connection.qualified import qualified
from migration_gate.connection.refusals import translated
from migration_gate.history.catalogue import still_trusted
from migration_gate.history.progress import SUFFIX, require_trusted
from migration_gate.history.table import OUR_COLUMNS, HistoryTable, missing_right
from migration_gate.report.errors import (
    GateError,
    HistoryError,
    HistoryRefusedError,
    LoginRefusedError,
    ServerRefusedError,
)
from migration_gate.report.quoting import quote_name


WRITING: Final = ("SELECT", "INSERT", "UPDATE")
NOT_NEEDED: Final = "UPDATE"
DEFINITION_CLASS: Final = "42"
CONSTRAINT_CLASS: Final = "23"
TOO_LONG_STATE: Final = "22001"
REPLICA_IDENTITY_STATE: Final = "55000"
# What ``still_trusted`` gives.
TRUSTED: Final = "on"
MARK: Final = "gate:"
# No such table, or no such schema.
GONE_STATES: Final = ("42P01", "3F000")
# What ``guarding`` fails with.
MARKED_STATE: Final = "22P02"
# The sequences that the columns' defaults take their values from.
RIGHTS: Final = qualified(
    """
SELECT ARRAY(SELECT word FROM pg_catalog.unnest(ARRAY[{rights}]) word
             WHERE NOT pg_catalog.has_table_privilege(c.oid, word)
               AND (word = 'DELETE'
                    OR NOT pg_catalog.has_any_column_privilege(c.oid, word))),
       ARRAY(SELECT s.relname::pg_catalog.text FROM pg_catalog.pg_attrdef a
             JOIN pg_catalog.pg_depend d ON d.objid = a.oid
                  AND d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass
             JOIN pg_catalog.pg_class s ON s.oid = d.refobjid
             WHERE a.adrelid = c.oid AND CASE WHEN s.relkind = 'S'
                 THEN NOT pg_catalog.has_sequence_privilege(s.oid, 'USAGE') END),
       ARRAY(SELECT t.tgname::pg_catalog.text FROM pg_catalog.pg_trigger t
             WHERE t.tgrelid = c.oid AND NOT t.tgisinternal ORDER BY 1)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = {schema} AND c.relname = {table}
"""
)


def explain_write(
    conn: psycopg.Connection[Any],
    table: HistoryTable,
    role: str,
    refusal: ServerRefusedError,
    *,
    rights: Sequence[str] = WRITING,
) -> GateError:
    """
    Return the error for a row that PostgreSQL did not let the gate write.

    Args:
        rights: Those to grant where one of them lacks; to UPDATE is not needed.

    Raises:
        ConnectionLostError: The session is gone.
        RefusedForNowError, ServerRefusedError: The question was refused too.
    """
    if refusal.sqlstate == MARKED_STATE:
        came = find_trigger(conn, table)
        if came is not None:
            return came
    query = RIGHTS.format(
        rights=sql.SQL(", ").join(sql.Literal(r) for r in rights if r != NOT_NEEDED),
        schema=sql.Literal(table.schema),
        table=sql.Literal(table.name),
    )
    with translated("ask which right lacks"):
        row = conn.execute(query).fetchone()
    where = f"{quote_name(table.schema)}.{quote_name(table.name)}"
    if row is None:
        hint = f"Table {where} is gone: it was dropped or renamed meanwhile."
        return HistoryRefusedError(refusal, hint=hint)
    if f'"{table.schema}.{table.name}{SUFFIX}"' in refusal.message:
        return explain_progress(conn, table, refusal)
    lacking, sequences, triggers = row
    if refusal.sqlstate == "42501" and lacking:
        facts = {"acting_role": role}
        return missing_right(", ".join(rights), table.schema, table.name, facts)
    if refusal.sqlstate == "42501" and sequences:
        return _lacks_sequence(table.schema, sequences[0], role)
    return HistoryRefusedError(refusal, hint=_find_hint(refusal, where, triggers))


def find_alteration(
    conn: psycopg.Connection[Any], table: HistoryTable
) -> HistoryError | None:
    """
    Return what others have done to the history; None where it is as it was.

    Asked when a file's statements are rolled back: what it had done itself is undone.

    Raises:
        ConnectionLostError: The session is gone.
        RefusedForNowError, ServerRefusedError: The question was refused too.
    """
    name = f"{table.schema}.{table.name}"
    try:
        with translated("ask what has become of the history"):
            row = conn.execute(
                sql.SQL("SELECT {}").format(
                    still_trusted(table.schema, table.name, table.owners, deletes=True)
                )
            ).fetchone()
    except ServerRefusedError as refusal:
        if refusal.sqlstate not in GONE_STATES:
            raise
        row = None
    found = "gone" if row is None else str(row[0])
    if found == TRUSTED:
        return None
    what = f"has {found.removeprefix(MARK)}" if row else "is gone"
    return HistoryError(
        f'table "{name}" {what}: another session altered, dropped or renamed it '
        "meanwhile",
        hint="Nothing of what the gate was at is left. Bring the table back as it "
        "was, then start the gate again: without it, that would run every file anew.",
    )


MAY_WRITE: Final = qualified(
    """
SELECT pg_catalog.current_setting('transaction_read_only') = 'off'
   AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')
   AND pg_catalog.has_any_column_privilege(c.oid, 'SELECT')
   AND pg_catalog.has_any_column_privilege(c.oid, 'INSERT')
   AND (NOT {can_update} OR pg_catalog.has_any_column_privilege(c.oid, 'UPDATE'))
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = {schema} AND c.relname = {table}
"""
)


def may_write(conn: psycopg.Connection[Any], table: HistoryTable) -> bool:
    """
    Tell whether nothing keeps the login role from writing the history.

    Asked when a file's statements are rolled back: then it was the file that did.

    Raises:
        ConnectionLostError: The session is gone.
        RefusedForNowError, ServerRefusedError: The question was refused too.
    """
    query = MAY_WRITE.format(
        can_update=sql.Literal(table.can_update),
        schema=sql.Literal(table.schema),
        table=sql.Literal(table.name),
    )
    with translated("ask which right lacks"):
        return conn.execute(query).fetchone() == (True,)


def require_replaceable(table: HistoryTable, role: str) -> None:
    """
    Refuse a table whose rows cannot get the text of a repeatable migration.

    Raises:
        LoginRefusedError: The login role lacks UPDATE.
        HistoryError: It lacks a column.
    """
    if not table.can_update:
        rights = ", ".join(WRITING)
        raise missing_right(rights, table.schema, table.name, {"acting_role": role})
    if table.is_complete:
        return
    missing = [name for name in OUR_COLUMNS if name not in table.our_columns]
    columns = ", ".join(
        f"ADD COLUMN {name} {OUR_COLUMNS[name].removeprefix('pg_catalog.')}"
        for name in missing
    )
    where = f"{quote_name(table.schema)}.{quote_name(table.name)}"
    raise HistoryError(
        f'table "{table.schema}.{table.name}" lacks what a repeatable migration needs '
        "to be applied again: its earlier texts are kept there, so that an older image "
        "does not bring one back",
        hint=f"Let its owner run: ALTER TABLE {where} {columns};",
    )


def _find_hint(refusal: ServerRefusedError, where: str, triggers: Sequence[str]) -> str:
    if refusal.sqlstate == REPLICA_IDENTITY_STATE:
        return (
            f"ALTER TABLE {where} REPLICA IDENTITY FULL; or give it a primary key, or "
            "take it out of the publication."
        )
    if triggers:
        names = ", ".join(map(quote_name, triggers))
        return (
            f"Table {where} has triggers: {names}. The history has none: DROP TRIGGER "
            f"{quote_name(triggers[0])} ON {where};"
        )
    if refusal.sqlstate == TOO_LONG_STATE:
        return f"ALTER TABLE {where} ALTER COLUMN version TYPE varchar(255);"
    if refusal.sqlstate.startswith(CONSTRAINT_CLASS):
        return (
            f"Table {where} has a constraint that keeps the gate's row out: drop that "
            "one. A row has the file's name, its checksum and times, and no more."
        )
    if refusal.sqlstate.startswith(DEFINITION_CLASS):
        return f"Table {where} may have been altered meanwhile: look at it."
    return refusal.hint


def find_trigger(
    conn: psycopg.Connection[Any], table: HistoryTable
) -> HistoryError | None:
    """
    Return what has come to the history, or to its progress, while a write waited.

    None where it is gone again.

    Raises:
        ConnectionLostError: The session is gone.
        RefusedForNowError, ServerRefusedError: The question was refused too.
    """
    found = find_alteration(conn, table)
    if found is None:
        try:
            with translated("look for the progress table"):
                require_trusted(conn, table)
        except HistoryError as error:
            return error
    return found


def explain_progress(
    conn: psycopg.Connection[Any], table: HistoryTable, refusal: ServerRefusedError
) -> GateError:
    """Return the error for progress that could not be written, or is not there."""
    if refusal.sqlstate == MARKED_STATE:
        return find_trigger(conn, table) or refusal
    if refusal.sqlstate not in (*GONE_STATES, "42703"):
        return refusal
    where = f"{quote_name(table.schema)}.{quote_name(table.name + SUFFIX)}"
    return HistoryRefusedError(
        refusal,
        hint=f"Another session altered, dropped or renamed table {where} meanwhile. "
        "Bring it back as it was, then start the gate again: without it, the file "
        "would run from its first statement.",
    )


def _lacks_sequence(schema: str, sequence: str, role: str) -> LoginRefusedError:
    return LoginRefusedError(
        f'role {quote_name(role)} lacks USAGE on sequence "{schema}.{sequence}", which '
        "numbers the rows of the history",
        hint=f"GRANT USAGE ON SEQUENCE {quote_name(schema)}.{quote_name(sequence)} "
        f"TO {quote_name(role)};",
    )
