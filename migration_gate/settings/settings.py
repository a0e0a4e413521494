"""
What the environment asks for. Pure.

A setting is a field of ``Settings``, which has its type, and a row of ``known``, where
its name and default live.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from migration_gate.settings.sources import DatabaseSettings, Login, Source


Changed = Literal["refuse", "warn"]
OutOfOrder = Literal["apply", "refuse"]
Ahead = Literal["allow", "refuse"]
Phase = Literal["all", "before", "after"]
Standby = Literal["wait", "check"]
TargetKind = Literal["schemas", "databases", "file"]
LogFormat = Literal["auto", "json", "console"]
LogLevel = Literal["debug", "info", "warning", "error"]
LogDetail = Literal["safe", "full"]

IDENTIFIER_BYTES_MAX: Final = 63


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
    first one back. ``search_path`` is what is set for each file, where its session has
    another path; empty for what the session has. ``options`` are what a session that
    begins with a path is given beside it; None where there can be none.
    ``shares_sessions`` tells that a session may serve one target after the other.
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
    shares_sessions: bool = False


class LogSettings(NamedTuple):
    """What is needed to log a settings error; fields as in Settings."""

    log_format: LogFormat
    log_level: LogLevel
    log_detail: LogDetail
    termination_log: str
    target: str | None
    pod_fields: tuple[tuple[str, str], ...]
