"""
AWS's identities: each way in, and a token whose signature is computed here again.

The protocols: STS's AssumeRoleWithWebIdentity (API reference), "Container credential
provider" (SDKs and Tools reference), "Use the Instance Metadata Service" (EC2 user
guide). The signature: "Create a signed AWS API request", Signature Version 4, with the
query of "Connecting to your DB instance using IAM authentication".
"""

from __future__ import annotations

import hashlib
import hmac
import re

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qsl, quote

import pytest

from dev.postgres import Server
from migration_gate.connection.login import aws, tokens
from migration_gate.connection.login.answers import NoTokenError
from migration_gate.report.errors import SettingsError
from tests.fix_gate import Gate
from tests.fix_identity import (
    Answer,
    Endpoint,
    Endpoints,
    Guard,
    Question,
    Reply,
    as_json,
)
from tests.fix_postgres import NewServer, database_of


# Servers of their own, and an SDK to load: a loaded machine needs longer.
pytestmark = pytest.mark.timeout(60)
KEY_ID = "ASIAIOSFODNN7EXAMPLE"
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
SESSION = "FwoGZXIvYXdzEJr//////////wEaDDEXAMPLE+/=="
KEYS = {
    "AWS_ACCESS_KEY_ID": KEY_ID,
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_SESSION_TOKEN": SESSION,
}
REGION = "eu-central-1"
ROLE = "arn:aws:iam::123456789012:role/gate"
FILES = {"1_a.sql": "CREATE TABLE a ();"}
LOGIN = {"GATE_LOGIN": "aws", "AWS_REGION": REGION, "GATE_LOG_LEVEL": "debug"}
VARIABLES = (
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
    *("AWS_DEFAULT_REGION", "AWS_REGION", "AWS_PROFILE"),
)


def sign(text: str, *, secret: str = SECRET, region: str = REGION) -> str:
    """Return the signature that a token of RDS must have; `text` is all but that."""
    host, _, query = text.partition("/?")
    given = dict(parse_qsl(query, strict_parsing=True))
    canonical = "&".join(
        f"{quote(name, safe='-_.~')}={quote(given[name], safe='-_.~')}"
        for name in sorted(given)
    )
    empty = hashlib.sha256(b"").hexdigest()
    request = f"GET\n/\n{canonical}\nhost:{host}\n\nhost\n{empty}"
    stamp = given["X-Amz-Date"]
    scope = f"{stamp[:8]}/{region}/rds-db/aws4_request"
    assert given["X-Amz-Credential"] == f"{KEY_ID}/{scope}"
    hashed = hashlib.sha256(request.encode()).hexdigest()
    message = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashed}"
    key = f"AWS4{secret}".encode()
    for part in (stamp[:8], region, "rds-db", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.new(key, message.encode(), "sha256").hexdigest()


def is_good(token: str, *, host: str, user: str, region: str = REGION) -> bool:
    """Tell whether RDS at this host and port would let this user in, now."""
    text, _, signature = token.partition("&X-Amz-Signature=")
    signed, _, query = text.partition("/?")
    said = dict(parse_qsl(query, strict_parsing=True))
    stamp = datetime.strptime(said["X-Amz-Date"], "%Y%m%dT%H%M%S%z")
    age = datetime.now(UTC) - stamp
    return (
        signed == host
        and (said["Action"], said["DBUser"]) == ("connect", user)
        and said["X-Amz-SignedHeaders"] == "host"
        and said["X-Amz-Security-Token"] == SESSION
        and timedelta(0) - timedelta(minutes=5) < age
        and age < timedelta(seconds=int(said["X-Amz-Expires"]))
        and hmac.compare_digest(signature, sign(text, region=region))
    )


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let this process have credentials of its own, and no cached token."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", SESSION)
    tokens._tokens.clear()
    yield
    tokens._tokens.clear()


@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize("user", ["app", "Ä b@c+d/e=f&g?h#i%20", "a" * 63, "~-_.*'()"])
@pytest.mark.parametrize(
    "place",
    [
        ("db.x1.eu-central-1.rds.amazonaws.com", "5432", "", "eu-central-1"),
        ("c.cluster-x.cn-north-1.rds.amazonaws.com.cn", "6000", "", "cn-north-1"),
        ("p.proxy-x.us-gov-west-1.rds.amazonaws.com", "5432", "", "us-gov-west-1"),
        ("db.internal", "5432", "", "eu-west-2"),
        ("fd00::1", "5433", "[fd00::1]:5433", "eu-west-2"),
    ],
)
def test_host_port_region_and_user_are_signed(
    monkeypatch: pytest.MonkeyPatch, place: tuple[str, str, str, str], user: str
) -> None:
    """As they are connected to; the region is the host's own where its name tells."""
    host, port, signed, region = place
    monkeypatch.setenv("AWS_REGION", "eu-west-2")
    server = {"host": host, "port": port, "user": user}
    token = tokens.add_token("aws", server)["password"]
    named = signed or f"{host}:{port}"
    assert is_good(token, host=named, user=user, region=region)
    assert not is_good(token, host=f"{host}:1", user=user, region=region)
    assert not is_good(token[:-1] + "x", host=named, user=user, region=region)


@pytest.mark.usefixtures("keys")
def test_each_of_several_hosts_has_a_token_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And it is kept for ten of its fifteen minutes."""
    monkeypatch.setenv("AWS_REGION", REGION)
    for host in ("one.internal", "two.internal"):
        server = {"host": host, "user": "app"}
        token = tokens.add_token("aws", server)["password"]
        assert is_good(token, host=f"{host}:5432", user="app")
        assert tokens.add_token("aws", server)["password"] == token
        tokens.forget_token("aws", server)
        assert not tokens._tokens.keys() & {("aws", host, "5432", "app")}


@pytest.mark.usefixtures("keys")
def test_a_host_that_tells_no_region_needs_one() -> None:
    """A settings error, since no waiting helps."""
    with pytest.raises(SettingsError, match="AWS_REGION is not set"):
        aws.fetch({"host": "db.internal", "user": "app"}, 1.0)


def given_credentials() -> dict[str, str]:
    """Return credentials as the endpoints of containers and instances give them."""
    return {
        "AccessKeyId": KEY_ID,
        "SecretAccessKey": SECRET,
        "Token": SESSION,
        "Expiration": f"{datetime.now(UTC) + timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}",
    }


WRONG_TOKEN = """<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>
<RequestId>a</RequestId></ErrorResponse>"""
ASSUMED = """<AssumeRoleWithWebIdentityResponse
 xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleWithWebIdentityResult>
<Credentials><AccessKeyId>{AccessKeyId}</AccessKeyId>
<SecretAccessKey>{SecretAccessKey}</SecretAccessKey>
<SessionToken>{Token}</SessionToken><Expiration>{Expiration}</Expiration></Credentials>
</AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"""


def sts(file: Path, code: str = "InvalidIdentityToken") -> Answer:
    """Answer as STS does, to what a pod's token file should hold."""

    def answer(question: Question) -> Reply:
        form = question.form
        assert form["Action"] == "AssumeRoleWithWebIdentity"
        assert form["RoleArn"] == ROLE
        xml = {"Content-Type": "text/xml"}
        if form["WebIdentityToken"] != file.read_text():
            told = WRONG_TOKEN.format(code=code, message=form["WebIdentityToken"])
            return Reply(status=400, body=told, headers=xml)
        return Reply(body=ASSUMED.format(**given_credentials()), headers=xml)

    return answer


def container(authorization: str) -> Answer:
    """Answer as the agent of EKS Pod Identity does, and ECS's endpoint."""

    def answer(question: Question) -> Reply:
        if question.headers.get("authorization") != authorization:
            return Reply(status=403, body="[AccessDeniedException]: not associated")
        return as_json(given_credentials())

    return answer


def instance(question: Question) -> Reply:
    """Answer as EC2's metadata service does, version 2."""
    path = "/latest/meta-data/iam/security-credentials/"
    if question.method == "PUT":
        assert question.path == "/latest/api/token"
        assert question.headers["x-aws-ec2-metadata-token-ttl-seconds"]
        return Reply(body="session-1")
    if question.headers.get("x-aws-ec2-metadata-token") != "session-1":
        return Reply(status=401)
    if question.path == path:
        return Reply(body="gate")
    assert question.path == f"{path}gate"
    return as_json({"Code": "Success", **given_credentials()})


@pytest.fixture
def guarded(new_server: NewServer) -> Iterator[tuple[Server, Guard, dict[str, str]]]:
    """Return a server with what checks tokens before it, and a gate's settings."""
    server = new_server(tls=True, hba=["host all all 127.0.0.1/32 trust"])
    database_of(server).execute("CREATE ROLE app LOGIN SUPERUSER")
    with guard_of(server) as guard:
        yield server, guard, settings(server, guard)


def guard_of(server: Server) -> Guard:
    """Return what checks tokens as RDS does, before a server that trusts it."""

    def check(user: str, token: str) -> bool:
        return is_good(token, host=f"localhost:{guard.port}", user=user)

    guard = Guard(server, check)
    return guard


def settings(server: Server, guard: Guard) -> dict[str, str]:
    """Return the settings of a gate that logs in where tokens are checked."""
    return {
        "POSTGRES_HOST": "localhost",
        "POSTGRES_PORT": str(guard.port),
        "POSTGRES_USER": "app",
        "POSTGRES_DB": "postgres",
        "PGSSLROOTCERT": str(server.ca),
        **LOGIN,
    }


Guarded = tuple[Server, Guard, dict[str, str]]


Way = tuple[dict[str, str], Endpoint | None]


def ways(
    endpoints: Endpoints, folder: Path, *, is_late: bool = False
) -> Mapping[str, Way]:
    """Return the environment of each way in, and its endpoint, where it has one."""
    file = folder / "token"
    file.write_text("eyJ-web-identity")
    roles = endpoints(sts(file), is_late=is_late)
    agent = endpoints(container("eyJ-web-identity"), is_late=is_late)
    task = endpoints(container("eyJ-task"), is_late=is_late)
    metadata = endpoints(instance, is_late=is_late)
    web_identity = {
        "AWS_ROLE_ARN": ROLE,
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(file),
        "AWS_ENDPOINT_URL_STS": roles.url,
    }
    pod_identity = {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{agent.url}/v1/credentials",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(file),
    }
    ecs = {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{task.url}/v2/credentials/x",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN": "eyJ-task",
    }
    return {
        "environment": (KEYS, None),
        "web identity": (web_identity, roles),
        "pod identity": (pod_identity, agent),
        "container": (ecs, task),
        "instance": ({"AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata.url}, metadata),
    }


def test_each_way_in_leads_to_the_database(
    gate: Gate, guarded: Guarded, endpoints: Endpoints, tmp_path: Path
) -> None:
    """With a token that the server checks; nothing of it is printed."""
    _, guard, environ = guarded
    found = ways(endpoints, tmp_path)
    processes = {
        way: gate.start("wait", env={**environ, **more})
        for way, (more, _) in found.items()
    }
    runs = {way: process.wait() for way, process in processes.items()}
    assert {way: run.exit_code for way, run in runs.items()} == dict.fromkeys(found, 0)
    for run in runs.values():
        assert run.stderr == ""
        for secret in (*guard.tokens, SECRET, SESSION, "X-Amz", "eyJ"):
            assert secret not in run.output


def test_a_run_that_applies_asks_for_one_token(gate: Gate, guarded: Guarded) -> None:
    """For its two connections; the server is RDS to it, with PAM in its words."""
    _, guard, environ = guarded
    environ |= KEYS
    run = gate(env=environ, migrations=FILES)
    assert run.exit_code == 0, run.output
    assert run.verdict["applied"] == ["1_a.sql"]
    assert len(set(guard.tokens)) == 1
    wrong = {"AWS_SECRET_ACCESS_KEY": "x", "GATE_AUTH_GRACE": "0"}
    refused = gate(env={**environ, **wrong}, migrations=FILES)
    assert refused.verdict["reason"] == "refused"
    assert "PAM authentication failed" in refused.verdict["error_message"]
    assert "GRANT rds_iam" in refused.verdict["hint"]
    assert "rds-db:connect" in refused.verdict["hint"]


@pytest.fixture
def pod(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Let this process be a pod whose service account has a role; return its token."""
    file = tmp_path / "token"
    file.write_text("eyJ-right")
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_REGION", REGION)
    monkeypatch.setenv("AWS_ROLE_ARN", ROLE)
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(file))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return file


SERVER = {"host": "db.internal", "user": "app"}


def refusal() -> NoTokenError:
    """Return why no token is given."""
    with pytest.raises(NoTokenError) as caught:
        aws.fetch(SERVER, 1.0)
    return caught.value


def use(monkeypatch: pytest.MonkeyPatch, endpoint: Endpoint) -> None:
    """Let STS be there."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", endpoint.url)


REFUSALS = {"AccessDenied", "ExpiredTokenException", "InvalidIdentityToken"}
NO_REFUSALS = {"IDPCommunicationError", "Throttling"}


@pytest.mark.usefixtures("pod")
@pytest.mark.parametrize("code", sorted(REFUSALS | NO_REFUSALS))
def test_a_refusal_of_sts_has_its_code_and_what_to_trust(
    monkeypatch: pytest.MonkeyPatch, endpoints: Endpoints, tmp_path: Path, code: str
) -> None:
    """Two of its codes are no refusals, though they are 400 to HTTP."""
    other = tmp_path / "other"
    other.write_text("eyJ-other")
    use(monkeypatch, endpoints(sts(other, code)))
    error = refusal()
    assert error.is_refused == (code in REFUSALS)
    assert code in str(error)
    assert "eyJ" not in str(error)
    if code in REFUSALS:
        assert "trust policy" in error.remedy


@pytest.mark.usefixtures("pod")
def test_sts_that_is_away_or_at_fault_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, endpoints: Endpoints
) -> None:
    """Asked once each time: the gate's own wait repeats it."""
    endpoint = endpoints(
        lambda _: Reply(status=503, body=WRONG_TOKEN.format(code="Busy", message="m"))
    )
    use(monkeypatch, endpoint)
    error = refusal()
    assert (error.is_refused, str(error)) == (
        False,
        "AWS gives no token: HTTP 503, Busy",
    )
    assert len(endpoint.asked) == 1
    endpoint.answer = lambda _: Reply(body="<html>log in</html>")
    assert not refusal().is_refused
    endpoint.close()
    away = refusal()
    assert (away.is_refused, str(away)) == (
        False,
        "AWS does not answer (EndpointConnectionError)",
    )


def test_a_token_file_that_is_not_there_is_named(
    pod: Path, monkeypatch: pytest.MonkeyPatch, endpoints: Endpoints
) -> None:
    """It is waited for as any secret's file."""
    use(monkeypatch, endpoints(sts(pod)))
    pod.unlink()
    error = refusal()
    assert error.is_refused
    assert re.search(f'file "{pod}" of the identity: no such file', str(error))


def test_an_agent_that_knows_no_association_refuses(
    monkeypatch: pytest.MonkeyPatch, endpoints: Endpoints
) -> None:
    """And one that throttles is asked again, once each time."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    endpoint = endpoints(container("right"))
    monkeypatch.setenv("AWS_REGION", REGION)
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{endpoint.url}/v1")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "wrong")
    error = refusal()
    assert (error.is_refused, str(error)) == (
        True,
        "AWS gives no token: HTTP 403, AccessDeniedException",
    )
    assert "Pod Identity association" in error.remedy or "trust" in error.remedy
    endpoint.faults = [Reply(status=429, body="slow down")]
    assert not refusal().is_refused
    assert len(endpoint.asked) == 2


def test_a_workload_without_any_credentials_is_told_how_to_get_some(
    monkeypatch: pytest.MonkeyPatch, endpoints: Endpoints
) -> None:
    """An instance without a profile may get one yet."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    endpoint = endpoints(lambda _: Reply(status=404))
    monkeypatch.setenv("AWS_REGION", REGION)
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", endpoint.url)
    error = refusal()
    assert (error.is_refused, str(error)) == (
        False,
        "AWS gives this workload no credentials",
    )
    assert "eks.amazonaws.com/role-arn" in error.remedy
