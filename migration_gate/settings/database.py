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

from typing import TYPE_CHECKING

from migration_gate.report.errors import SettingFault, SettingsError
from migration_gate.settings.faults import (
    PARTS,
    complete_tls,
    find_fault,
    find_login_fault,
)
from migration_gate.settings.libpq import PG_VARIABLES, PLACEHOLDER
from migration_gate.settings.reading import FILL_IN, Beside, Reading
from migration_gate.settings.slips import is_service_link, no_database, postgres_slips
from migration_gate.settings.sources import (
    POSTGRES_VARIABLES,
    DatabaseSettings,
    Login,
    Source,
    Way,
)


if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


def database_settings(
    environ: Mapping[str, str], *, login: Login = "password"
) -> tuple[DatabaseSettings | None, list[SettingFault]]:
    """
    Find which database the environment names, and judge all that needs no file.

    None when the environment names none; then the one fault says so.
    """
    way = _way(environ)
    if way is None:
        return None, [no_database(environ)]
    sources = tuple(_sources(environ, way))
    database = DatabaseSettings(way=way, sources=sources, login=login)
    faults = _read(database, None).faults
    if way == "POSTGRES_HOST":
        faults += postgres_slips(environ, database)
    return database, faults


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
        for keyword, part in (("password", "password"), *PARTS.items())
        if keyword in ("password", "user", "dbname")
        for how in [_doubt(parameters.get(keyword, ""))]
        if how
    ]
    return " ".join(said)


def _doubt(text: str) -> str:
    if "$" in text and re.fullmatch(PLACEHOLDER, text):
        return f"is a $(…) or ${{…}} that was not filled in: {FILL_IN.rstrip('.')}"
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


def _read(
    database: DatabaseSettings, read_file: Callable[[str], str] | None
) -> Reading:
    reading = Reading(database, read_file)
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
    find_fault(reading, database.way)
    _set_in_sessions(reading)
    if database.login != "password":
        find_login_fault(reading, database.way, database.login)
        complete_tls(reading)
    return reading


def _set_in_sessions(reading: Reading) -> None:
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
