"""What DISCARD ALL does not clear comes to no other schema of a fleet."""

from __future__ import annotations

import signal

import pytest

from tests.commands.test_fleet import counts, history, schemas, tables
from tests.commands.test_fleet_sessions import ALONE, BACKENDS, NAMES, backends
from tests.fix_gate import Gate
from tests.fix_postgres import Database, Databases
from tests.polling import until


pytestmark = pytest.mark.timeout(60)
MOOD = "CREATE TYPE mood AS ENUM ('well');"
MOODS = "SELECT atttypid::regtype::text FROM pg_attribute WHERE attname = 'how'"
# Its variable has a type that is found along the path: of the schema that is at hand.
TELL = """
CREATE FUNCTION public.tell() RETURNS void LANGUAGE plpgsql {} AS $tell$
DECLARE how mood := 'well'; BEGIN
    EXECUTE 'CREATE TABLE told AS SELECT $1 AS how' USING how;
END $tell$;
"""
TOUCH = """
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN NEW.touched_at := now(); RETURN NEW; END $$;
"""
SHARED_TABLE = """
CREATE TABLE public.events (by text, price numeric);
SET check_function_bodies = off;
CREATE FUNCTION public.priced() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE price digits := 1.2345; BEGIN NEW.price := price; RETURN NEW; END $$;
CREATE TRIGGER priced BEFORE INSERT ON public.events
    FOR EACH ROW EXECUTE FUNCTION public.priced();
"""
LOGIN_TRIGGER = """
CREATE FUNCTION public.at_login() RETURNS event_trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM set_config('app.env', 'production', false); END $$;
CREATE EVENT TRIGGER at_login ON login EXECUTE FUNCTION public.at_login();
"""


def has_login_triggers(database: Database) -> bool:
    """Tell whether the server knows them: from 17 on."""
    ((version,),) = database.fetch("SHOW server_version_num")
    return int(version) >= 170000


def test_a_function_of_all_finds_the_types_of_the_schema_at_hand(
    gate: Gate, database: Database
) -> None:
    """PL/pgSQL looks for them once in a session: each schema has one of its own."""
    database.execute("SET check_function_bodies = off;" + TELL.format(""))
    env = schemas(database, NAMES) | ALONE
    files = {
        "001_mood.sql": MOOD,
        "002_tell.sql": "SELECT public.tell();",
        "003_backend.sql": BACKENDS,
    }
    run = gate(database=database, migrations=files, env=env)
    assert (run.exit_code, counts(run)) == (0, [6, 6, 0, 0, 0])
    types = database.fetch(f"{MOODS} ORDER BY 1")
    assert types == [(f"{name}.mood",) for name in NAMES]
    assert len(backends(database)) == len(NAMES)


def test_a_function_without_variables_finds_what_is_of_the_schema_at_hand(
    gate: Gate, database: Database
) -> None:
    """What its statements name is looked for anew: one session serves all."""
    database.execute(
        "CREATE FUNCTION public.tell() RETURNS text LANGUAGE plpgsql AS $$ BEGIN "
        "IF (SELECT count(*) FROM kept) = 0 THEN INSERT INTO kept VALUES ('well'); "
        "END IF; EXECUTE 'CREATE TABLE told AS SELECT $1 AS how' USING 'well'::mood; "
        "RETURN pg_typeof('well'::mood)::oid::text; END $$"
    )
    env = schemas(database, NAMES) | ALONE
    files = {
        "001_mood.sql": f"{MOOD} CREATE TABLE kept (how mood); {BACKENDS}",
        "002_tell.sql": "CREATE TABLE seen AS SELECT public.tell()::oid AS how_oid;",
    }
    run = gate(database=database, migrations=files, env=env)
    assert (run.exit_code, counts(run)) == (0, [6, 6, 0, 0, 0])
    types = database.fetch(f"{MOODS} ORDER BY 1")
    assert types == [(f"{name}.mood",) for name in NAMES for _ in ("kept", "told")]
    for name in NAMES:
        seen = database.fetch(f"SELECT how_oid::regtype::text FROM {name}.seen")
        assert seen == [(f"{name}.mood",)]
        assert database.fetch(f"SELECT how::text FROM {name}.kept") == [("well",)]
    assert len(backends(database)) == 1


def test_a_function_of_a_target_that_all_find_is_one_of_all(
    gate: Gate, database: Database
) -> None:
    """A list may have public in it, which is in the path of each schema."""
    database.execute("SET check_function_bodies = off;" + TELL.format(""))
    env = schemas(database, NAMES[1:]) | ALONE
    env["GATE_TARGETS"] = env["GATE_TARGETS"].replace("'t1'", "'public'")
    names = ["public", *NAMES[2:]]
    files = {"001_mood.sql": MOOD, "002_tell.sql": "SELECT tell();"}
    run = gate(database=database, migrations=files, env=env)
    assert (run.exit_code, counts(run)) == (0, [5, 5, 0, 0, 0])
    types = database.fetch(
        "SELECT attrelid::regclass::text, atttypid::regtype::text FROM pg_attribute "
        "WHERE attname = 'how' ORDER BY 1"
    )
    placed = [("" if name == "public" else f"{name}.") for name in names]
    assert types == sorted((f"{at}told", f"{at}mood") for at in placed)


def test_a_function_that_a_file_makes_for_all_is_seen_by_the_next(
    gate: Gate, database: Database
) -> None:
    """It was not there when the run began."""
    env = schemas(database, NAMES) | ALONE
    made = "DO $$ BEGIN IF to_regproc('public.tell') IS NULL THEN {} END IF; END $$;"
    files = {
        "001_mood.sql": MOOD,
        "002_make.sql": made.format(TELL.format("")),
        "003_tell.sql": "SELECT public.tell();",
    }
    run = gate(database=database, migrations=files, env=env)
    assert (run.exit_code, counts(run)) == (0, [6, 6, 0, 0, 0])
    types = database.fetch(f"{MOODS} ORDER BY 1")
    assert types == [(f"{name}.mood",) for name in NAMES]


@pytest.mark.parametrize(
    "shared",
    [
        "CREATE FUNCTION public.one() RETURNS int LANGUAGE sql AS 'SELECT 1';",
        "SET check_function_bodies = off;" + TELL.format("SET search_path = public"),
        "CREATE EXTENSION pg_trgm SCHEMA public;",
        TOUCH,
    ],
    ids=["sql", "own path", "known extension", "no variables"],
)
def test_what_keeps_nothing_lets_a_session_serve_all(
    gate: Gate, database: Database, shared: str
) -> None:
    """A function with a path of its own is the same for each schema."""
    database.execute(shared)
    env = schemas(database, NAMES) | ALONE
    run = gate(database=database, migrations={"001_backend.sql": BACKENDS}, env=env)
    assert (run.exit_code, counts(run)) == (0, [6, 6, 0, 0, 0])
    assert len(backends(database)) == 1


def test_a_trigger_of_a_table_of_all_finds_the_types_of_the_schema_at_hand(
    gate: Gate, database: Database
) -> None:
    """It is read once for its table, in a session."""
    database.execute(SHARED_TABLE)
    env = schemas(database, NAMES[:3]) | ALONE
    files = {
        "001_digits.sql": "CREATE DOMAIN digits AS numeric(6, 4);",
        "002_note.sql": "INSERT INTO public.events (by) VALUES (current_schema());",
    }
    database.execute("CREATE DOMAIN t0.digits AS numeric(6, 0)")
    files["001_digits.sql"] = (
        "DO $$ BEGIN IF to_regtype(current_schema() || '.digits') IS NULL THEN "
        "CREATE DOMAIN digits AS numeric(6, 4); END IF; END $$;"
    )
    run = gate(database=database, migrations=files, env=env)
    assert (run.exit_code, counts(run)) == (0, [3, 3, 0, 0, 0])
    seen = database.fetch("SELECT by::text, price::text FROM events ORDER BY 1")
    assert seen == [("t0", "1"), ("t1", "1.2345"), ("t2", "1.2345")]


def test_a_function_that_is_another_by_now_is_seen(
    gate: Gate, database: Database
) -> None:
    """It has the number that it had, and is in another language."""
    database.execute("CREATE FUNCTION public.tell() RETURNS void LANGUAGE sql AS ''")
    env = schemas(database, NAMES) | ALONE
    another = TELL.format("").replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION")
    made = (
        "DO $$ BEGIN IF current_schema() = 't2' THEN {} END IF; END $$;"
        "SELECT public.tell();"
    )
    files = {"001_mood.sql": MOOD, "002_tell.sql": made.format(another)}
    run = gate(database=database, migrations=files, env=env)
    assert (run.exit_code, counts(run)) == (0, [6, 6, 0, 0, 0])
    types = database.fetch(f"{MOODS} ORDER BY 1")
    assert types == [(f"{name}.mood",) for name in NAMES[2:]]


def test_a_configuration_of_text_search_is_that_of_the_schema_at_hand(
    gate: Gate, databases: Databases
) -> None:
    """By its name it is found along the path, once in a session."""
    database = databases.create()
    setting = "default_text_search_config = 'words'"
    database.execute(f'ALTER DATABASE "{database.name}" SET {setting}')
    env = schemas(database, NAMES[:3]) | ALONE
    for name, copied in zip(NAMES, ("english", "simple", "english"), strict=False):
        database.execute(
            f"CREATE TEXT SEARCH CONFIGURATION {name}.words "
            f"(COPY = pg_catalog.{copied})"
        )
    text = "CREATE TABLE seen AS SELECT to_tsvector('the dogs')::text AS words;"
    run = gate(database=database, migrations={"001_seen.sql": text}, env=env)
    assert (run.exit_code, counts(run)) == (0, [3, 3, 0, 0, 0])
    seen = [
        database.fetch(f"SELECT words FROM {name}.seen")[0][0] for name in NAMES[:3]
    ]
    assert seen == ["'dog':2", "'dogs':2 'the':1", "'dog':2"]


@pytest.mark.parametrize(
    "shared",
    [
        "CREATE EXTENSION dblink SCHEMA public;",
        "CREATE LANGUAGE plmine HANDLER plpgsql_call_handler;",
    ],
    ids=["extension", "language"],
)
def test_what_nobody_knows_gets_a_session_for_each(
    gate: Gate, databases: Databases, shared: str
) -> None:
    """A connection by name, or what a language keeps, is found by no other schema."""
    database = databases.create()
    database.execute(shared)
    env = schemas(database, NAMES) | ALONE
    run = gate(database=database, migrations={"001_backend.sql": BACKENDS}, env=env)
    assert (run.exit_code, counts(run)) == (0, [6, 6, 0, 0, 0])
    assert len(backends(database)) == len(NAMES)


def test_a_role_that_sessions_begin_with_owns_all_tables(
    gate: Gate, database: Database
) -> None:
    """Some minor releases forget it at DISCARD ALL."""
    owner, login = database.role(), database.role()
    env = schemas(database, NAMES) | ALONE | login.environ()
    database.execute(f"GRANT {owner.user} TO {login.user}")
    for name in NAMES:
        database.execute(f"ALTER SCHEMA {name} OWNER TO {owner.user}")
    database.execute(f"ALTER ROLE {login.user} SET role = '{owner.user}'")
    run = gate(migrations={"001_backend.sql": BACKENDS}, env=env)
    assert (run.exit_code, counts(run)) == (0, [6, 6, 0, 0, 0])
    query = "SELECT DISTINCT tableowner::text FROM pg_tables WHERE schemaname ~ '^t'"
    assert database.fetch(query) == [(owner.user,)]
    assert len(backends(database)) == len(NAMES)


@pytest.mark.server
def test_what_a_trigger_at_the_login_sets_is_there_for_all(
    gate: Gate, databases: Databases
) -> None:
    """From 17 on; DISCARD ALL takes it away."""
    database = databases.create()
    if not has_login_triggers(database):
        pytest.skip("this server has no triggers at the login")
    database.execute(LOGIN_TRIGGER)
    env = schemas(database, NAMES) | ALONE
    text = "CREATE TABLE seen AS SELECT current_setting('app.env', true) AS env;"
    run = gate(database=database, migrations={"001_seen.sql": text}, env=env)
    assert (run.exit_code, counts(run)) == (0, [6, 6, 0, 0, 0])
    for name in NAMES:
        assert database.fetch(f"SELECT env FROM {name}.seen") == [("production",)]


def test_a_role_that_does_not_find_the_schema_works_on_no_other(
    gate: Gate, database: Database
) -> None:
    """PostgreSQL passes over a schema without USAGE: public's table would change."""
    role = database.role()
    env = schemas(database, NAMES) | ALONE | {"GATE_ROLE": role.user}
    for schema in ("public", *NAMES):
        database.execute(f"CREATE TABLE {schema}.customers (id int)")
        database.execute(f"ALTER TABLE {schema}.customers OWNER TO {role.user}")
        if schema != "t1":
            database.execute(f"GRANT USAGE, CREATE ON SCHEMA {schema} TO {role.user}")
    files = {"001_tier.sql": "ALTER TABLE customers ADD tier int;"}
    run = gate(database=database, migrations=files, env=env)
    assert (run.exit_code, counts(run)) == (1, [6, 5, 1, 0, 0])
    said = f'role "{role.user}" (GATE_ROLE) lacks USAGE on schema "t1"'
    assert said in run.verdict["error_message"]
    assert f"GRANT USAGE ON SCHEMA t1 TO {role.user};" in run.verdict["hint"]
    columns = "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass"
    for schema in ("public", "t1"):
        names = [name for (name,) in database.fetch(columns, [f"{schema}.customers"])]
        assert "tier" not in names
    assert history(database, "t1") == []


def test_outside_a_transaction_it_works_on_no_other_either(
    gate: Gate, database: Database
) -> None:
    """An index would come to public's table."""
    role = database.role()
    env = schemas(database, ["t1"]) | {"GATE_ROLE": role.user}
    database.execute("CREATE TABLE public.customers (id int)")
    database.execute(f"ALTER TABLE public.customers OWNER TO {role.user}")
    database.execute(f"GRANT USAGE, CREATE ON SCHEMA public TO {role.user}")
    files = {"001_index.sql": "CREATE INDEX CONCURRENTLY late ON customers (id);"}
    run = gate(database=database, migrations=files, env=env)
    assert run.exit_code == 1
    assert "lacks USAGE" in run.verdict["error_message"]
    assert database.fetch("SELECT to_regclass('public.late')") == [(None,)]


def test_a_path_that_a_file_gives_the_database_holds_for_what_follows(
    gate: Gate, databases: Databases
) -> None:
    """As it would in a run of its own: not the path at the time of the listing."""
    database = databases.create()
    env = schemas(database, NAMES) | ALONE
    database.execute(
        "CREATE SCHEMA old; CREATE SCHEMA new; CREATE TABLE old.ref (by name);"
        "CREATE TABLE new.ref (by name);"
        f'ALTER DATABASE "{database.name}" SET search_path = old'
    )
    alter = f'ALTER DATABASE "{database.name}" SET search_path = new;'
    files = {
        "001_path.sql": alter,
        "002_note.sql": "INSERT INTO ref SELECT current_schema();",
        "003_backend.sql": BACKENDS,
    }
    run = gate(database=database, migrations=files, env=env)
    assert (run.exit_code, counts(run)) == (0, [6, 6, 0, 0, 0])
    assert database.fetch("SELECT by::text FROM new.ref ORDER BY 1") == [
        (name,) for name in NAMES
    ]
    assert database.fetch("SELECT by FROM old.ref") == []
    assert tables(database, "backend") == NAMES


def test_a_gate_that_hangs_at_a_schema_is_waited_for_and_named(
    gate: Gate, database: Database
) -> None:
    """As at a database: the connection that gave up waiting is not asked again."""
    env = schemas(database, ["t0"])
    text = "-- gate: no-transaction\nSELECT pg_sleep(1);"
    hung = gate.start(database=database, migrations={"001_a.sql": text}, env=env)
    sleeping = "SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    until(lambda: database.fetch(f"{sleeping} AND datname = current_database()"))
    hung.signal(signal.SIGSTOP)
    env |= {"GATE_LOCK_WAIT_TIMEOUT": "1s", "GATE_TARGET": "t0"}
    run = gate(database=database, migrations={"001_a.sql": text}, env=env)
    assert (run.exit_code, run.verdict["reason"]) == (1, "lock_timeout")
    assert "kept the gates' lock" in run.verdict["error_message"]
    hung.signal(signal.SIGCONT)
    hung.signal(signal.SIGTERM)
    hung.wait()
