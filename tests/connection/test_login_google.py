"""
Google's identities: each way in, from the endpoint's own protocol to the database.

The protocols: "Access instance metadata" of Compute Engine, "Using OAuth 2.0 for server
to server applications" (a key file), and "Obtain short-lived tokens for Workload
Identity Federation" (STS's token exchange).
"""

from __future__ import annotations

import base64
import json

from collections.abc import Mapping
from pathlib import Path

import pytest

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from migration_gate.connection.login import google
from migration_gate.connection.login.answers import NoTokenError
from tests.fix_gate import Gate
from tests.fix_identity import Answer, Endpoints, Mint, Question, Reply, as_json


# Servers of their own, and an SDK to load: a loaded machine needs longer.
pytestmark = pytest.mark.timeout(60)
SCOPES = {
    "https://www.googleapis.com/auth/sqlservice.login",
    "https://www.googleapis.com/auth/alloydb.login",
}
FILES = {"1_a.sql": "CREATE TABLE a ();"}
LOGIN = {"GATE_LOGIN": "google", "GATE_LOG_LEVEL": "debug"}
ACCOUNT = "gate@shop.iam.gserviceaccount.com"
FLAVOR = {"Metadata-Flavor": "Google"}


def metadata(mint: Mint) -> Answer:
    """Answer as the metadata server does."""

    def answer(question: Question) -> Reply:
        assert question.headers["metadata-flavor"] == "Google"
        accounts = "/computeMetadata/v1/instance/service-accounts/"
        if question.path == f"{accounts}default/":
            told: Mapping[str, object] = {"email": ACCOUNT, "scopes": sorted(SCOPES)}
        else:
            assert question.path in {
                f"{accounts}{account}/token" for account in ("default", ACCOUNT)
            }
            assert set(question.query["scopes"].split(",")) == SCOPES
            told = {
                "access_token": mint.issue(),
                "expires_in": mint.lifetime_s,
                "token_type": "Bearer",
            }
        reply = as_json(told)
        return Reply(body=reply.body, headers={**reply.headers, **FLAVOR})

    return answer


KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PEM = KEY.private_bytes(
    serialization.Encoding.PEM,
    serialization.PrivateFormat.PKCS8,
    serialization.NoEncryption(),
).decode()


def decoded(part: str) -> bytes:
    """Undo the encoding of a part of a JWT."""
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def key_file(mint: Mint) -> Answer:
    """Answer as the token endpoint does, to an assertion that the key has signed."""

    def answer(question: Question) -> Reply:
        grant = "urn:ietf:params:oauth:grant-type:jwt-bearer"
        assert question.form["grant_type"] == grant
        signed, _, signature = question.form["assertion"].rpartition(".")
        KEY.public_key().verify(
            decoded(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256()
        )
        claims = json.loads(decoded(signed.partition(".")[2]))
        assert set(claims["scope"].split()) == SCOPES
        assert claims["iss"] == ACCOUNT
        return as_json({"access_token": mint.issue(), "expires_in": mint.lifetime_s})

    return answer


def exchange(mint: Mint, file: Path) -> Answer:
    """Answer as the exchange of tokens does, to what a pod's token file holds now."""

    def answer(question: Question) -> Reply:
        form = question.form
        assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:token-exchange"
        assert form["audience"] == "//iam.googleapis.com/projects/1/x"
        assert set(form["scope"].split()) == SCOPES
        if form["subject_token"] != file.read_text():
            told = f"The given token {form['subject_token']} is expired."
            error = {"error": "invalid_grant", "error_description": told}
            return as_json(error, 400)
        return as_json(
            {
                "access_token": mint.issue(),
                "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
                "token_type": "Bearer",
                "expires_in": mint.lifetime_s,
            }
        )

    return answer


def write_key(folder: Path, token_uri: str) -> Path:
    """Write the key file of a service account."""
    file = folder / "key.json"
    told = {
        "type": "service_account",
        "project_id": "shop",
        "private_key_id": "1",
        "private_key": PEM,
        "client_email": ACCOUNT,
        "token_uri": token_uri,
    }
    file.write_text(json.dumps(told))
    return file


def write_federation(folder: Path, token_url: str, file: Path) -> Path:
    """Write the configuration of a federated identity."""
    configuration = folder / "federation.json"
    told = {
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/x",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": token_url,
        "credential_source": {"file": str(file)},
    }
    configuration.write_text(json.dumps(told))
    return configuration


def test_each_way_in_leads_to_the_database(
    gate: Gate, mint: Mint, endpoints: Endpoints, tmp_path: Path
) -> None:
    """The metadata server, a key file, a federated identity; no token is printed."""
    token = tmp_path / "token"
    token.write_text("eyJ-subject")
    server = endpoints(metadata(mint))
    keys = endpoints(key_file(mint))
    federation = endpoints(exchange(mint, token))
    ways = {
        "metadata": {"GCE_METADATA_HOST": server.address},
        "key": {
            "GOOGLE_APPLICATION_CREDENTIALS": str(write_key(tmp_path, keys.url)),
        },
        "federation": {
            "GOOGLE_APPLICATION_CREDENTIALS": str(
                write_federation(tmp_path, federation.url, token)
            ),
        },
    }
    for way, environ in ways.items():
        run = gate("wait", env={**mint.environ(), **LOGIN, **environ})
        assert run.exit_code == 0, (way, run.output)
        assert run.stderr == ""
        assert mint.issued[-1] not in run.output
        assert "eyJ" not in run.output
    assert len(mint.issued) == len(ways)


def test_a_run_that_applies_asks_for_one_token(
    gate: Gate, mint: Mint, endpoints: Endpoints
) -> None:
    """For all of its connections, which go to one server."""
    endpoint = endpoints(metadata(mint))
    environ = {**mint.environ(), **LOGIN, "GCE_METADATA_HOST": endpoint.address}
    run = gate(env=environ, migrations=FILES)
    assert run.exit_code == 0, run.output
    assert len(mint.issued) == 1


def test_a_role_that_is_not_made_is_told_with_what_makes_it(
    gate: Gate, mint: Mint, endpoints: Endpoints
) -> None:
    """The flag, the role of IAM, the user and how it is written."""
    endpoint = endpoints(metadata(mint))
    environ = {
        **mint.environ(),
        **LOGIN,
        "GCE_METADATA_HOST": endpoint.address,
        "POSTGRES_USER": "gate@shop.iam",
        "GATE_AUTH_GRACE": "0",
    }
    run = gate("wait", env=environ)
    assert run.verdict["reason"] == "refused"
    assert "roles/cloudsql.instanceUser" in run.verdict["hint"]


def why(monkeypatch: pytest.MonkeyPatch, file: Path) -> NoTokenError:
    """Return why no token is given."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    with pytest.raises(NoTokenError) as caught:
        google.fetch({}, 1.0)
    return caught.value


def test_a_federated_token_that_has_expired_is_refused_with_googles_code(
    monkeypatch: pytest.MonkeyPatch, mint: Mint, endpoints: Endpoints, tmp_path: Path
) -> None:
    """And nothing else of the answer is told."""
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_text("eyJ-right")
    wrong.write_text("eyJ-wrong")
    endpoint = endpoints(exchange(mint, right))
    error = why(monkeypatch, write_federation(tmp_path, endpoint.url, wrong))
    assert (error.is_refused, str(error)) == (
        True,
        "Google's credentials file gives no token: HTTP 400, invalid_grant",
    )
    assert "workloadIdentityUser" in error.remedy


def test_an_endpoint_that_is_away_or_at_fault_is_asked_once_and_waited_for(
    monkeypatch: pytest.MonkeyPatch, endpoints: Endpoints, tmp_path: Path
) -> None:
    """The SDK would go on for half a minute; the gate's own wait repeats it."""
    endpoint = endpoints(lambda _: Reply(status=503, body="<html>"))
    file = write_key(tmp_path, endpoint.url)
    error = why(monkeypatch, file)
    assert (error.is_refused, str(error)) == (
        False,
        "Google's credentials file gives no token: HTTP 503",
    )
    assert len(endpoint.asked) == 1
    endpoint.close()
    assert not why(monkeypatch, file).is_refused


def test_a_credentials_file_that_is_missing_or_is_none_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With nothing of what it holds."""
    file = tmp_path / "key.json"
    missing = why(monkeypatch, file)
    assert str(missing).endswith(
        f'file "{file}" of the identity: no such file or directory'
    )
    for text in ("eyJ-secret", '{"type": "eyJ-secret"}', "[]"):
        file.write_text(text)
        error = why(monkeypatch, file)
        assert error.is_refused
        assert str(file) in str(error)
        assert "eyJ" not in str(error)
