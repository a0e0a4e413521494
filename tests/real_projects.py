"""
Run real projects' folders by the gate and by psql, and compare what they leave.

`python -m tests.real_projects FOLDER...` takes folders of migrations, each as its
project ships it. Each folder goes through parsing, through the gate, and file by file
through psql, on an embedded server, and pg_dump says whether the two schemas are equal.
Of a file with both directions psql gets what the gate takes for the part that goes up.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psycopg

from psycopg import sql

from dev.postgres import Server, tool, tools_environ
from migration_gate.files.folder import read_folder, read_scripts
from migration_gate.files.migration import Migration
from migration_gate.report.errors import FileFault, MigrationFilesError
from migration_gate.settings.settings import HistoryTableName


ROOT: Final = Path(__file__).resolve().parent.parent
HISTORY: Final = HistoryTableName(schema="public", table="schema_migrations")
SHOWN: Final = 8
TIMEOUT_S: Final = 300


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


def run_psql(server: Server, database: str, texts: Iterator[bytes]) -> str:
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


def run_gate(server: Server, database: str, folder: Path) -> str:
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


def dump(server: Server, database: str) -> str:
    """Return the schema of a database, without the key that each dump makes anew."""
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
    return re.sub(r"^\\(un)?restrict \w+$", "", done.stdout, flags=re.MULTILINE)


def environ_of(server: Server) -> dict[str, str]:
    """Return the environment by which programs reach the server."""
    return {
        **tools_environ(),
        "PGHOST": server.host,
        "PGPORT": str(server.port),
        "PGUSER": server.user,
        "PGPASSWORD": server.password,
    }


def make_database(server: Server, name: str) -> str:
    """Make an empty database."""
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
    return name


def compare(server: Server, folder: Path) -> Outcome:
    """Take one folder through parsing, the gate and psql."""
    outcome = Outcome(folder.name)
    migrations = parse(folder, outcome)
    if outcome.faults or not migrations:
        return outcome
    by_gate = make_database(server, f"gate_{folder.name}")
    by_psql = make_database(server, f"psql_{folder.name}")
    outcome.gate = run_gate(server, by_gate, folder)
    outcome.psql = run_psql(server, by_psql, up_parts(folder, migrations))
    if outcome.gate == outcome.psql == "opened":
        outcome.is_equal = dump(server, by_gate) == dump(server, by_psql)
    return outcome


def main(folders: list[Path]) -> None:
    """Print a line for each folder, and what was refused."""
    with Server("real-projects") as server:
        for folder in folders:
            outcome = compare(server, folder)
            print(outcome)  # noqa: T201 - a report for a person
            problems = Counter(fault.problem for fault in outcome.faults)
            first = {f.problem: f for f in reversed(outcome.faults)}
            for problem, count in problems.most_common(SHOWN):
                print(f"    {count} x {problem}, first {first[problem]}")  # noqa: T201


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
