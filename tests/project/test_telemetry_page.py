"""What the page of telemetry says of variables, spans and metrics is what is done."""

from __future__ import annotations

import re

import pytest

from migration_gate.report.metrics import to_metrics
from migration_gate.report.otlp import Past, Record
from migration_gate.report.spans import SPANS_MAX, find_spans
from migration_gate.report.telemetry import BUDGET_S
from migration_gate.settings.telemetry import telemetry_settings
from tests.project.pages import read, read_code, read_prose, read_table


PAGE = "docs/telemetry.md"
# What the system says, and OpenSSL.
SYSTEM_SAYS = {
    *("Connection refused", "Connection reset by peer", "Name or service not known"),
    *("Temporary failure in name resolution", "certificate"),
}
KINDS = {1: "internal", 3: "client"}
FIELDS = {
    "attempt": 1,
    "waited_s": 0.1,
    "duration_ms": 1,
    "version": "1_a.sql",
    "command": "COMMAND",
    "database": "shop",
    "host": "db",
    "port": "5432",
}
PAST = Past(
    records=[
        Record(at, event, FIELDS)
        for at, event in enumerate(
            (
                *("gate.started", "database.ready", "lock.acquired"),
                *("migration.started", "migration.applied"),
                *("target.opened", "migration.undoing", "migration.undone"),
            )
        )
    ],
    started_ns=0,
    ended_ns=10,
    pid=1,
    ending={
        "exit_code": 0,
        "duration_ms": 1,
        "applied_count": 1,
        "waited_s": 0.1,
        "lock_waited_s": 0.1,
        "done_count": 1,
    },
    message="",
)


def test_the_spans_are_those_of_the_code() -> None:
    """Each with its kind."""
    root, below = find_spans(PAST)
    told = [(read_code(row[0])[0], row[1]) for row in read_table(PAGE, "span")]
    assert told == [(span.name, KINDS[span.kind]) for span in (root, *below)]


def test_the_metrics_are_those_of_the_code() -> None:
    """Each with its kind and its unit."""
    made = to_metrics(PAST, {}, "delta")["resourceMetrics"][0]["scopeMetrics"][0]
    told = [
        (read_code(name)[0], kind, read_code(unit)[0])
        for name, kind, unit, _ in read_table(PAGE, "metric")
    ]
    assert told == [
        (m["name"], "counter" if "sum" in m else "histogram", m["unit"])
        for m in made["metrics"]
    ]


class _Asked(dict[str, str]):
    """An environment that notes which variables are read."""

    def __init__(self, **variables: str) -> None:
        super().__init__(**variables)
        self.names: set[str] = set()

    def get(self, name: str, default: str = "") -> str:  # type: ignore[override]
        self.names.add(name)
        return super().get(name, default)


def test_the_variables_are_those_that_are_read() -> None:
    """None that the page does not know, but what one signal has for itself."""
    environ = _Asked(OTEL_EXPORTER_OTLP_ENDPOINT="http://h:4318")
    assert telemetry_settings(environ) is not None
    own = re.compile("OTEL_EXPORTER_OTLP_(TRACES|METRICS)_(?!ENDPOINT|TEMPORALITY)")
    asked = {
        name
        for name in environ.names
        if name.startswith("OTEL_") and not own.match(name)
    }
    rows = read_table(PAGE, "variable")
    told = {name for row in rows for name in read_code(row[0]) if "OTEL_" in name}
    assert told == asked


def test_the_reasons_are_those_of_the_code() -> None:
    """Or the system's own words."""
    texts = " ".join(
        read(f"migration_gate/{name}.py")
        for name in ("report/telemetry", "settings/telemetry")
    )
    for row in read_table(PAGE, "reason contains"):
        for reason in read_code(row[0]):
            assert reason in texts or reason in SYSTEM_SAYS, reason


@pytest.mark.parametrize("limit", [f"{BUDGET_S * 1000:.0f}", f"{SPANS_MAX}"])
def test_the_limits_are_those_of_the_code(limit: str) -> None:
    """Of time, and of spans."""
    assert limit in read_prose(PAGE)


def test_the_log_page_leads_to_it() -> None:
    """Where the ids are told of."""
    assert "(telemetry.md)" in read("docs/log.md")
