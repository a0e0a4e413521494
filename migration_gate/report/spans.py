"""
A run as a trace: a span for it, for each wait, for each migration. Pure.

A span's name says what kind of thing it is, and its attributes which one, so that
there are few names however many migrations there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from migration_gate.report.otlp import (
    NS_PER_S,
    SCOPE,
    Attribute,
    Past,
    Record,
    TraceContext,
    database_attributes,
    to_attributes,
    to_own,
    to_resource,
)


NS_PER_MS: Final = 1_000_000
SPANS_MAX: Final = 200
EVENTS_MAX: Final = 20
INTERNAL: Final = 1
CLIENT: Final = 3
ERROR: Final = 2
WAITS: Final = {
    "database.retry_scheduled": "wait for database",
    "database.ready": "wait for database",
    "lock.waiting": "wait for lock",
    "lock.acquired": "wait for lock",
}
STEPS: Final = {
    "migration.started": "apply migration",
    "migration.undoing": "undo migration",
}
BEGINNINGS: Final = {**WAITS, **STEPS}
ENDS: Final = {
    *("database.ready", "lock.acquired"),
    *("migration.applied", "migration.undone"),
}
TARGETS: Final = {"target.opened", "target.closed"}
TARGET: Final = "migrate target"
# What the attributes of a span say already.
SAID: Final = {"gate.started", "plan.made", *STEPS, *ENDS}
# Fields of a closed gate, and the conventions' names for them.
PLACE: Final = {
    "sqlstate": "db.response.status_code",
    "file": "code.file.path",
    "line": "code.line.number",
    "column": "code.column.number",
}


@dataclass(kw_only=True)
class Span:
    """One span, as it is built; its events are records of the log."""

    name: str
    started_ns: int
    ended_ns: int = 0
    kind: int = CLIENT
    attributes: dict[str, Attribute] = field(default_factory=dict)
    events: list[Record] = field(default_factory=list)
    has_failed: bool = False


def to_traces(
    past: Past,
    own: TraceContext,
    parent: TraceContext | None,
    resource: Mapping[str, str],
) -> dict[str, Any]:
    """Return the request that sends a run as one trace."""
    root, below = find_spans(past)
    first_id = int(own.span_id, 16)
    spans = [
        _to_json(root, past, own, parent),
        *(
            _to_json(span, past, own._replace(span_id=_derive(first_id, number)), own)
            for number, span in enumerate(below, start=1)
        ),
    ]
    scope = {"scope": SCOPE, "spans": spans}
    return {
        "resourceSpans": [{"resource": to_resource(resource), "scopeSpans": [scope]}]
    }


def find_spans(past: Past) -> tuple[Span, list[Span]]:
    """
    Return the span of the run, and those below it in the order of their ends.

    Of very many the first are kept, and one that failed; the run's says how many not.
    """
    seen = _Seen(past)
    for record in past.records:
        seen.take(record)
    below = seen.end()
    kept = below[:SPANS_MAX] + [span for span in below[SPANS_MAX:] if span.has_failed]
    seen.root.attributes["migration_gate.spans_left_out"] = len(below) - len(kept)
    return seen.root, kept


class _Seen:
    """Spans that have begun, by the version or by what is waited for; those over."""

    def __init__(self, past: Past) -> None:
        self._past = past
        self._database = database_attributes(past)
        self._open: dict[str, Span] = {}
        self._over: list[Span] = []
        self.root = self._make_root()

    def take(self, record: Record) -> None:
        """Begin, go on with or end the span that an event is about."""
        if record.event in TARGETS:
            self._over.append(self._to_target(record))
            return
        key = WAITS.get(record.event) or record.fields.get("version", "")
        if record.event in BEGINNINGS and key not in self._open:
            self._open[key] = self._begin(record)
        span = self._open.get(key, self.root)
        if record.event not in SAID:
            span.events.append(record)
        elif record.event not in {"gate.started", "plan.made"}:
            span.attributes.update(to_own(record.fields))
        if record.event in ENDS and key in self._open:
            span.ended_ns = record.at_ns
            # Of files that share a message the answers come together.
            took_ns = (record.fields.get("duration_ms") or 0) * NS_PER_MS
            span.started_ns = min(span.started_ns, record.at_ns - took_ns)
            self._over.append(self._open.pop(key))

    def end(self) -> list[Span]:
        """Return all spans; one that was open is what the run was at when it ended."""
        about = self._past.ending.get("version") or self._past.ending.get("file")
        for key, span in self._open.items():
            span.ended_ns = self._past.ended_ns
            span.has_failed = self.root.has_failed and about in {key, None}
            if span.has_failed:
                span.attributes.update(self._failure())
        return [*self._over, *self._open.values()]

    def _to_target(self, record: Record) -> Span:
        """Return the span of a target of a fleet, which tells of itself at its end."""
        fields = record.fields
        has_failed = record.event == "target.closed"
        about = ("target", "applied_count", "duration_ms")
        return Span(
            name=TARGET,
            kind=INTERNAL,
            started_ns=record.at_ns - fields["duration_ms"] * NS_PER_MS,
            ended_ns=record.at_ns,
            has_failed=has_failed,
            attributes={
                **self._database,
                **to_own(fields, *about),
                **(_to_failure(fields) if has_failed else {}),
            },
        )

    def _begin(self, record: Record) -> Span:
        """Begin a span; of a wait the first event tells how long it has been."""
        waited_ns = round(record.fields.get("waited_s", 0) * NS_PER_S)
        return Span(
            name=BEGINNINGS[record.event],
            started_ns=max(self._past.started_ns, record.at_ns - waited_ns),
            attributes={**self._database},
        )

    def _make_root(self) -> Span:
        past = self._past
        command = past.first("gate.started").get("command", "")
        exit_code = past.ending["exit_code"]
        return Span(
            name=f"migration-gate {command}".rstrip(),
            kind=INTERNAL,
            started_ns=past.started_ns,
            ended_ns=past.ended_ns,
            has_failed=exit_code != 0,
            attributes={
                "process.executable.name": "migration-gate",
                "process.pid": past.pid,
                "process.exit.code": exit_code,
                **self._database,
                **to_own(past.first("gate.started"), "command", "migration_count"),
                **to_own(past.first("plan.made"), "pending_count"),
                **to_own(past.ending, "applied_count"),
                **(self._failure() if exit_code else {}),
            },
        )

    def _failure(self) -> dict[str, Attribute]:
        return _to_failure(self._past.ending)


def _to_failure(ending: Mapping[str, Any]) -> dict[str, Attribute]:
    """Return why the gate, or a target, is closed, and where in which file."""
    place = {name: ending.get(field) for field, name in PLACE.items()}
    return {"error.type": ending["reason"], **place}


def _derive(first_id: int, number: int) -> str:
    """Return the id of a span below the first, which is never 0."""
    return f"{(first_id + number) % 2**64 or 2**63:016x}"


def _to_json(
    span: Span, past: Past, own: TraceContext, parent: TraceContext | None
) -> dict[str, Any]:
    events = [
        _to_event(record.at_ns, record.event, to_own(record.fields))
        for record in span.events[:EVENTS_MAX]
    ]
    status: dict[str, Any] = {}
    if span.has_failed:
        reason = str(span.attributes.get("error.type", past.ending["reason"]))
        message = reason if span.name == TARGET else past.message
        status = {"code": ERROR, "message": message}
        exception: dict[str, Attribute] = {
            "exception.type": reason,
            "exception.message": message,
        }
        events.append(_to_event(span.ended_ns, "exception", exception))
    return {
        "traceId": own.trace_id,
        "spanId": own.span_id,
        "parentSpanId": parent.span_id if parent else "",
        "traceState": own.state,
        "name": span.name,
        "kind": span.kind,
        "startTimeUnixNano": str(span.started_ns),
        "endTimeUnixNano": str(span.ended_ns),
        "attributes": to_attributes(span.attributes),
        "events": events,
        "droppedEventsCount": max(0, len(span.events) - EVENTS_MAX),
        "status": status,
    }


def _to_event(
    at_ns: int, name: str, attributes: Mapping[str, Attribute]
) -> dict[str, Any]:
    return {
        "timeUnixNano": str(at_ns),
        "name": name,
        "attributes": to_attributes(attributes),
    }
