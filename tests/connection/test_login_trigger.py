"""What a trigger at the login raises is told without its query and its data."""

from __future__ import annotations

import pytest

from tests.fix_gate import Gate
from tests.fix_postgres import NewServer, database_of
from tests.polling import until


FILES = {"001_a.sql": "CREATE TABLE a ();"}
LOGIN_TRIGGER_MIN_VERSION = 170000
TRIGGER = """
CREATE TABLE cards (number text);
INSERT INTO cards VALUES ('4111-1111-1111-1111');
CREATE FUNCTION watch() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER AS
$$ DECLARE n int; BEGIN {}; END $$;
CREATE EVENT TRIGGER watch ON login EXECUTE FUNCTION watch();
"""
BODIES = {
    "a query": "EXECUTE 'SELECT nothing FROM cards WHERE number = ''4111-secret'''",
    "data": "SELECT number::int FROM cards INTO n",
    "words of its own": "RAISE 'card %', (SELECT number FROM cards)",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_trigger_at_the_login_leaks_nothing(
    gate: Gate, new_server: NewServer, body: str
) -> None:
    """Libpq's text of a failed connection has the query in it, and the line."""
    database = database_of(new_server())
    if database.server.version < LOGIN_TRIGGER_MIN_VERSION:
        pytest.skip("the server knows no such triggers")
    login = database.role("login")
    database.execute(TRIGGER.format(body))
    process = gate.start(
        database=login, migrations=FILES, env={"GATE_WAIT_TIMEOUT": "2s"}
    )
    event = process.wait_for("database.retry_scheduled")
    run = process.wait()
    until(lambda: run.exit_code == 1)
    for leak in ("LINE ", "QUERY", "nothing", "number", "4111", "cards"):
        assert leak not in run.output, run.output
    assert event["error_message"]
