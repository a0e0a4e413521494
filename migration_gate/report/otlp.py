"""
OpenTelemetry's protocol as JSON: what traces and metrics have in common. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

from migration_gate import __version__


Signal = Literal["traces", "metrics"]
Attribute = str | bool | int | float | Sequence[str] | None

ITEMS_MAX: Final = 20
NS_PER_S: Final = 1_000_000_000
WORDS: Final = {"error_message", "notice", "traceback"}
SCOPE: Final = {"name": "migration-gate", "version": __version__}


class Receiver(NamedTuple):
    """
    Where one signal is sent. ``headers`` are secret.

    ``authority`` certifies the receiver; ``certificate`` and ``key`` are the gate's
    own. Each is the path of a file, or empty.
    """

    scheme: str
    host: str
    port: int
    path: str
    timeout_s: float
    headers: tuple[tuple[str, str], ...] = ()
    authority: str = ""
    certificate: str = ""
    key: str = ""

    def __repr__(self) -> str:
        return f"Receiver(host={self.host!r}, port={self.port!r})"


class TraceContext(NamedTuple):
    """A span: its trace, itself, and whether the trace is kept."""

    trace_id: str
    span_id: str
    is_sampled: bool = True
    state: str = ""


class Record(NamedTuple):
    """An event of the log, and when it was, in nanoseconds of Unix time."""

    at_ns: int
    event: str
    fields: Mapping[str, Any]


class Past(NamedTuple):
    """
    A run that has ended.

    ``ending`` has the fields of its last line, ``message`` its sentence; the latter is
    empty where it may hold rows.
    """

    records: Sequence[Record]
    started_ns: int
    ended_ns: int
    pid: int
    ending: Mapping[str, Any]
    message: str

    def first(self, event: str) -> Mapping[str, Any]:
        """Return the fields of the first event of that name; none where none was."""
        return next((r.fields for r in self.records if r.event == event), {})


def to_attributes(attributes: Mapping[str, Attribute]) -> list[dict[str, Any]]:
    """Return attributes as the protocol has them; None is left out."""
    return [
        {"key": key, "value": _to_value(value)}
        for key, value in attributes.items()
        if value is not None
    ]


def _to_value(value: Attribute) -> dict[str, Any]:
    match value:
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": value}
        case str():
            return {"stringValue": value}
    items = [_to_value(each) for each in (value or ())[:ITEMS_MAX]]
    return {"arrayValue": {"values": items}}


def to_own(fields: Mapping[str, Any], *names: str) -> dict[str, Attribute]:
    """
    Return fields of the log as attributes; all of them where none is named.

    PostgreSQL's words are left out, which may be made of rows.
    """
    return {
        f"migration_gate.{name}": value
        for name, value in fields.items()
        if (not names or name in names) and name not in WORDS
    }


def to_resource(attributes: Mapping[str, str]) -> dict[str, Any]:
    """Return who sends."""
    return {"attributes": to_attributes({**attributes, "service.version": __version__})}


def database_attributes(past: Past) -> dict[str, Attribute]:
    """Return what the conventions say of a client of PostgreSQL."""
    started = past.first("gate.started")
    port = started.get("port") or ""
    return {
        "db.system.name": "postgresql",
        "db.namespace": started.get("database"),
        "server.address": started.get("host"),
        "server.port": int(port) if port.isdecimal() else None,
    }
