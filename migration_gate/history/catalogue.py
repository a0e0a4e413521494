"""
Ask the catalogue about the history table, and the server about itself. Reads only.
"""

from __future__ import annotations

import threading

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import psycopg

from psycopg import sql

from migration_gate.connection.qualified import names, qualified
from migration_gate.history.trust import Owners
from migration_gate.settings.settings import HistoryTableName


TABLES_MAX: Final = 20
NOTHING: Final = sql.SQL("")
# Whose tables the gate trusts: SQL for other questions too. Tables of anybody else may
# run code as the login role when they are read.
ROLES: Final = qualified(
    """login AS (
    SELECT oid, rolname FROM pg_catalog.pg_roles
    WHERE rolname = ANY (ARRAY[session_user, current_user])
    UNION
    SELECT r.oid, r.rolname FROM pg_catalog.pg_auth_members m
    JOIN login l ON m.member = l.oid JOIN pg_catalog.pg_roles r ON r.oid = m.roleid
), trusted AS (
    SELECT rolname FROM pg_catalog.pg_roles
    WHERE rolname = {role} OR oid = (
        SELECT datdba FROM pg_catalog.pg_database
        WHERE datname = pg_catalog.current_database())
)
"""
)
IS_ONE_OF: Final = qualified("pg_catalog.pg_get_userbyid(c.relowner) = ANY ({})")
IS_IN: Final = qualified("pg_catalog.pg_has_role(c.relowner, {}, 'MEMBER')")
# The condition on the row ``c`` of pg_class, where a query asks for the roles itself.
OWNER_IS_TRUSTED: Final = qualified(
    """
({is_one} OR EXISTS (SELECT FROM trusted g WHERE {is_in}))
"""
).format(
    is_one=IS_ONE_OF.format(qualified("ARRAY(SELECT rolname FROM login)")),
    is_in=IS_IN.format(sql.SQL("g.rolname")),
)
# Tables of others to which a foreign key passes on that a row of ``c`` was deleted, by
# ON DELETE CASCADE, SET NULL or SET DEFAULT: their triggers run as who deletes it.
FOLLOWING: Final = qualified(
    """
FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class f ON f.oid = t.tgconstrrelid
WHERE t.tgrelid = c.oid AND t.tgfoid = ANY (ARRAY[
        'pg_catalog."RI_FKey_cascade_del"'::pg_catalog.regproc,
        'pg_catalog."RI_FKey_setnull_del"'::pg_catalog.regproc,
        'pg_catalog."RI_FKey_setdefault_del"'::pg_catalog.regproc]::pg_catalog.oid[])
    AND NOT pg_catalog.pg_has_role(f.relowner, c.relowner, 'MEMBER')
"""
)
# What ``find_faults`` takes: schema and name of the table, the foreign key, the owner.
FOLLOWERS: Final = qualified(
    """ARRAY(
SELECT pg_catalog.json_build_array(
    (SELECT n.nspname FROM pg_catalog.pg_namespace n WHERE n.oid = f.relnamespace),
    f.relname,
    (SELECT k.conname FROM pg_catalog.pg_constraint k WHERE k.oid = t.tgconstraint),
    pg_catalog.pg_get_userbyid(f.relowner))
{following})"""
).format(following=FOLLOWING)
# What ``recognise_table`` takes of the row ``c``, a table with what is asked of it.
# Types are told by their names in pg_type: format_type() quotes as parameters say.
TABLE_FACTS: Final = qualified(
    """
        'oid', c.oid::pg_catalog.int8, 'schema', c.nspname, 'name', c.relname,
        'is_usable', c.is_usable, 'is_in_path', c.place IS NOT NULL,
        'is_named', c.is_named,
        'kind', c.relkind, 'persistence', c.relpersistence,
        'rules', ARRAY(
            SELECT r.rulename FROM pg_catalog.pg_rewrite r WHERE r.ev_class = c.oid),
        'triggers', ARRAY(
            SELECT t.tgname FROM pg_catalog.pg_trigger t
            WHERE t.tgrelid = c.oid AND NOT t.tgisinternal),
        'row_security',
            CASE WHEN c.relrowsecurity AND pg_catalog.row_security_active(c.oid)
            THEN CASE WHEN c.relforcerowsecurity THEN 'forced' ELSE 'active' END END,
        'followers', {followers},
        'gate_role', {role}::pg_catalog.text,
        'owner', c.owner, 'owner_is_trusted', c.owner_is_trusted,
        'acting_role', current_user,
        'can_select', rights.can_select, 'can_insert', rights.can_insert,
        'can_update', rights.can_update,
        'can_alter', pg_catalog.pg_has_role(c.relowner, 'USAGE'),
        'version_is_unique', EXISTS (
            SELECT FROM pg_catalog.pg_index i
            JOIN pg_catalog.pg_attribute a
              ON a.attrelid = c.oid AND a.attname = 'version'
            WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid
              AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum
              AND i.indpred IS NULL AND i.indexprs IS NULL),
        'has_failures', EXISTS (
            SELECT FROM pg_catalog.pg_class f
            WHERE f.relnamespace = c.relnamespace
              AND f.relname = pg_catalog.concat(c.relname, '_failures')),
        'has_progress', EXISTS (
            SELECT FROM pg_catalog.pg_class f
            WHERE f.relnamespace = c.relnamespace
              AND f.relname = pg_catalog.concat(c.relname, '_progress')),
        'can_read_all', pg_catalog.has_table_privilege(c.oid, 'SELECT'),
        'can_lock', pg_catalog.has_table_privilege(
            c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE'),
        'columns', rights.columns
"""
)
# The condition on the row ``n`` of pg_namespace that the search path names it.
IS_NAMED: Final = qualified(
    """
n.nspname = ANY (pg_catalog.string_to_array(pg_catalog.translate(
    pg_catalog.current_setting('search_path'), '" ', ''), ',')::pg_catalog.name[])
"""
)
RIGHTS: Final = qualified(
    """
        SELECT pg_catalog.bool_and(
                   pg_catalog.has_column_privilege(c.oid, a.attnum, 'SELECT')
               ) FILTER (WHERE a.attname = ANY (ARRAY[
                   'version', 'applied_at', 'checksum', 'duration_ms'])) AS can_select,
               pg_catalog.bool_and(
                   pg_catalog.has_column_privilege(c.oid, a.attnum, 'INSERT')
               ) FILTER (WHERE a.attname = ANY (ARRAY[
                   'version', 'applied_at', 'checksum', 'gate_version'])) AS can_insert,
               pg_catalog.bool_and(
                   pg_catalog.has_column_privilege(c.oid, a.attnum, 'UPDATE')
                   AND (a.attname <> 'duration_ms' OR
                        pg_catalog.has_column_privilege(c.oid, a.attnum, 'INSERT'))
               ) FILTER (WHERE a.attname = ANY (ARRAY[
                   'applied_at', 'duration_ms'])) AS can_update,
               pg_catalog.json_agg(pg_catalog.json_build_object(
                   'name', a.attname,
                   'type_name', CASE WHEN tn.nspname = 'pg_catalog'
                       THEN t.typname::pg_catalog.text
                       ELSE pg_catalog.concat(tn.nspname, '.', t.typname) END,
                   'is_optional',
                       NOT a.attnotnull OR a.atthasdef OR a.attidentity <> ''
               )) AS columns
        FROM pg_catalog.pg_attribute a
        JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
        JOIN pg_catalog.pg_namespace tn ON tn.oid = t.typnamespace
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
"""
)
CATALOGUE: Final = qualified(
    """
WITH RECURSIVE {roles}, candidate AS (
    SELECT c.*, n.nspname, owner.rolname AS owner,
           pg_catalog.has_schema_privilege(n.oid, 'USAGE') AS is_usable,
           pg_catalog.array_position(path.names, n.nspname) AS place,
           {is_named} AS is_named,
           {owner_is_trusted}
               AS owner_is_trusted
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_roles owner ON owner.oid = c.relowner,
         (SELECT CASE WHEN {schema} IS NULL THEN pg_catalog.current_schemas(false)
                      ELSE ARRAY[{schema}] END AS names) AS path
    WHERE c.relname = ANY ({tables})
      AND c.relkind = ANY (ARRAY['r', 'v', 'm', 'f', 'p']::pg_catalog."char"[])
      {in_schema}
), target AS (
    SELECT c.* FROM candidate c
    WHERE c.place IS NOT NULL OR c.is_named
       OR (c.owner_is_trusted AND c.relkind = 'r' AND c.relpersistence <> 't'
           AND EXISTS (SELECT FROM pg_catalog.pg_attribute a
                       WHERE a.attrelid = c.oid AND a.attname = 'applied_at'))
    ORDER BY c.place, c.is_named DESC, c.nspname LIMIT {limit}
)
SELECT pg_catalog.json_build_object(
    'backend_pid', pg_catalog.pg_backend_pid(),
    'is_standby', pg_catalog.pg_is_in_recovery(),
    'is_read_only', pg_catalog.current_setting('transaction_read_only') = 'on',
    'acting_role', current_user,
    'schema', coalesce({schema}, pg_catalog.current_schema()),
    'search_path', pg_catalog.current_setting('search_path'),
    'schema_exists', {schema} IS NULL OR EXISTS (
        SELECT FROM pg_catalog.pg_namespace WHERE nspname = {schema}),
    'owners', pg_catalog.json_build_object(
        'roles', ARRAY(SELECT rolname FROM login),
        'groups', ARRAY(SELECT rolname FROM trusted))
), (
    SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
        {table_facts}
    ) ORDER BY c.place, c.is_named DESC, c.nspname)
    FROM target c, LATERAL (
        {rights}
    ) AS rights
)
"""
)


# The same of the tables of many schemas at once, each of which is all there is. OFFSET
# keeps the server from looking through all tables of the name for each lot of schemas.
MANY: Final = qualified(
    """
WITH RECURSIVE {roles}, candidate AS (
    SELECT c.*, n.nspname, owner.rolname AS owner,
           pg_catalog.has_schema_privilege(n.oid, 'USAGE') AS is_usable,
           1 AS place, true AS is_named,
           {owner_is_trusted}
               AS owner_is_trusted
    FROM (SELECT oid, nspname FROM pg_catalog.pg_namespace
          WHERE nspname = ANY ({schemas}) OFFSET 0) n,
         LATERAL (SELECT k.* FROM pg_catalog.pg_class k
                  WHERE k.relnamespace = n.oid AND k.relname = ANY ({tables})
                  OFFSET 0) c
    JOIN pg_catalog.pg_roles owner ON owner.oid = c.relowner
    WHERE c.relkind = ANY (ARRAY['r', 'v', 'm', 'f', 'p']::pg_catalog."char"[])
)
SELECT pg_catalog.json_build_object(
        {table_facts})
FROM candidate c, LATERAL (
        {rights}) AS rights
"""
)


# Each statement after it sees what others have committed before it.
READ_COMMITTED: Final = sql.SQL("BEGIN ISOLATION LEVEL READ COMMITTED")
COMMIT: Final = sql.SQL("COMMIT")


class Before(NamedTuple):
    """
    What is done in the same message, before the catalogue is asked.

    It begins a transaction, which stays open unless ``ends``. ``take`` is given the
    rows of its last statement.
    """

    statements: sql.Composable
    take: Callable[[Sequence[Any]], object] = lambda _: None
    ends: bool = False


class Facts(NamedTuple):
    """
    What the catalogue says of the history table, and the server of itself.

    ``schema`` is where the table would be made; None where the search path names no
    schema that exists. ``tables`` are those of its names that may be the history, each
    as ``recognise_table`` takes it: those of the search path first, in its order, then
    those of other schemas that a role has made whom the gate trusts. ``acting_role`` is
    the one that the login acts as: its own, unless its defaults name another.
    ``search_path`` is that of the session. ``is_bare`` tells that the target has no
    table that may be another tool's history, and ``is_shareable`` that a session which
    ran its files may serve another target; both are False where that was not asked.
    """

    backend_pid: int
    is_standby: bool
    is_read_only: bool
    acting_role: str
    schema: str | None
    schema_exists: bool
    search_path: str
    owners: Owners
    tables: tuple[Mapping[str, Any], ...]
    is_bare: bool = False
    is_shareable: bool = False


# The row ``c`` of pg_class, found without a look at each table of its name.
IN_SCHEMA: Final = qualified(
    "AND c.relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = {})"
)
# The same of each table in it: there is no index of the tables of a schema.
TABLES_OF: Final = qualified(
    """
AND c.oid = ANY (ARRAY(
    SELECT d.objid FROM pg_catalog.pg_depend d
    WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
      AND d.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass
      AND d.refobjid = (
          SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = {})))
"""
)


def in_schema(schema: str) -> sql.Composed:
    """Return the condition that a table, of a known name, is in a schema."""
    return IN_SCHEMA.format(schema)


def tables_of(schema: str | None) -> sql.Composable:
    """Return the condition that a table is one of a schema's; None is for any."""
    return sql.SQL("") if schema is None else TABLES_OF.format(schema)


def ask_catalogue(
    conn: psycopg.Connection[Any],
    name: HistoryTableName,
    role: str | None,
    *,
    after: Before | None = None,
    more: sql.Composable = NOTHING,
) -> Facts:
    """
    Ask for the facts. One round trip.

    Args:
        conn: Where to ask.
        name: The history table.
        role: GATE_ROLE.
        after: What is done before it.
        more: What else is told of each table, as json_build_object takes it.
    """
    query = CATALOGUE.format(
        roles=ROLES.format(role=role),
        owner_is_trusted=OWNER_IS_TRUSTED,
        is_named=IS_NAMED,
        schema=sql.SQL("{}::pg_catalog.name").format(name.schema),
        in_schema=sql.SQL("") if name.schema is None else in_schema(name.schema),
        tables=names(name.tables),
        table_facts=TABLE_FACTS.format(role=role, followers=FOLLOWERS) + more,
        rights=RIGHTS,
        limit=TABLES_MAX,
    )
    server, tables = ask_after(conn, query, after)
    owners = Owners(**{who: tuple(names) for who, names in server["owners"].items()})
    return Facts(
        **{**server, "owners": owners},
        tables=tuple({**table, "owners": owners} for table in tables or ()),
    )


class Asking(threading.local):
    """How this thread asks for facts: one of a fleet may know the answer."""

    ask: Callable[..., Facts] = staticmethod(ask_catalogue)


asking: Final = Asking()


def ask_after(
    conn: psycopg.Connection[Any], query: sql.Composed, after: Before | None
) -> tuple[Any, ...]:
    """Return the one row of a query; what is done before it goes in its message."""
    row: tuple[Any, ...]
    if after is None:
        (row,) = conn.execute(query).fetchall()
        return row
    end = [COMMIT] if after.ends else []
    asked = [READ_COMMITTED, after.statements, query, *end]
    *_, before, (row,) = _all_rows(conn.execute(sql.SQL("; ").join(asked)))
    after.take(before)
    return row


def _all_rows(cursor: psycopg.Cursor[Any]) -> list[list[Any]]:
    """Return the rows of each statement that has any columns."""
    found = []
    while True:
        if cursor.description is not None:
            found.append(cursor.fetchall())
        if not cursor.nextset():
            return found


def ask_many(
    conn: psycopg.Connection[Any],
    facts: Facts,
    name: HistoryTableName,
    schemas: Sequence[str],
    role: str | None,
) -> dict[str, Facts]:
    """
    Ask for the facts of many schemas, each as if it alone were asked for.

    Args:
        facts: What the server has said of itself.
        name: The history table; its schema is not looked at.
    """
    query = MANY.format(
        roles=ROLES.format(role=role),
        owner_is_trusted=OWNER_IS_TRUSTED,
        schemas=names(schemas),
        tables=names(name.tables),
        table_facts=TABLE_FACTS.format(role=role, followers=FOLLOWERS),
        rights=RIGHTS,
    )
    found: dict[str, list[Mapping[str, Any]]] = {schema: [] for schema in schemas}
    for (table,) in conn.execute(query).fetchall():
        found[table["schema"]].append({**table, "owners": facts.owners})
    return {
        schema: facts._replace(schema=schema, schema_exists=True, tables=tuple(tables))
        for schema, tables in found.items()
    }


# What follows a file, or the making of a table, asks only for a word: the session has
# no place to keep more, and the row with the names would be looked for each time.
# It is planned anew for each file, and an EXISTS in it would be planned twice.
STILL_TRUSTED: Final = qualified(
    """(
SELECT CASE
    WHEN c.relkind <> 'r' OR c.relpersistence = 't' THEN 'gate:another kind'
    WHEN c.relhastriggers AND (
        SELECT true FROM pg_catalog.pg_trigger t
        WHERE t.tgrelid = c.oid AND NOT t.tgisinternal LIMIT 1) THEN 'gate:a trigger'
    {when_followed}
    WHEN c.relpersistence = 'u' THEN 'gate:unlogged rows'
    WHEN c.relhasrules AND (
        SELECT true FROM pg_catalog.pg_rewrite r WHERE r.ev_class = c.oid LIMIT 1)
        THEN 'gate:a rule'
    WHEN c.relrowsecurity AND pg_catalog.row_security_active(c.oid)
        THEN 'gate:row security'
    WHEN {owner_is_trusted} THEN 'on'
    ELSE 'gate:another owner' END
FROM pg_catalog.pg_class c WHERE c.oid = {table}::pg_catalog.regclass
)"""
)


# Only a row that is deleted reaches them, and to plan this takes as long as the rest.
WHEN_FOLLOWED: Final = qualified(
    """WHEN c.relhastriggers AND (SELECT true {following} LIMIT 1)
THEN 'gate:a foreign key of others'"""
).format(following=FOLLOWING)


def owner_is_trusted(owners: Owners) -> sql.Composed:
    """Return the condition on the row ``c`` of pg_class, the roles being known."""
    conditions = [IS_ONE_OF.format(names(owners.roles))]
    conditions += [
        IS_IN.format(sql.SQL("{}::pg_catalog.name").format(group))
        for group in owners.groups
    ]
    return sql.SQL("({})").format(sql.SQL(" OR ").join(conditions))


def still_trusted(
    schema: str, name: str, owners: Owners, *, deletes: bool
) -> sql.Composed:
    """
    Return the expression that gives "on", or "gate:" and what is wrong.

    Args:
        deletes: Rows are deleted next.
    """
    return STILL_TRUSTED.format(
        when_followed=WHEN_FOLLOWED if deletes else sql.SQL(""),
        owner_is_trusted=owner_is_trusted(owners),
        table=sql.Literal(sql.Identifier(schema, name).as_string()),
    )
