"""
A run as others see it: what it did is sent when it is over, as a trace and as metrics.

Loaded only where that is asked for. It costs a second at most, and never an exit code.
"""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import threading
import time

from collections.abc import Mapping
from contextlib import closing
from typing import Any, Final

from migration_gate.report.events import (
    MIGRATION_NOTICE,
    MIGRATION_PROGRESS,
    TARGET_ENDS,
    Event,
)
from migration_gate.report.metrics import Temporality, to_metrics
from migration_gate.report.otlp import Past, Receiver, Record, Signal, TraceContext
from migration_gate.report.spans import to_traces


# Both requests together; whoever is away, slow or deaf costs no more.
BUDGET_S: Final = 1.0
# There may be any number of them, and a trace says nothing by them.
NOT_KEPT: Final = {MIGRATION_NOTICE, MIGRATION_PROGRESS}
ANSWER_BYTES: Final = 1024
STATUS: Final = re.compile(rb"HTTP/1\.[01] (\d)\d\d\b")
TAKEN: Final = b"2"
NO_TLS: Final = (
    "this image has no TLS for it: build it with EXTRAS=otel, or send to an agent by "
    "http"
)


class Telemetry:
    """
    Keeps what a run does, and sends it.

    ``own`` is the span of the run; its trace is the parent's where there is one.
    ``tells_words`` is False where PostgreSQL's words may hold rows. ``fault`` says why
    some of it cannot be sent.
    """

    def __init__(  # noqa: PLR0913  # what is sent, where, and about whom
        self,
        receivers: Mapping[Signal, Receiver],
        *,
        resource: Mapping[str, str],
        temporality: Temporality,
        parent: TraceContext | None,
        tells_words: bool,
        fault: str = "",
    ) -> None:
        self._receivers = receivers
        self._resource = resource
        self._temporality = temporality
        self._parent = parent
        self._tells_words = tells_words
        self._faults = [fault] if fault else []
        self._records: list[Record] = []
        # The wall clock is read once: it may be set while a run goes on.
        self._started_ns, self._since_ns = time.time_ns(), time.monotonic_ns()
        trace = parent or TraceContext(trace_id=os.urandom(16).hex(), span_id="")
        self.own = trace._replace(span_id=os.urandom(8).hex())

    @property
    def sends_trace(self) -> bool:
        """Whether that span is sent: whoever started the run may not want it."""
        return "traces" in self._receivers and self.own.is_sampled

    def record(self, event: Event, fields: Mapping[str, Any]) -> None:
        """Keep an event with its fields, whether the log shows it or not."""
        if event not in NOT_KEPT:
            names = (*event.fields, "target") if event in TARGET_ENDS else event.fields
            told = {name: fields[name] for name in names if name in fields}
            self._records.append(Record(self._now_ns(), event.name, told))

    def send(self, ending: Mapping[str, Any], message: str) -> str:
        """
        Send all that was kept; return why some of it was not sent, and never raise.

        In a thread, because a resolver knows no time-out: what is late is left behind.

        Args:
            ending: The fields of the last line.
            message: Its sentence.
        """
        past = Past(
            records=self._records,
            started_ns=self._started_ns,
            ended_ns=self._now_ns(),
            pid=os.getpid(),
            ending=ending,
            message=message if self._tells_words else str(ending.get("reason", "")),
        )
        until_s = time.monotonic() + BUDGET_S
        sending = threading.Thread(
            target=self._send_all, args=(past, until_s), daemon=True
        )
        try:
            sending.start()
            sending.join(BUDGET_S)
        except RuntimeError:  # there can be no more threads
            return "a thread could not be started"
        late = [f"no answer within {BUDGET_S:g} s"] if sending.is_alive() else []
        return "; ".join(dict.fromkeys([*self._faults, *late]))

    def _now_ns(self) -> int:
        return self._started_ns + time.monotonic_ns() - self._since_ns

    def _send_all(self, past: Past, until_s: float) -> None:
        for signal, receiver in self._receivers.items():
            try:
                request = self._request(signal, past)
                if request is not None:
                    _post(receiver, json.dumps(request).encode(), until_s)
            except OSError as error:
                self._faults.append(_describe(error))
            except Exception as bug:  # noqa: BLE001  # it is worth no exit code
                self._faults.append(f"internal error: {type(bug).__name__}")

    def _request(self, signal: Signal, past: Past) -> dict[str, Any] | None:
        if signal == "metrics":
            return to_metrics(past, self._resource, self._temporality)
        if self.sends_trace:
            return to_traces(past, self.own, self._parent, self._resource)
        return None


def _post(receiver: Receiver, body: bytes, until_s: float) -> None:
    """Send one request. Raises OSError, also where the answer is no."""
    if receiver.scheme == "https" and not hasattr(ssl, "create_default_context"):
        raise OSError(0, NO_TLS)
    timeout_s = max(0.001, min(receiver.timeout_s, until_s - time.monotonic()))
    address = (receiver.host, receiver.port)
    conn: socket.socket = socket.create_connection(address, timeout_s)
    with closing(conn):
        if receiver.scheme == "https":
            conn = _secure(conn, receiver)
        with closing(conn):
            conn.sendall(_head(receiver, len(body)) + body)
            answer = b""
            while b"\n" not in answer and len(answer) < ANSWER_BYTES:
                block = conn.recv(ANSWER_BYTES)
                if not block:
                    break
                answer += block
    status = STATUS.match(answer)
    if status is None:
        raise OSError(0, "what answered does not speak HTTP")
    if status[1] != TAKEN:
        raise OSError(0, f"the collector answered {status[0].split()[1].decode()}")


def _head(receiver: Receiver, length: int) -> bytes:
    host = f"[{receiver.host}]" if ":" in receiver.host else receiver.host
    lines = [
        f"POST {receiver.path} HTTP/1.1",
        f"Host: {host}:{receiver.port}",
        "Content-Type: application/json",
        f"Content-Length: {length}",
        "Connection: close",
        *(f"{name}: {value}" for name, value in receiver.headers),
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def _secure(conn: socket.socket, receiver: Receiver) -> ssl.SSLSocket:
    """Speak TLS, by the system's roots or the receiver's own. Raises OSError."""
    context = ssl.create_default_context(cafile=receiver.authority or None)
    if receiver.certificate:
        context.load_cert_chain(receiver.certificate, receiver.key or None)
    return context.wrap_socket(conn, server_hostname=receiver.host)


def _describe(error: OSError) -> str:
    """Say what went wrong, without the address, which may have a secret in it."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    words = getattr(error, "verify_message", "") or error.strerror
    return words or type(error).__name__
