"""What a statement returns, or how long it is, costs little memory."""

from __future__ import annotations

import os
import subprocess
import sys

from pathlib import Path

import pytest

from tests.fix_gate import ROOT, write_migrations
from tests.fix_postgres import Database


pytestmark = pytest.mark.timeout(60)
MIB = 1 << 20
# What a run takes that does nothing much, its interpreter and libraries included.
BASE_MAX = 60 * MIB


def peak_bytes(database: Database, folder: Path, text: str) -> int:
    """Apply a file, and return the most that the gate has had in memory."""
    folder = write_migrations(folder / "migrations", {"001_a.sql": text})
    # A process is charged with what it was forked from, too: not from this large one.
    launch = (
        "import resource, subprocess, sys;"
        "code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode;"
        "print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    command = [sys.executable, "-S", "-c", launch]
    command += [sys.executable, str(ROOT / "entrypoint.py")]
    environ = {
        "PATH": os.environ["PATH"],
        "GATE_MIGRATIONS": str(folder),
        **database.environ(),
    }
    told = subprocess.run(command, env=environ, capture_output=True, check=True)
    code, peak_kib = map(int, told.stdout.split())
    assert code == 0, told.stderr
    return peak_kib * 1024


def test_rows_that_nobody_reads_are_let_go(database: Database, tmp_path: Path) -> None:
    """A backfill that calls a function for each of many rows."""
    text = "SELECT n, repeat('x', 50) FROM generate_series(1, 400000) n;"
    assert peak_bytes(database, tmp_path, text) < BASE_MAX


def test_a_large_statement_is_there_three_times_and_no_more(
    database: Database, tmp_path: Path
) -> None:
    """The gate's text, and libpq's two: what is sent, and what it keeps of it."""
    rows = ",\n".join(f"({n}, '{'x' * 90}')" for n in range(200_000))
    text = f"CREATE UNLOGGED TABLE t (a int, b text); INSERT INTO t VALUES {rows};"
    assert peak_bytes(database, tmp_path, text) < BASE_MAX + 3 * len(text)
