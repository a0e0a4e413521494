"""
What a rehearsal foretells, beside what pgbench's queries waited for.

`python -m tests.rehearsal.under_load DSN` rehearses each of the files below on a
database with few rows, then migrates one with many while pgbench reads and writes its
tables, and prints which queries waited for a lock, and which were said to.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psycopg

from psycopg.conninfo import conninfo_to_dict

from dev.postgres import tool
from tests.rehearsal.table import ROOT


SMALL, LARGE = "rehearsed", "live"
ROWS: Final = {SMALL: 1000, LARGE: 2_000_000}
TABLES: Final = ("accounts", "orders")
BEFORE: Final = "".join(
    f"CREATE TABLE {table} (id int PRIMARY KEY, a int, filler text);\n"
    f"INSERT INTO {table} SELECT g, g, repeat('x', 150)"
    " FROM generate_series(1, :rows) g;\n"
    for table in TABLES
)
FILES: Final = (
    "ALTER TABLE accounts ADD COLUMN n int DEFAULT 5",
    "CREATE INDEX accounts_a ON accounts (a)",
    "DROP INDEX accounts_a",
    "CREATE INDEX CONCURRENTLY accounts_a ON accounts (a)",
    "ALTER TABLE accounts ALTER a SET NOT NULL",
    "ALTER TABLE orders ADD CHECK (a > 0) NOT VALID",
    "ALTER TABLE orders VALIDATE CONSTRAINT orders_a_check",
    "ALTER TABLE orders ADD FOREIGN KEY (a) REFERENCES accounts",
    "ALTER TABLE orders ADD COLUMN m uuid DEFAULT gen_random_uuid()",
    "ALTER TABLE orders ALTER COLUMN a TYPE bigint",
    "UPDATE orders SET a = a",
    "ALTER TABLE accounts ADD COLUMN o int;\nUPDATE orders SET a = a",
    "ALTER TABLE accounts ALTER n DROP DEFAULT;\nCREATE INDEX ON orders (a)",
    "REINDEX TABLE CONCURRENTLY orders",
    "VACUUM FULL orders",
)
QUERIES: Final = {
    "reads": "SELECT a FROM {table} WHERE id = :id;",
    "writes": "UPDATE {table} SET filler = filler WHERE id = :id;",
}
WAITING: Final = """
SELECT application_name, extract(epoch FROM clock_timestamp() - query_start)::float8
FROM pg_stat_activity
WHERE wait_event_type = 'Lock' AND application_name LIKE '%:%'
"""
STALLED_S: Final = 0.1


class Sampler:
    """Notes for how long each kind of query waited for a lock, at most."""

    def __init__(self, conninfo: str) -> None:
        self.waited_s: dict[str, float] = {}
        self._over = threading.Event()
        self._conn = psycopg.connect(conninfo, autocommit=True)
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()

    def stop(self) -> None:
        """End it."""
        self._over.set()
        self._thread.join()
        self._conn.close()

    def _sample(self) -> None:
        while not self._over.wait(0.005):
            for name, lasted_s in self._conn.execute(WAITING).fetchall():
                self.waited_s[name] = max(self.waited_s.get(name, 0.0), lasted_s)


def run_gate(
    place: Mapping[str, Any], database: str, *arguments: str, folder: str
) -> str:
    """Run the gate to its end; return what it says on stdout."""
    names = {"host": "HOST", "port": "PORT", "user": "USER", "password": "PASSWORD"}
    ended = subprocess.run(
        [sys.executable, str(ROOT / "entrypoint.py"), *arguments],
        check=False,
        capture_output=True,
        env={
            "PATH": os.environ["PATH"],
            **{f"POSTGRES_{name}": str(place[key]) for key, name in names.items()},
            "POSTGRES_DB": database,
            "GATE_MIGRATIONS": folder,
            "GATE_VAR_rows": str(ROWS[database]),
        },
    )
    if ended.returncode:
        sys.exit(ended.stdout.decode()[-2000:] + ended.stderr.decode()[-2000:])
    return ended.stdout.decode()


def foretold(said: Mapping[str, Any]) -> set[str]:
    """Return the kinds of queries that a report says will wait."""
    waiting = set()
    for line in (line for file in said["files"] for line in file["statements"]):
        waits = {each["relation"]: each["waits"] for each in line["relations"]}
        for finding in line["findings"]:
            table = str(finding["relation"]).removeprefix("public.")
            if finding["name"] in {"blocks-reads", "blocks-writes", "long-transaction"}:
                waiting |= {f"{table}:{what}" for what in waits[finding["relation"]]}
            if finding["name"] == "changes-many-rows":
                waiting.add(f"{table}:writes")
    return waiting


@contextmanager
def load(place: Mapping[str, Any], folder: Path) -> Iterator[None]:
    """Read and write each table, a client each."""
    processes = []
    for table in TABLES:
        for what, query in QUERIES.items():
            script = folder / f"{table}_{what}.pgbench"
            script.write_text(
                f"\\set id random(1, {ROWS[LARGE]})\n{query.format(table=table)}\n"
            )
            command = [
                tool("pgbench"),
                "-n",
                "-T",
                "3600",
                "-R",
                "50",
                "-f",
                str(script),
            ]
            environ = {
                "PGHOST": str(place["host"]),
                "PGPORT": str(place["port"]),
                "PGUSER": str(place["user"]),
                "PGPASSWORD": str(place["password"]),
                "PGDATABASE": LARGE,
                "PGAPPNAME": f"{table}:{what}",
            }
            processes.append(
                subprocess.Popen(
                    command,
                    env=environ,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            )
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def main() -> None:
    """Print a row a file."""
    dsn = sys.argv[1]
    place = conninfo_to_dict(dsn)
    with psycopg.connect(dsn, autocommit=True) as conn:
        for name in ROWS:
            conn.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            conn.execute(f"CREATE DATABASE {name}")
    with tempfile.TemporaryDirectory() as made:
        folder, scripts = Path(made, "migrations"), Path(made)
        folder.mkdir()
        (folder / "100.sql").write_text(BEFORE)
        for name in ROWS:
            run_gate(place, name, "migrate", folder=str(folder))
        with load(place, scripts):
            for number, text in enumerate(FILES, 101):
                (folder / f"{number}.sql").write_text(f"{text};\n")
                print(compare(place, text, str(folder)), flush=True)  # noqa: T201
    with psycopg.connect(dsn, autocommit=True) as conn:
        for name in ROWS:
            conn.execute(f"DROP DATABASE {name} WITH (FORCE)")


def compare(place: Mapping[str, Any], text: str, folder: str) -> str:
    """Rehearse one file, and migrate by it; return both outcomes as a row."""
    said = foretold(
        json.loads(run_gate(place, SMALL, "rehearse", "--json", folder=folder))
    )
    sampler = Sampler(psycopg.conninfo.make_conninfo(**place))
    started_s = time.monotonic()
    run_gate(place, LARGE, "migrate", folder=folder)
    took_s = time.monotonic() - started_s
    sampler.stop()
    waited = {
        name: lasted_s
        for name, lasted_s in sampler.waited_s.items()
        if lasted_s >= STALLED_S
    }
    seen = ", ".join(f"{name} {waited[name]:.1f} s" for name in sorted(waited))
    verdict = "as said" if said == set(waited) else "DIFFERENT"
    shown, said_to = text.replace("\n", " "), ", ".join(sorted(said))
    return f"| `{shown}` | {said_to} | {seen} | {took_s:.1f} s | {verdict} |"


if __name__ == "__main__":
    main()
