"""
Which session setting a statement changes, and to what. Pure.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from migration_gate.statements.names import (
    TokenReader,
    is_name,
    is_string,
    name_value,
    string_value,
)
from migration_gate.statements.statement import Statement


SettingChange: TypeAlias = tuple[str, str | None, Literal["session", "local", "reset"]]

# gram.y: set_rest, the forms that name no parameter.
_SPECIAL_NAMES: Final = {
    "time zone": "timezone",
    "session authorization": "session_authorization",
    "session characteristics as transaction": "session characteristics",
    "xml option": "xmloption",
    "names": "client_encoding",
    "schema": "search_path",
    "role": "role",
}
_ASSIGNS: Final = frozenset({b"=", b"to", b"."})
_DEFAULTS: Final = (b"default",), (b"local",), ()
CHANGING: Final = frozenset({(b"set",), (b"reset",), (b"select",), (b"discard",)})
_RUNS_NO_CODE: Final = frozenset(
    {b"create", b"alter", b"drop", b"comment", b"grant", b"revoke", b"set", b"reset"}
)
_MAY_CHANGE_DEFAULTS: Final = frozenset(
    {b"role", b"user", b"group", b"database", b"extension", b"system", b"materialized"}
)
_RESETS: Final = frozenset({"standard_conforming_strings", "all"})


def may_change_defaults(statement: Statement) -> bool:
    """
    Tell whether a statement may change the defaults of a role or a database.

    ALTER ROLE and ALTER DATABASE do; what runs functions, triggers or an extension's
    script may.
    """
    first, second = (*statement.tokens[:2], b"", b"")[:2]
    if first in _RUNS_NO_CODE:
        return second in _MAY_CHANGE_DEFAULTS
    return True


def setting_changed(statement: Statement) -> SettingChange | None:
    """
    Return the parameter that a statement sets, its value, and how far that reaches.

    The value is None for DEFAULT and RESET, and where set_config() is not given a
    constant; a list is joined with ", ". RESET ALL has the parameter "all". SET ...
    FROM CURRENT changes nothing; SET TRANSACTION and SET CONSTRAINTS are no settings.
    """
    if statement.tokens[:1] not in CHANGING:
        return None
    reader = TokenReader(statement.tokens)
    if reader.take_words("set"):
        return _read_set(reader)
    if reader.take_words("reset"):
        return _take_parameter(reader), None, "reset"
    if reader.take_any("select set_config (", "select pg_catalog . set_config ("):
        return _read_set_config(reader)
    return None


def string_syntax_set(
    statement: Statement,
) -> Literal["standard", "backslashes", "unknown"] | None:
    """
    Return how unmarked strings are read from the next statement on; None: as before.

    That is what standard_conforming_strings says. Its default is taken to be on.
    """
    if statement.tokens[:1] not in CHANGING:
        return None
    if statement.tokens[:2] == (b"discard", b"all"):
        return "standard"
    change = setting_changed(statement)
    if change is None or change[0] not in _RESETS:
        return None
    _, value, reach = change
    if value is None:
        is_default = reach == "reset" or statement.tokens[0] == b"set"
        return "standard" if is_default else "unknown"
    return "backslashes" if reads_as_off(value) else "standard"


def reads_as_off(value: str) -> bool:
    """Read a boolean as the server does (bool.c: parse_bool_with_len)."""
    text = value.strip().lower()
    return text != "" and (
        "false".startswith(text) or "no".startswith(text) or text in {"of", "off", "0"}
    )


def _read_set(reader: TokenReader) -> SettingChange | None:
    reach: Literal["session", "local"] = "session"
    if reader.peek() == b"local" and reader.peek(1) not in _ASSIGNS:
        reader.take()
        reach = "local"
    elif reader.peek() == b"session" and reader.peek(1) not in (
        _ASSIGNS | {b"authorization", b"characteristics"}
    ):
        reader.take()
    if reader.peek(1) not in _ASSIGNS and reader.take_any("transaction", "constraints"):
        return None
    parameter = _take_parameter(reader)
    if reader.take_words("from current"):
        return None
    reader.take_any("=", "to")
    return parameter, _read_value(reader.rest()), reach


def _take_parameter(reader: TokenReader) -> str:
    for words, parameter in _SPECIAL_NAMES.items():
        if reader.peek(1) not in _ASSIGNS and reader.take_words(words):
            return parameter
    parts = [reader.take_name() or ""]
    while reader.take_words("."):
        parts.append(reader.take_name() or "")
    return ".".join(parts).lower()


def _read_value(tokens: tuple[bytes, ...]) -> str | None:
    if tokens in _DEFAULTS:
        return None
    listed = [""]
    for token in tokens:
        if token == b",":
            listed.append("")
        elif token == b"+":
            continue  # gram.y: NumericOnly leaves it out
        elif not listed[-1] or listed[-1] == "-":
            listed[-1] += _constant(token)
        else:
            listed[-1] += f" {_constant(token)}"
    return ", ".join(listed)


def _constant(token: bytes) -> str:
    if is_string(token):
        return string_value(token)
    return name_value(token) if is_name(token) else token.decode(errors="replace")


def _read_set_config(reader: TokenReader) -> SettingChange | None:
    parameter = reader.take()
    if not is_string(parameter) or not reader.take_words(","):
        return None
    value = string_value(reader.take()) if is_string(reader.peek()) else None
    local = {b"true", b"'t'", b"'true'", b"'on'"}.intersection(reader.rest())
    return string_value(parameter).lower(), value, "local" if local else "session"
