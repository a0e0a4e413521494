"""A backend that a gate has left working: ended where it can be, else waited for."""

from __future__ import annotations

import re
import signal
import time

from contextlib import closing
from pathlib import Path

import pytest

from tests.fix_gate import Gate, Process
from tests.fix_postgres import Database


pytestmark = pytest.mark.timeout(60)

CLIENT_CHECK_MIN_VERSION = 140000
# With three more probes, ten seconds apart, silence is noticed within a minute.
KEEPALIVES_IDLE_S = 20.0
GATES = """
SELECT a.pid, EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid AND l.granted
    AND l.locktype = 'advisory' AND l.mode = 'ExclusiveLock'), a.wait_event
FROM pg_stat_activity a
WHERE a.datname = current_database() AND a.application_name LIKE 'migration-gate/%'
ORDER BY 2, 1
"""
HELD = """
CREATE TABLE made AS SELECT 1 AS x;
SELECT pg_advisory_xact_lock_shared(77);
INSERT INTO calls VALUES ('1');
"""


def wait_for_worker(database: Database, event: str) -> tuple[int, int]:
    """Wait until a worker waits for `event`; return it and the lock's backend."""
    while True:
        seen = database.fetch(GATES)
        if [(row[1], row[2]) for row in seen] == [(False, event), (True, "ClientRead")]:
            return seen[0][0], seen[1][0]
        time.sleep(0.01)


def wait_until_gone(database: Database, pid: int) -> float:
    """Wait until a backend is gone; return how long that took."""
    started_s = time.monotonic()
    query = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s"
    while database.fetch(query, [pid]) != [(0,)]:
        time.sleep(0.02)
    return time.monotonic() - started_s


@pytest.mark.server
def test_a_killed_gates_statement_is_ended_or_waited_for(
    gate: Gate, database: Database
) -> None:
    """Where the server watches its clients it ends at once; else it may commit."""
    database.execute("CREATE TABLE calls (what text)")
    files = {"1_a.sql": "INSERT INTO calls VALUES ('1'); SELECT pg_sleep(3);"}
    first = gate.start(database=database, migrations=files)
    worker, _ = wait_for_worker(database, "PgSleep")
    first.kill()
    run = gate(database=database, migrations=files)
    assert run.exit_code == 0, run.output
    assert database.fetch("TABLE calls") == [("1",)]
    if database.server.version >= CLIENT_CHECK_MIN_VERSION:
        assert run.verdict["applied"] == ["1_a.sql"]
        return
    assert run.verdict["applied"] == []
    waits = run.all("lock.waiting")[-1]
    assert waits["holder_pid"] == worker
    assert waits["holder_waits_for"] == "Timeout:PgSleep"


@pytest.mark.parametrize(
    "directive",
    [pytest.param("", marks=pytest.mark.server), "-- gate: no-transaction\n"],
)
@pytest.mark.parametrize("ends_well", [True, False], ids=["commits", "fails"])
def test_an_orphan_is_named_and_waited_for(
    gate: Gate, database: Database, directive: str, *, ends_well: bool
) -> None:
    """Its node is gone, so that the server hears nothing; what it commits counts."""
    database.execute("CREATE TABLE calls (what text)")
    files = {"1_a.sql": directive + HELD, "2_b.sql": "INSERT INTO calls VALUES ('2');"}
    env = {"GATE_DDL_LOCK_TIMEOUT": "60s", "GATE_HEARTBEAT": "300ms"}
    with closing(database.connect()) as other:
        other.execute("SELECT pg_advisory_lock(77)")
        first = gate.start(database=database, migrations=files, env=env)
        worker, holder = wait_for_worker(database, "advisory")
        abandon(first, database, holder)
        second = gate.start(database=database, migrations=files, env=env)
        waits = second.wait_for("lock.waiting", count=2)
        assert database.fetch("TABLE calls") == []
        if not ends_well:
            other.execute("SELECT pg_cancel_backend(%s)", [worker])
        other.execute("SELECT pg_advisory_unlock_all()")
        run = second.wait()
        first.kill()
    assert waits["holder_pid"] == worker
    assert waits["holder_waits_for"] == "Lock:advisory"
    assert re.fullmatch(r"migration-gate/\S+.*", waits["holder_application"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", waits["holder_since"])
    assert run.exit_code == 0, run.output
    assert database.fetch("TABLE calls") == [("1",), ("2",)]
    assert database.fetch("TABLE made") == [(1,)]


def abandon(gate: Process, database: Database, holder: int) -> None:
    """Let a gate's node vanish; the server has only found out on the lock's session."""
    gate.signal(signal.SIGSTOP)
    database.execute(f"SELECT pg_terminate_backend({holder})")
    wait_until_gone(database, holder)


KEEPALIVE = "02"
ESTABLISHED = "01"
JIFFIES_PER_S = 100


def read_keepalives(pid: int) -> list[float]:
    """Return in how many seconds each TCP connection of a process is probed."""
    while True:
        timers = read_timers(pid)
        # Just after an exchange another timer runs for a moment.
        if all(kind == KEEPALIVE for kind, _ in timers):
            return [seconds for _, seconds in timers]
        time.sleep(0.01)


def read_timers(pid: int) -> list[tuple[str, float]]:
    """Return kind and seconds of the timer of each TCP connection: proc(5)."""
    links = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
    timers = []
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        state, timer, inode = words[3], words[5], words[9]
        if state == ESTABLISHED and f"socket:[{inode}]" in links:
            kind, _, left = timer.partition(":")
            timers.append((kind, int(left, 16) / JIFFIES_PER_S))
    return timers


def test_both_ends_of_both_connections_watch_for_silence(
    gate: Gate, database: Database
) -> None:
    """Whoever's peer vanishes without a word finds out, though nothing is sent."""
    if database.server.embedded is None:
        pytest.skip("the processes of a server given by --postgres cannot be seen")
    process = gate.start(
        database=database, migrations={"1_a.sql": "SELECT pg_sleep(2);"}
    )
    backends = wait_for_worker(database, "PgSleep")
    seconds = [read_keepalives(pid) for pid in (process.pid, *backends)]
    assert process.wait().exit_code == 0
    assert [len(each) for each in seconds] == [2, 1, 1]
    assert all(each <= KEEPALIVES_IDLE_S for some in seconds for each in some)
