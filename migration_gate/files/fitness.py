"""
What of a single statement the gate cannot run, whatever the file around it. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from migration_gate.settings.settings import HistoryTableName
from migration_gate.statements import (
    ScriptError,
    Statement,
    is_copy_to_stdout,
    psql_command,
    reads_as_off,
    setting_changed,
    string_syntax_set,
    tables_written,
    transaction_control,
)


IGNORED_PSQL_COMMANDS: Final = frozenset({"restrict", "unrestrict"})
UTF8: Final = frozenset({"utf8", "utf-8", "unicode", "utf_8"})


def find_unfit(piece: Statement, history: HistoryTableName) -> Iterator[ScriptError]:
    """Yield what of a piece of a script cannot run, each with its remedy."""
    command = psql_command(piece)
    if command is not None:
        if command not in IGNORED_PSQL_COMMANDS:
            yield ScriptError(
                piece.first,
                f"psql command \\{command}, which only psql can run",
                "Write it in SQL, or take it out.",
            )
        return
    if is_copy_to_stdout(piece):
        yield ScriptError(
            piece.first,
            "COPY … TO STDOUT, whose data nobody would receive",
            "Take it out, or copy to a file of the server's.",
        )
    yield from _find_settings(piece)
    yield from _find_history(piece, history)


def _find_settings(statement: Statement) -> Iterator[ScriptError]:
    change = setting_changed(statement)
    if change is None:
        return
    name, value, _ = change
    if string_syntax_set(statement) == "unknown":
        yield ScriptError(
            statement.first,
            "standard_conforming_strings is computed, which leaves open how the rest "
            "of the file reads",
            "Set it to on or off.",
        )
    if name == "transaction_read_only" and not reads_as_off(value or "on"):
        yield ScriptError(
            statement.first,
            "READ ONLY transaction in a migration, which has to be recorded",
            "Take the SET out.",
        )
    if name == "client_encoding" and (value or "utf8").lower() not in UTF8:
        yield ScriptError(
            statement.first,
            "client_encoding is changed, but the file is sent as UTF-8",
            "Save the file as UTF-8 and take the SET out.",
        )


def _find_history(
    statement: Statement, history: HistoryTableName
) -> Iterator[ScriptError]:
    if not _may_name(statement, history.table):
        return
    tables = {history.table, f"{history.table}_progress"}
    for schema, table in tables_written(statement):
        if table in tables and (history.schema or schema) == (schema or history.schema):
            yield ScriptError(
                statement.first,
                f'creates or fills the history table "{table}"',
                f"Leave it out of the dump: pg_dump -T '{history.table}*'.",
            )


def _may_name(statement: Statement, table: str) -> bool:
    """Tell, cheaply, the few statements that may have a name from all others."""
    # Of bytes, lower() changes the letters of ASCII alone, in both.
    text = b" ".join(statement.tokens).lower()
    # Quotes inside a name are doubled, and U&"…" can write it in many ways.
    return table.encode().lower() in text or b"u&" in text or '"' in table


def find_unread(statements: Sequence[Statement]) -> Iterator[ScriptError]:
    """
    Yield what undoes a change of how strings are read, as only a server can follow it.
    """
    if not any(map(string_syntax_set, statements)):
        return
    for statement in statements:
        if transaction_control(statement) == "rollback_to":
            yield ScriptError(
                statement.first,
                "ROLLBACK TO in a file that changes standard_conforming_strings",
                "Write strings with backslashes as E'…' and take the SET out.",
            )


def find_unfit_outside(statement: Statement) -> Iterator[ScriptError]:
    """
    Yield what cannot run in a file that runs outside a transaction.

    A restart would find a new session, without what these leave in it.
    """
    change = setting_changed(statement)
    if change is not None and change[2] == "local" and string_syntax_set(statement):
        yield ScriptError(
            statement.first,
            "standard_conforming_strings is set for one transaction, in a file that "
            "runs in several",
            "Use SET instead of SET LOCAL.",
        )
    words = statement.tokens[:4]
    if words[:1] == (b"create",) and {b"temp", b"temporary"} & set(words):
        yield ScriptError(
            statement.first,
            "temporary table in a file that runs outside a transaction",
            "Move it to a file that runs in a transaction.",
        )
    if words[:1] == (b"prepare",):
        yield ScriptError(
            statement.first,
            "PREPARE in a file that runs outside a transaction",
            "Move it to a file that runs in a transaction.",
        )
