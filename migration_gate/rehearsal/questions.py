"""
What is asked between the statements of a file, and how an answer is read.

Asked by the session that runs the file: PostgreSQL keeps its locks until COMMIT. Reads
only.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import psycopg

from psycopg import sql

from migration_gate.connection.qualified import qualified
from migration_gate.rehearsal.facts import MODES, Relation, Reply


# transam.h: FirstNormalObjectId, below which all is PostgreSQL's own.
RELATION: Final = qualified(
    """
    c.relname, (SELECT n.nspname FROM pg_catalog.pg_namespace n
                WHERE n.oid = c.relnamespace),
    c.relkind, c.relpersistence, c.relfilenode::pg_catalog.int8,
    CASE WHEN c.relkind = ANY (ARRAY['i', 'I']::pg_catalog."char"[])
    THEN (SELECT i.indrelid::pg_catalog.int8 FROM pg_catalog.pg_index i
          WHERE i.indexrelid = c.oid) END
"""
)
# Types have no locks of their own: they are known by name.
CATALOGUE: Final = qualified(
    """
SELECT c.oid::pg_catalog.int8, {relation} FROM pg_catalog.pg_class c
WHERE c.oid >= 16384::pg_catalog.oid
UNION ALL
SELECT t.oid::pg_catalog.int8, t.typname, n.nspname, 'T', 'p', 0, NULL
FROM pg_catalog.pg_type t
JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
WHERE t.oid >= 16384::pg_catalog.oid
  AND t.typtype = ANY (ARRAY['e', 'd']::pg_catalog."char"[])
"""
).format(relation=RELATION)
LOCKS: Final = qualified(
    """
SELECT pg_catalog.json_agg(pg_catalog.json_build_array(
    l.relation::pg_catalog.int8, l.mode,
    pg_catalog.pg_stat_get_xact_numscans(l.relation), {relation}))
FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_class c ON c.oid = l.relation
WHERE l.pid = {pid} AND l.relation >= 16384::pg_catalog.oid
"""
)
# Before a file's first statement: those of the gate's own.
LOCKS_BEFORE: Final = qualified(
    """
SELECT pg_catalog.json_agg(pg_catalog.json_build_array(
    l.relation::pg_catalog.int8, l.mode, 0, NULL))
FROM pg_catalog.pg_locks l
WHERE l.pid = pg_catalog.pg_backend_pid() AND l.relation >= 16384::pg_catalog.oid
"""
)
# Counters of an earlier transaction may not have been reported yet.
SCANS: Final = qualified(
    """
SELECT pg_catalog.json_agg(pg_catalog.json_build_array(
    c.oid::pg_catalog.int8, pg_catalog.pg_stat_get_xact_numscans(c.oid)))
FROM pg_catalog.pg_class c
WHERE c.oid >= 16384::pg_catalog.oid
  AND c.relkind = ANY (ARRAY['r', 'm']::pg_catalog."char"[])
  AND pg_catalog.pg_stat_get_xact_numscans(c.oid) > 0
"""
)
ASKED: Final = qualified(
    """
SELECT pg_catalog.json_build_array(
    extract(epoch FROM pg_catalog.clock_timestamp())::pg_catalog.float8,
    pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_insert_lsn(), '0/0'),
    ({locks}), ({scans}),
    extract(epoch FROM pg_catalog.clock_timestamp())::pg_catalog.float8)
"""
)
OWN_PID: Final = sql.SQL("pg_catalog.pg_backend_pid()")
NOTHING: Final = sql.SQL("NULL")


def questions(conn: psycopg.Connection[Any]) -> dict[str, bytes]:
    """Return what is asked between statements, by the names that ``Observer`` has."""
    locks = LOCKS.format(relation=RELATION, pid=OWN_PID)
    asked = {
        "opening": (LOCKS_BEFORE, SCANS),
        "resuming": (locks, SCANS),
        "question": (locks, NOTHING),
        "closing": (NOTHING, NOTHING),
    }
    return {
        name: ASKED.format(locks=locks, scans=scans).as_bytes(conn)
        for name, (locks, scans) in asked.items()
    }


def question_about(pid: int) -> sql.Composed:
    """Return what another session is asked about this one."""
    locks = LOCKS.format(relation=RELATION, pid=sql.Literal(pid))
    return ASKED.format(locks=locks, scans=NOTHING)


def read_reply(said: Any) -> Reply:  # noqa: ANN401  # JSON
    """Read an answer."""
    asked_s, wal_bytes, locks, scans, left_s = said
    modes: dict[int, int] = {}
    counted = dict(scans or ())
    relations = {}
    for oid, mode, count, *columns in locks or ():
        modes[oid] = max(modes.get(oid, 0), rank(mode))
        counted[oid] = max(counted.get(oid, 0), count)
        if columns[0] is not None:
            relations[oid] = to_relation(oid, *columns)
    return Reply(asked_s, left_s, wal_bytes, modes, counted, relations)


def rank(mode: str) -> int:
    """Return how strong a lock is, by its name in pg_locks."""
    name = mode.removesuffix("Lock")
    return MODES.index(name) if name in MODES else 0


def to_relation(  # noqa: PLR0913, PLR0917  # the columns of RELATION, in order
    oid: int,
    name: str,
    schema: str,
    kind: str,
    persistence: str,
    file: int,
    of: int | None,
) -> Relation:
    """Return a relation; one of the session's own is known to nobody."""
    return Relation(oid, schema, name, kind, file, of, is_known=persistence != "t")


def read_catalogue(conn: psycopg.Connection[Any]) -> Iterator[Relation]:
    """Yield every relation that is not PostgreSQL's own. Reads only."""
    for row in conn.execute(CATALOGUE):
        yield to_relation(*row)
