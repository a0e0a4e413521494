"""
Run real projects' folders by the gate and by psql, and compare what they leave.

`python -m tests.real_projects FOLDER...` takes folders of migrations, each as its
project ships it. Each folder goes through parsing, through the gate, and file by file
through psql, and pg_dump says whether the two schemas are equal. Of a file with both
directions psql gets what the gate takes for the part that goes up.

The server is an embedded one, unless `--server DSN` names one that has the extensions
which a project asks for; `--before FILE` is SQL that stands in for what is not there at
all, such as the roles and schemas of a provider.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psycopg

from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from dev.postgres import Server, tool, tools_environ
from migration_gate.files.folder import read_folder, read_scripts
from migration_gate.files.migration import Migration
from migration_gate.report.errors import FileFault, MigrationFilesError
from migration_gate.settings.settings import HistoryTableName


ROOT: Final = Path(__file__).resolve().parent.parent
HISTORY: Final = HistoryTableName(schema="public", table="schema_migrations")
SHOWN: Final = 8
TIMEOUT_S: Final = 300
# A key; and what the bundled pg_dump takes for options of another server's columns.
ANEW: Final = r"^\\(un)?restrict \w+$|^ALTER TABLE .* SET \(pg_attver=\d+\);$"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A server, and how a superuser of it logs in."""

    host: str
    port: str
    user: str
    password: str


@dataclass(slots=True)
class Outcome:
    """What came of one project's folder."""

    name: str
    files: int = 0
    read: int = 0
    faults: list[FileFault] = field(default_factory=list)
    gate: str = "not run"
    psql: str = "not run"
    is_equal: bool | None = None

    def __str__(self) -> str:
        equal = {None: "not compared", True: "equal", False: "DIFFERENT"}[self.is_equal]
        return (
            f"{self.name}: {self.files} files, {self.read} read, gate {self.gate}, "
            f"psql {self.psql}, {equal}"
        )


def parse(folder: Path, outcome: Outcome) -> tuple[Migration, ...]:
    """Read names and texts; what is refused is noted, and the rest is returned."""
    try:
        migrations = read_folder(folder, allow_empty=False)
    except MigrationFilesError as error:
        outcome.faults += error.faults
        return ()
    outcome.files = len(migrations)
    for migration in migrations:
        try:
            read_scripts(folder, [migration], HISTORY)
        except MigrationFilesError as error:
            outcome.faults += error.faults
        else:
            outcome.read += 1
    return migrations


def up_parts(folder: Path, migrations: tuple[Migration, ...]) -> Iterator[bytes]:
    """Yield what psql is to run."""
    for migration in migrations:
        (script,) = read_scripts(folder, [migration], HISTORY)
        yield script.content[:]


def run_psql(server: Place, database: str, texts: Iterator[bytes]) -> str:
    """Run each text by a psql of its own, which stops at its first error."""
    for number, text in enumerate(texts, start=1):
        done = subprocess.run(
            [tool("psql"), "-qX", "-v", "ON_ERROR_STOP=1", database],
            env={**environ_of(server), "PGOPTIONS": "-c client_min_messages=error"},
            input=text,
            capture_output=True,
            check=False,
        )
        if done.returncode:
            said = done.stderr.decode(errors="replace").splitlines()
            return f"stopped at file {number}: {said[0] if said else done.returncode}"
    return "opened"


def run_gate(server: Place, database: str, folder: Path) -> str:
    """Run the gate as a process, and return what its last line says."""
    environ = environ_of(server)
    done = subprocess.run(
        [sys.executable, str(ROOT / "entrypoint.py")],
        env={
            "PATH": os.environ.get("PATH", os.defpath),
            "POSTGRES_HOST": environ["PGHOST"],
            "POSTGRES_PORT": environ["PGPORT"],
            "POSTGRES_USER": environ["PGUSER"],
            "POSTGRES_PASSWORD": environ["PGPASSWORD"],
            "POSTGRES_DB": database,
            "GATE_MIGRATIONS": str(folder),
            "GATE_LOG_FORMAT": "json",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    verdict = json.loads(done.stdout.splitlines()[-1])
    if done.returncode == 0:
        return "opened"
    return f"closed: {verdict['error_message'][:300]}"


def dump(server: Place, database: str) -> str:
    """Return the schema of a database, without what each dump makes anew."""
    done = subprocess.run(
        [
            *(tool("pg_dump"), "--schema-only"),
            *("--exclude-table=schema_migrations*", database),
        ],
        env=environ_of(server),
        capture_output=True,
        text=True,
        check=True,
    )
    return re.sub(ANEW, "", done.stdout, flags=re.MULTILINE)


def environ_of(server: Place) -> dict[str, str]:
    """Return the environment by which programs reach the server."""
    return {
        **tools_environ(),
        "PGHOST": server.host,
        "PGPORT": str(server.port),
        "PGUSER": server.user,
        "PGPASSWORD": server.password,
    }


def make_database(server: Place, name: str, before: str) -> str:
    """Make a database, empty but for what is run before."""
    with psycopg.connect(
        host=server.host,
        port=server.port,
        user=server.user,
        password=server.password,
        dbname="postgres",
        autocommit=True,
    ) as conn:
        made = sql.SQL("CREATE DATABASE {} TEMPLATE template0")
        conn.execute(made.format(sql.Identifier(name)))
    if before:
        said = run_psql(server, name, iter([before.encode()]))
        assert said == "opened", said
    return name


def compare(server: Place, folder: Path, before: str = "") -> Outcome:
    """Take one folder through parsing, the gate and psql."""
    outcome = Outcome(folder.name)
    migrations = parse(folder, outcome)
    if outcome.faults or not migrations:
        return outcome
    by_gate = make_database(server, f"gate_{folder.name}", before)
    by_psql = make_database(server, f"psql_{folder.name}", before)
    outcome.gate = run_gate(server, by_gate, folder)
    outcome.psql = run_psql(server, by_psql, up_parts(folder, migrations))
    if outcome.gate == outcome.psql == "opened":
        outcome.is_equal = dump(server, by_gate) == dump(server, by_psql)
    return outcome


@contextmanager
def reached(dsn: str | None) -> Iterator[Place]:
    """Reach the server that is named, or start one."""
    if dsn is not None:
        said = conninfo_to_dict(dsn)
        yield Place(
            host=str(said["host"]),
            port=str(said.get("port") or "5432"),
            user=str(said["user"]),
            password=str(said.get("password") or ""),
        )
        return
    with Server("real-projects") as server:
        yield Place(
            host=server.host,
            port=str(server.port),
            user=server.user,
            password=server.password,
        )


def main() -> None:
    """Print a line for each folder, and what was refused."""
    parser = argparse.ArgumentParser(prog="real_projects", description=__doc__)
    parser.add_argument("folders", metavar="FOLDER", nargs="+", type=Path)
    parser.add_argument("--server", metavar="DSN", help="a superuser's")
    parser.add_argument("--before", metavar="FILE", type=Path, help="SQL to run first")
    asked = parser.parse_args()
    before = asked.before.read_text("utf-8") if asked.before else ""
    with reached(asked.server) as server:
        for folder in asked.folders:
            outcome = compare(server, folder, before)
            print(outcome)  # noqa: T201 - a report for a person
            problems = Counter(fault.problem for fault in outcome.faults)
            first = {f.problem: f for f in reversed(outcome.faults)}
            for problem, count in problems.most_common(SHOWN):
                print(f"    {count} x {problem}, first {first[problem]}")  # noqa: T201


if __name__ == "__main__":
    main()
