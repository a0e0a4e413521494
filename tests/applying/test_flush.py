"""
Migrations of one message are flushed together, and told of when they are.

A server of a test's own that flushes by itself only every ten seconds: what no commit
has waited for is lost when it crashes.
"""

from __future__ import annotations

import json
import os
import re
import signal

from pathlib import Path

import pytest

from dev.postgres import Server
from migration_gate.applying.settlement import Settlement
from migration_gate.connection.waits import ask_to_stop, expect_stop, wish_to_stop
from migration_gate.execution.message import Task
from migration_gate.files.folder import read_folder, read_scripts
from migration_gate.files.migration import AppliedMigration
from migration_gate.report.errors import GateInterruptedError
from migration_gate.report.log import Log
from migration_gate.report.verdict import Tally
from migration_gate.settings.settings import HistoryTableName
from tests.fix_gate import Gate, Run, write_migrations
from tests.fix_postgres import Database, NewServer, database_of
from tests.fix_proxy import Proxy
from tests.history_tables import tables, versions
from tests.polling import until
from tests.sleepers import is_sleeping


FILES = {f"{n}_x.sql": f"CREATE TABLE t{n} ();" for n in range(1, 6)}
HISTORY = HistoryTableName(schema=None, table="schema_migrations")
WAITS_FOR_STANDBY = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
OFF = b"'synchronous_commit', 'off', true"


def lazy(new_server: NewServer) -> tuple[Server, Database]:
    """Start a server that leaves the flushing to those who commit."""
    server = new_server(settings={"wal_writer_delay": "10s"})
    return server, database_of(server)


def messages(proxy: Proxy) -> list[bytes]:
    """Return what the gate sent after its logins."""
    return [m.payload for link in proxy.settled() for m in link.after_login]


def told(run: Run) -> list[str]:
    """Return the files that the log calls applied, in its order."""
    return [event["version"] for event in run.all("migration.applied")]


def test_what_is_lost_by_a_crash_was_not_told_of(
    gate: Gate, new_server: NewServer
) -> None:
    """
    Committed, seen by others and gone: applied once more, and told of once.

    So many files that the server, which answers in blocks, has answered some.
    """
    server, database = lazy(new_server)
    files = {f"{n:02}_x.sql": f"CREATE TABLE t{n} ();" for n in range(1, 81)}
    files["70_x.sql"] = (
        "CREATE TABLE t70 (); SELECT pg_sleep(60)"
        " WHERE current_setting('test.restarted', true) IS NULL;"
    )
    process = gate.start(database=database, migrations=files)
    until(lambda: is_sleeping(database))
    assert versions(database) == list(files)[:69]
    server.settings["test.restarted"] = "on"
    server.restart("immediate")
    run = process.wait()
    first, second = (event["pending_count"] for event in run.all("plan.made"))
    assert first == 80
    assert second > 11
    assert told(run) == versions(database) == list(files)
    assert run.verdict["applied_count"] == len(tables(database)) == 80


def test_an_open_gate_has_flushed_all(gate: Gate, new_server: NewServer) -> None:
    """The last commit of a message waits for those before it."""
    server, database = lazy(new_server)
    assert gate(database=database, migrations=FILES).exit_code == 0
    server.restart("immediate")
    assert versions(database) == list(FILES)
    assert tables(database) == ["t1", "t2", "t3", "t4", "t5"]


def test_a_closed_gate_has_flushed_what_it_told_of(
    gate: Gate, new_server: NewServer
) -> None:
    """A file in the middle fails, and nothing commits behind it."""
    server, database = lazy(new_server)
    files = {**FILES, "4_x.sql": "CREATE TABLE t4 (); SELECT 1 / 0;"}
    run = gate(database=database, migrations=files)
    server.restart("immediate")
    done = ["1_x.sql", "2_x.sql", "3_x.sql"]
    assert told(run) == run.verdict["applied"] == versions(database) == done
    assert tables(database) == ["t1", "t2", "t3"]


@pytest.mark.parametrize("fails", [False, True], ids=["all", "one fails"])
def test_what_is_said_to_be_undone_is_flushed(
    gate: Gate, new_server: NewServer, *, fails: bool
) -> None:
    """By the last commit of the message, or by the row of the one that failed."""
    server, database = lazy(new_server)
    downs = {f"{n}_x.down.sql": f"DROP TABLE t{n};" for n in range(1, 6)}
    if fails:
        downs["2_x.down.sql"] = "DROP TABLE nowhere;"
    gate(database=database, migrations=FILES)
    database.execute("CHECKPOINT")

    run = gate("rollback", "--to", "0", database=database, migrations=FILES | downs)
    server.restart("immediate")

    left = ["1_x.sql", "2_x.sql"] if fails else []
    assert run.exit_code == (1 if fails else 0)
    assert versions(database) == left
    assert len(tables(database)) == len(left)
    undone = json.loads(run.termination_log)["undone"]
    assert undone == [file for file in reversed(FILES) if file not in left]


def test_the_last_commit_waits_for_a_synchronous_standby(
    gate: Gate, new_server: NewServer
) -> None:
    """Once for all of a message: none is told of before, and none is lost behind it."""
    primary = new_server()
    database = database_of(primary)
    standby = new_server(standby_of=primary)
    there = database.changed(port=str(standby.port))
    files = {"0_x.sql": "SELECT 1;", **FILES}
    gate(database=database, migrations={"0_x.sql": files["0_x.sql"]})
    primary.settings["synchronous_standby_names"] = "*"
    primary.restart()
    until(lambda: bool(there.fetch("SELECT pid FROM pg_stat_wal_receiver")))
    ((receiver,),) = there.fetch("SELECT pid FROM pg_stat_wal_receiver")
    os.kill(receiver, signal.SIGSTOP)
    try:
        process = gate.start(database=database, migrations=files)
        until(lambda: database.fetch(WAITS_FOR_STANDBY) == [(1,)])
        assert versions(database) == list(files)[:-1]
        assert not [e for e in process.events if e["event"] == "migration.applied"]
    finally:
        os.kill(receiver, signal.SIGCONT)
    run = process.wait()
    assert told(run) == run.verdict["applied"] == list(FILES)
    primary.stop("immediate")
    until(lambda: versions(there) == list(files))


def test_only_the_last_commit_of_a_message_waits(
    gate: Gate, database: Database, proxy: Proxy
) -> None:
    """And one that is alone in its message, always."""
    files = {**FILES, "3_x.sql": "COPY t1 FROM stdin;\n\\.\n"}
    gate(database=proxy.through(database), migrations=files)
    sent = messages(proxy)
    rows = [re.findall(rb"INSERT INTO[^;]*'(\d)_x.sql'", text) for text in sent]
    lazily = [text.count(OFF) for text in sent]
    assert [(r, n) for r, n in zip(rows, lazily, strict=True) if r or n] == [
        ([b"1", b"2"], 1),
        ([b"3"], 0),
        ([b"4", b"5"], 1),
    ]


def test_each_commit_waits_where_the_role_may_not_update(
    gate: Gate, database: Database, proxy: Proxy
) -> None:
    """It could not lock a row to have the others flushed when a file fails."""
    gate(database=database, migrations={"0_x.sql": "SELECT 1;"})
    role = database.role()
    database.execute(
        f"GRANT CREATE ON SCHEMA public TO {role.user};"
        f"GRANT SELECT, INSERT ON schema_migrations TO {role.user};"
        f"GRANT USAGE ON SEQUENCE schema_migrations_id_seq TO {role.user}"
    )
    files = {"0_x.sql": "SELECT 1;", **FILES, "6_x.sql": "SELECT 1 / 0;"}
    run = gate(database=proxy.through(role), migrations=files)
    assert run.verdict["applied"] == list(FILES)
    sent = messages(proxy)
    assert not [text for text in sent if OFF in text or b"FOR UPDATE" in text]


def test_a_flush_is_a_turn_of_work_like_any_other(
    gate: Gate, database: Database, proxy: Proxy
) -> None:
    """It waits whatever a pooler's session has set, with limits and the work key."""
    files = {**FILES, "4_x.sql": "SELECT 1 / 0;"}
    gate(database=proxy.through(database), migrations=files)
    sent = messages(proxy)
    (flush,) = [text for text in sent if b"FOR UPDATE" in text]
    assert b"'3_x.sql'" in flush
    assert b"SET LOCAL synchronous_commit TO DEFAULT" in flush
    assert b"'lock_timeout'" in flush
    assert b"pg_advisory_xact_lock_shared" in flush


def test_a_signal_while_the_log_is_written_loses_no_line(tmp_path: Path) -> None:
    """Of what is committed; the signal comes once."""
    folder = write_migrations(tmp_path / "migrations", FILES)
    migrations = read_folder(folder, allow_empty=False)
    scripts = read_scripts(folder, migrations, HISTORY)
    tally = Tally()
    with (tmp_path / "log").open("w+") as file:
        settlement = Settlement(tally, Log(fd=file.fileno()))
        for script in scripts:
            version = script.migration.version
            row = AppliedMigration(version=version)
            settlement.committed(Task(script=script, version=version), row)

        def stop_at(place: int) -> None:
            if place == 2:
                ask_to_stop(GateInterruptedError("stopped"))

        settlement.tell(stop_at)
        assert wish_to_stop() is not None
        expect_stop()
        file.seek(0)
        assert [json.loads(line)["version"] for line in file] == list(FILES)
    assert tally.applied == list(FILES)


def test_a_file_sees_what_the_session_has(gate: Gate, database: Database) -> None:
    """The gate's own setting comes behind the file, and ends with its transaction."""
    database.execute(
        f"ALTER DATABASE {database.name} SET synchronous_commit = 'remote_write'"
    )
    files = {
        f"{n}_x.sql": f"CREATE TABLE t{n} AS"
        " SELECT current_setting('synchronous_commit') AS found;"
        for n in range(1, 4)
    }
    assert gate(database=database, migrations=files).exit_code == 0
    found = [database.fetch(f"SELECT found FROM t{n}") for n in range(1, 4)]
    assert found == [[("remote_write",)]] * 3
