"""
Open a session on one server, with a token or what a fleet knows of the password.
"""

from __future__ import annotations

import threading
import time

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from psycopg import pq

from migration_gate.connection.causes import (
    CLIENT_CERTIFICATE,
    HOME_UNREADABLE,
    IDENTITY_AWAY,
    IDENTITY_REFUSED,
    UNKNOWN,
)
from migration_gate.connection.dialing import DialError, dial
from migration_gate.connection.limited import LimitedConnection
from migration_gate.connection.not_ready import NotReadyError
from migration_gate.connection.texts import find_cause, shorten_text
from migration_gate.report.errors import DatabaseUnreachableError, LoginRefusedError
from migration_gate.settings.sources import Login


if TYPE_CHECKING:
    from migration_gate.connection.scram import Memory

# What an attempt at the very end of a wait has.
CONNECT_TIMEOUT_MIN_S: Final = 1.0


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


def open_on(
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
