"""
Forty-odd failures, staged through the real program: each last line alone.

    python -m tests.last_lines [NAME]...

For a reader who has nothing else: does it say what is wrong, where, and what to do?
"""

from __future__ import annotations

import json
import signal
import sys
import tempfile

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

import psycopg

from dev.postgres import Server, find_free_port
from tests.commands.test_stop import lock_taken
from tests.commands.test_stop_verdict import CALL, STEPS
from tests.fix_gate import Files, Gate, Run
from tests.fix_postgres import Database, Databases, look_at


A: Final = {"001_a.sql": "CREATE TABLE a (id int);"}
QUICK: Final = {
    "GATE_HEARTBEAT": "100ms",
    "GATE_WAIT_TIMEOUT": "1s",
    "GATE_AUTH_GRACE": "1s",
    "GATE_DDL_LOCK_TIMEOUT": "200ms",
    "GATE_DDL_RETRY_TIMEOUT": "1s",
    "GATE_LOCK_WAIT_TIMEOUT": "1s",
}


class Stage(NamedTuple):
    """A gate in front of a database, and what is closed after the scene."""

    gate: Gate
    database: Database
    databases: Databases
    stack: ExitStack

    def run(
        self,
        *argv: str,
        files: Files = A,
        database: Database | None = None,
        **env: str,
    ) -> Run:
        """Run the gate to its end."""
        there = database or self.database
        known = {**QUICK, **env}
        return self.gate(*argv, database=there, migrations=files, env=known, timeout=60)

    def sql(self, text: str) -> Run:
        """Apply one file, after a table `t` was made."""
        self.database.execute("CREATE TABLE t (id int UNIQUE, v text)")
        return self.run(files={"001_a.sql": "SELECT 1;\n" + text})

    @contextmanager
    def busy(self, statement: str) -> Iterator[None]:
        """Have somebody in a transaction that has done a statement."""
        with closing(self.database.connect(application_name="report")) as other:
            other.execute("BEGIN")
            other.execute(statement)
            yield

    def login(self, *grants: str) -> Database:
        """Return the database as a new role sees it that was granted this."""
        role = self.database.role("app")
        for grant in grants:
            self.database.execute(f"GRANT {grant} TO {role.user}")
        return role


def nothing_there(stage: Stage, **env: str) -> Run:
    """Nobody listens at this port."""
    away = stage.database.changed(port=str(find_free_port()))
    return stage.gate(database=away, migrations=dict(A), env={**QUICK, **env})


def no_host(stage: Stage) -> Run:
    """The name is unknown."""
    return stage.run(database=stage.database.changed(host="db.invalid"))


def applied_and_changed(stage: Stage) -> Run:
    """The file is not what ran."""
    stage.run()
    return stage.run(files={"001_a.sql": "CREATE TABLE a (id bigint);"})


def ahead(stage: Stage) -> Run:
    """The image is older than the database."""
    stage.run(files={**A, "002_b.sql": "SELECT 1;"})
    return stage.run(GATE_AHEAD="refuse")


def out_of_order(stage: Stage) -> Run:
    """A file below the newest applied one."""
    stage.run(files={"002_b.sql": "SELECT 1;"})
    return stage.run(files={**A, "002_b.sql": "SELECT 1;"}, GATE_OUT_OF_ORDER="refuse")


def other_tool(stage: Stage) -> Run:
    """Goose has migrated the database."""
    stage.database.execute(
        "CREATE TABLE goose_db_version (id int, version_id bigint, is_applied bool, "
        "tstamp timestamp); INSERT INTO goose_db_version VALUES (1, 1, true, now())"
    )
    return stage.run()


def planted_trigger(stage: Stage) -> Run:
    """The history has a trigger."""
    stage.run()
    stage.database.execute(
        "CREATE FUNCTION spy() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN RETURN NEW; END'; CREATE TRIGGER spy BEFORE INSERT ON "
        "schema_migrations FOR EACH ROW EXECUTE FUNCTION spy()"
    )
    return stage.run(files={**A, "002_b.sql": "SELECT 1;"})


def no_right_on_history(stage: Stage) -> Run:
    """Another role has made it, and granted nothing."""
    stage.run()
    return stage.run(database=stage.login())


def no_role(stage: Stage) -> Run:
    """The login role is no member of GATE_ROLE."""
    owner = stage.database.role("owner", attributes="NOLOGIN")
    app = stage.login("CREATE ON SCHEMA public")
    return stage.run(database=app, GATE_ROLE=owner.user)


def read_only(stage: Stage) -> Run:
    """The database only reads."""
    name = stage.database.name
    stage.database.execute(
        f"ALTER DATABASE {name} SET default_transaction_read_only = on"
    )
    return stage.run()


def locked(stage: Stage) -> Run:
    """Somebody holds the table."""
    stage.database.execute("CREATE TABLE t ()")
    with stage.busy("LOCK TABLE t"):
        return stage.run(files={"001_a.sql": "ALTER TABLE t ADD n int;"})


def another_gate(stage: Stage) -> Run:
    """It keeps the lock and does nothing."""
    with lock_taken(stage.database):
        return stage.run()


def interrupted(stage: Stage, files: Files = A) -> Run:
    """SIGTERM while a statement runs."""
    process = stage.gate.start(
        database=stage.database, migrations=files, env=dict(QUICK)
    )
    process.wait_for("migration.progress")
    process.signal(signal.SIGTERM)
    return process.wait(30)


def interrupted_call(stage: Stage) -> Run:
    """SIGTERM while a procedure that commits runs."""
    stage.database.execute(STEPS)
    return interrupted(stage, CALL)


def unresolved(stage: Stage) -> Run:
    """The start after that."""
    interrupted_call(stage)
    return stage.run(files=CALL)


def out_of_time(stage: Stage) -> Run:
    """GATE_TIMEOUT is over while it waits for a lock."""
    stage.database.execute("CREATE TABLE t ()")
    with stage.busy("LOCK TABLE t"):
        return stage.run(
            files={"001_a.sql": "ALTER TABLE t ADD n int;"},
            GATE_TIMEOUT="3s",
            GATE_DDL_LOCK_TIMEOUT="20s",
        )


def check_of_failed_job(stage: Stage) -> Run:
    """Check waits, the Job that migrates has failed."""
    files = {"001_a.sql": "SELECT 1;\nSELECT 1 / 0;"}
    stage.run(files=files)
    return stage.run("check", files=files)


def invalid_index(stage: Stage) -> Run:
    """An index of that name is there, and invalid."""
    stage.database.execute("CREATE TABLE t (id int); INSERT INTO t VALUES (1), (1)")
    with suppress(psycopg.errors.UniqueViolation):
        stage.database.execute("CREATE UNIQUE INDEX CONCURRENTLY t_id ON t (id)")
    return stage.run(
        files={"001_a.sql": "CREATE UNIQUE INDEX CONCURRENTLY t_id ON t (id);"}
    )


def untrusted(stage: Stage) -> Run:
    """The server's certificate is of no known authority."""
    server = stage.stack.enter_context(Server("last-lines-tls", tls=True))
    there = Database(server=look_at(server.conninfo, server), conninfo=server.conninfo)
    there = there.changed(sslmode="verify-full")
    return stage.run(database=there)


def standby_missing(stage: Stage) -> Run:
    """A synchronous standby that is not there, while the history is made."""
    settings = {"synchronous_standby_names": "nobody"}
    server = stage.stack.enter_context(Server("last-lines-sync", settings=settings))
    there = Database(server=look_at(server.conninfo, server), conninfo=server.conninfo)
    return stage.run(database=there, GATE_TIMEOUT="3s")


def sql_stage(text: str) -> Callable[[Stage], Run]:
    """Return the scene of one file's statement that fails."""
    return lambda stage: stage.sql(text)


def files_stage(files: Mapping[str, str]) -> Callable[[Stage], Run]:
    """Return the scene of a folder that is refused."""
    return lambda stage: stage.run(files=dict(files))


def set_stage(**env: str) -> Callable[[Stage], Run]:
    """Return the scene of a setting that is refused."""
    return lambda stage: stage.gate(
        database=stage.database, migrations=dict(A), env={**QUICK, **env}
    )


SCENES: Final[Mapping[str, Callable[[Stage], Run]]] = {
    "no database named": lambda s: s.gate(migrations=dict(A), env=dict(QUICK)),
    "malformed duration": set_stage(GATE_TIMEOUT="soon"),
    "unknown command": lambda s: s.run("fly"),
    "password file missing": lambda s: s.gate(
        migrations=dict(A),
        env={**QUICK, "PGHOST": "127.0.0.1", "PGPASSWORD_FILE": "/nowhere/password"},
    ),
    "no folder": lambda s: s.run(files=Path("/nowhere/migrations")),
    "empty folder": files_stage({}),
    "bad name": files_stage({"first.sql": "SELECT 1;"}),
    "same version twice": files_stage({**A, "001_a.up.sql": "SELECT 1;"}),
    "bad directive": files_stage({"001_a.sql": "-- gate: no-transactions\nSELECT 1;"}),
    "open quote": files_stage({"001_a.sql": "SELECT 1;\nSELECT 'x;"}),
    "psql command": files_stage({"001_a.sql": "SELECT 1;\n\\include x.sql\n"}),
    "psql variable": files_stage({"001_a.sql": "SELECT 1;\nSELECT :owner;"}),
    "mark of a way back": files_stage(
        {"001_a.sql": "CREATE TABLE a ();\n-- undo\nDROP TABLE a;"}
    ),
    "no server": nothing_there,
    "no host": no_host,
    "wrong password": lambda s: s.run(database=s.database.changed(password="no")),
    "no database": lambda s: s.run(database=s.databases.name()),
    "certificate": untrusted,
    "read-only": read_only,
    "no right to create": lambda s: s.run(database=s.login()),
    "no right on history": no_right_on_history,
    "GATE_ROLE": no_role,
    "trigger on history": planted_trigger,
    "other tool": other_tool,
    "changed": applied_and_changed,
    "ahead": ahead,
    "out of order": out_of_order,
    "syntax error": sql_stage("CREATE TABLE b (id int\nCREATE TABLE c ();"),
    "no table": sql_stage("INSERT INTO nowhere VALUES (1);"),
    "already exists": sql_stage("CREATE TABLE t ();"),
    "duplicate": sql_stage("INSERT INTO t VALUES (1), (1);"),
    "division": sql_stage("SELECT 1 / 0;"),
    "depends": sql_stage("CREATE VIEW w AS TABLE t;\nDROP TABLE t;"),
    "at COMMIT": sql_stage(
        "CREATE TABLE r (id int REFERENCES t (id) DEFERRABLE INITIALLY DEFERRED);\n"
        "INSERT INTO r VALUES (7);"
    ),
    "raised": sql_stage("DO $$ BEGIN RAISE 'card 4111'; END $$;"),
    "extension": sql_stage("CREATE EXTENSION nowhere;"),
    "statement timeout": sql_stage(
        "SET statement_timeout = '100ms';\nSELECT pg_sleep(9);"
    ),
    "invalid index": invalid_index,
    "locked": locked,
    "another gate": another_gate,
    "SIGTERM": lambda s: interrupted(
        s, {"001_a.sql": "SELECT 1;\nSELECT pg_sleep(60);"}
    ),
    "SIGTERM in a procedure": interrupted_call,
    "unresolved": unresolved,
    "GATE_TIMEOUT at a lock": out_of_time,
    "GATE_TIMEOUT without a server": lambda s: nothing_there(
        s, GATE_TIMEOUT="2s", GATE_WAIT_TIMEOUT="30s"
    ),
    "no synchronous standby": standby_missing,
    "check, Job failed": check_of_failed_job,
    "check, Job not run": lambda s: s.run("check"),
    "resolve nothing": lambda s: s.run("resolve", "009_x", "--applied"),
}


def main(names: list[str]) -> int:
    """Stage each, and print its line; 1 where one of them opened the gate."""
    opened = 0
    with ExitStack() as always:
        server = always.enter_context(Server("last-lines"))
        shared = look_at(server.conninfo, server)
        folder = Path(always.enter_context(tempfile.TemporaryDirectory()))
        for number, (name, scene) in enumerate(SCENES.items()):
            if names and name not in names:
                continue
            own = folder / str(number)
            own.mkdir()
            with ExitStack() as stack, Databases(server=shared) as databases:
                gate = Gate(own)
                stack.callback(gate.close)
                run = scene(Stage(gate, databases.create(), databases, stack))
            opened += run.exit_code == 0
            verdict = json.loads(run.termination_log)
            text = f"{verdict['message']}\n      {verdict.get('hint', '(no hint)')}"
            sys.stdout.write(f"{number + 1:2} {name}\n   {text}\n")
            sys.stdout.flush()
    return int(opened > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
