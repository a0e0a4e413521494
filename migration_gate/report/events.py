"""
The events of the log: names, levels, sentences and fields. Pure.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple


Level = Literal["debug", "info", "warning", "error"]
LEVELS: Final[dict[Level, int]] = {"debug": 0, "info": 1, "warning": 2, "error": 3}


class Event(NamedTuple):
    """
    One kind of log line.

    ``message`` is a template over the fields; ``fields`` are all there are, in order.
    """

    name: str
    level: Level
    message: str
    fields: tuple[str, ...]


GATE_STARTED = Event(
    "gate.started",
    "info",
    "Started {command} for database {database} on {host}",
    (
        *("command", "gate_version", "host", "port", "database", "user"),
        *("migrations", "migration_count"),
    ),
)
SETTINGS_UNKNOWN = Event(
    "settings.unknown",
    "warning",
    "Settings that this version does not know: {names}",
    ("names",),
)
URL_PASSED_OVER = Event(
    "settings.passed_over",
    "warning",
    "Parameters of the URL that say nothing to the gate: {names}",
    ("names",),
)
FILES_SHARED_NUMBER = Event(
    "files.shared_number",
    "warning",
    "Migrations share a number: {versions}",
    ("versions",),
)
DATABASE_RETRY_SCHEDULED = Event(
    "database.retry_scheduled",
    "warning",
    "Waiting, {waited_s} s so far: {error_message}",
    ("attempt", "wait_s", "waited_s", "reason", "error_message"),
)
DATABASE_READY = Event(
    "database.ready",
    "info",
    "Database answered after {waited_s} s",
    ("attempt", "waited_s", "server_version", "pooled"),
)
DATABASE_STANDBY = Event(
    "database.standby",
    "info",
    "A hot standby, where every migration is applied: nothing is written here",
    (),
)
DATABASE_WAITING = Event(
    "database.waiting",
    "info",
    "Waiting to {doing}, {waited_s} s so far",
    ("doing", "waited_s", "phase", "blockers"),
)
DATABASE_CREATED = Event(
    "database.created", "info", "Created database {database}", ("database",)
)
PLAN_MADE = Event(
    "plan.made",
    "info",
    "{pending_count} pending, {applied_count} applied",
    ("applied_count", "pending_count", "pending"),
)
PLAN_HELD_BACK = Event(
    "plan.held_back",
    "info",
    "Left for after the deployment: {versions}",
    ("versions",),
)
UNKNOWN_VERSIONS = Event(
    "history.unknown_versions",
    "warning",
    "The history has what no file here explains: {versions}",
    ("versions", "targets"),
)
CHANGED_MIGRATIONS = Event(
    "history.changed_migrations",
    "warning",
    "Changed after being applied: {versions}",
    ("versions", "targets"),
)
OUT_OF_ORDER = Event(
    "history.out_of_order",
    "warning",
    "Pending below the newest applied migration: {versions}",
    ("versions", "targets"),
)
REPEATABLES_LEFT = Event(
    "history.repeatables_left",
    "warning",
    "Left as a newer image has made them: {versions}",
    ("versions", "targets"),
)
NOT_ALTERED = Event(
    "history.not_altered",
    "warning",
    "The history table stays without columns of the gate's: {reason}",
    ("reason",),
)
OTHER_TOOL = Event(
    "history.other_tool",
    "warning",
    "Applied by {tool} too, by table {table} (rows: {row_count}, the newest {newest}), "
    "and run again now: {versions}; switch that tool off, and declare what must not "
    "run twice with resolve VERSION --applied",
    ("tool", "table", "row_count", "newest", "versions"),
)
HANDED_OVER = Event(
    "history.handed_over",
    "info",
    "Table {table} and those beside it belong to role {owner} now, which is GATE_ROLE",
    ("table", "owner"),
)
TOOL_WAITING = Event(
    "history.tool_waiting",
    "info",
    "Waiting for {tool}, which is applying, {waited_s} s so far",
    ("tool", "waited_s", "holder_pid", "holder_application"),
)
ADOPTED = Event(
    "history.adopted",
    "info",
    "Took over {row_count} as applied from {tool}, by table {table}",
    ("tool", "table", "row_count", "inferred", "versions"),
)
BASELINE = Event(
    "history.baseline",
    "info",
    "Recorded {row_count} as applied, up to {baseline}",
    ("baseline", "row_count", "versions"),
)
LOCK_WAITING = Event(
    "lock.waiting",
    "info",
    "Waiting for another gate, {waited_s} s so far",
    (
        *("waited_s", "holder_pid", "holder_application"),
        *("holder_since", "holder_waits_for"),
    ),
)
LOCK_ACQUIRED = Event(
    "lock.acquired", "info", "Holding the lock after {waited_s} s", ("waited_s",)
)
MIGRATION_STARTED = Event(
    "migration.started",
    "info",
    "Applying {version}",
    ("version", "checksum", "in_transaction", "statement_count", "attempt"),
)
MIGRATION_RETRY_SCHEDULED = Event(
    "migration.retry_scheduled",
    "warning",
    "{version} could not get its locks: trying again in {wait_s} s",
    (
        *("version", "attempt", "wait_s"),
        *("sqlstate", "reason", "blockers"),
    ),
)
MIGRATION_PROGRESS = Event(
    "migration.progress",
    "info",
    "{version} is at statement {statement} of {statement_count} after {elapsed_s} s",
    (
        *("version", "statement", "statement_count", "line"),
        *("elapsed_s", "phase", "percent", "blockers"),
    ),
)
MIGRATION_NOTICE = Event(
    "migration.notice",
    "info",
    "{severity}: {notice}",
    ("version", "severity", "notice"),
)
MIGRATION_SETTING_SKIPPED = Event(
    "migration.setting_skipped",
    "warning",
    "{version}: this server has no parameter {setting}, its SET is left out",
    ("version", "setting", "line"),
)
MIGRATION_APPLIED = Event(
    "migration.applied",
    "info",
    "Applied {version} in {duration_ms} ms",
    ("version", "applied_at", "duration_ms", "statement_count"),
)
MIGRATION_RESOLVED = Event(
    "migration.resolved",
    "warning",
    "{version} was declared {as}",
    ("version", "as"),
)
TELEMETRY_NOT_SENT = Event(
    "telemetry.not_sent",
    "warning",
    "Telemetry was not sent, or not all of it: {reason}",
    ("reason",),
)
ROLLBACK_PLANNED = Event(
    "rollback.planned",
    "info",
    "{undo_count} to undo, newest first: {undo}",
    ("undo_count", "undo"),
)
MIGRATION_UNDOING = Event(
    "migration.undoing",
    "info",
    "Undoing {version} by {file}",
    ("version", "file", "in_transaction", "statement_count", "attempt"),
)
MIGRATION_UNDONE = Event(
    "migration.undone",
    "info",
    "Undid {version} in {duration_ms} ms",
    ("version", "file", "duration_ms", "statement_count"),
)
FLEET_STARTED = Event(
    "fleet.started",
    "info",
    "A fleet of {target_count} targets, {at_once} at once",
    ("target_count", "at_once", "canary_count", "begins_at"),
)
FLEET_LOOKED = Event(
    "fleet.looked",
    "info",
    "Looked at {target_count} targets in {duration_ms} ms: {up_to_date_count} are up "
    "to date",
    ("target_count", "up_to_date_count", "duration_ms"),
)
FLEET_EMPTY = Event("fleet.empty", "warning", "GATE_TARGETS lists no target", ())
FLEET_POOLED = Event(
    "fleet.pooled",
    "warning",
    "A pooler's sessions may keep what functions or extensions remember of another "
    "schema: name the server's own address for the gate",
    (),
)
FLEET_PROGRESS = Event(
    "fleet.progress",
    "info",
    "{message}",
    (
        *("done_count", "failed_count", "running_count", "left_count"),
        *("per_minute", "ends_at"),
    ),
)
TARGET_PASSED_OVER = Event(
    "target.passed_over",
    "info",
    "Another gate has {target}: looked at again at the end",
    (),
)
TARGET_GONE = Event(
    "target.gone",
    "warning",
    "{target} is not listed any more: {error_message}",
    ("error_message",),
)
SUMMARY_FIELDS = (
    "applied",
    "applied_count",
    "undone",
    "undone_count",
    "waited_s",
    "lock_waited_s",
    "duration_ms",
    "exit_code",
)
FLEET_FIELDS = (
    *("target_count", "done_count", "failed_count", "left_count"),
    *("gone_count", "failed"),
)
GATE_OPENED = Event(
    "gate.opened",
    "info",
    "Gate open: {message}",
    (*SUMMARY_FIELDS, *FLEET_FIELDS, "warnings"),
)
REASON_FIELDS = (
    *("reason", "error_message", "hint"),
    *("version", "file", "line", "column", "sqlstate"),
    *("error_detail", "error_hint", "error_context"),
)
GATE_CLOSED = Event(
    "gate.closed",
    "error",
    "Gate closed: {message}",
    (*SUMMARY_FIELDS, *FLEET_FIELDS, *REASON_FIELDS),
)
TARGET_OPENED = Event(
    "target.opened",
    "info",
    "{target} is up to date: {message}",
    (*SUMMARY_FIELDS, "warnings"),
)
TARGET_CLOSED = Event(
    "target.closed",
    "error",
    "{target} is not up to date: {message}",
    (*SUMMARY_FIELDS, *REASON_FIELDS),
)
GATE_FAILED = Event(
    "gate.failed", "debug", "A fault of the gate itself", ("traceback",)
)
EVENTS: Final = tuple(
    value for value in list(globals().values()) if isinstance(value, Event)
)
VERDICTS: Final = (GATE_OPENED, GATE_CLOSED)
TARGET_ENDS: Final = (TARGET_OPENED, TARGET_CLOSED)
