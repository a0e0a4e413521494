"""
How the histories are read that can be taken over: a row a tool. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple


class Reader(NamedTuple):
    """
    How a tool's rows are read: expressions over its columns.

    ``tool`` is its name in ``tools.TOOLS``, ``table`` the one that it makes by default,
    in ``schema`` where that is its own. Of several rows with one version the last by
    ``order`` is what holds.
    """

    tool: str
    table: str
    version: str = "version"
    state: str = "'applied'"
    time: str = "NULL"
    checksum: str = "NULL"
    order: str = "version"
    counts: str = "true"
    schema: str | None = None


READERS: Final[Mapping[str, Reader]] = MappingProxyType(
    {
        "golang-migrate": Reader(
            "golang-migrate or Hasura",
            "schema_migrations",
            state="CASE WHEN dirty THEN 'failed' ELSE 'applied' END",
        ),
        "dbmate": Reader("dbmate or Rails", "schema_migrations"),
        # An old goose writes a row for what it undoes; 0 is its own.
        "goose": Reader(
            "goose",
            "goose_db_version",
            version="version_id",
            state="CASE WHEN is_applied THEN 'applied' ELSE 'undone' END",
            time="tstamp",
            order="id",
            counts="version_id > 0",
        ),
        "tern": Reader("tern", "schema_version", counts="version > 0"),
        "sql-migrate": Reader(
            "sql-migrate",
            "gorp_migrations",
            version="id",
            time="applied_at",
            order="id",
        ),
        "node-pg-migrate": Reader(
            "node-pg-migrate or db-migrate",
            "pgmigrations",
            version="name",
            time="run_on",
            order="id",
        ),
        "supabase": Reader(
            "Supabase", "schema_migrations", schema="supabase_migrations"
        ),
        "sqlx": Reader(
            "sqlx",
            "_sqlx_migrations",
            state="CASE WHEN success THEN 'applied' ELSE 'failed' END",
            time="installed_on",
            checksum="pg_catalog.encode(checksum, 'hex')",
        ),
        # CoreMigrationType.java. Repeatable ones have no version, but a file's path.
        "flyway": Reader(
            "Flyway",
            "flyway_schema_history",
            version="CASE WHEN version IS NULL "
            "THEN pg_catalog.regexp_replace(script, '^.*/', '') ELSE version END",
            state="CASE WHEN NOT success THEN 'failed' "
            "WHEN type = ANY (ARRAY['DELETE', 'UNDO_SQL', 'UNDO_SCRIPT', 'UNDO_JDBC'])"
            " THEN 'undone' "
            "WHEN type = ANY (ARRAY['BASELINE', 'SQL_BASELINE']) THEN 'baseline' "
            "ELSE 'applied' END",
            time="installed_on",
            checksum="checksum",
            order="installed_rank",
            counts="version IS NOT NULL OR script ~ '(^|/)R__[^/]*[.]sql$'",
        ),
        "diesel": Reader("Diesel", "__diesel_schema_migrations", time="run_on"),
        # A name has a row for each attempt.
        "prisma": Reader(
            "Prisma",
            "_prisma_migrations",
            version="migration_name",
            state="CASE WHEN rolled_back_at IS NOT NULL THEN 'undone' "
            "WHEN finished_at IS NULL THEN 'failed' ELSE 'applied' END",
            time="finished_at",
            checksum="checksum",
            order="rolled_back_at IS NULL, finished_at IS NULL, started_at",
        ),
        "refinery": Reader(
            "refinery",
            "refinery_schema_history",
            time="applied_on",
            checksum="checksum",
        ),
        # The row has the number alone of what is called 000001-words.sql.
        "graphile-migrate": Reader(
            "graphile-migrate",
            "migrations",
            schema="graphile_migrate",
            version="coalesce(pg_catalog.substring(filename, '^[0-9]+'), filename)",
            time="date",
            checksum="hash",
            order="filename",
        ),
        # The time at which a file was made, by the journal.
        "drizzle": Reader(
            "Drizzle",
            "__drizzle_migrations",
            version="created_at",
            checksum="hash",
            order="created_at, id",
        ),
        # A row for each change set: planning.changesets makes files of them.
        "liquibase": Reader(
            "Liquibase",
            "databasechangelog",
            version="pg_catalog.concat_ws('::', filename, id, author)",
            state="CASE WHEN exectype = ANY (ARRAY['SKIPPED', 'FAILED']) THEN 'failed' "
            "ELSE 'applied' END",
            time="dateexecuted",
            order="orderexecuted",
        ),
        "yoyo": Reader(
            "yoyo",
            "_yoyo_migration",
            version="migration_id",
            time="applied_at_utc AT TIME ZONE 'UTC'",
            order="applied_at_utc",
        ),
        # sql/migrate/migrate.go: bit 1 is a baseline, bit 4 a person's word.
        "atlas": Reader(
            "Atlas",
            "atlas_schema_revisions",
            state="CASE WHEN type = ANY (ARRAY[1, 3, 5, 7]) THEN 'baseline' "
            "WHEN type = ANY (ARRAY[4, 6]) THEN 'applied' "
            "WHEN applied <> total OR error <> '' THEN 'failed' ELSE 'applied' END",
            time="executed_at",
            checksum="hash",
            counts="version <> '.atlas_cloud_identifier'",
        ),
    }
)
