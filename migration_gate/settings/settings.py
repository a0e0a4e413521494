"""
What the environment asks for. Pure.

A setting is a row of ``SETTINGS``, where its name and default live, and a field of
``Settings``, which has its type. The table in ``docs/settings.md`` is compared with
the rows.
"""

from __future__ import annotations

import re

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeVar, get_args

from migration_gate.report.errors import SettingFault, SettingsError
from migration_gate.settings.database import (
    DatabaseSettings,
    Login,
    Source,
    another_database,
    database_settings,
    is_service_link,
    said_beside,
)
from migration_gate.settings.durations import parse_duration, parse_positive_duration
from migration_gate.settings.spelling import closest


if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


T = TypeVar("T")

Changed = Literal["refuse", "warn"]
OutOfOrder = Literal["apply", "refuse"]
Ahead = Literal["allow", "refuse"]
Phase = Literal["all", "before", "after"]
Standby = Literal["wait", "check"]
TargetKind = Literal["schemas", "databases", "file"]
LogFormat = Literal["auto", "json", "console"]
LogLevel = Literal["debug", "info", "warning", "error"]
LogDetail = Literal["safe", "full"]

PREFIX: Final = "GATE_"
VARIABLE_PREFIX: Final = "GATE_VAR_"
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
    """
    Names as PostgreSQL stores them, not quoted; without a schema, search_path's.

    ``is_target`` tells that the schema is one target of a fleet: it has to be there,
    and no other one is looked at.
    """

    schema: str | None
    table: str
    is_target: bool = False

    @property
    def tables(self) -> tuple[str, ...]:
        """Return the names that the table may have; several tools share the first."""
        is_default = self.table == DEFAULT_HISTORY_TABLE.table
        if is_default and (self.schema is None or self.is_target):
            return self.table, OTHER_HISTORY_TABLE
        return (self.table,)


class Targets(NamedTuple):
    """Where a fleet's targets are listed: by a query, or in a file."""

    kind: TargetKind
    source: str


class FailuresMax(NamedTuple):
    """How many targets may fail, or how many of a hundred; None for all of them."""

    limit: float | None
    is_percentage: bool = False

    def allows(self, failed: int, targets: int) -> bool:
        """Tell whether another target may be begun."""
        if self.limit is None:
            return True
        share = targets / 100 if self.is_percentage else 1
        return failed <= self.limit * share


class Adopt(NamedTuple):
    """
    What another tool's history means: ``refuse``, ``none``, or it is taken over.

    ``tool`` is then the tool's name, and ``table`` where its history is, if told.
    """

    word: str
    table: HistoryTableName | None = None

    @property
    def tool(self) -> str | None:
        """Return the tool whose history is taken over."""
        return self.word if self.word in ADOPTED_TOOLS else None


ADOPTED_TOOLS: Final = (
    "golang-migrate",
    "dbmate",
    "goose",
    "tern",
    "sql-migrate",
    "node-pg-migrate",
    "supabase",
    "sqlx",
    "flyway",
    "diesel",
    "prisma",
    "atlas",
    "refinery",
    "graphile-migrate",
    "drizzle",
    "liquibase",
    "yoyo",
)
DEFAULT_HISTORY_TABLE: Final = HistoryTableName(None, "schema_migrations")
OTHER_HISTORY_TABLE: Final = "gate_schema_migrations"


class Settings(NamedTuple):
    """
    All settings, judged. Seconds are 0 where 0 means none or at once.

    ``waits_for_turn`` is False where another gate that applies is not waited for: a
    fleet goes on with another target. ``gives_room`` is True for a target of a fleet:
    no other gate is expected at it, and one that gets no second connection gives its
    first one back. ``search_path`` is what each file begins with, where its session has
    another; empty for what the session has. ``options`` are those of a session of its
    own that has it, where there may be one.
    """

    database: DatabaseSettings
    migrations: str
    allow_empty: bool
    history_table: HistoryTableName
    adopt: Adopt
    baseline: str | None
    timeout_s: float | None
    wait_timeout_s: float
    auth_grace_s: float
    login: Login
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
    phase: Phase
    targets: Targets | None
    target: str | None
    targets_at_once: int
    canaries: int
    failures_max: FailuresMax
    rehearse_refuse: tuple[str, ...]
    rehearse_sizes: DatabaseSettings | None
    log_format: LogFormat
    log_level: LogLevel
    log_detail: LogDetail
    heartbeat_s: float
    termination_log: str
    pod_fields: tuple[tuple[str, str], ...]
    unknown_settings: tuple[str, ...]
    variables: tuple[Source, ...] = ()
    waits_for_turn: bool = True
    gives_room: bool = False
    search_path: str = ""
    options: str | None = None


class LogSettings(NamedTuple):
    """What is needed to log a settings error; fields as in Settings."""

    log_format: LogFormat
    log_level: LogLevel
    log_detail: LogDetail
    termination_log: str
    pod_fields: tuple[tuple[str, str], ...]


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
        return f"{bare}_s" if self.remedy == _DURATION else bare

    @property
    def remedy(self) -> str:
        """Return how to write a value."""
        return _REMEDIES.get(self.parse, "")


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


def _parse_folders(text: str) -> str:
    if not all(_parse_text(text).split(":")):
        raise ValueError("names no folder before or after a colon")
    return text


def _parse_word(text: str) -> str | None:
    return None if text == "none" else _parse_text(text)


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


def _parse_adopt(text: str) -> Adopt:
    """Take refuse, none, a tool, or tool:schema.table."""
    word, colon, table = text.strip().partition(":")
    word = word.lower()
    if word in ADOPTED_TOOLS:
        return Adopt(word, _parse_history_table(table) if colon else None)
    if colon or word not in {"refuse", "none"}:
        raise ValueError("is not refuse, none or the name of a tool")
    return Adopt(word)


def _parse_targets(text: str) -> Targets | None:
    """Take none, schemas:QUERY, databases:QUERY or file:PATH."""
    kind, colon, source = _parse_text(text).strip().partition(":")
    if kind == "none" and not colon:
        return None
    for known in get_args(TargetKind):
        if kind == known and source.strip():
            return Targets(known, source.strip())
    raise ValueError("is not none, schemas:QUERY, databases:QUERY or file:PATH")


def _parse_count(text: str) -> int:
    digits = text.strip()
    if not re.fullmatch("[0-9]{1,9}", digits):
        raise ValueError("is not a whole number")
    return int(digits)


def _parse_positive_count(text: str) -> int:
    count = _parse_count(text)
    if not count:
        raise ValueError("is 0")
    return count


def _parse_failures_max(text: str) -> FailuresMax:
    word = text.strip().lower()
    if word == "all":
        return FailuresMax(None)
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,3})?%|[0-9]{1,9}", word):
        raise ValueError("is not all, a number or a percentage")
    return FailuresMax(float(word.removesuffix("%")), word.endswith("%"))


def _parse_findings(text: str) -> tuple[str, ...]:
    """Take none, or names of findings between commas."""
    if text == "none":
        return ()
    from migration_gate.report.findings import (  # noqa: PLC0415  # for few
        FINDINGS,
        NAMES,
    )

    names = tuple(name.strip() for name in text.split(","))
    if not FINDINGS.keys() >= set(names):
        raise ValueError(f"names what is no finding; the names are: {NAMES}")
    return names


def _choice(*words: T) -> Callable[[str], T]:
    """Return a parser that takes one of the words, in any case."""

    def parse(text: str) -> T:
        for word in words:
            if text.strip().lower() == word:
                return word
        raise ValueError(f"is not one of {', '.join(map(str, words))}")

    return parse


_DURATION: Final = "Write a duration like 30, 30s, 5m, 500ms or 1h."
_REMEDIES: Final[Mapping[Callable[[str], object], str]] = MappingProxyType(
    {
        parse_duration: _DURATION,
        parse_positive_duration: _DURATION,
        _parse_limit: _DURATION,
        _parse_boolean: "Write true or false.",
        _parse_history_table: "Write table or schema.table;"
        " a name with a dot or a space in double quotes.",
        _parse_role: "Write the name of one role.",
        _parse_targets: "A query gives one name a row; a file has one a line.",
        _parse_count: "Write a number like 0, 1 or 10.",
        _parse_positive_count: "Write a number like 1 or 8.",
        _parse_failures_max: "Write all, a number like 3, or a percentage like 5%.",
        _parse_adopt: f"The tools are: {', '.join(ADOPTED_TOOLS)}; a table of another"
        " name is written after the tool, as in goose:audit.goose_db_version. Of any"
        " other tool, what has run is told by GATE_BASELINE.",
    }
)

LOGIN: Final = Setting(
    "GATE_LOGIN",
    "password",
    _choice("password", "azure", "aws", "google"),
    "how the gate proves who it is: by a password, or by the identity of the cloud",
)
SETTINGS: Final = (
    Setting(
        "GATE_MIGRATIONS",
        "migrations",
        _parse_folders,
        "folder of the files, or several with a colon between",
    ),
    Setting(
        "GATE_ALLOW_EMPTY",
        "false",
        _parse_boolean,
        "a folder with no migration opens the gate; otherwise it is an error",
    ),
    Setting(
        "GATE_HISTORY_TABLE",
        DEFAULT_HISTORY_TABLE.table,
        _parse_history_table,
        "history table, table or schema.table",
    ),
    Setting(
        "GATE_ADOPT",
        "refuse",
        _parse_adopt,
        "another tool's history: refuse, none (not looked for), or that tool's name",
    ),
    Setting(
        "GATE_BASELINE",
        "none",
        _parse_word,
        "the last migration that a database with tables and no history has already",
    ),
    Setting("GATE_TIMEOUT", "none", _parse_limit, "all waiting and applying together"),
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
        _parse_boolean,
        "create the database when it does not exist",
    ),
    Setting(
        "GATE_STANDBY",
        "wait",
        _choice("wait", "check"),
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
        _parse_role,
        "SET ROLE for the files: who owns what they create",
    ),
    Setting(
        "GATE_CHANGED",
        "refuse",
        _choice("refuse", "warn"),
        "a file that differs from what was applied: refuse or warn",
    ),
    Setting(
        "GATE_OUT_OF_ORDER",
        "apply",
        _choice("apply", "refuse"),
        "a pending file below the newest applied one: apply or refuse",
    ),
    Setting(
        "GATE_AHEAD",
        "allow",
        _choice("allow", "refuse"),
        "history rows that no file here explains: allow or refuse",
    ),
    Setting(
        "GATE_PHASE",
        "all",
        _choice("all", "before", "after"),
        "what is applied: all, or what comes before, or after, a deployment",
    ),
    Setting(
        "GATE_TARGETS",
        "none",
        _parse_targets,
        "a fleet: the query or the file that lists its schemas or databases",
    ),
    Setting(
        "GATE_TARGET",
        "none",
        _parse_word,
        "one target of GATE_TARGETS, by its name: the run is about that one alone",
    ),
    Setting(
        "GATE_TARGETS_AT_ONCE",
        "8",
        _parse_positive_count,
        "how many targets of a fleet are worked at beside each other",
    ),
    Setting(
        "GATE_CANARIES",
        "0",
        _parse_count,
        "how many targets, the first ones, have to be up to date before any other",
    ),
    Setting(
        "GATE_FAILURES_MAX",
        "all",
        _parse_failures_max,
        "how many targets may fail before no new one is begun: all, 3 or 5%",
    ),
    Setting(
        "GATE_REHEARSE_REFUSE",
        "none",
        _parse_findings,
        "findings that close a rehearsal, between commas",
    ),
    Setting(
        "GATE_REHEARSE_SIZES",
        "none",
        _parse_word,
        "the real database, whose sizes a rehearsal reads and nothing else",
        is_database=True,
    ),
    Setting(
        "GATE_LOG_FORMAT",
        "auto",
        _choice("auto", "json", "console"),
        "json, console (for a person), or auto: console on a terminal, else json",
    ),
    Setting(
        "GATE_LOG_LEVEL",
        "info",
        _choice("debug", "info", "warning", "error"),
        "debug, info, warning, error",
    ),
    Setting(
        "GATE_LOG_DETAIL",
        "safe",
        _choice("safe", "full"),
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
        _parse_text,
        "where the verdict is written when that file exists and can be written",
    ),
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
        return _parse_history_table(table)
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
