"""
Every setting: its name, its default, how it is read and what it means. Pure.

The table in ``docs/settings.md`` is compared with the rows here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from migration_gate.settings.durations import parse_duration, parse_positive_duration
from migration_gate.settings.parsing import (
    DURATION,
    REMEDIES,
    choice,
    parse_adopt,
    parse_boolean,
    parse_count,
    parse_failures_max,
    parse_findings,
    parse_folders,
    parse_history_table,
    parse_limit,
    parse_path,
    parse_positive_count,
    parse_role,
    parse_targets,
    parse_word,
)
from migration_gate.settings.settings import DEFAULT_HISTORY_TABLE


if TYPE_CHECKING:
    from collections.abc import Callable


PREFIX: Final = "GATE_"


class Setting(NamedTuple):
    """
    One GATE_ variable, and the field of Settings that it fills.

    ``parse`` raises ValueError with the rule that is broken, never with the value. One
    that ``is_database`` names another database, and may be in a file as a URL may.
    """

    name: str
    default: str
    parse: Callable[[str], Any]
    meaning: str
    is_database: bool = False

    @property
    def field(self) -> str:
        """Return the name of the field: a duration is there in seconds."""
        bare = self.name.removeprefix(PREFIX).lower()
        return f"{bare}_s" if self.remedy == DURATION else bare

    @property
    def remedy(self) -> str:
        """Return how to write a value."""
        return REMEDIES.get(self.parse, "")


LOGIN: Final = Setting(
    "GATE_LOGIN",
    "password",
    choice("password", "azure", "aws", "google"),
    "how the gate proves who it is: by a password, or by the identity of the cloud",
)
SETTINGS: Final = (
    Setting(
        "GATE_MIGRATIONS",
        "migrations",
        parse_folders,
        "folder of the files, or several with a colon between",
    ),
    Setting(
        "GATE_ALLOW_EMPTY",
        "false",
        parse_boolean,
        "a folder with no migration, or a list with no target, opens the gate",
    ),
    Setting(
        "GATE_HISTORY_TABLE",
        DEFAULT_HISTORY_TABLE.table,
        parse_history_table,
        "history table, table or schema.table",
    ),
    Setting(
        "GATE_ADOPT",
        "refuse",
        parse_adopt,
        "another tool's history: refuse, none (not looked for), or that tool's name",
    ),
    Setting(
        "GATE_BASELINE",
        "none",
        parse_word,
        "the last migration that a database with tables and no history has already",
    ),
    Setting("GATE_TIMEOUT", "none", parse_limit, "all waiting and applying together"),
    Setting(
        "GATE_WAIT_TIMEOUT",
        "5m",
        parse_duration,
        "each wait for a usable database (check: for the schema)",
    ),
    Setting(
        "GATE_AUTH_GRACE",
        "30s",
        parse_duration,
        'how long a refused login, a missing role or database is "not yet"',
    ),
    LOGIN,
    Setting(
        "GATE_CREATE_DATABASE",
        "false",
        parse_boolean,
        "create the database when it does not exist",
    ),
    Setting(
        "GATE_STANDBY",
        "wait",
        choice("wait", "check"),
        "where only a hot standby is found: wait for a primary, or only check",
    ),
    Setting(
        "GATE_LOCK_WAIT_TIMEOUT",
        "10m",
        parse_duration,
        "how long to wait for another gate that shows no progress",
    ),
    Setting(
        "GATE_DDL_LOCK_TIMEOUT",
        "2s",
        parse_positive_duration,
        "how long one attempt at a migration may wait for locks, together",
    ),
    Setting(
        "GATE_DDL_RETRY_TIMEOUT",
        "5m",
        parse_duration,
        "how long to keep retrying a migration that could not get its locks",
    ),
    Setting(
        "GATE_STATEMENT_TIMEOUT",
        "0",
        parse_duration,
        "PostgreSQL's statement_timeout inside migrations; 0 is none",
    ),
    Setting(
        "GATE_ROLE",
        "none",
        parse_role,
        "SET ROLE for the files: who owns what they create",
    ),
    Setting(
        "GATE_CHANGED",
        "refuse",
        choice("refuse", "warn"),
        "a file that differs from what was applied: refuse or warn",
    ),
    Setting(
        "GATE_OUT_OF_ORDER",
        "apply",
        choice("apply", "refuse"),
        "a pending file below the newest applied one: apply or refuse",
    ),
    Setting(
        "GATE_AHEAD",
        "allow",
        choice("allow", "refuse"),
        "history rows that no file here explains: allow or refuse",
    ),
    Setting(
        "GATE_PHASE",
        "all",
        choice("all", "before", "after"),
        "what is applied: all, or what comes before, or after, a deployment",
    ),
    Setting(
        "GATE_TARGETS",
        "none",
        parse_targets,
        "a fleet: the query or the file that lists its schemas or databases",
    ),
    Setting(
        "GATE_TARGET",
        "none",
        parse_word,
        "one target of GATE_TARGETS, by its name: the run is about that one alone",
    ),
    Setting(
        "GATE_TARGETS_AT_ONCE",
        "8",
        parse_positive_count,
        "how many targets of a fleet are worked at beside each other",
    ),
    Setting(
        "GATE_CANARIES",
        "0",
        parse_count,
        "how many targets, the first ones, have to be up to date before any other",
    ),
    Setting(
        "GATE_FAILURES_MAX",
        "all",
        parse_failures_max,
        "how many targets may fail before no new one is begun: all, 3 or 5%",
    ),
    Setting(
        "GATE_REHEARSE_REFUSE",
        "none",
        parse_findings,
        "findings that close a rehearsal, between commas",
    ),
    Setting(
        "GATE_REHEARSE_SIZES",
        "none",
        parse_word,
        "the real database, whose sizes a rehearsal reads and nothing else",
        is_database=True,
    ),
    Setting(
        "GATE_LOG_FORMAT",
        "auto",
        choice("auto", "json", "console"),
        "json, console (for a person), or auto: console on a terminal, else json",
    ),
    Setting(
        "GATE_LOG_LEVEL",
        "info",
        choice("debug", "info", "warning", "error"),
        "debug, info, warning, error",
    ),
    Setting(
        "GATE_LOG_DETAIL",
        "safe",
        choice("safe", "full"),
        "safe, or full: PostgreSQL's messages as they are",
    ),
    Setting(
        "GATE_HEARTBEAT",
        "10s",
        parse_positive_duration,
        "how often a long statement or a long wait reports",
    ),
    Setting(
        "GATE_TERMINATION_LOG",
        "/dev/termination-log",
        parse_path,
        "where the verdict is written when that file exists and can be written",
    ),
)
