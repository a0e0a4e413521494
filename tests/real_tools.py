"""
The real tools, before and after the gate takes their histories over.

    python -m tests.real_tools [TOOL]...

Each is installed as the bench installs it, applies, undoes and fails; then the gate
takes over and goes on, and the tool is called once more, which must still think the
same of its own files. Prints a line for each state, and exits 1 where one was not as it
must be. Needs package registries, so it is no part of CI.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import psycopg

from bench.install import CACHE, Installed, Missing, call, install, java
from bench.work import write_alembic, write_graphile_migrate
from dev.postgres import Server, tool
from tests.fix_gate import ROOT


TIMEOUT_S: Final = 300
LOGIN: Final = "tools"
UPS: Final = ("CREATE TABLE one (n integer);", "CREATE TABLE two (n integer);")
THIRD: Final = "CREATE TABLE three (n integer);"
FAILS: Final = "CREATE TABLE three (n integer); SELECT 1/0;"
DRIZZLE: Final = """
const { drizzle } = require("drizzle-orm/node-postgres");
const { migrate } = require("drizzle-orm/node-postgres/migrator");
const { Pool } = require("pg");
const pool = new Pool({ connectionString: process.env.DATABASE_URL });
migrate(drizzle(pool), { migrationsFolder: process.argv[2] })
    .then(() => pool.end(), (error) => { console.error(error); process.exit(1); });
"""
# What is there, but for what the gate has made.
HISTORY: Final = """
SELECT c.relname::text, (xpath('/table/row', query_to_xml(format(
    'SELECT * FROM %I.%I ORDER BY 1', n.nspname, c.relname), false, false, '')))::text
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND n.nspname !~ '^(pg_|information_schema)'
  AND c.relname !~ '^(one|two|three|gate_)' AND NOT EXISTS (
      SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND attname = 'gate_version')
ORDER BY 1
"""


class NotAsItMustBeError(Exception):
    """What a state led to that it must not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A database, and how tools are told of it."""

    server: Server
    name: str

    @property
    def conninfo(self) -> dict[str, Any]:
        """The parameters that lead to it, with a login that every tool can read."""
        login = {"user": LOGIN, "password": LOGIN}
        return {**self.server.conninfo, **login, "dbname": self.name}

    def url(self, scheme: str = "postgres", *, login: bool = True) -> str:
        """Return a URL, with the login unless that is given otherwise."""
        found = self.conninfo
        who = f"{found['user']}:{found['password']}@" if login else ""
        at = f"{found['host']}:{found['port']}/{self.name}"
        return f"{scheme}://{who}{at}?sslmode=disable"

    def environ(self) -> dict[str, str]:
        """Return an environment that names it in every way."""
        found = self.conninfo
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(CACHE),
            "PGUSER": found["user"],
            "PGPASSWORD": found["password"],
            "DATABASE_URL": self.url(),
        }

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        with closing(psycopg.connect(**self.conninfo, autocommit=True)) as conn:
            return conn.execute(query.encode()).fetchall()


Writer = Callable[[Path, Sequence[str]], None]
Caller = Callable[[Installed, Path, Place, str], Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """
    A tool: its files, how it is called to go "up" and "down", what a failure leaves.

    ``folder`` is where the gate reads its files, below where the tool does.
    """

    adopt: str
    program: str | Callable[[], Installed]
    write: Writer
    call: Caller
    goes_down: bool = True
    leaves_dirt: bool = False
    folder: str = "."
    environ: Mapping[str, str] | None = None


def numbered(texts: Sequence[str]) -> Iterator[tuple[int, str, str]]:
    """Yield number, text, and what undoes it."""
    for number, text in enumerate(texts, 1):
        yield number, text, f"DROP TABLE {text.split()[2]};"


def install_script(name: str, script: str, *packages: str) -> Path:
    """Install Node's packages with a script beside them; return the folder."""
    home = CACHE / "node" / name
    if not (home / "node_modules" / packages[0]).exists():
        home.mkdir(parents=True, exist_ok=True)
        (home / "package.json").write_text("{}\n", "utf-8")
        options = ("--no-audit", "--no-fund", "--loglevel=error")
        call("npm", "install", *options, *packages, folder=home)
    (home / "run.js").write_text(script, "utf-8")
    return home


def install_crate(program: str, crate: str, *features: str) -> Callable[[], Installed]:
    """Return what builds a program of Rust's, if not as its makers build it."""

    def build() -> Installed:
        root = CACHE / "cargo"
        path = root / "bin" / program
        if not path.exists():
            quick = {"CARGO_PROFILE_RELEASE_OPT_LEVEL": "0"}
            wanted = ("--no-default-features", "--features", ",".join(features))
            options = ("--quiet", "--root", str(root), *(wanted if features else ()))
            call("cargo", "install", *options, crate, environ=quick)
        shown = call("cargo", "install", "--list", "--root", str(root))
        version = re.search(rf"^{crate} v(\S+):", shown, re.MULTILINE)
        return Installed(program=path, version=version[1] if version else "unknown")

    return build


def install_sql_migrate() -> Installed:
    """Build sql-migrate."""
    program = CACHE / "go" / "sql-migrate"
    if not program.exists():
        module = "github.com/rubenv/sql-migrate/sql-migrate@latest"
        environ = {"GOBIN": str(program.parent), "GOFLAGS": "-modcacherw"}
        call("go", "install", module, environ=environ)
    details = call("go", "version", "-m", str(program))
    version = re.search(r"^\tmod\t\S+\tv(\S+)", details, re.MULTILINE)
    return Installed(program=program, version=version[1] if version else "unknown")


def write_pairs(up: str, down: str) -> Writer:
    """Return what writes two files for each."""

    def write(folder: Path, texts: Sequence[str]) -> None:
        for number, text, undo in numbered(texts):
            for name, content in ((up, text), (down, undo)):
                path = folder / name.format(number)
                path.parent.mkdir(exist_ok=True)
                path.write_text(content + "\n", "utf-8")

    return write


def write_whole(name: str, form: str) -> Writer:
    """Return what writes one file for each, in which both directions may be."""

    def write(folder: Path, texts: Sequence[str]) -> None:
        for number, text, undo in numbered(texts):
            whole = form.format(up=text, down=undo, number=number)
            (folder / name.format(number)).write_text(whole, "utf-8")

    return write


def write_liquibase(folder: Path, texts: Sequence[str]) -> None:
    """Write formatted files, and the changelog that includes them."""
    root = {"databaseChangeLog": [{"includeAll": {"path": "sql/"}}]}
    (folder / "changelog.json").write_text(json.dumps(root), "utf-8")
    (folder / "sql").mkdir(exist_ok=True)
    write_whole(
        "{:03d}_x.sql",
        "--liquibase formatted sql\n--changeset al:{number}\n{up}\n--rollback {down}\n",
    )(folder / "sql", texts)


def call_migrate(tool: Installed, folder: Path, place: Place, way: str) -> list[str]:
    """Return golang-migrate's command."""
    steps = ["up"] if way == "up" else ["down", "1"]
    options = ["-path", str(folder), "-database", place.url()]
    return [str(tool.program), *options, *steps]


def call_goose(tool: Installed, folder: Path, place: Place, way: str) -> list[str]:
    """Return goose's command."""
    return [str(tool.program), "-dir", str(folder), "postgres", place.url(), way]


def call_tern(tool: Installed, folder: Path, place: Place, way: str) -> list[str]:
    """Return tern's command."""
    options = ["-m", str(folder), "--conn-string", place.url()]
    return [
        *(str(tool.program), "migrate", *options),
        *(["-d", "-1"] if way == "down" else []),
    ]


def call_dbmate(tool: Installed, folder: Path, place: Place, way: str) -> list[str]:
    """Return dbmate's command."""
    options = ["--url", place.url(), "--migrations-dir", str(folder)]
    word = {"up": "migrate", "down": "rollback"}[way]
    return [str(tool.program), *options, "--no-dump-schema", word]


def call_node(tool: Installed, folder: Path, _: Place, way: str) -> list[str]:
    """Return node-pg-migrate's command."""
    return [str(tool.program), way, "--migrations-dir", str(folder)]


def call_graphile(tool: Installed, _folder: Path, _: Place, _way: str) -> list[str]:
    """Return graphile-migrate's command."""
    return [str(tool.program), "migrate"]


def call_flyway(tool: Installed, folder: Path, place: Place, _: str) -> list[str]:
    """Return the command for Flyway's API."""
    path = f"{tool.program}/*:{tool.program}"
    url = place.url("jdbc:postgresql", login=False)
    return [str(java()), "-cp", path, "RunFlyway", url, str(folder)]


def call_liquibase(tool: Installed, folder: Path, place: Place, way: str) -> list[str]:
    """Return Liquibase's command."""
    main = "liquibase.integration.commandline.LiquibaseCommandLine"
    word = {"up": ["update"], "down": ["rollback-count", "--count=1"]}[way]
    return [
        *(str(java()), "-cp", f"{tool.program}/*", main, "--show-banner=false"),
        *(f"--search-path={folder}", *word, "--changelog-file=changelog.json"),
        f"--url={place.url('jdbc:postgresql', login=False)}",
        f"--username={place.conninfo['user']}",
        f"--password={place.conninfo['password']}",
    ]


def write_sql_migrate(folder: Path, texts: Sequence[str]) -> None:
    """Write sql-migrate's files, and where they are to go."""
    source = "dialect: postgres\n  datasource: ${DATABASE_URL}\n  dir: migrations\n"
    (folder / "dbconfig.yml").write_text(f"development:\n  {source}", "utf-8")
    (folder / "migrations").mkdir(exist_ok=True)
    form = "-- +migrate Up\n{up}\n-- +migrate Down\n{down}\n"
    write_whole("{:03d}_x.sql", form)(folder / "migrations", texts)


def call_sql_migrate(tool: Installed, _folder: Path, _: Place, way: str) -> list[str]:
    """Return sql-migrate's command."""
    return [str(tool.program), way, *(["-limit=1"] if way == "down" else [])]


def call_sqlx(tool: Installed, folder: Path, place: Place, way: str) -> list[str]:
    """Return sqlx' command."""
    word = {"up": "run", "down": "revert"}[way]
    options = ["--source", str(folder), "--database-url", place.url()]
    return [str(tool.program), "migrate", word, *options]


def call_diesel(tool: Installed, folder: Path, place: Place, way: str) -> list[str]:
    """Return diesel's command."""
    word = {"up": "run", "down": "revert"}[way]
    options = ["--migration-dir", str(folder), "--database-url", place.url()]
    return [str(tool.program), "migration", word, *options]


def call_refinery(tool: Installed, folder: Path, _: Place, _way: str) -> list[str]:
    """Return refinery's command."""
    return [str(tool.program), "migrate", "-e", "DATABASE_URL", "-p", str(folder)]


def write_drizzle(folder: Path, texts: Sequence[str]) -> None:
    """Write Drizzle's files, and its journal."""
    entries = []
    for number, text, _ in numbered(texts):
        tag = f"{number:04d}_x"
        (folder / f"{tag}.sql").write_text(text + "\n", "utf-8")
        when = 1700000000000 + number
        entries.append({"idx": number, "when": when, "tag": tag, "breakpoints": True})
    (folder / "meta").mkdir(exist_ok=True)
    journal = {"version": "7", "dialect": "postgresql", "entries": entries}
    (folder / "meta" / "_journal.json").write_text(json.dumps(journal), "utf-8")


def call_drizzle(tool: Installed, folder: Path, _: Place, _way: str) -> list[str]:
    """Return the command for Drizzle's own migrator."""
    return ["node", str(tool.program), str(folder)]


def install_drizzle() -> Installed:
    """Install Drizzle, and what calls its migrator."""
    home = install_script("drizzle", DRIZZLE, "drizzle-orm@0", "pg")
    package = home / "node_modules" / "drizzle-orm" / "package.json"
    version = json.loads(package.read_text("utf-8"))["version"]
    return Installed(program=home / "run.js", version=version)


def call_yoyo(tool: Installed, folder: Path, place: Place, way: str) -> list[str]:
    """Return yoyo's command."""
    word = {"up": ["apply"], "down": ["rollback", "--revision", "0002_x"]}[way]
    options = ["--batch", "--no-config-file", "--database", place.url("postgresql")]
    return [str(tool.program), *word, *options, str(folder)]


TOOLS: Final = (
    Tool(
        adopt="golang-migrate",
        program="migrate",
        write=write_pairs("{:03d}_x.up.sql", "{:03d}_x.down.sql"),
        call=call_migrate,
        leaves_dirt=True,
    ),
    Tool(
        adopt="goose",
        program="goose",
        write=write_whole(
            "{:03d}_x.sql", "-- +goose Up\n{up}\n-- +goose Down\n{down}\n"
        ),
        call=call_goose,
    ),
    Tool(
        adopt="tern",
        program="tern",
        write=write_whole(
            "{:03d}_x.sql", "{up}\n---- create above / drop below ----\n{down}\n"
        ),
        call=call_tern,
    ),
    Tool(
        adopt="dbmate",
        program="dbmate",
        write=write_whole(
            "{:03d}_x.sql", "-- migrate:up\n{up}\n-- migrate:down\n{down}\n"
        ),
        call=call_dbmate,
    ),
    Tool(
        adopt="node-pg-migrate",
        program="node-pg-migrate",
        write=write_whole(
            "{:03d}_x.sql", "-- Up Migration\n{up}\n-- Down Migration\n{down}\n"
        ),
        call=call_node,
    ),
    Tool(
        adopt="graphile-migrate",
        program="graphile-migrate",
        write=write_graphile_migrate,
        call=call_graphile,
        goes_down=False,
        folder="migrations/committed",
    ),
    Tool(
        adopt="flyway",
        program="flyway",
        write=write_whole("V{}__x.sql", "{up}\n"),
        call=call_flyway,
        goes_down=False,
    ),
    Tool(
        adopt="liquibase",
        program="liquibase",
        write=write_liquibase,
        call=call_liquibase,
        folder="sql",
        environ={"LIQUIBASE_ANALYTICS_ENABLED": "false"},
    ),
    Tool(
        adopt="drizzle",
        program=install_drizzle,
        write=write_drizzle,
        call=call_drizzle,
        goes_down=False,
    ),
    Tool(
        adopt="sql-migrate",
        program=install_sql_migrate,
        write=write_sql_migrate,
        call=call_sql_migrate,
        folder="migrations",
    ),
    Tool(
        adopt="sqlx",
        program=install_crate("sqlx", "sqlx-cli", "postgres", "rustls"),
        write=write_pairs("{:03d}_x.up.sql", "{:03d}_x.down.sql"),
        call=call_sqlx,
    ),
    Tool(
        adopt="diesel",
        program=install_crate("diesel", "diesel_cli", "postgres-bundled"),
        write=write_pairs("{:03d}_x/up.sql", "{:03d}_x/down.sql"),
        call=call_diesel,
    ),
    Tool(
        adopt="refinery",
        program=install_crate("refinery", "refinery_cli", "postgresql"),
        write=write_whole("V{}__x.sql", "{up}\n"),
        call=call_refinery,
        goes_down=False,
    ),
    Tool(
        adopt="yoyo",
        program="yoyo",
        write=write_pairs("{:04d}_x.sql", "{:04d}_x.rollback.sql"),
        call=call_yoyo,
    ),
)


class Bench:
    """A server, and databases on it, one for each state."""

    def __init__(self, server: Server, folder: Path) -> None:
        self._server = server
        self._folder = folder
        self._count = 0

    def place(self) -> Place:
        """Return a new database."""
        self._count += 1
        name = f"tools_{self._count}"
        with closing(psycopg.connect(**self._server.conninfo, autocommit=True)) as conn:  # type: ignore[arg-type]  # all are texts
            conn.execute(f"CREATE DATABASE {name}".encode())
        return Place(server=self._server, name=name)

    def folder(self, write: Writer, texts: Sequence[str]) -> Path:
        """Write files to a new folder."""
        self._count += 1
        folder = self._folder / f"f{self._count}"
        folder.mkdir()
        write(folder, texts)
        return folder

    def run(
        self,
        command: Sequence[str],
        place: Place,
        folder: Path,
        more: Mapping[str, str],
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end."""
        return subprocess.run(
            command,
            env={**place.environ(), **more},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )

    def start_gate(
        self, place: Place, migrations: Path, *arguments: str, **settings: str
    ) -> subprocess.Popen[str]:
        """Start a gate."""
        environ = {
            **place.environ(),
            "GATE_MIGRATIONS": str(migrations),
            "GATE_LOG_FORMAT": "json",
            **settings,
        }
        return subprocess.Popen(
            [sys.executable, str(ROOT / "entrypoint.py"), *arguments],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def gate(
        self, place: Place, migrations: Path, *arguments: str, **settings: str
    ) -> dict[str, Any]:
        """Run a gate and return its last line; of a command that answers, its code."""
        process = self.start_gate(place, migrations, *arguments, **settings)
        output, _ = process.communicate(timeout=TIMEOUT_S)
        if arguments:
            return {"exit_code": process.returncode}
        found: dict[str, Any] = json.loads(output.splitlines()[-1])
        return found


def require(actual: object, expected: object, what: str) -> None:
    """Require that two values are the same."""
    if actual != expected:
        text = f"{what}: {actual!r} instead of {expected!r}"
        raise NotAsItMustBeError(text)


class Trial:
    """One tool and its states."""

    def __init__(self, bench: Bench, tool: Tool, installed: Installed) -> None:
        self._bench = bench
        self._tool = tool
        self._installed = installed

    def _go(
        self, place: Place, folder: Path, way: str = "up", *, fails: bool = False
    ) -> None:
        command = self._tool.call(self._installed, folder, place, way)
        ended = self._bench.run(command, place, folder, self._tool.environ or {})
        if (ended.returncode != 0) != fails:
            last = (ended.stdout + ended.stderr).strip().splitlines()[-3:]
            text = f"{self._tool.adopt} {way}: {ended.returncode}, {last}"
            raise NotAsItMustBeError(text)

    def _adopt(self, place: Place, texts: Sequence[str]) -> list[int]:
        """Start a gate that adopts; return the places of what it has applied."""
        folder = self._bench.folder(self._tool.write, texts) / self._tool.folder
        last = self._bench.gate(place, folder, GATE_ADOPT=self._tool.adopt)
        if last["exit_code"]:
            raise NotAsItMustBeError(last["error_message"])
        return [int("".join(filter(str.isdigit, name))) for name in last["applied"]]

    def applied(self) -> None:
        """Two are applied, the third is new; the tool is called once more."""
        place = self._bench.place()
        folder = self._bench.folder(self._tool.write, UPS)
        self._go(place, folder)
        before = place.ask(HISTORY)
        require(self._adopt(place, [*UPS, THIRD]), [3], "applied by the gate")
        require(place.ask(HISTORY), before, "the tool's tables")
        self._go(place, folder)
        require(place.ask("SELECT count(*) FROM three"), [(0,)], "rows")

    def undone(self) -> None:
        """The second was undone: it is pending."""
        place = self._bench.place()
        folder = self._bench.folder(self._tool.write, UPS)
        self._go(place, folder)
        self._go(place, folder, "down")
        require(self._adopt(place, [*UPS, THIRD]), [2, 3], "applied by the gate")

    def failed(self) -> None:
        """The third failed: it is pending, or the gate says what to do first."""
        place = self._bench.place()
        self._go(place, self._bench.folder(self._tool.write, UPS))
        folder = self._bench.folder(self._tool.write, [*UPS, FAILS])
        self._go(place, folder, fails=True)
        if not self._tool.leaves_dirt:
            require(self._adopt(place, [*UPS, THIRD]), [3], "applied by the gate")
            return
        try:
            self._adopt(place, [*UPS, THIRD])
        except NotAsItMustBeError as error:
            if "failed or not finished" not in str(error):
                raise
        else:
            raise NotAsItMustBeError("took over what is dirty")

    def at_once(self) -> None:
        """Two gates take over at once: once."""
        place = self._bench.place()
        self._go(place, self._bench.folder(self._tool.write, UPS))
        folder = self._bench.folder(self._tool.write, [*UPS, THIRD]) / self._tool.folder
        gates = [
            self._bench.start_gate(place, folder, GATE_ADOPT=self._tool.adopt)
            for _ in range(2)
        ]
        outputs = [gate.communicate(timeout=TIMEOUT_S)[0] for gate in gates]
        require([gate.returncode for gate in gates], [0, 0], "exit codes")
        require("".join(outputs).count('"history.adopted"'), 1, "taken over")

    def states(self) -> Iterator[tuple[str, Callable[[], None]]]:
        """Yield the states and how they are tried."""
        yield "two applied", self.applied
        if self._tool.goes_down:
            yield "one undone", self.undone
        yield "one failed", self.failed
        yield "two gates at once", self.at_once


DJANGO: Final = """
import os, sys, django
from django.conf import settings
settings.configure(INSTALLED_APPS=["shop"], DATABASES={"default": {
    "ENGINE": "django.db.backends.postgresql", "NAME": os.environ["NAME"],
    "HOST": os.environ["HOST"], "PORT": os.environ["PORT"],
    "USER": os.environ["PGUSER"], "PASSWORD": os.environ["PGPASSWORD"]}})
django.setup()
from django.core.management import call_command
call_command("migrate", verbosity=0)
"""
DJANGO_MIGRATION: Final = """
from django.db import migrations
class Migration(migrations.Migration):
    operations = [migrations.RunSQL("{text}")]
    dependencies = [{previous}]
"""
KNEX: Final = """
const knex = require("knex")({client: "pg", connection: process.env.DATABASE_URL});
knex.migrate.latest({directory: process.argv[2]}).then(() => knex.destroy());
"""


def migrate_by_alembic(bench: Bench, place: Place) -> None:
    """Let Alembic apply two."""
    folder = bench.folder(write_alembic, UPS)
    program = str(install("alembic").program)
    command = [program, "-c", str(folder / "alembic.ini"), "upgrade", "head"]
    environ = {"DATABASE_URL": place.url("postgresql")}
    require(bench.run(command, place, folder, environ).returncode, 0, "alembic")


def migrate_by_django(bench: Bench, place: Place) -> None:
    """Let Django apply two."""
    venv = CACHE / "python" / "django"
    python = str(venv / "bin" / "python")
    if not (venv / "bin" / "django-admin").exists():
        call(sys.executable, "-m", "venv", str(venv))
        call(python, "-m", "pip", "install", "--quiet", "django", "psycopg2-binary")

    def write(folder: Path, texts: Sequence[str]) -> None:
        migrations = folder / "shop" / "migrations"
        migrations.mkdir(parents=True)
        (folder / "shop" / "__init__.py").touch()
        (migrations / "__init__.py").touch()
        (folder / "run.py").write_text(DJANGO, "utf-8")
        for number, text, _ in numbered(texts):
            previous = f"('shop', '000{number - 1}_x')" if number > 1 else ""
            module = DJANGO_MIGRATION.format(text=text, previous=previous)
            (migrations / f"000{number}_x.py").write_text(module, "utf-8")

    folder = bench.folder(write, UPS)
    found = place.conninfo
    where = {"NAME": place.name, "HOST": found["host"], "PORT": str(found["port"])}
    ended = bench.run([python, "run.py"], place, folder, where)
    require(ended.returncode, 0, f"django: {ended.stderr[-300:]}")


def migrate_by_knex(bench: Bench, place: Place) -> None:
    """Let Knex apply two."""
    home = install_script("knex", KNEX, "knex", "pg")
    form = (
        "exports.up = knex => knex.raw('{up}');\n"
        "exports.down = knex => knex.raw('{down}');\n"
    )
    folder = bench.folder(write_whole("{:03d}_x.js", form), UPS)
    ended = bench.run(["node", "run.js", str(folder)], place, home, {})
    require(ended.returncode, 0, f"knex: {ended.stderr[-300:]}")


BASELINES: Final[Mapping[str, tuple[str, Callable[[Bench, Place], None]]]] = {
    "alembic": ("alembic_version", migrate_by_alembic),
    "django": ("django_migrations", migrate_by_django),
    "knex": ("knex_migrations*", migrate_by_knex),
}


def try_baseline(bench: Bench, table: str, old: Callable[[Bench, Place], None]) -> None:
    """Go on from a tool whose migrations are code: a dump, a baseline, a new file."""
    place, fresh = bench.place(), bench.place()
    old(bench, place)
    dumped = bench.run(
        [tool("pg_dump"), "--schema-only", "--no-owner", "-T", table, place.url()],
        place,
        Path.cwd(),
        {},
    )
    require(dumped.returncode, 0, f"pg_dump: {dumped.stderr[-300:]}")

    def write(folder: Path, _: Sequence[str]) -> None:
        (folder / "0001_baseline.sql").write_text(dumped.stdout, "utf-8")
        (folder / "0002_three.sql").write_text(THIRD, "utf-8")

    folder = bench.folder(write, [])
    closed = bench.gate(place, folder)
    require(closed["reason"], "history", "without a baseline")
    by_command = bench.gate(place, folder, "baseline", "1")
    require(by_command["exit_code"], 0, "the command")
    for each, setting, expected in (
        (place, {}, ["0002_three.sql"]),
        (fresh, {"GATE_BASELINE": "1"}, ["0001_baseline.sql", "0002_three.sql"]),
    ):
        last = bench.gate(each, folder, **setting)
        require(last["exit_code"], 0, str(last.get("error_message")))
        require(last["applied"], expected, "applied by the gate")


@contextmanager
def started() -> Iterator[Bench]:
    """Start a server."""
    server = Server("real-tools")
    server.start()
    try:
        with closing(psycopg.connect(**server.conninfo, autocommit=True)) as conn:  # type: ignore[arg-type]  # all are texts
            conn.execute("SET scram_iterations = 4096")  # lib/pq refuses fewer
            conn.execute(f"CREATE ROLE {LOGIN} LOGIN SUPERUSER PASSWORD '{LOGIN}'")
        with tempfile.TemporaryDirectory() as folder:
            yield Bench(server, Path(folder))
    finally:
        server.close()


def attempt(name: str, state: str, step: Callable[[], None]) -> bool:
    """Try a state, and print what became of it; tell whether it was as it must be."""
    try:
        step()
    except (NotAsItMustBeError, Missing, subprocess.TimeoutExpired) as error:
        say(f"{name:<24} {state:<18} NO: {error}")
        return False
    say(f"{name:<24} {state:<18} yes")
    return True


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)  # noqa: T201  # the command's answer


def main() -> int:
    """Try the tools that are asked for, or all of them."""
    names = [*(each.adopt for each in TOOLS), *BASELINES]
    parser = argparse.ArgumentParser(prog="real_tools", description=__doc__)
    parser.add_argument("tools", metavar="TOOL", nargs="*", help=", ".join(names))
    wanted = parser.parse_args().tools or names
    results = []
    with started() as bench:
        for each in (each for each in TOOLS if each.adopt in wanted):
            try:
                name = each.program
                installed = install(name) if isinstance(name, str) else name()
            except Missing as missing:
                say(f"{each.adopt:<18} not here: {missing.reason}")
                continue
            shown = f"{each.adopt} {installed.version}"
            for state, step in Trial(bench, each, installed).states():
                results.append(attempt(shown, state, step))
        for name, (table, old) in BASELINES.items():
            if name in wanted:
                step = partial(try_baseline, bench, table, old)
                results.append(attempt(name, "a baseline", step))
    say(f"{sum(results)} of {len(results)} as they must be")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
