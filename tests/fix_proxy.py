"""
A TCP proxy between gate and server: counts, records, goes deaf, goes away.

It reads PostgreSQL's messages unless they are encrypted: `Proxy.through` turns TLS off.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
import threading
import time

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, Self

import pytest

from migration_gate.session.activity import OBSERVE
from tests.fix_postgres import Database, SharedServer


Sender = Literal["client", "server"]

# The manual, "Message Formats": a client's first message has a code in place of a type,
# and the answer to a request for encryption is a single byte.
CODES = {80877102: "cancel", 80877103: "ssl", 80877104: "gss"}
ENCRYPTED = {"S", "G"}
LENGTH_BYTES = 4
LOOK_AT_RUN = OBSERVE.as_string().partition("{")[0].encode()
CHUNK_BYTES = 65536
SETTLE_TIMEOUT_S = 5.0
POLL_S = 0.005


@dataclass(frozen=True, slots=True)
class Message:
    """One message; `type` is the protocol's letter, or startup, ssl, gss, cancel."""

    sender: Sender
    type: str
    payload: bytes = field(repr=False)


class Link:
    """One connection through the proxy: its two sockets and what passed, in order."""

    def __init__(self, client: socket.socket) -> None:
        self.messages: list[Message] = []
        self.encrypted = False
        self.ended = False
        self.is_open = True
        self.server: socket.socket | None = None
        self.client = client
        self._lock = threading.Lock()
        self._rest = {"client": bytearray(), "server": bytearray()}
        self._client_is_new = True
        self._server_answers_a_byte = False

    @property
    def after_login(self) -> list[Message]:
        """The messages after the server's first ReadyForQuery."""
        for place, message in enumerate(self.messages):
            if message.sender == "server" and message.type == "Z":
                return self.messages[place + 1 :]
        return []

    @property
    def asked(self) -> str:
        """The types of the client's messages after login: `QX` is a query and bye."""
        return "".join(m.type for m in self.after_login if m.sender == "client")

    @property
    def asked_once(self) -> str:
        """The same without the looks at what runs, whose number is one of time."""
        return "".join(
            m.type
            for m in self.after_login
            if m.sender == "client" and not m.payload.startswith(LOOK_AT_RUN)
        )

    @property
    def round_trips(self) -> int:
        """How often, after login, the client spoke and the server answered."""
        turns = itertools.pairwise(message.sender for message in self.after_login)
        return sum(turn == ("client", "server") for turn in turns)

    @property
    def is_cancel(self) -> bool:
        """Whether this is a cancel request, not a session."""
        return any(message.type == "cancel" for message in self.messages)

    def read(
        self, sender: Sender, chunk: bytes
    ) -> Iterator[tuple[Message | None, bytes]]:
        """Yield, and record, each message that is complete; None for what is secret."""
        rest = self._rest[sender]
        rest += chunk
        while (size := self._measure(sender, rest)) and size <= len(rest):
            whole = bytes(rest[:size])
            del rest[:size]
            message = self._parse(sender, whole)
            with self._lock:
                self.messages.append(message)
            yield message, whole
        if self.encrypted:
            yield None, bytes(rest)
            rest.clear()

    def end(self) -> None:
        """End both sides; the threads that read them notice."""
        self.ended = True
        for side in (self.client, self.server):
            if side is not None:
                with contextlib.suppress(OSError):
                    side.shutdown(socket.SHUT_RDWR)

    def _measure(self, sender: Sender, rest: bytearray) -> int:
        """Return the size of the next message, 0 while it cannot be known."""
        if self.encrypted:
            return 0
        if sender == "server" and self._server_answers_a_byte:
            return 1
        start = 0 if sender == "client" and self._client_is_new else 1
        if len(rest) < start + LENGTH_BYTES:
            return 0
        (length,) = struct.unpack_from("!i", rest, start)
        return start + int(length)

    def _parse(self, sender: Sender, whole: bytes) -> Message:
        if sender == "server" and self._server_answers_a_byte:
            self._server_answers_a_byte = False
            answer = chr(whole[0])
            self.encrypted = answer in ENCRYPTED
            return Message(sender, answer, b"")
        if sender == "client" and self._client_is_new:
            (code,) = struct.unpack_from("!i", whole, LENGTH_BYTES)
            kind = CODES.get(code, "startup")
            self._server_answers_a_byte = kind in {"ssl", "gss"}
            self._client_is_new = self._server_answers_a_byte
            return Message(sender, kind, whole[LENGTH_BYTES:])
        return Message(sender, chr(whole[0]), whole[1 + LENGTH_BYTES :])


@dataclass(frozen=True, slots=True)
class Trap:
    """What to do, once, at a message."""

    condition: Callable[[Message], bool]
    action: Callable[[], None]
    forward: bool


class Proxy:
    """
    A proxy on a port of its own that stays the same; as a context manager, started.

    `links` are the connections so far, in order; `settled` is the list once all ended.
    """

    host = "127.0.0.1"

    def __init__(self, host: str, port: int) -> None:
        self.links: list[Link] = []
        self.port = 0
        self._upstream = (host, port)
        self._listener: socket.socket | None = None
        self._acceptor: threading.Thread | None = None
        self._flows = threading.Event()
        self._trap: Trap | None = None
        self._bytes_left: dict[Sender, int] = {}
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        for thread in self._threads:
            thread.join()

    def through(self, database: Database) -> Database:
        """Return the same database, reached through this proxy, without TLS."""
        address = {"host": self.host, "port": str(self.port), "sslmode": "disable"}
        return database.changed(**address)

    def start(self) -> None:
        """Listen and pass everything on, also after `stop` or `deaf`."""
        self._flows.set()
        if self._listener is None:
            self._listener = socket.create_server((self.host, self.port), backlog=128)
            self.port = self._listener.getsockname()[1]
            self._acceptor = self._spawn(self._accept, self._listener)

    def stop(self) -> None:
        """Refuse connections from now on, and cut those that are there."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes the thread in accept()
            listener.close()
        if self._acceptor is not None:
            self._acceptor.join()
        self.cut()
        self._flows.set()

    def deaf(self) -> None:
        """Accept and stay silent, both ways, on old and new connections."""
        self._flows.clear()

    def cut(self) -> None:
        """End every connection; new ones are accepted."""
        for link in list(self.links):
            link.end()

    def when(
        self,
        condition: Callable[[Message], bool],
        action: Callable[[], None],
        *,
        forward: bool = False,
    ) -> None:
        """
        Do something, once, at the next message that meets the condition.

        The message itself passes before the action with `forward`, and is otherwise
        held back until it is done. Actions are `proxy.cut`, `proxy.stop`,
        `proxy.deaf`, or the test's own.
        """
        self._trap = Trap(condition, action, forward)

    def cut_after_bytes(self, count: int, sender: Sender) -> None:
        """Cut everything, once, when `sender` has sent so many bytes from now on."""
        self._bytes_left[sender] = count

    @property
    def sessions(self) -> list[Link]:
        """The connections that are no cancel requests."""
        return [link for link in self.links if not link.is_cancel]

    def settled(self, timeout_s: float = SETTLE_TIMEOUT_S) -> list[Link]:
        """Return the sessions once every connection has ended: all is recorded then."""
        deadline = time.monotonic() + timeout_s
        while any(link.is_open for link in self.links):
            assert time.monotonic() < deadline, "a connection is still open"
            time.sleep(POLL_S)
        return self.sessions

    def _spawn(self, target: Callable[..., None], *args: object) -> threading.Thread:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            link = Link(client)
            self.links.append(link)
            self._spawn(self._serve, link)

    def _serve(self, link: Link) -> None:
        try:
            self._flows.wait()
            if not link.ended:
                self._connect(link)
        finally:
            link.client.close()
            link.is_open = False

    def _connect(self, link: Link) -> None:
        """Connect one client to the server and pass on what they say."""
        try:
            server = socket.create_connection(self._upstream)
        except OSError:
            return
        with server:
            link.server = server
            for side in (link.client, server):
                side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            answers = threading.Thread(
                target=self._pump, args=(link, "server", server, link.client)
            )
            answers.start()
            self._pump(link, "client", link.client, server)
            answers.join()

    def _pump(
        self, link: Link, sender: Sender, source: socket.socket, sink: socket.socket
    ) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(CHUNK_BYTES):
                self._pass_on(link, sender, chunk, sink)
        link.end()

    def _pass_on(
        self, link: Link, sender: Sender, chunk: bytes, sink: socket.socket
    ) -> None:
        """Send what is complete, up to where a trap holds it back."""
        ready = bytearray()
        for message, whole in link.read(sender, chunk):
            trap = self._trap
            if message is None or trap is None or not trap.condition(message):
                ready += whole
                continue
            self._trap = None
            passes, waits = (ready + whole, b"") if trap.forward else (ready, whole)
            self._send(sender, bytes(passes), sink)
            trap.action()
            ready = bytearray(waits)
        self._send(sender, bytes(ready), sink)

    def _send(self, sender: Sender, content: bytes, sink: socket.socket) -> None:
        self._flows.wait()
        left = self._bytes_left.get(sender)
        if left is None:
            sink.sendall(content)
            return
        sink.sendall(content[:left])
        self._bytes_left[sender] = left - len(content)
        if left <= len(content):
            del self._bytes_left[sender]
            self.cut()


@pytest.fixture
def proxy(server: SharedServer) -> Iterator[Proxy]:
    """Return a started proxy in front of the shared server."""
    conninfo = server.conninfo
    with Proxy(conninfo["host"], int(conninfo["port"])) as started:
        yield started
