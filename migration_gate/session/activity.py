"""
Questions about another backend: what it waits for, who blocks it, how far it is.

Reads only; never another session's query text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import psycopg

from psycopg import sql

from migration_gate.connection.qualified import qualified
from migration_gate.session.marks import from_mark


Conn = psycopg.Connection[Any]
ANALYZE_MIN_VERSION: Final = 130000
WAITSTART_MIN_VERSION: Final = 140000
COPY_MIN_VERSION: Final = 140000

OBSERVE: Final = qualified(
    "SELECT wait_event_type = 'Lock', wait_event_type || ':' || wait_event, "
    "application_name, pg_catalog.to_char(backend_start AT TIME ZONE 'UTC', "
    '\'YYYY-MM-DD"T"HH24:MI:SS"Z"\'), {lock_wait_s} '
    "FROM pg_catalog.pg_stat_get_activity({pid})"
)
LOCK_WAIT_S: Final = qualified(
    "CASE WHEN wait_event_type = 'Lock' THEN (SELECT extract(epoch FROM "
    "pg_catalog.clock_timestamp() - pg_catalog.min(waitstart))::pg_catalog.float8 "
    "FROM pg_catalog.pg_locks l WHERE l.pid = {pid} AND NOT granted) END"
)
KEY_HOLDERS: Final = qualified(
    "SELECT l.pid FROM pg_catalog.pg_locks l WHERE locktype = 'advisory' AND granted "
    "AND objsubid = 1 AND classid = {} AND objid = {} "
    "AND l.pid <> pg_catalog.pg_backend_pid() AND l.database = (SELECT oid "
    "FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) "
)
# A session that is idle, and in no transaction, has done its work.
AT_WORK: Final = qualified(
    "AND coalesce((SELECT state "
    "FROM pg_catalog.pg_stat_get_activity(coalesce(l.pid, 0))), '?') <> 'idle' "
)
# Through a pooler the lock's connection is in a transaction, and there the views show
# what they showed first.
FORGET_SNAPSHOT: Final = "SELECT pg_catalog.pg_stat_clear_snapshot()"
BLOCKERS: Final = qualified(
    """
SELECT blocker.pid, a.usename, a.application_name, a.state, extract(
    epoch FROM pg_catalog.clock_timestamp() - coalesce(a.xact_start, a.query_start)
)::pg_catalog.int4, (
    SELECT pg_catalog.concat(n.nspname, '.', c.relname)
    FROM pg_catalog.pg_locks w
    JOIN pg_catalog.pg_class c ON c.oid = w.relation
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE w.pid = %(pid)s AND (NOT w.granted OR w.locktype = 'tuple')
    ORDER BY w.granted LIMIT 1)
FROM pg_catalog.unnest(pg_catalog.pg_blocking_pids(%(pid)s)) AS blocker (pid)
LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = blocker.pid
ORDER BY 1
"""
)
# A prepared transaction has no process. What names it in pg_locks is the lock on its
# own number, which has the same virtual number as its other locks.
PREPARED_BLOCKERS: Final = qualified(
    """
SELECT DISTINCT x.gid, x.owner::pg_catalog.text, x.database::pg_catalog.text, extract(
    epoch FROM pg_catalog.clock_timestamp() - x.prepared)::pg_catalog.int4
FROM pg_catalog.pg_locks w
JOIN pg_catalog.pg_locks h ON h.pid IS NULL AND h.granted AND h.locktype = w.locktype
 AND pg_catalog.json_build_array(
     h.database, h.relation, h.page, h.tuple, h.virtualxid,
     h.transactionid, h.classid, h.objid, h.objsubid)::pg_catalog.text
 = pg_catalog.json_build_array(
     w.database, w.relation, w.page, w.tuple, w.virtualxid,
     w.transactionid, w.classid, w.objid, w.objsubid)::pg_catalog.text
JOIN pg_catalog.pg_locks own ON own.pid IS NULL AND own.locktype = 'transactionid'
 AND own.granted AND own.virtualtransaction = h.virtualtransaction
JOIN pg_catalog.pg_prepared_xacts x ON x.transaction = own.transactionid
WHERE w.pid = %s AND NOT w.granted
ORDER BY 1
"""
)
PREPARED: Final = "prepared transaction"
# What each view counts as done and as all there is.
PROGRESS_VIEWS: Final = (
    ("create_index", "phase", "greatest(blocks_done, 0)", "blocks_total", 0),
    ("vacuum", "phase", "heap_blks_scanned", "heap_blks_total", 0),
    ("cluster", "phase", "heap_blks_scanned", "heap_blks_total", 0),
    (
        "analyze",
        "phase",
        "sample_blks_scanned",
        "sample_blks_total",
        ANALYZE_MIN_VERSION,
    ),
    ("copy", "'copying'", "bytes_processed", "bytes_total", COPY_MIN_VERSION),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """
    What a backend does at a moment; None where the role may not see it.

    ``mark`` is how far its message is: the migration's place in it and the statement.
    ``lock_wait_s`` is how long it has waited for the lock it waits for; None too where
    the server does not keep that.
    """

    waits_for_lock: bool
    lock_wait_s: float | None
    waits_for: str | None
    application: str | None
    since: str | None
    mark: tuple[int, int] | None


def observe(
    conn: Conn, pid: int, *, pooled: bool, times_waits: bool = False
) -> Activity:
    """
    Look what a backend does at this moment.

    Args:
        times_waits: Tell how long it has waited for a lock, which costs a look at all
            of the server's.
    """
    if pooled:
        conn.execute(FORGET_SNAPSHOT)
    is_asked = times_waits and conn.info.server_version >= WAITSTART_MIN_VERSION
    lock_wait_s = LOCK_WAIT_S.format(pid=pid) if is_asked else sql.SQL("NULL")
    query = OBSERVE.format(pid=pid, lock_wait_s=lock_wait_s)
    row = conn.execute(query).fetchone() or (False, None, None, None, None)
    return Activity(
        waits_for_lock=bool(row[0]),
        lock_wait_s=row[4],
        waits_for=row[1],
        application=row[2],
        since=row[3],
        mark=from_mark(row[2] or ""),
    )


def holders_query(key: int) -> sql.Composed:
    """Return the query for the other backends that hold an advisory lock here."""
    unsigned = key & 0xFFFF_FFFF_FFFF_FFFF
    return KEY_HOLDERS.format(unsigned >> 32, unsigned & 0xFFFF_FFFF)


def workers_query(work_key: int) -> sql.Composed:
    """Return the query for the other backends that run a migration at this moment."""
    return holders_query(work_key) + AT_WORK


def find_workers(conn: Conn, work_key: int, *, pooled: bool) -> list[int]:
    """Return the other backends that run a migration of the history at this moment."""
    if pooled:
        conn.execute(FORGET_SNAPSHOT)
    return [row[0] for row in conn.execute(workers_query(work_key))]


def find_blockers(conn: Conn, pid: int) -> tuple[str, ...]:
    """Return who is in a backend's way, and at which table, each as one short text."""
    rows = conn.execute(BLOCKERS, {"pid": pid}).fetchall()
    found = [
        _describe(*who) + (f', at table "{table}"' if table else "")
        for *who, table in rows
        if who[0] != 0
    ]
    if len(found) < len(rows):
        prepared = conn.execute(PREPARED_BLOCKERS, (pid,)).fetchall()
        found += [_describe_prepared(*row) for row in prepared] or [f"a {PREPARED}"]
    return tuple(found)


def _describe_prepared(gid: str, owner: str, database: str, age_s: int) -> str:
    """Say which it is, and what ends it: it belongs to no session."""
    quoted = gid.replace("'", "''")
    return (
        f"{PREPARED} of user {owner} for {age_s} s, which ROLLBACK PREPARED '{quoted}' "
        f"or COMMIT PREPARED '{quoted}' ends, in database {database}"
    )


def _describe(
    pid: int,
    user: str | None,
    application: str | None,
    state: str | None,
    since_s: int | None,
) -> str:
    """Say who it is, as far as the role may see it."""
    words = [f"process {pid}"]
    if user:
        words.append(f"user {user}")
    if application:
        words.append(f"application {application}")
    if state:
        words.append(state if since_s is None else f"{state} for {since_s} s")
    return ", ".join(words)


def find_phase(conn: Conn, pid: int) -> tuple[str, int | None] | None:
    """
    Return what a backend is doing, and how much of it is done in percent.

    From the progress views; None for a statement that has none.
    """
    version = conn.info.server_version
    parts = [
        qualified(
            "SELECT {phase}, CASE WHEN {total} > 0 "
            "THEN (100 * {done} / {total})::pg_catalog.int4 END "
            "FROM pg_catalog.{view} WHERE pid = {pid}"
        ).format(
            phase=sql.SQL(phase),
            done=sql.SQL(done),
            total=sql.SQL(total),
            view=sql.Identifier(f"pg_stat_progress_{view}"),
            pid=pid,
        )
        for view, phase, done, total, since in PROGRESS_VIEWS
        if version >= since
    ]
    row = conn.execute(sql.SQL(" UNION ALL ").join(parts)).fetchone()
    return None if row is None else (row[0], row[1])


def cancel(conn: Conn, pid: int) -> bool:
    """Cancel what a backend of the same role runs; True where the server took it."""
    row = conn.execute("SELECT pg_catalog.pg_cancel_backend(%s)", (pid,)).fetchone()
    return row is not None and bool(row[0])
