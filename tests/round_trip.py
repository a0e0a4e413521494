"""
Take dumps of each server to each that is as new or newer, through the gate.

`python -m tests.round_trip --bin PATTERN DSN...` needs a superuser of each server and
its programs: in PATTERN, {} is the major version. A dump of schema, of data, of both,
as COPY and as INSERT, with large objects, is applied to an empty database, which must
then dump the same as the one that it was taken from; on another major version, whose
servers show some things in other words, the same as what psql makes of the dump. Prints
a line for each.
"""

from __future__ import annotations

import argparse
import difflib
import subprocess
import sys
import tempfile

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict

from tests.applying.test_dumps import BODY_OF_SQL, HISTORY, SOURCE, content
from tests.fix_gate import Gate
from tests.fix_postgres import DEFAULTS, Database, Databases, SharedServer, look_at


BOTH = (("schema", ("--schema-only",)), ("data", ("--data-only",)))
PSQL = ("-Xq", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null")
FORMS = {
    "COPY": (("all", ()),),
    "INSERT": (("all", ("--inserts",)),),
    "column INSERT": (("all", ("--column-inserts",)),),
    "schema, then data": BOTH,
    "clean": (("all", ("--clean", "--if-exists")),),
}


@dataclass(frozen=True)
class Place:
    """A server and the folder of its programs."""

    server: SharedServer
    programs: Path

    @property
    def major(self) -> int:
        """The major version."""
        return self.server.version // 10000


def dump(programs: Path, database: Database, *options: str) -> str:
    """Dump a database as plain SQL."""
    return call(programs / "pg_dump", database, *options)


def call(program: Path, database: Database, *options: str, stdin: str = "") -> str:
    """Run one of PostgreSQL's programs; return what it prints."""
    info = database.conninfo
    environ = {f"PG{name.upper()}": info[name] for name in ("host", "port", "user")}
    return subprocess.run(
        [program, *options],
        env=environ | {"PGPASSWORD": info["password"], "PGDATABASE": info["dbname"]},
        input=stdin,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout


def take(old: Place, new: Place, folder: Path) -> Iterator[tuple[str, bool]]:
    """Yield each form of dump, and whether it arrived as it was."""
    with Databases(server=old.server) as sources, Databases(server=new.server) as made:
        yield from _take(old, new, sources.create(), made, folder)


def _take(
    old: Place, new: Place, source: Database, targets: Databases, folder: Path
) -> Iterator[tuple[str, bool]]:
    source.execute(SOURCE + (BODY_OF_SQL if old.major >= 14 else ""))
    for name, dumps in FORMS.items():
        target = targets.create()
        files = {
            f"{number:03}_{part}.sql": dump(old.programs, source, *options)
            for number, (part, options) in enumerate(dumps, 1)
        }
        made = Path(tempfile.mkdtemp(dir=folder))
        run = Gate(made)(database=target, migrations=files)
        if run.exit_code:
            yield f"{name}: {run.stderr}", False
            continue
        model = source
        if old.major != new.major:
            model = targets.create()
            for file in files.values():
                call(new.programs / "psql", model, *PSQL, stdin=file)
        wanted, found = (
            content(dump(new.programs, database, HISTORY)).splitlines()
            for database in (model, target)
        )
        yield name, wanted == found
        for line in difflib.unified_diff(wanted, found, lineterm=""):
            print(line, file=sys.stderr)  # noqa: T201


def main() -> int:
    """Return 1 when a dump did not arrive as it was."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--bin", required=True, metavar="PATTERN")
    arguments.add_argument("servers", nargs="+", metavar="DSN")
    options = arguments.parse_args()
    places = []
    for dsn in options.servers:
        given = DEFAULTS | conninfo_to_dict(dsn)
        server = look_at({key: str(value) for key, value in given.items()}, None)
        programs = options.bin.replace("{}", str(server.version // 10000))
        places.append(Place(server, Path(programs)))
    places.sort(key=lambda place: place.major)
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for old, new in ((a, b) for a in places for b in places if a.major <= b.major):
            for form, is_same in take(old, new, Path(folder)):
                said = "the same" if is_same else "DIFFERS"
                print(f"{old.major} to {new.major}, {form}: {said}")  # noqa: T201 - the report
                failed += not is_same
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
