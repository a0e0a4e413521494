"""
What a statement has to do with transactions: controls one, or forbids one. Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Final, Literal, TypeAlias

from migration_gate.statements.names import (
    TokenReader,
    is_name,
    is_string,
    string_value,
)
from migration_gate.statements.statement import Statement


TransactionControl = Literal[
    "begin",
    "commit",
    "commit_and_chain",
    "commit_prepared",
    "prepare",
    "release",
    "rollback",
    "rollback_and_chain",
    "rollback_prepared",
    "rollback_to",
    "savepoint",
    "set_transaction",
]

_CONTROLS: Final[tuple[tuple[str, TransactionControl], ...]] = (
    ("begin", "begin"),
    ("start transaction", "begin"),
    ("commit prepared", "commit_prepared"),
    ("rollback prepared", "rollback_prepared"),
    ("savepoint", "savepoint"),
    ("release", "release"),
)
_Reason: TypeAlias = "str | Callable[[TokenReader, int], str | None]"
_Rule: TypeAlias = "tuple[str, int, _Reason]"
_TokenRule: TypeAlias = "tuple[tuple[bytes, ...], int, _Reason]"
_CONTROL_WORDS: Final = frozenset(
    b"begin start commit rollback savepoint release end abort prepare set".split()
)
_ASSIGNS: Final = frozenset({b"=", b"to", b"from", b"."})

NEWEST_SERVER: Final = 180000
FAILOVER_CHANGES: Final = 170000
TWO_PHASE_CHANGES: Final = 180000
_FALSE: Final = frozenset({"false", "off", "no", "0", "f", "n"})


def transaction_control(statement: Statement) -> TransactionControl | None:
    """Return what a statement does to the transaction it runs in (gram.y)."""
    if not statement.tokens or statement.tokens[0] not in _CONTROL_WORDS:
        return None
    reader = TokenReader(statement.tokens)
    for words, control in _CONTROLS:
        if reader.take_words(words):
            return control
    if reader.take_any("commit", "end"):
        return "commit_and_chain" if _chains(reader) else "commit"
    if reader.take_any("rollback", "abort"):
        if _chains(reader):
            return "rollback_and_chain"
        return "rollback_to" if reader.take_words("to") else "rollback"
    return _by_its_object(reader)


def savepoint_name(statement: Statement) -> str | None:
    """Return the name in SAVEPOINT, RELEASE or ROLLBACK TO."""
    reader = TokenReader(statement.tokens)
    if reader.take_any("rollback", "abort"):
        reader.take_any("work", "transaction")
        reader.take_words("to")
    else:
        reader.take_any("savepoint", "release")
    if reader.peek() == b"savepoint" and is_name(reader.peek(1)):
        reader.take()
    return reader.take_name()


def _by_its_object(reader: TokenReader) -> TransactionControl | None:
    """Tell the object "transaction" from a prepared statement or setting so named."""
    if reader.take_words("prepare transaction"):
        return "prepare" if is_string(reader.peek()) else None
    if not reader.take_words("set"):
        return None
    reader.take_any("session", "local")
    modes = reader.take_words("transaction") and reader.peek() not in _ASSIGNS
    return "set_transaction" if modes else None


def _chains(reader: TokenReader) -> bool:
    reader.take_any("work", "transaction")
    return reader.take_words("and chain")


def forbids_transaction(
    statement: Statement, server_version: int = NEWEST_SERVER
) -> str | None:
    """
    Return what makes PostgreSQL refuse a statement in a transaction block, or None.

    Judges by the text alone: REINDEX and CLUSTER of a partitioned table, which are
    refused too, look like any other, and a DROP SUBSCRIPTION is taken to have a slot.

    Args:
        statement: Any statement.
        server_version: As `server_version_num`, such as 150004.
    """
    tokens = statement.tokens
    for words, since, reason in _rules_for(tokens[:1]):
        if tokens[: len(words)] != words or server_version < since:
            continue
        reader = TokenReader(tokens[len(words) :])
        found = reason if isinstance(reason, str) else reason(reader, server_version)
        if found is not None:
            return found
    return None


def _create_index(reader: TokenReader, _version: int) -> str | None:
    return "CREATE INDEX CONCURRENTLY" if reader.take_words("concurrently") else None


def _reindex(reader: TokenReader, _version: int) -> str | None:
    options = read_options(reader.take_parentheses())
    target = reader.take().decode().upper()
    if reader.take_words("concurrently") or is_true(options.get("concurrently", "0")):
        return "REINDEX CONCURRENTLY"
    return f"REINDEX {target}" if target in {"SCHEMA", "DATABASE", "SYSTEM"} else None


def _cluster(reader: TokenReader, _version: int) -> str | None:
    reader.take_words("verbose")
    reader.take_parentheses()
    return None if reader.peek() else "CLUSTER without a table"


def _alter_database(reader: TokenReader, _version: int) -> str | None:
    reader.take_name()
    moves = reader.take_words("set tablespace") and reader.peek() not in _ASSIGNS
    return "ALTER DATABASE ... SET TABLESPACE" if moves else None


def _alter_table(reader: TokenReader, _version: int) -> str | None:
    reader.take_words("if exists")
    reader.take_words("only")
    reader.take_table()
    reader.take_words("*")
    if not reader.take_words("detach partition"):
        return None
    reader.take_table()
    concurrently = reader.take_words("concurrently")
    return "ALTER TABLE ... DETACH PARTITION CONCURRENTLY" if concurrently else None


def _create_subscription(reader: TokenReader, _version: int) -> str | None:
    options = _trailing_options(reader)
    connects = is_true(options.get("connect", "true"))
    if is_true(options.get("create_slot", "true" if connects else "false")):
        return "CREATE SUBSCRIPTION ... WITH (create_slot = true)"
    return None


def _alter_subscription(reader: TokenReader, version: int) -> str | None:
    reader.take_name()
    if reader.take_words("refresh"):
        return "ALTER SUBSCRIPTION ... REFRESH PUBLICATION"
    if reader.take_any("set publication", "add publication", "drop publication"):
        refreshes = is_true(_trailing_options(reader).get("refresh", "true"))
        return "ALTER SUBSCRIPTION ... PUBLICATION with refresh" if refreshes else None
    if reader.take_words("set"):
        options = read_options(reader.take_parentheses())
        if "failover" in options and version >= FAILOVER_CHANGES:
            return "ALTER SUBSCRIPTION ... SET (failover)"
        if version >= TWO_PHASE_CHANGES and not is_true(options.get("two_phase", "on")):
            return "ALTER SUBSCRIPTION ... SET (two_phase = false)"
    return None


def read_options(tokens: tuple[bytes, ...]) -> dict[str, str]:
    """Return the options of a list such as `(verbose, create_slot = off)`."""
    options: dict[str, str] = {}
    reader = TokenReader(tokens)
    while name := reader.take():
        reader.take_words("=")
        setting = b"true" if reader.peek() in {b"", b","} else reader.take()
        options[name.decode()] = (
            string_value(setting) if is_string(setting) else setting.decode()
        )
        while reader.peek() not in {b"", b","}:
            reader.take()
        reader.take_words(",")
    return options


def _trailing_options(reader: TokenReader) -> dict[str, str]:
    while token := reader.take():
        if token == b"with":
            return read_options(reader.take_parentheses())
    return {}


def is_true(option: str) -> bool:
    """Read a boolean option as the server does (define.c: defGetBoolean)."""
    return option.lower() not in _FALSE


# Where the server calls PreventInTransactionBlock(), in 13 to 18: tcop/utility.c,
# commands/{cluster,dbcommands,discard,indexcmds,subscriptioncmds,vacuum}.c.
_RULES: Final[tuple[_Rule, ...]] = (
    ("vacuum", 0, "VACUUM"),
    ("create index", 0, _create_index),
    ("create unique index", 0, _create_index),
    ("drop index concurrently", 0, "DROP INDEX CONCURRENTLY"),
    ("reindex", 0, _reindex),
    ("cluster", 0, _cluster),
    ("alter table", 140000, _alter_table),
    ("create database", 0, "CREATE DATABASE"),
    ("drop database", 0, "DROP DATABASE"),
    ("alter database", 0, _alter_database),
    ("create tablespace", 0, "CREATE TABLESPACE"),
    ("drop tablespace", 0, "DROP TABLESPACE"),
    ("alter system", 0, "ALTER SYSTEM"),
    ("discard all", 0, "DISCARD ALL"),
    ("create subscription", 0, _create_subscription),
    ("alter subscription", 140000, _alter_subscription),
    ("drop subscription", 0, "DROP SUBSCRIPTION"),
    ("commit prepared", 0, "COMMIT PREPARED"),
    ("rollback prepared", 0, "ROLLBACK PREPARED"),
)


@cache
def _rules_for(first: tuple[bytes, ...]) -> tuple[_TokenRule, ...]:
    """Return the rules that begin with a word: most statements have none."""
    rules = ((tuple(r[0].encode().split()), *r[1:]) for r in _RULES)
    return tuple(rule for rule in rules if rule[0][:1] == first)
