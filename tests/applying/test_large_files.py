"""Files far larger than the memory that they should cost."""

from __future__ import annotations

import os
import time

from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.fix_gate import Gate, write_migrations
from tests.fix_postgres import Database
from tests.polling import until


MIB = 1 << 20
SIZE = 96 * MIB
MEMORY_MAX = 70 * MIB


def resident_bytes(pid: int) -> int:
    """Return what a process has in memory, pages of mapped files included."""
    with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    return 0


@pytest.mark.timeout(90)
@pytest.mark.parametrize(
    "start",
    ["", pytest.param("-- gate: no-transaction\n", marks=pytest.mark.thorough)],
)
def test_copied_data_passes_through_a_little_memory(
    gate: Gate, database: Database, tmp_path: Path, start: str
) -> None:
    """It is read block by block, and streamed."""
    folder = tmp_path / "large"
    folder.mkdir()
    rows = b"".join(b"%d\t%s\n" % (n, b"x" * 500) for n in range(2000))
    with (folder / "001_large.sql").open("wb") as file:
        file.write(start.encode())
        file.write(b"CREATE UNLOGGED TABLE t (a int, b text);\nCOPY t FROM stdin;\n")
        count = SIZE // len(rows)
        file.writelines(rows for _ in range(count))
        file.write(b"\\.\n")
    process = gate.start(database=database, migrations=folder)
    most = 0
    while process.is_running:
        most = max(most, resident_bytes(process.pid))
        time.sleep(0.01)
    run = process.wait(60)

    assert run.exit_code == 0, run.output
    assert database.fetch("SELECT count(*) FROM t") == [(2000 * count,)]
    assert most < MEMORY_MAX


@pytest.mark.timeout(60)
@pytest.mark.parametrize("how", ["cut", "grown", "written anew"])
def test_a_file_that_changes_while_it_is_sent_closes_the_gate(
    gate: Gate, database: Database, tmp_path: Path, how: str
) -> None:
    """A checkout into the folder that is mounted: nothing of the file is left."""
    file = write_migrations(tmp_path / "large", {}) / "001_large.sql"
    rows = (b"x" * 999 + b"\n") * (18 * MIB // 1000)
    file.write_bytes(b"COPY t FROM stdin;\n" + rows + b"\\.\n")
    database.execute(
        "CREATE TABLE busy (); CREATE TABLE t (line text);"
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN LOCK TABLE busy; RETURN NEW; END';"
        "CREATE TRIGGER wait BEFORE INSERT ON t EXECUTE FUNCTION wait()"
    )
    with closing(database.connect()) as other:
        other.execute("BEGIN; LOCK TABLE busy")
        process = gate.start(
            database=database,
            migrations=file.parent,
            env={"GATE_DDL_LOCK_TIMEOUT": "30s"},
        )
        waiting = (
            "SELECT FROM pg_locks WHERE relation = 'busy'::regclass AND NOT granted"
        )
        until(lambda: database.fetch(waiting))
        if how == "written anew":
            with file.open("r+b") as opened:
                opened.seek(MIB)
                opened.write(b"y" * (17 * MIB))
        else:
            os.truncate(file, {"cut": MIB, "grown": 20 * MIB}[how])
        other.execute("COMMIT")
        run = process.wait()
    assert run.exit_code == 1, run.output
    assert run.verdict["reason"] == "files"
    assert run.verdict["file"] == "001_large.sql"
    assert run.verdict["error_message"].endswith("changed while the gate was running")
    assert database.fetch("SELECT count(*) FROM t") == [(0,)]


def test_a_file_that_is_written_anew_before_its_turn_closes_the_gate(
    gate: Gate, database: Database, tmp_path: Path
) -> None:
    """Though neither its size nor its time says so: what is sent is what was judged."""
    row = ", (1)\n"
    files = {
        "001_a.sql": "CREATE TABLE t (a int); LOCK TABLE busy;",
        "002_b.sql": "INSERT INTO t VALUES (1)\n" + row * (5 * MIB // len(row)),
    }
    folder = write_migrations(tmp_path / "migrations", files)
    database.execute("CREATE TABLE busy ()")
    with closing(database.connect()) as other:
        other.execute("BEGIN; LOCK TABLE busy")
        environ = {"GATE_DDL_LOCK_TIMEOUT": "30s"}
        process = gate.start(database=database, migrations=folder, env=environ)
        waiting = (
            "SELECT FROM pg_locks WHERE relation = 'busy'::regclass AND NOT granted"
        )
        until(lambda: database.fetch(waiting))
        file = folder / "002_b.sql"
        facts = file.stat()
        with file.open("r+b") as opened:
            opened.seek(len(row) * -1000, os.SEEK_END)
            opened.write(row.replace("1", "2").encode())
        os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        other.execute("COMMIT")
        run = process.wait()
    assert run.exit_code == 1, run.output
    assert run.verdict["reason"] == "files"
    assert run.verdict["file"] == "002_b.sql"
    assert database.fetch("SELECT count(*) FROM t") == [(0,)]
    assert database.fetch("SELECT version FROM schema_migrations") == [("001_a.sql",)]
