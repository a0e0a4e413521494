"""
What SCRAM derives from a password, kept by a fleet from one login to the next.

libpq hashes the password anew for each login, some 4,096 rounds of it, which takes the
client more than all else that a short connection does. Since 18 it takes the keys as
they are, to which that leads; the salt is what a server tells whoever begins a login,
and libpq's trace of the first ones shows it. Keys are in memory alone, as the password
is. Poolers may have another salt for each login: two logins have to show the same.
"""

from __future__ import annotations

import base64
import hmac
import os
import re
import threading

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final, NamedTuple

from psycopg import pq


TAKES_KEYS_MIN_VERSION: Final = 180000
SALT: Final = re.compile(
    rb"AuthenticationSASLContinue\t '[^\n]*?,s=([A-Za-z0-9+/=]+),i=(\d+)"
)
# What a login is told apart by: keys are those of a role on a server.
ROUNDS_MAX: Final = 100_000
LOGIN: Final = ("host", "hostaddr", "port", "user", "password")
TRACE_BYTES_MAX: Final = 1 << 16
Login = tuple[str | None, ...]


class Secret(NamedTuple):
    """The salt of a login, and what the password leads to with it."""

    salt: bytes
    rounds: int
    keys: Mapping[str, str]


class Memory:
    """
    The keys of logins; used by many threads.

    A login for which another salt was shown, or that was refused, has none again.
    """

    def __init__(self) -> None:
        self._seen: dict[Login, tuple[Secret | None, int]] = {}
        self._lock = threading.Lock()

    def keys(self, parameters: Mapping[str, str]) -> Mapping[str, str]:
        """Return libpq's parameters for a login; none where it is not known well."""
        secret, count = self._seen.get(_to_login(parameters), (None, 0))
        return secret.keys if secret is not None and count > 1 else {}

    def is_to_be_watched(self, parameters: Mapping[str, str]) -> bool:
        """Return whether something may be learned from the next login."""
        password = parameters.get("password", "")
        # Of others libpq hashes a form that it makes first (SASLprep).
        may_be = password.isascii() and password.isprintable() and bool(password)
        secret, count = self._seen.get(_to_login(parameters), (None, 0))
        is_over = count > 1 or (secret is None and count > 0)
        return (
            may_be
            and not is_over
            and pq.version() >= TAKES_KEYS_MIN_VERSION
            and hasattr(os, "memfd_create")  # Linux has it
        )

    @contextmanager
    def watching(self, parameters: Mapping[str, str]) -> Iterator[int]:
        """Give a file for libpq's trace of a login, and learn from it, if it worked."""
        trace = os.memfd_create("trace")
        try:
            yield trace
            os.lseek(trace, 0, os.SEEK_SET)
            self._learn(parameters, os.read(trace, TRACE_BYTES_MAX))
        finally:
            os.close(trace)

    def forget(self, parameters: Mapping[str, str]) -> None:
        """Use no keys for this login again."""
        with self._lock:
            self._seen[_to_login(parameters)] = None, 1

    def _learn(self, parameters: Mapping[str, str], trace: bytes) -> None:
        found = SALT.search(trace)
        if found is None:  # another way to log in, or none
            self.forget(parameters)
            return
        salt, rounds = base64.b64decode(found[1]), int(found[2])
        with self._lock:
            secret, count = self._seen.get(_to_login(parameters), (None, 0))
            if secret is None and count == 0 and rounds <= ROUNDS_MAX:
                keys = derive(parameters["password"], salt, rounds)
                secret = Secret(salt, rounds, keys)
            if secret is None or (secret.salt, secret.rounds) != (salt, rounds):
                secret, count = None, 0
            self._seen[_to_login(parameters)] = secret, count + 1


def derive(password: str, salt: bytes, rounds: int) -> dict[str, str]:
    """
    Return what libpq takes in place of a password: RFC 5802, section 3.

    Args:
        password: ASCII.
        salt: As the server has it.
        rounds: How often it is hashed.
    """
    salted = _hash(password.encode(), salt, rounds)
    return {
        keyword: base64.b64encode(hmac.digest(salted, label, "sha256")).decode()
        for keyword, label in (
            ("scram_client_key", b"Client Key"),
            ("scram_server_key", b"Server Key"),
        )
    }


def _hash(password: bytes, salt: bytes, rounds: int) -> bytes:
    """Hash as PBKDF2 does, which hashlib has from OpenSSL alone: not in the image."""
    block = hmac.digest(password, salt + b"\0\0\0\1", "sha256")
    salted = int.from_bytes(block)
    for _ in range(rounds - 1):
        block = hmac.digest(password, block, "sha256")
        salted ^= int.from_bytes(block)
    return salted.to_bytes(len(block))


def _to_login(parameters: Mapping[str, str]) -> Login:
    return tuple(parameters.get(keyword) for keyword in LOGIN)
