"""
A connection string, taken apart by libpq's rules. Pure.

libpq's own parse errors quote the string, so the gate reads it before libpq does, and
understands what other programs' URLs have beyond libpq's. No error holds a piece of it.
"""

from __future__ import annotations

import re

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

from migration_gate.settings.libpq import KEYWORDS, SPACE
from migration_gate.settings.spelling import closest


# Whose URL it is, where that decides what it means.
Form = Literal["libpq", "jdbc", "sqlalchemy"]
# libpq's, then Ecto's, Laravel's, Doctrine's, django-environ's and GeoDjango's.
_SCHEMES: Final = (
    *("postgres", "postgresql"),
    *("ecto", "pgsql", "pdo-pgsql", "psql", "postgis"),
)
_JDBC: Final = "jdbc:"
_FOREIGN_SCHEMES: Final = (
    "cockroachdb",
    "file",
    "http",
    "https",
    "jdbc",
    "mariadb",
    "mongodb",
    "mssql",
    "mysql",
    "oracle",
    "prisma",
    "redis",
    "sqlite",
    "sqlserver",
    "tcp",
)
_FOREIGN_KEYWORDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "database": "dbname",
        "databasename": "dbname",
        "db": "dbname",
        "hostname": "host",
        "pass": "password",
        "passwd": "password",
        "pwd": "password",
        "server": "host",
        "ssl_mode": "sslmode",
        "uid": "user",
        "user_name": "user",
        "username": "user",
    }
)
# What follows such a key in a connection string may be a piece of its value.
_SECRET_WORDS: Final = ("pass", "pwd", "secret", "token", "key")
ENCODE: Final = (
    "Percent-encode the password (@ is %40, / is %2F, % is %25),"
    " or give it in POSTGRES_PASSWORD."
)
FORM: Final = "Write postgresql://user@host:5432/database."
QUOTING: Final = (
    "Separate key=value pairs by white space, not semicolons,"
    " and put a value that contains white space in single quotes."
)
_QUOTES: Final = ('"', "'", "`")


class ConnectionString(NamedTuple):
    """
    A connection string: libpq's parameters, and what other programs' mean.

    ``session`` is what is set in each session; ``passed_over`` are the names of what
    says nothing to the gate; ``history_table`` is golang-migrate's, if it is said.
    """

    parameters: dict[str, str]
    session: Mapping[str, str] = MappingProxyType({})
    passed_over: tuple[str, ...] = ()
    history_table: str = ""


def parse_connection_string(text: str) -> ConnectionString:
    """
    Parse a libpq URI or key=value string into libpq's keywords and values.

    What libpq refuses is refused, but for what other programs' URLs have; and a few
    things that it takes as something nobody meant: white space in a URI, an ``@`` or
    ``/`` in its host or database.

    Raises:
        MalformedError: names the part and the remedy, never a piece of the text.
    """
    bare = text.strip(SPACE)
    if bare.startswith(_QUOTES):
        raise MalformedError("has quotes around it", "Remove the quotes.")
    is_jdbc = bare.startswith(f"{_JDBC}postgresql:")
    bare = bare.removeprefix(_JDBC) if is_jdbc else bare
    scheme = re.match(r"([A-Za-z][A-Za-z0-9.-]*)(\+[A-Za-z0-9_.+-]*)?:", bare)
    if scheme is None:
        return _parse_pairs(text)
    after_scheme = bare[scheme.end() :]
    if scheme[1] not in _SCHEMES or not after_scheme.startswith("//"):
        raise _wrong_scheme(scheme[1].lower(), after_scheme)
    _refuse_wrapping(text)
    form: Form = "jdbc" if is_jdbc else "sqlalchemy" if scheme[2] else "libpq"
    found = _parse_uri(after_scheme.removeprefix("//"), form)
    return _part_ports(found) if form == "sqlalchemy" else found


class MalformedError(ValueError):
    """
    A value that cannot be used: the rule it breaks, the remedy.

    ``may_come`` tells of a file that somebody may write yet.
    """

    def __init__(self, rule: str, remedy: str, *, may_come: bool = False) -> None:
        super().__init__(rule)
        self.rule = rule
        self.remedy = remedy
        self.may_come = may_come


def _wrong_scheme(scheme: str, after_scheme: str) -> MalformedError:
    if scheme in _SCHEMES:
        if after_scheme.startswith("//"):
            return MalformedError("has a scheme in upper case", FORM)
        return MalformedError('has no "//" after its scheme', FORM)
    is_url = scheme == "jdbc" or after_scheme.startswith("//")
    if is_url and scheme in _FOREIGN_SCHEMES:
        return MalformedError(f'has the scheme "{scheme}", not "postgresql"', FORM)
    if after_scheme.startswith("//"):
        return MalformedError('has a scheme other than "postgresql"', FORM)
    return MalformedError(
        'does not begin with "postgresql://" and is no key=value string', FORM
    )


def _refuse_wrapping(uri: str) -> None:
    if uri != uri.strip(SPACE):
        raise MalformedError(
            "has white space around it", "Remove it; mind a newline at the end."
        )
    if uri.endswith(_QUOTES):
        raise MalformedError("has a quote at its end", "Remove the quotes.")
    if any(character in SPACE for character in uri):
        raise MalformedError(
            "contains white space", f"Percent-encode a space as %20. {ENCODE}"
        )


def _parse_uri(rest: str, form: Form) -> ConnectionString:
    """Parse what follows the two slashes (fe-connect.c, conninfo_uri_parse_options)."""
    parameters: dict[str, str] = {}
    if "@" in rest.partition("/")[0]:
        credentials, _, rest = rest.partition("@")
        user, _, password = credentials.partition(":")
        _store(parameters, "user", user)
        _store(parameters, "password", password)
    hosts, ports, rest = _cut_hosts(rest)
    path, _, query = rest.partition("?")
    if path.count("/") > 1 or "@" in path:
        raise MalformedError(
            'has an "@" or a "/" in its database, perhaps of the password', ENCODE
        )
    _store(parameters, "host", hosts)
    _store(parameters, "port", ports)
    _store(parameters, "dbname", path.removeprefix("/"))
    own, foreign = _parse_query(query, form)
    parameters.update(own)
    return _understand(parameters, foreign, is_jdbc=form == "jdbc")


def _understand(
    own: dict[str, str], foreign: dict[str, str], *, is_jdbc: bool = False
) -> ConnectionString:
    """Add what parameters mean that libpq does not know."""
    if not foreign:
        return ConnectionString(own)
    from migration_gate.settings.understanding import (  # noqa: PLC0415  # rarely needed
        understand,
    )

    meaning = understand(foreign, own, is_jdbc=is_jdbc)
    return ConnectionString(*meaning)


def _is_foreign(key: str) -> bool:
    """Tell a parameter that another program is known to have."""
    from migration_gate.settings.understanding import (  # noqa: PLC0415  # rarely needed
        is_known,
    )

    return is_known(key)


def _part_ports(found: ConnectionString) -> ConnectionString:
    """Take hosts apart as SQLAlchemy writes several of them: ?host=a:1&host=b:2."""
    hosts = found.parameters.get("host", "").split(",")
    if not any(re.fullmatch("[^:/]+:[0-9]+", host) for host in hosts):
        return found
    parted = [host.partition(":") for host in hosts]
    found.parameters["host"] = ",".join(host for host, _, _ in parted)
    found.parameters["port"] = ",".join(port for _, _, port in parted)
    return found


def _store(parameters: dict[str, str], keyword: str, text: str) -> None:
    if text:
        parameters[keyword] = _percent_decode(text, keyword)


def _cut_hosts(rest: str) -> tuple[str, str, str]:
    """Return hosts and ports as comma lists, and what follows them."""
    if "@" in re.split("[/?]", rest, maxsplit=1)[0]:
        raise MalformedError('has two "@" before its path', ENCODE)
    hosts, ports = [], []
    while True:
        host, rest = _cut_host(rest)
        port, rest = _cut(rest[1:], "/?,") if rest.startswith(":") else ("", rest)
        hosts.append(host)
        ports.append(port)
        if not rest.startswith(","):
            return ",".join(hosts), ",".join(ports), rest
        rest = rest[1:]


def _cut_host(rest: str) -> tuple[str, str]:
    if not rest.startswith("["):
        return _cut(rest, ":/?,")
    address, bracket, rest = rest[1:].partition("]")
    if not bracket or not address or rest[:1] not in ("", ":", "/", "?", ","):
        raise MalformedError(
            "has an IPv6 address that is not written as [address]", ENCODE
        )
    return address, rest


def _cut(text: str, stops: str) -> tuple[str, str]:
    head = re.split(f"[{stops}]", text, maxsplit=1)[0]
    return head, text[len(head) :]


def _percent_decode(text: str, part: str) -> str:
    """Decode as libpq does: "+" stays, and every "%" has to begin an escape."""
    if re.search("%(?![0-9A-Fa-f]{2})", text):
        raise MalformedError(
            f'has a "%" in its {part} that two hexadecimal digits do not follow',
            ENCODE,
        )
    octets = re.sub(
        rb"%(..)", lambda escape: bytes.fromhex(escape[1].decode()), text.encode()
    )
    if b"\0" in octets:
        raise MalformedError(f"has a %00 in its {part}", "Remove it.")
    try:
        return octets.decode()
    except UnicodeDecodeError:
        pass
    raise MalformedError(
        f"has percent escapes in its {part} that are not UTF-8",
        "Percent-encode the UTF-8 form of the text.",
    )


def _parse_query(query: str, form: Form) -> tuple[dict[str, str], dict[str, str]]:
    """Return libpq's parameters, and those of other programs."""
    own: dict[str, str] = {}
    foreign: dict[str, str] = {}
    unknown = []
    hidden = False
    pairs = query.removesuffix("&").split("&") if query else []
    if form == "jdbc":
        pairs = list(map(_as_libpqs, filter(None, pairs)))
    for ordinal, pair in enumerate(pairs, start=1):
        key, value = _parse_parameter(pair, ordinal)
        if key == "host" and key in own and form == "sqlalchemy":
            own[key] += f",{value}"  # of several; for libpq the last one counts
        elif key in KEYWORDS:
            own[key] = value
        elif _is_foreign(key):
            foreign[key] = value
        else:
            at_behind = "@" in "&".join(pairs[ordinal - 1 :])
            unknown.append(_name_key(key, ordinal, hidden=hidden or at_behind))
        hidden = hidden or any(word in key.lower() for word in _SECRET_WORDS)
    if unknown:
        raise MalformedError(
            f"has parameters that are not known: {', '.join(unknown)}",
            "Check how they are written, or take them out.",
        )
    return own, foreign


def _as_libpqs(pair: str) -> str:
    """Write a parameter of JDBC's as libpq has it: there a value may have a "="."""
    key, sign, value = pair.replace("+", " ").partition("=")
    if key == "ssl" and not value:
        return "ssl=true"
    return f"{key}{sign}{value.replace('=', '%3D')}"


def _parse_parameter(pair: str, ordinal: int) -> tuple[str, str]:
    if pair.count("=") != 1:
        more = 'Write a "=" inside a value as %3D. ' if "=" in pair else ""
        raise MalformedError(
            f'does not have exactly one "=" in its {_ordinal(ordinal)} parameter',
            f"{more}{ENCODE}",
        )
    key, value = (_percent_decode(side, "parameters") for side in pair.split("="))
    return _translate(key, value)


def _translate(key: str, value: str) -> tuple[str, str]:
    # An old spelling: fe-connect.c, conninfo_storeval.
    if key == "requiressl":
        return "sslmode", "require" if value.startswith("1") else "prefer"
    # node-postgres' word: encrypted, and not verified.
    if (key, value) == ("sslmode", "no-verify"):
        return key, "require"
    return key, value


def _name_key(key: str, ordinal: int, *, hidden: bool) -> str:
    """Name an unknown parameter, by its ordinal where it may be a piece of a secret."""
    if hidden or not re.fullmatch("[A-Za-z][A-Za-z0-9_.-]{0,39}", key):
        return f"the {_ordinal(ordinal)}"
    return f'"{key}"'


def _parse_pairs(text: str) -> ConnectionString:
    """Parse a key=value string (fe-connect.c, conninfo_parse)."""
    if "=" not in text:
        raise MalformedError("is neither a URL nor a key=value string", FORM)
    if ";" in text:
        from migration_gate.settings.understanding import (  # noqa: PLC0415  # rarely needed
            refuse_net,
        )

        refuse_net(text)
    own: dict[str, str] = {}
    foreign: dict[str, str] = {}
    unknown = []
    for ordinal, (key, value) in enumerate(_each_pair(text), start=1):
        if key in KEYWORDS:
            own[key] = value
        elif _is_foreign(key):
            foreign[key] = value
        else:
            unknown.append(_name_foreign(key, ordinal))
    if unknown:
        raise MalformedError(
            f"has keywords that are not known: {', '.join(unknown)}",
            QUOTING,
        )
    return _understand(own, foreign)


def _each_pair(text: str) -> Iterator[tuple[str, str]]:
    at, ordinal = 0, 0
    while text[at:].strip(SPACE):
        ordinal += 1
        key, value, at = _next_pair(text, at, ordinal)
        yield _translate(key, value)


def _next_pair(text: str, at: int, ordinal: int) -> tuple[str, str, int]:
    key = re.compile(r"\s*([^=\s]*)\s*=\s*", re.ASCII).match(text, at)
    if key is None:
        raise MalformedError(
            f'has no "=" in its {_ordinal(ordinal)} key=value pair',
            QUOTING,
        )
    quoted = text[key.end() : key.end() + 1] == "'"
    pattern = r"'((?:[^'\\]|\\.)*)'" if quoted else r"((?:[^\s\\]|\\.|\\\Z)*)"
    value = re.compile(pattern, re.ASCII | re.DOTALL).match(text, key.end())
    if value is None:
        raise MalformedError(
            "has a single quote that is not closed",
            r"Write a quote or backslash inside a value as \' or \\.",
        )
    plain = re.sub(r"\\(.?)", r"\1", value[1], flags=re.DOTALL)
    return key[1], plain, value.end()


def _name_foreign(key: str, ordinal: int) -> str:
    meant = _FOREIGN_KEYWORDS.get(key.lower()) or closest(key, sorted(KEYWORDS))
    if meant is None:
        return f"the {_ordinal(ordinal)}"
    return f"the {_ordinal(ordinal)} (libpq's word is {meant})"


def _ordinal(number: int) -> str:
    words = ("first", "second", "third", "fourth", "fifth")
    return words[number - 1] if number <= len(words) else f"{number}th"
