"""
What a fleet costs, side by side: one run of the gate, and a loop of a peer's processes.

    python -m bench.fleet DSN KIND COUNT STATE [AT_ONCE ...]

KIND is schemas or databases, STATE idle or pending: each target has ten small files
applied, or to be applied. DSN names a superuser of a server of one's own on this
machine, whose processes are its postmaster's children: their CPU time is measured too.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

import psycopg

from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow

from bench.install import ROOT, install


PREFIX: Final = "fleet_bench"
FILES: Final = 10
# A backend's time is its postmaster's when it is gone.
SETTLE_S: Final = 0.7
TICKS: Final = os.sysconf("SC_CLK_TCK")
LIST: Final[Mapping[str, str]] = {
    "schemas": "schemas:SELECT nspname FROM pg_namespace",
    "databases": "databases:SELECT datname FROM pg_database",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a run over all targets took."""

    wall_s: float
    client_s: float
    server_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A server, the folder of the files in each tool's form, and the targets."""

    dsn: str
    folder: Path
    kind: str
    count: int

    @property
    def home(self) -> str:
        """The database that has the schemas, or that a list is asked of."""
        return f"{PREFIX}_home"

    @property
    def names(self) -> list[str]:
        """The targets."""
        return [f"{PREFIX}_{number:05}" for number in range(self.count)]

    def connect(self, database: str = "postgres") -> psycopg.Connection[TupleRow]:
        """Connect as the superuser."""
        return psycopg.connect(self.dsn, autocommit=True, dbname=database)

    def url(self, target: str, more: str = "") -> str:
        """Return the URL of a target, as Go's tools read it."""
        known = conninfo_to_dict(self.dsn)
        user, password = (quote(str(known[k]), safe="") for k in ("user", "password"))
        of_schema = self.kind == "schemas"
        path = f"&search_path={target}" if of_schema else ""
        place = f"{known['host']}:{known['port']}/{self.home if of_schema else target}"
        return f"postgres://{user}:{password}@{place}?sslmode=disable{path}{more}"


def write_files(folder: Path) -> None:
    """Write ten small files, for each tool in its own form."""
    for tool in ("gate", "dbmate", "migrate"):
        (folder / tool).mkdir()
    for number in range(1, FILES + 1):
        text = f"CREATE TABLE t{number} (id bigint PRIMARY KEY, note text);\n"
        if number % 2 == 0:
            text = f"ALTER TABLE t{number - 1} ADD COLUMN c{number} int;\n"
        name = f"{number:03}_t{number}"
        (folder / "gate" / f"{name}.sql").write_text(text, "utf-8")
        (folder / "migrate" / f"{name}.up.sql").write_text(text, "utf-8")
        both = f"-- migrate:up\n{text}-- migrate:down\n"
        (folder / "dbmate" / f"{name}.sql").write_text(both, "utf-8")


def drop_all(bench: Bench) -> None:
    """Drop what an earlier turn has left."""
    with bench.connect() as conn:
        query = "SELECT datname FROM pg_database WHERE datname ~ %s"
        for (name,) in conn.execute(query, [f"^{PREFIX}_"]).fetchall():
            drop = sql.SQL("DROP DATABASE {} WITH (FORCE)")
            conn.execute(drop.format(sql.Identifier(name)))


def make_all(bench: Bench) -> None:
    """Make the targets anew, empty."""
    drop_all(bench)
    of_schemas = bench.kind == "schemas"
    make = sql.SQL("CREATE SCHEMA {}" if of_schemas else "CREATE DATABASE {}")
    with bench.connect() as conn:
        conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(bench.home)))
    with bench.connect(bench.home) as conn:
        for name in bench.names:
            conn.execute(make.format(sql.Identifier(name)))


def drop_tables(bench: Bench) -> None:
    """Drop what the files made, so that another tool can make it in its turn."""
    tables = [f"t{number}" for number in range(1, FILES + 1, 2)]
    places = [bench.home] if bench.kind == "schemas" else bench.names
    schemas = bench.names if bench.kind == "schemas" else ["public"]
    for place in places:
        with bench.connect(place) as conn:
            for schema in schemas:
                names = [sql.Identifier(schema, table) for table in tables]
                conn.execute(
                    sql.SQL("DROP TABLE IF EXISTS {}").format(sql.SQL(", ").join(names))
                )


def find_postmaster(bench: Bench) -> int:
    """Return the process that all backends are children of."""
    with bench.connect() as conn:
        row = conn.execute("SELECT pg_backend_pid()").fetchone()
        assert isinstance(row, tuple)  # noqa: S101 -- a SELECT without FROM
        return int(read_stat(int(str(row[0])))[1])


def read_stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the name."""
    text = Path(f"/proc/{pid}/stat").read_text("utf-8")
    return text.rpartition(")")[2].split()


def server_s(postmaster: int) -> float:
    """Return the CPU seconds of a server's processes that have ended, and its own."""
    return sum(map(int, read_stat(postmaster)[11:15])) / TICKS


def client_s() -> float:
    """Return the CPU seconds of the processes that were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def take(
    bench: Bench,
    argv: Sequence[str],
    *,
    environ: Mapping[str, str] | None = None,
    text: str = "",
) -> Cost:
    """Run a command to its end, and say what it took."""
    postmaster = find_postmaster(bench)
    time.sleep(SETTLE_S)
    before = client_s(), server_s(postmaster)
    started_s = time.monotonic()
    run = subprocess.run(
        argv, check=False, capture_output=True, env=environ, input=text.encode()
    )
    wall_s = time.monotonic() - started_s
    time.sleep(SETTLE_S)
    if run.returncode:
        sys.exit((run.stdout + run.stderr).decode()[-2000:])
    return Cost(
        wall_s=wall_s,
        client_s=client_s() - before[0],
        server_s=server_s(postmaster) - before[1],
    )


def take_gate(bench: Bench, at_once: str) -> Cost:
    """Run the gate over all targets."""
    known = conninfo_to_dict(bench.dsn)
    column = "nspname" if bench.kind == "schemas" else "datname"
    of_them = f"WHERE {column} ~ '^{PREFIX}_[0-9]' ORDER BY 1"
    environ = {
        "PATH": os.defpath,
        "PGHOST": str(known["host"]),
        "PGPORT": str(known["port"]),
        "PGUSER": str(known["user"]),
        "PGPASSWORD": str(known["password"]),
        "PGDATABASE": bench.home,
        "GATE_MIGRATIONS": str(bench.folder / "gate"),
        "GATE_TARGETS": f"{LIST[bench.kind]} {of_them}",
        "GATE_TARGETS_AT_ONCE": at_once,
        "PGSSLMODE": "disable",
    }
    argv = [sys.executable, str(ROOT / "entrypoint.py")]
    return take(bench, argv, environ=environ)


def take_dbmate(bench: Bench, at_once: str) -> Cost:
    """Run a process of dbmate for each target."""
    folder = str(bench.folder / "dbmate")
    argv = (
        *("xargs", "-P", at_once, "-I{}", str(install("dbmate").program), "-d", folder),
        *("--no-dump-schema", "--migrations-table", "of_dbmate", "-u", "{}", "migrate"),
    )
    return take(bench, argv, text="\n".join(map(bench.url, bench.names)) + "\n")


def take_migrate(bench: Bench, at_once: str) -> Cost:
    """Run a process of golang-migrate for each target."""
    folder = str(bench.folder / "migrate")
    argv = (
        *("xargs", "-P", at_once, "-I{}", str(install("migrate").program)),
        *("-path", folder, "-database", "{}", "up"),
    )
    urls = [bench.url(n, "&x-migrations-table=of_migrate") for n in bench.names]
    return take(bench, argv, text="\n".join(urls) + "\n")


TAKERS: Final = {
    "gate": take_gate,
    "dbmate": take_dbmate,
    "golang-migrate": take_migrate,
}


def each_turn(
    bench: Bench, state: str, counts: Sequence[str]
) -> Iterator[tuple[str, str, Cost]]:
    """Yield what each tool took, at each count of targets at once."""
    if state == "idle":
        make_all(bench)
        for taker in TAKERS.values():
            taker(bench, counts[-1])
            drop_tables(bench)
    for at_once in counts:
        for name, taker in TAKERS.items():
            if state == "pending":
                make_all(bench)
            yield name, at_once, taker(bench, at_once)


def main(dsn: str, kind: str, count: int, state: str, counts: Sequence[str]) -> None:
    """Measure in turns, and print a row for each."""
    head = f"{'':18} {'at once':>7} {'wall s':>8} {'a minute':>9}"
    print(head, "CPU ms each, of client")  # noqa: T201
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(dsn=dsn, folder=Path(name), kind=kind, count=count)
        write_files(bench.folder)
        try:
            for tool, at_once, cost in each_turn(bench, state, counts):
                per_minute = count / cost.wall_s * 60
                client_ms = cost.client_s / count * 1000
                server_ms = cost.server_s / count * 1000
                print(  # noqa: T201
                    f"{tool:18} {at_once:>7} {cost.wall_s:8.2f} {per_minute:9.0f} "
                    f"{client_ms:6.2f} and server {server_ms:6.2f}",
                    flush=True,
                )
        finally:
            drop_all(bench)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], sys.argv[5:] or ["8"])
