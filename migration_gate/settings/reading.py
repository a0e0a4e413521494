"""
What the settings that name the database hold, as far as it can be read. Pure.
"""

from __future__ import annotations

import re

from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from migration_gate.report.errors import SettingFault
from migration_gate.settings.connection_string import (
    MalformedError,
    parse_connection_string,
)
from migration_gate.settings.libpq import NOT_FILLED_IN, PLACEHOLDER
from migration_gate.settings.sources import DatabaseSettings, Source, source_text


if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


FILL_IN: Final = (
    "Kubernetes fills in $(NAME) where a variable of that name stands before it,"
    " Compose and shells fill in ${NAME}; an env file fills in nothing."
)


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


class Reading:
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
        """Add a fault; ``rule`` goes on after the name."""
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
            self.fault(source.setting, NOT_FILLED_IN, FILL_IN)
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
