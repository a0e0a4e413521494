"""The gate opens soon after the database, and does not hammer one that is away."""

from __future__ import annotations

import re
import statistics

from datetime import datetime

from dev.postgres import find_free_port
from migration_gate.wait import LONGEST_WAIT_S
from tests.ends import FILES, times
from tests.fix_gate import Gate
from tests.fix_postgres import NewServer, database_of


ROUNDS = 5
# Measured at a tenth of it on an idle machine; tests share theirs.
MEDIAN_S = 0.5


def test_the_gate_opens_soon_after_the_database(
    gate: Gate, new_server: NewServer
) -> None:
    """With nothing pending, from the server's own word to the verdict."""
    server = new_server()
    database = database_of(server)
    assert gate(database=database, migrations=FILES).exit_code == 0
    late = []
    for _ in range(ROUNDS):
        server.stop()
        process = gate.start(database=database, migrations=FILES)
        process.wait_for("database.retry_scheduled")
        server.start()
        run = process.wait()
        assert run.exit_code == 0
        ready = re.findall(
            r"(?m)^(.{23}) UTC .* ready to accept connections", server.log
        )
        opened = datetime.fromisoformat(run.verdict["timestamp"])
        late.append(
            (opened - datetime.fromisoformat(f"{ready[-1]}+00:00")).total_seconds()
        )
    assert statistics.median(late) < MEDIAN_S


def test_the_pauses_grow_with_the_time_waited(gate: Gate) -> None:
    """Dense at first; the log shows the first and then one each heartbeat."""
    url = f"postgresql://u:p@127.0.0.1:{find_free_port()}/d"
    env = {"DATABASE_URL": url, "GATE_WAIT_TIMEOUT": "8s", "GATE_HEARTBEAT": "1s"}
    run = gate(env=env, migrations=FILES)
    retries = run.all("database.retry_scheduled")
    assert {event["reason"] for event in retries} == {"connection_refused"}
    assert len(retries) > 5
    assert all(1 <= seconds < 1.5 for seconds in times(run, "database.retry_scheduled"))
    pauses = [event["wait_s"] for event in retries]
    assert 0.05 <= pauses[0] < 0.07
    assert pauses[0] < pauses[-1] < LONGEST_WAIT_S
    attempts = [event["attempt"] for event in retries]
    assert attempts[-1] < 7 / 0.05
