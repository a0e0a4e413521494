"""What stands in for a collector of OpenTelemetry's: takes its protocol, as JSON."""

from __future__ import annotations

import json

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import trustme

from tests.fix_identity import Endpoint, Question, Reply, as_json


VALUES = {
    "stringValue": str,
    "intValue": int,
    "doubleValue": float,
    "boolValue": bool,
}


@dataclass(frozen=True, kw_only=True)
class Span:
    """A span as it was sent; times in nanoseconds."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: int
    started_ns: int
    ended_ns: int
    attributes: Mapping[str, Any]
    events: list[tuple[str, Mapping[str, Any]]]
    status: Mapping[str, Any]
    state: str


class Collector:
    """Takes what is sent to it; `endpoint` says how it answers."""

    def __init__(self, ca: trustme.CA | None = None) -> None:
        self.endpoint = Endpoint(lambda _: as_json({}), ca=ca)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.endpoint.close()

    @property
    def url(self) -> str:
        """Where it listens."""
        return self.endpoint.url

    def fail(self, *replies: Reply) -> None:
        """Give these replies first."""
        self.endpoint.faults.extend(replies)

    def requests(self, path: str) -> list[Question]:
        """Return what was sent to a path."""
        return [asked for asked in self.endpoint.asked if asked.path == path]

    def resource(self) -> dict[str, Any]:
        """Return who sent the last trace."""
        (sent,) = json.loads(self.requests("/v1/traces")[-1].body)["resourceSpans"]
        return read_attributes(sent["resource"]["attributes"])

    def spans(self) -> list[Span]:
        """Return the spans of the only request, the run's own first."""
        (request,) = self.requests("/v1/traces")
        (resource,) = json.loads(request.body)["resourceSpans"]
        (scope,) = resource["scopeSpans"]
        return [read_span(span) for span in scope["spans"]]

    def metrics(self) -> dict[str, list[tuple[dict[str, Any], Any]]]:
        """Return by name the points of the only request: attributes, then value."""
        (request,) = self.requests("/v1/metrics")
        (resource,) = json.loads(request.body)["resourceMetrics"]
        (scope,) = resource["scopeMetrics"]
        return {
            metric["name"]: [
                (
                    read_attributes(point["attributes"]),
                    int(point["asInt"]) if "asInt" in point else point,
                )
                for point in metric.get("sum", metric.get("histogram"))["dataPoints"]
            ]
            for metric in scope["metrics"]
        }


def read_span(sent: Mapping[str, Any]) -> Span:
    """Read a span as the protocol's JSON has it."""
    return Span(
        trace_id=sent["traceId"],
        span_id=sent["spanId"],
        parent_id=sent["parentSpanId"],
        name=sent["name"],
        kind=sent["kind"],
        started_ns=int(sent["startTimeUnixNano"]),
        ended_ns=int(sent["endTimeUnixNano"]),
        attributes=read_attributes(sent["attributes"]),
        events=[
            (event["name"], read_attributes(event["attributes"]))
            for event in sent["events"]
        ],
        status=sent["status"],
        state=sent["traceState"],
    )


def read_attributes(sent: list[dict[str, Any]]) -> dict[str, Any]:
    """Read attributes; a number is a text in the protocol's JSON."""
    return {each["key"]: _read_value(each["value"]) for each in sent}


def _read_value(value: Mapping[str, Any]) -> object:
    ((kind, said),) = value.items()
    if kind == "arrayValue":
        return [_read_value(each) for each in said["values"]]
    return VALUES[kind](said)
