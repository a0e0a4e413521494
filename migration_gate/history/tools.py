"""
The histories of other tools, by which they are known. Pure.

The columns decide, since every tool lets its table be named; where they are few, the
name has to be the tool's too. Loaded only where a table is not the gate's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Tool:
    """
    A tool and the form of its history.

    ``columns`` are names and pg_type's names of types, those that are not PostgreSQL's
    own with a dot before them; ``newest`` is the version of the
    row that comes last by ``order``; ``counts`` tells the rows that may have run.
    ``tables`` are the names that the table must have; any name where there are none.
    ``own`` is a name that, with these columns, no other program gives a table: newer
    ones of the tool, and people, add columns to it.
    """

    name: str
    columns: str
    newest: str
    order: str
    counts: str = "true"
    tables: tuple[str, ...] = ()
    own: str = ""


FLYWAY: Final = (
    "success AND type <> ALL (ARRAY['SCHEMA', 'DELETE', 'UNDO_SQL', 'UNDO'])"
)
DBMATE_OR_RAILS: Final = "dbmate or Rails"
TOOLS: Final = (
    Tool(
        "Flyway",
        "installed_rank:int4 version:varchar description:varchar type:varchar "
        "script:varchar installed_by:varchar installed_on:timestamp success:bool",
        "coalesce(version, script)",
        "installed_rank",
        FLYWAY,
    ),
    Tool(
        "golang-migrate or Hasura",
        "version:int8 dirty:bool",
        "version",
        "version",
        own="schema_migrations",
    ),
    # Of its config v3: version and "dirty" of each, by the name of the database.
    Tool(
        "Hasura",
        "hasura_uuid:uuid version:text upgraded_on:timestamptz cli_state:jsonb "
        "console_state:jsonb",
        "(SELECT pg_catalog.max(pg_catalog.btrim(k::pg_catalog.text, '\"')) "
        "FROM pg_catalog.jsonb_path_query(cli_state, "
        "'$.migrations.* ? (@.type() == \"object\").keyvalue().key') k)",
        "upgraded_on",
        "pg_catalog.jsonb_path_exists(cli_state, '$.migrations.*.*')",
    ),
    Tool(
        "goose",
        "id:int4 version_id:int8 is_applied:bool tstamp:timestamp",
        "version_id",
        "id",
        "is_applied AND version_id > 0",
        own="goose_db_version",
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
    Tool(
        "Diesel",
        "version:varchar run_on:timestamp",
        "version",
        "version",
        own="__diesel_schema_migrations",
    ),
    Tool(
        "refinery",
        "version:int4|int8 name:varchar applied_on:varchar checksum:varchar",
        "version",
        "version",
        own="refinery_schema_history",
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
        own="migrations",
    ),
    Tool(
        "pgmigrate",
        "id:text checksum:text execution_time_in_millis:int8 applied_at:timestamptz",
        "id",
        "id",
        own="pgmigrate_migrations",
    ),
    Tool(
        "yoyo",
        "migration_hash:varchar migration_id:varchar applied_at_utc:timestamp",
        "migration_id",
        "applied_at_utc",
        own="_yoyo_migration",
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
        own="schemaversions",
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
        own="knex_migrations",
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
        own="kysely_migration",
    ),
    Tool(
        "TypeORM",
        "id:int4 timestamp:int8 name:varchar",
        "name",
        '"timestamp"',
        tables=("migrations",),
    ),
    Tool(
        "Sequelize",
        "name:varchar",
        "name",
        "name",
        tables=("SequelizeMeta",),
        own="SequelizeMeta",
    ),
    Tool(
        "MikroORM",
        "id:int4 name:varchar executed_at:timestamptz",
        "name",
        "id",
        tables=("mikro_orm_migrations",),
        own="mikro_orm_migrations",
    ),
    Tool("gormigrate", "id:varchar", "id", "id", tables=("migrations",)),
    Tool(
        "bun",
        "id:int8 name:varchar group_id:int8 migrated_at:timestamptz",
        "name",
        "id",
        tables=("bun_migrations",),
        own="bun_migrations",
    ),
    Tool(
        "go-pg",
        "id:int4 version:int8 created_at:timestamptz",
        "version",
        "id",
        "version > 0",
        tables=("gopg_migrations",),
        own="gopg_migrations",
    ),
    Tool(
        "Ragtime",
        "id:varchar created_at:varchar",
        "id",
        "created_at",
        tables=("ragtime_migrations",),
        own="ragtime_migrations",
    ),
    Tool(
        "rambler",
        "migration:varchar",
        "migration",
        "migration",
        tables=("migrations",),
    ),
    Tool(
        "Play",
        "id:int4 hash:varchar applied_at:timestamp apply_script:text "
        "revert_script:text state:varchar last_problem:text",
        "id",
        "id",
    ),
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
        own="pgmigrations",
    ),
    Tool(
        "Drizzle",
        "id:int4 hash:text created_at:int8",
        "created_at",
        "created_at",
        tables=("__drizzle_migrations",),
        own="__drizzle_migrations",
    ),
    Tool(
        "sql-migrate",
        "id:text applied_at:timestamptz",
        "id",
        "id",
        tables=("gorp_migrations",),
        own="gorp_migrations",
    ),
    Tool(
        "Django",
        "id:int8|int4 app:varchar name:varchar applied:timestamptz",
        "pg_catalog.concat(app, '.', name)",
        "id",
        tables=("django_migrations",),
        own="django_migrations",
    ),
    Tool(
        "Alembic",
        "version_num:varchar",
        "version_num",
        "version_num",
        own="alembic_version",
    ),
    Tool(
        "Doctrine",
        "version:varchar executed_at:timestamp execution_time:int4",
        "version",
        "version",
        own="doctrine_migration_versions",
    ),
    Tool(
        "EF Core",
        "MigrationId:varchar ProductVersion:varchar",
        '"MigrationId"',
        '"MigrationId"',
        own="__EFMigrationsHistory",
    ),
    Tool(
        "Supabase",
        "version:text statements:_text name:text",
        "version",
        "version",
        own="schema_migrations",
    ),
    Tool(
        "Ecto",
        "version:int8 inserted_at:timestamp",
        "version",
        "version",
        own="schema_migrations",
    ),
    Tool(
        DBMATE_OR_RAILS,
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
# The names of those that are told by them, beside their columns.
NAMES: Final = frozenset(name for tool in TOOLS for name in tool.tables)
# One of these is in each history that may have any name.
MARKS: Final = (
    "MigrationId",
    "apply_script",
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
# Where they are looked for beside the search path: some tools make a schema for it.
SCHEMAS: Final = (
    "atlas_schema_revisions",
    "drizzle",
    "graphile_migrate",
    "grate",
    "hdb_catalog",
    "pgroll",
    "public",
    "sqitch",
    "supabase_migrations",
)
# So many columns tell a tool although there are others beside them.
MANY: Final = 5


def find_tool(
    table: str, types: Mapping[str, str], *, is_named: bool = False
) -> Tool | None:
    """
    Return the tool whose history has this name and these columns.

    Args:
        table: Its name.
        types: Of its columns.
        is_named: A person has said which it is, so that it may have any name.
    """
    for tool in TOOLS:
        if tool.tables and not is_named and table not in tool.tables:
            continue
        needed = dict(column.split(":") for column in tool.columns.split())
        fits = all(types.get(n) in kinds.split("|") for n, kinds in needed.items())
        others = types.keys() - needed.keys()
        is_told = table == tool.own or len(needed) >= MANY
        if fits and (is_told or not others):
            return tool
    return None


def find_owner(facts: Mapping[str, Any]) -> Tool | None:
    """Return the tool whose history a table is, by the catalogue's facts."""
    if facts["kind"] != "r":
        return None
    types = {}
    for column in facts["columns"]:
        schema, dot, name = column["type_name"].rpartition(".")
        types[column["name"]] = f".{name}" if dot and schema else name
    return find_tool(facts["name"], types)
