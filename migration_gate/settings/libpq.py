"""
What libpq knows: its parameters, its variables, and which values it takes. Pure.

Of libpq 18, fe-connect.c; a test compares with the one that is bundled.
"""

from __future__ import annotations

import re

from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Final


if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


PG_VARIABLES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "service": "PGSERVICE",
        "user": "PGUSER",
        "password": "PGPASSWORD",
        "passfile": "PGPASSFILE",
        "channel_binding": "PGCHANNELBINDING",
        "connect_timeout": "PGCONNECT_TIMEOUT",
        "dbname": "PGDATABASE",
        "host": "PGHOST",
        "hostaddr": "PGHOSTADDR",
        "port": "PGPORT",
        "client_encoding": "PGCLIENTENCODING",
        "options": "PGOPTIONS",
        "application_name": "PGAPPNAME",
        "sslmode": "PGSSLMODE",
        "sslnegotiation": "PGSSLNEGOTIATION",
        "sslcompression": "PGSSLCOMPRESSION",
        "sslcert": "PGSSLCERT",
        "sslkey": "PGSSLKEY",
        "sslcertmode": "PGSSLCERTMODE",
        "sslrootcert": "PGSSLROOTCERT",
        "sslcrl": "PGSSLCRL",
        "sslcrldir": "PGSSLCRLDIR",
        "sslsni": "PGSSLSNI",
        "requirepeer": "PGREQUIREPEER",
        "require_auth": "PGREQUIREAUTH",
        "min_protocol_version": "PGMINPROTOCOLVERSION",
        "max_protocol_version": "PGMAXPROTOCOLVERSION",
        "ssl_min_protocol_version": "PGSSLMINPROTOCOLVERSION",
        "ssl_max_protocol_version": "PGSSLMAXPROTOCOLVERSION",
        "gssencmode": "PGGSSENCMODE",
        "krbsrvname": "PGKRBSRVNAME",
        "gsslib": "PGGSSLIB",
        "gssdelegation": "PGGSSDELEGATION",
        "target_session_attrs": "PGTARGETSESSIONATTRS",
        "load_balance_hosts": "PGLOADBALANCEHOSTS",
    }
)

KEYWORDS: Final = frozenset(PG_VARIABLES) | {
    "fallback_application_name",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
    "sslpassword",
    "replication",
    "scram_client_key",
    "scram_server_key",
    "oauth_issuer",
    "oauth_client_id",
    "oauth_client_secret",
    "oauth_scope",
    "sslkeylogfile",
}

_CHOICES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "sslmode": (
            "disable",
            "allow",
            "prefer",
            "require",
            "verify-ca",
            "verify-full",
        ),
        "sslnegotiation": ("postgres", "direct"),
        "sslcertmode": ("disable", "allow", "require"),
        "channel_binding": ("disable", "prefer", "require"),
        "gssencmode": ("disable", "prefer", "require"),
        "target_session_attrs": (
            "any",
            "read-write",
            "read-only",
            "primary",
            "standby",
            "prefer-standby",
        ),
        "load_balance_hosts": ("disable", "random"),
    }
)
_INTEGERS: Final = (
    "connect_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
)
# What libpq says of such a file names it.
_PATHS: Final = ("sslcert", "sslkey", "sslrootcert", "sslcrl")
_INTEGER_MAX: Final = 2**31 - 1
_PORT_MAX: Final = 65535

# isspace() of the C locale, which libpq uses.
SPACE: Final = " \t\n\v\f\r"


# What a template or a manifest means to replace: $(NAME), ${NAME}, ${NAME:-default}.
PLACEHOLDER: Final = (
    r"\$\([A-Za-z_][A-Za-z0-9_.-]*\)|\$\{[A-Za-z_][A-Za-z0-9_]*([:?+-][^{}]*)?\}"
)
NOT_FILLED_IN: Final = "contains a $(…) or ${…} that was not filled in"
IN_QUOTES: Final = "has quotes around it"
SOCKET_ITSELF: Final = "names a socket, not its folder"
FILE_ITSELF: Final = "holds a certificate or a key, not the path of its file"
STRING_ITSELF: Final = "holds a connection string, not a name"
# These may hold any text.
_FREE: Final = frozenset(
    {
        "password",
        "sslpassword",
        "options",
        "scram_client_key",
        "scram_server_key",
        "oauth_client_secret",
    }
)


def broken_rule(keyword: str, text: str) -> str:
    """Return the rule that a parameter's value breaks; empty where it breaks none."""
    if keyword not in _FREE and "$" in text and re.search(PLACEHOLDER, text):
        return NOT_FILLED_IN
    return _RULES[keyword](text) if keyword in _RULES else ""


def _broken_hosts(text: str) -> str:
    hosts = [host for host in text.split(",") if not host.startswith(("/", "@"))]
    if re.search(r"(^|,)[/@][^,]*/\.s\.PGSQL\.\d+(,|$)", text):
        return SOCKET_ITSELF
    return next(
        (
            rule
            for host in hosts
            for pattern, rule in _HOST_RULES
            if re.search(pattern, host)
        ),
        "",
    )


def _broken_ports(text: str) -> str:
    fits = all(
        re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) <= _PORT_MAX
        for port in text.split(",")
        if port
    )
    return "" if fits else f"is not a number from 1 to {_PORT_MAX}"


def _broken_integer(text: str) -> str:
    fits = re.fullmatch("-?[0-9]{1,10}", text) and int(text) <= _INTEGER_MAX
    return "" if fits else "is not a whole number"


def _broken_name(text: str) -> str:
    if re.search(_PAIR_BEHIND_SEMICOLON, text):
        return "contains a semicolon and a key=value pair"
    if re.search(_STRING, text):
        return STRING_ITSELF
    return "" if text == text.strip(SPACE) else "has white space around it"


def _broken_path(text: str) -> str:
    return FILE_ITSELF if text.lstrip().startswith(_PEM) else ""


def _broken_choice(words: tuple[str, ...], text: str) -> str:
    return "" if text in words else f"is not one of {', '.join(words)}"


# As in a connection string of .NET; what is shown of a connection would show the rest.
_PAIR_BEHIND_SEMICOLON: Final = r";\s*[\w ]*="
_STRING: Final = r"://.*@|\b(?i:password)\s*="
# The first line of a file of PEM, and the same in base64.
_PEM: Final = ("-----BEGIN", "LS0tLS1CRUdJTi")
_HOST_RULES: Final = (
    (r"""^["'`]|["'`]$""", IN_QUOTES),
    ("://", "is a URL"),
    (_PAIR_BEHIND_SEMICOLON, "contains a semicolon and a key=value pair"),
    ("[@/]", 'contains an "@" or a "/"'),
    (r"\s", "contains white space"),
    (r"^\[", "has brackets around it"),
    ("^[^:]*:[^:]*$", "contains a port"),
)
_RULES: Final[Mapping[str, Callable[[str], str]]] = MappingProxyType(
    {
        "host": _broken_hosts,
        "port": _broken_ports,
        "user": _broken_name,
        "dbname": _broken_name,
        **dict.fromkeys(_INTEGERS, _broken_integer),
        **dict.fromkeys(_PATHS, _broken_path),
        **{key: partial(_broken_choice, words) for key, words in _CHOICES.items()},
    }
)
