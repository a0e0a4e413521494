"""
The dashboard's queries to Prometheus, as rules that promtool can check.

    python -m tests.project.dashboard_rules > rules.yaml
"""

from __future__ import annotations

import json

from collections.abc import Iterator
from typing import Any, Final

import yaml

from tests.project.pages import read


# What Grafana fills in.
FILLED_IN: Final = {
    "$__rate_interval": "5m",
    "$__range": "1h",
    "$database": "shop",
    "$container": "gate|check",
}


def read_panels() -> list[dict[str, Any]]:
    """Return the panels of the dashboard."""
    panels: list[dict[str, Any]] = json.loads(read("observability/dashboard.json"))[
        "panels"
    ]
    return panels


def queries(kind: str) -> Iterator[str]:
    """Yield the queries to one kind of source."""
    for panel in read_panels():
        if panel["datasource"]["type"] == kind:
            for target in panel["targets"]:
                query: str = target["expr"]
                for name, value in FILLED_IN.items():
                    query = query.replace(name, value)
                yield query


if __name__ == "__main__":
    rules = [
        {"record": f"panel:{number}", "expr": query}
        for number, query in enumerate(queries("prometheus"))
    ]
    print(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))  # noqa: T201
