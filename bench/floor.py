"""
What psycopg allows: one connection, no lock, no checks, no log. Not a product.

    python bench/floor.py each|one|pipelined FOLDER

`each` sends a message a file (BEGIN; file; history row; COMMIT), `one` all files in one
transaction, `pipelined` fifty transactions a message. DATABASE_URL names the database.
"""

# ruff: noqa: S608 -- names are the bench's own

import os
import sys

import psycopg


READ = b"SELECT version FROM schema_migrations"
MAKE = b"""CREATE TABLE schema_migrations (
    id serial PRIMARY KEY,
    version varchar(255) NOT NULL UNIQUE,
    applied_at timestamp NOT NULL DEFAULT current_timestamp
)"""
FILES_A_MESSAGE = 50


def main(mode: str, folder: str) -> None:
    """Apply what is pending."""
    conn = psycopg.connect(os.environ["DATABASE_URL"], autocommit=True).pgconn
    history = conn.exec_(READ)
    if history.status != psycopg.pq.ExecStatus.TUPLES_OK:
        send(conn, MAKE)
    applied = {history.get_value(row, 0) for row in range(history.ntuples)}
    names = sorted(os.listdir(folder))  # noqa: PTH208 -- the cheapest way
    pending = [name for name in names if name.encode() not in applied]
    step = {"each": 1, "one": len(pending) or 1, "pipelined": FILES_A_MESSAGE}[mode]
    for first in range(0, len(pending), step):
        files = [to_sql(folder, name) for name in pending[first : first + step]]
        if mode == "one":
            send(conn, b"BEGIN;" + b"".join(files) + b"COMMIT")
        else:
            send(conn, b"".join(b"BEGIN;" + file + b"COMMIT;" for file in files))


def to_sql(folder: str, name: str) -> bytes:
    """Return a file and its history row."""
    with open(f"{folder}/{name}", "rb") as file:  # noqa: PTH123 -- the cheapest way
        text = file.read()
    row = f"\n;INSERT INTO schema_migrations (version) VALUES ('{name}');"
    return text + row.encode()


def send(conn: psycopg.pq.abc.PGconn, message: bytes) -> None:
    """Send a message; end with PostgreSQL's words when it fails."""
    answer = conn.exec_(message)
    if answer.status == psycopg.pq.ExecStatus.FATAL_ERROR:
        sys.exit(answer.get_error_message())


main(*sys.argv[1:])
