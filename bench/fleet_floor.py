"""
What psycopg allows over a fleet of empty databases. Not a product.

    python bench/fleet_floor.py FOLDER LIST AT_ONCE

One process; for each URL of the list one session and one message, of a history table
and every file of the folder, each in a transaction with its row; the last one is
flushed. No lock, no look at what is there, no check, no log.
"""

import sys

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg


MAKE = b"""CREATE TABLE schema_migrations (
    id serial PRIMARY KEY,
    version varchar(255) NOT NULL UNIQUE,
    applied_at timestamp NOT NULL DEFAULT current_timestamp
);"""
NO_FLUSH = b"SET LOCAL synchronous_commit = off;"
ROW = "\n;INSERT INTO schema_migrations (version) VALUES ('{}');COMMIT;"


def compose(folder: Path) -> bytes:
    """Return the message."""
    files = sorted(folder.iterdir())
    parts = [MAKE]
    for file in files:
        begin = b"BEGIN;" + (NO_FLUSH if file != files[-1] else b"")
        row = ROW.format(file.name).encode()
        parts.append(begin + file.read_bytes() + row)
    return b"".join(parts)


def apply(url: str, message: bytes) -> None:
    """Send the message in a session of its own."""
    with psycopg.connect(url, autocommit=True) as conn:
        answer = conn.pgconn.exec_(message)
        if answer.status == psycopg.pq.ExecStatus.FATAL_ERROR:
            sys.exit(answer.get_error_message())


def main(folder: str, listed: str, at_once: str) -> None:
    """Go over all."""
    message = compose(Path(folder))
    urls = Path(listed).read_text("utf-8").split()
    with ThreadPoolExecutor(int(at_once)) as threads:
        list(threads.map(apply, urls, [message] * len(urls)))


main(*sys.argv[1:])
