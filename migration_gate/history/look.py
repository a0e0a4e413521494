"""
Look at the history table, and at what else a run wants to know. Reads only.

One query looks at everything that a run with nothing pending needs to know.
"""

from __future__ import annotations

import json

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from psycopg import sql

from migration_gate.files.migration import AppliedMigration
from migration_gate.history.table import HistoryTable, judge_table
from migration_gate.report.errors import LoginRefusedError
from migration_gate.report.quoting import quote_name
from migration_gate.settings.settings import HistoryTableName


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """
    What one look at the database showed.

    ``table`` is None where there is no history table yet, and ``history`` is then
    empty; ``history`` has the oldest row first. ``schema`` is where the table is or
    would be made; None where the search path names no schema that exists.
    ``hidden_schema`` is a schema that has the table but that the role may not use.
    """

    backend_pid: int
    is_writable: bool
    is_standby: bool
    login_role: str
    schema: str | None
    schema_exists: bool
    hidden_schema: str | None
    table: HistoryTable | None
    history: tuple[AppliedMigration, ...]


# Reads rows only where the table passes the same tests as judge_table: a planted view
# would run its functions as the login role. ts_stat() runs its text in the same
# snapshot and returns the words in it, here one for each row; the CASE gives it the
# table's name only where there is one, so that no error reaches the server's log.
# query_to_xml() would do the same, but not on a server that was built without libxml.
LOOK = sql.SQL(
    """
WITH RECURSIVE login AS (
    SELECT oid FROM pg_catalog.pg_roles WHERE rolname IN (session_user, current_user)
    UNION
    SELECT m.roleid FROM pg_catalog.pg_auth_members m JOIN login l ON m.member = l.oid
), candidate AS (
    SELECT c.*, n.nspname,
           pg_catalog.has_schema_privilege(n.oid, 'USAGE') AS is_usable,
           pg_catalog.array_position(path.names, n.nspname) AS place
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace,
         (SELECT CASE WHEN {schema}::name IS NULL THEN pg_catalog.current_schemas(false)
                      ELSE ARRAY[{schema}::name] END AS names) AS path
    WHERE c.relname = {table} AND c.relkind NOT IN ('i', 'I', 'S', 't', 'c')
      AND (n.nspname = ANY (path.names) OR ({schema}::name IS NULL
           AND n.nspname = ANY (pg_catalog.string_to_array(pg_catalog.translate(
               pg_catalog.current_setting('search_path'), '" ', ''), ','))))
), target AS (
    SELECT c.oid, c.nspname, c.relname, c.relkind, c.relpersistence, c.relhasrules,
           c.relrowsecurity, owner.rolname AS owner,
           (c.relowner IN (SELECT oid FROM login) OR owner.rolsuper
            OR owner.rolname = {role}
            OR c.relowner = (SELECT datdba FROM pg_catalog.pg_database
                             WHERE datname = pg_catalog.current_database())
           ) AS owner_is_trusted,
           EXISTS (SELECT FROM pg_catalog.pg_trigger t
                   WHERE t.tgrelid = c.oid AND NOT t.tgisinternal) AS has_triggers,
           needed.*,
           EXISTS (
               SELECT FROM pg_catalog.pg_index i
               JOIN pg_catalog.pg_attribute a
                 ON a.attrelid = c.oid AND a.attname = 'version'
               WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid
                 AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum
                 AND i.indpred IS NULL AND i.indexprs IS NULL
           ) AS version_is_unique
    FROM candidate c JOIN pg_catalog.pg_roles owner ON owner.oid = c.relowner,
    LATERAL (
        SELECT pg_catalog.bool_and(
                   pg_catalog.has_column_privilege(c.oid, a.attnum, 'SELECT')
               ) FILTER (WHERE a.attname <> 'gate_version') AS can_select,
               pg_catalog.bool_and(
                   pg_catalog.has_column_privilege(c.oid, a.attnum, 'INSERT')
               ) FILTER (WHERE a.attname <> 'duration_ms') AS can_insert,
               pg_catalog.bool_and(
                   pg_catalog.has_column_privilege(c.oid, a.attnum, 'UPDATE')
               ) FILTER (WHERE a.attname IN ('applied_at', 'duration_ms'))
               AS can_update,
               pg_catalog.bool_or(
                   a.attname = 'applied_at'
                   AND a.atttypid IN ('pg_catalog.timestamp'::pg_catalog.regtype,
                                      'pg_catalog.timestamptz'::pg_catalog.regtype)
               ) AS has_time,
               pg_catalog.bool_or(
                   a.attname = 'applied_at'
                   AND a.atttypid = 'pg_catalog.timestamptz'::pg_catalog.regtype
               ) AS has_zone
        FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
          AND a.attname IN ('version', 'applied_at', 'checksum', 'duration_ms',
                            'gate_version')
    ) AS needed
    WHERE c.is_usable AND c.place IS NOT NULL
    ORDER BY c.place LIMIT 1
), described AS (
    SELECT t.*, (
        SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
            'name', a.attname,
            'type_name', pg_catalog.format_type(a.atttypid, NULL),
            'is_optional',
                NOT a.attnotnull OR a.atthasdef OR a.attidentity <> ''
        ))
        FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
    ) AS columns
    FROM target t
)
SELECT pg_catalog.json_build_object(
    'backend_pid', pg_catalog.pg_backend_pid(),
    'is_standby', pg_catalog.pg_is_in_recovery(),
    'is_read_only', pg_catalog.current_setting('transaction_read_only'),
    'login_role', session_user,
    'schema', coalesce((SELECT nspname FROM target), {schema}::name,
                       pg_catalog.current_schema()),
    'schema_exists', {schema}::name IS NULL OR EXISTS (
        SELECT FROM pg_catalog.pg_namespace WHERE nspname = {schema}::name),
    'hidden_schema', (SELECT nspname FROM candidate WHERE NOT is_usable LIMIT 1),
    'table', (
        SELECT pg_catalog.json_build_object(
            'schema', nspname, 'name', relname, 'owner', owner,
            'kind', relkind, 'persistence', relpersistence,
            'has_rules', relhasrules, 'has_triggers', has_triggers,
            'has_row_security', relrowsecurity,
            'owner_is_trusted', owner_is_trusted,
            'version_is_unique', version_is_unique, 'columns', columns,
            'login_role', session_user, 'can_select', can_select,
            'can_insert', can_insert, 'can_update', can_update,
            'can_alter', pg_catalog.pg_has_role(owner, 'USAGE'))
        FROM described)
)::text, (
    SELECT '[' || pg_catalog.string_agg(
        pg_catalog.substr(word, pg_catalog.strpos(word, '[')), ',') || ']'
    FROM described, pg_catalog.ts_stat(
        CASE WHEN relkind = 'r' AND relpersistence <> 't' AND NOT relhasrules
                  AND NOT has_triggers AND NOT relrowsecurity AND owner_is_trusted
                  AND version_is_unique AND can_select AND has_time
        THEN pg_catalog.format({rows}, nspname, relname,
                               CASE WHEN has_zone THEN ' AT TIME ZONE ''UTC''' END)
        ELSE 'SELECT NULL::pg_catalog.tsvector WHERE false' END)
)
"""
)
# ``absent`` stands in for the columns that a table of another program does not have:
# the inner SELECT finds them there. A word has at most 2046 bytes, and no file a name
# that is cut here. ts_stat() keeps words in a tree that nothing balances: sorted ones,
# as versions are, would make a list of it, so a hash stands in front.
ROWS = """
SELECT pg_catalog.array_to_tsvector(ARRAY[
    pg_catalog.to_hex(pg_catalog.hashtext(h.version))
    || CASE WHEN pg_catalog.octet_length(h.line) < 2000 THEN h.line
            ELSE pg_catalog.json_build_array(
                '...' || pg_catalog.substr(h.version, 1, 200), NULL, NULL, NULL
            )::text END])
FROM (SELECT NULL::text AS checksum, NULL::bigint AS duration_ms) AS absent,
LATERAL (
    SELECT version::text, pg_catalog.json_build_array(
        version::text, checksum,
        pg_catalog.to_char(applied_at%3$s, 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'), duration_ms
    )::text AS line
    FROM %1$I.%2$I
) AS h
"""


def look(
    conn: psycopg.Connection[Any], name: HistoryTableName, role: str | None
) -> Look:
    """
    Look at the server's state and the history. Reads only; one round trip.

    Args:
        name: The history table; without a schema, the search path finds it.
        role: GATE_ROLE, which may own the table.

    Raises:
        HistoryError: The table is another tool's, or cannot be trusted.
        LoginRefusedError: The login role may not read it.
    """
    query = LOOK.format(
        schema=sql.Literal(name.schema),
        table=sql.Literal(name.table),
        role=sql.Literal(role),
        rows=sql.Literal(ROWS),
    )
    facts, rows = _ask(conn, query)
    table = facts["table"]
    return Look(
        backend_pid=facts["backend_pid"],
        is_writable=facts["is_read_only"] == "off" and not facts["is_standby"],
        is_standby=facts["is_standby"],
        login_role=facts["login_role"],
        schema=facts["schema"],
        schema_exists=facts["schema_exists"],
        hidden_schema=facts["hidden_schema"] if table is None else None,
        table=None if table is None else judge_table(table),
        history=_to_history(rows),
    )


def require_readable(seen: Look) -> None:
    """
    Tell a history that is not there from one that the role may not use.

    Raises:
        LoginRefusedError: A schema of the search path has it, but the role lacks USAGE.
    """
    if seen.hidden_schema is not None:
        role = quote_name(seen.login_role)
        raise LoginRefusedError(
            f'role {role} lacks USAGE on schema "{seen.hidden_schema}", which has the '
            "history table",
            hint=f"GRANT USAGE ON SCHEMA {quote_name(seen.hidden_schema)} TO {role};",
        )


def _ask(
    conn: psycopg.Connection[Any], query: sql.Composed
) -> tuple[Mapping[str, Any], list[list[Any]]]:
    """Return the facts and the rows; their texts, perhaps large, are let go of."""
    row = conn.execute(query).fetchone()
    if row is None:
        message = "a SELECT without FROM gave no row"
        raise AssertionError(message)
    return json.loads(row[0]), json.loads(row[1] or "[]")


def _to_history(rows: Iterable[Sequence[Any]]) -> tuple[AppliedMigration, ...]:
    """Make records of rows in any order; the oldest comes first."""
    history = [
        AppliedMigration(
            version=version,
            checksum=checksum,
            applied_at=applied_at or "",
            duration_ms=duration_ms,
        )
        for version, checksum, applied_at, duration_ms in rows
    ]
    return tuple(sorted(history, key=_age))


def _age(row: AppliedMigration) -> tuple[bool, str, str]:
    """Return what rows are sorted by; one without a time counts as the newest."""
    return not row.applied_at, row.applied_at, row.version
