"""
A run as OpenTelemetry's own collector and Prometheus see it.

    python -m tests.real_collector [COLLECTOR]

Runs gates that send to a real collector, which is configured by
observability/collector.yaml, and asks it, and a Prometheus that scrapes it, what they
have seen; then gates whose collector is away, deaf or slow, side by side. Prints what
it finds, and ends with 1 when something differs. real_collector.yaml says how the
collector is built; Prometheus is Debian's package.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from psycopg.conninfo import make_conninfo

from dev.postgres import Server
from tests.collector import Collector
from tests.fix_identity import Reply
from tests.fix_postgres import database_of
from tests.polling import until
from tests.project.dashboard_rules import queries
from tests.project.test_observability import prometheus_names


ROOT: Final = Path(__file__).resolve().parents[1]
BUILT: Final = ROOT / ".cache/otelcol/otelcol"
TRACE: Final = "0af7651916cd43dd8448eb211c80319c"
PARENT: Final = "b7ad6b7169203331"
FILES: Final = {
    "001_a.sql": "CREATE TABLE a (id int);",
    "002_b.sql": "CREATE INDEX CONCURRENTLY i ON a (id);",
}
BROKEN: Final = {**FILES, "003_c.sql": "INSERT INTO a VALUES (1);\nSELECT 1/0;"}
FLEET: Final = {
    "GATE_TARGETS": "schemas:SELECT nspname FROM pg_namespace WHERE nspname ~ '^shop'"
}
WAIT_S: Final = 60.0
TIMES: Final = 5


def main(collector: Path) -> int:
    """Run all of it; return how many differences there are."""
    faults: list[str] = []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(Server(f"real-collector-{os.getpid()}"))
        otlp, scrape, web = (free_port() for _ in range(3))
        log = stack.enter_context(run_collector(collector, folder, otlp, scrape))
        stack.enter_context(run_prometheus(folder, scrape, web))
        env = {
            "DATABASE_URL": make_conninfo("", **server.conninfo),
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{otlp}",
            "TRACEPARENT": f"00-{TRACE}-{PARENT}-01",
        }
        codes = [gate(folder, env, files) for files in (FILES, FILES, BROKEN)]
        database_of(server).execute("CREATE SCHEMA shop_1; CREATE SCHEMA shop_2")
        codes.append(gate(folder, {**env, **FLEET}, FILES))
        faults += differ("exit codes", [0, 0, 1, 0], codes)
        faults += judge_traces(log)
        faults += judge_metrics(scrape, web)
        faults += judge_costs(folder, env["DATABASE_URL"])
    print(*faults, f"{len(faults)} differences", sep="\n")  # noqa: T201
    return len(faults)


def differ(what: str, expected: object, found: object) -> list[str]:
    """Say a difference, and what was found anyhow."""
    print(f"{what}: {found}")  # noqa: T201
    return [] if expected == found else [f"{what}: expected {expected}"]


def judge_traces(log: Path) -> list[str]:
    """Compare the spans that the collector printed, by run."""
    until(lambda: log.read_text().count("migration-gate migrate") == 4, WAIT_S)
    text = log.read_text()
    spans = [
        (found["name"].strip(), found["trace"], found["parent"])
        for found in re.finditer(
            r"Trace ID +: (?P<trace>\w+)\s+Parent ID +: (?P<parent>\w*)\s+ID +: \w+\s+"
            r"Name +: (?P<name>[^\n]+)",
            text,
        )
    ]
    roots = [parent for name, _, parent in spans if name == "migration-gate migrate"]
    names = [name for name, _, _ in spans]
    applied = ["wait for database", "wait for lock", *["apply migration"] * 2]
    expected = [
        *("migration-gate migrate", *applied),
        *("migration-gate migrate", "wait for database"),
        *("migration-gate migrate", "wait for database", "wait for lock"),
        "apply migration",
        *("migration-gate migrate", "migrate target", "migrate target"),
    ]
    return [
        *differ("spans", expected, names),
        *differ("traces", {TRACE}, {trace for _, trace, _ in spans}),
        *differ("parents of the runs", {PARENT}, set(roots)),
        *differ("exceptions", 2, text.count("Name: exception")),
        *differ("SQLSTATE", 2, text.count("db.response.status_code: Str(22012)")),
        *differ("SQL in a trace", [], re.findall("INSERT|1/0", text)),
    ]


def judge_metrics(scrape: int, web: int) -> list[str]:
    """Compare names and totals, and ask the dashboard's queries."""
    told = fetch(f"http://127.0.0.1:{scrape}/metrics")
    names = set(re.findall(r"^(migration_gate_\w+)\{", told, re.MULTILINE))
    asked = "sum by (migration_gate_verdict) (migration_gate_runs_total)"
    until(lambda: len(ask(web, asked)) == 2, WAIT_S)
    runs = {
        each["metric"]["migration_gate_verdict"]: int(each["value"][1])
        for each in ask(web, asked)
    }
    answered = [len(ask(web, query)) > 0 for query in queries("prometheus")]
    return [
        *differ("metrics", set(prometheus_names()), names),
        *differ("runs in Prometheus", {"open": 3, "closed": 1}, runs),
        *differ("queries of the dashboard that are understood", 9, len(answered)),
    ]


def judge_costs(folder: Path, url: str) -> list[str]:
    """Compare how long a gate with nothing to do takes, by how its collector is."""
    hung, slow = [Reply(is_hung=True)] * 99, [Reply(status=503)] * 99
    faults, took = [], {}
    with Collector() as deaf, Collector() as failing, Collector() as well:
        deaf.fail(*hung)
        failing.fail(*slow)
        endpoints = {
            "not asked for": "",
            "well": well.url,
            "answers 503": failing.url,
            "away": f"http://127.0.0.1:{free_port()}",
            "deaf": deaf.url,
            "no such name": "http://nowhere.invalid:4318",
        }
        for name, endpoint in endpoints.items():
            env = {"DATABASE_URL": url, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
            times = []
            for _ in range(TIMES):
                started_s = time.monotonic()
                faults += (
                    [] if gate(folder, env, FILES) == 0 else [f"{name}: exit code"]
                )
                times.append(time.monotonic() - started_s)
            took[name] = round(min(times), 3)
    plain = took["not asked for"]
    late = [name for name, each in took.items() if each - plain > 1.5]
    return [*faults, *differ("seconds", [], late), *differ("taken", took, took)]


def gate(folder: Path, env: Mapping[str, str], files: Mapping[str, str]) -> int:
    """Run a gate, and return its exit code."""
    migrations = folder / "migrations"
    shutil.rmtree(migrations, ignore_errors=True)
    migrations.mkdir()
    for name, content in files.items():
        (migrations / name).write_text(content)
    return subprocess.run(
        [sys.executable, str(ROOT / "entrypoint.py")],
        check=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={"PATH": os.defpath, "GATE_MIGRATIONS": str(migrations), **env},
    ).returncode


@contextlib.contextmanager
def run_collector(
    collector: Path, folder: Path, otlp: int, scrape: int
) -> Iterator[Path]:
    """Run the collector as observability/collector.yaml has it, but for its ports."""
    config = yaml.safe_load((ROOT / "observability/collector.yaml").read_text())
    config["receivers"]["otlp"]["protocols"]["http"]["endpoint"] = f"127.0.0.1:{otlp}"
    config["exporters"]["prometheus"]["endpoint"] = f"127.0.0.1:{scrape}"
    config["service"]["telemetry"] = {"metrics": {"level": "none"}}
    path, log = folder / "collector.yaml", folder / "collector.log"
    path.write_text(yaml.safe_dump(config))
    with running([str(collector), "--config", str(path)], log):
        until(lambda: "Everything is ready" in log.read_text(), WAIT_S)
        yield log


@contextlib.contextmanager
def run_prometheus(folder: Path, scrape: int, web: int) -> Iterator[None]:
    """Run Prometheus, which scrapes the collector and knows the alerts."""
    path, log = folder / "prometheus.yaml", folder / "prometheus.log"
    target = {"targets": [f"127.0.0.1:{scrape}"]}
    job = {"job_name": "collector", "honor_labels": True, "static_configs": [target]}
    config = {
        "global": {"scrape_interval": "1s"},
        "rule_files": [str(ROOT / "observability/alerts.yaml")],
        "scrape_configs": [job],
    }
    path.write_text(yaml.safe_dump(config))
    command = [
        "prometheus",
        f"--config.file={path}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{web}",
    ]
    with running(command, log):
        until(lambda: "ready to receive web requests" in log.read_text(), WAIT_S)
        yield


@contextlib.contextmanager
def running(command: Sequence[str], log: Path) -> Iterator[None]:
    """Run a program until the end of the block."""
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def ask(web: int, query: str) -> list[dict[str, Any]]:
    """Return what Prometheus answers; raises where it does not understand."""
    words = urllib.parse.urlencode({"query": query})
    answer = json.loads(fetch(f"http://127.0.0.1:{web}/api/v1/query?{words}"))
    found: list[dict[str, Any]] = answer["data"]["result"]
    return found


def fetch(url: str) -> str:
    """Return what stands at an address of this machine."""
    with urllib.request.urlopen(url, timeout=WAIT_S) as answer:  # noqa: S310  # http
        text: str = answer.read().decode()
    return text


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


if __name__ == "__main__":
    sys.exit(bool(main(Path(sys.argv[1]) if len(sys.argv) > 1 else BUILT)))
