"""
Azure's identities: each way in, from the endpoint's own protocol to the database.

The protocols: Microsoft's "How to use managed identities for App Service" (2019-08-01),
"How to use managed identities on an Azure VM to acquire an access token" (2018-02-01),
and "Microsoft identity platform and the OAuth 2.0 client credentials flow", with a
federated credential, a secret, and a certificate as in "Microsoft identity platform
application authentication certificate credentials".
"""

from __future__ import annotations

import hashlib
import ssl
import time

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jwt
import pytest
import trustme

from cryptography import x509

from migration_gate.connection.login import azure
from migration_gate.connection.login.answers import NoTokenError
from tests.fix_gate import Gate
from tests.fix_identity import (
    Answer,
    Endpoint,
    Endpoints,
    Mint,
    Question,
    Reply,
    as_json,
)


# Servers of their own, and an SDK to load: a loaded machine needs longer.
pytestmark = pytest.mark.timeout(60)
RESOURCE = "https://ossrdbms-aad.database.windows.net"
CLIENT_ID = "11111111-2222-3333-4444-555555555555"
TENANT = "99999999-8888-7777-6666-555555555555"
HEADER = "853b9a84-5bfa-4b22-a3f3-0b9a43d9ad8a"
FILES = {"1_a.sql": "CREATE TABLE a ();"}
NO_IDENTITY = {
    "statusCode": 400,
    "message": "No User Assigned or Delegated Managed Identity found for specified "
    "ClientId/ResourceId/PrincipalId.",
}
LOGIN = {"GATE_LOGIN": "azure", "GATE_LOG_LEVEL": "debug"}


def app_service(mint: Mint) -> Answer:
    """Answer as Container Apps and App Service do."""

    def answer(question: Question) -> Reply:
        wanted = {"api-version": "2019-08-01", "resource": RESOURCE}
        client_id = question.query.get("client_id")
        if question.headers.get("x-identity-header") != HEADER:
            return as_json({"statusCode": 401, "message": "unauthorized"}, 401)
        if client_id not in {None, CLIENT_ID}:
            return as_json(NO_IDENTITY, 400)
        assert question.path == "/msi/token"
        assert wanted.items() <= question.query.items()
        return as_json(
            {
                "access_token": mint.issue(),
                "expires_on": str(mint.expires_at()),
                "resource": RESOURCE,
                "token_type": "Bearer",
                "client_id": CLIENT_ID,
            }
        )

    return answer


def imds(mint: Mint) -> Answer:
    """Answer as the endpoint of a virtual machine does."""

    def answer(question: Question) -> Reply:
        assert question.headers["metadata"] == "true"
        assert question.path == "/metadata/identity/oauth2/token"
        assert question.query["api-version"] == "2018-02-01"
        if question.query.get("client_id") not in {None, CLIENT_ID}:
            error = {
                "error": "invalid_request",
                "error_description": "Identity not found",
            }
            return as_json(error, 400)
        return as_json(
            {
                "access_token": mint.issue(),
                "client_id": CLIENT_ID,
                "expires_in": str(mint.lifetime_s),
                "expires_on": str(mint.expires_at()),
                "resource": question.query["resource"],
                "token_type": "Bearer",
            }
        )

    return answer


def entra(mint: Mint, assertion: Path) -> Answer:
    """Answer as Entra's token endpoint does, to what a pod's token file holds now."""

    def answer(question: Question) -> Reply:
        assert question.path == f"/{TENANT}/oauth2/v2.0/token"
        form = question.form
        assert form["client_assertion_type"] == (
            "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
        )
        assert form["scope"] == f"{RESOURCE}/.default"
        assert form["grant_type"] == "client_credentials"
        right = {"client_id": CLIENT_ID, "client_assertion": assertion.read_text()}
        if not right.items() <= form.items():
            return as_json(
                {
                    "error": "invalid_client",
                    "error_description": "AADSTS700213: No matching federated identity "
                    f"record found for presented assertion {form['client_assertion']}.",
                    "error_codes": [700213],
                },
                401,
            )
        return as_json(
            {
                "token_type": "Bearer",
                "expires_in": mint.lifetime_s,
                "access_token": mint.issue(),
            }
        )

    return answer


Proof = Callable[[Mapping[str, str]], str]
SECRET = "Q~8Q~client.secret_x"
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def directory(mint: Mint, fault: Proof) -> Answer:
    """Answer as Entra does to a service principal; `fault` is why not, by a number."""

    def answer(question: Question) -> Reply:
        url = f"https://{question.headers['host']}/{TENANT}"
        if question.method == "GET":
            assert question.path == f"/{TENANT}/v2.0/.well-known/openid-configuration"
            return as_json(
                {
                    "issuer": f"{url}/v2.0",
                    "token_endpoint": f"{url}/oauth2/v2.0/token",
                    "authorization_endpoint": f"{url}/oauth2/v2.0/authorize",
                }
            )
        assert question.path == f"/{TENANT}/oauth2/v2.0/token"
        assert question.form["scope"] == f"{RESOURCE}/.default"
        assert question.form["client_id"] == CLIENT_ID
        told = fault(question.form)
        if told:
            text = f"AADSTS{told}: {SECRET} is not right."
            error = {"error": "invalid_client", "error_description": text}
            return as_json(error, 401)
        told_token = {"access_token": mint.issue(), "expires_in": mint.lifetime_s}
        return as_json({"token_type": "Bearer", **told_token})

    return answer


def needs_secret(form: Mapping[str, str]) -> str:
    """Return what is wrong with a secret."""
    return "" if form["client_secret"] == SECRET else "7000215"


def needs_certificate(root: Path, clock_s: float = 0.0) -> Proof:
    """Return what tells what is wrong with an assertion, at the directory's clock."""
    key: Any = x509.load_pem_x509_certificate(root.read_bytes()).public_key()
    options: Any = {f"verify_{each}": False for each in ("exp", "iat", "aud")}

    def fault(form: Mapping[str, str]) -> str:
        assert form["client_assertion_type"] == ASSERTION_TYPE
        algorithms = ["RS256", "PS256"]
        try:
            claims = jwt.decode(
                form["client_assertion"], key, algorithms=algorithms, options=options
            )
        except jwt.InvalidSignatureError:
            return "700027"
        assert claims["iss"] == claims["sub"] == CLIENT_ID
        is_good = claims["iat"] - 300 <= time.time() + clock_s < claims["exp"]
        return "" if is_good else "700024"

    return fault


def write_certificate(folder: Path) -> tuple[Path, Path]:
    """Write a certificate with its key, and without."""
    made = trustme.CA().issue_cert("gate", key_type=trustme.KeyType.RSA)
    both, public = folder / "gate.pem", folder / "gate-public.pem"
    both.write_bytes(made.private_key_and_cert_chain_pem.bytes())
    made.cert_chain_pems[0].write_to_path(str(public))
    return both, public


def service_principal(mint: Mint, endpoint: Endpoint, root: Path) -> dict[str, str]:
    """Return the environment of a service principal, but for its proof."""
    return {
        **mint.environ(),
        **LOGIN,
        "AZURE_AUTHORITY_HOST": endpoint.url,
        "AZURE_CLIENT_ID": CLIENT_ID,
        "AZURE_TENANT_ID": TENANT,
        "REQUESTS_CA_BUNDLE": str(root),
    }


def container_app(
    mint: Mint, endpoint: Endpoint, client_id: str = CLIENT_ID
) -> dict[str, str]:
    """Return the environment of a container app with a user-assigned identity."""
    return {
        **mint.environ(),
        **LOGIN,
        "IDENTITY_ENDPOINT": f"{endpoint.url}/msi/token",
        "IDENTITY_HEADER": HEADER,
        "AZURE_CLIENT_ID": client_id,
    }


def pod(mint: Mint, endpoint: Endpoint, root: Path, file: Path) -> dict[str, str]:
    """Return the environment that AKS gives a pod with a workload identity."""
    return {
        **mint.environ(),
        **LOGIN,
        "AZURE_AUTHORITY_HOST": f"{endpoint.url}/",
        "AZURE_CLIENT_ID": CLIENT_ID,
        "AZURE_TENANT_ID": TENANT,
        "AZURE_FEDERATED_TOKEN_FILE": str(file),
        "REQUESTS_CA_BUNDLE": str(root),
    }


def test_a_container_app_migrates_with_its_managed_identity(
    gate: Gate, mint: Mint, endpoints: Endpoints
) -> None:
    """One token for all connections of a run; none of it is printed."""
    endpoint = endpoints(app_service(mint))
    run = gate(env=container_app(mint, endpoint), migrations=FILES)
    assert run.exit_code == 0, run.output
    assert run.verdict["applied"] == ["1_a.sql"]
    assert [asked.query.get("client_id") for asked in endpoint.asked] == [CLIENT_ID]
    assert run.stderr == ""
    assert mint.issued[0] not in run.output


def test_an_identity_that_is_not_assigned_is_refused_with_what_to_assign(
    gate: Gate, mint: Mint, endpoints: Endpoints
) -> None:
    """400 is an answer that waiting does not change; it has the grace of a login."""
    endpoint = endpoints(app_service(mint))
    environ = container_app(mint, endpoint, "00000000-0000-0000-0000-000000000000")
    run = gate(env={**environ, "GATE_AUTH_GRACE": "0"}, migrations=FILES)
    assert (run.exit_code, run.verdict["reason"]) == (1, "refused")
    assert run.verdict["error_message"].startswith(
        "could not log in: Azure's managed identity gives no token: HTTP 400 (1 attempt"
    )
    assert "AZURE_CLIENT_ID" in run.verdict["hint"]
    assert "azure.workload.identity/use" in run.verdict["hint"]


@pytest.mark.parametrize("client_id", ["", CLIENT_ID])
def test_a_virtual_machine_waits_with_its_identity(
    gate: Gate, mint: Mint, endpoints: Endpoints, client_id: str
) -> None:
    """Its own, or one of several that is named."""
    endpoint = endpoints(imds(mint))
    environ = {
        **mint.environ(),
        **LOGIN,
        "AZURE_POD_IDENTITY_AUTHORITY_HOST": endpoint.url,
        "AZURE_CLIENT_ID": client_id,
    }
    run = gate("wait", env=environ)
    assert run.exit_code == 0, run.output
    assert [asked.query.get("client_id", "") for asked in endpoint.asked] == [client_id]


def test_a_pod_logs_in_with_its_federated_token(
    gate: Gate, mint: Mint, endpoints: Endpoints, tmp_path: Path
) -> None:
    """What the kubelet projects is handed to Entra, at the authority of this cloud."""
    file = tmp_path / "azure-identity-token"
    file.write_text("eyJ-first")
    endpoint, root = endpoints.encrypted(entra(mint, file))
    run = gate(env=pod(mint, endpoint, root, file), migrations=FILES)
    assert run.exit_code == 0, run.output
    assert len(endpoint.asked) == 1


def test_a_federated_token_that_is_rotated_meanwhile_is_read_again(
    gate: Gate, mint: Mint, endpoints: Endpoints, tmp_path: Path
) -> None:
    """The refusal has Entra's number and the federation in its line, and no token."""
    file, stale = tmp_path / "azure-identity-token", tmp_path / "stale"
    file.write_text("eyJ-right-assertion")
    stale.write_text("eyJ-wrong-assertion")
    endpoint, root = endpoints.encrypted(entra(mint, file))
    environ = pod(mint, endpoint, root, stale)
    process = gate.start(env=environ, migrations=FILES)
    retry = process.wait_for("database.retry_scheduled")
    assert retry["reason"] == "identity_refused"
    stale.write_text("eyJ-right-assertion")
    assert process.wait().exit_code == 0
    stale.write_text("eyJ-wrong-assertion")
    run = gate(env={**environ, "GATE_AUTH_GRACE": "0"}, migrations=FILES)
    assert run.verdict["reason"] == "refused"
    assert "HTTP 401, AADSTS700213" in run.verdict["error_message"]
    assert "federated credential" in run.verdict["hint"]
    assert "eyJ" not in run.output


def test_a_federated_token_that_is_not_there_yet_is_waited_for(
    gate: Gate, mint: Mint, endpoints: Endpoints, tmp_path: Path
) -> None:
    """As any secret's file is."""
    file = tmp_path / "azure-identity-token"
    endpoint, root = endpoints.encrypted(entra(mint, file))
    process = gate.start(env=pod(mint, endpoint, root, file), migrations=FILES)
    retry = process.wait_for("database.retry_scheduled")
    assert retry["error_message"] == (
        f'Azure\'s workload identity: file "{file}" of the identity: no such file or '
        "directory"
    )
    file.write_text("eyJ-first")
    assert process.wait().exit_code == 0


def test_a_service_principal_logs_in_with_its_secret(
    gate: Gate, mint: Mint, endpoints: Endpoints
) -> None:
    """At an authority that nobody else knows; a wrong one is told by its number."""
    endpoint, root = endpoints.encrypted(directory(mint, needs_secret))
    environ = service_principal(mint, endpoint, root)
    run = gate(env={**environ, "AZURE_CLIENT_SECRET": SECRET}, migrations=FILES)
    assert run.exit_code == 0, run.output
    assert run.stderr == ""
    now = {"GATE_AUTH_GRACE": "0", "AZURE_CLIENT_SECRET": "wr0ng"}
    refused = gate("wait", env={**environ, **now})
    assert refused.verdict["error_message"].startswith(
        "could not log in: Azure's service principal gives no token: HTTP 401, "
        "AADSTS7000215 ("
    )
    assert "AZURE_CLIENT_ID" in refused.verdict["hint"]
    for word in (SECRET, "wr0ng", "is not right", "eyJ"):
        assert word not in run.output + refused.output


def test_a_service_principal_logs_in_with_its_certificate(
    gate: Gate, mint: Mint, endpoints: Endpoints, tmp_path: Path
) -> None:
    """A clock that is ten minutes behind makes an assertion that has expired."""
    file, public = write_certificate(tmp_path)
    endpoint, root = endpoints.encrypted(directory(mint, needs_certificate(public)))
    environ = service_principal(mint, endpoint, root)
    environ |= {"AZURE_CLIENT_CERTIFICATE_PATH": str(file), "GATE_AUTH_GRACE": "0"}
    run = gate("wait", env=environ)
    assert run.exit_code == 0, run.output
    endpoint.answer = directory(mint, needs_certificate(public, clock_s=600))
    late = gate("wait", env=environ)
    assert "AADSTS700024" in late.verdict["error_message"]
    assert "clock" in late.verdict["hint"]
    file.unlink()
    missing = gate("wait", env=environ)
    assert f'file "{file}" of the identity' in missing.verdict["error_message"]


def test_an_endpoint_that_is_pinned_is_trusted_by_its_thumbprint_alone(
    monkeypatch: pytest.MonkeyPatch, endpoints: Endpoints
) -> None:
    """IDENTITY_SERVER_THUMBPRINT, as Service Fabric gives it; no authority signs it."""
    told = {"access_token": "t", "expires_on": time.time() + 3600, "token_type": "x"}
    endpoint, _ = endpoints.encrypted(lambda _: as_json(told))
    host, _, port = endpoint.address.partition(":")
    pem = ssl.get_server_certificate((host, int(port)))
    thumbprint = hashlib.sha1(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()  # noqa: S324
    monkeypatch.delenv("AZURE_CLIENT_ID", raising=False)
    monkeypatch.setenv("IDENTITY_ENDPOINT", endpoint.url)
    monkeypatch.setenv("IDENTITY_HEADER", HEADER)
    monkeypatch.setenv("IDENTITY_SERVER_THUMBPRINT", thumbprint)
    assert azure.fetch({}, 5.0).text == "t"
    assert endpoint.asked[-1].headers["secret"] == HEADER
    monkeypatch.setenv("IDENTITY_SERVER_THUMBPRINT", "0" * len(thumbprint))
    with pytest.raises(NoTokenError) as caught:
        azure.fetch({}, 5.0)
    assert (len(endpoint.asked), caught.value.is_refused) == (1, False)


@pytest.mark.parametrize(
    ("host", "authority", "resource"),
    [
        ("x.postgres.database.azure.com", "", RESOURCE),
        (
            "x.postgres.database.chinacloudapi.cn",
            "",
            "https://ossrdbms-aad.database.chinacloudapi.cn",
        ),
        (
            "x.postgres.database.usgovcloudapi.net",
            "",
            "https://ossrdbms-aad.database.usgovcloudapi.net",
        ),
        (
            "10.0.0.4",
            "https://login.microsoftonline.us/",
            "https://ossrdbms-aad.database.usgovcloudapi.net",
        ),
        (
            "10.0.0.4",
            "https://login.chinacloudapi.cn",
            "https://ossrdbms-aad.database.chinacloudapi.cn",
        ),
    ],
)
def test_each_cloud_has_its_own_name_for_the_database(
    monkeypatch: pytest.MonkeyPatch, host: str, authority: str, resource: str
) -> None:
    """By the host's name, or else by the authority."""
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", authority)
    assert azure._resource({"host": host}) == resource
