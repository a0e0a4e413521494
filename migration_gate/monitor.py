"""
Questions about another backend: what it waits for, who blocks it, how far it is.

Reads only; never another session's query text.
"""

from __future__ import annotations

from typing import Any, Final

import psycopg

from psycopg import sql

from migration_gate.compose import MARK


Conn = psycopg.Connection[Any]
ANALYZE_MIN_VERSION: Final = 130000
COPY_MIN_VERSION: Final = 140000

WAITS: Final = """
SELECT wait_event_type = 'Lock', wait_event_type || ':' || wait_event, application_name
FROM pg_catalog.pg_stat_get_activity(%s)
"""
BLOCKERS: Final = """
SELECT blocker.pid, a.usename, a.application_name, a.state,
       extract(epoch FROM clock_timestamp() - coalesce(a.xact_start, a.query_start))::int
FROM pg_catalog.unnest(pg_catalog.pg_blocking_pids(%s)) AS blocker (pid)
LEFT JOIN pg_catalog.pg_stat_activity a USING (pid)
ORDER BY 1
"""
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


def find_worker(conn: Conn, work_key: int) -> int | None:
    """Return the backend that holds the work key: the one that runs a migration."""
    pids = find_key_holders(conn, work_key)
    return pids[0] if pids else None


def find_key_holders(conn: Conn, key: int) -> list[int]:
    """Return the other backends that hold an advisory lock in this database."""
    unsigned = key & 0xFFFF_FFFF_FFFF_FFFF
    rows = conn.execute(
        "SELECT pid FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND granted "
        "AND objsubid = 1 AND classid = %s AND objid = %s "
        "AND pid <> pg_catalog.pg_backend_pid() AND database = (SELECT oid "
        "FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) "
        "ORDER BY pid",
        (unsigned >> 32, unsigned & 0xFFFF_FFFF),
    ).fetchall()
    return [row[0] for row in rows]


def is_waiting_for_lock(conn: Conn, pid: int, *, pooled: bool) -> bool:
    """Tell whether a backend waits for a lock of another at this moment."""
    if pooled:  # in a transaction the view shows what it showed first
        conn.execute("SELECT pg_catalog.pg_stat_clear_snapshot()")
    row = conn.execute(WAITS, (pid,)).fetchone()
    return row is not None and bool(row[0])


def find_blockers(conn: Conn, pid: int) -> tuple[str, ...]:
    """Return who is in a backend's way, each as one short text."""
    return tuple(_describe(*row) for row in conn.execute(BLOCKERS, (pid,)))


def _describe(
    pid: int,
    user: str | None,
    application: str | None,
    state: str | None,
    since_s: int | None,
) -> str:
    """Say who it is, as far as the role may see it."""
    if pid == 0:
        return "a prepared transaction"
    words = [f"process {pid}"]
    if user:
        words.append(f"user {user}")
    if application:
        words.append(f"application {application}")
    if state:
        words.append(state if since_s is None else f"{state} for {since_s} s")
    return ", ".join(words)


def read_mark(conn: Conn, pid: int) -> int | None:
    """Return the number of the statement that a backend's name says it has reached."""
    row = conn.execute(WAITS, (pid,)).fetchone()
    _, found, number = (row[2] if row is not None else "").rpartition(MARK)
    return int(number) if found and number.isdigit() else None


def find_phase(conn: Conn, pid: int) -> tuple[str | None, int | None]:
    """
    Return what a backend is doing, and how much of it is done in percent.

    From the progress views; for a statement that has none, what it waits for.
    """
    version = conn.info.server_version
    parts = [
        sql.SQL(
            "SELECT {phase}, (100 * {done} / nullif({total}, 0))::int "
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
    if row is not None:
        return row[0], row[1]
    waits = conn.execute(WAITS, (pid,)).fetchone()
    return (None if waits is None else waits[1]), None


def cancel(conn: Conn, pid: int) -> bool:
    """Cancel what a backend of the same role runs; True where the server took it."""
    row = conn.execute("SELECT pg_catalog.pg_cancel_backend(%s)", (pid,)).fetchone()
    return row is not None and bool(row[0])
