"""The last failure is kept beside the history, and told to whoever waits."""

from __future__ import annotations

import json
import signal

import pytest

from migration_gate.commands.last_failure import failures_kept
from migration_gate.connection.waits import Stopped
from migration_gate.report.errors import GateInterruptedError
from migration_gate.report.verdict import Tally
from migration_gate.session.session import start_session
from migration_gate.settings.environment import from_environ
from tests.fix_gate import Event, Gate, Run
from tests.fix_pgbouncer import PgBouncers
from tests.fix_postgres import Database
from tests.history_tables import PLAIN, tables
from tests.polling import until
from tests.sleepers import is_sleeping


GOOD = {"001_t.sql": "CREATE TABLE t (email text UNIQUE);"}
BAD = {**GOOD, "002_bad.sql": "SELECT 1;\nSELECT 1/0;"}
MENDED = {**GOOD, "002_bad.sql": "SELECT 1;\nSELECT 1/1;"}
SOON = {"GATE_WAIT_TIMEOUT": "1500ms"}
KEPT = (
    'SELECT version, sqlstate, line, "column", message FROM schema_migrations_failures'
)


def kept(database: Database) -> list[tuple[object, ...]]:
    """Return what is kept of failures."""
    return database.fetch(KEPT)


def status(run: Run) -> dict[str, Event]:
    """Return the lines of an answer to status, by version."""
    return {line["version"]: line for line in json.loads(run.stdout)}


@pytest.mark.server
def test_a_failed_attempt_leaves_one_row(gate: Gate, database: Database) -> None:
    """The second in the place of the first; none of what worked."""
    gate(database=database, migrations=BAD)
    first = database.fetch("SELECT failed_at FROM schema_migrations_failures")
    gate(database=database, migrations=BAD)
    again = database.fetch("SELECT failed_at FROM schema_migrations_failures")

    assert kept(database) == [("002_bad.sql", "22012", 2, 1, "division by zero")]
    assert first < again
    assert database.fetch(
        "SELECT count(*) FROM schema_migrations_failures WHERE gate_version <> ''"
        " AND hint <> '' AND failed_at <= now() AT TIME ZONE 'UTC'"
    ) == [(1,)]


def test_a_stop_is_one_though_the_connection_of_the_lock_is_gone(
    database: Database,
) -> None:
    """A question was asked there when the signal came, and the server hangs."""
    session = start_session(from_environ(database.environ()), must_write=False)
    session.conn.close()
    tally = Tally()
    tally.in_doubt["001_t.sql"] = 1
    with pytest.raises(Stopped), failures_kept(session, (), tally, (), str):
        raise Stopped(GateInterruptedError("stopped"))


def test_check_says_why_the_other_one_failed(gate: Gate, database: Database) -> None:
    """While it waits, and in its verdict, for a role that may only read the history."""
    role = database.role()
    gate(database=database, migrations=GOOD)
    database.execute(f"GRANT SELECT ON schema_migrations TO {role.user}")
    failed = gate(database=database, migrations=BAD)
    run = gate("check", database=role, migrations=BAD, env=SOON)

    ((when,),) = database.fetch(
        'SELECT to_char(failed_at, \'YYYY-MM-DD"T"HH24:MI:SS"Z"\')'
        " FROM schema_migrations_failures"
    )
    why = (
        f'not applied: "002_bad.sql"; the last attempt failed at {when}: '
        "002_bad.sql:2:1: division by zero (SQLSTATE 22012)"
    )
    assert run.exit_code == 1
    assert run.one("database.retry_scheduled")["error_message"] == why
    assert run.verdict["error_message"].startswith(why)
    assert run.verdict["hint"].startswith(failed.verdict["hint"])


def test_status_shows_it(gate: Gate, database: Database) -> None:
    """In the table for a person, and for a program."""
    gate(database=database, migrations=BAD)
    lines = status(gate("status", "--json", database=database, migrations=BAD))
    shown = gate("status", database=database, migrations=BAD).stdout

    why = "002_bad.sql:2:1: division by zero (SQLSTATE 22012)"
    assert lines["001_t.sql"]["failure"] is None
    assert lines["002_bad.sql"]["failure"] == why
    when = lines["002_bad.sql"]["failed_at"]
    assert shown.splitlines()[-1] == f"last attempt failed at {when}: {why}"


def test_what_is_applied_has_failed_no_more(gate: Gate, database: Database) -> None:
    """Its row is gone, and nobody tells of it."""
    gate(database=database, migrations=BAD)
    run = gate(database=database, migrations=MENDED)
    lines = status(gate("status", "--json", database=database, migrations=MENDED))

    assert run.verdict["applied"] == ["002_bad.sql"]
    assert kept(database) == []
    assert lines["002_bad.sql"]["failure"] is None


def test_a_row_that_was_left_is_not_told_of(gate: Gate, database: Database) -> None:
    """As when a gate is killed right after its COMMIT."""
    gate(database=database, migrations=BAD)
    gate(database=database, migrations=MENDED)
    database.execute(
        "INSERT INTO schema_migrations_failures (version, failed_at, message)"
        " VALUES ('002_bad', now(), 'old')"
    )
    shown = gate("status", database=database, migrations=MENDED)
    assert (shown.exit_code, "old" in shown.output) == (0, False)


@pytest.mark.parametrize("detail", ["safe", "full"])
def test_it_has_no_row_data_and_no_sql(
    gate: Gate, database: Database, detail: str
) -> None:
    """Also when the log may have it: other roles read the table."""
    files = {"001_x.sql": "SELECT 'secret-value'::integer;"}
    run = gate(database=database, migrations=files, env={"GATE_LOG_DETAIL": detail})
    ((row,),) = database.fetch("SELECT f::text FROM schema_migrations_failures f")

    assert ("secret-value" in run.stdout) == (detail == "full")
    assert "22P02" in row
    assert "secret-value" not in row


def test_a_file_that_is_refused_is_kept_too(gate: Gate, database: Database) -> None:
    """With its place, once there is a history."""
    gate(database=database, migrations=GOOD)
    run = gate(
        database=database, migrations={**GOOD, "002_x.sql": "SELECT 1;\nROLLBACK;"}
    )
    assert run.verdict["reason"] == "files"
    assert kept(database) == [
        ("002_x.sql", None, 2, 1, "ROLLBACK in a migration"),
    ]


@pytest.mark.parametrize("stop", ["signal", "deadline"])
def test_a_run_that_is_stopped_says_so(
    gate: Gate, database: Database, stop: str
) -> None:
    """Whoever waits learns that nobody is at work any more."""
    env = {"GATE_TIMEOUT": "4s"} if stop == "deadline" else {}
    files = {"001_x.sql": "SELECT pg_sleep(60);"}
    process = gate.start(database=database, migrations=files, env=env)
    until(lambda: is_sleeping(database))
    if stop == "signal":
        process.signal(signal.SIGTERM)
    run = process.wait()

    said = "stopped by SIGTERM" if stop == "signal" else "GATE_TIMEOUT is over"
    assert run.exit_code == 1
    ((*place, message),) = kept(database)
    assert place == ["001_x.sql", None, None, None]
    assert str(message).startswith(f"{said}: 001_x.sql")


@pytest.mark.server
def test_through_a_pooler_it_is_kept(
    gate: Gate, database: Database, pgbouncer: PgBouncers
) -> None:
    """There the lock is an open transaction, which is left alone."""
    pooled = pgbouncer("transaction", database).through(database)
    run = gate(database=pooled, migrations=BAD)
    assert run.one("database.ready")["pooled"] is True
    assert kept(database) == [("002_bad.sql", "22012", 2, 1, "division by zero")]


PLANTED = {
    "trigger": "CREATE TRIGGER t BEFORE INSERT ON {} EXECUTE FUNCTION spy();",
    "another form": "ALTER TABLE {} DROP COLUMN message;",
    "no right": "REVOKE ALL ON {} FROM PUBLIC, {role};",
    "a foreign owner": "ALTER TABLE {} OWNER TO {planter};",
    "locked": "",
}
# What a role may do with another's table is the server's to say.
RIGHTS = ("trigger", "no right", "a foreign owner")


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=pytest.mark.server if kind in RIGHTS else [])
        for kind in PLANTED
    ],
)
def test_what_stands_in_its_way_changes_nothing(
    gate: Gate, database: Database, kind: str
) -> None:
    """The verdict is the same, the reason is PostgreSQL's, and no foreign code runs."""
    role, planter = database.role("app"), database.role("planter")
    database.execute(
        f"GRANT CREATE ON SCHEMA public TO {role.user}, {planter.user};"
        "CREATE FUNCTION spy() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE 'spied'; END $$;"
    )
    gate(database=role, migrations=BAD)
    before = kept(database)
    database.execute(
        PLANTED[kind].format(
            "schema_migrations_failures", role=role.user, planter=planter.user
        )
    )
    with database.connect() as other:
        if kind == "locked":
            other.execute("BEGIN; LOCK schema_migrations_failures")
        run = gate(database=role, migrations={**GOOD, "002_bad.sql": "SELECT 1/0;"})
    assert (run.exit_code, run.verdict["sqlstate"]) == (1, "22012")
    assert run.verdict["duration_ms"] < 5000
    if kind != "another form":
        assert kept(database) == before


@pytest.mark.server
def test_a_role_that_may_not_make_a_table_does_without(
    gate: Gate, database: Database
) -> None:
    """The history was made for it; nothing is tried, nothing is in the server's log."""
    role = database.role()
    database.execute(
        f"{PLAIN} GRANT ALL ON schema_migrations, schema_migrations_id_seq"
        f" TO {role.user}"
    )
    run = gate(database=role, migrations={"001_x.sql": "SELECT 1/0;"})
    assert (run.exit_code, run.verdict["sqlstate"]) == (1, "22012")
    assert tables(database) == []


@pytest.mark.server
def test_it_belongs_to_the_owner_of_the_history(gate: Gate, database: Database) -> None:
    """So the next login role may write it, and the one before can be dropped."""
    owner = database.role("owner", attributes="NOLOGIN")
    first, second = database.role("v1"), database.role("v2")
    database.execute(
        f"GRANT {owner.user} TO {first.user}, {second.user};"
        f"GRANT CREATE ON SCHEMA public TO {owner.user}; {PLAIN}"
        f"ALTER TABLE schema_migrations OWNER TO {owner.user};"
    )
    gate(database=first, migrations={"001_x.sql": "SELECT 1/0;"})
    gate(database=second, migrations={"001_x.sql": "SELECT ''::int;"})
    assert [row[1] for row in kept(database)] == ["22P02"]
    database.execute(f"BEGIN; DROP ROLE {first.user}; ROLLBACK")


def test_what_is_kept_has_no_value_of_a_variable(
    gate: Gate, database: Database
) -> None:
    """Whoever waits in another pod knows none of them, and could hide none."""
    secret = "tenant_5ecret"
    database.execute(
        f"CREATE TABLE {secret} (id int CONSTRAINT positive CHECK (id > 0))"
    )
    files = {"1_a.sql": 'INSERT INTO :"tenant" VALUES (0);'}
    run = gate(database=database, migrations=files, env={"GATE_VAR_tenant": secret})
    waits = gate("check", database=database, migrations=files, env=SOON)
    rows = database.fetch("SELECT f::text FROM schema_migrations_failures f")

    assert ":tenant" in run.verdict["hint"]
    assert ":tenant" in waits.verdict["hint"]
    assert secret not in run.output + waits.output + str(rows)


def test_a_failure_under_another_spelling_is_shown(
    gate: Gate, database: Database
) -> None:
    """The file was renamed since a rollback of it failed, and it is pending again."""
    files = {"1_a.up.sql": "SELECT 1;", "1_a.down.sql": "SELECT 1/0;"}
    gate(database=database, migrations=files)
    gate("rollback", database=database, migrations=files)
    gate("resolve", "1", "--not-applied", database=database, migrations=files)
    run = gate("status", database=database, migrations={"1_a.sql": "SELECT 1;"})
    assert "division by zero" in run.stdout, run.output
