"""
What a run adds to the metrics of all runs. Pure.

A run reports once, at its end: so what it counts is a difference, unless somebody asks
for totals, which are the same numbers under another sign.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

from migration_gate.report.otlp import (
    SCOPE,
    Attribute,
    Past,
    database_attributes,
    to_attributes,
    to_own,
    to_resource,
)


Temporality = Literal["delta", "cumulative"]
Attributes: TypeAlias = Mapping[str, Attribute]

TEMPORALITIES: Final[Mapping[Temporality, int]] = {"delta": 1, "cumulative": 2}
BOUNDS_S: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)
MS_PER_S: Final = 1000
# What becomes of a fleet's targets; a run without one has none of these counts.
OUTCOMES: Final = ("done", "failed", "left", "gone")
FOR_DATABASE: Final = {"migration_gate.waits_for": "database"}
FOR_LOCK: Final = {"migration_gate.waits_for": "lock"}


def to_metrics(
    past: Past, resource: Mapping[str, str], temporality: Temporality
) -> dict[str, Any]:
    """Return the request that sends what a run adds."""
    ending = past.ending
    of_run = {
        "migration_gate.verdict": "closed" if ending["exit_code"] else "open",
        "error.type": ending.get("reason"),
    }
    took_s = [
        record.fields["duration_ms"] / MS_PER_S
        for record in past.records
        if record.event == "migration.applied" and record.fields["duration_ms"]
    ]
    made = _Maker(past, TEMPORALITIES[temporality])
    metrics = [
        made.count("runs", "{run}", "Runs that ended.", [(1, of_run)]),
        made.spread(
            "run.duration",
            "How long a run took.",
            [([ending["duration_ms"] / MS_PER_S], of_run)],
        ),
        made.count(
            "migrations",
            "{migration}",
            "Migrations that were applied.",
            [(ending["applied_count"], {})],
        ),
        made.spread(
            "migration.duration",
            "How long a migration took, by the server's clock.",
            [(took_s, {})],
        ),
        made.spread(
            "wait.duration",
            "How long a run waited for the database, and for other gates.",
            [
                ([ending["waited_s"]], FOR_DATABASE),
                ([ending["lock_waited_s"]], FOR_LOCK),
            ],
        ),
        made.count(
            "retries",
            "{retry}",
            "Attempts at connecting, and at migrations for their locks, but the first.",
            [(_count_connects(past), FOR_DATABASE), (_count_locks(past), FOR_LOCK)],
        ),
        made.count(
            "targets",
            "{target}",
            "Targets of fleets, by what came of them.",
            [
                (ending[f"{outcome}_count"], {"migration_gate.outcome": outcome})
                for outcome in OUTCOMES
                if ending.get(f"{outcome}_count") is not None
            ],
        ),
    ]
    told = [metric for metric in metrics if metric is not None]
    scope = {"scope": SCOPE, "metrics": told}
    return {
        "resourceMetrics": [
            {"resource": to_resource(resource), "scopeMetrics": [scope]}
        ]
    }


def _count_connects(past: Past) -> int:
    """Return how many attempts there were but the first; not each of them is logged."""
    answered = [
        r.fields["attempt"] for r in past.records if r.event == "database.ready"
    ]
    tried = [
        record.fields["attempt"]
        for record in past.records
        if record.event == "database.retry_scheduled"
    ]
    return (
        sum(attempt - 1 for attempt in answered) if answered else max(tried, default=0)
    )


def _count_locks(past: Past) -> int:
    return sum(record.event == "migration.retry_scheduled" for record in past.records)


class _Maker:
    """Makes metrics of one run: the same time, the same attributes on all of them."""

    def __init__(self, past: Past, temporality: int) -> None:
        self._temporality = temporality
        self._times = {
            "startTimeUnixNano": str(past.started_ns),
            "timeUnixNano": str(past.ended_ns),
        }
        self._common: Attributes = {
            **database_attributes(past),
            **to_own(past.first("gate.started"), "command"),
        }

    def count(
        self,
        name: str,
        unit: str,
        description: str,
        points: Sequence[tuple[int, Attributes]],
    ) -> dict[str, Any] | None:
        """Return a counter; None where there is nothing to tell of."""
        if not points:
            return None
        data = [
            {**self._point(attributes), "asInt": str(count)}
            for count, attributes in points
        ]
        kind = {"isMonotonic": True, **self._kind(data)}
        return {**_describe(name, unit, description), "sum": kind}

    def spread(
        self,
        name: str,
        description: str,
        points: Sequence[tuple[Sequence[float], Attributes]],
    ) -> dict[str, Any] | None:
        """Return a histogram of seconds; None where there is nothing to tell of."""
        data = [
            {**self._point(attributes), **_to_buckets(values)}
            for values, attributes in points
            if values
        ]
        if not data:
            return None
        return {**_describe(name, "s", description), "histogram": self._kind(data)}

    def _kind(self, points: list[dict[str, Any]]) -> dict[str, Any]:
        return {"aggregationTemporality": self._temporality, "dataPoints": points}

    def _point(self, attributes: Attributes) -> dict[str, Any]:
        said = to_attributes({**self._common, **attributes})
        return {**self._times, "attributes": said}


def _describe(name: str, unit: str, description: str) -> dict[str, str]:
    return {"name": f"migration_gate.{name}", "unit": unit, "description": description}


def _to_buckets(values: Sequence[float]) -> dict[str, Any]:
    """Return a histogram: what is up to each bound, and at last what is over all."""
    counts = [0] * (len(BOUNDS_S) + 1)
    for value in values:
        counts[bisect_left(BOUNDS_S, value)] += 1
    return {
        "count": str(len(values)),
        "sum": sum(values),
        "min": min(values),
        "max": max(values),
        "bucketCounts": [str(count) for count in counts],
        "explicitBounds": list(BOUNDS_S),
    }
