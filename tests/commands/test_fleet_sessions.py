"""Sessions that a fleet keeps from one schema to the next, and what it does not."""

from __future__ import annotations

from contextlib import closing

import pytest

from tests.commands.test_fleet import counts, history, schemas, tables
from tests.fix_gate import Gate
from tests.fix_postgres import Database, Databases, NewServer, database_of
from tests.fix_proxy import Proxy
from tests.polling import until


NAMES = [f"t{number}" for number in range(6)]
ALONE = {"GATE_TARGETS_AT_ONCE": "1"}
BACKENDS = "CREATE TABLE backend AS SELECT pg_backend_pid() AS pid;"
LEFT_BEHIND = """
CREATE TEMP TABLE left_behind AS SELECT 1 AS one;
SELECT pg_advisory_lock(4711);
PREPARE kept AS SELECT 1;
DECLARE held CURSOR WITH HOLD FOR SELECT 1;
SET statement_timeout = '1h';
"""
NOTHING_LEFT = """
CREATE TABLE seen AS SELECT
    to_regclass('left_behind')::text AS relation,
    (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711
        AND pid = pg_backend_pid()) AS locks,
    (SELECT count(*) FROM pg_prepared_statements) AS statements,
    (SELECT count(*) FROM pg_cursors WHERE is_holdable) AS cursors,
    current_setting('statement_timeout') AS limited;
"""


def backends(database: Database) -> set[int]:
    """Return which processes have worked at the targets."""
    return {database.fetch(f"SELECT pid FROM {name}.backend")[0][0] for name in NAMES}


def test_one_session_serves_many_schemas(gate: Gate, database: Database) -> None:
    """All of them, one after the other; each has its own tables and history."""
    env = schemas(database, NAMES) | ALONE
    run = gate(database=database, migrations={"001_backend.sql": BACKENDS}, env=env)
    assert (run.exit_code, counts(run)) == (0, [6, 6, 0, 0, 0])
    assert tables(database, "backend") == NAMES
    assert [history(database, name) for name in NAMES] == [["001_backend.sql"]] * 6
    assert len(backends(database)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "RESET search_path;",
        "SET search_path TO DEFAULT;",
        "RESET ALL;",
        "-- gate: no-transaction\n",
        "SELECT set_config('search_path', NULL, false);",
    ],
)
def test_what_resets_the_path_finds_its_own_schema(
    gate: Gate, database: Database, text: str
) -> None:
    """A session of its own begins with it; no table comes into another's schema."""
    env = schemas(database, NAMES) | ALONE
    files = {
        "001_reset.sql": f"{text}\nCREATE TABLE after_it (id int);",
        "002_backend.sql": BACKENDS,
    }
    run = gate(database=database, migrations=files, env=env)
    assert run.exit_code == 0, run.verdict
    assert tables(database, "after_it") == NAMES
    assert len(backends(database)) == len(NAMES)


@pytest.mark.parametrize(
    "text",
    [
        "DO $$ BEGIN EXECUTE 'RES' || 'ET ALL'; END $$;",
        "SELECT public.leads_away();",
        'SET U&"search\\005fpath" TO DEFAULT;',
    ],
)
def test_what_leads_away_from_the_path_is_done_in_a_session_of_its_own(
    gate: Gate, database: Database, text: str
) -> None:
    """It is rolled back, and its tables come where they would in a gate of its own."""
    database.execute(
        "CREATE FUNCTION public.leads_away() RETURNS void LANGUAGE plpgsql "
        "AS 'BEGIN RESET search_path; END'"
    )
    env = schemas(database, NAMES) | ALONE
    files = {
        "001_before.sql": "CREATE TABLE before (id int);",
        "002_away.sql": f"{text}\nCREATE TABLE IF NOT EXISTS after_it (id int);",
        "003_backend.sql": BACKENDS,
    }
    run = gate(database=database, migrations=files, env=env)
    assert (run.exit_code, counts(run)) == (0, [6, 6, 0, 0, 0])
    for name in ("before", "after_it", "backend"):
        assert tables(database, name) == NAMES
    assert [history(database, name) for name in NAMES] == [sorted(files)] * 6
    assert len(backends(database)) == len(NAMES)


def test_a_path_that_is_set_to_another_schema_leads_there(
    gate: Gate, database: Database
) -> None:
    """The file means what it says, in a session of its own as elsewhere."""
    database.execute("CREATE SCHEMA shared")
    env = schemas(database, NAMES) | ALONE
    text = "SET SCHEMA 'shared'; CREATE TABLE IF NOT EXISTS common (id int);"
    files = {"001_common.sql": text, "002_backend.sql": BACKENDS}
    run = gate(database=database, migrations=files, env=env)
    assert run.exit_code == 0, run.verdict
    assert tables(database, "common") == ["shared"]
    assert tables(database, "backend") == NAMES


@pytest.mark.parametrize(
    "text",
    [
        "SET LOCAL app.tenant = 'somebody';",
        "SET/* tenant */app.tenant = 'somebody';",
        "SET -- tenant\nLOCAL app . tenant = 'somebody';",
        "SET U&\"app\".tenant = 'somebody';",
        "DO $$ BEGIN SET app . tenant = 'somebody'; END $$;",
        "SELECT set_config('app.tenant', 'somebody', true);",
    ],
)
def test_a_parameter_of_a_target_is_not_there_for_the_next(
    gate: Gate, database: Database, text: str
) -> None:
    """After DISCARD ALL it would be empty, where a new session has none."""
    env = schemas(database, NAMES) | ALONE
    files = {
        "001_seen.sql": "CREATE TABLE seen AS "
        "SELECT current_setting('app.tenant', true) AS tenant;",
        "002_tenant.sql": text,
    }
    run = gate(database=database, migrations=files, env=env)
    assert run.exit_code == 0, run.verdict
    for name in NAMES:
        assert database.fetch(f"SELECT tenant FROM {name}.seen") == [(None,)]


@pytest.mark.parametrize(
    "text",
    [
        "SELECT setseed(0.5);",
        "SET temp_buffers = '4MB';",
        "LOAD  '$libdir/plpgsql';",
        "LOAD/* it */E'$libdir/plpgsql';",
    ],
)
def test_what_a_session_keeps_for_good_is_done_in_one_of_its_own(
    gate: Gate, database: Database, text: str
) -> None:
    """A seed makes the next schema's random values known; a library stays."""
    env = schemas(database, NAMES) | ALONE
    files = {"001_kept.sql": text, "002_backend.sql": BACKENDS}
    run = gate(database=database, migrations=files, env=env)
    assert (run.exit_code, counts(run)) == (0, [6, 6, 0, 0, 0])
    assert len(backends(database)) == len(NAMES)


def test_a_schema_that_no_path_can_name_is_refused_alone(
    gate: Gate, database: Database
) -> None:
    """Its files would make their tables in the role's schema, or in public."""
    env = schemas(database, ["$user", *NAMES])
    run = gate(database=database, migrations={"001_backend.sql": BACKENDS}, env=env)
    assert (run.exit_code, counts(run)) == (1, [7, 6, 1, 0, 0])
    assert tables(database, "backend") == NAMES
    assert run.verdict["failed"] == ["$user: history"]


def test_nothing_of_a_target_is_left_for_the_next(
    gate: Gate, database: Database
) -> None:
    """Tables, locks, statements, cursors and settings of a session end with it."""
    env = schemas(database, NAMES) | ALONE
    files = {"001_left.sql": NOTHING_LEFT + LEFT_BEHIND, "002_backend.sql": BACKENDS}
    run = gate(database=database, migrations=files, env=env)
    assert run.exit_code == 0, run.verdict
    assert len(backends(database)) == 1
    for name in NAMES:
        (row,) = database.fetch(f"SELECT * FROM {name}.seen")
        assert row == (None, 0, 0, 0, "0")


def test_a_failure_is_not_handed_on(gate: Gate, database: Database) -> None:
    """The session in which a file failed, or that it ended, serves no other target."""
    database.execute("CREATE TABLE public.broken (name text, how text)")
    database.execute("INSERT INTO broken VALUES ('t1', 'fails'), ('t3', 'ends')")
    env = schemas(database, NAMES) | ALONE
    text = """
    DO $$
    DECLARE what text := (SELECT how FROM public.broken WHERE name = current_schema());
    BEGIN
        IF what = 'fails' THEN RAISE EXCEPTION 'no'; END IF;
        IF what = 'ends' THEN
            DELETE FROM public.broken WHERE how = what;
            PERFORM pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = current_database() AND pid <> pg_backend_pid()
            AND application_name LIKE 'migration-gate%' AND state = 'idle';
        END IF;
    END $$;
    """
    files = {"001_odd.sql": text, "002_backend.sql": BACKENDS}
    run = gate(database=database, migrations=files, env=env)
    assert (run.exit_code, counts(run)) == (1, [6, 5, 1, 0, 0])
    assert tables(database, "backend") == [name for name in NAMES if name != "t1"]
    for name in NAMES:
        if name != "t1":
            assert history(database, name) == sorted(files)


def test_new_defaults_hold_for_the_targets_after_it(
    gate: Gate, databases: Databases
) -> None:
    """As they do for the files after it: a session that began before is let go."""
    database = databases.create()
    env = schemas(database, NAMES) | ALONE
    alter = f"ALTER DATABASE \"{database.name}\" SET app.plan = 'new';"
    files = {
        "001_seen.sql": "CREATE TABLE seen AS SELECT current_setting('app.plan', 't');",
        "002_defaults.sql": alter,
        "003_after.sql": "CREATE TABLE after AS SELECT current_setting('app.plan');",
    }
    run = gate(database=database, migrations=files, env=env)
    assert (run.exit_code, counts(run)) == (0, [6, 6, 0, 0, 0])
    seen = [database.fetch(f"SELECT * FROM {name}.seen")[0][0] for name in NAMES]
    assert seen == [None] + ["new"] * 5
    after = [database.fetch(f"SELECT * FROM {name}.after")[0][0] for name in NAMES]
    assert after == ["new"] * 6


def test_defaults_that_others_change_hold_for_the_next_target(
    gate: Gate, databases: Databases
) -> None:
    """Somebody alters the role or the database while the fleet is under way."""
    database = databases.create()
    env = schemas(database, NAMES) | ALONE
    text = f"""
    CREATE TABLE seen AS SELECT current_setting('app.plan', true);
    SELECT 1 / (SELECT count(*) FROM pg_tables WHERE tablename = 'seen');
    DO $$ BEGIN IF current_schema() = 't2' THEN
        EXECUTE 'ALTER DATABASE "{database.name}" SET app.plan = ''new''';
    END IF; END $$;
    """
    run = gate(database=database, migrations={"001_seen.sql": text}, env=env)
    assert (run.exit_code, counts(run)) == (0, [6, 6, 0, 0, 0])
    seen = [database.fetch(f"SELECT * FROM {name}.seen")[0][0] for name in NAMES]
    assert seen == [None] * 3 + ["new"] * 3


def test_defaults_that_change_while_a_session_begins_hold_for_all(
    gate: Gate, databases: Databases
) -> None:
    """It is older than they are, and is not taken for one that has them."""
    database = databases.create()
    env = schemas(database, NAMES) | ALONE
    text = "CREATE TABLE seen AS SELECT current_setting('app.plan', true);"
    waiting = (
        "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
        "AND datname = current_database() AND application_name LIKE 'migration-gate%'"
    )
    with closing(database.connect()) as conn:
        conn.execute("BEGIN; CREATE TABLE t0.schema_migrations (version text)")
        running = gate.start(
            database=database, migrations={"001_seen.sql": text}, env=env
        )
        until(lambda: database.fetch(waiting))
        database.execute(f"ALTER DATABASE \"{database.name}\" SET app.plan = 'new'")
        conn.execute("ROLLBACK")
    run = running.wait()
    assert (run.exit_code, counts(run)) == (0, [6, 6, 0, 0, 0])
    seen = [database.fetch(f"SELECT * FROM {name}.seen")[0][0] for name in NAMES]
    assert seen == ["new"] * 6


def test_a_session_that_the_server_ends_meanwhile_is_not_used(
    gate: Gate, databases: Databases
) -> None:
    """It is seen before anything is sent: the target does not begin anew for it."""
    database = databases.create()
    env = schemas(database, NAMES) | ALONE
    files = {"001_a.sql": "SELECT 1;"}
    assert gate(database=database, migrations=files, env=env).exit_code == 0
    limit = f"ALTER DATABASE \"{database.name}\" SET idle_session_timeout = '300ms'"
    idle = (
        "SELECT FROM pg_stat_activity WHERE state = 'idle' AND datname = "
        "current_database() AND application_name LIKE 'migration-gate%'"
    )
    database.execute(limit)
    with closing(database.connect(options="-c idle_session_timeout=0")) as conn:
        conn.execute("BEGIN; LOCK TABLE t1.schema_migrations")
        files["002_backend.sql"] = BACKENDS
        running = gate.start(database=database, migrations=files, env=env)
        until(lambda: len(history(database, "t0")) == len(files))
        until(lambda: not database.fetch(idle))
        conn.execute("ROLLBACK")
    run = running.wait()
    assert (run.exit_code, counts(run)) == (0, [6, 6, 0, 0, 0])
    ready = [event for event in run.all("database.ready") if event["target"] == "t1"]
    assert len(ready) == 1


@pytest.mark.timeout(60)
def test_a_session_at_a_standby_is_not_kept(gate: Gate, new_server: NewServer) -> None:
    """Each look would begin there, and leave one more behind, here and there."""
    primary = new_server()
    standby = database_of(new_server(standby_of=primary))
    database = database_of(primary)
    env = schemas(database, NAMES) | ALONE
    login = database.role("gate")
    for name in NAMES:
        database.execute(f"GRANT ALL ON SCHEMA {name} TO {login.user}")
    ports = f"{standby.conninfo['port']},{database.conninfo['port']}"
    env |= login.environ() | {"POSTGRES_HOST": "127.0.0.1,127.0.0.1"}
    env |= {"POSTGRES_PORT": ports}
    until(lambda: standby.fetch("SELECT FROM pg_roles WHERE rolname ~ '^gate_'"))
    files = {"001_backend.sql": BACKENDS}
    assert gate("baseline", *files, migrations=files, env=env).exit_code == 0
    database.execute(f"ALTER ROLE {login.user} CONNECTION LIMIT 2")
    until(lambda: standby.fetch("SELECT FROM pg_roles WHERE rolconnlimit = 2"))
    run = gate("baseline", *files, migrations=files, env=env)
    assert run.exit_code == 0
    assert "6 of 6 targets done" in run.stderr
    assert "database.retry_scheduled" not in run.stderr


def test_a_database_is_connected_to_twice_with_files_and_once_without(
    gate: Gate, databases: Databases, proxy: Proxy
) -> None:
    """The connection of the glance is the one that looks, and then holds the lock."""
    home, *targets = (databases.create() for _ in range(3))
    names = ", ".join(f"('{target.name}')" for target in targets)
    env = {"GATE_TARGETS": f"databases:SELECT n FROM (VALUES {names}) t (n)"}
    files = {"001_backend.sql": BACKENDS}
    assert gate(database=proxy.through(home), migrations=files, env=env).exit_code == 0
    listed = 2  # before and after
    assert len(proxy.settled()) == listed + 2 * 2
    assert gate(database=proxy.through(home), migrations=files, env=env).exit_code == 0
    assert len(proxy.settled()) == 2 * listed + 2 * 2 + 2
