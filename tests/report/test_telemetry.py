"""A run seen from outside: ids on its lines, a trace and metrics at its end."""

from __future__ import annotations

import signal
import socket
import time

from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

import pytest
import trustme

from migration_gate.report.otlp import Past, Record
from migration_gate.report.spans import SPANS_MAX, find_spans
from migration_gate.session.lock import lock_keys
from tests.collector import Collector
from tests.fix_gate import Gate, Run
from tests.fix_identity import Reply
from tests.fix_postgres import Database
from tests.polling import until


TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
FILES = {
    "001_a.sql": "CREATE TABLE a (id int);",
    "002_b.sql": "CREATE TABLE b (id int);",
}
SECRET = "c0ffee-bearer"
HUNG = Reply(is_hung=True)
LOCK_KEY = lock_keys("public", "schema_migrations").lock
# What a gate may take longer for a collector, and what a loaded machine adds.
COST_S = 1.0
SLACK_S = 5.0


@pytest.fixture
def collector() -> Iterator[Collector]:
    """Return what stands in for a collector."""
    with Collector() as made:
        yield made


def sending_to(collector: Collector, **more: str) -> dict[str, str]:
    """Return the variables of a gate that sends there."""
    return {ENDPOINT: collector.url, **more}


def ids(run: Run) -> set[tuple[str | None, str | None]]:
    """Return the ids that the lines of a run have."""
    return {(event.get("trace_id"), event.get("span_id")) for event in run.events}


def not_sent(run: Run) -> str:
    """Return why something was not sent."""
    assert run.names[-2:] == ["telemetry.not_sent", run.verdict["event"]]
    reason: str = run.events[-2]["reason"]
    return reason


def unused_port() -> int:
    """Return a port that nobody listens at."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port: int = server.getsockname()[1]
        return port


def test_a_fleet_is_a_trace_with_a_span_for_each_target(
    gate: Gate, database: Database, collector: Collector
) -> None:
    """One that fails has its own reason and place; the metric counts what came."""
    for name in ("a", "b", "c"):
        database.execute(f"CREATE SCHEMA tenant_{name}")
    database.execute("CREATE TABLE tenant_b.a ()")
    query = "SELECT nspname FROM pg_namespace WHERE nspname ~ '^tenant_'"
    fleet = {"GATE_TARGETS": f"schemas:{query}"}
    run = gate(env=sending_to(collector, **fleet), database=database, migrations=FILES)
    assert run.exit_code == 1
    root, *below = collector.spans()
    targets = {
        span.attributes["migration_gate.target"]: span
        for span in below
        if span.name == "migrate target"
    }
    assert targets.keys() == {"tenant_a", "tenant_b", "tenant_c"}
    failed = {name for name, span in targets.items() if span.status}
    assert failed == {"tenant_b"}
    assert targets["tenant_b"].attributes["db.response.status_code"] == "42P07"
    assert targets["tenant_a"].attributes["migration_gate.applied_count"] == 2
    assert {span.parent_id for span in below} == {root.span_id}
    assert [
        (attributes["migration_gate.outcome"], count)
        for attributes, count in collector.metrics()["migration_gate.targets"]
    ] == [("done", 2), ("failed", 1), ("left", 0), ("gone", 0)]


def test_a_run_is_a_trace(gate: Gate, database: Database, collector: Collector) -> None:
    """A span for the run, for each wait, for each migration; the pipeline's goes on."""
    run = gate(
        env=sending_to(collector, TRACEPARENT=TRACEPARENT, TRACESTATE="ci=7"),
        database=database,
        migrations=FILES,
    )
    assert run.exit_code == 0
    root, *below = collector.spans()
    assert (root.name, root.kind, root.parent_id) == (
        "migration-gate migrate",
        1,
        PARENT,
    )
    assert [(span.name, span.kind) for span in below] == [
        ("wait for database", 3),
        ("wait for lock", 3),
        ("apply migration", 3),
        ("apply migration", 3),
    ]
    assert {span.trace_id for span in (root, *below)} == {TRACE}
    assert {span.parent_id for span in below} == {root.span_id}
    assert {span.state for span in (root, *below)} == {"ci=7"}
    assert len({span.span_id for span in (root, *below)}) == len(below) + 1
    for span in below:
        assert root.started_ns <= span.started_ns <= span.ended_ns <= root.ended_ns
    assert ids(run) == {(TRACE, root.span_id)}


def test_a_span_says_what_it_is_about(
    gate: Gate, database: Database, collector: Collector
) -> None:
    """By the conventions' names where there are some, and by the log's."""
    run = gate(env=sending_to(collector), database=database, migrations=FILES)
    root, *_, last = collector.spans()
    environ = database.environ()
    server = {
        "db.system.name": "postgresql",
        "db.namespace": database.name,
        "server.address": environ["POSTGRES_HOST"],
        "server.port": int(environ["POSTGRES_PORT"]),
    }
    pid = root.attributes["process.pid"]
    assert root.attributes == {
        **server,
        "process.executable.name": "migration-gate",
        "process.pid": pid,
        "process.exit.code": 0,
        "migration_gate.command": "migrate",
        "migration_gate.migration_count": 2,
        "migration_gate.pending_count": 2,
        "migration_gate.applied_count": 2,
        "migration_gate.spans_left_out": 0,
    }
    applied = run.all("migration.applied")[-1]
    started = run.all("migration.started")[-1]
    assert last.attributes == {
        **server,
        **{
            f"migration_gate.{name}": value
            for name, value in {**started, **applied}.items()
            if name not in run.events[0] or name == "version"
        },
    }
    assert last.status == root.status == {}


def test_without_a_pipeline_a_run_is_a_trace_of_its_own(
    gate: Gate, database: Database, collector: Collector
) -> None:
    """Its ids are on its lines, so that the log leads to the trace."""
    run = gate(env=sending_to(collector), database=database, migrations=FILES)
    root = collector.spans()[0]
    assert root.parent_id == ""
    assert ids(run) == {(root.trace_id, root.span_id)}


def test_the_ids_of_the_pipeline_are_on_each_line(
    gate: Gate, database: Database
) -> None:
    """Without an endpoint they are its own; nothing is sent anywhere."""
    env = {"TRACEPARENT": TRACEPARENT}
    run = gate(env=env, database=database, migrations=FILES)
    assert ids(run) == {(TRACE, PARENT)}


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "nonsense",
        f"00-{TRACE}-{PARENT}",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01-more",
        f"00-{TRACE.upper()}-{PARENT}-01",
    ],
)
def test_a_malformed_traceparent_counts_as_none(gate: Gate, traceparent: str) -> None:
    """As W3C's recommendation says."""
    run = gate(env={"TRACEPARENT": traceparent})
    assert ids(run) == {(None, None)}


def test_a_later_form_of_traceparent_is_read_as_far_as_it_is_known(gate: Gate) -> None:
    """It may have more at its end."""
    run = gate(env={"TRACEPARENT": f"01-{TRACE}-{PARENT}-01-more"})
    assert ids(run) == {(TRACE, PARENT)}


def test_a_trace_that_nobody_keeps_is_not_sent(
    gate: Gate, database: Database, collector: Collector
) -> None:
    """The sampled flag is the pipeline's decision; metrics are sent all the same."""
    env = sending_to(collector, TRACEPARENT=f"00-{TRACE}-{PARENT}-00")
    run = gate(env=env, database=database, migrations=FILES)
    assert [asked.path for asked in collector.endpoint.asked] == ["/v1/metrics"]
    assert ids(run) == {(TRACE, PARENT)}


def test_a_failing_migration_is_an_event_with_its_place(
    gate: Gate, database: Database, collector: Collector
) -> None:
    """The reason, the SQLSTATE, file, line and column; no SQL and no row."""
    run = gate(
        env=sending_to(collector),
        database=database,
        migrations={
            **FILES,
            "003_c.sql": "INSERT INTO a VALUES (1), (1);\n"
            "ALTER TABLE a ADD CONSTRAINT one UNIQUE (id);",
        },
    )
    assert run.exit_code == 1
    root, *below = collector.spans()
    (failed,) = (span for span in below if span.status)
    place = {
        "error.type": "migration_failed",
        "db.response.status_code": "23505",
        "code.file.path": "003_c.sql",
        "code.line.number": 2,
    }
    message = run.verdict["message"].removeprefix("Gate closed: ")
    exception = {
        "exception.type": "migration_failed",
        "exception.message": message,
    }
    for span in (root, failed):
        assert place.items() <= span.attributes.items()
        assert span.events == [("exception", exception)]
        assert span.status == {"code": 2, "message": message}
    assert failed.attributes["migration_gate.version"] == "003_c.sql"
    sent = collector.requests("/v1/traces")[0].body
    assert "INSERT" not in sent
    assert "(1)" not in sent


def test_with_full_detail_postgresqls_words_stay_in_the_log(
    gate: Gate, database: Database, collector: Collector
) -> None:
    """They may be made of rows, and a trace goes elsewhere."""
    run = gate(
        env=sending_to(collector, GATE_LOG_DETAIL="full"),
        database=database,
        migrations={"1_a.sql": "DO $$ BEGIN RAISE 'row of alice'; END $$;"},
    )
    assert "alice" in run.stdout
    for asked in collector.endpoint.asked:
        assert "alice" not in asked.body
    assert collector.spans()[0].status["message"] == "migration_failed"


def test_a_wait_for_another_gate_is_a_span(
    gate: Gate, database: Database, collector: Collector
) -> None:
    """As long as it took, with an event each heartbeat."""
    with database.connect(application_name="migration-gate/0.0.0") as holder:
        holder.execute("SELECT pg_advisory_lock(%s)", [LOCK_KEY])
        process = gate.start(
            env=sending_to(collector, GATE_HEARTBEAT="50ms"),
            database=database,
            migrations=FILES,
        )
        process.wait_for("lock.waiting", count=2)
        holder_pid = holder.info.backend_pid
        holder.execute("SELECT pg_advisory_unlock_all()")
        run = process.wait()
    (span,) = (s for s in collector.spans() if s.name == "wait for lock")
    waited_s = run.verdict["lock_waited_s"]
    assert (span.ended_ns - span.started_ns) / 1e9 == pytest.approx(waited_s, abs=0.2)
    names = [name for name, _ in span.events]
    assert names == ["lock.waiting"] * len(run.all("lock.waiting"))
    assert span.events[0][1]["migration_gate.holder_pid"] == holder_pid
    ((_, database_wait), (_, lock_wait)) = collector.metrics()[
        "migration_gate.wait.duration"
    ]
    assert lock_wait["sum"] == waited_s
    assert database_wait["sum"] == run.verdict["waited_s"]


def test_a_database_that_never_comes_is_a_span_that_failed(
    gate: Gate, collector: Collector
) -> None:
    """With each reason why, and the attempts counted."""
    run = gate(
        env=sending_to(
            collector,
            POSTGRES_HOST="127.0.0.1",
            POSTGRES_PORT=str(unused_port()),
            POSTGRES_USER="u",
            GATE_WAIT_TIMEOUT="300ms",
        ),
        migrations=FILES,
    )
    assert run.exit_code == 1
    _, wait = collector.spans()
    assert wait.name == "wait for database"
    assert wait.attributes["error.type"] == "unreachable"
    names = [name for name, _ in wait.events]
    assert names[-1] == "exception"
    assert names[0] == "database.retry_scheduled"
    (connects, _) = collector.metrics()["migration_gate.retries"]
    assert connects[1] >= 1


def test_metrics_are_what_the_run_adds(
    gate: Gate, database: Database, collector: Collector
) -> None:
    """Runs, time, migrations, waits and retries, with the verdict and the reason."""
    files = {**FILES, "003_c.sql": "SELECT no_such_column;"}
    run = gate(env=sending_to(collector), database=database, migrations=files)
    metrics = collector.metrics()
    assert list(metrics) == [
        "migration_gate.runs",
        "migration_gate.run.duration",
        "migration_gate.migrations",
        "migration_gate.migration.duration",
        "migration_gate.wait.duration",
        "migration_gate.retries",
    ]
    ((attributes, count),) = metrics["migration_gate.runs"]
    assert count == 1
    verdict = {
        "migration_gate.verdict": "closed",
        "error.type": "migration_failed",
        "migration_gate.command": "migrate",
        "db.namespace": database.name,
    }
    assert verdict.items() <= attributes.items()
    ((_, took),) = metrics["migration_gate.run.duration"]
    assert took["sum"] == run.verdict["duration_ms"] / 1000
    assert sum(map(int, took["bucketCounts"])) == int(took["count"]) == 1
    assert len(took["bucketCounts"]) == len(took["explicitBounds"]) + 1
    ((_, applied),) = metrics["migration_gate.migrations"]
    assert applied == 2


@pytest.mark.parametrize(
    ("preference", "temporality"), [("", 1), ("delta", 1), ("cumulative", 2)]
)
def test_metrics_are_differences_unless_totals_are_asked_for(
    gate: Gate, collector: Collector, preference: str, temporality: int
) -> None:
    """A run reports once: the numbers are the same."""
    name = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"
    gate(env=sending_to(collector, **{name: preference}))
    (request,) = collector.requests("/v1/metrics")
    assert f'"aggregationTemporality": {temporality}' in request.body
    assert f'"aggregationTemporality": {3 - temporality}' not in request.body


def test_who_sends_is_said_as_usual(gate: Gate, collector: Collector) -> None:
    """OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, and the pod's own names."""
    gate(
        env=sending_to(
            collector,
            OTEL_SERVICE_NAME="shop-migrations",
            OTEL_RESOURCE_ATTRIBUTES="service.name=x,deployment.environment.name=a%2Cb",
            POD_NAME="shop-1",
        )
    )
    resource = collector.resource()
    del resource["service.version"]
    assert resource == {
        "service.name": "shop-migrations",
        "deployment.environment.name": "a,b",
        "k8s.pod.name": "shop-1",
    }


@pytest.mark.parametrize(
    ("env", "paths"),
    [
        ({"OTEL_SDK_DISABLED": "true"}, []),
        ({"OTEL_TRACES_EXPORTER": "none"}, ["/v1/metrics"]),
        ({"OTEL_METRICS_EXPORTER": "none"}, ["/v1/traces"]),
    ],
)
def test_each_signal_can_be_turned_off(
    gate: Gate, collector: Collector, env: Mapping[str, str], paths: list[str]
) -> None:
    """By OpenTelemetry's own variables."""
    run = gate(env=sending_to(collector, **env))
    assert [asked.path for asked in collector.endpoint.asked] == paths
    assert "telemetry.not_sent" not in run.names


def test_a_signals_own_endpoint_is_taken_as_it_is(
    gate: Gate, collector: Collector
) -> None:
    """Nothing is added to its path; the other signal is not sent."""
    gate(env={"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{collector.url}/own/path"})
    assert [asked.path for asked in collector.endpoint.asked] == ["/own/path"]


@pytest.mark.parametrize(
    ("replies", "reason"),
    [
        ([Reply(status=503)] * 2, "the collector answered 503"),
        ([Reply(status=401), Reply()], "the collector answered 401"),
        ([Reply(is_dropped=True)] * 2, "what answered does not speak HTTP"),
        ([HUNG] * 2, "no answer"),
    ],
)
def test_a_collector_that_fails_changes_no_verdict(
    gate: Gate,
    database: Database,
    collector: Collector,
    replies: list[Reply],
    reason: str,
) -> None:
    """It is said in the line before the last, and costs a second at most."""
    plain = gate(database=database, migrations=FILES)
    collector.fail(*replies)
    process = gate.start(env=sending_to(collector), database=database, migrations=FILES)
    run = process.wait()
    took_s = time.monotonic() - process.started_at
    assert run.exit_code == plain.exit_code == 0
    assert not_sent(run).startswith(reason)
    assert took_s - run.verdict["duration_ms"] / 1000 < COST_S + SLACK_S


def test_a_collector_that_is_away_costs_nothing(gate: Gate) -> None:
    """Nor does it hide why a gate is closed: that is still the last line."""
    run = gate(env={ENDPOINT: f"http://127.0.0.1:{unused_port()}"})
    assert run.exit_code == 1
    assert not_sent(run) == "Connection refused"
    assert run.verdict["reason"] == "settings"


def test_what_was_decided_stands_while_a_collector_hangs(
    gate: Gate, database: Database, collector: Collector
) -> None:
    """The end of GATE_TIMEOUT comes too late to close a gate that is open."""
    collector.fail(HUNG, HUNG)
    process = gate.start(env=sending_to(collector), database=database, migrations=FILES)
    until(lambda: collector.endpoint.asked)
    process.signal(signal.SIGALRM)
    process.signal(signal.SIGALRM)
    run = process.wait()
    assert (run.exit_code, run.verdict["event"]) == (0, "gate.opened")


def test_a_stopped_gate_still_tells_of_it(
    gate: Gate, database: Database, collector: Collector
) -> None:
    """A trace ends with what the signal found it at."""
    process = gate.start(
        env=sending_to(collector),
        database=database,
        migrations={"1_a.sql": "SELECT pg_sleep(60);"},
    )
    process.wait_for("migration.started")
    process.signal(signal.SIGTERM)
    run = process.wait()
    assert run.verdict["reason"] == "interrupted"
    root, *_, migration = collector.spans()
    assert root.attributes["error.type"] == "interrupted"
    assert migration.attributes["migration_gate.version"] == "1_a.sql"


def test_headers_are_sent_and_never_shown(gate: Gate, collector: Collector) -> None:
    """They are how a collector is told who sends."""
    collector.fail(Reply(status=403), Reply(status=403))
    run = gate(
        env=sending_to(
            collector,
            OTEL_EXPORTER_OTLP_HEADERS=f"authorization=Bearer%20{SECRET},x-scope=a",
            GATE_LOG_LEVEL="debug",
        )
    )
    for asked in collector.endpoint.asked:
        assert asked.headers["authorization"] == f"Bearer {SECRET}"
        assert asked.headers["x-scope"] == "a"
    assert SECRET not in run.output


@pytest.mark.parametrize(
    ("env", "reason"),
    [
        (
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "OTEL_EXPORTER_OTLP_PROTOCOL asks for grpc, which the gate does not speak",
        ),
        ({ENDPOINT: "collector:4318"}, f"{ENDPOINT} is not of the form http://"),
        ({ENDPOINT: f"http://u:{SECRET}@h"}, f"{ENDPOINT} is not of the form http://"),
        ({ENDPOINT: "http://otel..svc:4318"}, f"{ENDPOINT} is not of the form http://"),
        (
            {"OTEL_EXPORTER_OTLP_HEADERS": f"a=b%0d%0a{SECRET}"},
            "OTEL_EXPORTER_OTLP_HEADERS is not of the form",
        ),
    ],
)
def test_what_cannot_be_used_is_said_and_closes_nothing(
    gate: Gate,
    database: Database,
    collector: Collector,
    env: Mapping[str, str],
    reason: str,
) -> None:
    """Such variables are set for a whole cluster; the value is not shown."""
    run = gate(
        env={**sending_to(collector), **env}, database=database, migrations=FILES
    )
    assert run.exit_code == 0
    assert not_sent(run).startswith(reason)
    assert SECRET not in run.output
    assert collector.endpoint.asked == []


def test_a_collector_is_certified(gate: Gate, tmp_path: Any) -> None:  # noqa: ANN401
    """By the authority that is named, and by no other."""
    right, wrong = trustme.CA(), trustme.CA()
    right.cert_pem.write_to_path(tmp_path / "right.pem")
    wrong.cert_pem.write_to_path(tmp_path / "wrong.pem")
    with Collector(ca=right) as collector:
        certificate = "OTEL_EXPORTER_OTLP_CERTIFICATE"
        run = gate(
            env=sending_to(collector, **{certificate: str(tmp_path / "right.pem")})
        )
        assert "telemetry.not_sent" not in run.names
        assert len(collector.endpoint.asked) == 2
        run = gate(
            env=sending_to(collector, **{certificate: str(tmp_path / "wrong.pem")})
        )
        assert "unable to get local issuer certificate" in not_sent(run)
        assert len(collector.endpoint.asked) == 2


def test_nothing_of_it_is_loaded_unless_it_is_asked_for(gate: Gate) -> None:
    """It would cost each start its time."""
    run = gate(env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert "migration_gate.report.log" in run.stderr
    for name in ("otlp", "spans", "metrics", "telemetry", "tracing"):
        assert f".{name}\n" not in run.stderr


def test_of_very_many_migrations_some_are_left_out_and_counted() -> None:
    """The first are kept, and the one that failed."""
    versions = [f"{number:04}_x.sql" for number in range(SPANS_MAX + 50)]
    records = [
        Record(at, event, {"version": version, "duration_ms": 1})
        for at, version in enumerate(versions[:-1])
        for event in ("migration.started", "migration.applied")
    ]
    past = Past(
        records=[*records, Record(999, "migration.started", {"version": versions[-1]})],
        started_ns=0,
        ended_ns=1000,
        pid=1,
        ending={"exit_code": 1, "reason": "migration_failed", "file": versions[-1]},
        message="m",
    )
    root, below = find_spans(past)
    assert len(below) == SPANS_MAX + 1
    assert [span.has_failed for span in below] == [*[False] * SPANS_MAX, True]
    assert root.attributes["migration_gate.spans_left_out"] == 49


def test_an_undone_migration_is_a_span_of_its_own_kind(
    gate: Gate, database: Database, collector: Collector
) -> None:
    """With the file that undid it."""
    files = {"1_a.up.sql": "CREATE TABLE a ();", "1_a.down.sql": "DROP TABLE a;"}
    gate(database=database, migrations=files)
    run = gate(
        "rollback", env=sending_to(collector), database=database, migrations=files
    )
    assert run.exit_code == 0
    *_, span = collector.spans()
    assert span.name == "undo migration"
    assert span.attributes["migration_gate.version"] == "1_a.up.sql"
    assert span.attributes["migration_gate.file"] == "1_a.down.sql"
    assert span.events == []
