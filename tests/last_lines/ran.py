"""What closes the gate in a database that it can use."""

from __future__ import annotations

import signal

from collections.abc import Callable
from contextlib import closing, suppress
from typing import Final

import psycopg

from psycopg import sql

from tests.commands.test_stop import lock_taken
from tests.commands.test_stop_verdict import CALL, STEPS
from tests.fix_gate import Files, Process, Run
from tests.last_lines.stage import A, Scenes, Stage, of_sql
from tests.small_disk import small_disk


SLOW: Final = {"001_a.sql": "SELECT 1;\nSELECT pg_sleep(60);"}
ALTERS: Final = {"001_a.sql": "SELECT 1;\nALTER TABLE t ADD n int;"}
INDEXES: Final = {"001_a.sql": "CREATE INDEX CONCURRENTLY i ON t (id);"}
DEFERRED: Final = (
    "CREATE TABLE r (id int REFERENCES t (id) DEFERRABLE INITIALLY DEFERRED);\n"
)
COMMIT_TRIGGER: Final = """CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN RAISE 'card 4111'; END $$;
CREATE CONSTRAINT TRIGGER no AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION no();
INSERT INTO t VALUES (1);"""


def no_right_on_history(stage: Stage) -> Run:
    """Another role has made it, and granted nothing."""
    stage.run()
    return stage.run(database=stage.login())


def no_role(stage: Stage) -> Run:
    """The login role is no member of GATE_ROLE."""
    owner = stage.database.role("owner", attributes="NOLOGIN")
    app = stage.login("CREATE ON SCHEMA public")
    return stage.run(database=app, env={"GATE_ROLE": owner.user})


def restored(stage: Stage, *, by_role: bool) -> Run:
    """Another role has restored the database, and owns all that is in it."""
    other = stage.database.role("restorer")
    owner = stage.database.role("owner", attributes="NOLOGIN")
    app = stage.login(owner.user)
    grants = f"GRANT ALL ON SCHEMA public TO {owner.user}, {app.user}, {other.user}"
    stage.database.execute(grants)
    role = {"GATE_ROLE": owner.user} if by_role else {}
    stage.run(database=app, env=role)
    for table in ("schema_migrations", "a"):
        stage.database.execute(f"ALTER TABLE {table} OWNER TO {other.user}")
    files = {**A, "002_b.sql": "ALTER TABLE a ADD n int;"}
    return stage.run(files=files, database=app, env=role)


def restored_tables(stage: Stage) -> Run:
    """Another role has restored what the files alter."""
    stage.database.execute("CREATE TABLE t (id int)")
    owner = stage.database.role("owner", attributes="NOLOGIN")
    stage.database.execute(f"GRANT ALL ON SCHEMA public TO {owner.user}")
    app = stage.login(owner.user)
    return stage.run(files=ALTERS, database=app, env={"GATE_ROLE": owner.user})


def planted_trigger(stage: Stage) -> Run:
    """The history has a trigger."""
    stage.run()
    stage.database.execute(
        "CREATE FUNCTION spy() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN RETURN NEW; END'; CREATE TRIGGER spy BEFORE INSERT ON "
        "schema_migrations FOR EACH ROW EXECUTE FUNCTION spy()"
    )
    return stage.run(files={**A, "002_b.sql": "SELECT 1;"})


def other_tool(stage: Stage) -> Run:
    """Goose has migrated the database."""
    stage.database.execute(
        "CREATE TABLE goose_db_version (id int, version_id bigint, is_applied bool, "
        "tstamp timestamp); INSERT INTO goose_db_version VALUES (1, 1, true, now())"
    )
    return stage.run()


def two_histories(stage: Stage) -> Run:
    """Two schemas have one."""
    stage.run()
    stage.database.execute(
        "CREATE SCHEMA app; CREATE TABLE app.schema_migrations "
        "(LIKE schema_migrations INCLUDING ALL); INSERT INTO app.schema_migrations "
        "(version) VALUES ('002_b.sql')"
    )
    return stage.run(files={**A, "002_b.sql": "SELECT 1;"})


def applied_and_changed(stage: Stage) -> Run:
    """The file is not what ran."""
    stage.run()
    return stage.run(files={"001_a.sql": "CREATE TABLE a (id bigint);"})


def ahead(stage: Stage) -> Run:
    """The image is older than the database."""
    stage.run(files={**A, "002_b.sql": "SELECT 1;"})
    return stage.run(env={"GATE_AHEAD": "refuse"})


def out_of_order(stage: Stage) -> Run:
    """A file below the newest applied one."""
    stage.run(files={"002_b.sql": "SELECT 1;"})
    return stage.run(
        files={**A, "002_b.sql": "SELECT 1;"}, env={"GATE_OUT_OF_ORDER": "refuse"}
    )


def not_in_latin1(stage: Stage) -> Run:
    """The database's encoding has no such character."""
    latin1 = stage.databases.name()
    with closing(stage.database.server.connect()) as conn:
        conn.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING latin1").format(
                sql.Identifier(latin1.name)
            )
        )
    return stage.run(files={"001_a.sql": "SELECT 1;\nSELECT '€';"}, database=latin1)


def disk_full(stage: Stage) -> Run:
    """A tablespace on 4 MiB."""
    disk = stage.stack.enter_context(small_disk())
    there = stage.elsewhere(stage.new_server("disk"))
    there.database.execute(f"CREATE TABLESPACE small LOCATION '{disk}'")
    return there.run(
        files={
            "001_a.sql": "CREATE TABLE b (v text) TABLESPACE small;\n"
            "INSERT INTO b SELECT repeat('x', 1000) FROM generate_series(1, 8000);"
        }
    )


def of_role(stage: Stage, parameter: str, files: Files) -> Run:
    """The role has a default that is in the way."""
    stage.database.execute("CREATE TABLE t (id int)")
    app = stage.login("CREATE ON SCHEMA public")
    stage.database.execute(f"ALTER ROLE {app.user} SET {parameter}")
    return stage.run(files=files, database=app)


def not_owner(stage: Stage) -> Run:
    """The table is another role's."""
    stage.database.execute("CREATE TABLE t (id int)")
    return stage.run(files=ALTERS, database=stage.login("CREATE ON SCHEMA public"))


def invalid_index(stage: Stage) -> Run:
    """An index of that name is there, and invalid."""
    stage.database.execute("CREATE TABLE t (id int); INSERT INTO t VALUES (1), (1)")
    with suppress(psycopg.errors.UniqueViolation):
        stage.database.execute("CREATE UNIQUE INDEX CONCURRENTLY t_id ON t (id)")
    return stage.run(
        files={"001_a.sql": "CREATE UNIQUE INDEX CONCURRENTLY t_id ON t (id);"}
    )


def behind(stage: Stage, lock: str, run: Callable[[], Run]) -> Run:
    """Somebody holds the table `t`."""
    stage.database.execute("CREATE TABLE t (id int)")
    with stage.busy(lock):
        return run()


def another_gate(stage: Stage, **env: str) -> Run:
    """It keeps the lock and does nothing."""
    with lock_taken(stage.database):
        return stage.run(env=env)


def ended(process: Process, event: str, count: int = 1) -> Run:
    """Send SIGTERM after an event."""
    process.wait_for(event, count=count)
    process.signal(signal.SIGTERM)
    return process.wait(30)


def ended_at(stage: Stage, files: Files, event: str, **env: str) -> Run:
    """SIGTERM in a run, somebody else in the way."""
    return behind(
        stage,
        "LOCK TABLE t IN ROW EXCLUSIVE MODE",
        lambda: ended(stage.start(files=files, env=env), event, 2),
    )


def ended_behind_a_gate(stage: Stage) -> Run:
    """SIGTERM while another gate has the lock."""
    with lock_taken(stage.database):
        return ended(stage.start(env={"GATE_LOCK_WAIT_TIMEOUT": "30s"}), "lock.waiting")


def ended_without_a_server(stage: Stage) -> Run:
    """SIGTERM while nobody listens."""
    away = stage.database.changed(port="1")
    process = stage.start(database=away, env={"GATE_WAIT_TIMEOUT": "30s"})
    return ended(process, "database.retry_scheduled")


def ended_call(stage: Stage) -> Run:
    """SIGTERM while a procedure that commits runs."""
    stage.database.execute(STEPS)
    return ended(stage.start(files=CALL), "migration.progress")


def unresolved(stage: Stage) -> Run:
    """The start after that."""
    ended_call(stage)
    return stage.run(files=CALL)


def standby_missing(stage: Stage) -> Run:
    """A synchronous standby that is not there, while the history is made."""
    server = stage.new_server("sync", synchronous_standby_names="nobody")
    return stage.elsewhere(server).run(env={"GATE_TIMEOUT": "3s"})


def check_of_failed_job(stage: Stage) -> Run:
    """Check waits, the Job that migrates has failed."""
    files = {"001_a.sql": "SELECT 1;\nSELECT 1 / 0;"}
    stage.run(files=files)
    return stage.run("check", files=files)


SCENES: Final[Scenes] = {
    "no right to create": lambda s: s.run(database=s.login()),
    "no right on history": no_right_on_history,
    "GATE_ROLE": no_role,
    "restored by another role": lambda s: restored(s, by_role=False),
    "restored by another role, GATE_ROLE": lambda s: restored(s, by_role=True),
    "tables restored by another role, GATE_ROLE": restored_tables,
    "trigger on history": planted_trigger,
    "other tool": other_tool,
    "two histories": two_histories,
    "changed": applied_and_changed,
    "ahead": ahead,
    "out of order": out_of_order,
    "syntax error": of_sql("CREATE TABEL b (id int);"),
    "missing semicolon": of_sql("CREATE TABLE b (id int)\nCREATE TABLE c ();"),
    "no table": of_sql("INSERT INTO nowhere VALUES (1);"),
    "no column": of_sql("UPDATE t SET nowhere = 1;"),
    "already exists": of_sql("CREATE TABLE t ();"),
    "duplicate": of_sql("INSERT INTO t VALUES (1), (1);"),
    "division": of_sql("SELECT 1 / 0;"),
    "no number": of_sql("INSERT INTO t VALUES ('seven');"),
    "depends": of_sql("CREATE VIEW w AS TABLE t;\nDROP TABLE t;"),
    "at COMMIT": of_sql(DEFERRED + "INSERT INTO r VALUES (7);"),
    "at COMMIT, several": of_sql(
        DEFERRED + "INSERT INTO r VALUES (7);\nUPDATE r SET id = 8;"
    ),
    "trigger at COMMIT": of_sql(COMMIT_TRIGGER),
    "raised": of_sql("DO $$ BEGIN RAISE 'card 4111'; END $$;"),
    "extension": of_sql("CREATE EXTENSION nowhere;"),
    "not the owner": not_owner,
    "encoding": not_in_latin1,
    "disk full": disk_full,
    "temp_file_limit": of_sql(
        "SET temp_file_limit = '64kB';\nSET work_mem = '64kB';\nSELECT count(*) "
        "FROM (SELECT g FROM generate_series(1, 99999) AS g ORDER BY g DESC) AS x;"
    ),
    "statement timeout in the file": of_sql(
        "SET statement_timeout = '100ms';\nSELECT pg_sleep(9);"
    ),
    "GATE_STATEMENT_TIMEOUT": of_sql(
        "SELECT pg_sleep(9);", GATE_STATEMENT_TIMEOUT="100ms"
    ),
    "statement timeout of the role": lambda s: of_role(
        s, "statement_timeout = '1ms'", SLOW
    ),
    "invalid index": invalid_index,
    "locked": lambda s: behind(s, "LOCK TABLE t", lambda: s.run(files=ALTERS)),
    "another gate": another_gate,
    "SIGTERM without a server": ended_without_a_server,
    "SIGTERM at another gate": ended_behind_a_gate,
    "SIGTERM": lambda s: ended(s.start(files=SLOW), "migration.progress"),
    "SIGTERM at a lock": lambda s: ended_at(
        s, ALTERS, "migration.progress", GATE_DDL_LOCK_TIMEOUT="20s"
    ),
    "SIGTERM between attempts": lambda s: ended_at(
        s, ALTERS, "migration.retry_scheduled", GATE_DDL_RETRY_TIMEOUT="30s"
    ),
    "SIGTERM at CONCURRENTLY": lambda s: ended_at(s, INDEXES, "migration.progress"),
    "SIGTERM in a procedure": ended_call,
    "unresolved": unresolved,
    "GATE_TIMEOUT in a statement": lambda s: s.run(
        files=SLOW, env={"GATE_TIMEOUT": "3s"}
    ),
    "GATE_TIMEOUT at a lock": lambda s: behind(
        s,
        "LOCK TABLE t",
        lambda: s.run(
            files=ALTERS, env={"GATE_TIMEOUT": "3s", "GATE_DDL_LOCK_TIMEOUT": "20s"}
        ),
    ),
    "GATE_TIMEOUT at another gate": lambda s: another_gate(
        s, GATE_TIMEOUT="3s", GATE_LOCK_WAIT_TIMEOUT="30s"
    ),
    "no synchronous standby": standby_missing,
    "check, Job failed": check_of_failed_job,
    "check, Job not run": lambda s: s.run("check"),
    "resolve nothing": lambda s: s.run("resolve", "009_x", "--applied"),
}
