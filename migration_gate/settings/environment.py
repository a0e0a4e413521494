"""
The environment is read, judged, and becomes Settings. Pure.
"""

from __future__ import annotations

import re

from typing import TYPE_CHECKING, Any, Final

from migration_gate.report.errors import SettingFault, SettingsError
from migration_gate.settings.database import (
    another_database,
    database_settings,
    said_beside,
)
from migration_gate.settings.known import LOGIN, PREFIX, SETTINGS, Setting
from migration_gate.settings.parsing import parse_history_table
from migration_gate.settings.settings import HistoryTableName, LogSettings, Settings
from migration_gate.settings.slips import is_service_link
from migration_gate.settings.sources import DatabaseSettings, Source
from migration_gate.settings.spelling import closest


if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


VARIABLE_PREFIX: Final = "GATE_VAR_"
POD_FIELDS: Final = (
    ("POD_NAME", "pod_name"),
    ("POD_NAMESPACE", "pod_namespace"),
    ("NODE_NAME", "node_name"),
    ("JOB_COMPLETION_INDEX", "job_completion_index"),
)


class _Reader:
    """Reads settings one by one and keeps the faults; empty is unset."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.faults: list[SettingFault] = []

    def read(self, setting: Setting) -> Any:  # noqa: ANN401  # as it parses
        text = self.environ.get(setting.name) or setting.default
        is_file = setting.is_database and self.environ.get(f"{setting.name}_FILE")
        if is_file or (setting.is_database and text != setting.default):
            database, faults = another_database(self.environ, setting.name)
            self.faults.extend(faults)
            return database
        try:
            return setting.parse(text)
        except ValueError as broken:
            self.faults.append(
                SettingFault(name=setting.name, rule=str(broken), remedy=setting.remedy)
            )
            return setting.parse(setting.default)


def from_environ(
    environ: Mapping[str, str], *, needs_database: bool = True
) -> Settings:
    """
    Read and judge all settings.

    Raises:
        SettingsError: lists every fault, by name and rule, never by value.
    """
    reader = _Reader(environ)
    database: DatabaseSettings | None = None
    if needs_database:
        login = _Reader(environ).read(LOGIN)
        database, faults = database_settings(environ, login=login)
        reader.faults.extend(faults)
    unknown = _sort_unknown(reader)
    variables: tuple[Source, ...] = ()
    if any(name.startswith(VARIABLE_PREFIX) for name in environ):
        from migration_gate.settings.variables import (  # noqa: PLC0415  # for few
            find_variables,
        )

        variables, faults = find_variables(environ)
        reader.faults.extend(faults)
    settings = Settings(
        database=database or DatabaseSettings(way="PG", sources=()),
        pod_fields=_pod_fields(environ),
        unknown_settings=unknown,
        variables=variables,
        **{setting.field: reader.read(setting) for setting in SETTINGS},
    )
    reader.faults.extend(_fleet_faults(settings))
    if reader.faults:
        raise SettingsError(reader.faults)
    return settings


def adopted_table(
    settings: Settings, read_file: Callable[[str], str]
) -> HistoryTableName | None:
    """
    Return the table whose history is taken over, where a person has named it.

    golang-migrate's may be named in the URL, by ``x-migrations-table``.

    Raises:
        SettingsError: What the URL names can be no table.
    """
    adopt = settings.adopt
    if adopt.table is not None or adopt.word != "golang-migrate":
        return adopt.table
    table = said_beside(settings.database, read_file).history_table
    if not table:
        return None
    try:
        return parse_history_table(table)
    except ValueError as broken:
        fault = SettingFault(
            name="DATABASE_URL",
            rule=f"has a parameter x-migrations-table that {broken}",
            remedy="Name the table in GATE_ADOPT=golang-migrate:schema.table.",
        )
        raise SettingsError([fault]) from None


def _fleet_faults(settings: Settings) -> list[SettingFault]:
    """Return what does not go together with a fleet, or without one."""
    if settings.targets is None:
        if settings.target is None:
            return []
        remedy = "Say in GATE_TARGETS where the targets are listed."
        rule = "names a target, and GATE_TARGETS lists none"
        return [SettingFault("GATE_TARGET", rule, remedy)]
    if settings.targets.kind != "schemas" or settings.history_table.schema is None:
        return []
    rule = "names a schema, and each schema of GATE_TARGETS has a history of its own"
    return [SettingFault("GATE_HISTORY_TABLE", rule, "Write the table's name alone.")]


def log_settings(environ: Mapping[str, str]) -> LogSettings:
    """Read how to log; a malformed setting takes its default."""
    reader = _Reader(environ)
    return LogSettings(
        pod_fields=_pod_fields(environ),
        **{
            setting.field: reader.read(setting)
            for setting in SETTINGS
            if setting.field in LogSettings._fields
        },
    )


def _pod_fields(environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(
        (field, environ[name]) for name, field in POD_FIELDS if environ.get(name)
    )


def _sort_unknown(reader: _Reader) -> tuple[str, ...]:
    """Return the unknown names; one that is a slip of the pen becomes a fault."""
    known = {setting.name.removeprefix(PREFIX) for setting in SETTINGS}
    known |= {f"{s.name.removeprefix(PREFIX)}_FILE" for s in SETTINGS if s.is_database}
    unknown = []
    for name, text in sorted(reader.environ.items()):
        bare = name.removeprefix(PREFIX)
        if not text or bare == name or bare in known or is_service_link(name, text):
            continue
        if name.startswith(VARIABLE_PREFIX):
            continue
        # One of another number is further away, and few settings may be in a file.
        forms = (bare, re.sub("Y$", "IES", bare), bare.removesuffix("_FILE"))
        near = (closest(form, sorted(known)) for form in forms)
        meant = next(filter(None, near), None)
        if meant is None:
            unknown.append(name)
            continue
        reader.faults.append(
            SettingFault(
                name=name,
                rule="is not a setting",
                remedy=f"Did you mean {PREFIX}{meant}?",
            )
        )
    return tuple(unknown)
