"""
Connect to PostgreSQL, once: secrets read at each attempt, failures told by their cause.

Opens connections; reads nothing but the files that hold the settings of one.
"""

from __future__ import annotations

import logging
import math
import threading
import time

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import psycopg

from psycopg import pq

from migration_gate import __version__
from migration_gate.connection.causes import (
    BY_SQLSTATE,
    CLIENT_CERTIFICATE,
    HOME_UNREADABLE,
    IDENTITY_AWAY,
    IDENTITY_REFUSED,
    NO_ANSWER,
    NO_RIGHT,
    NOT_NOW,
    POOL_FULL,
    STARTUP_PARAMETER,
    STATEMENT_REFUSED,
    UNKNOWN,
    Cause,
    decide,
    find_cause,
    shorten_text,
)
from migration_gate.connection.dialing import DialError, address_of, dial
from migration_gate.connection.refusals import to_outcome
from migration_gate.connection.servers import each_server
from migration_gate.connection.waits import (
    NoAnswerError,
    Steps,
    Stopped,
    T,
    awaiting,
    awaiting_an_answer,
    drive,
    ending,
)
from migration_gate.report.errors import (
    DatabaseUnreachableError,
    GateError,
    LoginRefusedError,
    ServerRefusedError,
)
from migration_gate.report.outcomes import ConnectionLostError, RefusedForNowError
from migration_gate.settings.database import (
    DatabaseSettings,
    Login,
    connection_parameters,
    said_beside,
    shown,
)


if TYPE_CHECKING:
    from migration_gate.connection.scram import Memory

CONNECT_TIMEOUT_S: Final = 5
ANSWER_TIMEOUT_S: Final = 10.0
# What an attempt at the very end of a wait has, and a query on what has let us in.
CONNECT_TIMEOUT_MIN_S: Final = 1.0
ANSWER_TIMEOUT_MIN_S: Final = 5.0
# Together less than signals.UNWIND_S.
CANCEL_TIMEOUT_S: Final = 1.0
LAST_ANSWER_TIMEOUT_S: Final = 1.0
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

# psycopg warns through logging, which writes to stderr where nobody listens.
logging.getLogger("psycopg").addHandler(logging.NullHandler())


class LimitedConnection(psycopg.Connection[Any]):
    """
    A connection whose wait for an answer can be limited, in seconds.

    ``until_s`` is when the wait ends that it was made in; None where that has no end.
    ``opened_with`` are its parameters; ``target_count`` is for how many targets of a
    fleet it has been used. ``defaults`` is the hash of the defaults of role and
    database that its session began with, once it was asked for, and ``is_outdated``
    tells that they are others now. ``is_usual`` tells that nothing it began with is in
    the way of files, and ``watches_client`` that the server notices when this client is
    gone, once that was asked. ``history_table`` is that of the last target that it held
    the lock of, and still does where ``is_held``; None where that is unknown, or a
    pooler may stand between. ``is_behind`` is the schema and the name of a history that
    a glance has seen to lack something; None where it has not.
    """

    answer_timeout_s: float = math.inf
    until_s: float | None = None
    opened_with: Mapping[str, str] = MappingProxyType({})
    target_count: int = 0
    defaults: str | None = None
    is_outdated: bool = False
    is_usual: bool = False
    watches_client: bool = False
    history_table: str | None = None
    is_held: bool = False
    is_behind: tuple[str, str] | None = None

    def wait(
        self,
        gen: Steps[T],
        interval: float = 0.0,  # noqa: ARG002  # psycopg's, who looks for signals so
        timeout: float | None = None,
    ) -> T:
        """
        Wait as the gate does; what is not waited for any more is cancelled.

        Raises:
            NoAnswerError: It took longer than the limit.
            Stopped: The run is to stop.
        """
        limit_s = self.answer_timeout_s if timeout is None else timeout
        try:
            with awaiting_an_answer():
                return drive(gen, self.pgconn.socket, limit_s=limit_s)
        except (NoAnswerError, Stopped):
            self._give_up(gen)
            raise

    def _give_up(self, gen: Steps[T]) -> None:
        """Let the server end what nobody waits for any more, if it can be reached."""
        limit_s = LAST_ANSWER_TIMEOUT_S
        with suppress(psycopg.Error), ending():
            self.cancel_safe(timeout=CANCEL_TIMEOUT_S)
            drive(gen, self.pgconn.socket, limit_s=limit_s)
        if self.pgconn.transaction_status == pq.TransactionStatus.ACTIVE:
            self.close()


class Keeper(threading.local):
    """
    What a thread of a fleet has from the targets before; nothing elsewhere.

    ``take`` returns a connection that was opened with these parameters, and is as good
    as new unless it may be held, and ``drop`` closes all that there are. ``scram`` is
    what is known of logins. See ``spares``.
    """

    take: Callable[[Mapping[str, str], bool], LimitedConnection | None] = staticmethod(
        lambda _opened_with, _may_be_held: None
    )
    drop: Callable[[], None] = staticmethod(lambda: None)
    scram: Memory | None = None


keeper: Final = Keeper()


class NotReadyError(Exception):
    """
    The database cannot be used yet.

    ``error`` is what closes the gate when the wait ends like this; None for an error
    made from the cause. ``address`` has host, hostaddr and port of the server, as far
    as they are known. Where several servers were tried, ``cause`` is the one that
    decides, ``causes`` are all, and ``pace`` is the slowest of theirs.
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
        self.pace = cause.pace
        self.causes = frozenset({cause})

    @property
    def sqlstate(self) -> str | None:
        """Return the SQLSTATE with which the server refused; None where none came."""
        refusal = self.error
        return refusal.sqlstate if isinstance(refusal, ServerRefusedError) else None


@contextmanager
def limited(
    conn: LimitedConnection, timeout_s: float = ANSWER_TIMEOUT_S
) -> Iterator[None]:
    """
    Wait for an answer no longer than this.

    Raises:
        NoAnswerError: It took longer, and is cancelled.
    """
    before, conn.answer_timeout_s = conn.answer_timeout_s, timeout_s
    try:
        yield
    finally:
        conn.answer_timeout_s = before


def read_secret_file(path: str) -> str:
    """Return a file's text as it is. Raises OSError, UnicodeDecodeError."""
    return Path(path).read_bytes().decode()


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
    raise _to_one(failures)


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
        return _open(server, until_s, database.login)
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
        conn = _open(plain, until_s, database.login)
        with limited(conn):
            if holds(conn, beside.session):
                return conn
        conn.close()
        raise


def _open(
    server: Mapping[str, str] | OSError, until_s: float | None, login: Login
) -> LimitedConnection:
    """Connect to one server, within what is left of the wait."""
    if isinstance(server, OSError):
        raise NotReadyError(find_cause(str(server)), str(server)) from server
    known = server if login == "password" else with_token(login, server, until_s)
    now = time.monotonic()
    timeout_s = float(server["connect_timeout"])
    if until_s is not None:
        timeout_s = min(timeout_s, max(until_s - now, CONNECT_TIMEOUT_MIN_S))
    try:
        pgconn = _dial(known, now + timeout_s)
    except DialError as error:
        text, cause = str(error), find_cause(str(error))
        if login != "password" and (cause.kind == "refused" or cause is UNKNOWN):
            _forget_token(login, server)
        if cause is CLIENT_CERTIFICATE and not server.get("sslcert"):
            cause = HOME_UNREADABLE
        raise NotReadyError(cause, shorten_text(text), address=error.address) from error
    conn = LimitedConnection(pgconn)
    conn.until_s = until_s
    conn.autocommit = True
    conn.prepare_threshold = None
    return conn


def _dial(parameters: Mapping[str, str], until_s: float) -> pq.abc.PGconn:
    """Connect to one server; a fleet does not hash the same password again."""
    memory = keeper.scram
    if memory is None:
        return dial(parameters, until_s=until_s)
    keys = memory.keys(parameters)
    if keys:
        try:
            return dial({**parameters, **keys}, until_s=until_s)
        except DialError as error:
            cause = find_cause(str(error))
            if cause.kind != "refused" and cause is not UNKNOWN:
                raise
            memory.forget(parameters)
    if not memory.is_to_be_watched(parameters):
        return dial(parameters, until_s=until_s)
    with memory.watching(parameters) as trace:
        return dial(parameters, until_s=until_s, trace=trace, shows_login=True)


def with_token(
    login: Login, server: Mapping[str, str], until_s: float | None
) -> dict[str, str]:
    """Add a token; that none is given is "not yet", or a refused login."""
    from migration_gate.connection.login.answers import (  # noqa: PLC0415  # for few
        NoTokenError,
    )
    from migration_gate.connection.login.tokens import add_token  # noqa: PLC0415

    try:
        return add_token(login, server, until_s=until_s)
    except NoTokenError as error:
        text, told = str(error), f"could not log in: {error}"
        if error.is_refused:
            refusal = LoginRefusedError(told, hint=error.remedy)
            raise NotReadyError(IDENTITY_REFUSED, text, refusal) from error
        away = DatabaseUnreachableError(told, hint=error.remedy)
        not_yet = NotReadyError(IDENTITY_AWAY, text, away)
        not_yet.pace = IDENTITY_AWAY.pace.no_faster_than(error.again_in_s)
        raise not_yet from error


def _forget_token(login: Login, server: Mapping[str, str]) -> None:
    from migration_gate.connection.login.tokens import forget_token  # noqa: PLC0415

    forget_token(login, server)


def _address(server: Mapping[str, str]) -> dict[str, str]:
    keywords = ("host", "hostaddr", "port")
    return {keyword: server[keyword] for keyword in keywords if server.get(keyword)}


def _to_one(failures: Sequence[NotReadyError]) -> NotReadyError:
    """Return the failure that decides, with the words of all."""
    if len(failures) == 1:
        return failures[0]
    addresses = [(f.address.get("host"), f.address.get("port")) for f in failures]
    causes = [failure.cause for failure in failures]
    chosen = failures[decide(list(zip(addresses, causes, strict=True)))]
    told = NotReadyError(
        chosen.cause,
        "; ".join(dict.fromkeys(_with_address(failure) for failure in failures)),
        chosen.error,
        address=chosen.address,
    )
    told.causes = frozenset(failure.cause for failure in failures)
    told.pace = max(failure.pace for failure in failures)
    told.__cause__ = chosen
    return told


def _with_address(failure: NotReadyError) -> str:
    """Say where it was, unless libpq did."""
    text, host = str(failure), failure.address.get("host")
    if host is None or text.startswith("connection to server"):
        return text
    return f'"{host}:{failure.address.get("port", "5432")}": {text}'


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


@contextmanager
def asking(
    conn: LimitedConnection,
    doing: str,
    *,
    timeout_s: float = ANSWER_TIMEOUT_S,
    full: bool = False,
) -> Iterator[None]:
    """
    Turn the driver's error for a question at the start into NotReadyError.

    No answer for long is one: a pooler takes the login while its server is away, and
    another session may lock the table. What the server refuses may come right, as a
    right that is being granted does.

    Args:
        doing: What is asked for, as in "could not ...".
        full: GATE_LOG_DETAIL=full, PostgreSQL's words as they are.
    """
    if conn.until_s is not None:
        left_s = max(conn.until_s - time.monotonic(), ANSWER_TIMEOUT_MIN_S)
        timeout_s = min(timeout_s, left_s)
    try:
        with limited(conn, timeout_s), awaiting(lambda: doing):
            yield
    except NoAnswerError as error:
        raise NotReadyError(NO_ANSWER, f"logged in, but {error}") from error
    except psycopg.Error as error:
        raise _to_no_answer(conn, to_outcome(doing, error, full=full)) from error


def _to_no_answer(conn: LimitedConnection, outcome: Exception) -> Exception:
    """Return what keeps a question at the start from its answer as "not yet"."""
    if isinstance(outcome, ConnectionLostError):
        said, sqlstate = outcome.words, outcome.sqlstate or ""
        cause = BY_SQLSTATE.get(sqlstate) or find_cause(said)
        return NotReadyError(cause, shorten_text(said), address=address_of(conn.pgconn))
    if isinstance(outcome, RefusedForNowError):
        refusal = outcome.refusal
        return NotReadyError(NOT_NOW, refusal.message, refusal)
    if isinstance(outcome, ServerRefusedError):
        cause = NO_RIGHT if outcome.sqlstate == "42501" else STATEMENT_REFUSED
        return NotReadyError(cause, outcome.message, outcome)
    return outcome


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
