"""
The database cannot be used yet: one error, with the cause that decides.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from migration_gate.connection.causes import (
    CONNECTION_REFUSED,
    NO_IPV6,
    NO_ROUTE,
    NO_SOCKET,
    READ_ONLY,
    STANDBY,
    TIMEOUT,
    WRONG_KIND,
    Cause,
    Kind,
)
from migration_gate.report.errors import GateError, ServerRefusedError


ORDER_OF_KINDS: Final[Mapping[Kind, int]] = MappingProxyType(
    {"away": 0, "early": 0, "refused": 1, "local": 2}
)
NETWORK: Final = (CONNECTION_REFUSED, TIMEOUT, NO_IPV6, NO_ROUTE, NO_SOCKET)
OTHER_KIND: Final = (STANDBY, READ_ONLY, WRONG_KIND)


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


def to_one(failures: Sequence[NotReadyError]) -> NotReadyError:
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


def decide(failures: Sequence[tuple[Hashable, Cause]]) -> int:
    """
    Return which of several failures decides: each a host, and the cause at an address.

    Of a host's addresses those that nobody answers at count only where none does (::1
    beside 127.0.0.1), and servers that are as they should be, but cannot be written,
    only where there is nothing else. Of the rest the one decides that waiting helps
    most.
    """
    answered = {host for host, cause in failures if cause not in NETWORK}
    indexes = [
        index
        for index, (host, cause) in enumerate(failures)
        if cause not in NETWORK or host not in answered
    ]
    others = [index for index in indexes if failures[index][1] not in OTHER_KIND]
    return min(others or indexes, key=lambda index: _helped(failures[index][1]))


def _helped(cause: Cause) -> tuple[int, bool]:
    """Return how little waiting helps; of a host with an IPv4 address, that decides."""
    return ORDER_OF_KINDS[cause.kind], cause is NO_IPV6
