"""
Ask Entra for a token: by a workload's, a managed or a service principal's identity.

By azure-identity, once for each question: the wait repeats it.
"""

from __future__ import annotations

import importlib
import os
import time
import warnings

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from migration_gate.connection.login.answers import (
    Answer,
    Asked,
    NoTokenError,
    Token,
    no_token,
    read_answer,
    to_token,
)


# `az cloud show --query endpoints.ossrdbmsResourceId`, by the end of the host's name.
RESOURCE: Final = "https://ossrdbms-aad.database.windows.net"
RESOURCES: Final[Mapping[str, str]] = MappingProxyType(
    {
        ".chinacloudapi.cn": "https://ossrdbms-aad.database.chinacloudapi.cn",
        ".usgovcloudapi.net": "https://ossrdbms-aad.database.usgovcloudapi.net",
    }
)
NAMED: Final = (
    "Give this workload an identity: in AKS the label azure.workload.identity/use: "
    '"true" and a service account with azure.workload.identity/client-id; elsewhere '
    "az … identity assign, and its client id in AZURE_CLIENT_ID."
)
REMEDIES: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "service principal": (
            "Check that this network reaches the authority (AZURE_AUTHORITY_HOST).",
            (
                "Check AZURE_TENANT_ID, AZURE_CLIENT_ID, this machine's clock, and "
                "that the secret or certificate is valid."
            ),
        ),
        "workload identity": (
            "Check that this network reaches the authority (AZURE_AUTHORITY_HOST).",
            (
                "The identity needs a federated credential whose issuer, subject "
                "(system:serviceaccount:NAMESPACE:NAME) and audience are this pod's; "
                "check the annotation azure.workload.identity/client-id."
            ),
        ),
        "managed identity": (
            (
                "The endpoint of the managed identity is away or throttles. Where it "
                f"stays so, this workload has none. {NAMED}"
            ),
            f"This workload does not have the identity that is asked for. {NAMED}",
        ),
    }
)


def asked() -> Asked:
    """Return who is asked, by what the environment has."""
    way = _find_way()
    return Asked(f"Azure's {way}", *REMEDIES[way])


def fetch(server: Mapping[str, str], timeout_s: float) -> Token:
    """Return a token for a server. Raises NoTokenError."""
    answers: list[Answer] = []

    def note(response: Any) -> None:  # noqa: ANN401  # the SDK's own
        http = response.http_response
        retry_after = http.headers.get("Retry-After")
        answers.append(read_answer(http.status_code, http.read(), retry_after))

    options = {
        "retry_total": 0,
        "connection_timeout": timeout_s,
        "read_timeout": timeout_s,
        "raw_response_hook": note,
        # It asks login.microsoftonline.com whether the authority is one: of another
        # cloud, or a private one, that is not known there, and may not be reached.
        "disable_instance_discovery": True,
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            credential = _make_credential(_find_way(), options)
            given = credential.get_token(f"{_resource(server)}/.default")
    except Exception as error:  # an SDK may raise anything
        last = answers[-1] if answers else None
        if isinstance(error, ValueError) and last is None:
            raise _misconfigured(_find_way()) from error
        # The SDK's texts may quote whole answers: they go no further.
        raise no_token(asked(), last, error) from None
    return to_token(given.token, given.expires_on - time.time())


def _make_credential(way: str, options: Mapping[str, Any]) -> Any:  # noqa: ANN401
    identity: Any = importlib.import_module("azure.identity")
    if way == "service principal":
        return identity.EnvironmentCredential(**options)
    if way == "workload identity":
        return identity.WorkloadIdentityCredential(**options)
    client_id = os.environ.get("AZURE_CLIENT_ID") or None
    return identity.ManagedIdentityCredential(client_id=client_id, **options)


def _find_way() -> str:
    environ = os.environ
    secrets = ("AZURE_CLIENT_SECRET", "AZURE_CLIENT_CERTIFICATE_PATH")
    if any(environ.get(name) for name in secrets):
        return "service principal"
    if environ.get("AZURE_FEDERATED_TOKEN_FILE"):
        return "workload identity"
    return "managed identity"


def _misconfigured(way: str) -> NoTokenError:
    return NoTokenError(
        f"Azure's {way} cannot be used as it is set",
        "Check AZURE_TENANT_ID, AZURE_CLIENT_ID, AZURE_AUTHORITY_HOST (https) and "
        "IDENTITY_ENDPOINT: one is missing or malformed.",
        is_refused=True,
    )


def _resource(server: Mapping[str, str]) -> str:
    host = server.get("host", "")
    authority = os.environ.get("AZURE_AUTHORITY_HOST", "").rstrip("/")
    for end, resource in RESOURCES.items():
        if host.endswith(end):
            return resource
    if authority.endswith(".microsoftonline.us"):
        return RESOURCES[".usgovcloudapi.net"]
    if authority.endswith((".chinacloudapi.cn", ".microsoftonline.cn")):
        return RESOURCES[".chinacloudapi.cn"]
    return RESOURCE
