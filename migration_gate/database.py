"""
Which database, and what libpq is told about it. Pure.

environ ──database_settings──▶ DatabaseSettings     at the start, inline values judged
DatabaseSettings ──connection_parameters──▶ {keyword: value}     at each attempt

A ``Source`` is one setting, its value or the file that holds it; which of them is used
is decided by one order: the way in use, then libpq's own variables for what it leaves
open, as they do for psql. A value that is not used is not judged.

The connection string is parsed here, by the rules of libpq (fe-connect.c), because
libpq's own parse errors quote the value. No fault holds a piece of a value.
"""

from __future__ import annotations

import re

from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal

from migration_gate.errors import SettingFault, SettingsError


if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping


Way = Literal["DATABASE_URL", "POSTGRES_HOST", "PG"]

POSTGRES_VARIABLES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "host": "POSTGRES_HOST",
        "port": "POSTGRES_PORT",
        "user": "POSTGRES_USER",
        "password": "POSTGRES_PASSWORD",
        "dbname": "POSTGRES_DB",
        "sslmode": "POSTGRES_SSL_MODE",
    }
)

# libpq 18: fe-connect.c, PQconninfoOptions; a test compares.
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
_INTEGER_MAX: Final = 2**31 - 1
_PORT_MAX: Final = 65535

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
    "pgsql",
    "postgis",
    "prisma",
    "psql",
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
        "ssl": "sslmode",
        "ssl_mode": "sslmode",
        "timeout": "connect_timeout",
        "uid": "user",
        "user_name": "user",
        "username": "user",
    }
)
_POSTGRES_ALIASES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "POSTGRES_DATABASE": "POSTGRES_DB",
        "POSTGRES_DATABASE_NAME": "POSTGRES_DB",
        "POSTGRES_DBNAME": "POSTGRES_DB",
        "POSTGRES_DB_NAME": "POSTGRES_DB",
        "POSTGRES_NAME": "POSTGRES_DB",
        "POSTGRES_USERNAME": "POSTGRES_USER",
        "POSTGRES_USER_NAME": "POSTGRES_USER",
        "POSTGRES_PASS": "POSTGRES_PASSWORD",
        "POSTGRES_PASSWD": "POSTGRES_PASSWORD",
        "POSTGRES_PWD": "POSTGRES_PASSWORD",
        "POSTGRES_SSLMODE": "POSTGRES_SSL_MODE",
    }
)
_WAY_ALIASES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "DATABASE_URI": "DATABASE_URL",
        "DB_URL": "DATABASE_URL",
        "PG_URL": "DATABASE_URL",
        "POSTGRES_URI": "DATABASE_URL",
        "POSTGRES_URL": "DATABASE_URL",
        "POSTGRESQL_URL": "DATABASE_URL",
        "POSTGRES_HOSTNAME": "POSTGRES_HOST",
        "POSTGRES_SERVER": "POSTGRES_HOST",
        "POSTGRESQL_HOST": "POSTGRES_HOST",
        "PG_HOST": "PGHOST",
    }
)
# What follows such a key in a connection string may be a piece of its value.
_SECRET_KEY: Final = re.compile("pass|pwd|secret|token|key", re.IGNORECASE)

_ENCODE: Final = (
    "Percent-encode the password (@ is %40, / is %2F, % is %25),"
    " or give it in POSTGRES_PASSWORD."
)
_FORM: Final = "Write postgresql://user@host:5432/database."
_HOST_ALONE: Final = (
    "Write the name or address alone; a port has its own setting,"
    " a URL belongs in DATABASE_URL."
)
_QUOTING: Final = (
    "Separate key=value pairs by white space, not semicolons,"
    " and put a value that contains white space in single quotes."
)
_READABLE: Final = (
    "The gate does not run as root: make the file readable for its user"
    " (Compose does not apply uid, gid and mode to file secrets: mode 0444 on the host;"
    " Kubernetes: defaultMode or fsGroup)."
)
_MOUNT: Final = "Check the path and the mount."

# isspace() of the C locale, which libpq uses.
_SPACE: Final = " \t\n\v\f\r"
_QUOTES: Final = ('"', "'", "`")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """
    One setting: its value, or the path of the file that holds it.

    Both are set when the environment gives both, which is a fault once it is used.
    The path is not shown either: a secret is sometimes put there by mistake.
    """

    name: str
    value: str | None = field(default=None, repr=False)
    file: str | None = field(default=None, repr=False)

    @property
    def setting(self) -> str:
        """The variable that a fault names."""
        return f"{self.name}_FILE" if self.value is None else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseSettings:
    """The way in use, its settings, and the libpq variables that may fill in."""

    way: Way
    sources: tuple[Source, ...]


def database_settings(
    environ: Mapping[str, str],
) -> tuple[DatabaseSettings | None, list[SettingFault]]:
    """
    Find which database the environment names, and judge all that needs no file.

    None when the environment names none; then the one fault says so.
    """
    way = _way(environ)
    if way is None:
        return None, [_no_database(environ)]
    database = DatabaseSettings(way=way, sources=tuple(_sources(environ, way)))
    reading = _read(database, None)
    return database, reading.faults + _postgres_slips(environ, database)


def connection_parameters(
    database: DatabaseSettings, read_file: Callable[[str], str]
) -> dict[str, str]:
    """
    Return libpq's parameters, files read anew: ready for ``psycopg.connect``.

    Where a service is in use, libpq's variables are left to libpq, because a service
    comes before them; only what their ``_FILE`` forms hold is passed.

    Raises:
        SettingsError: a file or a value cannot be used. Lists all of them.
    """
    reading = _read(database, read_file)
    if reading.faults:
        raise SettingsError(reading.faults)
    return reading.parameters


def shown(parameters: Mapping[str, str]) -> dict[str, str | None]:
    """
    Return all that may be shown of a connection.

    None is what only libpq knows: a service's values, the user of the system.
    """
    user = parameters.get("user") or None
    of_service = "service" in parameters
    return {
        "host": parameters.get("host") or parameters.get("hostaddr") or None,
        "port": parameters.get("port") or (None if of_service else "5432"),
        "database": parameters.get("dbname") or (None if of_service else user),
        "user": user,
    }


def empty_variables(environ: Mapping[str, str]) -> tuple[str, ...]:
    """
    Return libpq's variables that are set to nothing.

    The gate takes empty as unset; libpq takes it as a value, and it or the server
    refuses some (``PGSSLMODE=``, ``PGTZ=``), so they have to leave the process
    environment before libpq looks there.
    """
    return tuple(
        sorted(name for name in environ if name[:2] == "PG" and not environ[name])
    )


def closest(word: str, known: Iterable[str]) -> str | None:
    """
    Return the known word that ``word`` is a slip of the pen away from.

    Case does not count; a short word allows one slip, a longer one two.
    """
    slips = {
        name: _slips_between(word.upper(), name.upper())
        for name in known
        if abs(len(word) - len(name)) <= _allowed_slips(name)
    }
    near = [name for name, count in slips.items() if count <= _allowed_slips(name)]
    return min(near, key=lambda name: slips[name], default=None)


def is_service_link(name: str, value: str) -> bool:
    """Tell whether Kubernetes made this variable for a Service."""
    return bool(
        value.startswith(("tcp://", "udp://", "sctp://"))
        or re.search(r"_SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)$", name)
        or re.search(r"_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$", name)
    )


def parse_connection_string(text: str) -> dict[str, str]:
    """
    Parse a libpq URI or key=value string into libpq's keywords and values.

    What libpq refuses is refused, and a few things that it takes as something nobody
    meant: white space in a URI, an ``@`` or ``/`` in its host or database.

    Raises:
        MalformedError: names the part and the remedy, never a piece of the text.
    """
    bare = text.strip(_SPACE)
    if bare.startswith(_QUOTES):
        raise MalformedError("has quotes around it", "Remove the quotes.")
    scheme = re.match(r"([A-Za-z][A-Za-z0-9.-]*)(\+[A-Za-z0-9_.+-]*)?:", bare)
    if scheme is None:
        return dict(_parse_pairs(text))
    after_scheme = bare[scheme.end() :]
    if scheme[1] not in ("postgres", "postgresql") or not after_scheme.startswith("//"):
        raise _wrong_scheme(scheme[1].lower(), after_scheme)
    _refuse_wrapping(text)
    return _parse_uri(after_scheme.removeprefix("//"))


class MalformedError(ValueError):
    """A connection string that cannot be used: the rule it breaks, the remedy."""

    def __init__(self, rule: str, remedy: str) -> None:
        super().__init__(rule)
        self.rule = rule
        self.remedy = remedy


def _is_set(environ: Mapping[str, str], name: str) -> bool:
    return bool(environ.get(name) or environ.get(f"{name}_FILE"))


def _way(environ: Mapping[str, str]) -> Way | None:
    if _is_set(environ, "DATABASE_URL"):
        return "DATABASE_URL"
    if _is_set(environ, "POSTGRES_HOST"):
        return "POSTGRES_HOST"
    if any(_is_set(environ, name) for name in ("PGHOST", "PGHOSTADDR", "PGSERVICE")):
        return "PG"
    return None


def _no_database(environ: Mapping[str, str]) -> SettingFault:
    meant = [
        f"{name} is set: did you mean {proper}?"
        for name, proper in _WAY_ALIASES.items()
        if environ.get(name)
    ]
    return SettingFault(
        name="DATABASE_URL, POSTGRES_HOST or PGHOST",
        rule="must be set",
        remedy=" ".join(meant) or "Name the database in one of the three.",
    )


def _sources(environ: Mapping[str, str], way: Way) -> Iterator[Source]:
    own: tuple[str, ...] = ()
    if way == "DATABASE_URL":
        own = ("DATABASE_URL", "POSTGRES_PASSWORD")
    elif way == "POSTGRES_HOST":
        own = tuple(POSTGRES_VARIABLES.values())
    for name in (*own, *PG_VARIABLES.values()):
        value = environ.get(name) or None
        file = environ.get(f"{name}_FILE") or None
        if name == "POSTGRES_PORT" and value and is_service_link(name, value):
            value = None if file else "5432"
        if value or file:
            yield Source(name=name, value=value, file=file)


def _postgres_slips(
    environ: Mapping[str, str], database: DatabaseSettings
) -> list[SettingFault]:
    """Name POSTGRES_ variables that stand where a setting is missing."""
    if database.way != "POSTGRES_HOST":
        return []
    given = {source.name for source in database.sources}
    missing = [
        name
        for keyword, name in POSTGRES_VARIABLES.items()
        if not given & {name, PG_VARIABLES[keyword]}
    ]
    faults = []
    for name in sorted(environ):
        meant = _meant_variable(name.removesuffix("_FILE"), missing)
        if meant and environ[name] and not is_service_link(name, environ[name]):
            faults.append(
                SettingFault(
                    name=name,
                    rule="is not a setting",
                    remedy=f"Did you mean {meant}?",
                )
            )
    return faults


def _meant_variable(name: str, missing: list[str]) -> str | None:
    prefix = "POSTGRES_"
    if not name.startswith(prefix) or name in POSTGRES_VARIABLES.values():
        return None
    alias = _POSTGRES_ALIASES.get(name)
    if alias is None:
        bare = closest(
            name.removeprefix(prefix), [m.removeprefix(prefix) for m in missing]
        )
        return f"{prefix}{bare}" if bare else None
    return alias if alias in missing else None


class _Reading:
    """The parameters found so far, where each came from, and the faults met."""

    def __init__(
        self, sources: Iterable[Source], read_file: Callable[[str], str] | None
    ) -> None:
        self.sources = {source.name: source for source in sources}
        self.read_file = read_file
        self.parameters: dict[str, str] = {}
        # Keywords that are given, whether or not their value could be read.
        self.origins: dict[str, str] = {}
        self.faults: list[SettingFault] = []

    def text(self, source: Source) -> str | None:
        """Return the value; None after a fault, or when no file may be read yet."""
        unread = source.value is None and self.read_file is None
        try:
            return None if unread else _source_text(source, self.read_file)
        except MalformedError as malformed:
            self.fault(source.setting, malformed.rule, malformed.remedy)
            return None

    def fault(self, name: str, rule: str, remedy: str) -> None:
        self.faults.append(SettingFault(name=name, rule=rule, remedy=remedy))

    def fill_in(self, keyword: str, name: str, *, only_file: bool = False) -> None:
        """Take a setting for what is still open."""
        source = self.sources.get(name)
        if source is None or keyword in self.origins:
            return
        if only_file and source.file is None:
            return
        self.origins[keyword] = source.setting
        text = self.text(source)
        if text is not None:
            self.parameters[keyword] = text

    def take_connection_string(self) -> bool:
        """Take DATABASE_URL apart; False when its content is not known."""
        source = self.sources["DATABASE_URL"]
        text = self.text(source)
        if text is None:
            return False
        try:
            self.parameters = parse_connection_string(text)
        except MalformedError as malformed:
            self.fault(source.setting, malformed.rule, malformed.remedy)
            return False
        if not self.parameters.get("password"):
            self.parameters.pop("password", None)
        self.origins = dict.fromkeys(self.parameters, source.setting)
        return True


def _read(
    database: DatabaseSettings, read_file: Callable[[str], str] | None
) -> _Reading:
    reading = _Reading(database.sources, read_file)
    if database.way == "DATABASE_URL":
        if not reading.take_connection_string():
            return reading
        reading.fill_in("password", "POSTGRES_PASSWORD")
    elif database.way == "POSTGRES_HOST":
        for keyword, name in POSTGRES_VARIABLES.items():
            reading.fill_in(keyword, name)
    # A service comes before libpq's variables, which libpq then reads itself.
    reading.fill_in("service", "PGSERVICE")
    of_service = "service" in reading.origins
    for keyword, name in PG_VARIABLES.items():
        reading.fill_in(keyword, name, only_file=of_service)
    _judge(reading, database.way)
    return reading


def _source_text(source: Source, read_file: Callable[[str], str] | None) -> str:
    if source.value is not None and source.file is not None:
        raise MalformedError(
            f"is set together with {source.name}_FILE", "Keep one of the two."
        )
    if source.file is not None and read_file is not None:
        text = _file_text(source.file, read_file)
    else:
        text = source.value or ""
    if "\0" in text:
        raise MalformedError("contains a NUL character", "Remove it.")
    # A surrogate is what Python makes of a byte that is not UTF-8.
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise MalformedError("is not UTF-8 text", "Write it in UTF-8.")
    return text


def _file_text(file: str, read_file: Callable[[str], str]) -> str:
    """Return the content without one newline at its end."""
    try:
        text = read_file(file)
    except (OSError, ValueError) as error:
        raise _unreadable(error) from None
    if text.endswith("\n"):
        text = text[:-1].removesuffix("\r")
    if not text:
        raise MalformedError("names a file that is empty", "Put the value in the file.")
    return text


def _unreadable(error: OSError | ValueError) -> MalformedError:
    if isinstance(error, FileNotFoundError):
        return MalformedError("names a file that does not exist", _MOUNT)
    if isinstance(error, IsADirectoryError):
        return MalformedError(
            "names a folder",
            "Docker makes a folder where the file to mount does not exist.",
        )
    if isinstance(error, PermissionError):
        return MalformedError(
            "names a file that cannot be read: permission denied", _READABLE
        )
    if isinstance(error, OSError):
        return MalformedError("names a file that cannot be read", _MOUNT)
    return MalformedError("names a file that is not UTF-8 text", "Write it in UTF-8.")


def _judge(reading: _Reading, way: Way) -> None:
    """Add the faults of the values, and of what is missing."""
    for keyword, text in reading.parameters.items():
        rule = _RULES[keyword](text) if keyword in _RULES else ""
        if rule:
            _add_value_fault(reading, keyword, rule)
    _judge_counts(reading)
    # libpq knows a user of its own: the system's, or the service's.
    if way == "PG" or "service" in reading.origins:
        return
    if way == "POSTGRES_HOST":
        name, rule = "POSTGRES_USER", "is not set"
    else:
        name, rule = reading.sources[way].setting, "has no user"
        if not _is_given(reading, "host") and not _is_given(reading, "hostaddr"):
            reading.fault(name, "has no host", _FORM)
    if not _is_given(reading, "user"):
        reading.fault(name, rule, "Say which role the gate logs in as.")


def _is_given(reading: _Reading, keyword: str) -> bool:
    """Tell whether a value is there: read and not empty, or not read yet."""
    return keyword in reading.origins and reading.parameters.get(keyword) != ""


def _add_value_fault(reading: _Reading, keyword: str, rule: str) -> None:
    origin = reading.origins[keyword]
    remedy = _HOST_ALONE if keyword == "host" else ""
    if origin.startswith("DATABASE_URL"):
        part = _PARTS.get(keyword, f"parameter {keyword}")
        remedy = _ENCODE if keyword in ("host", "port") else ""
        remedy = _QUOTING if "semicolon" in rule else remedy
        rule = f"has a {part} that {rule}"
    reading.fault(origin, rule, remedy)


def _broken_hosts(text: str) -> str:
    hosts = (host for host in text.split(",") if not host.startswith(("/", "@")))
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
    return "" if text == text.strip(_SPACE) else "has white space around it"


def _broken_choice(words: tuple[str, ...], text: str) -> str:
    return "" if text in words else f"is not one of {', '.join(words)}"


_PARTS: Final[Mapping[str, str]] = MappingProxyType(
    {"host": "host", "port": "port", "user": "user", "dbname": "database"}
)
# As in a connection string of .NET; what is shown of a connection would show the rest.
_PAIR_BEHIND_SEMICOLON: Final = r";\s*[\w ]*="
_HOST_RULES: Final = (
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
        **{key: partial(_broken_choice, words) for key, words in _CHOICES.items()},
    }
)


def _judge_counts(reading: _Reading) -> None:
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


def _wrong_scheme(scheme: str, after_scheme: str) -> MalformedError:
    if scheme in ("postgres", "postgresql"):
        if after_scheme.startswith("//"):
            return MalformedError("has a scheme in upper case", _FORM)
        return MalformedError('has no "//" after its scheme', _FORM)
    if scheme in _FOREIGN_SCHEMES and (after_scheme[:2] == "//" or scheme == "jdbc"):
        return MalformedError(f'has the scheme "{scheme}", not "postgresql"', _FORM)
    if after_scheme.startswith("//"):
        return MalformedError('has a scheme other than "postgresql"', _FORM)
    return MalformedError(
        'does not begin with "postgresql://" and is no key=value string', _FORM
    )


def _refuse_wrapping(uri: str) -> None:
    if uri != uri.strip(_SPACE):
        raise MalformedError(
            "has white space around it", "Remove it; mind a newline at the end."
        )
    if uri.endswith(_QUOTES):
        raise MalformedError("has a quote at its end", "Remove the quotes.")
    if any(character in _SPACE for character in uri):
        raise MalformedError(
            "contains white space", f"Percent-encode a space as %20. {_ENCODE}"
        )


def _parse_uri(rest: str) -> dict[str, str]:
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
        raise MalformedError('has an "@" or a "/" in its database', _ENCODE)
    _store(parameters, "host", hosts)
    _store(parameters, "port", ports)
    _store(parameters, "dbname", path.removeprefix("/"))
    parameters.update(_parse_query(query))
    return parameters


def _store(parameters: dict[str, str], keyword: str, text: str) -> None:
    if text:
        parameters[keyword] = _percent_decode(text, keyword)


def _cut_hosts(rest: str) -> tuple[str, str, str]:
    """Return hosts and ports as comma lists, and what follows them."""
    if "@" in re.split("[/?]", rest, maxsplit=1)[0]:
        raise MalformedError('has two "@" before its path', _ENCODE)
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
            "has an IPv6 address that is not written as [address]", _ENCODE
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
            _ENCODE,
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


def _parse_query(query: str) -> dict[str, str]:
    parameters: dict[str, str] = {}
    unknown = []
    hidden = False
    pairs = query.removesuffix("&").split("&") if query else []
    for place, pair in enumerate(pairs, start=1):
        key, value = _parse_parameter(pair, place)
        if key in KEYWORDS:
            parameters[key] = value
        else:
            at_behind = "@" in "&".join(pairs[place - 1 :])
            unknown.append(_name_key(key, place, hidden=hidden or at_behind))
        hidden = hidden or bool(_SECRET_KEY.search(key))
    if unknown:
        raise MalformedError(
            f"has parameters that libpq does not know: {', '.join(unknown)}",
            "Remove them; ALTER ROLE ... SET search_path sets a schema,"
            " sslmode the encryption.",
        )
    return parameters


def _parse_parameter(pair: str, place: int) -> tuple[str, str]:
    if pair.count("=") != 1:
        raise MalformedError(
            f'does not have exactly one "=" in its {_ordinal(place)} parameter', _ENCODE
        )
    key, value = (_percent_decode(side, "parameters") for side in pair.split("="))
    # Of JDBC: fe-connect.c, conninfo_uri_parse_params.
    if (key, value) == ("ssl", "true"):
        return "sslmode", "require"
    return _translate_requiressl(key, value)


def _translate_requiressl(key: str, value: str) -> tuple[str, str]:
    # An old spelling: fe-connect.c, conninfo_storeval.
    if key == "requiressl":
        return "sslmode", "require" if value.startswith("1") else "prefer"
    return key, value


def _name_key(key: str, place: int, *, hidden: bool) -> str:
    """Name an unknown parameter, by its place where it may be a piece of a secret."""
    if hidden or not re.fullmatch("[A-Za-z][A-Za-z0-9_.-]{0,39}", key):
        return f"the {_ordinal(place)}"
    return f'"{key}"'


def _parse_pairs(text: str) -> Iterator[tuple[str, str]]:
    """Parse a key=value string (fe-connect.c, conninfo_parse)."""
    if "=" not in text:
        raise MalformedError("is neither a URL nor a key=value string", _FORM)
    unknown = []
    at, place = 0, 0
    while text[at:].strip(_SPACE):
        place += 1
        key, value, at = _next_pair(text, at, place)
        key, value = _translate_requiressl(key, value)
        if key not in KEYWORDS:
            unknown.append(_name_foreign(key, place))
        yield key, value
    if unknown:
        raise MalformedError(
            f"has keywords that libpq does not know: {', '.join(unknown)}",
            _QUOTING,
        )


def _next_pair(text: str, at: int, place: int) -> tuple[str, str, int]:
    key = re.compile(r"\s*([^=\s]*)\s*=\s*", re.ASCII).match(text, at)
    if key is None:
        raise MalformedError(
            f'has no "=" in its {_ordinal(place)} key=value pair',
            _QUOTING,
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


def _name_foreign(key: str, place: int) -> str:
    meant = _FOREIGN_KEYWORDS.get(key.lower()) or closest(key, sorted(KEYWORDS))
    if meant is None:
        return f"the {_ordinal(place)}"
    return f"the {_ordinal(place)} (libpq's word is {meant})"


def _ordinal(number: int) -> str:
    words = ("first", "second", "third", "fourth", "fifth")
    return words[number - 1] if number <= len(words) else f"{number}th"


def _allowed_slips(word: str) -> int:
    length = len(word)
    if length < 4:  # noqa: PLR2004 - a slip in so short a word makes another word
        return 0
    return 1 if length < 7 else 2  # noqa: PLR2004 - of the settings' names, the short


def _slips_between(left: str, right: str) -> int:
    """Count insertions, deletions, substitutions and swaps of neighbours."""
    previous: list[int] = []
    row = list(range(len(right) + 1))
    for i, char in enumerate(left, start=1):
        before, previous, row = previous, row, [i]
        for j, other in enumerate(right, start=1):
            cost = min(
                previous[j] + 1, row[j - 1] + 1, previous[j - 1] + (char != other)
            )
            if i > 1 and j > 1 and (char, other) == (right[j - 2], left[i - 2]):
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
    return row[-1]
