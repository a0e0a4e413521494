"""
A token for each connection: fresh, never shown, waited for, and given up in time.

The endpoint is that of a container app; what is here is the same for every cloud.
"""

from __future__ import annotations

import signal
import threading
import time

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.connection.test_login_azure import FILES, app_service, container_app
from tests.fix_gate import Gate
from tests.fix_identity import (
    FAULTS,
    TOLD,
    TOLD_PARTS,
    Answer,
    Endpoints,
    Mint,
    Question,
    Reply,
    free_port,
    leaking,
)
from tests.fix_postgres import Database
from tests.polling import until


# Servers of their own, and an SDK to load: a loaded machine needs longer.
pytestmark = pytest.mark.timeout(60)
STOP_S = 5.0
WAITING_ONE = (
    "FROM pg_stat_activity WHERE wait_event = 'advisory' AND datname ="
    " current_database()"
)
WAITING = f"SELECT pid {WAITING_ONE}"
HERD = 4


def test_whatever_an_endpoint_answers_but_a_refusal_is_waited_for(
    gate: Gate, mint: Mint, endpoints: Endpoints
) -> None:
    """Throttled, at fault, in somebody's way, nothing, half of it: then it answers."""
    endpoint = endpoints(app_service(mint))
    endpoint.faults = list(FAULTS.values())
    run = gate(
        env={**container_app(mint, endpoint), "GATE_HEARTBEAT": "1ms"}, migrations=FILES
    )
    assert run.exit_code == 0, run.output
    retries = run.all("database.retry_scheduled")
    assert {retry["reason"] for retry in retries} == {"identity_away"}
    assert len(retries) == len(FAULTS)
    assert len(endpoint.asked) == len(FAULTS) + 1
    assert "HTTP 429, too_many_requests" in retries[0]["error_message"]
    assert [retry["wait_s"] >= 1 for retry in retries] == [
        fault == "throttled" for fault in FAULTS
    ]
    assert "access_token" not in run.output


def test_an_endpoint_that_comes_late_is_waited_for(
    gate: Gate, mint: Mint, endpoints: Endpoints
) -> None:
    """As a database is: a sidecar may be about to start it."""
    port = free_port()
    endpoint = endpoints(app_service(mint))
    environ = container_app(mint, endpoint)
    environ["IDENTITY_ENDPOINT"] = f"http://127.0.0.1:{port}/msi/token"
    process = gate.start(env=environ, migrations=FILES)
    retry = process.wait_for("database.retry_scheduled")
    assert retry["reason"] == "identity_away"
    endpoints(app_service(mint), port=port)
    assert process.wait().exit_code == 0


def test_an_endpoint_that_stays_away_closes_the_gate_with_its_remedy(
    gate: Gate, mint: Mint, endpoints: Endpoints
) -> None:
    """At the end of the wait, and no later for what an SDK would do."""
    environ = container_app(mint, endpoints(app_service(mint)))
    environ["IDENTITY_ENDPOINT"] = f"http://127.0.0.1:{free_port()}/msi/token"
    run = gate("wait", env={**environ, "GATE_WAIT_TIMEOUT": "1s"})
    assert (run.exit_code, run.verdict["reason"]) == (1, "unreachable")
    assert "managed identity does not answer" in run.verdict["error_message"]
    assert "az … identity assign" in run.verdict["hint"]
    assert run.verdict["duration_ms"] < 4000


def test_an_answer_that_never_comes_to_its_end_is_given_up(
    gate: Gate, mint: Mint, endpoints: Endpoints
) -> None:
    """Each byte is in time, which is all that an SDK looks at."""
    endpoint = endpoints(lambda _: Reply(body="x" * 900, is_dribbled=True))
    environ = {**container_app(mint, endpoint), "GATE_WAIT_TIMEOUT": "1s"}
    run = gate("wait", env=environ)
    assert (run.exit_code, run.verdict["reason"]) == (1, "unreachable")
    assert "does not answer (not whole within 1 s)" in run.verdict["error_message"]
    assert run.verdict["duration_ms"] < 5000


@pytest.mark.parametrize("way", ["SIGTERM", "GATE_TIMEOUT"])
def test_a_stop_is_heeded_while_an_endpoint_says_nothing(
    gate: Gate, mint: Mint, endpoints: Endpoints, way: str
) -> None:
    """Inside the SDK, which would wait on."""
    endpoint = endpoints(lambda _: Reply(is_hung=True))
    limit = {"GATE_TIMEOUT": "4s"} if way == "GATE_TIMEOUT" else {}
    process = gate.start("wait", env={**container_app(mint, endpoint), **limit})
    until(lambda: endpoint.asked, STOP_S * 4)
    started_s = time.monotonic()
    if way == "SIGTERM":
        process.signal(signal.SIGTERM)
    run = process.wait()
    assert time.monotonic() - started_s < STOP_S
    assert run.exit_code == 1
    expected = "interrupted" if way == "SIGTERM" else "deadline"
    assert run.verdict["reason"] == expected
    assert "to get a token of azure" in run.verdict["error_message"]


def test_a_token_that_the_server_refuses_is_not_used_again(
    gate: Gate, mint: Mint, endpoints: Endpoints
) -> None:
    """It had expired by the server's clock, or the role was made meanwhile."""
    issue = app_service(mint)

    def stale_at_first(question: Question) -> Reply:
        reply = issue(question)
        if len(mint.issued) == 1:
            mint.rotate()
        return reply

    endpoint = endpoints(stale_at_first)
    run = gate(env=container_app(mint, endpoint), migrations=FILES)
    assert run.exit_code == 0, run.output
    assert run.one("database.retry_scheduled")["reason"] == "login_refused"
    assert len(mint.issued) == 2


def test_a_token_that_is_good_for_under_five_minutes_is_not_kept(
    gate: Gate, mint: Mint, endpoints: Endpoints
) -> None:
    """Each of the connections of a run that applies asks for its own."""
    endpoint = endpoints(app_service(mint))
    mint.lifetime_s = 200
    run = gate(env=container_app(mint, endpoint), migrations=FILES)
    assert run.exit_code == 0, run.output
    assert len(mint.issued) > 1


def test_a_clock_that_is_wrong_by_ten_minutes_keeps_nobody_out(
    gate: Gate, mint: Mint, endpoints: Endpoints
) -> None:
    """A token that has expired by the gate's clock is used, and not kept."""
    endpoint = endpoints(app_service(mint))
    mint.lifetime_s = -600
    run = gate(env=container_app(mint, endpoint), migrations=FILES)
    assert run.exit_code == 0, run.output


def test_a_role_that_is_not_made_is_told_with_the_statement_that_makes_it(
    gate: Gate, mint: Mint, endpoints: Endpoints
) -> None:
    """The server says no more than that the login fails."""
    environ = container_app(mint, endpoints(app_service(mint)))
    role = {"POSTGRES_USER": "nobody-made-this", "GATE_AUTH_GRACE": "0"}
    run = gate(env={**environ, **role}, migrations=FILES)
    assert (run.exit_code, run.verdict["reason"]) == (1, "refused")
    assert "pgaadauth_create_principal(" in run.verdict["hint"]


def test_without_a_mode_the_server_is_verified_by_the_roots_of_the_system(
    gate: Gate, mint: Mint, endpoints: Endpoints
) -> None:
    """One that they do not know gets no token; the line says how to have it so."""
    environ = container_app(mint, endpoints(app_service(mint)))
    root = environ.pop("PGSSLROOTCERT")
    known = gate("wait", env={**environ, "SSL_CERT_FILE": root})
    assert known.exit_code == 0, known.output
    unknown = gate("wait", env=environ)
    assert (unknown.exit_code, unknown.verdict["reason"]) == (1, "unreachable")
    assert "certificate verify failed" in unknown.verdict["error_message"]
    assert "POSTGRES_SSL_MODE=require is said" in unknown.verdict["hint"]


# What each command is given, and how it ends where one migration is applied.
OTHERS: Mapping[tuple[str, ...], int] = {
    ("check",): 0,
    ("status",): 0,
    ("plan",): 0,
    ("wait",): 0,
    ("migrate",): 0,
    ("baseline", "1"): 1,
    ("adopt", "--from", "goose"): 1,
    ("resolve", "--applied", "1"): 0,
    ("rollback", "--dry-run"): 1,
}


def answer_once(answer: Answer) -> Answer:
    """Give everybody the same answer, as the platforms do while a token is good."""
    given: list[Reply] = []
    asking = threading.Lock()

    def again(question: Question) -> Reply:
        with asking:
            if not given:
                given.append(answer(question))
            return given[0]

    return again


@pytest.mark.thorough
def test_every_command_logs_in_like_that(
    gate: Gate, mint: Mint, endpoints: Endpoints
) -> None:
    """No connection is opened in another way: each asks once, and finds the table."""
    endpoint = endpoints(answer_once(app_service(mint)))
    environ = container_app(mint, endpoint)
    assert gate(env=environ, migrations=FILES).exit_code == 0
    processes = {
        command: gate.start(*command, env=environ, migrations=FILES)
        for command in OTHERS
    }
    runs = {command: process.wait(60) for command, process in processes.items()}
    assert {command: run.exit_code for command, run in runs.items()} == OTHERS, runs
    assert len(endpoint.asked) == 1 + len(OTHERS)
    for run in runs.values():
        assert "could not log in" not in run.output
        assert mint.issued[0] not in run.output


@pytest.mark.parametrize(
    ("login", "shadow", "package"),
    [
        ("azure", "azure", "azure-identity"),
        ("aws", "botocore", "botocore"),
        ("google", "google", "google-auth"),
    ],
)
def test_an_image_without_the_sdk_says_which_one_has_it(
    gate: Gate, tmp_path: Path, login: str, shadow: str, package: str
) -> None:
    """At once, whether or not the database is there."""
    (tmp_path / shadow).mkdir()
    (tmp_path / shadow / "__init__.py").touch()
    environ = {
        "PYTHONPATH": str(tmp_path),
        "GATE_LOGIN": login,
        "PGHOST": "nowhere.invalid",
        "PGUSER": "app",
    }
    run = gate("wait", env=environ)
    assert (run.exit_code, run.verdict["reason"]) == (1, "settings")
    assert run.verdict["error_message"] == (
        f"GATE_LOGIN asks for {login}, and {package} is not installed here"
    )
    assert f"--build-arg EXTRAS={login}" in run.verdict["hint"]


@pytest.mark.parametrize("kind", leaking(""))
def test_nothing_of_an_answer_is_shown_but_a_code(
    gate: Gate, mint: Mint, endpoints: Endpoints, kind: str
) -> None:
    """At every level, whatever the endpoint says."""
    endpoint = endpoints(lambda _: leaking(TOLD)[kind])
    now = {"GATE_WAIT_TIMEOUT": "0", "GATE_AUTH_GRACE": "0"}
    run = gate("wait", env={**container_app(mint, endpoint), **now})
    assert run.exit_code == 1
    assert [part for part in TOLD_PARTS if part in run.output] == []


def loaded_by(run_stderr: str) -> set[str]:
    """Return the first parts of the modules that a verbose start names."""
    lines = run_stderr.splitlines()
    names = (line.split("'")[1] for line in lines if line.startswith("import '"))
    return {name.partition(".")[0] for name in names}


def test_a_start_with_a_password_loads_nothing_of_it(gate: Gate, mint: Mint) -> None:
    """Neither an SDK nor our side of it."""
    environ: Mapping[str, str] = {**mint.role.environ(), "PYTHONVERBOSE": "1"}
    environ = {**environ, "POSTGRES_SSL_MODE": "require"}
    run = gate("wait", env=environ)
    assert run.exit_code == 0
    assert not loaded_by(run.stderr) & {"azure", "botocore", "google", "requests"}
    assert "migration_gate.connection.login" not in run.stderr


def test_a_token_that_expires_while_a_lock_is_waited_for_is_replaced(
    gate: Gate, mint: Mint, endpoints: Endpoints, encrypted_database: Database
) -> None:
    """The connections are lost too, so that all of them are made again."""
    encrypted_database.execute("CREATE TABLE busy ()")
    encrypted_database.execute(f"ALTER TABLE busy OWNER TO {mint.role.user}")
    environ = container_app(mint, endpoints(app_service(mint)))
    files = {"1_a.sql": "ALTER TABLE busy ADD a int;"}
    with encrypted_database.connect() as other:
        other.execute("BEGIN; LOCK TABLE busy")
        process = gate.start(
            env={**environ, "GATE_DDL_LOCK_TIMEOUT": "200ms"}, migrations=files
        )
        process.wait_for("migration.retry_scheduled")
        before = len(mint.issued)
        mint.rotate()
        encrypted_database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            f" WHERE usename = '{mint.role.user}'"
        )
        other.execute("ROLLBACK")
    run = process.wait()
    assert run.exit_code == 0, run.output
    assert run.verdict["applied"] == ["1_a.sql"]
    assert len(mint.issued) == before + 1


def test_a_fleet_asks_for_one_token(
    gate: Gate, mint: Mint, endpoints: Endpoints
) -> None:
    """Its targets are beside each other, and all of them are on one server."""
    names = [f"tenant_{number}" for number in range(8)]
    for name in names:
        mint.role.execute(f"CREATE SCHEMA {name}")
    listed = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'tenant%'"
    environ = container_app(mint, endpoints(app_service(mint)))
    run = gate(env={**environ, "GATE_TARGETS": f"schemas:{listed}"}, migrations=FILES)
    assert (run.exit_code, run.verdict["done_count"]) == (0, len(names)), run.output
    assert len(mint.issued) == 1


def test_a_connection_that_is_lost_in_the_middle_of_a_run_gets_a_new_token(
    gate: Gate, mint: Mint, endpoints: Endpoints, encrypted_database: Database
) -> None:
    """What is applied stays so; the file that was cut off runs again."""
    environ = container_app(mint, endpoints(app_service(mint)))
    files = {**FILES, "2_b.sql": "SELECT pg_advisory_xact_lock(1, 2);"}
    with encrypted_database.connect() as other:
        other.execute("SELECT pg_advisory_lock(1, 2)")
        process = gate.start(env=environ, migrations=files)
        until(lambda: encrypted_database.fetch(WAITING), STOP_S * 4)
        before = len(mint.issued)
        mint.rotate()
        encrypted_database.execute(f"SELECT pg_terminate_backend(pid) {WAITING_ONE}")
        until(lambda: len(mint.issued) > before, STOP_S * 4)
        other.execute("SELECT pg_advisory_unlock_all()")
    run = process.wait()
    assert run.exit_code == 0, run.output
    assert run.verdict["applied"] == ["1_a.sql", "2_b.sql"]
    assert len(mint.issued) == before + 1


@pytest.mark.timeout(120)
def test_many_gates_at_once_ask_one_endpoint(
    gate: Gate, mint: Mint, endpoints: Endpoints
) -> None:
    """One that throttles half of them: each gets in, and each migration runs once."""
    endpoint = endpoints(answer_once(app_service(mint)))
    endpoint.faults = [FAULTS["throttled"]] * (HERD // 2)
    environ = container_app(mint, endpoint)
    processes = [gate.start(env=environ, migrations=FILES) for _ in range(HERD)]
    runs = [process.wait(60) for process in processes]
    assert [run.exit_code for run in runs] == [0] * HERD
    assert [name for run in runs for name in run.verdict["applied"]] == ["1_a.sql"]
