"""
What parameters of other programs mean in a connection string. Pure.

No fault holds a piece of a value.
"""

from __future__ import annotations

import re

from typing import TYPE_CHECKING, Final, NamedTuple

from migration_gate.settings.connection_string import MalformedError
from migration_gate.settings.drivers import (
    NET,
    PASSED_OVER,
    REFUSED,
    RENAMED,
    SESSION,
    TRANSLATED,
)
from migration_gate.settings.libpq import KEYWORDS


if TYPE_CHECKING:
    from collections.abc import Mapping


HISTORY_TABLE: Final = "x-migrations-table"
HISTORY_TABLE_QUOTED: Final = "x-migrations-table-quoted"
_NAMES: Final = frozenset(key.lower() for keys in PASSED_OVER.values() for key in keys)
_BRACKETS: Final = re.compile(r"options\[([A-Za-z_.]+)\]")  # sqlx's
_YES: Final = ("true", "1")
_OFF_OR_VERIFIED: Final = ("disable", "verify-ca", "verify-full")


class Meaning(NamedTuple):
    """
    What such parameters mean.

    ``parameters`` are libpq's, all of them; ``session`` is what is set in each session;
    ``passed_over`` has the names of all others. ``history_table`` is golang-migrate's,
    as GATE_HISTORY_TABLE is written; empty where it is not said.
    """

    parameters: dict[str, str]
    session: dict[str, str]
    passed_over: tuple[str, ...]
    history_table: str


def is_known(key: str) -> bool:
    """Tell whether a parameter is one of those that are understood here."""
    bare = key.lower()
    return (
        bare in _NAMES
        or bare in SESSION
        or bare in RENAMED
        or bare in TRANSLATED
        or bare in REFUSED
        or bare.startswith("x-")
        or _BRACKETS.fullmatch(key) is not None
    )


def understand(
    foreign: Mapping[str, str], own: Mapping[str, str], *, is_jdbc: bool = False
) -> Meaning:
    """
    Return what known parameters mean beside libpq's own, which come first.

    Args:
        foreign: Those that libpq does not know, as they are written.
        own: Those that it knows.
        is_jdbc: That they stand in a URL of JDBC's.

    Raises:
        MalformedError: One would be another login, or a weaker one; or its value is
            none of those that it can have.
    """
    given = {key.lower(): value for key, value in foreign.items()}
    _refuse(given)
    parameters = {
        **{RENAMED[key]: value for key, value in given.items() if key in RENAMED},
        **_translate_all(given, is_jdbc=is_jdbc),
        **own,
    }
    _trust(given, parameters)
    session: dict[str, str] = {}
    passed_over: list[str] = []
    for key, value in foreign.items():
        bare, brackets = key.lower(), _BRACKETS.fullmatch(key)
        if brackets is not None:
            session[brackets[1].lower()] = value
        elif bare in SESSION and (value or bare != "schema"):
            session[SESSION[bare]] = quote(value) if bare == "schema" else value
        elif bare in _NAMES or bare == "schema":
            passed_over.append(key)
        elif bare.startswith("x-") and bare != HISTORY_TABLE:
            passed_over.append("x-…")
    return Meaning(
        parameters=parameters,
        session=session,
        passed_over=tuple(dict.fromkeys(passed_over)),
        history_table=_history_table(given),
    )


def refuse_net(text: str) -> None:
    """
    Refuse what .NET writes, with libpq's words for its own.

    Raises:
        MalformedError: It is that.
    """
    keys = [part.partition("=")[0].strip() for part in text.split(";")]
    if len(keys) == 1 or keys[0] in KEYWORDS or keys[0].lower() not in NET:
        return
    words = [
        f"{key} is {NET[key.lower()]}"
        for key in dict.fromkeys(keys)
        if key.lower() in NET
    ]
    raise MalformedError(
        "is a connection string of .NET, which libpq does not read",
        f"Write key=value pairs with a space between, where {', '.join(words)};"
        " the others are left out. A value that contains white space stands in"
        " single quotes.",
    )


def _refuse(given: Mapping[str, str]) -> None:
    for key, (rule, remedy) in REFUSED.items():
        if key in given:
            raise MalformedError(f"has a parameter {key} that {rule}", remedy)


def _translate_all(given: Mapping[str, str], *, is_jdbc: bool) -> dict[str, str]:
    """Return libpq's words for those of others."""
    found: dict[str, str] = {}
    for key, (keyword, words) in TRANSLATED.items():
        if key not in given:
            continue
        word = words.get(given[key].lower())
        if word is None:
            raise MalformedError(
                f"has a parameter {key} with a word that is not known",
                f"Write {keyword} in its place.",
            )
        # JDBC's verifies the server, which libpq's does not.
        if is_jdbc and key == "ssl" and word == "require":
            word = "verify-full"
        if word:
            found[keyword] = word
    return found


def _trust(given: Mapping[str, str], parameters: dict[str, str]) -> None:
    """Verify the server as Prisma's words and Java's say it, and not less."""
    accepts, factory = given.get("sslaccept", ""), given.get("sslfactory", "")
    if accepts and "sslcert" in parameters and "sslkey" not in parameters:
        # Prisma's is that of the server.
        parameters["sslrootcert"] = parameters.pop("sslcert")
    is_strict = accepts.lower() == "strict"
    if is_strict and parameters["sslmode"] not in _OFF_OR_VERIFIED:
        parameters["sslmode"] = "verify-full"
    of_system = is_strict or factory.endswith("DefaultJavaSSLFactory")
    if of_system and parameters["sslmode"] == "verify-full":
        parameters.setdefault("sslrootcert", "system")


def _history_table(given: Mapping[str, str]) -> str:
    name = given.get(HISTORY_TABLE, "")
    if not name or given.get(HISTORY_TABLE_QUOTED, "").lower() in _YES:
        return name
    return quote(name)


def quote(name: str) -> str:
    """Return a name as it is written where it may be several."""
    doubled = name.replace('"', '""')
    return f'"{doubled}"'
