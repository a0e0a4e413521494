"""What is written before a statement that cannot be in a transaction, and a stop."""

from __future__ import annotations

import signal

import pytest

from tests.fix_gate import Gate, Process
from tests.fix_postgres import Database
from tests.fix_proxy import Message, Proxy


pytestmark = pytest.mark.server
FILES = {"001_steps.sql": "-- gate: no-transaction\nCALL steps();"}
SETUP = """
CREATE TABLE calls (n integer);
CREATE PROCEDURE steps() LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO calls VALUES (1);
    COMMIT;
END $$;
"""


class Noted:
    """Tells the answer that an intent is written from all others."""

    def __init__(self) -> None:
        self._was_sent = False

    def __call__(self, message: Message) -> bool:
        """Whether it is that answer."""
        if message.sender == "client" and message.type == "Q":
            text = message.payload
            self._was_sent = b"INSERT" in text and b"'started'" in text
        is_done = message.sender == "server" and message.type == "C"
        return self._was_sent and is_done and message.payload.startswith(b"INSERT")


def test_a_stop_before_a_statement_is_sent_leaves_no_question(
    gate: Gate, database: Database, proxy: Proxy
) -> None:
    """What it was to be is written down by then; nobody has to say what it did."""
    database.execute(SETUP)
    processes: list[Process] = []
    proxy.when(Noted(), lambda: processes[0].signal(signal.SIGTERM))
    processes.append(gate.start(database=proxy.through(database), migrations=FILES))
    run = processes[0].wait()
    assert run.verdict["reason"] == "interrupted", run.output
    assert database.fetch("TABLE calls") == []
    assert database.fetch("SELECT state FROM schema_migrations_progress") == []
    again = gate(database=database, migrations=FILES)
    assert (again.exit_code, database.fetch("TABLE calls")) == (0, [(1,)])
