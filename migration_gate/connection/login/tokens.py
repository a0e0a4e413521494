"""
A token for each connection: fresh at that moment, or cached while it is good for long.

Loads the provider's SDK when it is first asked. A token that a server has refused is
not used again.
"""

from __future__ import annotations

import importlib
import logging
import os
import threading
import time

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from migration_gate.connection.login.answers import NoTokenError, Token, not_answered
from migration_gate.connection.waits import awaiting, is_ready
from migration_gate.report.errors import SettingFault, SettingsError
from migration_gate.settings.sources import Login


# A login that takes long must not end with a token that has expired meanwhile.
GOOD_FOR_S: Final = 300.0
# What one question may take, all of it; the wait asks again.
ANSWER_TIMEOUT_S: Final = 10.0
ANSWER_TIMEOUT_MIN_S: Final = 1.0


class Provider(NamedTuple):
    """Whose identity it is: our module, and what of the SDK must be there."""

    module: str
    sdk: tuple[str, ...]
    package: str
    loggers: tuple[str, ...]


PROVIDERS: Final[Mapping[Login, Provider]] = MappingProxyType(
    {
        "azure": Provider(
            module="azure",
            sdk=("azure.identity",),
            package="azure-identity",
            loggers=("azure", "msal", "urllib3"),
        ),
        "aws": Provider(
            module="aws",
            sdk=("botocore.session", "botocore.signers"),
            package="botocore",
            loggers=("botocore", "urllib3"),
        ),
        "google": Provider(
            module="google",
            sdk=("google.auth", "google.auth.transport.requests"),
            package="google-auth",
            loggers=("google", "urllib3"),
        ),
    }
)

Key = tuple[Login, str, str, str]
_tokens: dict[Key, Token] = {}
_asking: Final = threading.Lock()


@cache
def require_sdk(login: Login) -> None:
    """Load what asks for tokens, once. Raises SettingsError where it is not here."""
    if login == "password":
        return
    provider = PROVIDERS[login]
    for name in provider.loggers:
        # What an SDK logs holds whole answers, and goes to stderr where nobody listens.
        logger = logging.getLogger(name)
        logger.propagate = False
        logger.addHandler(logging.NullHandler())
        logger.setLevel(logging.CRITICAL)
    try:
        for name in provider.sdk:
            importlib.import_module(name)
    except ImportError as error:
        fault = SettingFault(
            name="GATE_LOGIN",
            rule=f"asks for {login}, and {provider.package} is not installed here",
            remedy=f"Use the image that is built with --build-arg EXTRAS={login}; "
            f"elsewhere install migration-gate[{login}].",
        )
        raise SettingsError([fault]) from error


def add_token(
    login: Login, server: Mapping[str, str], *, until_s: float | None = None
) -> dict[str, str]:
    """
    Return the parameters of one server, with a token for the password.

    Raises:
        NoTokenError: None was given.
        SettingsError: The image lacks the SDK, or what it needs is not set.
    """
    if login == "password":
        return dict(server)
    left_s = ANSWER_TIMEOUT_S if until_s is None else until_s - time.monotonic()
    timeout_s = max(min(left_s, ANSWER_TIMEOUT_S), ANSWER_TIMEOUT_MIN_S)
    key = _key(login, server)
    with _alone(login, timeout_s):
        token = _tokens.get(key)
        if token is None or token.expires_s - time.monotonic() < GOOD_FOR_S:
            token = _tokens[key] = _ask(login, server, timeout_s)
    return {**server, "password": token.text}


@contextmanager
def _alone(login: Login, timeout_s: float) -> Iterator[None]:
    """Let targets of a fleet ask one after the other: what one gets serves the next."""
    if not _asking.acquire(timeout=timeout_s):
        raise not_answered(_load(login).asked(), "others wait for it too")
    try:
        yield
    finally:
        _asking.release()


def forget_token(login: Login, server: Mapping[str, str]) -> None:
    """Let the next connection ask for a new one: the server has refused this."""
    _tokens.pop(_key(login, server), None)


def _key(login: Login, server: Mapping[str, str]) -> Key:
    """Return what a token is good for."""
    return (
        login,
        server.get("host", ""),
        server.get("port") or "5432",
        server.get("user", ""),
    )


def _load(login: Login) -> Any:  # noqa: ANN401  # one of the three beside this
    name = f"migration_gate.connection.login.{PROVIDERS[login].module}"
    return importlib.import_module(name)


def _ask(login: Login, server: Mapping[str, str], timeout_s: float) -> Token:
    require_sdk(login)
    provider = _load(login)
    with awaiting(lambda: f"get a token of {login}"):
        token = _ask_apart(lambda: provider.fetch(server, timeout_s), timeout_s)
    if token is None:
        raise not_answered(provider.asked(), f"not whole within {timeout_s:.0f} s")
    if not token.text or "\0" in token.text:
        raise NoTokenError(
            "the identity's token is empty", "Ask again.", is_refused=False
        )
    return token


def _ask_apart(question: Callable[[], Token], timeout_s: float) -> Token | None:
    """
    Put a question in a thread, and wait for its answer; None where it takes too long.

    An SDK limits each of its reads, not all of them: a byte a second may go on for
    ever. And while the resolver is asked, no handler of a signal runs.
    """
    answers: list[Token | Exception] = []
    reading, writing = os.pipe()

    def ask() -> None:
        try:
            answers.append(question())
        except Exception as error:  # noqa: BLE001  # it is raised below
            answers.append(error)
        finally:
            os.close(writing)

    threading.Thread(target=ask, name="ask-for-token", daemon=True).start()
    try:
        if not is_ready(reading, wait_s=timeout_s):
            return None
    finally:
        os.close(reading)
    (answer,) = answers
    if isinstance(answer, Exception):
        raise answer
    return answer
