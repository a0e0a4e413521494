"""
What gives a workload its identity: endpoints over HTTP, and a database that checks.

An endpoint speaks a provider's own protocol, by a function from a question to a reply;
a token that it issues is, from then on, the password of a role, and the only one.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import ssl
import threading
import time

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

import pytest
import trustme

from psycopg import sql

from dev.postgres import HBA, Server
from tests.fix_postgres import (
    SETTINGS,
    Database,
    Databases,
    SharedServer,
    hash_cheaply,
    look_at,
    server_name,
)


# What no libpq would take from a file, and Entra's tokens with many groups have.
TOKEN_BYTES = 3000
SERVER_NUMBER = 90
DRIBBLE_S = 0.2


@dataclass(frozen=True, kw_only=True)
class Question:
    """What an endpoint was asked; header names in lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    form: Mapping[str, str]
    body: str = ""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """
    What an endpoint answers.

    `is_half` sends half of the body and goes; `is_hung` says nothing until the end;
    `is_dribbled` sends a byte now and then, and never comes to an end.
    """

    status: int = 200
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    is_half: bool = False
    is_hung: bool = False
    is_dropped: bool = False
    is_dribbled: bool = False


Answer = Callable[[Question], Reply]
AS_JSON = {"Content-Type": "application/json"}
# What an endpoint may do in place of an answer, and a gate has to live through.
FAULTS: Mapping[str, Reply] = {
    "throttled": Reply(
        status=429,
        body='{"error":"too_many_requests"}',
        headers={**AS_JSON, "Retry-After": "1"},
    ),
    "at fault": Reply(status=500, body="<html>oops</html>"),
    "in its way": Reply(
        status=502,
        body="<html>Bad Gateway</html>",
        headers={"Content-Type": "text/html"},
    ),
    "HTML": Reply(
        body="<html>log in here</html>", headers={"Content-Type": "text/html"}
    ),
    "nothing": Reply(is_dropped=True),
    "half a body": Reply(
        body='{"access_token":"abc","expires_in":3600}', headers=AS_JSON, is_half=True
    ),
    "an empty body": Reply(headers=AS_JSON),
}


# What an answer may quote, and nobody may see.
TOLD = "eyJhbGciOiJSUzI1NiJ9.secret_assertion-x" * 3
TOLD_PARTS = ("eyJ", "secret_assertion")


def as_json(told: Mapping[str, Any], status: int = 200) -> Reply:
    """Return an answer in JSON."""
    return Reply(status=status, body=json.dumps(told), headers=AS_JSON)


def leaking(told: str) -> dict[str, Reply]:
    """Return answers that quote a secret, as no provider should."""
    error = {"error": "invalid_client", "error_description": f"wrong: {told}"}
    return {
        "in a refusal": as_json(error, 400),
        "as its code": as_json({"error": told}, 403),
        "in a fault": Reply(status=500, body=told),
        "with a status of its own": Reply(status=418, body=told),
        "as no token": as_json({"access_token": "", "note": told}),
        "as an odd token": as_json({"access_token": [told], "expires_in": told}),
    }


class Endpoint:
    """
    An HTTP server on loopback that answers as it is told, and notes what it is asked.

    `faults` are its next replies, one each, before it answers. One that `is_late` has
    a place, where nothing listens before it is opened.
    """

    def __init__(
        self,
        answer: Answer,
        port: int = 0,
        ca: trustme.CA | None = None,
        *,
        is_late: bool = False,
    ) -> None:
        self.answer = answer
        self.asked: list[Question] = []
        self.faults: list[Reply] = []
        self._end = threading.Event()
        self._ca = ca
        self._server: ThreadingHTTPServer | None = None
        self._port = port or (free_port() if is_late else 0)
        if not is_late:
            self.open()
        scheme = "http" if ca is None else "https"
        self.address = f"127.0.0.1:{self._port}"
        self.url = f"{scheme}://{self.address}"

    def open(self) -> None:
        """Listen, and answer."""
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def _reply(self) -> None:
                endpoint.reply(self)

            do_GET = do_POST = do_PUT = _reply  # noqa: N815  # http.server's names

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        server.daemon_threads = True
        if self._ca is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._ca.issue_cert("127.0.0.1").configure_cert(context)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        self._server, self._port = server, server.server_port
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()

    def reply(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one question."""
        parts = urlsplit(handler.path)
        length = int(handler.headers.get("Content-Length") or 0)
        body = handler.rfile.read(length).decode()
        question = Question(
            method=handler.command,
            path=parts.path,
            query=dict(parse_qsl(parts.query)),
            headers={name.lower(): value for name, value in handler.headers.items()},
            form=dict(parse_qsl(body)),
            body=body,
        )
        self.asked.append(question)
        reply = self.faults.pop(0) if self.faults else self.answer(question)
        if reply.is_hung:
            self._end.wait(60)
            return
        if reply.is_dropped:
            handler.connection.shutdown(socket.SHUT_RDWR)
            return
        content = reply.body.encode()
        handler.send_response(reply.status)
        for name, value in reply.headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        if reply.is_dribbled:
            self._dribble(handler, content)
            return
        handler.wfile.write(content[: len(content) // 2] if reply.is_half else content)

    def _dribble(self, handler: BaseHTTPRequestHandler, content: bytes) -> None:
        with contextlib.suppress(OSError):
            for byte in content[:-1]:
                handler.wfile.write(bytes([byte]))
                handler.wfile.flush()
                if self._end.wait(DRIBBLE_S):
                    return
            self._end.wait(60)

    def close(self) -> None:
        """Stop."""
        self._end.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()


@dataclass(kw_only=True)
class Mint:
    """
    Issues tokens for one role of a database, which takes the last one and no other.

    `lifetime_s` is what it says of a token; `issued` are all.
    """

    role: Database
    lifetime_s: int = 3600
    issued: list[str] = field(default_factory=list)

    def issue(self) -> str:
        """Return a new token, the role's password from now on."""
        token = f"eyJ{secrets.token_urlsafe(TOKEN_BYTES)}"
        self.issued.append(token)
        self._set_password(token)
        return token

    def rotate(self) -> None:
        """Let no token that was issued be good any more."""
        self._set_password(secrets.token_urlsafe(TOKEN_BYTES))

    def environ(self) -> dict[str, str]:
        """Return the settings of a gate that logs in as the role, but how."""
        embedded = self.role.server.embedded
        assert embedded is not None
        environ = self.role.environ()
        del environ["POSTGRES_PASSWORD"]
        return environ | {"PGSSLROOTCERT": str(embedded.ca)}

    def expires_at(self) -> int:
        """Return when a token that is issued now is no longer good."""
        return int(time.time()) + self.lifetime_s

    def _set_password(self, password: str) -> None:
        with self.role.server.superuser() as conn:
            conn.execute(
                sql.SQL("ALTER ROLE {} PASSWORD {}").format(
                    sql.Identifier(self.role.user), password
                )
            )


@pytest.fixture(scope="session")
def _encrypted_server() -> Iterator[SharedServer]:
    """Start a server with TLS and nothing without it."""
    hba = [line.replace("host all", "hostssl all") for line in HBA]
    server = Server(server_name(SERVER_NUMBER), settings=SETTINGS, hba=hba, tls=True)
    with server:
        hash_cheaply(server.conninfo)
        with look_at(server.conninfo, server).keeping() as shared:
            yield shared


@pytest.fixture
def encrypted_database(_encrypted_server: SharedServer) -> Iterator[Database]:
    """Return a fresh database of a server that asks for TLS, as superuser."""
    with Databases(server=_encrypted_server) as made:
        yield made.create()


@pytest.fixture
def mint(encrypted_database: Database) -> Mint:
    """Return what issues tokens for a role that may make its own tables."""
    role = encrypted_database.role("identity")
    encrypted_database.execute(f"GRANT ALL ON SCHEMA public TO {role.user}")
    encrypted_database.execute(
        f"GRANT CREATE ON DATABASE {encrypted_database.name} TO {role.user}"
    )
    return Mint(role=role)


class Endpoints:
    """Starts endpoints, and stops them after the test."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self._stack = stack
        self._folder = folder

    def __call__(
        self, answer: Answer, *, port: int = 0, is_late: bool = False
    ) -> Endpoint:
        """Start one that speaks HTTP."""
        return self._start(Endpoint(answer, port, is_late=is_late))

    def encrypted(
        self, answer: Answer, *, is_late: bool = False
    ) -> tuple[Endpoint, Path]:
        """Start one that speaks HTTPS; return it, and what it is trusted by."""
        ca = trustme.CA()
        root = self._folder / "endpoint-root.pem"
        ca.cert_pem.write_to_path(str(root))
        return self._start(Endpoint(answer, ca=ca, is_late=is_late)), root

    def _start(self, endpoint: Endpoint) -> Endpoint:
        self._stack.callback(endpoint.close)
        return endpoint


@pytest.fixture
def endpoints(tmp_path: Path) -> Iterator[Endpoints]:
    """Return what starts endpoints."""
    with ExitStack() as stack:
        yield Endpoints(stack, tmp_path)


def free_port() -> int:
    """Return a port that nothing listens on."""
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


class Guard:
    """
    What stands before RDS: takes a token in clear text over TLS, and checks it.

    A client that passes is handed on to a server that trusts it, with its own first
    message. `check` is given the user and the token; `tokens` are all that came. What
    has expired is refused, whatever it says of itself.
    """

    def __init__(self, server: Server, check: Callable[[str, str], bool]) -> None:
        self._server = server
        self._check = check
        self.tokens: list[str] = []
        self._expired: frozenset[str] = frozenset()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(
            server.data / "server.crt", server.data / "server.key"
        )
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def expire(self) -> None:
        """Let no token that came be good any more."""
        self._expired = frozenset(self.tokens)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(
                    target=self._serve, args=(client,), daemon=True
                ).start()

    def _serve(self, plain: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError), closing(plain):
            read_exactly(plain, 8)  # SSLRequest
            plain.sendall(b"S")
            with self._context.wrap_socket(plain, server_side=True) as client:
                self._guard(client)

    def _guard(self, client: socket.socket) -> None:
        startup = read_message(client)
        words = startup[8:].split(b"\0")
        said = dict(zip(words[::2], words[1::2], strict=False))
        client.sendall(b"R" + (8).to_bytes(4, "big") + (3).to_bytes(4, "big"))
        read_exactly(client, 1)
        token = read_message(client)[4:].rstrip(b"\0").decode()
        self.tokens.append(token)
        user = said[b"user"].decode()
        if token in self._expired or not self._check(user, token):
            text = f'PAM authentication failed for user "{user}"'
            told = f"SFATAL\0VFATAL\0C28000\0M{text}\0\0".encode()
            client.sendall(b"E" + (len(told) + 4).to_bytes(4, "big") + told)
            return
        upstream = socket.create_connection((self._server.host, self._server.port))
        with closing(upstream):
            upstream.sendall(startup)
            relay(client, upstream)


def read_exactly(source: socket.socket, count: int) -> bytes:
    """Read so many bytes."""
    got = b""
    while len(got) < count:
        more = source.recv(count - len(got))
        if not more:
            raise EOFError
        got += more
    return got


def read_message(source: socket.socket) -> bytes:
    """Read a message without its type: its length, and what it holds."""
    length = read_exactly(source, 4)
    return length + read_exactly(source, int.from_bytes(length, "big") - 4)


def relay(client: socket.socket, upstream: socket.socket) -> None:
    """Hand on what either says, until one goes."""

    def pump(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while block := source.recv(65536):
                target.sendall(block)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)

    back = threading.Thread(target=pump, args=(upstream, client), daemon=True)
    back.start()
    pump(client, upstream)
    back.join(5)
