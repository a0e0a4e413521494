"""
A version of an application that queries without end, and counts what fails.

    python -m tests.shop old|new CONNINFO

Says "ready" when its first queries have succeeded; at SIGTERM it says how many it made,
and what failed, as JSON.
"""

from __future__ import annotations

import json
import signal
import sys
import time

import psycopg


COLUMN = {"old": "total_cents", "new": "amount_cents"}


def main(version: str, conninfo: str) -> None:
    """Insert, update and read orders by the column that this version knows."""
    column = COLUMN[version]
    queries = [
        f"INSERT INTO orders (customer_id, {column}) SELECT id, 7 FROM customers",
        f"UPDATE orders SET {column} = {column} + 1 WHERE id = 1",
        f"SELECT id, {column} FROM orders ORDER BY id DESC LIMIT 10",
        f"SELECT sum({column}) FROM orders",
    ]
    wants_end = False

    def end(*_: object) -> None:
        nonlocal wants_end
        wants_end = True

    signal.signal(signal.SIGTERM, end)
    count, failures = 0, []
    with psycopg.connect(conninfo, autocommit=True) as conn:
        while not wants_end:
            for query in queries:
                try:
                    conn.execute(query)
                except psycopg.Error as error:
                    failures.append(f"{query}: {error}")
                count += 1
            if count == len(queries):
                sys.stdout.write("ready\n")
                sys.stdout.flush()
            time.sleep(0.002)
    sys.stdout.write(json.dumps({"queries": count, "failures": failures[:5]}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
