"""
What of a single statement the gate cannot run, whatever the file around it. Pure.
"""

from __future__ import annotations

import re

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from migration_gate.settings.settings import HistoryTableName
from migration_gate.statements import (
    Content,
    ScriptError,
    Statement,
    having,
    is_copy_to_stdout,
    psql_command,
    reads_as_off,
    setting_changed,
    string_syntax_set,
    tables_written,
    transaction_control,
)


INCLUDING: Final = frozenset({"i", "ir", "include", "include_relative"})
INCLUDED: Final = (
    "Put the text of that file here in its place, or make it a migration of its own."
)
# psql: what pg_dump writes, and what changes nothing but what psql prints.
IGNORED_PSQL_COMMANDS: Final = frozenset(
    {
        *("restrict", "unrestrict", "echo", "qecho", "warn", "timing", "pset"),
        *("a", "C", "f", "H", "html", "t", "T", "x"),
    }
)
PRINTING_VARIABLES: Final = frozenset(
    {
        *("COMP_KEYWORD_CASE", "ECHO", "ECHO_HIDDEN", "FETCH_COUNT", "HIDE_TABLEAM"),
        *("HIDE_TOAST_COMPRESSION", "HISTCONTROL", "HISTFILE", "HISTSIZE", "IGNOREEOF"),
        *("PROMPT1", "PROMPT2", "PROMPT3", "QUIET", "SHOW_ALL_RESULTS"),
        *("SHOW_CONTEXT", "VERBOSITY"),
    }
)
SET_WORDS: Final = 3  # \set NAME VALUE
LOOKED_AT: Final = 1 << 16
REMOVES: Final = re.compile(
    rb"\b(?:drop|truncate|delete|rename|alter|update)\b", re.IGNORECASE
)
SWEEPS: Final = re.compile(rb"\bdrop\s+(?:schema|owned)\b", re.IGNORECASE)
UTF8: Final = frozenset({"utf8", "utf-8", "unicode", "utf_8"})


def find_unfit(piece: Statement, history: HistoryTableName) -> Iterator[ScriptError]:
    """Yield what of a piece of a script cannot run, each with its remedy."""
    command = psql_command(piece)
    if command is not None:
        yield from _find_psql(piece, command)
        return
    if is_copy_to_stdout(piece):
        yield ScriptError(
            piece.first,
            "COPY … TO STDOUT, whose data nobody would receive",
            "Take it out, or copy to a file of the server's.",
        )
    yield from _find_settings(piece)
    yield from _find_history(piece, history)


def _find_psql(piece: Statement, command: str) -> Iterator[ScriptError]:
    words = [word.decode(errors="replace") for word in piece.tokens]
    # psqlscanslash.l: what is in backquotes runs in a shell.
    is_plain = not any("`" in word for word in words)
    if is_plain and (command in IGNORED_PSQL_COMMANDS or _sets_nothing(words)):
        return
    if words[:2] == ["\\set", "ON_ERROR_STOP"]:
        yield ScriptError(
            piece.first,
            "ON_ERROR_STOP off, under which psql goes on after an error",
            "Take it out: the gate stops at the first error.",
        )
        return
    yield ScriptError(
        piece.first,
        f"psql command \\{command}, which only psql can run",
        INCLUDED if command in INCLUDING else "Write it in SQL, or take it out.",
    )


def _sets_nothing(words: Sequence[str]) -> bool:
    r"""Tell a \set that has no effect where every error ends the run."""
    if words[0] == "\\encoding" and len(words) == SET_WORDS - 1:
        return words[1].lower() in UTF8
    if words[0] not in {"\\set", "\\unset"} or len(words) < SET_WORDS - 1:
        return False
    name, value = words[1], "".join(words[2:])
    is_off = words[0] == "\\unset" or reads_as_off(value)
    if name == "ON_ERROR_STOP":
        return not is_off
    return name in PRINTING_VARIABLES or (name == "ON_ERROR_ROLLBACK" and is_off)


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
    name = history.table
    tables = {name, f"{name}_progress", f"{name}_failures"}
    for schema, table in tables_written(statement):
        if table in tables and (history.schema or schema) == (schema or history.schema):
            yield ScriptError(
                statement.first,
                f'creates or fills the history table "{table}"',
                f"Leave it out of the dump: pg_dump -T '{history.table}*'. Where it "
                "is a table of the application's, set GATE_HISTORY_TABLE to another.",
            )


def _may_name(statement: Statement, table: str) -> bool:
    """Tell, cheaply, the few statements that may have a name from all others."""
    # Of bytes, lower() changes the letters of ASCII alone, in both.
    text = b" ".join(statement.tokens).lower()
    # Quotes inside a name are doubled, and U&"…" can write it in many ways.
    return table.encode().lower() in text or b"u&" in text or '"' in table


def find_removal(
    content: Content, statements: Iterable[Statement], table: str
) -> Statement | None:
    """
    Return the statement that seems to remove the history, or a row of it.

    Asked only when it is gone; by the words in the text, as a function may do it.
    """
    named = re.compile(re.escape(table.encode()), re.IGNORECASE)
    suspects = []
    for statement in statements:
        text = content[
            statement.first : min(statement.end, statement.first + LOOKED_AT)
        ]
        is_named = named.search(text) is not None
        if (is_named and REMOVES.search(text)) or SWEEPS.search(text):
            suspects.append((not is_named, statement))
    return min(suspects, key=lambda each: each[0])[1] if suspects else None


def find_unread(statements: Sequence[Statement]) -> Iterator[ScriptError]:
    """
    Yield what undoes a change of how strings are read, as only a server can follow it.
    """
    if next(having(statements, string_syntax_set), None) is None:
        return
    for _, statement in having(statements, transaction_control):
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
    if words[:1] == (b"prepare",) and transaction_control(statement) is None:
        yield ScriptError(
            statement.first,
            "PREPARE in a file that runs outside a transaction",
            "Move it to a file that runs in a transaction.",
        )
