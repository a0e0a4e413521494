"""
What a file runs under: its limits and role before it, and after it what clears up.

Touches no database: a connection only tells how to quote and which version it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final

from psycopg import sql

from migration_gate.connection.qualified import qualified
from migration_gate.execution.message import Own
from migration_gate.execution.worker import Worker, literal, own
from migration_gate.files.script import Script
from migration_gate.history.guarding import expect_trusted, lock_tables
from migration_gate.history.rows import RECORDED
from migration_gate.session.lock import SERVER_KEEPALIVES
from migration_gate.statements import Statement, has_any, string_syntax_set


TRANSACTION_TIMEOUT_MIN_VERSION: Final = 170000
CLIENT_CHECK_INTERVAL: Final = "500ms"
NO_LIMIT: Final = "0ms"
# What is composed once for each of these is kept for so many of the latest.
WORKERS: Final = 32
# A hash of what role and database say that a new session begins with.
DEFAULTS: Final = qualified(
    """(
    SELECT pg_catalog.hashtextextended(COALESCE(pg_catalog.string_agg(
        d.setconfig::pg_catalog.text, ' ' ORDER BY d.setdatabase, d.setrole
    ), ''), 0)
    FROM pg_catalog.pg_db_role_setting d
    WHERE d.setdatabase = ANY (ARRAY[0::pg_catalog.oid, (
        SELECT oid FROM pg_catalog.pg_database
        WHERE datname = pg_catalog.current_database())])
    AND d.setrole = ANY (ARRAY[0::pg_catalog.oid,
        pg_catalog.to_regrole(pg_catalog.quote_ident(SESSION_USER))::pg_catalog.oid])
)"""
)
OUTDATED: Final = "42704"  # there is no such parameter
REQUIRE_DEFAULTS: Final = sql.SQL(
    "SELECT CASE WHEN {defaults} OPERATOR(pg_catalog.<>) {hash}::pg_catalog.int8"
    "{or_unusual} THEN pg_catalog.current_setting('migration_gate.defaults') END"
)
# What a reload of the server's configuration changes in a session that has begun.
OR_UNUSUAL: Final = qualified(
    """ OR pg_catalog.current_setting('standard_conforming_strings') <> 'on'
    OR pg_catalog.current_setting('idle_session_timeout', true) <> '0'"""
)
REQUIRE_PATH: Final = sql.SQL(
    "SELECT CASE WHEN pg_catalog.current_setting('search_path') "
    "OPERATOR(pg_catalog.<>) {}::pg_catalog.text "
    "THEN pg_catalog.current_setting('migration_gate.search_path') END"
)
# A schema that a role has no USAGE on is passed over in the path, without a word.
REQUIRE_SCHEMA: Final = sql.SQL(
    "SELECT CASE WHEN pg_catalog.current_schema() IS NULL "
    "OR pg_catalog.current_schema() OPERATOR(pg_catalog.<>) {}::pg_catalog.name "
    "THEN pg_catalog.current_setting('migration_gate.schema') END"
)
VARIABLE_CLASS: Final = "gate."
ALWAYS_SENT: Final = 4096  # characters
NAME_CALL: Final = b", pg_catalog.set_config('application_name', %b, true)"


def begin(  # noqa: PLR0913  # how a transaction begins, by name
    worker: Worker,
    script: Script,
    modes: bytes = b"",
    *,
    mark: str | None = None,
    writes: tuple[str, ...] = (),
    deletes: bool = False,
) -> list[Own]:
    """
    Begin a transaction with its limits, and say by a mark how far the message is.

    Args:
        writes: The suffixes of the gate's tables that are written; see ``guarding``.
        deletes: Rows of the history are deleted; of progress they always may be.
    """
    lock_s, statement_s = _timeouts_s(worker, script)
    limits = _limits_text(worker, lock_s, statement_s, writes, deletes=deletes)
    if mark is not None:
        limits += NAME_CALL % literal(worker, mark)
    return [
        Own("begin", b"BEGIN " + modes if modes else b"BEGIN"),
        *_lock(worker, lock_s, writes),
        Own("limits", limits),
    ]


@lru_cache(WORKERS)
def _lock(worker: Worker, lock_s: float, writes: tuple[str, ...]) -> tuple[Own, ...]:
    """Lock the gate's tables before the first snapshot, which may be the only one."""
    lock = lock_tables(worker.table, writes) if writes else None
    if lock is None:
        return ()
    limits = {"lock_timeout": _milliseconds(lock_s)}
    if "statement_timeout" not in worker.unlimited:
        limits["statement_timeout"] = NO_LIMIT
    set_local = sql.SQL("SET LOCAL {} = {}")
    return (
        *(
            own(worker, "lock", set_local.format(sql.Identifier(name), value))
            for name, value in limits.items()
        ),
        own(worker, "lock", lock),
    )


def require_defaults(worker: Worker) -> Own:
    """Fail where a session that began now would have other defaults."""
    statement = REQUIRE_DEFAULTS.format(
        defaults=DEFAULTS,
        hash=worker.defaults,
        or_unusual=OR_UNUSUAL if worker.is_presumed else sql.SQL(""),
    )
    return own(worker, "defaults", statement)


def set_variables(
    worker: Worker, script: Script, *, is_local: bool = True
) -> list[Own]:
    """
    Let functions and DO blocks ask for variables, by current_setting('gate.name').

    A large one is sent only with a file that may ask for it.
    """
    values = worker.variables.items()
    asks = any(len(value) > ALWAYS_SENT for _, value in values) and has_any(
        script.content, VARIABLE_CLASS.encode()
    )
    calls = [
        set_config(f"{VARIABLE_CLASS}{name}", value, is_local=is_local)
        for name, value in values
        if asks or len(value) <= ALWAYS_SENT
    ]
    return [own(worker, "variables", select(calls))] if calls else []


# The same for each file, unless its directives say otherwise: composed once.
@lru_cache(WORKERS)
def _limits_text(
    worker: Worker,
    lock_s: float,
    statement_s: float,
    writes: tuple[str, ...],
    *,
    deletes: bool,
) -> bytes:
    calls = [
        *(
            expect_trusted(worker.table, suffix, deletes=deletes or bool(suffix))
            for suffix in writes
        ),
        *limit_calls(worker, lock_s, statement_s, is_local=True),
        work_key_call(worker, is_local=True),
    ]
    if worker.settings.search_path:
        path = worker.settings.search_path
        calls.append(set_config("search_path", path, is_local=True))
    return select(calls).as_bytes(worker.conn)


def become_role(worker: Worker) -> list[Own]:
    """Become GATE_ROLE, where there is one."""
    role = worker.settings.role
    if role is None:
        return []
    statement = sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role))
    return [own(worker, "role", statement), *require_schema(worker)]


def require_schema(worker: Worker) -> list[Own]:
    """Fail where GATE_ROLE would not find the schema that is the target."""
    name = worker.settings.history_table
    if not name.is_target:
        return []
    return [own(worker, "schema", REQUIRE_SCHEMA.format(name.schema))]


# What a file leaves is cleared inside its transaction. Deferred constraints are checked
# first, while the role is still the file's. DISCARD ALL cannot run in a transaction;
# RESET ALL undoes neither role nor session authorization.
CLEAN_UP: Final = (
    "SET CONSTRAINTS ALL IMMEDIATE",
    "CLOSE ALL",
    "UNLISTEN *",
    "DEALLOCATE ALL",
    "SET SESSION AUTHORIZATION DEFAULT",
    "RESET ROLE",
)
DISCARD: Final = ("DISCARD TEMP", "DISCARD SEQUENCES")


def clean_up(
    worker: Worker, script: Script, *, flushes: bool = True
) -> tuple[Own, ...]:
    """
    Clear whatever the file's statements may have left in the session.

    Args:
        flushes: False lets the transaction's COMMIT go without its flush: one that
            follows it in the same message waits for both.
    """
    return _clean_up(worker, *_timeouts_s(worker, script), flushes=flushes)


@lru_cache(WORKERS)
def _clean_up(
    worker: Worker, lock_s: float, statement_s: float, *, flushes: bool
) -> tuple[Own, ...]:
    calls = [
        sql.SQL("pg_catalog.pg_advisory_unlock_all()"),
        # RESET ALL has brought the defaults back, and what follows is the gate's own.
        *(
            set_config(name, value, is_local=True)
            for name, value in _timeouts(worker, lock_s, statement_s).items()
            if name not in worker.unlimited
        ),
        *keep_calls(worker),
        set_config(RECORDED, "", is_local=True),  # whatever the defaults say
        # Before the history is written: a trigger would run as the login role.
        expect_trusted(worker.table),
    ]
    if not flushes:
        calls.append(set_config("synchronous_commit", "off", is_local=True))
    return (
        *(Own("clean up", text.encode()) for text in CLEAN_UP),
        *_require_path(worker),
        Own("clean up", b"RESET ALL"),
        own(worker, "trusted", select(calls)),
        *(Own("clean up", text.encode()) for text in DISCARD),
    )


def _require_path(worker: Worker) -> list[Own]:
    """
    Fail where a file has left the path that was set for it, in a session that is kept.

    Through a pooler there is no other session to do it in.
    """
    path = worker.settings.search_path
    if not path or worker.is_pooled:
        return []
    return [own(worker, "path", REQUIRE_PATH.format(path))]


def restore(worker: Worker, statements: Sequence[Statement]) -> list[Own]:
    """
    Bring back what a file's RESET has taken from the session, where it took it.

    A file is read by standard_conforming_strings = on, unless it says otherwise.
    """
    if not worker.kept_settings:
        return []
    syntaxes = list(filter(None, map(string_syntax_set, statements)))
    if syntaxes[-1:] != ["standard"]:
        return []
    return [own(worker, "setting", select(keep_calls(worker)))]


def limit_calls(
    worker: Worker, lock_s: float, statement_s: float, *, is_local: bool
) -> list[sql.Composable]:
    """
    Return the calls that set the timeouts, whatever role and database say.

    Args:
        lock_s: PostgreSQL's lock_timeout; 0 is none.
        statement_s: PostgreSQL's statement_timeout; 0 is none.
        is_local: For the transaction alone, else for the session.
    """
    values = {
        name: value
        for name, value in _timeouts(worker, lock_s, statement_s).items()
        if value != NO_LIMIT or name not in worker.unlimited
    }
    if worker.watches_client:
        values["client_connection_check_interval"] = CLIENT_CHECK_INTERVAL
    if not worker.is_pooled:
        values |= SERVER_KEEPALIVES
    return [set_config(n, v, is_local=is_local) for n, v in values.items()]


def _timeouts(worker: Worker, lock_s: float, statement_s: float) -> dict[str, str]:
    values = {
        "lock_timeout": _milliseconds(lock_s),
        "statement_timeout": _milliseconds(statement_s),
        "idle_in_transaction_session_timeout": NO_LIMIT,
    }
    if worker.conn.info.server_version >= TRANSACTION_TIMEOUT_MIN_VERSION:
        values["transaction_timeout"] = NO_LIMIT
    return values


def keep_calls(worker: Worker) -> list[sql.Composable]:
    """Return the calls that bring back what holds in the session, not its defaults."""
    kept = worker.kept_settings.items()
    return [set_config(name, value, is_local=False) for name, value in kept]


def work_key_call(worker: Worker, *, is_local: bool) -> sql.Composable:
    """
    Return the call that takes the work key.

    The key is shared and never waited for: whoever holds it still works, which is how
    the next gate sees a backend that an earlier one has left.
    """
    function = "pg_advisory_xact_lock_shared" if is_local else "pg_advisory_lock_shared"
    return sql.SQL("pg_catalog.{}({})").format(sql.SQL(function), worker.work_key)


def set_config(name: str, value: str, *, is_local: bool) -> sql.Composable:
    """Return the call that sets a parameter, as a function."""
    return sql.SQL("pg_catalog.set_config({}, {}, {})").format(name, value, is_local)


def select(calls: Iterable[sql.Composable]) -> sql.Composed:
    """Return one statement of several calls."""
    return sql.SQL("SELECT ") + sql.SQL(", ").join(calls)


def session_limits(
    worker: Worker, script: Script, *, lock_timeout: bool
) -> sql.Composed:
    """
    Return the statement that sets the limits of a session that runs a statement alone.

    Args:
        lock_timeout: False lets a statement wait whose waiting blocks no query.
    """
    lock_s, statement_s = _timeouts_s(worker, script)
    calls = limit_calls(
        worker, lock_s if lock_timeout else 0.0, statement_s, is_local=False
    )
    calls.append(work_key_call(worker, is_local=False))
    return select(calls)


def _timeouts_s(worker: Worker, script: Script) -> tuple[float, float]:
    """Return lock_timeout and statement_timeout: the file's own, or the settings'."""
    settings, directives = worker.settings, script.directives
    lock_s, statement_s = directives.lock_timeout_s, directives.statement_timeout_s
    return (
        settings.ddl_lock_timeout_s if lock_s is None else lock_s,
        settings.statement_timeout_s if statement_s is None else statement_s,
    )


def _milliseconds(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"
