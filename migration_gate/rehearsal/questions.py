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
from migration_gate.rehearsal.facts import MODES, Counts, Relation, Reply


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
CHANGED: Final = qualified(
    """
(pg_catalog.pg_stat_get_xact_tuples_updated({relation}) +
 pg_catalog.pg_stat_get_xact_tuples_deleted({relation}))
"""
)
COUNTS: Final = qualified(
    """
pg_catalog.json_build_array(
    pg_catalog.pg_stat_get_xact_numscans({relation}),
    pg_catalog.pg_stat_get_xact_tuples_returned({relation}), {changed})
"""
)
LOCKS: Final = qualified(
    """
SELECT pg_catalog.json_agg(pg_catalog.json_build_array(
    l.relation::pg_catalog.int8, l.mode, {counts}, {relation}))
FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_class c ON c.oid = l.relation
WHERE l.pid = {pid} AND l.relation >= 16384::pg_catalog.oid
"""
)
# Before a file's first statement: those of the gate's own.
LOCKS_BEFORE: Final = qualified(
    """
SELECT pg_catalog.json_agg(pg_catalog.json_build_array(
    l.relation::pg_catalog.int8, l.mode, NULL, NULL))
FROM pg_catalog.pg_locks l
WHERE l.pid = pg_catalog.pg_backend_pid() AND l.relation >= 16384::pg_catalog.oid
"""
)
# Counters of an earlier transaction may not have been reported yet.
COUNTED: Final = qualified(
    """
SELECT pg_catalog.json_agg(pg_catalog.json_build_array(
    c.oid::pg_catalog.int8, {counts}))
FROM pg_catalog.pg_class c
WHERE c.oid >= 16384::pg_catalog.oid
  AND c.relkind = ANY (ARRAY['r', 'm']::pg_catalog."char"[])
  AND (pg_catalog.pg_stat_get_xact_numscans(c.oid) > 0 OR {changed} > 0)
"""
)
ASKED: Final = qualified(
    """
SELECT pg_catalog.json_build_array(
    extract(epoch FROM pg_catalog.clock_timestamp())::pg_catalog.float8,
    pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_insert_lsn(), '0/0'),
    ({locks}), ({counted}),
    extract(epoch FROM pg_catalog.clock_timestamp())::pg_catalog.float8)
"""
)
OWN_PID: Final = sql.SQL("pg_catalog.pg_backend_pid()")
NOTHING: Final = sql.SQL("NULL")


def questions(conn: psycopg.Connection[Any]) -> dict[str, bytes]:
    """Return what is asked between statements, by the names that ``Observer`` has."""
    locks = _ask_for_locks(OWN_PID)
    relation = sql.SQL("c.oid")
    counted = COUNTED.format(
        counts=_ask_for_counts(relation), changed=CHANGED.format(relation=relation)
    )
    asked = {
        "opening": (LOCKS_BEFORE, counted),
        "resuming": (locks, counted),
        "question": (locks, NOTHING),
        "closing": (NOTHING, NOTHING),
    }
    return {
        name: ASKED.format(locks=locks, counted=counted).as_bytes(conn)
        for name, (locks, counted) in asked.items()
    }


def question_about(pid: int) -> sql.Composed:
    """Return what another session is asked about this one."""
    return ASKED.format(locks=_ask_for_locks(sql.Literal(pid)), counted=NOTHING)


def _ask_for_locks(pid: sql.Composable) -> sql.Composed:
    counts = _ask_for_counts(sql.SQL("l.relation"))
    return LOCKS.format(relation=RELATION, counts=counts, pid=pid)


def _ask_for_counts(relation: sql.SQL) -> sql.Composed:
    return COUNTS.format(relation=relation, changed=CHANGED.format(relation=relation))


def read_reply(said: Any) -> Reply:  # noqa: ANN401  # JSON
    """Read an answer."""
    asked_s, wal_bytes, locks, counted, left_s = said
    modes: dict[int, int] = {}
    counts = {oid: Counts(*count) for oid, count in counted or ()}
    relations = {}
    for oid, mode, count, *columns in locks or ():
        modes[oid] = max(modes.get(oid, 0), rank(mode))
        if count is not None:
            counts[oid] = Counts(*count)
        if columns[0] is not None:
            relations[oid] = to_relation(oid, *columns)
    return Reply(asked_s, left_s, wal_bytes, modes, counts, relations)


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
