"""The history is replaced, by a schema's owner, while the gate waits to read it."""

from __future__ import annotations

from contextlib import closing

import pytest

from tests.fix_gate import Gate
from tests.fix_postgres import Database
from tests.history_tables import ONE
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
