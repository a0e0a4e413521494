"""A password of any characters logs in, however it is given: on a real server."""

from __future__ import annotations

import itertools

from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest

from migration_gate.connection.connect import open_connection
from migration_gate.settings.environment import from_environ
from tests.fix_gate import Gate
from tests.fix_postgres import Database


PASSWORDS = {
    "everything": "@:/?#%& '\"\\é€",
    "escapes of a URL": "%41%zz%",
    "quotes and backslashes": "\\'\"''\\\\",
    "backslash at the end": "p\\",
    "white space around": " p\t ",
    "letters of the world": "päss 口令🦥",
    "of a shell": "$(id) ${HOME} `x`; !#=+",
    "like a URL": "postgresql://u:p@h:1/d?sslmode=disable",
    "like pairs": "x host=other user='y'",
}
BATCH = 8


def quote_value(value: str) -> str:
    """Quote a value of a key=value string."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def ways(role: Database, folder: Path) -> dict[str, dict[str, str]]:
    """Return every way to name this database and give this password."""
    files = itertools.count()

    def write(text: str, end: str = "\n") -> str:
        path = folder / f"secret-{next(files)}"
        path.write_bytes((text + end).encode())
        return str(path)

    host, port = role.conninfo["host"], role.conninfo["port"]
    user, password = role.user, role.password
    place = f"{host}:{port}/{quote(role.name, safe='')}"
    bare = f"postgresql://{quote(user, safe='')}@{place}"
    pairs = " ".join(
        f"{key}={quote_value(value)}" for key, value in role.conninfo.items()
    )
    split = role.environ()
    split.pop("POSTGRES_PASSWORD")
    libpq = {"PGHOST": host, "PGPORT": port, "PGUSER": user, "PGDATABASE": role.name}
    encoded = quote(password, safe="")
    return {
        "URL": {"DATABASE_URL": role.url},
        "URL in a file": {"DATABASE_URL_FILE": write(role.url)},
        "parameter of a URL": {"DATABASE_URL": f"{bare}?password={encoded}"},
        "URL and POSTGRES_PASSWORD": {
            "DATABASE_URL": bare,
            "POSTGRES_PASSWORD": password,
        },
        "URL and its file": {
            "DATABASE_URL": bare,
            "POSTGRES_PASSWORD_FILE": write(password, "\r\n"),
        },
        "URL and PGPASSWORD": {"DATABASE_URL": bare, "PGPASSWORD": password},
        "pairs": {"DATABASE_URL": pairs},
        "pairs in a file": {"DATABASE_URL_FILE": write(pairs)},
        "POSTGRES": {**split, "POSTGRES_PASSWORD": password},
        "POSTGRES and a file": {**split, "POSTGRES_PASSWORD_FILE": write(password)},
        "libpq": {**libpq, "PGPASSWORD": password},
        "libpq and a file": {**libpq, "PGPASSWORD_FILE": write(password, "")},
    }


def exit_codes(
    gate: Gate, environs: Mapping[str, Mapping[str, str]]
) -> Iterator[tuple[str, int]]:
    """Yield how `wait` ended in each environment; some run at once."""
    now = {"GATE_WAIT_TIMEOUT": "0", "GATE_AUTH_GRACE": "0"}
    names = list(environs)
    for start in range(0, len(names), BATCH):
        batch = names[start : start + BATCH]
        processes = [gate.start("wait", env={**now, **environs[n]}) for n in batch]
        for name, process in zip(batch, processes, strict=True):
            run = process.wait()
            yield name, run.exit_code


def log_in(environ: Mapping[str, str]) -> tuple[str, str]:
    """Return the role and the database that a gate with these settings finds."""
    with closing(open_connection(from_environ(environ).database)) as conn:
        row = conn.execute("SELECT session_user, current_database()").fetchone()
    assert row is not None
    return row[0], row[1]


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=pytest.mark.server if kind == "everything" else [])
        for kind in PASSWORDS
    ],
)
def test_a_password_logs_in_through_each_way(
    database: Database, tmp_path: Path, kind: str
) -> None:
    """Encoded in a URL, quoted in pairs, and as it is everywhere else."""
    role = database.role("login", password=PASSWORDS[kind])
    found = {way: log_in(environ) for way, environ in ways(role, tmp_path).items()}
    assert found == dict.fromkeys(found, (role.user, role.name))


@pytest.mark.timeout(60)
def test_a_gate_takes_them_from_its_own_environment(
    gate: Gate, database: Database, tmp_path: Path
) -> None:
    """The process as it is: nothing on the way changes a character."""
    role = database.role("login", password=PASSWORDS["everything"])
    environs = ways(role, tmp_path)
    assert dict(exit_codes(gate, environs)) == dict.fromkeys(environs, 0)


@pytest.mark.server
@pytest.mark.timeout(60)
def test_a_wrong_password_is_refused_through_each_way(
    gate: Gate, database: Database, tmp_path: Path
) -> None:
    """So the server does ask for one, and none of the ways leaves it out."""
    role = database.role("login", password=PASSWORDS["everything"])
    environs = ways(role.changed(password=f"{role.password}x"), tmp_path)
    assert dict(exit_codes(gate, environs)) == dict.fromkeys(environs, 1)


@pytest.mark.server
def test_names_of_any_characters_log_in_through_each_way(
    database: Database, tmp_path: Path
) -> None:
    """A role and a database are given like a password, though in plain sight."""
    role = database.role("ro@:/?#%& '\"\\é", password=PASSWORDS["everything"])
    name = f"{database.name} @:/?#%&'é"
    with closing(database.server.connect()) as conn:
        conn.execute(f'ALTER DATABASE {database.name} RENAME TO "{name}"')
        try:
            environs = ways(role.changed(dbname=name), tmp_path)
            found = {way: log_in(environ) for way, environ in environs.items()}
            assert found == dict.fromkeys(found, (role.user, name))
        finally:
            conn.execute(f'ALTER DATABASE "{name}" RENAME TO {database.name}')
