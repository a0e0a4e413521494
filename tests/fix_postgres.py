"""
A real PostgreSQL, with a fresh database per test.

By default an embedded server, one per test process; with `--postgres DSN`, of a
superuser, any other. A test that uses these fixtures has the marker `postgres`.
"""

from __future__ import annotations

import itertools
import os
import secrets
import select

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Self

import psycopg
import pytest

from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow

from dev.postgres import HBA, PASSWORD, VERSION, Server, conninfo_to_url


DSN_VARIABLE = "MIGRATION_GATE_TEST_DSN"
# A zone with an odd offset: a time that forgets its zone is wrong for all to see. And a
# login would cost 4,096 hashes on each side, which programs in Go insist on.
SETTINGS = MappingProxyType({"timezone": "Asia/Kathmandu", "scram_iterations": "1"})
# Half the work of what goes through the log, where nothing is flushed to a disk.
FILE_COPY_MIN_VERSION = 150000
# What a DSN may leave out, and a gate's settings need.
DEFAULTS = MappingProxyType(
    {
        "host": "127.0.0.1",
        "port": "5432",
        "user": "postgres",
        "password": "",
        "dbname": "postgres",
    }
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --postgres."""
    parser.addoption(
        "--postgres",
        metavar="DSN",
        default=os.environ.get(DSN_VARIABLE) or None,
        help=f"superuser of the server to test on, instead of an embedded one"
        f" (or in {DSN_VARIABLE})",
    )


def pytest_report_header(config: pytest.Config) -> str:
    """Say which server the tests run on."""
    dsn: str | None = config.getoption("--postgres")
    if dsn is None:
        return f"PostgreSQL {VERSION}, embedded"
    with psycopg.connect(dsn) as conn:
        version = conn.info.parameter_status("server_version")
        return f"PostgreSQL {version}, {conn.info.host}:{conn.info.port}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that need a server."""
    for item in items:
        needs_server = {"server", "new_server"} & set(getattr(item, "fixturenames", ()))
        if needs_server:
            item.add_marker("postgres")


@dataclass(frozen=True, kw_only=True)
class SharedServer:
    """The server that tests run on; `version` is 170010 for 17.10."""

    conninfo: Mapping[str, str]
    version: int
    embedded: Server | None
    log_start: int = 0
    _kept: list[psycopg.Connection[TupleRow]] | None = field(default=None, repr=False)

    @property
    def log(self) -> str:
        """What the server logged since the test began; skips on a foreign server."""
        if self.embedded is None:
            pytest.skip("the log of a server given by --postgres cannot be read")
        return self.embedded.log[self.log_start :]

    def connect(self) -> psycopg.Connection[TupleRow]:
        """Connect as superuser to the maintenance database, in autocommit."""
        return psycopg.connect(make_conninfo(**self.conninfo), autocommit=True)

    @contextmanager
    def keeping(self) -> Iterator[SharedServer]:
        """Return the server with a connection that is kept for `superuser`."""
        kept: list[psycopg.Connection[TupleRow]] = []
        try:
            yield replace(self, _kept=kept)
        finally:
            for conn in kept:
                conn.close()

    @contextmanager
    def superuser(self) -> Iterator[psycopg.Connection[TupleRow]]:
        """
        Lend the connection that is kept, or else a new one.

        To make a database and drop it costs half of what it does with two of their own.
        """
        if self._kept is None:
            with closing(self.connect()) as conn:
                yield conn
            return
        # Nothing is to be read there, but the end that a crashed server leaves.
        while self._kept and select.select([self._kept[0]], [], [], 0)[0]:
            self._kept.pop().close()
        if not self._kept:
            self._kept.append(self.connect())
        yield self._kept[0]


@dataclass(kw_only=True)
class Database:
    """
    A database of one test, as one user sees it.

    `conninfo` has host, port, user, password and dbname, all as text.
    """

    server: SharedServer
    conninfo: dict[str, str]
    _roles: list[str] = field(default_factory=list, repr=False)

    @property
    def name(self) -> str:
        """The database's name."""
        return self.conninfo["dbname"]

    @property
    def user(self) -> str:
        """The role that connects."""
        return self.conninfo["user"]

    @property
    def password(self) -> str:
        """The role's password."""
        return self.conninfo["password"]

    @property
    def url(self) -> str:
        """The database as a URL, percent-encoded."""
        return conninfo_to_url(self.conninfo)

    @property
    def log(self) -> str:
        """What the server logged in this database; skips on a foreign server."""
        entries: list[str] = []
        ours = False
        for line in self.server.log.splitlines(keepends=True):
            if not line.startswith("\t"):
                ours = f"@{self.name} " in line
            if ours:
                entries.append(line)
        return "".join(entries)

    def environ(self) -> dict[str, str]:
        """Return the settings of a gate in front of this database."""
        sslmode = self.conninfo.get("sslmode")
        return {
            "POSTGRES_HOST": self.conninfo["host"],
            "POSTGRES_PORT": self.conninfo["port"],
            "POSTGRES_USER": self.user,
            "POSTGRES_PASSWORD": self.password,
            "POSTGRES_DB": self.name,
            **({"POSTGRES_SSL_MODE": sslmode} if sslmode else {}),
        }

    def changed(self, **conninfo: str) -> Database:
        """Return the same database, reached with other connection parameters."""
        return Database(
            server=self.server, conninfo=self.conninfo | conninfo, _roles=self._roles
        )

    def connect(self, **overrides: Any) -> psycopg.Connection[TupleRow]:  # noqa: ANN401 -- libpq's parameters
        """Connect, in autocommit; the caller closes."""
        conninfo = make_conninfo(**(self.conninfo | overrides))
        return psycopg.connect(conninfo, autocommit=True)

    def fetch(self, query: str, params: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Run one query on a connection of its own and return its rows."""
        with closing(self.connect()) as conn:
            return conn.execute(query, params or None).fetchall()

    def execute(self, script: str) -> None:
        """Run statements on a connection of its own, as one message."""
        with closing(self.connect()) as conn:
            conn.execute(script)

    def role(
        self,
        name_hint: str = "role",
        *,
        attributes: str = "LOGIN",
        password: str | None = None,
    ) -> Database:
        """
        Create a role of its own and return this database as it sees it.

        Without a password it gets one that nothing else in a log looks like. Dropped
        after the test, with what it owns and was granted.
        """
        name = f"{name_hint}_{secrets.token_hex(4)}"
        password = password or secrets.token_urlsafe(18)
        with self.server.superuser() as conn:
            conn.execute(
                sql.SQL("CREATE ROLE {} {} PASSWORD {}").format(
                    sql.Identifier(name), sql.SQL(attributes), password
                )
            )
        self._roles.append(name)
        return self.changed(user=name, password=password)


@dataclass(kw_only=True)
class Databases:
    """Makes databases, and removes them with the roles made in them."""

    server: SharedServer
    _made: list[Database] = field(default_factory=list)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        roles = [role for database in self._made for role in database._roles]
        with self.server.superuser() as conn:
            for database in self._made:
                drop_database(conn, database.name)
            for role in reversed(roles):
                drop_role(conn, role)

    def create(self) -> Database:
        """Return a fresh database."""
        database = self.name()
        with self.server.superuser() as conn:
            has_way = conn.info.server_version >= FILE_COPY_MIN_VERSION
            create = sql.SQL("CREATE DATABASE {} TEMPLATE template0 {}").format(
                sql.Identifier(database.name),
                sql.SQL("STRATEGY FILE_COPY" if has_way else ""),
            )
            conn.execute(create)
        return database

    def name(self) -> Database:
        """Return a database that does not exist; dropped in the end if it does."""
        name = f"test_{secrets.token_hex(6)}"
        conninfo = dict(self.server.conninfo) | {"dbname": name}
        database = Database(server=self.server, conninfo=conninfo)
        self._made.append(database)
        return database


def drop_database(conn: psycopg.Connection[TupleRow], name: str) -> None:
    """Drop a database, its sessions included."""
    drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
    conn.execute(drop.format(sql.Identifier(name)))


def drop_role(conn: psycopg.Connection[TupleRow], role: str) -> None:
    """Drop a role with the databases it owns and the rights it was given."""
    owned = (
        "SELECT d.datname FROM pg_database AS d JOIN pg_roles AS r ON r.oid = d.datdba"
    )
    for (name,) in conn.execute(f"{owned} WHERE r.rolname = %s", [role]).fetchall():
        drop_database(conn, name)
    for form in ("DROP OWNED BY {} CASCADE", "DROP ROLE {}"):
        conn.execute(sql.SQL(form).format(sql.Identifier(role)))


@pytest.fixture(scope="session")
def _server(request: pytest.FixtureRequest) -> Iterator[SharedServer]:
    """Start the embedded server, or look at the given one."""
    with ExitStack() as stack:
        dsn: str | None = request.config.getoption("--postgres")
        if dsn is None:
            embedded = stack.enter_context(Server(server_name(), settings=SETTINGS))
            conninfo = embedded.conninfo
            hash_cheaply(conninfo)
        else:
            embedded = None
            conninfo = stack.enter_context(tester(dsn))
        yield stack.enter_context(look_at(conninfo, embedded).keeping())


def hash_cheaply(conninfo: Mapping[str, str]) -> None:
    """Store the password of a server's superuser once more, as the server hashes it."""
    with closing(psycopg.connect(make_conninfo(**conninfo), autocommit=True)) as conn:
        alter = sql.SQL("ALTER ROLE {} PASSWORD {}")
        role = sql.Identifier(conninfo["user"])
        conn.execute(alter.format(role, conninfo["password"]))


@contextmanager
def tester(dsn: str) -> Iterator[dict[str, str]]:
    """
    Make a superuser of the tests' own, for as long as they run.

    Its password is found where it should not be; a given one may be as plain as
    "postgres", which stands in every log.
    """
    given = DEFAULTS | {key: str(v) for key, v in conninfo_to_dict(dsn).items()}
    name = f"tester_{secrets.token_hex(4)}"
    role = sql.Identifier(name)
    with closing(psycopg.connect(make_conninfo(**given), autocommit=True)) as conn:
        make = sql.SQL("CREATE ROLE {} LOGIN SUPERUSER REPLICATION PASSWORD {}")
        conn.execute(make.format(role, PASSWORD))
    try:
        yield given | {"user": name, "password": PASSWORD}
    finally:
        with closing(psycopg.connect(make_conninfo(**given), autocommit=True)) as conn:
            conn.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(role))
            conn.execute(sql.SQL("DROP ROLE {}").format(role))


def server_name(number: int = 0) -> str:
    """Name a server by its place, so that logs of later runs replace earlier ones."""
    return f"tests-{os.environ.get('PYTEST_XDIST_WORKER', 'main')}-{number}"


def look_at(conninfo: Mapping[str, str], embedded: Server | None) -> SharedServer:
    """Ask a server for its version."""
    with psycopg.connect(make_conninfo(**conninfo)) as conn:
        version = conn.info.server_version
    return SharedServer(conninfo=conninfo, version=version, embedded=embedded)


@pytest.fixture
def server(_server: SharedServer) -> SharedServer:
    """Return the shared server; tests do not stop it (see `new_server`)."""
    log_start = 0 if _server.embedded is None else len(_server.embedded.log)
    return replace(_server, log_start=log_start)


@pytest.fixture
def databases(server: SharedServer) -> Iterator[Databases]:
    """Return what makes databases, for tests that need several, or an absent one."""
    with Databases(server=server) as made:
        yield made


@pytest.fixture
def database(databases: Databases) -> Database:
    """Return a fresh database, as superuser."""
    return databases.create()


class NewServer:
    """Starts servers of a test's own; see `new_server`."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._numbers = itertools.count(1)

    def __call__(
        self,
        *,
        settings: Mapping[str, str] | None = None,
        hba: Sequence[str] = HBA,
        tls: bool = False,
        standby_of: Server | None = None,
    ) -> Server:
        """Start another embedded server, stopped after the test."""
        return self._stack.enter_context(
            Server(
                server_name(next(self._numbers)),
                settings={**SETTINGS, **(settings or {})},
                hba=hba,
                tls=tls,
                standby_of=standby_of,
            )
        )


@pytest.fixture
def new_server() -> Iterator[NewServer]:
    """Return what starts embedded servers that a test may stop, break and configure."""
    with ExitStack() as stack:
        yield NewServer(stack)


def database_of(server: Server) -> Database:
    """Return the database `postgres` of a server from `new_server`, as superuser."""
    shared = look_at(server.conninfo, server)
    return Database(server=shared, conninfo=server.conninfo)
