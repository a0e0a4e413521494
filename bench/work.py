"""
The work: migrations as text, and as each tool wants them in its folder.

Small migrations make a table and an index and insert three rows; trivial ones only
select a number, for a long history that is soon made. Views are made again where a
repeatable migration's text has changed.
"""

from __future__ import annotations

import hashlib
import shutil

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Literal

from bench.install import CACHE


Kind = Literal["small", "trivial", "view", "view again"]
Writer = Callable[[Path, Sequence[str]], None]

# Inside the folder that the image is unpacked to, so that its gate sees them too.
IMAGE_ROOT: Final = CACHE / "root"
ALL_WORK: Final = IMAGE_ROOT / "work"

# Made once for each version of what makes them.
MAKERS: Final = ("work.py", "dump.py", "stall.py")


def _digest() -> str:
    texts = [Path(__file__).with_name(name).read_bytes() for name in MAKERS]
    return hashlib.sha256(b"".join(texts)).hexdigest()[:8]


WORK: Final = ALL_WORK / _digest()


def body(kind: Kind, number: int) -> str:
    """Return the SQL of one migration."""
    if kind == "trivial":
        return f"SELECT {number};\n"
    if kind in {"view", "view again"}:
        shown = "first" if kind == "view" else "second"
        return (
            f"CREATE OR REPLACE VIEW view_{number:05d} AS\n"
            f"SELECT '{shown}'::text AS shown, {number} AS number;\n"
        )
    table = f"small_{number:05d}"
    return (
        f"CREATE TABLE {table} (id bigint PRIMARY KEY, name text);\n"
        f"CREATE INDEX {table}_name ON {table} (name);\n"
        f"INSERT INTO {table} VALUES (1, 'one'), (2, 'two'), (3, 'three');\n"
    )


def folder_for(writer: Writer, kind: Kind, count: int) -> Path:
    """Return a folder with so many migrations in a tool's form; made once."""
    form = writer.__name__.removeprefix("write_")
    folder = WORK / f"{form}-{kind.replace(' ', '-')}-{count}"
    if not folder.is_dir():
        new = folder.with_suffix(".new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        writer(new, [body(kind, number) for number in range(1, count + 1)])
        new.rename(folder)
    return folder


def numbered(bodies: Sequence[str]) -> list[tuple[int, str]]:
    """Number migrations from one."""
    return list(enumerate(bodies, 1))


def write_plain(folder: Path, bodies: Sequence[str]) -> None:
    """Files for the gate, the floor, psql and yoyo: SQL and nothing else."""
    for number, text in numbered(bodies):
        (folder / f"{number:05d}_small.sql").write_text(text, "utf-8")


def undoing(number: int) -> str:
    """Return the SQL that undoes a small migration."""
    return f"DROP TABLE small_{number:05d};\n"


def write_plain_back(folder: Path, bodies: Sequence[str]) -> None:
    """Write files for the gate, each with the one that undoes it."""
    write_plain(folder, bodies)
    for number, _ in numbered(bodies):
        (folder / f"{number:05d}_small.down.sql").write_text(undoing(number), "utf-8")


def write_migrate_back(folder: Path, bodies: Sequence[str]) -> None:
    """Write both files of each, as golang-migrate has them."""
    write_migrate(folder, bodies)
    for number, _ in numbered(bodies):
        (folder / f"{number:05d}_small.down.sql").write_text(undoing(number), "utf-8")


def write_dbmate_back(folder: Path, bodies: Sequence[str]) -> None:
    """Write what goes up and what goes down in one file."""
    for number, text in numbered(bodies):
        whole = f"-- migrate:up\n{text}\n-- migrate:down\n{undoing(number)}"
        (folder / f"{number:05d}_small.sql").write_text(whole, "utf-8")


def write_goose_back(folder: Path, bodies: Sequence[str]) -> None:
    """Write both directions, as goose has them in one file."""
    for number, text in numbered(bodies):
        whole = f"-- +goose Up\n{text}\n-- +goose Down\n{undoing(number)}"
        (folder / f"{number:05d}_small.sql").write_text(whole, "utf-8")


def write_dbmate(folder: Path, bodies: Sequence[str]) -> None:
    """Write dbmate's form: what goes up and what goes down in one file."""
    for number, text in numbered(bodies):
        whole = f"-- migrate:up\n{text}\n-- migrate:down\n"
        (folder / f"{number:05d}_small.sql").write_text(whole, "utf-8")


def write_goose(folder: Path, bodies: Sequence[str]) -> None:
    """Write goose's form; its parser ends a statement at a line that ends in `;`."""
    for number, text in numbered(bodies):
        whole = f"-- +goose Up\n{text}\n-- +goose Down\n"
        (folder / f"{number:05d}_small.sql").write_text(whole, "utf-8")


def write_migrate(folder: Path, bodies: Sequence[str]) -> None:
    """Write golang-migrate's form."""
    for number, text in numbered(bodies):
        (folder / f"{number:05d}_small.up.sql").write_text(text, "utf-8")


def write_tern(folder: Path, bodies: Sequence[str]) -> None:
    """Write tern's form."""
    for number, text in numbered(bodies):
        (folder / f"{number:05d}_small.sql").write_text(text, "utf-8")


def write_flyway(folder: Path, bodies: Sequence[str]) -> None:
    """Write Flyway's form."""
    for number, text in numbered(bodies):
        (folder / f"V{number}__small.sql").write_text(text, "utf-8")


def write_repeatable(folder: Path, bodies: Sequence[str]) -> None:
    """Write the form of repeatable migrations, which is Flyway's and the gate's."""
    for number, text in numbered(bodies):
        (folder / f"R__view_{number:05d}.sql").write_text(text, "utf-8")


def write_liquibase(folder: Path, bodies: Sequence[str]) -> None:
    """Write Liquibase's form: one file of change sets."""
    sets = [f"--changeset bench:{number}\n{text}" for number, text in numbered(bodies)]
    whole = "\n".join(["--liquibase formatted sql\n", *sets])
    (folder / "changelog.sql").write_text(whole, "utf-8")


ALEMBIC_ENV = """\
import os
from alembic import context
from sqlalchemy import create_engine, pool

url = os.environ["DATABASE_URL"].replace("postgresql:", "postgresql+psycopg2:")
engine = create_engine(url, poolclass=pool.NullPool)
with engine.connect() as connection:
    context.configure(connection=connection, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()
"""
ALEMBIC_VERSION = """\
from alembic import op
revision, down_revision = {revision!r}, {previous!r}
def upgrade(): op.execute({text!r})
"""


def write_alembic(folder: Path, bodies: Sequence[str]) -> None:
    """Write Alembic's form: a module for each migration."""
    (folder / "alembic.ini").write_text(
        "[alembic]\nscript_location = %(here)s\npath_separator = os\n", "utf-8"
    )
    (folder / "env.py").write_text(ALEMBIC_ENV, "utf-8")
    (folder / "versions").mkdir()
    previous = None
    for number, text in numbered(bodies):
        revision = f"{number:05d}"
        module = ALEMBIC_VERSION.format(revision=revision, previous=previous, text=text)
        (folder / "versions" / f"{revision}_small.py").write_text(module, "utf-8")
        previous = revision


def write_node_pg_migrate(folder: Path, bodies: Sequence[str]) -> None:
    """Write node-pg-migrate's form: numbered by milliseconds."""
    for number, text in numbered(bodies):
        name = f"{1700000000000 + number}_small.sql"
        (folder / name).write_text(f"-- Up Migration\n{text}", "utf-8")


def write_graphile_migrate(folder: Path, bodies: Sequence[str]) -> None:
    """Write graphile-migrate's form: each committed file names the one before."""
    (folder / ".gmrc").write_text('{"migrationsFolder": "./migrations"}\n', "utf-8")
    committed = folder / "migrations" / "committed"
    committed.mkdir(parents=True)
    (folder / "migrations" / "current.sql").write_text("", "utf-8")
    previous = ""
    for number, text in numbered(bodies):
        hashed = f"{previous}\n{text.strip()}".strip() + "\n"
        digest = hashlib.sha1(hashed.encode(), usedforsecurity=False).hexdigest()
        headers = f"--! Previous: {previous or '-'}\n--! Hash: sha1:{digest}\n\n"
        whole = headers + text.strip() + "\n"
        (committed / f"{number:06d}.sql").write_text(whole, "utf-8")
        previous = f"sha1:{digest}"


def write_sqitch(folder: Path, bodies: Sequence[str]) -> None:
    """Write sqitch's form: a plan, and a script for psql for each change."""
    lines = ["%syntax-version=1.0.0", "%project=bench", ""]
    (folder / "sqitch.conf").write_text("[core]\n\tengine = pg\n", "utf-8")
    (folder / "deploy").mkdir()
    for number, text in numbered(bodies):
        name = f"small{number:05d}x"
        when = f"2026-01-01T{number // 3600:02d}:{number // 60 % 60:02d}:"
        lines.append(
            f"{name} {when}{number % 60:02d}Z Bench <bench@localhost> # {name}"
        )
        script = f"BEGIN;\n{text}COMMIT;\n"
        (folder / "deploy" / f"{name}.sql").write_text(script, "utf-8")
    (folder / "sqitch.plan").write_text("\n".join([*lines, ""]), "utf-8")
