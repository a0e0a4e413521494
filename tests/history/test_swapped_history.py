"""
A table of the gate's is replaced, by a schema's owner, while the gate waits for it.
"""

from __future__ import annotations

from contextlib import closing
from typing import NamedTuple

import pytest

from tests.fix_gate import Gate
from tests.fix_postgres import Database
from tests.history_tables import ONE, TWO
from tests.polling import until


pytestmark = pytest.mark.server
FUNCTION = """
CREATE SEQUENCE app.called;
GRANT USAGE ON SEQUENCE app.called TO PUBLIC;
CREATE FUNCTION app.note(version text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_catalog.nextval('app.called');
    RETURN version;
END $$;
"""
VIEW = """
CREATE TABLE app.kept (LIKE app.schema_migrations);
INSERT INTO app.kept (version, applied_at, id) VALUES ('1_a.sql', now(), 1);
DROP TABLE app.schema_migrations;
CREATE VIEW app.schema_migrations AS SELECT app.note(version) AS version, applied_at,
    checksum, duration_ms, gate_version, superseded FROM app.kept;
GRANT SELECT ON app.schema_migrations, app.kept TO PUBLIC;
"""
POLICY = """
CREATE TABLE app.kept (LIKE app.schema_migrations);
INSERT INTO app.kept (version, applied_at, id) VALUES ('1_a.sql', now(), 1);
DROP TABLE app.schema_migrations;
ALTER TABLE app.kept RENAME TO schema_migrations;
ALTER TABLE app.schema_migrations ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON app.schema_migrations USING (app.note(version) <> '');
GRANT ALL ON app.schema_migrations TO PUBLIC;
"""
WAITING = """
SELECT FROM pg_locks l JOIN pg_database d ON d.oid = l.database
WHERE d.datname = current_database() AND NOT l.granted AND l.locktype = 'relation'
"""


@pytest.mark.parametrize("swap", [VIEW, POLICY], ids=["a view", "a policy"])
def test_what_takes_the_historys_place_as_it_is_read_never_runs(
    gate: Gate, database: Database, swap: str
) -> None:
    """Who owns a schema may drop what stands in it, and make another of that name."""
    login, low = database.role("app"), database.role("low")
    database.execute(
        f"CREATE SCHEMA app AUTHORIZATION {low.user};"
        f"GRANT USAGE, CREATE ON SCHEMA app TO {login.user}"
    )
    env = {"GATE_HISTORY_TABLE": "app.schema_migrations", "GATE_WAIT_TIMEOUT": "1s"}
    database.execute(f"GRANT CREATE ON SCHEMA public TO {login.user}")
    gate(database=login, migrations=ONE, env=env)
    low.execute(FUNCTION)
    database.execute(f"GRANT SELECT ON app.schema_migrations TO {low.user}")
    with closing(low.connect()) as planter:
        planter.execute("BEGIN")
        planter.execute(swap)
        process = gate.start("check", database=login, migrations=ONE, env=env)
        until(lambda: database.fetch(WAITING))
        planter.execute("COMMIT")
        run = process.wait()
    assert database.fetch("SELECT is_called FROM app.called") == [(False,)], run.output
    assert (run.exit_code, run.verdict["reason"]) == (1, "history"), run.output


TABLE = """
DROP TABLE app.schema_migrations;
CREATE TABLE app.schema_migrations (version varchar UNIQUE, applied_at timestamp,
    checksum text, duration_ms bigint, gate_version text, superseded text,
    caught text DEFAULT app.note('x'));
GRANT ALL ON app.schema_migrations TO PUBLIC;
"""
RULE = """
CREATE TABLE app.kept (LIKE app.schema_migrations);
DROP TABLE app.schema_migrations;
CREATE VIEW app.schema_migrations AS SELECT * FROM app.kept;
CREATE RULE r AS ON INSERT TO app.schema_migrations DO INSTEAD SELECT app.note('x');
GRANT ALL ON app.schema_migrations TO PUBLIC;
"""
PROGRESS = """
DROP TABLE app.schema_migrations_progress;
CREATE VIEW app.schema_migrations_progress AS SELECT app.note('2_b.sql') AS version,
    1 AS statement, '' AS digest, '' AS state, NULL::json AS before;
GRANT ALL ON app.schema_migrations_progress TO PUBLIC;
"""
FAILURES = """
DROP TABLE app.schema_migrations_failures;
CREATE VIEW app.schema_migrations_failures AS SELECT app.note('2_b.sql') AS version,
    now() AS failed_at, '' AS sqlstate, 1 AS line, 1 AS "column", '' AS message,
    '' AS hint;
GRANT ALL ON app.schema_migrations_failures TO PUBLIC;
"""
SLOW = "SELECT pg_sleep(0.3);"
OUTSIDE = {"1_a.sql": f"-- gate: no-transaction\n{ONE['1_a.sql']}"}
FAILING = {**ONE, "2_b.sql": "SELECT 1/0;"}
AT_WORK = """
SELECT FROM pg_stat_activity
WHERE datname = current_database() AND wait_event = 'PgSleep'
"""


class Case(NamedTuple):
    """What takes a table's place, and the second run, at what moment."""

    swap: str
    then: dict[str, str]
    first: dict[str, str] = ONE
    command: tuple[str, ...] = ()
    moment: str = WAITING
    says: str = "has another kind"


CASES = {
    "a row": Case(
        TABLE,
        {**ONE, "2_b.sql": SLOW, "3_c.sql": ";"},
        moment=AT_WORK,
        says="has another owner",
    ),
    "a row, by a rule": Case(
        RULE, {**ONE, "2_b.sql": SLOW, "3_c.sql": ";"}, moment=AT_WORK
    ),
    "a flush": Case(
        VIEW,
        {**TWO, "3_c.sql": f"{SLOW} SELECT 1/0;"},
        moment=AT_WORK,
        says="division by zero",
    ),
    "progress": Case(
        PROGRESS,
        {**OUTSIDE, "2_b.sql": "SELECT 1;"},
        first=OUTSIDE,
        command=("status",),
        says="not an ordinary table. The gate keeps there",
    ),
    "the last failure": Case(
        FAILURES, FAILING, first=FAILING, command=("status",), says="not applied"
    ),
}


@pytest.mark.parametrize(
    "which",
    [
        "a row",
        pytest.param("a row, by a rule", marks=pytest.mark.thorough),
        pytest.param("a flush", marks=pytest.mark.thorough),
        "progress",
        pytest.param("the last failure", marks=pytest.mark.thorough),
    ],
)
def test_what_takes_a_tables_place_between_look_and_use_never_runs(
    gate: Gate, database: Database, which: str
) -> None:
    """A look is long ago when a row is written, and a table beside it is read."""
    case = CASES[which]
    login, low = database.role("app"), database.role("low")
    database.execute(
        f"CREATE SCHEMA app AUTHORIZATION {low.user};"
        f"GRANT USAGE, CREATE ON SCHEMA app, public TO {login.user}"
    )
    env = {"GATE_HISTORY_TABLE": "app.schema_migrations"}
    gate(database=login, migrations=case.first, env=env)
    low.execute(FUNCTION)
    database.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA app TO {low.user}")
    with closing(low.connect()) as planter:
        planter.execute("BEGIN")
        if case.moment is WAITING:
            planter.execute(case.swap)
        process = gate.start(
            *case.command, database=login, migrations=case.then, env=env
        )
        until(lambda: database.fetch(case.moment))
        if case.moment is not WAITING:
            planter.execute(case.swap)
        planter.execute("COMMIT")
        run = process.wait()
    assert database.fetch("SELECT is_called FROM app.called") == [(False,)], run.output
    assert run.exit_code == 1, run.output
    assert case.says in run.output


GOOSE = """
CREATE TABLE app.goose_db_version (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    version_id bigint NOT NULL, is_applied boolean NOT NULL, tstamp timestamp);
INSERT INTO app.goose_db_version (version_id, is_applied, tstamp)
VALUES (1, true, now())
"""
OTHERS_VIEW = """
CREATE TABLE app.kept AS SELECT * FROM app.goose_db_version;
DROP TABLE app.goose_db_version;
CREATE VIEW app.goose_db_version AS SELECT id, app.note(version_id::text)::bigint
    AS version_id, is_applied, tstamp FROM app.kept;
GRANT SELECT ON app.goose_db_version, app.kept TO PUBLIC;
"""


@pytest.mark.parametrize("adopt", ["", "goose"])
def test_what_takes_the_place_of_another_tools_history_never_runs(
    gate: Gate, database: Database, adopt: str
) -> None:
    """It is judged and read as one, whether it is counted or taken over."""
    login, low = database.role("app"), database.role("low")
    database.execute(
        f"CREATE SCHEMA app AUTHORIZATION {low.user};"
        f"GRANT USAGE, CREATE ON SCHEMA app TO {login.user};"
        f"ALTER ROLE {login.user} SET search_path = app"
    )
    login.execute(f"{GOOSE}; GRANT SELECT ON app.goose_db_version TO {low.user}")
    low.execute(FUNCTION)
    env = {"GATE_ADOPT": adopt, "GATE_HISTORY_TABLE": "app.schema_migrations"}
    with closing(low.connect()) as planter:
        planter.execute("BEGIN")
        planter.execute(OTHERS_VIEW)
        process = gate.start(database=login, migrations=ONE, env=env)
        until(lambda: database.fetch(WAITING))
        planter.execute("COMMIT")
        run = process.wait()
    assert database.fetch("SELECT is_called FROM app.called") == [(False,)], run.output
    assert (run.exit_code, run.verdict["reason"]) == (1, "history"), run.output
    assert "was replaced while it was looked at" in run.verdict["error_message"]
