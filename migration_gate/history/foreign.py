"""
Find the histories of other tools, and refuse to run what they may have run. Reads only.

Asked only where the gate has no history of its own yet. The columns decide, since every
tool lets its table be named; where they are few, the name has to be the tool's too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from psycopg import sql

from migration_gate.connection.connect import (
    ANSWER_TIMEOUT_S,
    LimitedConnection,
    limited,
)
from migration_gate.connection.qualified import qualified
from migration_gate.connection.waits import NoAnswerError
from migration_gate.history.catalogue import OWNER_IS_TRUSTED, ROLES
from migration_gate.report.errors import HistoryError
from migration_gate.report.quoting import quote_name


@dataclass(frozen=True, slots=True)
class Tool:
    """
    A tool and the form of its history.

    ``columns`` are names and pg_type's names of types, those that are not PostgreSQL's
    own with a dot before them; ``newest`` is the version of the
    row that comes last by ``order``; ``counts`` tells the rows that may have run.
    ``tables`` are the names that the table must have; any name where there are none.
    """

    name: str
    columns: str
    newest: str
    order: str
    counts: str = "true"
    tables: tuple[str, ...] = ()


FLYWAY: Final = (
    "success AND type <> ALL (ARRAY['SCHEMA', 'DELETE', 'UNDO_SQL', 'UNDO'])"
)
TOOLS: Final = (
    Tool(
        "Flyway",
        "installed_rank:int4 version:varchar description:varchar type:varchar "
        "script:varchar installed_by:varchar installed_on:timestamp success:bool",
        "coalesce(version, script)",
        "installed_rank",
        FLYWAY,
    ),
    Tool("golang-migrate or Hasura", "version:int8 dirty:bool", "version", "version"),
    Tool(
        "goose",
        "id:int4 version_id:int8 is_applied:bool tstamp:timestamp",
        "version_id",
        "id",
        "is_applied AND version_id > 0",
    ),
    Tool(
        "sqlx",
        "version:int8 description:text installed_on:timestamptz success:bool "
        "checksum:bytea execution_time:int8",
        "version",
        "version",
    ),
    Tool(
        "Yandex pgmigrate",
        "version:int8 description:text type:.schema_version_type installed_by:text "
        "installed_on:timestamp",
        "version",
        "version",
    ),
    Tool("Diesel", "version:varchar run_on:timestamp", "version", "version"),
    Tool(
        "refinery",
        "version:int4|int8 name:varchar applied_on:varchar checksum:varchar",
        "version",
        "version",
    ),
    Tool(
        "Prisma",
        "id:varchar checksum:varchar finished_at:timestamptz migration_name:varchar "
        "rolled_back_at:timestamptz started_at:timestamptz applied_steps_count:int4",
        "migration_name",
        "started_at",
        "rolled_back_at IS NULL",
    ),
    Tool(
        "Atlas",
        "version:varchar description:varchar type:int8 applied:int8 total:int8 "
        "executed_at:timestamptz hash:varchar operator_version:varchar",
        "version",
        "version",
        "version <> '.atlas_cloud_identifier'",
    ),
    Tool(
        "Liquibase",
        "id:varchar author:varchar filename:varchar orderexecuted:int4 "
        "exectype:varchar md5sum:varchar",
        "id",
        "orderexecuted",
        "exectype <> ALL (ARRAY['SKIPPED', 'FAILED'])",
    ),
    Tool(
        "graphile-migrate",
        "hash:text previous_hash:text filename:text date:timestamptz",
        "filename",
        "filename",
    ),
    Tool(
        "pgmigrate",
        "id:text checksum:text execution_time_in_millis:int8 applied_at:timestamptz",
        "id",
        "id",
    ),
    Tool(
        "yoyo",
        "migration_hash:varchar migration_id:varchar applied_at_utc:timestamp",
        "migration_id",
        "applied_at_utc",
    ),
    Tool(
        "Sqitch",
        "change_id:text script_hash:text change:text project:text "
        "committed_at:timestamptz planner_name:text",
        "change",
        "committed_at",
        tables=("changes",),
    ),
    Tool(
        "pgroll",
        "schema:name name:text migration:jsonb created_at:timestamptz|timestamp "
        "parent:text done:bool",
        "name",
        "created_at",
    ),
    Tool(
        "Evolve",
        "id:int4 type:int2 version:varchar description:varchar name:varchar "
        "checksum:varchar installed_by:varchar installed_on:timestamp success:bool",
        "coalesce(version, name)",
        "id",
        "success AND type = ANY (ARRAY[0, 3, 4]::pg_catalog.int2[])",
    ),
    Tool(
        "MyBatis",
        "id:numeric applied_at:varchar description:varchar",
        "id",
        "id",
        tables=("changelog",),
    ),
    Tool(
        "DbUp",
        "schemaversionsid:int4 scriptname:varchar applied:timestamp",
        "scriptname",
        "schemaversionsid",
    ),
    Tool(
        "grate",
        "id:int8 version_id:int8 script_name:varchar text_of_script:text "
        "text_hash:varchar one_time_script:bool",
        "script_name",
        "id",
    ),
    Tool(
        "Knex",
        "id:int4 name:varchar batch:int4 migration_time:timestamptz",
        "name",
        "id",
    ),
    Tool(
        "Laravel",
        "id:int4 migration:varchar batch:int4",
        "migration",
        "id",
        tables=("migrations",),
    ),
    Tool(
        "Kysely",
        "name:varchar timestamp:varchar",
        "name",
        '"timestamp"',
        tables=("kysely_migration",),
    ),
    Tool(
        "TypeORM",
        "id:int4 timestamp:int8 name:varchar",
        "name",
        '"timestamp"',
        tables=("migrations",),
    ),
    Tool("Sequelize", "name:varchar", "name", "name", tables=("SequelizeMeta",)),
    Tool(
        "MikroORM",
        "id:int4 name:varchar executed_at:timestamptz",
        "name",
        "id",
        tables=("mikro_orm_migrations",),
    ),
    Tool("gormigrate", "id:varchar", "id", "id", tables=("migrations",)),
    Tool(
        "postgres-migrations",
        "id:int4 name:varchar hash:varchar executed_at:timestamp",
        "name",
        "id",
        "id > 0",
        tables=("migrations",),
    ),
    Tool(
        "node-pg-migrate or db-migrate",
        "id:int4 name:varchar run_on:timestamp",
        "name",
        "id",
        tables=("pgmigrations", "migrations"),
    ),
    Tool(
        "Drizzle",
        "id:int4 hash:text created_at:int8",
        "created_at",
        "created_at",
        tables=("__drizzle_migrations",),
    ),
    Tool(
        "sql-migrate",
        "id:text applied_at:timestamptz",
        "id",
        "id",
        tables=("gorp_migrations",),
    ),
    Tool(
        "Django",
        "id:int8|int4 app:varchar name:varchar applied:timestamptz",
        "pg_catalog.concat(app, '.', name)",
        "id",
        tables=("django_migrations",),
    ),
    Tool("Alembic", "version_num:varchar", "version_num", "version_num"),
    Tool(
        "Doctrine",
        "version:varchar executed_at:timestamp execution_time:int4",
        "version",
        "version",
    ),
    Tool(
        "EF Core",
        "MigrationId:varchar ProductVersion:varchar",
        '"MigrationId"',
        '"MigrationId"',
    ),
    Tool(
        "Supabase",
        "version:text statements:_text name:text",
        "version",
        "version",
    ),
    Tool("Ecto", "version:int8 inserted_at:timestamp", "version", "version"),
    Tool(
        "dbmate or Rails",
        "version:varchar",
        "version",
        "version",
        tables=("schema_migrations",),
    ),
    Tool(
        "tern",
        "version:int4",
        "version",
        "version",
        "version > 0",
        tables=("schema_version",),
    ),
)
# Schemas that tools make for themselves.
OWN_SCHEMAS: Final = (
    "atlas_schema_revisions",
    "drizzle",
    "graphile_migrate",
    "grate",
    "hdb_catalog",
    "pgroll",
    "sqitch",
    "supabase_migrations",
)
# One of these is in each history that may have any name.
MARKS: Final = (
    "MigrationId",
    "batch",
    "change_id",
    "dirty",
    "execution_time_in_millis",
    "installed_rank",
    "installed_by",
    "migration",
    "migration_hash",
    "migration_name",
    "orderexecuted",
    "previous_hash",
    "script_name",
    "scriptname",
    "version",
    "version_id",
    "version_num",
)
CANDIDATES: Final = qualified(
    """
WITH RECURSIVE {roles}
SELECT n.nspname, c.relname, pg_catalog.pg_get_userbyid(c.relowner),
       pg_catalog.has_schema_privilege(n.oid, 'USAGE')
       AND pg_catalog.has_table_privilege(c.oid, 'SELECT'),
       pg_catalog.row_security_active(c.oid),
       {owner_is_trusted},
       pg_catalog.json_object_agg(a.attname, CASE WHEN tn.nspname = 'pg_catalog'
           THEN t.typname::pg_catalog.text ELSE pg_catalog.concat('.', t.typname) END)
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
JOIN pg_catalog.pg_namespace tn ON tn.oid = t.typnamespace
WHERE c.relkind = 'r' AND c.relpersistence <> 't'
  AND a.attnum > 0 AND NOT a.attisdropped
  AND n.nspname = ANY (pg_catalog.current_schemas(false)
                       || ARRAY[{schemas}]::pg_catalog.name[])
  AND (c.relname = ANY (ARRAY[{tables}]) OR EXISTS (
      SELECT FROM pg_catalog.pg_attribute m
      WHERE m.attrelid = c.oid AND m.attname = ANY (ARRAY[{marks}])))
GROUP BY n.nspname, c.relname, c.oid, c.relowner, n.oid
ORDER BY n.nspname, c.relname
"""
)
ROWS: Final = sql.SQL(
    "SELECT pg_catalog.count(*), "
    "(pg_catalog.array_agg({newest} ORDER BY {order}))[pg_catalog.count(*)]"
    "::pg_catalog.text FROM ONLY {table} WHERE {counts}"
)


# So many columns tell a tool although there are others beside them.
MANY: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """
    Another tool's history.

    ``unread`` says why its rows are not read; then how many they are is not known, and
    ``count`` is None.
    """

    tool: str
    schema: str
    table: str
    count: int | None = None
    newest: str | None = None
    unread: str = ""


def find_tool(table: str, types: Mapping[str, str]) -> Tool | None:
    """Return the tool whose history has this name and these columns. Pure."""
    for tool in TOOLS:
        if tool.tables and table not in tool.tables:
            continue
        needed = dict(column.split(":") for column in tool.columns.split())
        fits = all(types.get(n) in kinds.split("|") for n, kinds in needed.items())
        others = types.keys() - needed.keys()
        if fits and (len(needed) >= MANY or not others):
            return tool
    return None


def find_foreign(
    conn: LimitedConnection,
    role: str | None = None,
    *,
    limit_s: float = ANSWER_TIMEOUT_S,
) -> Foreign | None:
    """
    Return the first history of another tool that has rows that may have run.

    Whoever owns a table can put a view in its place between two questions, and whoever
    writes its policies has their functions run by the role that reads it: so only
    those rows are read that the gate's own history could have.

    Args:
        role: GATE_ROLE, whose tables are trusted too.
        limit_s: How long each table may be waited for.
    """
    names = sorted({name for tool in TOOLS for name in tool.tables})
    query = CANDIDATES.format(
        roles=ROLES.format(role=role),
        owner_is_trusted=OWNER_IS_TRUSTED,
        schemas=_listed(("public", *OWN_SCHEMAS)),
        tables=_listed(names),
        marks=_listed(MARKS),
    )
    for schema, table, *rights, types in conn.execute(query).fetchall():
        tool = find_tool(table, types)
        if tool is None:
            continue
        found = Foreign(
            tool=tool.name, schema=schema, table=table, unread=_why_unread(*rights)
        )
        if not found.unread:
            found = _count(conn, tool, found, limit_s)
        if found.count != 0:
            return found
    return None


def _why_unread(
    owner: str, may_select: object, has_policies: object, is_trusted: object
) -> str:
    if not may_select:
        return "rows that the role may not read"
    if has_policies:
        return "row security, which may hide its rows from the role"
    if not is_trusted:
        return f"an owner who is not trusted, {quote_name(owner)}: it is not read"
    return ""


def require_no_foreign(conn: LimitedConnection, role: str | None) -> None:
    """
    Refuse to run files where another tool has a history.

    Raises:
        HistoryError: It may have run them.
    """
    found = find_foreign(conn, role)
    if found is None:
        return
    table = f"{quote_name(found.schema)}.{quote_name(found.table)}"
    rows = found.unread
    if found.count is not None:
        rows = f"{found.count} row" + "s" * (found.count != 1)
        rows += f", the newest {found.newest}"
    raise HistoryError(
        f"{found.tool} has a history in this database, and the gate has none: table "
        f"{table} has {rows}",
        hint="Nothing was written. Where the files here are new to this database, set "
        "GATE_ADOPT=none; where the other tool has run some of them, say so of each "
        "first: resolve VERSION --applied.",
    )


def _count(
    conn: LimitedConnection, tool: Tool, found: Foreign, limit_s: float
) -> Foreign:
    """Count the rows that may have run, where no other session keeps the table."""
    query = ROWS.format(
        newest=sql.SQL(tool.newest),
        order=sql.SQL(tool.order),
        table=sql.Identifier(found.schema, found.table),
        counts=qualified(tool.counts),
    )
    try:
        with limited(conn, limit_s):
            count, newest = conn.execute(query).fetchall()[0]
    except NoAnswerError:
        return replace(found, unread="rows that another session keeps from being read")
    return replace(found, count=count, newest=newest)


def _listed(names: Iterable[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Literal, names))
