"""
Count round trips: a proxy that passes bytes on and notes who speaks after whom.

A round trip is a turn in which the client speaks and the server answers; opening a
connection is one more.
"""

from __future__ import annotations

import contextlib
import socket
import threading

from types import TracebackType
from typing import Final, Self


CHUNK_BYTES: Final = 1 << 16


class CountingProxy:
    """Listens on a free port while it is entered; `round_trips` is the count."""

    host = "127.0.0.1"

    def __init__(self, host: str, port: int) -> None:
        self.round_trips = 0
        self.connections = 0
        self._upstream = (host, port)
        self._lock = threading.Lock()
        self._listener = socket.create_server((self.host, 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        """Accept connections from now on."""
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Accept no more."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def take(self) -> int:
        """Return the count so far and begin anew."""
        with self._lock:
            count, self.round_trips = self.round_trips, 0
        return count

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self.connections += 1
                self.round_trips += 1
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(self._upstream)
        except OSError:
            client.close()
            return
        for side in (client, server):
            side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        speaker = ["server"]
        answers = threading.Thread(
            target=self._pump, args=("server", server, client, speaker), daemon=True
        )
        answers.start()
        self._pump("client", client, server, speaker)
        answers.join()
        client.close()
        server.close()

    def _pump(
        self, name: str, source: socket.socket, sink: socket.socket, speaker: list[str]
    ) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(CHUNK_BYTES):
                with self._lock:
                    if name == "server" and speaker[0] == "client":
                        self.round_trips += 1
                    speaker[0] = name
                sink.sendall(chunk)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
