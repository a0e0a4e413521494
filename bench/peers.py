"""
Who takes part: how each tool is called for one folder and one database.

Each runs as its manual says to run it in a deployment, quiet and without a schema dump.
"""

from __future__ import annotations

import functools
import os
import sys

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import image, work
from bench.install import (
    CACHE,
    ROOT,
    Installed,
    Missing,
    install,
    java,
    sqitch_environ,
)
from bench.measure import Command
from bench.server import Target
from migration_gate import __version__


Starter = Callable[[Path, Target], Command]
ToolStarter = Callable[[Installed, Path, Target], Command]
HOME: Final = CACHE / "home"
FLOOR: Final = Path(__file__).with_name("floor.py")
LOOP: Final = Path(__file__).with_name("psql_loop.sh")
GATE: Final = "gate (image)"
GATE_VENV: Final = "gate (venv)"
GATES: Final = (GATE, GATE_VENV)
FLOOR_EACH: Final = "floor, tx each"


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """
    One row of the tables.

    `form` writes the tool's folder; `start` gives the command; `waits` tells that it
    waits for a database, `locks` that many at once do not fail, and `copies` that it
    takes `COPY ... FROM stdin` with its data. `back` undoes all of what `back_form`
    writes.
    """

    name: str
    version: str
    form: work.Writer
    start: Starter
    waits: bool = False
    locks: bool = False
    copies: bool = False
    back: Starter | None = None
    back_form: work.Writer | None = None


def environ(target: Target, **more: str) -> dict[str, str]:
    """Return a small environment that names the database."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(HOME),
        "LC_ALL": "C.UTF-8",
        **target.environ(),
        **more,
    }


def gate_image() -> Iterator[Peer]:
    """Yield the gate as it ships."""
    shipped = image.unpack()

    def start(folder: Path, target: Target, *arguments: str) -> Command:
        inside = f"/{folder.relative_to(work.IMAGE_ROOT)}"
        variables = {**dict(shipped.environ), "GATE_MIGRATIONS": inside}
        return Command(
            arguments=(*shipped.entry_point, *arguments),
            environ={**variables, "DATABASE_URL": target.url()},
            root=work.IMAGE_ROOT,
        )

    yield Peer(
        name=GATE,
        version=shipped.version,
        form=work.write_plain,
        start=start,
        waits=True,
        locks=True,
        copies=True,
        back=lambda folder, target: start(folder, target, "rollback", "--to", "0"),
        back_form=work.write_plain_back,
    )


def gate_venv() -> Iterator[Peer]:
    """Yield the gate of this clone, on the clone's own interpreter."""

    def start(folder: Path, target: Target, *arguments: str) -> Command:
        return Command(
            arguments=(sys.executable, str(ROOT / "entrypoint.py"), *arguments),
            environ={
                "DATABASE_URL": target.url(),
                "GATE_MIGRATIONS": str(folder),
                "PATH": os.defpath,
            },
            folder=ROOT,
        )

    yield Peer(
        name=GATE_VENV,
        version=f"{__version__}, Python {sys.version.split()[0]}",
        form=work.write_plain,
        start=start,
        waits=True,
        locks=True,
        copies=True,
        back=lambda folder, target: start(folder, target, "rollback", "--to", "0"),
        back_form=work.write_plain_back,
    )


def floors() -> Iterator[Peer]:
    """Yield what psycopg allows, in three ways."""
    import psycopg  # noqa: PLC0415 -- for its version alone

    for name, mode in (
        (FLOOR_EACH, "each"),
        ("floor, 1 tx", "one"),
        ("floor, pipelined", "pipelined"),
    ):

        def start(folder: Path, target: Target, mode: str = mode) -> Command:
            return Command(
                arguments=(sys.executable, str(FLOOR), mode, str(folder)),
                environ=environ(target),
            )

        yield Peer(
            name=name,
            version=f"psycopg {psycopg.__version__}",
            form=work.write_plain,
            start=start,
        )


def dbmate() -> Iterator[Peer]:
    """Yield dbmate: as it is, as an init container would have it, and polling often."""
    installed = install("dbmate")

    def starter(*options: str) -> Starter:
        def start(folder: Path, target: Target) -> Command:
            return Command(
                arguments=(
                    *(str(installed.program), "--no-dump-schema", *options),
                    *("--migrations-dir", str(folder), "migrate"),
                ),
                environ=environ(target),
            )

        return start

    named = functools.partial(Peer, version=installed.version, form=work.write_dbmate)
    often = ("--wait", "--wait-interval", "100ms")
    yield named(
        name="dbmate",
        start=starter(),
        back=functools.partial(undo_dbmate, installed),
        back_form=work.write_dbmate_back,
    )
    yield named(
        name="dbmate --wait --migration-lock",
        start=starter("--wait", "--migration-lock"),
        waits=True,
        locks=True,
    )
    yield named(name="dbmate --wait, 100 ms", start=starter(*often), waits=True)


def simple(  # noqa: PLR0913 -- the fields of a peer
    name: str,
    form: work.Writer,
    start: Callable[[Installed, Path, Target], Command],
    *,
    locks: bool = False,
    copies: bool = False,
    back: ToolStarter | None = None,
    back_form: work.Writer | None = None,
) -> Iterator[Peer]:
    """Yield the one row of a tool."""
    installed = install(name)
    yield Peer(
        name=name,
        version=installed.version,
        form=form,
        start=functools.partial(start, installed),
        locks=locks,
        copies=copies,
        back=functools.partial(back, installed) if back else None,
        back_form=back_form,
    )


def start_goose(tool: Installed, folder: Path, target: Target) -> Command:
    """Return goose's command."""
    options = ("-dir", str(folder), "postgres", target.url(), "up")
    return Command(arguments=(str(tool.program), *options), environ=environ(target))


def start_migrate(tool: Installed, folder: Path, target: Target) -> Command:
    """Return golang-migrate's command."""
    options = ("-path", str(folder), "-database", target.url(), "up")
    return Command(arguments=(str(tool.program), *options), environ=environ(target))


def undo_goose(tool: Installed, folder: Path, target: Target) -> Command:
    """Return goose's command that undoes all."""
    options = ("-dir", str(folder), "postgres", target.url(), "down-to", "0")
    return Command(arguments=(str(tool.program), *options), environ=environ(target))


def undo_migrate(tool: Installed, folder: Path, target: Target) -> Command:
    """Return golang-migrate's command that undoes all."""
    options = ("-path", str(folder), "-database", target.url(), "down", "-all")
    return Command(arguments=(str(tool.program), *options), environ=environ(target))


def undo_dbmate(tool: Installed, folder: Path, target: Target) -> Command:
    """Return what undoes all: dbmate undoes one at a call."""
    count = len(list(folder.glob("*.sql")))
    loop = 'n=$1; shift; while [ "$n" -gt 0 ]; do "$@" || exit; n=$((n - 1)); done'
    call = (str(tool.program), "--no-dump-schema", "--migrations-dir", str(folder))
    return Command(
        arguments=("/bin/sh", "-c", loop, "undo", str(count), *call, "rollback"),
        environ=environ(target),
    )


def start_tern(tool: Installed, folder: Path, target: Target) -> Command:
    """Return tern's command."""
    options = ("-m", str(folder), "--conn-string", target.url())
    return Command(
        arguments=(str(tool.program), "migrate", *options), environ=environ(target)
    )


def start_flyway(tool: Installed, folder: Path, target: Target) -> Command:
    """Return the command for Flyway's API."""
    path = f"{tool.program}/*:{tool.program}"
    return Command(
        arguments=(
            *(str(java()), "-cp", path, "RunFlyway"),
            *(target.url("jdbc:postgresql").replace("bench:bench@", ""), str(folder)),
        ),
        environ=environ(target),
    )


def start_liquibase(tool: Installed, folder: Path, target: Target) -> Command:
    """Return Liquibase's command."""
    main = "liquibase.integration.commandline.LiquibaseCommandLine"
    url = target.url("jdbc:postgresql").replace("bench:bench@", "")
    return Command(
        arguments=(
            *(str(java()), "-cp", f"{tool.program}/*", main),
            *("--show-banner=false", f"--search-path={folder}", "update"),
            *("--changelog-file=changelog.sql", f"--url={url}"),
        ),
        environ=environ(
            target,
            LIQUIBASE_COMMAND_USERNAME="bench",
            LIQUIBASE_COMMAND_PASSWORD="bench",  # noqa: S106 -- a throw-away server's
            LIQUIBASE_ANALYTICS_ENABLED="false",
        ),
        folder=HOME,
    )


def start_yoyo(tool: Installed, folder: Path, target: Target) -> Command:
    """Return yoyo's command."""
    options = ("apply", "--batch", "--no-config-file", "--database", target.url())
    return Command(
        arguments=(str(tool.program), *options, str(folder)), environ=environ(target)
    )


def start_alembic(tool: Installed, folder: Path, target: Target) -> Command:
    """Return Alembic's command."""
    options = ("-c", str(folder / "alembic.ini"), "upgrade", "head")
    return Command(arguments=(str(tool.program), *options), environ=environ(target))


def start_node_pg_migrate(tool: Installed, folder: Path, target: Target) -> Command:
    """Return node-pg-migrate's command."""
    options = ("up", "--migrations-dir", str(folder), "--no-verbose")
    return Command(
        arguments=(str(tool.program), *options), environ=environ(target), folder=HOME
    )


def start_graphile_migrate(tool: Installed, folder: Path, target: Target) -> Command:
    """Return graphile-migrate's command."""
    return Command(
        arguments=(str(tool.program), "migrate"),
        environ=environ(target),
        folder=folder,
    )


def start_sqitch(tool: Installed, folder: Path, target: Target) -> Command:
    """Return sqitch's command."""
    client = install("psql").program
    options = ("deploy", "--client", str(client), "--target", f"db:{target.url('pg')}")
    return Command(
        arguments=(str(tool.program), *options),
        environ=environ(
            target,
            **sqitch_environ(),
            SQITCH_FULLNAME="Bench",
            SQITCH_EMAIL="bench@localhost",
            TZ="UTC",
        ),
        folder=folder,
    )


def start_psql_loop(tool: Installed, folder: Path, target: Target) -> Command:
    """Return the loop around psql, which gets its database from the environment."""
    return Command(
        arguments=(str(LOOP), str(tool.program), str(folder)), environ=environ(target)
    )


SOURCES: Final[Mapping[str, Callable[[], Iterator[Peer]]]] = {
    GATE: gate_image,
    GATE_VENV: gate_venv,
    "floor": floors,
    "dbmate": dbmate,
    "goose": lambda: simple(
        "goose",
        work.write_goose,
        start_goose,
        back=undo_goose,
        back_form=work.write_goose_back,
    ),
    "migrate": lambda: simple(
        "migrate",
        work.write_migrate,
        start_migrate,
        locks=True,
        back=undo_migrate,
        back_form=work.write_migrate_back,
    ),
    "tern": lambda: simple("tern", work.write_tern, start_tern, locks=True),
    "flyway": lambda: simple(
        "flyway", work.write_flyway, start_flyway, locks=True, copies=True
    ),
    "liquibase": lambda: simple(
        "liquibase", work.write_liquibase, start_liquibase, locks=True
    ),
    "yoyo": lambda: simple("yoyo", work.write_plain, start_yoyo, locks=True),
    "alembic": lambda: simple("alembic", work.write_alembic, start_alembic),
    "node-pg-migrate": lambda: simple(
        "node-pg-migrate", work.write_node_pg_migrate, start_node_pg_migrate
    ),
    "graphile-migrate": lambda: simple(
        "graphile-migrate", work.write_graphile_migrate, start_graphile_migrate
    ),
    "sqitch": lambda: simple("sqitch", work.write_sqitch, start_sqitch, locks=True),
    "psql": lambda: simple("psql", work.write_plain, start_psql_loop, copies=True),
}


def is_meant(name: str, word: str) -> bool:
    """Whether a word of the command line means a peer: its name, or a part of it."""
    return word == name if word in SOURCES else word in name


def gather(wanted: list[str]) -> tuple[list[Peer], dict[str, str]]:
    """Return the peers that can be had, and why the others cannot."""
    HOME.mkdir(parents=True, exist_ok=True)
    peers: list[Peer] = []
    missing: dict[str, str] = {}
    for name, source in SOURCES.items():
        if wanted and not any(is_meant(name, word) for word in wanted):
            continue
        try:
            peers.extend(source())
        except Missing as why:
            missing[name] = why.reason
    return peers, missing
