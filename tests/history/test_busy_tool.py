"""A tool that is applying at this moment is waited for: its history is half of one."""

from __future__ import annotations

import zlib

import pytest

from migration_gate.session.lock import lock_keys
from tests.fix_gate import Gate
from tests.fix_pgbouncer import PgBouncers
from tests.fix_postgres import Database
from tests.history.test_adopt import folder_of, load
from tests.history_tables import versions, why


FILES = folder_of(["1_a.sql", "2_b.sql", "3_c.sql"])
UPS = folder_of([f"{n}_{name}.up.sql" for n, name in enumerate("abcd", 1)])
SOON = {"GATE_LOCK_WAIT_TIMEOUT": "0s"}


@pytest.mark.server
@pytest.mark.parametrize("is_pooled", [False, True])
def test_rows_on_their_way_are_waited_for(
    gate: Gate, database: Database, pgbouncer: PgBouncers, *, is_pooled: bool
) -> None:
    """What the tool commits while the gate waits is taken over too."""
    load(database, "goose-2")
    env = {"GATE_ADOPT": "goose", "GATE_HEARTBEAT": "100ms"}
    with database.connect() as tool:
        pid = tool.info.backend_pid
        tool.execute(
            "BEGIN; SET application_name = 'goose'; CREATE TABLE c (id int);"
            "INSERT INTO goose_db_version (version_id, is_applied) VALUES (3, true)"
        )
        target = database
        if is_pooled:
            target = pgbouncer("transaction", database).through(database)
        process = gate.start(database=target, migrations=FILES, env=env)
        process.wait_for("history.tool_waiting")
        assert database.fetch("SELECT to_regclass('schema_migrations')") == [(None,)]
        tool.execute("COMMIT")
        run = process.wait()
    waiting = run.all("history.tool_waiting")[0]
    assert (waiting["tool"], waiting["holder_pid"]) == ("goose", pid)
    assert (run.exit_code, run.verdict["applied"]) == (0, []), run.output
    assert run.one("history.adopted")["row_count"] == 3


def golang_migrate(database: Database) -> int:
    """Return the key of golang-migrate's lock."""
    name = f"public\0schema_migrations\0{database.name}".encode()
    return zlib.crc32(name) * 1486364155 % (1 << 32)


@pytest.mark.parametrize(
    ("tool", "key"),
    [
        ("golang-migrate", golang_migrate),
        ("tern", lambda _: 9628173550095224),
        ("prisma", lambda _: 72707369),
        ("flyway", lambda _: 77431708279161 - 1234567890),
        ("sqlx", lambda database: 0x3D32AD9E * zlib.crc32(database.name.encode())),
        ("atlas", lambda _: 2686470616),
    ],
)
def test_a_tool_that_does_not_end_closes_the_gate(
    gate: Gate, database: Database, tool: str, key: object
) -> None:
    """By its advisory lock; nothing is taken over."""
    load(database, {"flyway": "flyway-2"}.get(tool, tool))
    env = {"GATE_ADOPT": tool, "GATE_CHANGED": "warn", **SOON}
    with database.connect() as other:
        number = key(database)  # type: ignore[operator]  # a function
        other.execute(f"SELECT pg_advisory_lock({number})")
        run = gate(database=database, migrations=UPS, env=env)
        assert why(run)[:2] == (1, "lock_timeout"), run.output
        pid = other.info.backend_pid
        assert f"{tool} was still applying" in run.verdict["error_message"]
        assert f"process {pid}" in run.verdict["error_message"]
    assert not versions_or_none(database)


def versions_or_none(database: Database) -> list[str]:
    """Return what the gate has recorded, in whichever table."""
    for table in ("gate_schema_migrations", "schema_migrations"):
        found = database.fetch(
            "SELECT count(*) FROM information_schema.columns WHERE table_name = %s"
            " AND column_name = 'gate_version'",
            [table],
        )
        if found[0][0]:
            return versions(database)
    return []


@pytest.mark.parametrize(
    ("tool", "locked", "released"),
    [
        (
            "liquibase",
            "UPDATE databasechangeloglock SET locked = true",
            "UPDATE databasechangeloglock SET locked = false",
        ),
        ("yoyo", "INSERT INTO yoyo_lock VALUES (1, now(), 7)", "DELETE FROM yoyo_lock"),
    ],
)
def test_a_lock_that_is_a_row_is_seen(
    gate: Gate, database: Database, tool: str, locked: str, released: str
) -> None:
    """Beside the tool's history."""
    load(database, f"{tool}-2")
    database.execute(
        "UPDATE _yoyo_migration SET migration_id = '1_a'"
        if tool == "yoyo"
        else "UPDATE databasechangelog SET filename = '1_a.sql'"
    )
    database.execute(locked)
    sets = ["alice:1", "bob:2-b", "alice:3", "alice:5", "alice:6"]
    text = "\n".join(["--liquibase formatted sql", *(f"--changeset {s}" for s in sets)])
    files = {"1_a.sql": text if tool == "liquibase" else "SELECT 1;"}
    env = {"GATE_ADOPT": tool, **SOON}
    closed = gate(database=database, migrations=files, env=env)
    database.execute(released)
    run = gate(database=database, migrations=files, env=env)
    assert why(closed)[1] == "lock_timeout", closed.output
    assert "its lock is a row of a table" in closed.verdict["error_message"]
    assert run.exit_code == 0, run.output


def test_what_a_tool_does_meanwhile_on_a_new_database_is_seen_under_the_lock(
    gate: Gate, database: Database
) -> None:
    """Else the gate would run every file."""
    key = lock_keys("public", "schema_migrations").lock
    with database.connect() as other:
        other.execute(f"SELECT pg_advisory_lock({key})")
        env = {"GATE_ADOPT": "goose", "GATE_HEARTBEAT": "100ms"}
        process = gate.start(database=database, migrations=FILES, env=env)
        process.wait_for("lock.waiting")
        load(database, "goose-2")
    run = process.wait()
    assert (run.exit_code, run.verdict["applied"]) == (0, ["3_c.sql"]), run.output
    assert run.one("history.adopted")["row_count"] == 2
