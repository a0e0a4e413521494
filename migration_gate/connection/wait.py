"""
Wait for PostgreSQL: one deadline, one log hook.

Repeats what it is given; opens no connection itself.
"""

from __future__ import annotations

import random
import time

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final, TypeVar

from migration_gate.connection.causes import (
    BY_SQLSTATE,
    DENSE,
    LOGIN_OR_HBA,
    LOGIN_REFUSED,
    SECRET_FILE,
    SERVER_AWAY,
    SERVER_REFUSAL,
    UNKNOWN,
    Cause,
)
from migration_gate.connection.connect import current_parameters, name_address
from migration_gate.connection.not_ready import NotReadyError
from migration_gate.connection.opening import with_token
from migration_gate.connection.remedies import (
    POOLED_LOGIN,
    TOKEN_REMEDIES,
    name_in_remedy,
    trust_remedy,
)
from migration_gate.connection.sqlstate import ask_sqlstate
from migration_gate.connection.waits import Halt, halting, pause, what_is_done
from migration_gate.report.errors import (
    DatabaseUnreachableError,
    GateError,
    LoginRefusedError,
    SettingFault,
    SettingsError,
)
from migration_gate.report.events import DATABASE_RETRY_SCHEDULED
from migration_gate.report.log import Log
from migration_gate.settings.database import doubts
from migration_gate.settings.sources import DatabaseSettings


JITTER: Final = 1.2
# Between the choice of a last pause and the question whether it is too long.
ROUNDING_S: Final = 0.01
LABELS_MAX: Final = 5
SEVERITY: Final = "FATAL:"

T = TypeVar("T")


class Patience:
    """
    How long one wait has lasted, what it last met, and when it ends.

    Times are those of the monotonic clock, in seconds.
    """

    def __init__(
        self,
        database: DatabaseSettings,
        log: Log,
        *,
        timeout_s: float,
        grace_s: float,
        heartbeat_s: float,
    ) -> None:
        self.database = database
        self.timeout_s = timeout_s
        self.grace_s = grace_s
        self.heartbeat_s = heartbeat_s
        self.log = log
        self.started_s = time.monotonic()
        self.attempts = 0
        self.address = ""
        self.cause = UNKNOWN
        self.pace = DENSE
        self.refused_since_s: float | None = None
        self.said = ""
        self.so_far = ""  # what had been done before, which a stop tells
        self._labels: dict[str, Cause] = {}
        self._logged_reason = ""
        self._logged_s = float("-inf")

    @property
    def waited_s(self) -> float:
        """Return the seconds since the wait began."""
        return time.monotonic() - self.started_s

    @property
    def until_s(self) -> float | None:
        """Return when an attempt has to be over; None for one that is made anyway."""
        return self.started_s + self.timeout_s if self.timeout_s else None

    @property
    def tried(self) -> str:
        """Return how often and how long it was tried, in words."""
        attempts = f"{self.attempts} attempt" + "s" * (self.attempts != 1)
        return f"{attempts} in {self.waited_s:.0f} s"

    def halt(self) -> Halt:
        """Say what a stop interrupts: at first that may be the question for a token."""
        doing = what_is_done()
        if doing and not self.said and self.database.login != "password":
            return Halt(f"had waited {self.waited_s:.1f} s to {doing}")
        where = f"a usable PostgreSQL at {self.address}"
        at = where if self.address else "the database"
        found = f" ({self.tried}): {self.said}" if self.said else ""
        so_far = f"; {self.so_far}" if self.so_far else ""
        return Halt(
            f"had waited {self.waited_s:.1f} s for {at}{found}{so_far}",
            remedy=_remedy(self) if self.said else "",
        )

    def note(self, error: NotReadyError) -> None:
        """Count a failed attempt and find what it means."""
        self.attempts += 1
        with suppress(SettingsError):  # a file that is not there yet
            self.address = self.address or name_address(
                current_parameters(self.database)
            )
        self.cause, self.pace, self.said = error.cause, error.pace, str(error)
        if error.cause is UNKNOWN and error.address:
            self.cause = self._label(str(error), error.address)
            self.pace = max(self.cause.pace, error.pace)
        if self.cause.kind != "refused":
            self.refused_since_s = None
        elif self.refused_since_s is None:
            self.refused_since_s = time.monotonic()

    def next_wait_s(self) -> float:
        """
        Return a pause in proportion to the time waited, jittered.

        The last one ends with the wait, so that what comes late is not missed.
        """
        pace = self.pace
        wait_s = min(max(pace.first_s, self.waited_s * pace.per_waited), pace.longest_s)
        wait_s *= random.uniform(1.0, JITTER)  # noqa: S311  # not a secret
        left_s = self.timeout_s - self.waited_s
        return min(wait_s, left_s) if left_s > pace.first_s else wait_s

    def is_over(self, wait_s: float) -> bool:
        """Tell whether another attempt after this pause would come too late."""
        end_s = self.timeout_s + ROUNDING_S
        if self.cause.kind == "local" or self.waited_s + wait_s > end_s:
            return True
        return (
            self.refused_since_s is not None
            and time.monotonic() + wait_s - self.refused_since_s > self.grace_s
        )

    def report(self, error: BaseException, wait_s: float) -> None:
        """Log the first failure, each change of reason, and then now and again."""
        now = time.monotonic()
        is_old = self.cause.reason == self._logged_reason
        if is_old and now - self._logged_s < self.heartbeat_s:
            return
        self._logged_reason, self._logged_s = self.cause.reason, now
        self.log.emit(
            DATABASE_RETRY_SCHEDULED,
            attempt=self.attempts,
            wait_s=round(wait_s, 3),
            waited_s=round(self.waited_s, 3),
            reason=self.cause.reason,
            error_message=str(error),
        )

    def _label(self, text: str, address: Mapping[str, str]) -> Cause:
        """Ask once for what a text in another language means."""
        if text not in self._labels and len(self._labels) < LABELS_MAX:
            sqlstate = None
            with suppress(SettingsError, NotReadyError):
                parameters = {**current_parameters(self.database), **address}
                login = self.database.login
                if login != "password":
                    parameters = with_token(login, parameters, self.until_s)
                sqlstate = ask_sqlstate(parameters)
            has_answered = sqlstate is not None or SEVERITY in text
            unknown = SERVER_REFUSAL if has_answered else UNKNOWN
            self._labels[text] = BY_SQLSTATE.get(sqlstate or "", unknown)
        return self._labels.get(text, UNKNOWN)


def wait_for(
    attempt: Callable[[], T],
    patience: Patience,
    *,
    before_waiting: Callable[[], None] = lambda: None,
) -> T:
    """
    Repeat an attempt until it succeeds.

    Args:
        attempt: Connects and looks; raises NotReadyError for "not yet", anything else
            for "never".
        before_waiting: Called once, when the first attempt has failed.

    Raises:
        DatabaseUnreachableError: Not usable before the deadline.
        LoginRefusedError: Refused for longer than the grace.
        SettingsError: Waiting cannot help.
    """
    with halting(patience.halt):
        try:
            return _try(attempt, patience, is_first=True)
        except NotReadyError as error:
            first = error
        before_waiting()
        try:
            return _keep_trying(attempt, patience, first)
        except NotReadyError as error:
            raise _closing_error(error, patience) from error


def _try(attempt: Callable[[], T], patience: Patience, *, is_first: bool) -> T:
    """
    Try once; a secret's file that is not there, or is empty, counts as refused.

    Who writes it may come later. Who rotates it may write it anew, and for a moment
    it is anything: after the first attempt whatever is wrong with it may pass.
    """
    try:
        return attempt()
    except NotReadyError as error:
        patience.note(error)
        raise
    except SettingsError as error:
        if is_first and not error.may_come:
            raise
        missed = NotReadyError(SECRET_FILE, str(error), error)
        patience.note(missed)
        raise missed from error


def _keep_trying(
    attempt: Callable[[], T], patience: Patience, first: NotReadyError
) -> T:
    """Go on after a first attempt, which was made before tenacity was loaded."""
    import tenacity  # noqa: PLC0415  # costs start-up time, and most runs never wait

    def report(state: tenacity.RetryCallState) -> None:
        assert state.outcome is not None  # noqa: S101  # tenacity has set it
        error = state.outcome.exception()
        assert error is not None  # noqa: S101  # it waits only after a failure
        patience.report(error, state.upcoming_sleep)

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(NotReadyError),
        wait=lambda _: patience.next_wait_s(),
        stop=lambda state: patience.is_over(state.upcoming_sleep),
        before_sleep=report,
        sleep=pause,
        reraise=True,
    )
    for turn in retrying:
        with turn:
            if turn.retry_state.attempt_number == 1:
                raise first
            return _try(attempt, patience, is_first=False)
    raise first


def _doubts(patience: Patience) -> str:
    with suppress(SettingsError):
        return doubts(current_parameters(patience.database))
    return ""


def _remedy(patience: Patience) -> str:
    """Return the remedy; where a token was refused, what the cloud's role lacks."""
    cause, login = patience.cause, patience.database.login
    if cause in (LOGIN_REFUSED, LOGIN_OR_HBA):
        lacks = TOKEN_REMEDIES.get(login)
        return f"{lacks} {POOLED_LOGIN}" if lacks else cause.remedy
    parameters: Mapping[str, str] = {}
    with suppress(SettingsError):
        parameters = current_parameters(patience.database)
    return name_in_remedy(cause.remedy, parameters)


def _closing_error(error: NotReadyError, patience: Patience) -> GateError:
    if isinstance(error.error, SettingsError):
        return error.error
    if error.error is not None:
        return error.error.noted(patience.tried)
    cause, text, address = patience.cause, str(error), patience.address
    login = patience.database.login
    if cause.kind == "local" and cause.reason.startswith("certificate"):
        hosts = error.address.get("host", "").split(",")
        return DatabaseUnreachableError(
            f"cannot trust PostgreSQL at {address}: {text}",
            hint=trust_remedy(cause, hosts, login),
        )
    if cause.kind == "local":
        fault = SettingFault(
            name="connection", rule=f"cannot work: {text}", remedy=cause.remedy
        )
        return SettingsError([fault])
    if cause.kind == "refused":
        return LoginRefusedError(
            f"PostgreSQL at {address} refuses the connection ({patience.tried}): "
            f"{text}",
            hint=f"{_doubts(patience)} {_remedy(patience)}".lstrip(),
        )
    unreachable = DatabaseUnreachableError(
        f"could not reach a usable PostgreSQL at {address} ({patience.tried}): {text}",
        hint=_remedy(patience),
    )
    unreachable.is_server_away = cause in SERVER_AWAY
    return unreachable
