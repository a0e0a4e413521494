"""
Questions about another backend: what it waits for, who blocks it, how far it is.

Reads only; never another session's query text.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import psycopg

from psycopg import sql

from migration_gate.connection.qualified import qualified
from migration_gate.session.marks import from_mark


Conn = psycopg.Connection[Any]
ANALYZE_MIN_VERSION: Final = 130000
WAITSTART_MIN_VERSION: Final = 140000
COPY_MIN_VERSION: Final = 140000

# What waits for its client waits for the gate, which is on its way.
WAITS_FOR: Final = qualified(
    "CASE WHEN wait_event_type <> 'Client' "
    "THEN wait_event_type || ':' || wait_event END"
)
OBSERVE: Final = qualified(
    "SELECT wait_event_type = 'Lock', {waits_for}, "
    "application_name, pg_catalog.to_char(backend_start AT TIME ZONE 'UTC', "
    '\'YYYY-MM-DD"T"HH24:MI:SS"Z"\') FROM pg_catalog.pg_stat_get_activity({pid})'
)
# Each mention of pg_locks copies every lock of the server, while whoever takes or
# releases one waits: a question names it once.
ADVISORY: Final = qualified(
    "SELECT l.pid, l.classid, l.objid FROM pg_catalog.pg_locks l "
    "WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 "
    "AND l.pid <> pg_catalog.pg_backend_pid() AND l.database = (SELECT oid "
    "FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())"
)
KEY_HOLDERS: Final = qualified(
    "SELECT k.pid FROM {advisory} k WHERE k.classid = {upper} AND k.objid = {lower} "
)
# A session that is idle, and in no transaction, has done its work.
AT_WORK: Final = qualified(
    "AND coalesce((SELECT state "
    "FROM pg_catalog.pg_stat_get_activity(coalesce(k.pid, 0))), '?') <> 'idle' "
)
# Through a pooler the lock's connection is in a transaction, and there the views show
# what they showed first.
FORGET_SNAPSHOT: Final = "SELECT pg_catalog.pg_stat_clear_snapshot()"
# The lock first, then who is in its way: of a wait that ends in between nothing is
# said, as what was seen before says more.
WAIT: Final = qualified(
    """
SELECT extract(epoch FROM pg_catalog.clock_timestamp()
               - wait.began)::pg_catalog.float8,
       wait.at_table,
       blocker.pid, a.usename, a.application_name, a.state, extract(
           epoch FROM pg_catalog.clock_timestamp()
               - coalesce(a.xact_start, a.query_start))::pg_catalog.int4
FROM (
    SELECT pg_catalog.min({waitstart}) FILTER (WHERE NOT w.granted) AS began,
           pg_catalog.max(w.pid) FILTER (WHERE NOT w.granted) AS pid, (
           SELECT pg_catalog.concat(n.nspname, '.', c.relname)
           FROM pg_catalog.pg_class c
           JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
           WHERE c.oid = coalesce(
               pg_catalog.max(w.relation) FILTER (WHERE NOT w.granted),
               pg_catalog.max(w.relation))) AS at_table
    FROM pg_catalog.pg_locks w
    WHERE w.pid = {pid} AND (NOT w.granted OR w.locktype = 'tuple')
) AS wait
CROSS JOIN LATERAL pg_catalog.unnest(
    pg_catalog.pg_blocking_pids(wait.pid)) AS blocker (pid)
LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = blocker.pid
ORDER BY blocker.pid
"""
)
NO_WAITSTART: Final = "NULL::pg_catalog.timestamptz"
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


class Activity(NamedTuple):
    """
    What a backend does at a moment; None where the role may not see it.

    ``mark`` is how far its message is: the migration's place in it and the statement.
    """

    waits_for_lock: bool
    waits_for: str | None
    application: str | None
    since: str | None
    mark: tuple[int, int] | None


class LockWait(NamedTuple):
    """
    A backend's wait for a lock: who is in its way, each as one short text.

    ``lasted_s`` is None where it is over, or where the server does not keep it.
    """

    lasted_s: float | None
    blockers: tuple[str, ...]


def observe(conn: Conn, pid: int, *, pooled: bool) -> Activity:
    """Look what a backend does at this moment; no lock of the server is looked at."""
    if pooled:
        conn.execute(FORGET_SNAPSHOT)
    row = conn.execute(OBSERVE.format(waits_for=WAITS_FOR, pid=pid)).fetchone()
    is_waiting, waits_for, application, since = row or (False, None, None, None)
    return Activity(
        waits_for_lock=bool(is_waiting),
        waits_for=waits_for,
        application=application,
        since=since,
        mark=from_mark(application or ""),
    )


def holders_query(key: int, advisory: str | None = None) -> sql.Composed:
    """
    Return the query for the other backends that hold an advisory lock here.

    Args:
        advisory: Where a query that has asked for all of them already keeps them.
    """
    unsigned = key & 0xFFFF_FFFF_FFFF_FFFF
    source = sql.SQL("({})").format(ADVISORY) if advisory is None else sql.SQL(advisory)
    return KEY_HOLDERS.format(
        advisory=source, upper=unsigned >> 32, lower=unsigned & 0xFFFF_FFFF
    )


def workers_query(work_key: int, advisory: str | None = None) -> sql.Composed:
    """Return the query for the other backends that run a migration at this moment."""
    return holders_query(work_key, advisory) + AT_WORK


def find_workers(conn: Conn, work_key: int, *, pooled: bool) -> list[int]:
    """Return the other backends that run a migration of the history at this moment."""
    if pooled:
        conn.execute(FORGET_SNAPSHOT)
    return [row[0] for row in conn.execute(workers_query(work_key))]


def find_wait(conn: Conn, pid: int) -> LockWait:
    """
    Return how long a backend has waited for a lock, and who is in its way, and where.

    It looks at every lock of the server, and holds up who takes or releases one.
    """
    has_start = conn.info.server_version >= WAITSTART_MIN_VERSION
    waitstart = sql.SQL("w.waitstart" if has_start else NO_WAITSTART)
    rows = conn.execute(WAIT.format(waitstart=waitstart, pid=pid)).fetchall()
    found = [
        _describe(*who) + (f', at table "{table}"' if table else "")
        for _, table, *who in rows
        if who[0] != 0
    ]
    if len(found) < len(rows):
        # None where the wait has ended since: what was seen before says more.
        prepared = conn.execute(PREPARED_BLOCKERS, (pid,)).fetchall()
        found += [_describe_prepared(*row) for row in prepared]
    return LockWait(rows[0][0] if rows else None, tuple(found))


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
