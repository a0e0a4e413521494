"""The gate opens soon after the database, and does not hammer one that is away."""

from __future__ import annotations

import re
import statistics

from datetime import datetime

import pytest

from dev.postgres import find_free_port
from migration_gate.commands.steps import new_patience
from migration_gate.connection.causes import DENSE
from migration_gate.connection.not_ready import NotReadyError
from migration_gate.connection.wait import Patience
from migration_gate.report.log import Log
from migration_gate.settings.environment import from_environ
from tests.ends import FILES, cause, times
from tests.fix_gate import Gate
from tests.fix_postgres import NewServer, database_of


# Servers of their own, and waiting: a loaded machine needs longer.
pytestmark = pytest.mark.timeout(60)
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
    assert pauses[0] < pauses[-1] < DENSE.longest_s
    attempts = [event["attempt"] for event in retries]
    assert attempts[-1] < 7 / 0.05


def patience(*, waited_s: float, timeout_s: float, reason: str) -> Patience:
    """Return one that has waited so long, and for that reason."""
    environ = {"DATABASE_URL": "postgresql://u:p@127.0.0.1/d"}
    settings = from_environ(environ)
    log = Log(fd=2)
    waiting = new_patience(settings, log, timeout_s)
    waiting.started_s -= waited_s
    waiting.note(NotReadyError(cause(reason), ""))
    return waiting


@pytest.mark.parametrize(
    ("reason", "waited_s", "shortest_s", "longest_s"),
    [
        ("connection_refused", 0, 0.05, 0.06),
        ("connection_refused", 4, 0.05, 0.06),  # from 5 s on it grows
        ("connection_refused", 30, 0.3, 0.37),
        ("connection_refused", 300, 1.0, 1.2),
        ("starting_up", 2, 0.05, 0.06),
        ("hot_standby", 2, 0.25, 0.3),
        ("hot_standby", 300, 1.0, 1.2),
        ("too_many_connections", 0, 0.5, 0.6),
        ("too_many_connections", 10, 1.0, 1.21),
        ("too_many_connections", 300, 2.0, 2.4),
        ("secret_file", 0, 0.25, 0.3),
        ("login_refused", 0, 2.0, 2.4),
        ("login_refused", 300, 2.0, 2.4),
    ],
)
def test_a_pause_is_as_long_as_its_reason_and_the_time_ask_for(
    reason: str, waited_s: float, shortest_s: float, longest_s: float
) -> None:
    """50 ms at first, a second after minutes, and two where a try costs the server."""
    waiting = patience(waited_s=waited_s, timeout_s=3600, reason=reason)
    pauses = [waiting.next_wait_s() for _ in range(100)]
    assert shortest_s <= min(pauses) < max(pauses) <= longest_s


def test_the_last_attempt_is_made_when_the_wait_ends() -> None:
    """What comes in its last second is not missed."""
    waiting = patience(waited_s=300, timeout_s=300.5, reason="connection_refused")
    pause_s = waiting.next_wait_s()
    assert 0.4 < pause_s <= 0.5
    assert not waiting.is_over(pause_s)
    over = patience(waited_s=300, timeout_s=300.01, reason="connection_refused")
    assert over.is_over(over.next_wait_s())


def test_a_refused_login_is_not_tried_sooner_for_the_end_of_the_wait() -> None:
    """Two seconds are two seconds."""
    waiting = patience(waited_s=300, timeout_s=301, reason="login_refused")
    assert waiting.next_wait_s() >= 2
    assert waiting.is_over(waiting.next_wait_s())
