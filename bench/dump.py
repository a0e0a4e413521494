"""
A dump of 100 MB, as pg_dump writes it, in each tool's folder.
"""

from __future__ import annotations

import re
import subprocess

from pathlib import Path
from typing import Final

import psycopg

from bench.peers import Peer
from bench.server import Databases
from bench.work import WORK
from dev.postgres import tool, tools_environ


ROWS: Final = 1_000_000
ROWS_AN_INSERT: Final = 100
MAKE: Final = f"""
    CREATE TABLE measurement (
        id bigint PRIMARY KEY, taken_at timestamptz NOT NULL, sensor int NOT NULL,
        value double precision NOT NULL, note text NOT NULL);
    INSERT INTO measurement
    SELECT n, '2026-01-01'::timestamptz + n * interval '1 second', n % 997,
           n::float8 * 1.000000119, md5(n::text) || ' ' || n
    FROM generate_series(1, {ROWS}) n;
    CREATE INDEX ON measurement (sensor, taken_at)
"""  # noqa: S608 -- a number of our own
# What keeps a hostile dump from running psql's commands; most tools take it for SQL.
RESTRICT: Final = re.compile(rb"^\\(un)?restrict .*\n", re.MULTILINE)


def folder_for(databases: Databases, peer: Peer, *, copies: bool) -> Path:
    """Return a folder with the dump as its one migration; made once."""
    form = peer.form.__name__.removeprefix("write_")
    folder = WORK / f"{form}-dump-{'copy' if copies else 'inserts'}"
    if not folder.is_dir():
        new = folder.with_suffix(".new")
        new.mkdir(parents=True, exist_ok=True)
        text = read_dump(databases, copies=copies)
        peer.form(new, [text])
        new.rename(folder)
    return folder


def read_dump(databases: Databases, *, copies: bool) -> str:
    """Return the dump's text; made once."""
    file = WORK / f"dump-{'copy' if copies else 'inserts'}.sql"
    if not file.exists():
        options = [] if copies else [f"--rows-per-insert={ROWS_AN_INSERT}"]
        source = databases.make()
        with psycopg.connect(source.url(), autocommit=True) as conn:
            conn.execute(MAKE)
        written = subprocess.run(
            [tool("pg_dump"), "--no-owner", *options, source.url()],
            env=tools_environ(),
            check=True,
            stdout=subprocess.PIPE,
        ).stdout
        databases.drop(source)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(written if copies else RESTRICT.sub(b"", written))
    return file.read_text("utf-8")
