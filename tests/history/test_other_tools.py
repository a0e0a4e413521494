"""What another tool may have run is not run again: its history closes the gate."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from migration_gate.connection.limited import LimitedConnection
from migration_gate.history.foreign import find_foreign
from tests.fix_gate import Gate
from tests.fix_postgres import Database
from tests.history_tables import TWO, tables, versions, why


FOLDER = Path(__file__).parent / "tools"
# The file of each table, as the tool has written it: its tool, table, rows and newest.
HISTORIES = {
    "alembic": ("Alembic", "alembic_version", 1),
    "alembic-2": ("Alembic", "alembic_version", 2),
    "atlas": ("Atlas", "atlas_schema_revisions", 3),
    "atlas-partial": ("Atlas", "atlas_schema_revisions", 3),
    "bun": ("bun", "bun_migrations", 2),
    "dbmate": ("dbmate or Rails", "schema_migrations", 3),
    "dbmate-2": ("dbmate or Rails", "schema_migrations", 2),
    "dbup": ("DbUp", "schemaversions", 2),
    "diesel": ("Diesel", "__diesel_schema_migrations", 2),
    "django": ("Django", "django_migrations", 1),
    "doctrine": ("Doctrine", "doctrine_migration_versions", 1),
    "drizzle": ("Drizzle", "__drizzle_migrations", 2),
    "drizzle-2": ("Drizzle", "__drizzle_migrations", 2),
    "ecto": ("Ecto", "schema_migrations", 2),
    "efcore": ("EF Core", "__EFMigrationsHistory", 1),
    "evolve": ("Evolve", "changelog", 1),
    "flyway": ("Flyway", "flyway_schema_history", 3),
    "flyway-2": ("Flyway", "flyway_schema_history", 5),
    "flyway-3": ("Flyway", "schema_version", 1),
    "flyway-baseline": ("Flyway", "flyway_schema_history", 1),
    "flyway-failed": ("Flyway", "flyway_schema_history", 2),
    "go-pg": ("go-pg", "gopg_migrations", 2),
    "golang-migrate": ("golang-migrate or Hasura", "schema_migrations", 1),
    "golang-migrate-2": ("golang-migrate or Hasura", "schema_migrations", 1),
    "golang-migrate-dirty": ("golang-migrate or Hasura", "schema_migrations", 1),
    "goose": ("goose", "goose_db_version", 3),
    "goose-2": ("goose", "goose_db_version", 2),
    "goose-before-3.22": ("goose", "goose_db_version", 2),
    "graphile-migrate": ("graphile-migrate", "migrations", 3),
    "graphile-migrate-2": ("graphile-migrate", "migrations", 2),
    "grate": ("grate", "ScriptsRun", 1),
    "hasura": ("golang-migrate or Hasura", "schema_migrations", 2),
    "hasura-3": ("Hasura", "hdb_version", 1),
    "knex": ("Knex", "knex_migrations", 2),
    "kysely": ("Kysely", "kysely_migration", 2),
    "laravel": ("Laravel", "migrations", 1),
    "liquibase": ("Liquibase", "databasechangelog", 3),
    "liquibase-2": ("Liquibase", "databasechangelog", 5),
    "mikroorm": ("MikroORM", "mikro_orm_migrations", 2),
    "mybatis": ("MyBatis", "changelog", 2),
    "node-pg-migrate": ("node-pg-migrate or db-migrate", "pgmigrations", 3),
    "node-pg-migrate-2": ("node-pg-migrate or db-migrate", "pgmigrations", 2),
    "pgmigrate-peterldowns": ("pgmigrate", "pgmigrate_migrations", 2),
    "pgmigrate-yandex": ("Yandex pgmigrate", "schema_version", 2),
    "pgroll": ("pgroll", "migrations", 3),
    "play": ("Play", "play_evolutions", 2),
    "prisma": ("Prisma", "_prisma_migrations", 4),
    "ragtime": ("Ragtime", "ragtime_migrations", 2),
    "rails": ("dbmate or Rails", "schema_migrations", 2),
    "rambler": ("rambler", "migrations", 2),
    "refinery": ("refinery", "refinery_schema_history", 3),
    "sequelize-umzug": ("Sequelize", "SequelizeMeta", 2),
    "sequelize-umzug-2": ("Sequelize", "SequelizeMeta", 1),
    "sqitch": ("Sqitch", "changes", 3),
    "sqitch-2": ("Sqitch", "changes", 2),
    "sql-migrate": ("sql-migrate", "gorp_migrations", 2),
    "sqlx": ("sqlx", "_sqlx_migrations", 2),
    "supabase": ("Supabase", "schema_migrations", 2),
    "supabase-2": ("Supabase", "schema_migrations", 2),
    "tern": ("tern", "schema_version", 1),
    "tern-2": ("tern", "schema_version", 1),
    "tern-2.3": ("tern", "schema_version", 1),
    "typeorm": ("TypeORM", "migrations", 2),
    "yoyo": ("yoyo", "_yoyo_migration", 3),
    "yoyo-2": ("yoyo", "_yoyo_migration", 1),
}
# With another column they are what any program may call a table of its own.
LIKE_OTHERS = {"dbmate or Rails", "tern", "MyBatis", "Laravel", "rambler", "TypeORM"}
# As Flyway's, but for its type.
UPLOADS = (
    "uploads (installed_rank int4, version varchar, description varchar, "
    "script varchar, installed_by varchar, installed_on timestamp, success bool)"
)


def test_every_file_is_tried() -> None:
    """None of the folder is left out."""
    assert {path.stem for path in FOLDER.glob("*.sql")} == HISTORIES.keys()


@pytest.mark.server
def test_the_history_of_each_tool_is_found(database: Database) -> None:
    """By its columns, and others beside them; empty, it is no matter."""
    found, left, untold = {}, {}, set[str]()
    for name in HISTORIES:
        with closing(_connect(database)) as conn:
            conn.execute("BEGIN")
            conn.execute((FOLDER / f"{name}.sql").read_text("utf-8"))
            conn.execute("RESET search_path")
            seen = find_foreign(conn)
            assert seen is not None, name
            assert seen.newest, name
            found[name] = (seen.tool, seen.table, seen.count)
            conn.execute(f'ALTER TABLE "{seen.schema}"."{seen.table}" ADD added text')
            altered = find_foreign(conn)
            if altered is None or altered.tool != seen.tool:
                untold.add(seen.tool)
            conn.execute(f'TRUNCATE "{seen.schema}"."{seen.table}" CASCADE')
            left[name] = find_foreign(conn)
            conn.execute("ROLLBACK")
    assert found == HISTORIES
    assert left == dict.fromkeys(HISTORIES)
    assert untold == LIKE_OTHERS


@pytest.mark.parametrize("command", ["migrate", "check", "plan", "status"])
def test_it_closes_the_gate_before_anything_is_written(
    gate: Gate, database: Database, command: str
) -> None:
    """With tool, table, rows and the newest version; GATE_ADOPT=none opens it."""
    database.execute((FOLDER / "goose.sql").read_text("utf-8"))
    before = tables(database)
    run = gate(command, database=database, migrations=TWO)
    assert run.exit_code == 1
    assert (
        "goose has a history in this database, and the gate has none: table"
        " public.goose_db_version has 3 rows, the newest 3"
    ) in run.output
    assert "GATE_ADOPT=none" in run.output
    assert tables(database) == before
    if command == "migrate":
        env = {"GATE_ADOPT": "none"}
        assert gate(database=database, migrations=TWO, env=env).exit_code == 0
        assert gate(database=database, migrations=TWO).exit_code == 0


def test_what_a_person_says_of_each_file_is_believed(
    gate: Gate, database: Database
) -> None:
    """From the first row on, the gate's own history is what counts."""
    database.execute((FOLDER / "flyway.sql").read_text("utf-8"))
    run = gate("resolve", "1_a", "--applied", database=database, migrations=TWO)
    assert run.exit_code == 0, run.output
    assert gate(database=database, migrations=TWO).verdict["applied"] == ["2_b.sql"]
    assert versions(database) == ["1_a.sql", "2_b.sql"]


@pytest.mark.server
def test_a_history_that_cannot_be_read_closes_the_gate(
    gate: Gate, database: Database
) -> None:
    """What is in it is not known."""
    database.execute((FOLDER / "goose.sql").read_text("utf-8"))
    role = database.role("migrator")
    database.execute(f"GRANT CREATE ON SCHEMA public TO {role.user}")
    run = gate(database=role, migrations=TWO)
    assert why(run)[:2] == (1, "history")
    assert "rows that the role may not read" in run.verdict["error_message"]
    adopting = gate(database=role, migrations=TWO, env={"GATE_ADOPT": "goose"})
    assert why(adopting)[:2] == (1, "history")
    grant = f"GRANT SELECT ON public.goose_db_version TO {role.user};"
    assert grant in adopting.verdict["hint"]


@pytest.mark.server
def test_row_security_does_not_hide_a_history(gate: Gate, database: Database) -> None:
    """Supabase's advice for each table: its owner reads on, others see no row."""
    database.execute((FOLDER / "prisma.sql").read_text("utf-8"))
    database.execute("ALTER TABLE public._prisma_migrations ENABLE ROW LEVEL SECURITY")
    assert "has 4 rows" in why(gate(database=database, migrations=TWO))[2]
    role = database.role("migrator")
    database.execute(
        f"GRANT SELECT ON public._prisma_migrations TO {role.user};"
        f"GRANT CREATE ON SCHEMA public TO {role.user}"
    )
    run = gate(database=role, migrations=TWO)
    assert "has row security, which may hide its rows" in why(run)[2]


@pytest.mark.server
def test_nothing_of_another_roles_runs_where_rows_are_counted(
    gate: Gate, database: Database
) -> None:
    """A type that has the name of PostgreSQL's own has casts of its maker's."""
    low, high = database.role("low"), database.role("migrator")
    database.execute(f"GRANT CREATE ON SCHEMA public TO {low.user}, {high.user}")
    low.execute(
        f"""
        CREATE SEQUENCE called; GRANT USAGE ON SEQUENCE called TO PUBLIC;
        CREATE TYPE public.varchar AS (x int);
        CREATE FUNCTION note(public.varchar) RETURNS text LANGUAGE sql VOLATILE AS
            $$ SELECT nextval('public.called')::text $$;
        CREATE CAST (public.varchar AS text) WITH FUNCTION note(public.varchar);
        CREATE TABLE planted (version public.varchar, run_on timestamp);
        INSERT INTO planted VALUES (ROW(1), now());
        GRANT SELECT ON planted TO {high.user}
        """
    )
    assert gate(database=high, migrations=TWO).exit_code == 0
    assert database.fetch("SELECT is_called FROM called") == [(False,)]


@pytest.mark.server
def test_a_table_of_another_roles_is_not_read(gate: Gate, database: Database) -> None:
    """Its owner could put a view in its place meanwhile, and closes the gate only."""
    low, high = database.role("low"), database.role("migrator")
    database.execute(f"GRANT CREATE ON SCHEMA public TO {low.user}, {high.user}")
    low.execute("CREATE TABLE gone (version int8, dirty bool)")
    low.execute(f"GRANT SELECT ON gone TO {high.user}")
    run = gate(database=high, migrations=TWO)
    assert why(run)[:2] == (1, "history")
    assert f"an owner who is not trusted, {low.user}" in why(run)[2]


@pytest.mark.server
def test_a_history_that_is_locked_is_not_waited_for(database: Database) -> None:
    """For as long as another tool migrates, what it may have run is not known."""
    database.execute((FOLDER / "goose.sql").read_text("utf-8"))
    with closing(database.connect()) as other, closing(_connect(database)) as conn:
        other.execute("BEGIN; LOCK TABLE public.goose_db_version")
        seen = find_foreign(conn, limit_s=0.2)
    assert seen is not None
    assert seen.unread == "rows that another session keeps from being read"


def _connect(database: Database) -> LimitedConnection:
    return LimitedConnection.connect(database.url, autocommit=True)


@pytest.mark.server
@pytest.mark.parametrize(
    "table",
    [
        "migrations (id serial PRIMARY KEY, name text, planned timestamp, who text)",
        "changes (id int, version int8, description text, author text)",
        "releases (version varchar PRIMARY KEY)",
        "documents (id int, version int8, name varchar, checksum varchar)",
        "schema_version (version int4, application text)",
        UPLOADS,
    ],
)
def test_a_table_of_the_applications_own_is_no_history(
    gate: Gate, database: Database, table: str
) -> None:
    """It only looks a little like one."""
    name = table.split(" ", maxsplit=1)[0]
    database.execute(f"CREATE TABLE {table}")
    values = "VALUES ('1')" if name == "releases" else "DEFAULT VALUES"
    database.execute(f"INSERT INTO {name} {values}")
    assert gate(database=database, migrations=TWO).exit_code == 0
