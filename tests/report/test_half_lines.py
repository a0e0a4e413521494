"""Each line of the log is one JSON object, also where its reader is slow."""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import threading

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from migration_gate.report.events import GATE_CLOSED, MIGRATION_NOTICE
from migration_gate.report.log import Log
from tests.bare import Bare, end
from tests.fix_postgres import Database
from tests.polling import until


pytestmark = pytest.mark.timeout(60)
PIPE_BYTES = 1 << 12
LONG = "x" * (PIPE_BYTES * 3)


@contextmanager
def narrow_pipe() -> Iterator[tuple[int, int]]:
    """Make a pipe that takes less than a long line."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    try:
        yield reading, writing
    finally:
        os.close(reading)


def has_unread(pipe: int) -> bool:
    """Whether something waits to be read: a narrow pipe then takes no more."""
    return bool(select.select([pipe], [], [], 0)[0])


def test_a_signal_while_a_line_waits_for_its_reader_leaves_it_whole(
    database: Database, tmp_path: Path
) -> None:
    """The verdict is a line of its own."""
    bare = Bare(tmp_path)
    file = f"DO $$ BEGIN RAISE NOTICE '{LONG}'; PERFORM pg_sleep(60); END $$;"
    with narrow_pipe() as (reading, writing):
        process = bare.start(
            database.environ(), migrations={"001_long.sql": file}, stdout=writing
        )
        os.close(writing)
        with os.fdopen(reading, "rb", buffering=0, closefd=False) as log:
            text = b""
            while b"migration.notice" not in text:
                text += log.read(1 << 10)
            until(lambda: has_unread(reading))
            process.send_signal(signal.SIGTERM)
            text += log.readall()
        assert end(process) == 1
    events = [json.loads(line) for line in text.splitlines()]
    assert events[-2]["event"] == "migration.notice"
    assert events[-1]["event"] == "gate.closed"


def test_who_reports_for_a_stuck_thread_ends_its_line() -> None:
    """What that one would still write is left out."""
    with narrow_pipe() as (reading, writing):
        log = Log(fd=writing)
        stuck = threading.Thread(
            target=lambda: log.emit(MIGRATION_NOTICE, version="1_a.sql", notice=LONG)
        )
        stuck.start()
        until(lambda: has_unread(reading))
        other = threading.Thread(target=lambda: log.emit(GATE_CLOSED, message="late"))
        other.start()
        text = b""
        while b"late" not in text:
            text += os.read(reading, 1 << 10)
        stuck.join()
        other.join()
        os.close(writing)
        while more := os.read(reading, 1 << 10):
            text += more
    half, last = text.splitlines()
    assert b"migration.notice" in half
    assert json.loads(last)["event"] == "gate.closed"


def test_who_reports_for_a_busy_thread_has_the_last_line() -> None:
    """One that goes on writing does not break in, in each of many times."""
    for _ in range(20):
        with narrow_pipe() as (reading, writing):
            log, ended = Log(fd=writing), threading.Event()
            text = b""

            def write(log: Log = log, ended: threading.Event = ended) -> None:
                while not ended.is_set():
                    log.emit(MIGRATION_NOTICE, version="1_a.sql", notice="a row")

            busy = threading.Thread(target=write)
            busy.start()
            until(partial(has_unread, reading))
            other = threading.Thread(target=log.emit, args=(GATE_CLOSED,))
            other.start()
            while other.is_alive():
                if has_unread(reading):
                    text += os.read(reading, 1 << 8)
            ended.set()
            busy.join()
            os.close(writing)
            while more := os.read(reading, 1 << 10):
                text += more
        assert json.loads(text.splitlines()[-1])["event"] == "gate.closed"
