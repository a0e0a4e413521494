"""
The list of a fleet in a file: a database's name or a connection string a line.

Reads that file and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from migration_gate.connection.connect import read_secret_file
from migration_gate.report.errors import SettingFault, SettingsError
from migration_gate.settings.connection_string import (
    MalformedError,
    parse_connection_string,
)
from migration_gate.settings.sources import PipeError


SETTING: Final = "GATE_TARGETS"
BYTE_ORDER_MARK: Final = "\ufeff"
COMMENT: Final = "#"
PASSWORDS: Final = ("password", "sslpassword")
# What of the configured place does not count for a line with a place of its own.
BESIDE_HOST: Final = ("hostaddr", "port")
BESIDE_SERVICE: Final = ("host", *BESIDE_HOST, "dbname")
NO_SESSION: Final = "Set it for the role or the database: ALTER ROLE … SET …;"


def read_lines(path: str) -> dict[str, dict[str, str]]:
    """
    Return the parameters of each line of a file, by the name of its target.

    Raises:
        SettingsError: It cannot be read, or has what can be no target, or one twice.
    """
    try:
        # It is read once more at the end, which a pipe cannot be.
        text = read_secret_file(path).removeprefix(BYTE_ORDER_MARK)
    except PipeError:
        raise fault("names a pipe", "Name a file.") from None
    except OSError as error:
        raise fault(f"names a file that cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise fault("names a file that is not UTF-8 text") from None
    listed: dict[str, dict[str, str]] = {}
    numbers: dict[str, int] = {}
    for number, line in enumerate(map(str.strip, text.split("\n")), start=1):
        if not line or line.startswith(COMMENT):
            continue
        parameters = _parse_line(line, number)
        name = _name(parameters)
        before = listed.setdefault(name, parameters)
        first = numbers.setdefault(name, number)
        if before != parameters:
            differing = sorted({k for k, _ in before.items() ^ parameters.items()})
            raise fault(
                f"names one target in lines {first} and {number}, which differ in "
                f"{', '.join(differing)}",
                "Leave one of them out: a target is a service, host, address, port "
                "and database, whatever else its line says.",
            )
    return listed


def _name(parameters: Mapping[str, str]) -> str:
    """Name a target by its place and database, as far as its line says them."""
    place = map(parameters.get, ("service", "host", "hostaddr", "port"))
    named = [":".join(filter(None, place)), parameters.get("dbname")]
    return "/".join(filter(None, named))


def _parse_line(line: str, number: int) -> dict[str, str]:
    """Return the parameters of one line of a file."""
    if "=" not in line and "://" not in line:
        return {"dbname": line}
    try:
        said = parse_connection_string(line)
    except MalformedError as malformed:
        raise fault(
            f"has line {number}, which {malformed.rule}", malformed.remedy
        ) from None
    parameters = said.parameters
    if said.session:
        raise fault(
            f"has line {number}, which has {', '.join(said.session)}", NO_SESSION
        )
    if any(parameters.get(keyword) for keyword in PASSWORDS):
        raise fault(
            f"has line {number}, which has a password",
            "Give it in PGPASSWORD, by GATE_LOGIN or in libpq's password file.",
        )
    if not _name(parameters):
        raise fault(f"has line {number}, which names neither host nor database")
    beside: tuple[str, ...] = ()
    if parameters.get("service"):
        beside = BESIDE_SERVICE
    elif "host" in parameters:
        beside = BESIDE_HOST
    return {**dict.fromkeys(beside, ""), **parameters}


def fault(rule: str, remedy: str = "") -> SettingsError:
    """Return what says that the list of targets breaks a rule."""
    return SettingsError([SettingFault(name=SETTING, rule=rule, remedy=remedy)])
