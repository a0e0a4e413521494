"""
What the environment asks for. Pure.

``SETTINGS`` is the one place where names and defaults live; the table in
``docs/settings.md`` is compared with it.
"""

from __future__ import annotations

import re

from typing import TYPE_CHECKING, Any, Final, Generic, Literal, NamedTuple, TypeVar

from migration_gate.report.errors import SettingFault, SettingsError
from migration_gate.settings.database import (
    DatabaseSettings,
    database_settings,
    is_service_link,
)
from migration_gate.settings.durations import parse_duration, parse_positive_duration
from migration_gate.settings.spelling import closest


if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


T = TypeVar("T")

Changed = Literal["refuse", "warn"]
OutOfOrder = Literal["apply", "refuse"]
Ahead = Literal["allow", "refuse"]
Standby = Literal["wait", "check"]
LogFormat = Literal["auto", "json", "console"]
LogLevel = Literal["debug", "info", "warning", "error"]
LogDetail = Literal["safe", "full"]

PREFIX: Final = "GATE_"
IDENTIFIER_BYTES_MAX: Final = 63

_QUOTED: Final = r'"(?:[^"]|"")*"'
_PART: Final = rf'{_QUOTED}|[^".\s]+'

POD_FIELDS: Final = (
    ("POD_NAME", "pod_name"),
    ("POD_NAMESPACE", "pod_namespace"),
    ("NODE_NAME", "node_name"),
    ("JOB_COMPLETION_INDEX", "job_completion_index"),
)


class HistoryTableName(NamedTuple):
    """Names as PostgreSQL stores them, not quoted; without a schema, search_path's."""

    schema: str | None
    table: str


class Settings(NamedTuple):
    """All settings, judged. Seconds are 0 where 0 means none or at once."""

    database: DatabaseSettings
    migrations: str
    allow_empty: bool
    history_table: HistoryTableName
    timeout_s: float | None
    wait_timeout_s: float
    auth_grace_s: float
    create_database: bool
    standby: Standby
    lock_wait_timeout_s: float
    ddl_lock_timeout_s: float
    ddl_retry_timeout_s: float
    statement_timeout_s: float
    role: str | None
    changed: Changed
    out_of_order: OutOfOrder
    ahead: Ahead
    log_format: LogFormat
    log_level: LogLevel
    log_detail: LogDetail
    heartbeat_s: float
    termination_log: str
    pod_fields: tuple[tuple[str, str], ...]
    unknown_settings: tuple[str, ...]


class LogSettings(NamedTuple):
    """What is needed to log a settings error; fields as in Settings."""

    log_format: LogFormat
    log_level: LogLevel
    log_detail: LogDetail
    termination_log: str
    pod_fields: tuple[tuple[str, str], ...]


class Setting(NamedTuple, Generic[T]):
    """
    One GATE_ variable.

    ``parse`` raises ValueError with the rule that is broken, never with the value.
    """

    name: str
    default: str
    parse: Callable[[str], T]
    remedy: str
    meaning: str


def _parse_limit(text: str) -> float | None:
    return None if text == "none" else parse_duration(text) or None


def _parse_boolean(text: str) -> bool:
    word = text.strip().lower()
    if word in ("true", "1", "yes", "on"):
        return True
    if word in ("false", "0", "no", "off"):
        return False
    raise ValueError("is not true or false")


def _parse_text(text: str) -> str:
    if "\0" in text:
        raise ValueError("contains a NUL character")
    return text


def _parse_role(text: str) -> str | None:
    # "none" can be no role: PostgreSQL reserves the word, as in SET ROLE NONE.
    return None if text == "none" else _parse_identifier(text)


def _parse_identifier(text: str) -> str:
    if text.startswith('"'):
        if not re.fullmatch(_QUOTED, text):
            raise ValueError("has a double quote that is not closed or not doubled")
        text = text[1:-1].replace('""', '"')
    elif text != text.strip():
        raise ValueError("has white space around it")
    if not text or "\0" in text:
        raise ValueError("is an empty name or contains a NUL character")
    # What is not UTF-8 in the environment counts too: Python keeps it in surrogates.
    if len(text.encode(errors="surrogateescape")) > IDENTIFIER_BYTES_MAX:
        raise ValueError(f"has a name longer than {IDENTIFIER_BYTES_MAX} bytes")
    return text


def _parse_history_table(text: str) -> HistoryTableName:
    """Take names as they are written: case is kept, quotes only hold odd characters."""
    parts = re.fullmatch(rf"(?:({_PART})\.)?({_PART})", text)
    if parts is None:
        raise ValueError("is not of the form table or schema.table")
    schema = None if parts[1] is None else _parse_identifier(parts[1])
    return HistoryTableName(schema=schema, table=_parse_identifier(parts[2]))


def _choice(*words: T) -> Callable[[str], T]:
    """Return a parser that takes one of the words, in any case."""

    def parse(text: str) -> T:
        for word in words:
            if text.strip().lower() == word:
                return word
        raise ValueError(f"is not one of {', '.join(map(str, words))}")

    return parse


_DURATION_REMEDY: Final = "Write a duration like 30, 30s, 5m, 500ms or 1h."
_BOOLEAN_REMEDY: Final = "Write true or false."
_TABLE_REMEDY: Final = (
    "Write table or schema.table; a name with a dot or a space in double quotes."
)

MIGRATIONS: Final[Setting[str]] = Setting(
    name="GATE_MIGRATIONS",
    default="migrations",
    parse=_parse_text,
    remedy="",
    meaning="folder of the files",
)
ALLOW_EMPTY: Final[Setting[bool]] = Setting(
    name="GATE_ALLOW_EMPTY",
    default="false",
    parse=_parse_boolean,
    remedy=_BOOLEAN_REMEDY,
    meaning="a folder with no migration opens the gate; otherwise it is an error",
)
HISTORY_TABLE: Final[Setting[HistoryTableName]] = Setting(
    name="GATE_HISTORY_TABLE",
    default="schema_migrations",
    parse=_parse_history_table,
    remedy=_TABLE_REMEDY,
    meaning="history table, table or schema.table",
)
TIMEOUT: Final[Setting[float | None]] = Setting(
    name="GATE_TIMEOUT",
    default="none",
    parse=_parse_limit,
    remedy=_DURATION_REMEDY,
    meaning="all waiting and applying together",
)
WAIT_TIMEOUT: Final[Setting[float]] = Setting(
    name="GATE_WAIT_TIMEOUT",
    default="5m",
    parse=parse_duration,
    remedy=_DURATION_REMEDY,
    meaning="each wait for a usable database (check: for the schema)",
)
AUTH_GRACE: Final[Setting[float]] = Setting(
    name="GATE_AUTH_GRACE",
    default="30s",
    parse=parse_duration,
    remedy=_DURATION_REMEDY,
    meaning='how long a refused login, a missing role or database is "not yet"',
)
CREATE_DATABASE: Final[Setting[bool]] = Setting(
    name="GATE_CREATE_DATABASE",
    default="false",
    parse=_parse_boolean,
    remedy=_BOOLEAN_REMEDY,
    meaning="create the database when it does not exist",
)
STANDBY: Final[Setting[Standby]] = Setting(
    name="GATE_STANDBY",
    default="wait",
    parse=_choice("wait", "check"),
    remedy="",
    meaning="where only a hot standby is found: wait for a primary, or only check",
)
LOCK_WAIT_TIMEOUT: Final[Setting[float]] = Setting(
    name="GATE_LOCK_WAIT_TIMEOUT",
    default="10m",
    parse=parse_duration,
    remedy=_DURATION_REMEDY,
    meaning="how long to wait for another gate that shows no progress",
)
DDL_LOCK_TIMEOUT: Final[Setting[float]] = Setting(
    name="GATE_DDL_LOCK_TIMEOUT",
    default="2s",
    parse=parse_positive_duration,
    remedy=_DURATION_REMEDY,
    meaning="how long one attempt at a migration may wait for locks, together",
)
DDL_RETRY_TIMEOUT: Final[Setting[float]] = Setting(
    name="GATE_DDL_RETRY_TIMEOUT",
    default="5m",
    parse=parse_duration,
    remedy=_DURATION_REMEDY,
    meaning="how long to keep retrying a migration that could not get its locks",
)
STATEMENT_TIMEOUT: Final[Setting[float]] = Setting(
    name="GATE_STATEMENT_TIMEOUT",
    default="0",
    parse=parse_duration,
    remedy=_DURATION_REMEDY,
    meaning="PostgreSQL's statement_timeout inside migrations; 0 is none",
)
ROLE: Final[Setting[str | None]] = Setting(
    name="GATE_ROLE",
    default="none",
    parse=_parse_role,
    remedy="Write the name of one role.",
    meaning="SET ROLE for the files: who owns what they create",
)
CHANGED: Final[Setting[Changed]] = Setting(
    name="GATE_CHANGED",
    default="refuse",
    parse=_choice("refuse", "warn"),
    remedy="",
    meaning="a file that differs from what was applied: refuse or warn",
)
OUT_OF_ORDER: Final[Setting[OutOfOrder]] = Setting(
    name="GATE_OUT_OF_ORDER",
    default="apply",
    parse=_choice("apply", "refuse"),
    remedy="",
    meaning="a pending file below the newest applied one: apply or refuse",
)
AHEAD: Final[Setting[Ahead]] = Setting(
    name="GATE_AHEAD",
    default="allow",
    parse=_choice("allow", "refuse"),
    remedy="",
    meaning="history rows that no file here explains: allow or refuse",
)
LOG_FORMAT: Final[Setting[LogFormat]] = Setting(
    name="GATE_LOG_FORMAT",
    default="auto",
    parse=_choice("auto", "json", "console"),
    remedy="",
    meaning="json, console (for a person), or auto: console on a terminal, else json",
)
LOG_LEVEL: Final[Setting[LogLevel]] = Setting(
    name="GATE_LOG_LEVEL",
    default="info",
    parse=_choice("debug", "info", "warning", "error"),
    remedy="",
    meaning="debug, info, warning, error",
)
LOG_DETAIL: Final[Setting[LogDetail]] = Setting(
    name="GATE_LOG_DETAIL",
    default="safe",
    parse=_choice("safe", "full"),
    remedy="",
    meaning="safe, or full: PostgreSQL's messages as they are",
)
HEARTBEAT: Final[Setting[float]] = Setting(
    name="GATE_HEARTBEAT",
    default="10s",
    parse=parse_positive_duration,
    remedy=_DURATION_REMEDY,
    meaning="how often a long statement or a long wait reports",
)
TERMINATION_LOG: Final[Setting[str]] = Setting(
    name="GATE_TERMINATION_LOG",
    default="/dev/termination-log",
    parse=_parse_text,
    remedy="",
    meaning="where the verdict is written when that file exists and can be written",
)

SETTINGS: Final[tuple[Setting[Any], ...]] = (
    MIGRATIONS,
    ALLOW_EMPTY,
    HISTORY_TABLE,
    TIMEOUT,
    WAIT_TIMEOUT,
    AUTH_GRACE,
    CREATE_DATABASE,
    STANDBY,
    LOCK_WAIT_TIMEOUT,
    DDL_LOCK_TIMEOUT,
    DDL_RETRY_TIMEOUT,
    STATEMENT_TIMEOUT,
    ROLE,
    CHANGED,
    OUT_OF_ORDER,
    AHEAD,
    LOG_FORMAT,
    LOG_LEVEL,
    LOG_DETAIL,
    HEARTBEAT,
    TERMINATION_LOG,
)


class _Reader:
    """Reads settings one by one and keeps the faults; empty is unset."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.faults: list[SettingFault] = []

    def read(self, setting: Setting[T], *, default: str | None = None) -> T:
        text = self.environ.get(setting.name) or default or setting.default
        try:
            return setting.parse(text)
        except ValueError as broken:
            self.faults.append(
                SettingFault(name=setting.name, rule=str(broken), remedy=setting.remedy)
            )
            return setting.parse(setting.default)


def from_environ(
    environ: Mapping[str, str],
    *,
    needs_database: bool = True,
    default_migrations: str = MIGRATIONS.default,
) -> Settings:
    """
    Read and judge all settings.

    Raises:
        SettingsError: lists every fault, by name and rule, never by value.
    """
    reader = _Reader(environ)
    database: DatabaseSettings | None = None
    if needs_database:
        database, faults = database_settings(environ)
        reader.faults.extend(faults)
    unknown = _judge_unknown(reader)
    settings = Settings(
        database=database or DatabaseSettings(way="PG", sources=()),
        migrations=reader.read(MIGRATIONS, default=default_migrations),
        allow_empty=reader.read(ALLOW_EMPTY),
        history_table=reader.read(HISTORY_TABLE),
        timeout_s=reader.read(TIMEOUT),
        wait_timeout_s=reader.read(WAIT_TIMEOUT),
        auth_grace_s=reader.read(AUTH_GRACE),
        create_database=reader.read(CREATE_DATABASE),
        standby=reader.read(STANDBY),
        lock_wait_timeout_s=reader.read(LOCK_WAIT_TIMEOUT),
        ddl_lock_timeout_s=reader.read(DDL_LOCK_TIMEOUT),
        ddl_retry_timeout_s=reader.read(DDL_RETRY_TIMEOUT),
        statement_timeout_s=reader.read(STATEMENT_TIMEOUT),
        role=reader.read(ROLE),
        changed=reader.read(CHANGED),
        out_of_order=reader.read(OUT_OF_ORDER),
        ahead=reader.read(AHEAD),
        log_format=reader.read(LOG_FORMAT),
        log_level=reader.read(LOG_LEVEL),
        log_detail=reader.read(LOG_DETAIL),
        heartbeat_s=reader.read(HEARTBEAT),
        termination_log=reader.read(TERMINATION_LOG),
        pod_fields=_pod_fields(environ),
        unknown_settings=unknown,
    )
    if reader.faults:
        raise SettingsError(reader.faults)
    return settings


def log_settings(environ: Mapping[str, str]) -> LogSettings:
    """Read how to log; a malformed setting takes its default."""
    reader = _Reader(environ)
    return LogSettings(
        log_format=reader.read(LOG_FORMAT),
        log_level=reader.read(LOG_LEVEL),
        log_detail=reader.read(LOG_DETAIL),
        termination_log=reader.read(TERMINATION_LOG),
        pod_fields=_pod_fields(environ),
    )


def _pod_fields(environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(
        (field, environ[name]) for name, field in POD_FIELDS if environ.get(name)
    )


def _judge_unknown(reader: _Reader) -> tuple[str, ...]:
    """Return the unknown names; one that is a slip of the pen becomes a fault."""
    known = {setting.name.removeprefix(PREFIX) for setting in SETTINGS}
    unknown = []
    for name, text in sorted(reader.environ.items()):
        bare = name.removeprefix(PREFIX)
        if not text or bare == name or bare in known or is_service_link(name, text):
            continue
        meant = closest(bare, sorted(known))
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
