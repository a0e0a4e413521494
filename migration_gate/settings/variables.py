"""
The variables that files are filled with: GATE_VAR_name, and GATE_VAR_name_FILE. Pure.
"""

from __future__ import annotations

import re

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from migration_gate.report.errors import SettingFault, SettingsError
from migration_gate.settings.connection_string import MalformedError
from migration_gate.settings.environment import VARIABLE_PREFIX
from migration_gate.settings.sources import Source, source_text


FILE_ENDING: Final = "_FILE"
# PostgreSQL: what its own custom parameters may be called after the dot.
NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def find_variables(
    environ: Mapping[str, str],
) -> tuple[tuple[Source, ...], list[SettingFault]]:
    """Return the variables that are set, by name, and what is wrong; empty is unset."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for variable, text in environ.items():
        name = variable.removeprefix(VARIABLE_PREFIX)
        if not text or name == variable:
            continue
        is_file = name.endswith(FILE_ENDING)
        found[name.removesuffix(FILE_ENDING)]["file" if is_file else "value"] = text
    sources = tuple(
        Source(name=VARIABLE_PREFIX + name, **found[name]) for name in sorted(found)
    )
    faults = list(_find_faults(sources))
    _, broken = _read(sources, None)
    return sources, faults + broken


def variable_values(
    sources: Sequence[Source], read_file: Callable[[str], str]
) -> dict[str, str]:
    """
    Return the values by the variables' names, the files read afresh.

    Raises:
        SettingsError: A file cannot be read, or holds no text.
    """
    values, faults = _read(sources, read_file)
    if faults:
        raise SettingsError(faults)
    return values


def _read(
    sources: Sequence[Source], read_file: Callable[[str], str] | None
) -> tuple[dict[str, str], list[SettingFault]]:
    values, faults = {}, []
    for source in sources:
        try:
            text = source_text(source, read_file)
        except MalformedError as broken:
            fault = SettingFault(
                name=source.setting,
                rule=broken.rule,
                remedy=broken.remedy,
                may_come=broken.may_come,
            )
            faults.append(fault)
        else:
            values[source.name.removeprefix(VARIABLE_PREFIX)] = text
    return values, faults


def _find_faults(sources: Sequence[Source]) -> Iterator[SettingFault]:
    seen: dict[str, str] = {}
    for source in sources:
        name = source.name.removeprefix(VARIABLE_PREFIX)
        if not NAME.fullmatch(name):
            yield SettingFault(
                name=source.setting,
                rule="names no variable after GATE_VAR_",
                remedy="A name has letters, digits and underscores, and begins with no "
                "digit.",
            )
            continue
        # Parameters of PostgreSQL's are the same in any case; psql's variables are not.
        other = seen.setdefault(name.lower(), source.setting)
        if other != source.setting:
            yield SettingFault(
                name=source.setting,
                rule=f"differs from {other} in case only",
                remedy="Give one of the two another name.",
            )
