"""
What a fleet costs, side by side: one run of the gate, and loops of others' processes.

    python -m bench.fleet --kind schemas --state pending --count 1000
    python -m bench.fleet --kind databases --state idle --count 1000 --at-once 8
    python -m bench.fleet --kind schemas --state pending --count 200 --rtt-ms 20
    python -m bench.fleet --plot bench/fleet.svg

Each target has ten small files, applied before or to be applied; a release brings one
more. Tools take turns on one durable server; ``floor`` is what the driver allows of
empty databases; ``--plot`` lets the gate alone go over 10 to 10,000 targets.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import sys
import tempfile
import time

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import psycopg

from psycopg import sql
from psycopg.rows import TupleRow

from bench import disk, django_fleet, fleet_plot, link, server
from bench.install import ROOT, Missing, install
from bench.measure import Command, Runner, Sample, build_launcher
from bench.server import ROLE
from dev.postgres import conninfo_to_url, ended_by_signals


PREFIX: Final = "fleet_bench"
FILES: Final = 10
# A backend's time is its postmaster's when it is gone.
SETTLE_S: Final = 0.7
TIMEOUT_S: Final = 1800.0
LIST: Final[Mapping[str, str]] = {
    "schemas": "schemas:SELECT nspname FROM pg_namespace WHERE nspname",
    "databases": "databases:SELECT datname FROM pg_database WHERE datname",
}
COUNTS: Final = (10, 100, 1000, 10_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """A server, the files in each tool's form, and the targets."""

    server: server.DurableServer
    folder: Path
    kind: str
    count: int
    far: link.Link | None = None
    turn: int = 0

    @property
    def prefix(self) -> str:
        """
        What the names of this turn begin with.

        Nothing is dropped between turns: ext4 is slow to make files for some minutes
        after many were removed, which the next tool would pay for.
        """
        return f"{PREFIX}{self.turn}"

    @property
    def home(self) -> str:
        """The database that is asked for the list, and has the schemas."""
        return f"{self.prefix}_home"

    @property
    def names(self) -> list[str]:
        """The targets."""
        return [f"{self.prefix}_{number:05}" for number in range(self.count)]

    def connect(self, database: str = "postgres") -> psycopg.Connection[TupleRow]:
        """Connect as the superuser, from near."""
        known = self.server.conninfo | {"sslmode": "disable", "dbname": database}
        return psycopg.connect(conninfo_to_url(known), autocommit=True)

    @property
    def address(self) -> tuple[str, int]:
        """Where clients find the server."""
        host = self.server.host if self.far is None else link.HERE
        return host, self.server.port

    def url(self, target: str, more: str = "") -> str:
        """Return the URL of a target, as Go's tools read it."""
        host, port = self.address
        of_schema = self.kind == "schemas"
        path = f"&search_path={target}" if of_schema else ""
        place = f"{host}:{port}/{self.home if of_schema else target}"
        return f"postgres://{ROLE}:{ROLE}@{place}?sslmode=disable{path}{more}"

    def run(self, command: Command) -> Sample:
        """Run a command to its end, and say what it took."""
        prefix = () if self.far is None else self.far.prefix
        runner = Runner(prefix=prefix, server_pid=self.server.pid, timeout_s=TIMEOUT_S)
        time.sleep(SETTLE_S)
        sample = runner.run(command)
        if sample.exit_code:
            sys.exit(f"{command.arguments}: exit code {sample.exit_code}")
        return sample


def write_files(folder: Path) -> None:
    """Write ten small files, for each tool in its own form."""
    for tool in ("gate", "dbmate", "migrate"):
        (folder / tool).mkdir()
    for number, text in enumerate(texts(), start=1):
        for tool in ("gate", "dbmate", "migrate"):
            write_file(folder / tool, number, text)


def write_file(folder: Path, number: int, text: str) -> Path:
    """Write a file as the tool wants it whose folder it is."""
    is_both, is_up = folder.name == "dbmate", folder.name == "migrate"
    file = folder / f"{number:03}_t{number}{'.up' if is_up else ''}.sql"
    both = f"-- migrate:up\n{text}-- migrate:down\n"
    file.write_text(both if is_both else text, "utf-8")
    return file


def texts() -> Iterator[str]:
    """Yield what the files say: a table, then a column more."""
    for number in range(1, FILES + 1, 2):
        yield f"CREATE TABLE t{number} (id bigint PRIMARY KEY, note text);\n"
        yield f"ALTER TABLE t{number} ADD COLUMN c{number} int;\n"


def make_all(fleet: Fleet) -> None:
    """Make the targets anew, empty."""
    of_schemas = fleet.kind == "schemas"
    make = sql.SQL("CREATE SCHEMA {}" if of_schemas else "CREATE DATABASE {}")
    with contextlib.closing(fleet.connect()) as conn:
        conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(fleet.home)))
    with contextlib.closing(fleet.connect(fleet.home)) as conn:
        for name in fleet.names:
            conn.execute(make.format(sql.Identifier(name)))
        conn.execute("CHECKPOINT")


def make_applied(fleet: Fleet, tools: Sequence[str]) -> None:
    """Let each tool apply the files to one target, and make the others as that."""
    first = replace(fleet, count=1)
    make_all(first)
    for tool in tools:
        prepare(first, tool)
        TAKERS[tool](first, 1)
        drop_tables(first)
    if "django-tenants" in tools:
        with contextlib.closing(fleet.connect(fleet.home)) as conn:
            django_fleet.list_tenants(conn, fleet.names[1:])
    if fleet.kind == "databases":
        copy = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        with contextlib.closing(fleet.connect()) as conn:
            template = sql.Identifier(first.names[0])
            for name in fleet.names[1:]:
                conn.execute(copy.format(sql.Identifier(name), template))
            conn.execute("CHECKPOINT")
        for name in fleet.names:  # the first session in each writes down what it read
            fleet.connect(name).close()
        return
    with contextlib.closing(fleet.connect(fleet.home)) as conn:
        copy_schemas(conn, first.names[0], fleet.names[1:])


def copy_schemas(
    conn: psycopg.Connection[TupleRow], template: str, names: Sequence[str]
) -> None:
    """Make schemas with the tables of one, and their rows: the tools' histories."""
    query = "SELECT tablename::text FROM pg_tables WHERE schemaname = %s"
    tables = [table for (table,) in conn.execute(query, [template]).fetchall()]
    for name in names:
        conn.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
        for table in tables:
            pair = sql.Identifier(name, table), sql.Identifier(template, table)
            like = sql.SQL("CREATE TABLE {} (LIKE {} INCLUDING ALL)")
            conn.execute(like.format(*pair))
            rows = sql.SQL("INSERT INTO {} OVERRIDING SYSTEM VALUE SELECT * FROM {}")
            conn.execute(rows.format(*pair))
    conn.execute("VACUUM ANALYZE")


def drop_tables(fleet: Fleet) -> None:
    """Drop what the files made, so that another tool can make it in its turn."""
    of_schemas = fleet.kind == "schemas"
    tables = [f"t{number}" for number in range(1, FILES + 1, 2)]
    place, schema = (
        (fleet.home, fleet.names[0]) if of_schemas else (fleet.names[0], "public")
    )
    names = [sql.Identifier(schema, table) for table in tables]
    with contextlib.closing(fleet.connect(place)) as conn:
        drop = sql.SQL("DROP TABLE IF EXISTS {}")
        conn.execute(drop.format(sql.SQL(", ").join(names)))


def take_gate(fleet: Fleet, at_once: int) -> Sample:
    """Run the gate over all targets."""
    host, port = fleet.address
    environ = {
        "PATH": os.defpath,
        "PGHOST": host,
        "PGPORT": str(port),
        "PGUSER": ROLE,
        "PGPASSWORD": ROLE,
        "PGDATABASE": fleet.home,
        "PGSSLMODE": "disable",
        "GATE_MIGRATIONS": str(fleet.folder / "gate"),
        "GATE_TARGETS": f"{LIST[fleet.kind]} ~ '^{fleet.prefix}_[0-9]' ORDER BY 1",
        "GATE_TARGETS_AT_ONCE": str(at_once),
    }
    arguments = (sys.executable, str(ROOT / "entrypoint.py"))
    return fleet.run(Command(arguments=arguments, environ=environ))


def take_dbmate(fleet: Fleet, at_once: int) -> Sample:
    """Run a process of dbmate for each target."""
    folder = str(fleet.folder / "dbmate")
    arguments = (
        *(str(install("dbmate").program), "-d", folder),
        *("--no-dump-schema", "--migrations-table", "of_dbmate", "-u", "{}", "migrate"),
    )
    return each(fleet, at_once, arguments, map(fleet.url, fleet.names))


def take_migrate(fleet: Fleet, at_once: int) -> Sample:
    """Run a process of golang-migrate for each target."""
    folder = str(fleet.folder / "migrate")
    program = str(install("migrate").program)
    arguments = (program, "-path", folder, "-database", "{}", "up")
    more = "&x-migrations-table=of_migrate"
    return each(fleet, at_once, arguments, (fleet.url(n, more) for n in fleet.names))


def each(
    fleet: Fleet, at_once: int, arguments: Sequence[str], targets: Iterator[str]
) -> Sample:
    """Run a command for each target, some beside each other."""
    listed = write_list(fleet, targets)
    loop = ("xargs", "-a", str(listed), "-P", str(at_once), "-I{}")
    environ = {"PATH": os.defpath, "HOME": str(fleet.folder)}
    return fleet.run(Command(arguments=(*loop, *arguments), environ=environ))


def write_list(fleet: Fleet, targets: Iterator[str]) -> Path:
    """Write a target a line."""
    listed = fleet.folder / "targets"
    listed.write_text("\n".join(targets) + "\n", "utf-8")
    return listed


def take_floor(fleet: Fleet, at_once: int) -> Sample:
    """Run what does no more than it has to."""
    listed = write_list(fleet, map(fleet.url, fleet.names))
    arguments = (
        *(sys.executable, str(ROOT / "bench" / "fleet_floor.py")),
        *(str(fleet.folder / "gate"), str(listed), str(at_once)),
    )
    return fleet.run(Command(arguments=arguments, environ={"PATH": os.defpath}))


def take_django(fleet: Fleet, at_once: int) -> Sample:
    """Run django-tenants' own executor over all schemas, in as many processes."""
    host, port = fleet.address
    return fleet.run(
        django_fleet.over_all(fleet.folder, host, port, fleet.home, at_once)
    )


TAKERS: Final[Mapping[str, Callable[[Fleet, int], Sample]]] = {
    "gate": take_gate,
    "dbmate": take_dbmate,
    "golang-migrate": take_migrate,
    "django-tenants": take_django,
    "floor": take_floor,
}


FOLDERS: Final[Mapping[str, str]] = {
    "gate": "gate",
    "dbmate": "dbmate",
    "golang-migrate": "migrate",
}


def takes_part(tool: str, kind: str, state: str) -> bool:
    """Return whether a tool has to do with such targets, and is measured in a state."""
    if tool == "floor":
        return (kind, state) == ("databases", "pending")
    return tool in FOLDERS or (kind == "schemas" and state != "release")


def prepare(fleet: Fleet, tool: str) -> None:
    """Make what a tool needs beside the targets."""
    if tool == "django-tenants":
        host, port = fleet.server.host, fleet.server.port
        django_fleet.prepare(fleet.folder, list(texts()))
        try:
            django_fleet.make_shared(fleet.folder, host, port, fleet.home)
        except Missing as why:
            sys.exit(f"django-tenants: {why}")
        django_fleet.list_tenants(fleet.connect(fleet.home), fleet.names)


def each_turn(
    fleet: Fleet, state: str, at_once: int, tools: Sequence[str], turns: Iterator[int]
) -> Iterator[tuple[str, Sample]]:
    """Yield what each tool took."""
    fleet = replace(fleet, turn=next(turns))
    if state == "idle":
        make_applied(fleet, tools)
    for tool in tools:
        if state != "idle":  # a tool asks after the tables of others
            fleet = replace(fleet, turn=next(turns))
        if state == "pending":
            make_all(fleet)
            prepare(fleet, tool)
        if state == "release":
            make_applied(fleet, [tool])
        else:
            yield tool, TAKERS[tool](fleet, at_once)
            continue
        folder = fleet.folder / FOLDERS[tool]
        text = f"CREATE TABLE by_{FOLDERS[tool]} (id bigint PRIMARY KEY);\n"
        released = write_file(folder, FILES + 1, text)
        yield tool, TAKERS[tool](fleet, at_once)
        released.unlink()


@contextmanager
def opened(kind: str, count: int, rtt_ms: float) -> Iterator[Fleet]:
    """Start a durable server with a link to it, and write the files."""
    with ExitStack() as stack:
        far = stack.enter_context(link.up()) if rtt_ms else None
        if far is not None:
            far.set_rtt_ms(rtt_ms)
        data = stack.enter_context(disk.place())
        started = stack.enter_context(server.started(data, far=far is not None))
        with contextlib.closing(server.Databases(started)):  # makes the role
            pass
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o755)
        write_files(folder)
        yield Fleet(server=started, folder=folder, kind=kind, count=count, far=far)


def say(text: str) -> None:
    """Write a line for the reader."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def describe(tool: str, sample: Sample, count: int) -> str:
    """Return a row of the table."""
    server_ms = (sample.server_cpu_s or 0.0) / count * 1000
    client_ms = sample.cpu_s / count * 1000
    return (
        f"| {tool} | {sample.wall_s:.2f} | {count / sample.wall_s * 60:.0f} "
        f"| {client_ms:.2f} | {server_ms:.2f} | {sample.rss_mb:.1f} |"
    )


def compare(asked: argparse.Namespace) -> None:
    """Measure in turns, and print a row for each."""
    with opened(asked.kind, asked.count, asked.rtt_ms) as fleet:
        say(
            f"{asked.count} {asked.kind}, {asked.state}, {asked.at_once} at once, "
            f"{asked.rtt_ms:g} ms away\n"
        )
        known = [t for t in TAKERS if takes_part(t, asked.kind, asked.state)]
        say("| | wall s | a minute | client CPU ms | server CPU ms | MB |")
        say("| --- | --: | --: | --: | --: | --: |")
        turns = itertools.count()
        for _ in range(asked.rounds):
            for tool, sample in each_turn(
                fleet, asked.state, asked.at_once, asked.tool or known, turns
            ):
                say(describe(tool, sample, asked.count))


def grow(file: Path, at_once: int) -> None:
    """Let the gate go over ever more schemas, and draw what it takes."""
    points = []
    with opened("schemas", 0, 0.0) as none:
        for turn, count in enumerate(COUNTS):
            fleet = replace(none, count=count, turn=turn)
            make_all(fleet)
            for state in ("pending", "idle"):
                sample = take_gate(fleet, at_once)
                say(f"{count:6} {describe(state, sample, count)}")
                points.append((state, count, sample.wall_s, sample.rss_mb))
    file.write_text(fleet_plot.to_svg(points), "utf-8")


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m bench.fleet", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--kind", choices=list(LIST), default="schemas")
    add("--state", choices=["idle", "release", "pending"], default="idle")
    add("--count", type=int, default=1000, help="targets")
    add("--at-once", type=int, default=8)
    add("--rtt-ms", type=float, default=0.0)
    add("--rounds", type=int, default=1)
    add("--tool", action="append", choices=list(TAKERS), help="all without any")
    add("--plot", type=Path, help="draw what the gate takes for 10 to 10,000 schemas")
    asked = parser.parse_args()
    build_launcher()
    with ended_by_signals():
        if asked.plot:
            grow(asked.plot, asked.at_once)
        else:
            compare(asked)


if __name__ == "__main__":
    try:
        main()
    except Missing as why:
        sys.exit(str(why))
