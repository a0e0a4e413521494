"""
Connect to PostgreSQL, once: secrets read at each attempt, failures told by their cause.

Opens connections; reads nothing but the files that hold the settings of one.
"""

from __future__ import annotations

import logging
import time

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import psycopg

from migration_gate import __version__
from migration_gate.connection.causes import (
    BY_SQLSTATE,
    CA_FILE_MISSING,
    NO_ANSWER,
    NO_RIGHT,
    POOL_FULL,
    Cause,
    find_cause,
    shorten_text,
)
from migration_gate.report.errors import GateError, SettingFault, SettingsError
from migration_gate.settings.database import (
    DatabaseSettings,
    connection_parameters,
    shown,
)


CONNECT_TIMEOUT_S: Final = 5
ANSWER_TIMEOUT_S: Final = 10.0
CANCEL_TIMEOUT_S: Final = 1.0
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
POOL_WAIT_OVER: Final = "query_wait_timeout"  # PgBouncer's word
APPLICATION_NAME: Final = f"migration-gate/{__version__}"

# psycopg warns through logging, which writes to stderr where nobody listens.
logging.getLogger("psycopg").addHandler(logging.NullHandler())


class LimitedConnection(psycopg.Connection[Any]):
    """A connection whose wait for an answer can be limited, in seconds."""

    answer_timeout_s: float | None = None

    def wait(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  # psycopg's own
        """Wait as psycopg does, not longer than the limit."""
        return super().wait(*args, **{"timeout": self.answer_timeout_s, **kwargs})


class NotReadyError(Exception):
    """
    The database cannot be used yet.

    ``error`` is what closes the gate when the wait ends like this; None for an error
    made from the cause. ``address`` has host, hostaddr and port of the server that
    refused; empty where none answered.
    """

    def __init__(
        self,
        cause: Cause,
        text: str,
        error: GateError | None = None,
        *,
        address: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        super().__init__(text)
        self.cause = cause
        self.error = error
        self.address = address


def read_secret_file(path: str) -> str:
    """Return a file's text as it is. Raises OSError, UnicodeDecodeError."""
    return Path(path).read_bytes().decode()


def current_parameters(database: DatabaseSettings) -> dict[str, str]:
    """Return libpq's parameters, the files read afresh. Raises SettingsError."""
    return connection_parameters(database, read_secret_file)


def open_connection(database: DatabaseSettings, **overrides: str) -> LimitedConnection:
    """
    Connect once, in autocommit.

    client_encoding goes with the start-up packet, as psql sends it; no other setting
    does, since poolers refuse them.

    Args:
        overrides: Parameters in place of those of the settings.

    Raises:
        SettingsError: A file cannot be read, or what it holds is malformed.
        NotReadyError: The connection failed.
    """
    parameters = {**current_parameters(database), **overrides}
    _require_ca_file(parameters)
    try:
        return LimitedConnection.connect(
            **_complete(parameters), autocommit=True, prepare_threshold=None
        )
    except psycopg.Error as error:
        raise _to_not_ready(error) from error
    except UnicodeError:  # of Python's resolver, for what no host name can be
        fault = SettingFault(
            name="connection",
            rule="names a host that no host can have",
            remedy="Each part of a host name has 1 to 63 characters.",
        )
        raise SettingsError([fault]) from None


def open_second_connection(database: DatabaseSettings) -> LimitedConnection:
    """
    Connect through a pooler beside a transaction that has one of its connections.

    A pooler takes every login, and lets a query wait until its pool has room: for
    longer than the gate does, or until it ends the wait itself.

    Raises:
        SettingsError: A file cannot be read, or what it holds is malformed.
        NotReadyError: The connection failed, or the pool has no room.
    """
    conn = open_connection(database)
    try:
        with looking(conn):
            conn.execute("SELECT")
    except BaseException as error:
        conn.close()
        if isinstance(error, NotReadyError) and _waited_in_pool(error):
            raise NotReadyError(POOL_FULL, str(error)) from error
        raise
    return conn


def _waited_in_pool(error: NotReadyError) -> bool:
    return error.cause is NO_ANSWER or POOL_WAIT_OVER in str(error)


def _require_ca_file(parameters: Mapping[str, str]) -> None:
    """
    Refuse, as libpq does, a CA file that is not there: it finds out from a server only.

    Raises:
        NotReadyError: No waiting for the server mends it.
    """
    path = parameters.get("sslrootcert", "")
    is_used = parameters.get("sslmode") in {"verify-ca", "verify-full"}
    if not is_used or path in {"", "system"}:
        return
    try:
        Path(path).stat()
    except OSError:
        text = f'root certificate file "{path}" does not exist'
        raise NotReadyError(CA_FILE_MISSING, text) from None


@contextmanager
def looking(
    conn: LimitedConnection, *, timeout_s: float | None = ANSWER_TIMEOUT_S
) -> Iterator[None]:
    """
    Turn the driver's error for a connection lost while looking into NotReadyError.

    So is no answer for long: a pooler takes the login while its server is away, and
    another session may lock the table. Any other error of a query is a fault of the
    query's, and waiting does not mend it.
    """
    conn.answer_timeout_s = timeout_s
    started_s = time.monotonic()
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as error:
        raise NotReadyError(NO_RIGHT, shorten_text(str(error))) from error
    except (psycopg.OperationalError, psycopg.InternalError) as error:
        waited_s = time.monotonic() - started_s
        is_late = timeout_s is not None and waited_s >= timeout_s
        if error.sqlstate is None and is_late and not conn.broken:
            _cancel(conn)
            text = f"logged in, but no answer within {timeout_s:g} s"
            raise NotReadyError(NO_ANSWER, text) from error
        raise _to_not_ready(error) from error
    finally:
        conn.answer_timeout_s = None


def _cancel(conn: LimitedConnection) -> None:
    """Let the server give up what nobody waits for any more, if it can be reached."""
    with suppress(psycopg.Error):
        conn.cancel_safe(timeout=CANCEL_TIMEOUT_S)


def _to_not_ready(error: psycopg.Error) -> NotReadyError:
    text = str(error)
    cause = BY_SQLSTATE.get(error.sqlstate or "") or find_cause(text)
    return NotReadyError(cause, shorten_text(text), address=_address_of(error))


def name_place(parameters: Mapping[str, str]) -> str:
    """Name where a connection leads, in quotes: each host with its port."""
    place = shown(parameters)
    if place["host"] is None:
        service = parameters.get("service")
        return f'service "{service}"' if service else "the local socket"
    hosts = place["host"].split(",")
    ports = (place["port"] or "5432").split(",")
    if len(ports) < len(hosts):
        ports = ports * len(hosts)
    return ", ".join(
        f'"{host}:{port or 5432}"' for host, port in zip(hosts, ports, strict=False)
    )


def _complete(parameters: Mapping[str, str]) -> dict[str, Any]:
    """Add what every connection of the gate has; 0 for connect_timeout means none."""
    given_s = parameters.get("connect_timeout", "0")
    return {
        **CONNECTION_DEFAULTS,
        **parameters,
        "connect_timeout": given_s if int(given_s) > 0 else CONNECT_TIMEOUT_S,
        "client_encoding": "UTF8",
        "application_name": APPLICATION_NAME,
    }


def _address_of(error: psycopg.Error) -> dict[str, str]:
    pgconn = error.pgconn
    if pgconn is None:
        return {}
    found = {"host": pgconn.host, "hostaddr": pgconn.hostaddr, "port": pgconn.port}
    return {keyword: value.decode() for keyword, value in found.items() if value}
