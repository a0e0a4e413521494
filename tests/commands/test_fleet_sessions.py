"""Sessions that a fleet keeps from one schema to the next, and what it does not."""

from __future__ import annotations

import pytest

from tests.commands.test_fleet import counts, history, schemas, tables
from tests.fix_gate import Gate
from tests.fix_postgres import Database, Databases
from tests.fix_proxy import Proxy


NAMES = [f"t{number}" for number in range(6)]
ALONE = {"GATE_TARGETS_AT_ONCE": "1"}
BACKENDS = "CREATE TABLE backend AS SELECT pg_backend_pid() AS pid;"
LEFT_BEHIND = """
CREATE TEMP TABLE left_behind AS SELECT 1 AS one;
SELECT pg_advisory_lock(4711);
PREPARE kept AS SELECT 1;
DECLARE held CURSOR WITH HOLD FOR SELECT 1;
SET statement_timeout = '1h';
SET app.tenant = 'somebody';
"""
NOTHING_LEFT = """
CREATE TABLE seen AS SELECT
    to_regclass('left_behind')::text AS relation,
    (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711
        AND pid = pg_backend_pid()) AS locks,
    (SELECT count(*) FROM pg_prepared_statements) AS statements,
    (SELECT count(*) FROM pg_cursors WHERE is_holdable) AS cursors,
    nullif(current_setting('app.tenant', true), '') AS tenant;
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
        assert row == (None, 0, 0, 0, None)


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
