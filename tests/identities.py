"""
Each way in to a database without a password, and what may happen on it.

    python -m tests.identities [WAY]...

Prints a table of real runs: the last line, and the seconds that it took. Then many
gates ask one endpoint that throttles them. Exits 1 where one did not end as it must.
"""

from __future__ import annotations

import signal
import sys
import tempfile
import time

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

from dev.postgres import HBA, Server
from migration_gate.connection.login.google import FILE_VARIABLE
from migration_gate.session.lock import lock_keys
from tests.connection import test_login_aws as aws
from tests.connection import test_login_azure as azure
from tests.connection import test_login_google as google
from tests.fix_gate import Gate, Run
from tests.fix_identity import (
    FAULTS,
    TOLD,
    TOLD_PARTS,
    Answer,
    Endpoint,
    Endpoints,
    Guard,
    Mint,
    Question,
    Reply,
    as_json,
    leaking,
)
from tests.fix_postgres import (
    SETTINGS,
    Database,
    Databases,
    database_of,
    look_at,
    server_name,
)
from tests.polling import until


FILES: Final = {"1_a.sql": "CREATE TABLE a (id int);"}
LATE_S: Final = 10.0
TIMEOUT_S: Final = 90.0
STOP_S: Final = 5.0
HERD: Final = 50
AT_ONCE: Final = 4
DISCOVERY: Final = "openid-configuration"
KEY: Final = lock_keys("public", "schema_migrations").lock
END_ALL: Final = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE application_name LIKE 'migration-gate/%' AND datname = current_database()
"""
OPENED: Final = (0, None)
REFUSED: Final = (1, "refused")


@dataclass(frozen=True, kw_only=True)
class Servers:
    """One that knows tokens for passwords, and one that trusts who is before it."""

    checking: Server
    trusting: Server


@dataclass(kw_only=True)
class Stage:
    """What one run is given; `expire` lets no token be good that it has."""

    servers: Servers
    gate: Gate
    endpoints: Endpoints
    folder: Path
    stack: ExitStack
    late_s: float
    is_late: bool = False
    expire: Callable[[], None] = field(init=False)
    database: Database = field(init=False)

    def mint(self) -> Mint:
        """Return what issues tokens for a role of a database of its own."""
        self.database = self._make(self.servers.checking)
        role = self.database.role("identity")
        self.database.execute(f"GRANT ALL ON SCHEMA public TO {role.user}")
        made = Mint(role=role)
        self.expire = made.rotate
        return made

    def guard(self) -> dict[str, str]:
        """Return the settings of a gate before a database that RDS stands before."""
        server = self.servers.trusting
        self.database = self._make(server)
        guard: Guard = self.stack.enter_context(aws.guard_of(server))
        self.expire = guard.expire
        return {**aws.settings(server, guard), "POSTGRES_DB": self.database.name}

    def _make(self, server: Server) -> Database:
        shared = look_at(server.conninfo, server)
        databases: Databases = self.stack.enter_context(Databases(server=shared))
        return databases.create()


Prepared = tuple[dict[str, str], Endpoint | None]


@dataclass(frozen=True, kw_only=True)
class Way:
    """
    One way in: the gate's environment, and the endpoint that it asks.

    `refusal` is the provider's own, or what of the environment makes the server refuse.
    """

    prepare: Callable[[Stage], Prepared]
    refusal: Reply | Mapping[str, str]
    refused: tuple[int, str] = REFUSED

    def ends(self, scene: str) -> Sequence[tuple[int, str | None]]:
        """Return how a scene may end."""
        if scene == "refused":
            return [self.refused]
        if scene == "stopped":
            return [(1, "interrupted")]
        return [REFUSED, (1, "unreachable")] if scene == "quoting" else [OPENED]


def container_app(stage: Stage) -> Prepared:
    """Managed identity, by IDENTITY_ENDPOINT."""
    mint = stage.mint()
    endpoint = stage.endpoints(azure.app_service(mint), is_late=stage.is_late)
    return azure.container_app(mint, endpoint), endpoint


def virtual_machine(stage: Stage) -> Prepared:
    """Managed identity, by the metadata endpoint."""
    mint = stage.mint()
    endpoint = stage.endpoints(azure.imds(mint), is_late=stage.is_late)
    place = {"AZURE_POD_IDENTITY_AUTHORITY_HOST": endpoint.url}
    return {**mint.environ(), **azure.LOGIN, **place}, endpoint


def workload_identity(stage: Stage) -> Prepared:
    """A token of Kubernetes', which Entra trusts."""
    mint, file = stage.mint(), stage.folder / "azure-identity-token"
    file.write_text("eyJ-right")
    endpoint, root = stage.endpoints.encrypted(
        azure.entra(mint, file), is_late=stage.is_late
    )
    return azure.pod(mint, endpoint, root, file), endpoint


def secret(stage: Stage) -> Prepared:
    """A service principal's secret."""
    mint = stage.mint()
    endpoint, root = stage.endpoints.encrypted(
        azure.directory(mint, azure.needs_secret), is_late=stage.is_late
    )
    environ = azure.service_principal(mint, endpoint, root)
    return {**environ, "AZURE_CLIENT_SECRET": azure.SECRET}, endpoint


def certificate(stage: Stage) -> Prepared:
    """A service principal's certificate."""
    mint = stage.mint()
    file, public = azure.write_certificate(stage.folder)
    endpoint, root = stage.endpoints.encrypted(
        azure.directory(mint, azure.needs_certificate(public)), is_late=stage.is_late
    )
    environ = azure.service_principal(mint, endpoint, root)
    return {**environ, "AZURE_CLIENT_CERTIFICATE_PATH": str(file)}, endpoint


def of_aws(name: str) -> Callable[[Stage], Prepared]:
    """Return what prepares one of AWS's ways."""

    def prepare(stage: Stage) -> Prepared:
        environ = stage.guard()
        found = aws.ways(stage.endpoints, stage.folder, is_late=stage.is_late)
        more, endpoint = found[name]
        return {**environ, **more}, endpoint

    return prepare


def metadata_server(stage: Stage) -> Prepared:
    """The machine's own account, or GKE's and Cloud Run's."""
    mint = stage.mint()
    endpoint = stage.endpoints(google.metadata(mint), is_late=stage.is_late)
    place = {"GCE_METADATA_HOST": endpoint.address}
    return {**mint.environ(), **google.LOGIN, **place}, endpoint


def key_file(stage: Stage) -> Prepared:
    """A service account's key."""
    mint = stage.mint()
    endpoint = stage.endpoints(google.key_file(mint), is_late=stage.is_late)
    file = google.write_key(stage.folder, endpoint.url)
    return {**mint.environ(), **google.LOGIN, FILE_VARIABLE: str(file)}, endpoint


def federation(stage: Stage) -> Prepared:
    """A token of another provider's, which Google trusts."""
    mint, token = stage.mint(), stage.folder / "token"
    token.write_text("eyJ-subject")
    endpoint = stage.endpoints(google.exchange(mint, token), is_late=stage.is_late)
    file = google.write_federation(stage.folder, endpoint.url, token)
    return {**mint.environ(), **google.LOGIN, FILE_VARIABLE: str(file)}, endpoint


def entra_error(number: str) -> Reply:
    """Return a refusal of Entra's."""
    told = {"error": "invalid_client", "error_description": f"AADSTS{number}: no."}
    return as_json(told, 401)


NO_TOKEN: Final = aws.WRONG_TOKEN.format(code="InvalidIdentityToken", message="no")
WAYS: Final[Mapping[str, Way]] = MappingProxyType(
    {
        "Azure, AKS": Way(prepare=workload_identity, refusal=entra_error("700213")),
        "Azure, Container Apps and App Service": Way(
            prepare=container_app, refusal=as_json(azure.NO_IDENTITY, 400)
        ),
        "Azure, virtual machine": Way(
            prepare=virtual_machine, refusal=as_json({"error": "invalid_request"}, 400)
        ),
        "Azure, secret": Way(prepare=secret, refusal=entra_error("7000215")),
        "Azure, certificate": Way(prepare=certificate, refusal=entra_error("700027")),
        "AWS, environment": Way(
            prepare=of_aws("environment"), refusal={"AWS_SECRET_ACCESS_KEY": "wrong"}
        ),
        "AWS, EKS with IRSA": Way(
            prepare=of_aws("web identity"),
            refusal=Reply(
                status=400, body=NO_TOKEN, headers={"Content-Type": "text/xml"}
            ),
        ),
        "AWS, EKS with Pod Identity": Way(
            prepare=of_aws("pod identity"),
            refusal=Reply(status=403, body="[AccessDeniedException]: no association"),
        ),
        "AWS, ECS": Way(
            prepare=of_aws("container"),
            refusal=Reply(status=403, body="[AccessDeniedException]: no role"),
        ),
        "AWS, EC2": Way(
            prepare=of_aws("instance"),
            refusal=Reply(status=404),
            refused=(1, "unreachable"),  # a profile may be attached meanwhile
        ),
        "Google, metadata server": Way(
            prepare=metadata_server,
            refusal=as_json({"error": {"status": "PERMISSION_DENIED"}}, 403),
        ),
        "Google, key": Way(
            prepare=key_file, refusal=as_json({"error": "invalid_grant"}, 400)
        ),
        "Google, federation": Way(
            prepare=federation, refusal=as_json({"error": "invalid_grant"}, 400)
        ),
    }
)


def works(stage: Stage, way: Way) -> Run:
    """Run one that gets its token."""
    environ, _ = way.prepare(stage)
    return stage.gate(env=environ, migrations=FILES, timeout=TIMEOUT_S)


def late(stage: Stage, way: Way) -> Run | None:
    """Run one whose endpoint comes after it; None where it has none."""
    stage.is_late = True
    environ, endpoint = way.prepare(stage)
    if endpoint is None:
        return None
    process = stage.gate.start(env=environ, migrations=FILES)
    process.wait_for("database.retry_scheduled", TIMEOUT_S)
    time.sleep(stage.late_s)
    endpoint.open()
    return process.wait(TIMEOUT_S)


def refused(stage: Stage, way: Way) -> Run:
    """Run one that the provider gives no token, or the server no login."""
    environ, endpoint = way.prepare(stage)
    environ |= refuse(way, endpoint)
    return stage.gate(env=environ, migrations=FILES, timeout=TIMEOUT_S)


def refuse(way: Way, endpoint: Endpoint | None) -> dict[str, str]:
    """Let no token be given from now on; return what settings that needs."""
    now = {"GATE_AUTH_GRACE": "0", "GATE_WAIT_TIMEOUT": "3s"}
    if not isinstance(way.refusal, Reply):
        return {**now, **way.refusal}
    assert endpoint is not None
    endpoint.answer = but_discovery(endpoint.answer, way.refusal)
    return now


def but_discovery(answer: Answer, refusal: Reply) -> Answer:
    """Refuse whatever is no question for where to ask."""

    def refuse(question: Question) -> Reply:
        return answer(question) if question.path.endswith(DISCOVERY) else refusal

    return refuse


def expired(stage: Stage, way: Way) -> Run:
    """Run one that waits for the lock until its token is void and it is cut off."""
    environ, _ = way.prepare(stage)
    with stage.database.connect() as holder:
        holder.execute("SELECT pg_advisory_lock(%s)", [KEY])
        process = stage.gate.start(env=environ, migrations=FILES)
        process.wait_for("lock.waiting", TIMEOUT_S)
        stage.expire()
        stage.database.execute(END_ALL)
        holder.execute("SELECT pg_advisory_unlock_all()")
    return process.wait(TIMEOUT_S)


def stopped(stage: Stage, way: Way) -> Run | None:
    """Run one that is stopped while its endpoint says nothing."""
    environ, endpoint = way.prepare(stage)
    if endpoint is None:
        return None
    endpoint.answer = lambda _: Reply(is_hung=True)
    process = stage.gate.start(env=environ, migrations=FILES)
    until(lambda: endpoint.asked, TIMEOUT_S)
    process.signal(signal.SIGTERM)
    return process.wait(STOP_S)


def faulty(stage: Stage, way: Way) -> Run | None:
    """Run one whose endpoint answers anything but a token or a refusal at first."""
    environ, endpoint = way.prepare(stage)
    if endpoint is None:
        return None
    endpoint.faults = list(FAULTS.values())
    return stage.gate(env=environ, migrations=FILES, timeout=TIMEOUT_S)


def quoting(stage: Stage, way: Way) -> Run | None:
    """Run one for each answer that quotes a secret; return the last that shows it."""
    environ, endpoint = way.prepare(stage)
    if endpoint is None:
        return None
    environ |= {"GATE_AUTH_GRACE": "0", "GATE_WAIT_TIMEOUT": "0"}
    found = []
    for reply in leaking(TOLD).values():
        endpoint.answer = but_discovery(endpoint.answer, reply)
        run = stage.gate(env=environ, migrations=FILES, timeout=TIMEOUT_S)
        shown = run.exit_code == 0 or any(part in run.output for part in TOLD_PARTS)
        found.append((shown, run))
    return max(found, key=lambda each: each[0])[1]


Scene = Callable[[Stage, Way], Run | None]
SCENES: Final[Mapping[str, Scene]] = MappingProxyType(
    {
        "works": works,
        "late": late,
        "refused": refused,
        "expired": expired,
        "stopped": stopped,
        "faulty": faulty,
        "quoting": quoting,
    }
)


@contextmanager
def servers() -> Iterator[Servers]:
    """Start both servers."""
    hba = [line.replace("host all", "hostssl all") for line in HBA]
    trust = ["host all all 127.0.0.1/32 trust"]
    with (
        Server(server_name(91), settings=SETTINGS, hba=hba, tls=True) as checking,
        Server(server_name(92), settings=SETTINGS, hba=trust, tls=True) as trusting,
    ):
        database_of(trusting).execute("CREATE ROLE app LOGIN SUPERUSER")
        yield Servers(checking=checking, trusting=trusting)


@contextmanager
def staged(both: Servers, late_s: float = LATE_S) -> Iterator[Stage]:
    """Return what one run needs, and end it all after that."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        gate = Gate(folder)
        stack.callback(gate.close)
        yield Stage(
            servers=both,
            gate=gate,
            endpoints=Endpoints(stack, folder),
            folder=folder,
            stack=stack,
            late_s=late_s,
        )


def play(
    both: Servers, name: str, scene: str, late_s: float = LATE_S
) -> tuple[str, bool]:
    """Play one scene; return its row, and whether it ended as it must."""
    way = WAYS[name]
    with staged(both, late_s) as stage:
        run = SCENES[scene](stage, way)
    if run is None:
        return f"| {name} | {scene} | asks nobody | |", True
    ended = (run.exit_code, run.verdict.get("reason"))
    wanted = way.ends(scene)
    told = run.verdict["message"]
    seconds = run.verdict["duration_ms"] / 1000
    secrets = (*TOLD_PARTS, "X-Amz", azure.SECRET)
    leaks = [word for word in secrets if word in run.output]
    is_quiet = len(run.stderr.splitlines()) == run.exit_code  # it says why it closes
    return f"| {name} | {scene} | {told} | {seconds:.1f} |", (
        ended in wanted and not leaks and is_quiet
    )


def herd(both: Servers, count: int = HERD) -> tuple[str, bool]:
    """Let many gates ask one endpoint at once, which throttles half of them."""
    started_s = time.monotonic()
    with staged(both) as stage:
        mint = stage.mint()
        issue = azure.app_service(mint)
        token = issue(
            Question(
                method="GET",
                path="/msi/token",
                query={"api-version": "2019-08-01", "resource": azure.RESOURCE},
                headers={"x-identity-header": azure.HEADER},
                form={},
            )
        )
        endpoint = stage.endpoints(lambda _: token)
        endpoint.faults = [FAULTS["throttled"]] * (count // 2)
        environ = azure.container_app(mint, endpoint)
        processes = [
            stage.gate.start(env=environ, migrations=FILES) for _ in range(count)
        ]
        runs = [process.wait(TIMEOUT_S * 2) for process in processes]
    opened = sum(run.exit_code == 0 for run in runs)
    applied = sum(len(run.verdict["applied"]) for run in runs)
    asked = len(endpoint.asked)
    seconds = time.monotonic() - started_s
    row = (
        f"{opened} of {count} gates opened in {seconds:.0f} s; the endpoint was asked "
        f"{asked} times, {count // 2} of them for nothing; files applied: {applied}"
    )
    return row, (opened, applied, asked) == (count, 1, count + count // 2)


def main(names: Sequence[str]) -> int:
    """Play all scenes of all ways, or of those that are named."""
    chosen = [name for name in WAYS if not names or name in names]
    plays = [(name, scene) for name in chosen for scene in SCENES]
    with servers() as both, ThreadPoolExecutor(AT_ONCE) as pool:
        ended = list(pool.map(lambda each: play(both, *each), plays))
        if not names:
            ended.append(herd(both))
    rows = ["| way | scene | last line | s |", "| --- | --- | --- | --- |"]
    rows += [row + " WRONG" * (not is_good) for row, is_good in ended]
    sys.stdout.write("\n".join(rows) + "\n")
    return int(not all(is_good for _, is_good in ended))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
