"""
What is wrong with the parameters of a connection, before anybody connects. Pure.

No fault holds a piece of a value.
"""

from __future__ import annotations

import re

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from migration_gate.settings.connection_string import ENCODE, FORM, QUOTING
from migration_gate.settings.libpq import (
    FILE_ITSELF,
    IN_QUOTES,
    NOT_FILLED_IN,
    PLACEHOLDER,
    SOCKET_ITSELF,
    STRING_ITSELF,
    broken_rule,
)
from migration_gate.settings.reading import FILL_IN, Reading
from migration_gate.settings.sources import Login, Way


if TYPE_CHECKING:
    from collections.abc import Mapping


# A token is a password in clear text: whoever gets it can log in with it.
TOKEN_SSL_MODES: Final = ("require", "verify-ca", "verify-full")
_HOST_ALONE: Final = (
    "Write the name or address alone; a port has its own setting,"
    " a URL belongs in DATABASE_URL."
)
TOO_WEAK: Final = "is too weak for a token, which is a password in clear text"
_WHICH_ROLE: Final = "Say which role the gate logs in as."
PARTS: Final[Mapping[str, str]] = MappingProxyType(
    {"host": "host", "port": "port", "user": "user", "dbname": "database"}
)
_REMEDIES: Final[Mapping[str, str]] = MappingProxyType(
    {
        TOO_WEAK: "Take it out: the server is verified then. Where its certificate is "
        "signed by no public root, mount that root and name it in PGSSLROOTCERT; or "
        "say require, which encrypts and verifies nothing.",
        NOT_FILLED_IN: FILL_IN,
        IN_QUOTES: "Remove the quotes.",
        FILE_ITSELF: "Name the file that it is in, by the variable without _FILE.",
        STRING_ITSELF: "Write the name alone; all of it belongs in DATABASE_URL.",
        SOCKET_ITSELF: "Name the folder that it is in; the port gives it its name.",
    }
)


def find_fault(reading: Reading, way: Way) -> None:
    """Add the faults of the values, and of what is missing."""
    for keyword, text in reading.parameters.items():
        rule = broken_rule(keyword, text)
        if rule:
            _add_value_fault(reading, keyword, rule)
    url = "" if reading.url is None else reading.url.setting
    for name, text in reading.beside.session.items():
        if "$" in text and re.search(PLACEHOLDER, text):
            fault = f"has a parameter {name} that {NOT_FILLED_IN}"
            reading.fault(url, fault, FILL_IN)
    _require_equal_counts(reading)
    # libpq knows a user of its own: the system's, or the service's.
    if way == "PG" or "service" in reading.origins:
        return
    if way == "POSTGRES_HOST":
        name, rule = "POSTGRES_USER", "is not set"
    else:
        name, rule = url, "has no user"
        if not _is_given(reading, "host") and not _is_given(reading, "hostaddr"):
            reading.fault(name, "has no host", FORM)
    if not _is_given(reading, "user"):
        reading.fault(name, rule, _WHICH_ROLE)


def find_login_fault(reading: Reading, way: Way, login: Login) -> None:
    """Add the faults of what does not go with a token for a password."""
    name = f"GATE_LOGIN={login}"
    passwords = [
        reading.sources[variable].setting
        for variable in ("POSTGRES_PASSWORD", "PGPASSWORD")
        if variable in reading.sources
    ]
    if "password" in reading.origins or passwords:
        origin = reading.origins.get("password") or passwords[0]
        reading.fault(
            origin,
            f"holds a password, and {name} logs in without one",
            "Keep one of the two.",
        )
    if "service" in reading.origins:
        reading.fault(
            reading.origins["service"],
            f"names a service, which only libpq reads, beside {name}",
            "Name host, user and database in DATABASE_URL or POSTGRES_HOST.",
        )
    elif way == "PG" and not _is_given(reading, "user"):
        reading.fault("PGUSER", "is not set", _WHICH_ROLE)
    mode = reading.parameters.get("sslmode")
    if mode is not None and mode not in TOKEN_SSL_MODES:
        _add_value_fault(reading, "sslmode", TOO_WEAK)
    hosts = reading.parameters.get("host", "").split(",")
    is_unread = "host" in reading.origins and "host" not in reading.parameters
    are_names = all(host.strip("/@") == host != "" for host in hosts)
    if login == "aws" and not (are_names or is_unread):
        reading.fault(
            reading.origins.get("host", "PGHOST"),
            "names no host, and AWS signs the host's name into the token",
            "Name the endpoint of the instance, the cluster or the proxy.",
        )


def complete_tls(reading: Reading) -> None:
    """Verify the server, by the system's roots, where nothing else is said."""
    if "sslmode" not in reading.origins:
        reading.parameters["sslmode"] = "verify-full"
    verifies = reading.parameters.get("sslmode") == "verify-full"
    if verifies and "sslrootcert" not in reading.origins:
        reading.parameters["sslrootcert"] = "system"


def _is_given(reading: Reading, keyword: str) -> bool:
    """Tell whether a value is there: read and not empty, or not read yet."""
    return keyword in reading.origins and reading.parameters.get(keyword) != ""


def _add_value_fault(reading: Reading, keyword: str, rule: str) -> None:
    origin = reading.origins[keyword]
    remedy = _HOST_ALONE if keyword == "host" else ""
    if reading.url is not None and origin == reading.url.setting:
        part = PARTS.get(keyword, f"parameter {keyword}")
        remedy = ENCODE if keyword in ("host", "port") else ""
        remedy = QUOTING if "semicolon" in rule else remedy
        if keyword == "port" and ":" in reading.parameters["port"]:
            reading.fault(origin, *_colons_in_host(reading.parameters))
            return
        fault = f"has a {part} that {rule}"
    else:
        fault = rule
    reading.fault(origin, fault, _REMEDIES.get(rule, remedy))


def _colons_in_host(parameters: Mapping[str, str]) -> tuple[str, str]:
    """Return rule and remedy for a host of a URL that was cut at a colon of its own."""
    if parameters.get("host", "").startswith("/"):
        return (
            'has a ":" in the folder of its socket',
            "Write it as %3A, or the folder as ?host=/folder.",
        )
    return (
        "has an IPv6 address without brackets, or two ports",
        f"Write an IPv6 address as [address]. {ENCODE}",
    )


def _require_equal_counts(reading: Reading) -> None:
    """Refuse lists of hosts and ports that do not fit, as libpq does."""
    if "service" in reading.origins or any(
        keyword in reading.origins and keyword not in reading.parameters
        for keyword in ("hostaddr", "host")
    ):
        return
    counts = {
        keyword: len(reading.parameters[keyword].split(","))
        for keyword in ("hostaddr", "host", "port")
        if reading.parameters.get(keyword)
    }
    ports = counts.pop("port", 1)
    hosts = next(iter(counts.values()), 1)
    if len(set(counts.values())) > 1:
        reading.fault(
            reading.origins["hostaddr"],
            "lists another number of addresses than there are hosts",
            "List one address for each host.",
        )
    if ports not in (1, hosts):
        reading.fault(
            reading.origins["port"],
            "lists another number of ports than there are hosts",
            "List one port for all hosts, or one for each.",
        )
