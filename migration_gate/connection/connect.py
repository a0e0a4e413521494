"""
Connect to PostgreSQL, once: secrets read at each attempt, failures told by their cause.

Opens connections; reads nothing but the files that hold the settings of one.
"""

from __future__ import annotations

import time

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Final

from migration_gate import __version__
from migration_gate.connection.asking import asking
from migration_gate.connection.causes import NO_ANSWER, POOL_FULL, STARTUP_PARAMETER
from migration_gate.connection.limited import LimitedConnection, limited
from migration_gate.connection.not_ready import NotReadyError, to_one
from migration_gate.connection.opening import CONNECT_TIMEOUT_MIN_S, keeper, open_on
from migration_gate.connection.servers import each_server
from migration_gate.connection.waits import T
from migration_gate.settings.database import connection_parameters, said_beside, shown
from migration_gate.settings.sources import DatabaseSettings, PipeError


CONNECT_TIMEOUT_S: Final = 5
# A silent drop is noticed within a minute, idle or not.
CONNECTION_DEFAULTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "keepalives": "1",
        "keepalives_idle": "20",
        "keepalives_interval": "10",
        "keepalives_count": "3",
        "tcp_user_timeout": "50000",  # milliseconds
    }
)
# Weaker modes go on without TLS where a file for it is of no use, and so do we.
CERTAIN_TLS: Final = frozenset({"require", "verify-ca", "verify-full"})
POOL_WAIT_OVER: Final = "query_wait_timeout"  # PgBouncer's word
APPLICATION_NAME: Final = f"migration-gate/{__version__}"


def read_file(path: str) -> str:
    """Return a file's text as it is. Raises OSError, UnicodeDecodeError."""
    return Path(path).read_bytes().decode()


def read_secret_file(path: str) -> str:
    """Return the text of a file that is read at each attempt; likewise."""
    if Path(path).is_fifo():  # it may be waited for without end, and is read but once
        raise PipeError("is a pipe")
    return read_file(path)


def current_parameters(database: DatabaseSettings) -> dict[str, str]:
    """Return libpq's parameters, the files read afresh. Raises SettingsError."""
    return connection_parameters(database, read_secret_file)


def use_first(
    database: DatabaseSettings,
    use: Callable[[LimitedConnection], T],
    *,
    until_s: float | None = None,
    may_be_held: bool = False,
    **overrides: str,
) -> T:
    """
    Connect to one server after the other, until one can be used; in autocommit.

    client_encoding goes with the start-up packet, as psql sends it; no other setting
    does, since poolers refuse them.

    Args:
        use: Is given each connection, which is its own from then on; raises
            NotReadyError where another server may do. The first may be one that a
            fleet has kept.
        until_s: When to give up, on the monotonic clock.
        may_be_held: One that a fleet has kept may still have a lock of the last target,
            which ``use`` lets go of.
        overrides: Parameters in place of those of the settings.

    Raises:
        SettingsError: A file cannot be read, or what it holds is malformed; or the
            image lacks what GATE_LOGIN asks for.
        NotReadyError: No server can be used.
    """
    try:
        parameters = _read_parameters(database, overrides)
    except BaseException:
        # It may be long before it is tried again, and a lock is not kept for that.
        keeper.drop()
        raise
    if until_s is not None:
        until_s = max(until_s, time.monotonic() + CONNECT_TIMEOUT_MIN_S)
    failures: list[NotReadyError] = []
    spare = keeper.take(parameters, may_be_held)
    if spare is not None:
        spare.until_s = until_s
        with suppress(NotReadyError):
            return use(spare)
    for server in each_server(parameters):
        if failures and until_s is not None and time.monotonic() >= until_s:
            break
        try:
            conn = _open_as_set(server, until_s, database)
            conn.opened_with = parameters
            return use(conn)
        except NotReadyError as error:
            if not isinstance(server, OSError):
                error.address = error.address or _address(server)
            failures.append(error)
    raise to_one(failures)


def _read_parameters(
    database: DatabaseSettings, overrides: Mapping[str, str]
) -> dict[str, str]:
    """Return the parameters, where all is there that they need; see ``use_first``."""
    if database.login != "password":
        from migration_gate.connection.login.tokens import (  # noqa: PLC0415  # for few
            require_sdk,
        )

        require_sdk(database.login)
    parameters = _complete({**current_parameters(database), **overrides})
    if parameters.get("sslmode") in CERTAIN_TLS:
        from migration_gate.connection.tls_files import (  # noqa: PLC0415  # for few
            find_fault,
        )

        fault = find_fault(parameters)
        if fault is not None:
            raise NotReadyError(*fault)
    return parameters


def open_connection(
    database: DatabaseSettings, *, until_s: float | None = None, **overrides: str
) -> LimitedConnection:
    """Connect to the first server that lets us in; see ``use_first``."""
    return use_first(
        database, lambda conn: conn, until_s=until_s, may_be_held=False, **overrides
    )


def _address(server: Mapping[str, str]) -> dict[str, str]:
    keywords = ("host", "hostaddr", "port")
    return {keyword: server[keyword] for keyword in keywords if server.get(keyword)}


def _open_as_set(
    server: Mapping[str, str] | OSError,
    until_s: float | None,
    database: DatabaseSettings,
) -> LimitedConnection:
    """
    Connect to one server, whose sessions have what the URL sets in them.

    Raises:
        NotReadyError: The connection failed; or a pooler does not let a session begin
            with that, and it would not be so anyway.
    """
    try:
        return open_on(server, until_s, database.login)
    except NotReadyError as error:
        if error.cause is not STARTUP_PARAMETER or isinstance(server, OSError):
            raise
        from migration_gate.connection.pooled_sessions import (  # noqa: PLC0415  # for few
            holds,
        )

        beside = said_beside(database, read_secret_file)
        if not beside.session:
            raise
        plain = {**server, "options": beside.options}
        conn = open_on(plain, until_s, database.login)
        with limited(conn):
            if holds(conn, beside.session):
                return conn
        conn.close()
        raise


def open_second_connection(
    database: DatabaseSettings, *, until_s: float | None = None, **overrides: str
) -> LimitedConnection:
    """
    Connect through a pooler beside a transaction that has one of its connections.

    A pooler takes every login, and lets a query wait until its pool has room: for
    longer than the gate does, or until it ends the wait itself.

    Raises:
        SettingsError: A file cannot be read, or what it holds is malformed.
        NotReadyError: The connection failed, or the pool has no room.
    """
    conn = open_connection(database, until_s=until_s, **overrides)
    try:
        with asking(conn, "use a second connection"):
            conn.execute("SELECT")
    except BaseException as error:
        conn.close()
        if isinstance(error, NotReadyError) and _waited_in_pool(error):
            raise NotReadyError(POOL_FULL, str(error)) from error
        raise
    return conn


def _waited_in_pool(error: NotReadyError) -> bool:
    return error.cause is NO_ANSWER or POOL_WAIT_OVER in str(error)


def name_address(parameters: Mapping[str, str]) -> str:
    """Name where a connection leads, in quotes: each host with its port."""
    address = shown(parameters)
    if address["host"] is None:
        service = parameters.get("service")
        return f'service "{service}"' if service else "the local socket"
    hosts = address["host"].split(",")
    ports = (address["port"] or "5432").split(",")
    if len(ports) < len(hosts):
        ports = ports * len(hosts)
    return ", ".join(
        f'"{host}:{port or 5432}"' for host, port in zip(hosts, ports, strict=False)
    )


def _complete(parameters: Mapping[str, str]) -> dict[str, str]:
    """Add what every connection of the gate has; 0 for connect_timeout means none."""
    given_s = parameters.get("connect_timeout", "0")
    return {
        **CONNECTION_DEFAULTS,
        **parameters,
        "connect_timeout": given_s if int(given_s) > 0 else str(CONNECT_TIMEOUT_S),
        "client_encoding": "UTF8",
        "application_name": APPLICATION_NAME,
    }
