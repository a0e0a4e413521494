"""
Variables that were meant to name the database, by their names. Pure.
"""

from __future__ import annotations

import re

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from migration_gate.report.errors import SettingFault
from migration_gate.settings.libpq import PG_VARIABLES
from migration_gate.settings.sources import POSTGRES_VARIABLES, DatabaseSettings
from migration_gate.settings.spelling import closest


if TYPE_CHECKING:
    from collections.abc import Mapping


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


def no_database(environ: Mapping[str, str]) -> SettingFault:
    """Return the fault of an environment that names no database."""
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


def postgres_slips(
    environ: Mapping[str, str], database: DatabaseSettings
) -> list[SettingFault]:
    """Name POSTGRES_ variables that stand where one that is read is missing."""
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


def is_service_link(name: str, value: str) -> bool:
    """Tell whether Kubernetes made this variable for a Service."""
    return bool(
        value.startswith(("tcp://", "udp://", "sctp://"))
        or re.search(r"_SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)$", name)
        or re.search(r"_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$", name)
    )
