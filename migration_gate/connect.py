"""
Wait for PostgreSQL: secrets read at each attempt, one deadline, one log hook.

Opens connections; reads nothing but the files that hold the settings of one.
"""

from __future__ import annotations

import random
import time

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import psycopg

from migration_gate import __version__
from migration_gate.causes import Cause, find_cause, shorten_text
from migration_gate.database import (
    DatabaseSettings,
    connection_parameters,
    shown,
)
from migration_gate.errors import (
    DatabaseUnreachableError,
    GateError,
    LoginRefusedError,
    SettingFault,
    SettingsError,
)
from migration_gate.logs import DATABASE_RETRY_SCHEDULED, Log


CONNECTION_DEFAULTS: Final = {
    "connect_timeout": "5",
    "keepalives": "1",
    "keepalives_idle": "20",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "50000",  # milliseconds
}
APPLICATION_NAME: Final = f"migration-gate/{__version__}"
FIRST_WAIT_S: Final = 0.05
LONGEST_WAIT_S: Final = 1.0
REFUSED_WAIT_S: Final = 2.0
WAIT_PER_WAITED: Final = 0.03

T = TypeVar("T")


class NotReadyError(Exception):
    """
    Connected, but not usable yet: read-only, or not all applied.

    ``error`` is what closes the gate when the wait ends like this; None for the error
    that says that the database could not be reached.
    """

    def __init__(self, cause: Cause, text: str, error: GateError | None = None) -> None:
        super().__init__(text)
        self.cause = cause
        self.error = error


def read_secret_file(path: str) -> str:
    """Return a file's text. Raises OSError, or UnicodeDecodeError."""
    return Path(path).read_text(encoding="utf-8")


def current_parameters(database: DatabaseSettings) -> dict[str, str]:
    """Return libpq's parameters, the files read afresh. Raises SettingsError."""
    return connection_parameters(database, read_secret_file)


def open_connection(database: DatabaseSettings) -> psycopg.Connection[Any]:
    """
    Connect once, in autocommit.

    client_encoding goes with the start-up packet, as psql sends it; no other setting
    does, since poolers refuse them.

    Raises:
        SettingsError: A file cannot be read, or what it holds is malformed.
        psycopg.Error: The connection failed.
    """
    parameters: dict[str, Any] = {
        **CONNECTION_DEFAULTS,
        **current_parameters(database),
        "client_encoding": "UTF8",
        "application_name": APPLICATION_NAME,
    }
    return psycopg.Connection.connect(
        **parameters, autocommit=True, prepare_threshold=None
    )


@dataclass(slots=True)
class Patience:
    """
    How long one wait has lasted, what it last met, and when it ends.

    Times are those of the monotonic clock, in seconds.
    """

    database: DatabaseSettings
    timeout_s: float
    grace_s: float
    heartbeat_s: float
    log: Log
    started_s: float = field(default_factory=time.monotonic)
    attempts: int = 0
    refused_since_s: float | None = None
    last_reason: str = ""
    last_logged_s: float = float("-inf")

    @property
    def waited_s(self) -> float:
        """Return the seconds since the wait began."""
        return time.monotonic() - self.started_s

    def note(self, error: BaseException) -> Cause:
        """Count a failed attempt and tell what it means."""
        cause = _cause_of(error)
        self.attempts += 1
        if cause.kind != "refused":
            self.refused_since_s = None
        elif self.refused_since_s is None:
            self.refused_since_s = time.monotonic()
        return cause

    def next_wait_s(self, cause: Cause) -> float:
        """Return a pause in proportion to the time waited, jittered."""
        wait_s = min(max(FIRST_WAIT_S, self.waited_s * WAIT_PER_WAITED), LONGEST_WAIT_S)
        if cause.kind == "refused":
            wait_s = REFUSED_WAIT_S
        return wait_s * random.uniform(1.0, 1.2)  # noqa: S311  # jitter, not a secret

    def is_over(self, cause: Cause, wait_s: float) -> bool:
        """Tell whether another attempt after this pause would come too late."""
        if cause.kind == "local" or self.waited_s + wait_s > self.timeout_s:
            return True
        return (
            self.refused_since_s is not None
            and time.monotonic() + wait_s - self.refused_since_s > self.grace_s
        )

    def report(self, cause: Cause, error: BaseException, wait_s: float) -> None:
        """Log the first attempt, each change of reason, and then now and again."""
        now = time.monotonic()
        if (
            cause.reason == self.last_reason
            and now - self.last_logged_s < self.heartbeat_s
        ):
            return
        self.last_reason, self.last_logged_s = cause.reason, now
        self.log.emit(
            DATABASE_RETRY_SCHEDULED,
            attempt=self.attempts,
            wait_s=round(wait_s, 3),
            waited_s=round(self.waited_s, 3),
            reason=cause.reason,
            error_message=shorten_text(str(error)),
        )


def wait_for(
    attempt: Callable[[], T],
    patience: Patience,
    *,
    before_waiting: Callable[[], None] = lambda: None,
) -> T:
    """
    Repeat an attempt until it succeeds.

    Args:
        attempt: Connects and looks; raises psycopg.Error or NotReadyError for "not
            yet", anything else for "never".
        before_waiting: Called once, when the first attempt has failed.

    Raises:
        DatabaseUnreachableError: Not usable before the deadline.
        LoginRefusedError: Refused for longer than the grace.
        SettingsError: Waiting cannot help.
    """
    try:
        return attempt()
    except (psycopg.OperationalError, NotReadyError, psycopg.ProgrammingError) as error:
        first = error
    before_waiting()
    return _keep_trying(attempt, patience, first)


def _keep_trying(
    attempt: Callable[[], T], patience: Patience, first: BaseException
) -> T:
    import tenacity  # noqa: PLC0415  # costs start-up time, and most runs never wait

    causes = [patience.note(first)]
    failures = [first]

    def try_again() -> T:
        if failures and failures[0] is first:
            failures.clear()
            raise first
        return attempt()

    def wait(state: tenacity.RetryCallState) -> float:
        error = _error_of(state)
        if error is not first:
            causes[0] = patience.note(error)
        return patience.next_wait_s(causes[0])

    def stop(state: tenacity.RetryCallState) -> bool:
        return patience.is_over(causes[0], state.upcoming_sleep)

    def report(state: tenacity.RetryCallState) -> None:
        patience.report(causes[0], _error_of(state), state.upcoming_sleep)

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(
            (psycopg.OperationalError, psycopg.ProgrammingError, NotReadyError)
        ),
        wait=wait,
        stop=stop,
        before_sleep=report,
        reraise=True,
    )
    try:
        return retrying(try_again)
    except (psycopg.OperationalError, psycopg.ProgrammingError, NotReadyError) as error:
        raise _give_up(causes[0], error, patience) from error


def _error_of(state: Any) -> BaseException:
    error = state.outcome.exception()
    assert error is not None  # noqa: S101  # tenacity asks only after a failure
    return error  # type: ignore[no-any-return]  # tenacity's future is untyped


def _cause_of(error: BaseException) -> Cause:
    if isinstance(error, NotReadyError):
        return error.cause
    return find_cause(str(error))


def _give_up(cause: Cause, error: BaseException, patience: Patience) -> GateError:
    if isinstance(error, NotReadyError) and error.error is not None:
        return error.error
    text = shorten_text(str(error))
    address = shown(current_parameters(patience.database))
    where = f'"{address["host"]}:{address["port"]}"'
    if cause.kind == "local":
        if cause.reason.startswith("certificate"):
            return DatabaseUnreachableError(
                f"cannot trust PostgreSQL at {where}: {text}", hint=cause.remedy
            )
        fault = SettingFault(
            name="connection", rule=f"cannot work: {text}", remedy=cause.remedy
        )
        return SettingsError([fault])
    tried = f"{patience.attempts} attempts in {patience.waited_s:.0f} s"
    if cause.kind == "refused":
        return LoginRefusedError(
            f"PostgreSQL at {where} refuses the connection ({tried}): {text}",
            hint=cause.remedy,
        )
    return DatabaseUnreachableError(
        f"could not reach a usable PostgreSQL at {where} ({tried}): {text}",
        hint=cause.remedy,
    )
