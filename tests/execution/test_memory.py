"""What a statement returns, or how long it is, costs little memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from pathlib import Path

import pytest

from tests.fix_gate import ROOT, Event, write_migrations
from tests.fix_postgres import Database


pytestmark = pytest.mark.timeout(60)
MIB = 1 << 20
# What a run takes that does nothing much, its interpreter and libraries included.
BASE_MAX = 60 * MIB


def run(database: Database, folder: Path, text: str) -> tuple[Event, int]:
    """Apply a file; return the verdict, and the most that the gate had in memory."""
    folder = write_migrations(folder / "migrations", {"001_a.sql": text})
    # A process is charged with what it was forked from, too: not from this large one.
    launch = (
        "import resource, subprocess, sys;"
        "subprocess.run(sys.argv[1:], stderr=subprocess.DEVNULL);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    command = [sys.executable, "-S", "-c", launch]
    command += [sys.executable, str(ROOT / "entrypoint.py")]
    environ = {
        "PATH": os.environ["PATH"],
        "GATE_MIGRATIONS": str(folder),
        **database.environ(),
    }
    told = subprocess.run(command, env=environ, capture_output=True, check=True)
    *_, verdict, peak_kib = told.stdout.splitlines()
    return json.loads(verdict), int(peak_kib) * 1024


def peak_bytes(database: Database, folder: Path, text: str) -> int:
    """Apply a file that can be, and return the most that the gate had in memory."""
    verdict, peak = run(database, folder, text)
    assert verdict["event"] == "gate.opened", verdict
    return peak


def test_rows_that_nobody_reads_are_let_go(database: Database, tmp_path: Path) -> None:
    """A backfill that calls a function for each of many rows."""
    text = "SELECT n, repeat('x', 50) FROM generate_series(1, 400000) n;"
    assert peak_bytes(database, tmp_path, text) < BASE_MAX


ROWS = ",\n".join(f"({n}, '{'x' * 90}')" for n in range(200_000))
LARGE = f"CREATE UNLOGGED TABLE t (a int, b text); INSERT INTO t VALUES {ROWS}"


def test_a_large_statement_is_there_twice_and_no_more(
    database: Database, tmp_path: Path
) -> None:
    """The gate's text and the buffer of libpq, which keeps no third of it."""
    assert peak_bytes(database, tmp_path, f"{LARGE};") < BASE_MAX + 2 * len(LARGE)


@pytest.mark.thorough
def test_an_error_in_a_large_statement_costs_no_more(
    database: Database, tmp_path: Path
) -> None:
    """Its place is found without the statement in memory."""
    verdict, peak = run(database, tmp_path, f"{LARGE},\n(1, nosuch);")
    assert (verdict["line"], verdict["column"]) == (200_001, 5)
    assert verdict["sqlstate"] == "42703"
    assert peak < BASE_MAX + 2 * len(LARGE)


@pytest.mark.thorough
def test_many_statements_are_no_more_than_numbers(
    database: Database, tmp_path: Path
) -> None:
    """They are read again at their turn."""
    statements = "".join(f"INSERT INTO t VALUES ({n}, 1);\n" for n in range(200_000))
    text = f"CREATE UNLOGGED TABLE t (a int, b int);\n{statements}"
    assert peak_bytes(database, tmp_path, text) < BASE_MAX + 16 * MIB
    assert database.fetch("SELECT count(*) FROM t") == [(200_000,)]
