"""
Which database, and what libpq gets to know of it. Pure.

environ ──database_settings──▶ DatabaseSettings     at the start, inline values judged
DatabaseSettings ──connection_parameters──▶ {keyword: value}     at each attempt

A ``Source`` is one setting, its value or the file that holds it; which of them is used
is decided by one order: the way in use, then libpq's own variables for what it leaves
open, as they do for psql. A value that is not used is not judged.

No fault holds a piece of a value.
"""

from __future__ import annotations

import re

from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from migration_gate.report.errors import SettingFault, SettingsError
from migration_gate.settings.connection_string import (
    ENCODE,
    FORM,
    QUOTING,
    MalformedError,
    parse_connection_string,
)
from migration_gate.settings.libpq import (
    IN_QUOTES,
    NOT_FILLED_IN,
    PG_VARIABLES,
    PLACEHOLDER,
    SOCKET_ITSELF,
    broken_rule,
)
from migration_gate.settings.spelling import closest


if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


Way = Literal["DATABASE_URL", "POSTGRES_HOST", "PG"]
# How the gate proves who it is: the words of GATE_LOGIN.
Login = Literal["password", "azure", "aws", "google"]
# A token is a password in clear text: whoever gets it can log in with it.
TOKEN_SSL_MODES: Final = ("require", "verify-ca", "verify-full")
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
_HOST_ALONE: Final = (
    "Write the name or address alone; a port has its own setting,"
    " a URL belongs in DATABASE_URL."
)
_READABLE: Final = (
    "The gate does not run as root: make the file readable for its user"
    " (Compose does not apply uid, gid and mode to file secrets: mode 0444 on the host;"
    " Kubernetes: defaultMode or fsGroup)."
)
_MOUNT: Final = "Check the path that it has, and what is mounted there."
TOO_WEAK: Final = "is too weak for a token, which is a password in clear text"
_WHICH_ROLE: Final = "Say which role the gate logs in as."
_FILL_IN: Final = (
    "Kubernetes fills in $(NAME) where a variable of that name stands before it,"
    " Compose and shells fill in ${NAME}; an env file fills in nothing."
)
_REMEDIES: Final[Mapping[str, str]] = MappingProxyType(
    {
        TOO_WEAK: "Take it out: the server is verified then. Where its certificate is "
        "signed by no public root, mount that root and name it in PGSSLROOTCERT; or "
        "say require, which encrypts and verifies nothing.",
        NOT_FILLED_IN: _FILL_IN,
        IN_QUOTES: "Remove the quotes.",
        SOCKET_ITSELF: "Name the folder that it is in; the port gives it its name.",
    }
)


class Source(NamedTuple):
    """
    One setting: its value, or the path of the file that holds it.

    Both are set when the environment gives both, which is a fault once it is used.
    The path is not shown either: a secret is sometimes put there by mistake.
    """

    name: str
    value: str | None = None
    file: str | None = None

    def __repr__(self) -> str:
        return f"Source(name={self.name!r})"

    @property
    def setting(self) -> str:
        """The variable that a fault names."""
        return f"{self.name}_FILE" if self.value is None else self.name


class DatabaseSettings(NamedTuple):
    """
    The way in use, its settings, and the libpq variables that may fill in.

    The first of ``sources`` is the one that names the database.
    ``instead`` are the parameters of one target of a fleet, which come before all of
    these; an empty one takes away what they say.
    """

    way: Way
    sources: tuple[Source, ...]
    login: Login = "password"
    instead: tuple[tuple[str, str], ...] = ()


def database_settings(
    environ: Mapping[str, str], *, login: Login = "password"
) -> tuple[DatabaseSettings | None, list[SettingFault]]:
    """
    Find which database the environment names, and judge all that needs no file.

    None when the environment names none; then the one fault says so.
    """
    way = _way(environ)
    if way is None:
        return None, [_no_database(environ)]
    sources = tuple(_sources(environ, way))
    database = DatabaseSettings(way=way, sources=sources, login=login)
    reading = _read(database, None)
    return database, reading.faults + _postgres_slips(environ, database)


def another_database(
    environ: Mapping[str, str], name: str
) -> tuple[DatabaseSettings, list[SettingFault]]:
    """Read a variable that names a second database as DATABASE_URL names the first."""
    source = Source(
        name=name,
        value=environ.get(name) or None,
        file=environ.get(f"{name}_FILE") or None,
    )
    database = DatabaseSettings(way="DATABASE_URL", sources=(source,))
    return database, _read(database, None).faults


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
    return _of_target(database, reading.parameters)


class Beside(NamedTuple):
    """
    What a URL says beside the connection.

    ``passed_over`` are the names of parameters that say nothing to the gate;
    ``history_table`` is golang-migrate's, as GATE_HISTORY_TABLE is written;
    ``session`` is what is set in each session, and ``options`` are libpq's without it.
    """

    passed_over: tuple[str, ...] = ()
    history_table: str = ""
    session: Mapping[str, str] = MappingProxyType({})
    options: str = ""


def said_beside(
    database: DatabaseSettings, read_file: Callable[[str], str] | None
) -> Beside:
    """Return what the URL says beside the connection, as far as it can be read."""
    if database.way != "DATABASE_URL":
        return Beside()
    return _read(database, read_file).beside


def known_parameters(database: DatabaseSettings) -> dict[str, str]:
    """Return what of the parameters stands in the environment itself."""
    return _of_target(database, _read(database, None).parameters)


def _of_target(
    database: DatabaseSettings, parameters: dict[str, str]
) -> dict[str, str]:
    if not database.instead:
        return parameters
    mixed = {**parameters, **dict(database.instead)}
    return {keyword: text for keyword, text in mixed.items() if text}


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


def doubts(parameters: Mapping[str, str]) -> str:
    """
    Return what of a refused login looks as if nobody had meant it; empty for nothing.

    A password may hold any text, and a name too, so that none of it is a fault.
    """
    said = [
        f"The {part} {how}."
        for keyword, part in (("password", "password"), *_PARTS.items())
        if keyword in ("password", "user", "dbname")
        for how in [_doubt(parameters.get(keyword, ""))]
        if how
    ]
    return " ".join(said)


def _doubt(text: str) -> str:
    if "$" in text and re.fullmatch(PLACEHOLDER, text):
        return f"is a $(…) or ${{…}} that was not filled in: {_FILL_IN.rstrip('.')}"
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'`":
        return "has quotes around it, which an env file or a secret may keep"
    if text != text.strip():
        return "has white space or a line end around it, as echo without -n makes"
    return ""


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


def is_service_link(name: str, value: str) -> bool:
    """Tell whether Kubernetes made this variable for a Service."""
    return bool(
        value.startswith(("tcp://", "udp://", "sctp://"))
        or re.search(r"_SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)$", name)
        or re.search(r"_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$", name)
    )


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
        self, database: DatabaseSettings, read_file: Callable[[str], str] | None
    ) -> None:
        self.sources = {source.name: source for source in database.sources}
        is_url = database.way == "DATABASE_URL"
        self.url = database.sources[0] if is_url else None
        self.read_file = read_file
        self.parameters: dict[str, str] = {}
        # Keywords that are given, whether or not their value could be read.
        self.origins: dict[str, str] = {}
        self.beside = Beside()
        self.faults: list[SettingFault] = []

    def text(self, source: Source) -> str | None:
        """Return the value; None after a fault, or when no file may be read yet."""
        unread = source.value is None and self.read_file is None
        try:
            return None if unread else source_text(source, self.read_file)
        except MalformedError as malformed:
            fault = SettingFault(
                name=source.setting,
                rule=malformed.rule,
                remedy=malformed.remedy,
                may_come=malformed.may_come,
            )
            self.faults.append(fault)
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

    def take_connection_string(self, source: Source) -> bool:
        """Take a URL apart; False when its content is not known."""
        text = self.text(source)
        if text is None:
            return False
        # In front of the @ a password may hold anything; pairs are judged one by one.
        place = text.rpartition("@")[2].partition("?")[0] if "://" in text else text
        if re.search(PLACEHOLDER, place) and ("://" in text or "=" not in text):
            self.fault(source.setting, NOT_FILLED_IN, _FILL_IN)
            return False
        try:
            found = parse_connection_string(text)
        except MalformedError as malformed:
            self.fault(source.setting, malformed.rule, malformed.remedy)
            return False
        self.parameters = found.parameters
        self.beside = Beside(found.passed_over, found.history_table, found.session)
        if not self.parameters.get("password"):
            self.parameters.pop("password", None)
        self.origins = dict.fromkeys(self.parameters, source.setting)
        return True


def _read(
    database: DatabaseSettings, read_file: Callable[[str], str] | None
) -> _Reading:
    reading = _Reading(database, read_file)
    if reading.url is not None:
        if not reading.take_connection_string(reading.url):
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
    _find_fault(reading, database.way)
    _set_in_sessions(reading)
    if database.login != "password":
        _find_login_fault(reading, database.way, database.login)
        _complete_tls(reading)
    return reading


def _set_in_sessions(reading: _Reading) -> None:
    """
    Have the server begin each session with what the URL sets there.

    As the drivers do that have such parameters: RESET brings them back, so that each
    file begins with them.
    """
    if not reading.beside.session:
        return
    given = reading.parameters.get("options", "")
    told = [
        re.sub(r"([\\\s])", r"\\\1", f"{name}={value}")
        for name, value in reading.beside.session.items()
    ]
    options = " ".join([given, *(f"-c {text}" for text in told)])
    reading.parameters["options"] = options.lstrip()
    reading.beside = reading.beside._replace(options=given)


def source_text(source: Source, read_file: Callable[[str], str] | None) -> str:
    """
    Return the value of a setting, or what its file holds.

    Raises:
        MalformedError: Both are given, or the value is no text.
    """
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
        raise MalformedError(
            "names a file that is empty", "Put the value in the file.", may_come=True
        )
    return text


def _unreadable(error: OSError | ValueError) -> MalformedError:
    if isinstance(error, FileNotFoundError):
        return MalformedError("names a file that does not exist", _MOUNT, may_come=True)
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


def _find_fault(reading: _Reading, way: Way) -> None:
    """Add the faults of the values, and of what is missing."""
    for keyword, text in reading.parameters.items():
        rule = broken_rule(keyword, text)
        if rule:
            _add_value_fault(reading, keyword, rule)
    url = "" if reading.url is None else reading.url.setting
    for name, text in reading.beside.session.items():
        if "$" in text and re.search(PLACEHOLDER, text):
            fault = f"has a parameter {name} that {NOT_FILLED_IN}"
            reading.fault(url, fault, _FILL_IN)
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


def _find_login_fault(reading: _Reading, way: Way, login: Login) -> None:
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
    if login == "aws" and not all(host.strip("/@") == host != "" for host in hosts):
        reading.fault(
            reading.origins.get("host", "PGHOST"),
            "names no host, and AWS signs the host's name into the token",
            "Name the endpoint of the instance, the cluster or the proxy.",
        )


def _complete_tls(reading: _Reading) -> None:
    """Verify the server, by the system's roots, where nothing else is said."""
    if "sslmode" not in reading.origins:
        reading.parameters["sslmode"] = "verify-full"
    verifies = reading.parameters.get("sslmode") == "verify-full"
    if verifies and "sslrootcert" not in reading.origins:
        reading.parameters["sslrootcert"] = "system"


def _is_given(reading: _Reading, keyword: str) -> bool:
    """Tell whether a value is there: read and not empty, or not read yet."""
    return keyword in reading.origins and reading.parameters.get(keyword) != ""


def _add_value_fault(reading: _Reading, keyword: str, rule: str) -> None:
    origin = reading.origins[keyword]
    remedy = _HOST_ALONE if keyword == "host" else ""
    if reading.url is not None and origin == reading.url.setting:
        part = _PARTS.get(keyword, f"parameter {keyword}")
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


_PARTS: Final[Mapping[str, str]] = MappingProxyType(
    {"host": "host", "port": "port", "user": "user", "dbname": "database"}
)


def _require_equal_counts(reading: _Reading) -> None:
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
