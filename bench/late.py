"""
A database that comes up late: from "accepts connections" to the end of the tool.
"""

from __future__ import annotations

import random
import socket
import struct
import threading
import time

from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from bench.measure import Runner, Sample
from bench.peers import Peer
from bench.server import SETTINGS, Databases, DurableServer, Target
from dev.postgres import HBA


LATE_S: Final = 3.0
SPREAD_S: Final = 1.0  # no tool's poll may fall on the same moment each time
PROBE_S: Final = 0.003
STARTUP: Final = b"user\0bench\0database\0postgres\0\0"
PROTOCOL: Final = 196608  # 3.0
ASKS_FOR_PASSWORD: Final = b"R"


class LateServer:
    """A server of its own that is stopped and started for each measurement."""

    def __init__(self, data: Path) -> None:
        self._server = DurableServer("bench-late", data, SETTINGS, HBA)
        self._runner = Runner()
        self._targets: dict[str, Target] = {}

    def __enter__(self) -> Self:
        """Start it for the first time."""
        self._server.__enter__()
        self._databases = Databases(self._server)
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Stop and remove it."""
        self._databases.close()
        self._server.close()

    def prepare(self, peer: Peer, folder: Path) -> None:
        """Apply a peer's migrations, so that it has only to find the database."""
        target = self._targets[peer.name] = self._databases.make()
        self._runner.run(peer.start(folder, target))

    def measure(self, peer: Peer, folder: Path) -> Sample:
        """Start a peer, and its server later; `wall_s` is the time since the latter."""
        self._databases.close()
        self._server.stop("fast")
        process = self._runner.start(peer.start(folder, self._targets[peer.name]))
        time.sleep(LATE_S + random.uniform(0, SPREAD_S))  # noqa: S311 -- a phase
        prober = Prober(self._server.host, self._server.port)
        prober.start()
        self._server.start()
        (sample,) = self._runner.finish(process)
        prober.join()
        return replace(sample, wall_s=sample.ended_s - prober.accepted_s)


class Prober(threading.Thread):
    """Asks until the server takes a connection; `accepted_s` is when it did."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(daemon=True)
        self._address = (host, port)
        self.accepted_s = 0.0

    def run(self) -> None:
        """Ask every few milliseconds."""
        while not self._accepts():
            time.sleep(PROBE_S)
        self.accepted_s = time.monotonic()

    def _accepts(self) -> bool:
        """Whether the server asks for a password, and so is not starting any more."""
        packet = struct.pack("!ii", len(STARTUP) + 8, PROTOCOL) + STARTUP
        try:
            with socket.create_connection(self._address, timeout=1) as connection:
                connection.sendall(packet)
                return connection.recv(1) == ASKS_FOR_PASSWORD
        except OSError:
            return False
