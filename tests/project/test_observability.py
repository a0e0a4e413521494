"""What looks at a gate asks for what there is: events, fields, metrics, labels."""

from __future__ import annotations

import itertools
import json
import re

from collections.abc import Iterator

import pytest
import yaml

from migration_gate.report.events import EVENTS
from migration_gate.report.metrics import to_metrics
from tests.project.dashboard_rules import queries, read_panels
from tests.project.pages import read
from tests.project.test_telemetry_page import PAST


QUERIES = {
    "loki.logql": "#",
    "datadog.txt": "#",
    "azure.kql": "//",
    "cloudwatch.txt": "#",
}
COMMON = {"timestamp", "level", "event", "message"}
FIELDS = COMMON | {field for event in EVENTS for field in event.fields}
KUBERNETES = {
    *("kube_job_failed", "kube_pod_init_container_status_restarts_total"),
    "kube_pod_init_container_status_running",
}
UNITS = {"s": "_seconds"}
# Fields of the log, as each language writes them.
SPELLINGS = {
    "loki.logql": r"\{\{\.(\w+)\}\}|(?:by \(|unwrap )(\w+)",
    "datadog.txt": r"@(\w+)",
    "azure.kql": r"line\.(\w+)",
    "cloudwatch.txt": r"(?:by |max\(|filter |fields @timestamp, )(\w+)",
}


def prometheus_names() -> Iterator[str]:
    """Yield what a collector's exporter calls the metrics, in Prometheus."""
    past = PAST._replace(ending={**PAST.ending, "reason": "files"})
    (scope,) = to_metrics(past, {}, "delta")["resourceMetrics"][0]["scopeMetrics"]
    for metric in scope["metrics"]:
        name = metric["name"].replace(".", "_") + UNITS.get(metric["unit"], "")
        if "sum" in metric:
            yield f"{name}_total"
        else:
            yield from (f"{name}_{part}" for part in ("bucket", "sum", "count"))


def labels() -> set[str]:
    """Return the labels that they have there."""
    past = PAST._replace(ending={**PAST.ending, "reason": "files"})
    (scope,) = to_metrics(past, {}, "delta")["resourceMetrics"][0]["scopeMetrics"]
    return {
        attribute["key"].replace(".", "_")
        for metric in scope["metrics"]
        for point in metric.get("sum", metric.get("histogram"))["dataPoints"]
        for attribute in point["attributes"]
    }


def promql() -> list[str]:
    """Return every query to Prometheus: the alerts' and the dashboard's."""
    groups = yaml.safe_load(read("observability/alerts.yaml"))["groups"]
    return [
        *(rule["expr"] for group in groups for rule in group["rules"]),
        *queries("prometheus"),
    ]


@pytest.mark.parametrize("query", promql())
def test_a_query_names_metrics_that_there_are(query: str) -> None:
    """By the names that a collector gives them."""
    named = set(re.findall(r"\b(?:migration_gate|kube)_\w+(?=\{|\[)", query))
    assert named
    assert named <= {*prometheus_names(), *KUBERNETES}


@pytest.mark.parametrize("query", [q for q in promql() if "kube_" not in q])
def test_a_query_names_labels_that_there_are(query: str) -> None:
    """Those that are compared, and those that it is summed by."""
    compared = re.findall(r"(\w+)=~?\"", query)
    grouped = itertools.chain(
        *(m.split(",") for m in re.findall(r"by \(([^)]+)", query))
    )
    assert {*compared, *(name.strip() for name in grouped)} <= {*labels(), "le"}


@pytest.mark.parametrize("file", QUERIES)
def test_the_same_questions_are_asked_everywhere(file: str) -> None:
    """Of each log, in the same order."""
    text = read(f"observability/queries/{file}")
    heads = re.findall(rf"^{QUERIES[file]} ([^:\n]+)(?::.*)?$", text, re.MULTILINE)
    heads = [head.partition(", in the last")[0] for head in heads]
    assert [head.partition(", in milli")[0] for head in heads] == [
        "How runs ended",
        "Why gates are closed",
        "What to do",
        "The slowest migrations",
        "Who was in the way of a migration",
        "Warnings that are worth a look",
    ]


@pytest.mark.parametrize(
    "text",
    [*(read(f"observability/queries/{file}") for file in QUERIES), *queries("loki")],
)
def test_a_query_names_events_that_there_are(text: str) -> None:
    """All that look like one."""
    named = re.findall(r"\b(?:gate|migration|lock|database|history)\.[a-z_]+\b", text)
    assert set(named) <= {event.name for event in EVENTS}


@pytest.mark.parametrize("file", QUERIES)
def test_a_query_names_fields_that_there_are(file: str) -> None:
    """Of any event."""
    found = re.findall(SPELLINGS[file], read(f"observability/queries/{file}"))
    named = {"".join(each) for each in found}
    assert named
    assert named <= FIELDS


def test_the_panels_say_what_they_show_and_lie_side_by_side() -> None:
    """None over another, none beyond the edge."""
    taken: set[tuple[int, int]] = set()
    for panel in read_panels():
        assert panel["title"]
        assert panel["description"]
        place = panel["gridPos"]
        columns = range(place["x"], place["x"] + place["w"])
        rows = range(place["y"], place["y"] + place["h"])
        cells = set(itertools.product(columns, rows))
        assert max(columns) < 24
        assert not cells & taken
        taken |= cells


def test_the_collector_listens_where_the_page_says() -> None:
    """And makes totals of differences, which Prometheus cannot."""
    collector = yaml.safe_load(read("observability/collector.yaml"))
    assert "4318" in collector["receivers"]["otlp"]["protocols"]["http"]["endpoint"]
    assert "4318" in read("docs/telemetry.md")
    (processor,) = collector["service"]["pipelines"]["metrics"]["processors"]
    assert processor == "deltatocumulative"
    assert processor in read("docs/telemetry.md")


def test_the_dashboard_names_no_source_of_its_own() -> None:
    """Whoever imports it chooses."""
    dashboard = json.loads(read("observability/dashboard.json"))
    sources = {panel["datasource"]["uid"] for panel in dashboard["panels"]}
    assert sources == {"${prometheus}", "${loki}"}
    chosen = [v["name"] for v in dashboard["templating"]["list"]]
    assert chosen == ["prometheus", "loki", "database", "container"]
