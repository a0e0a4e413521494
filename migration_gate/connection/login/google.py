"""
Ask Google for a token: by the metadata server, a federated identity or a key file.

By google-auth, once for each question: the wait repeats it.
"""

from __future__ import annotations

import importlib
import json
import os
import warnings

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from migration_gate.connection.login.answers import (
    OK,
    Answer,
    Asked,
    NoTokenError,
    Token,
    no_token,
    read_answer,
    to_token,
)


# Cloud SQL's and AlloyDB's: a token for a login, and for nothing else.
SCOPES: Final = (
    "https://www.googleapis.com/auth/sqlservice.login",
    "https://www.googleapis.com/auth/alloydb.login",
)
FILE_VARIABLE: Final = "GOOGLE_APPLICATION_CREDENTIALS"
REMEDIES: Final = (
    (
        "Where it stays so, this workload has no identity: in GKE turn Workload "
        "Identity on for the cluster and the node pool; in Cloud Run name a service "
        f"account; elsewhere name a credentials file in {FILE_VARIABLE}."
    ),
    (
        "Let the Kubernetes service account act as the Google one "
        "(roles/iam.workloadIdentityUser), check its annotation "
        "iam.gke.io/gcp-service-account, or the credentials file, and this machine's "
        "clock."
    ),
)


# By the type that a credentials file has; each takes what the file holds.
MAKERS: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "service_account": (
            "google.oauth2.service_account",
            "from_service_account_info",
        ),
        "authorized_user": ("google.oauth2.credentials", "from_authorized_user_info"),
        "external_account": ("google.auth.identity_pool", "from_info"),
        "external_account of AWS": ("google.auth.aws", "from_info"),
    }
)


class _NotAnsweredError(Exception):
    """An answer, or none, that the SDK would ask again for."""


class _Watched:
    """A transport of the SDK's that notes what is answered, and asks once."""

    def __init__(self, request: Any, timeout_s: float) -> None:  # noqa: ANN401
        self._request = request
        self._timeout_s = timeout_s
        self.answer: Answer | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  # the SDK's
        self.answer = None
        try:
            response = self._request(*args, **{**kwargs, "timeout": self._timeout_s})
        except Exception as error:  # an SDK may raise anything
            raise _NotAnsweredError from error
        retry_after = response.headers.get("Retry-After")
        self.answer = read_answer(response.status, response.data, retry_after)
        if response.status != OK and not self.answer.is_refusal:
            raise _NotAnsweredError
        return response


def asked() -> Asked:
    """Return who is asked: what a file names, or else the metadata server."""
    named = "credentials file" if os.environ.get(FILE_VARIABLE) else "metadata server"
    return Asked(f"Google's {named}", *REMEDIES)


def fetch(_server: Mapping[str, str], timeout_s: float) -> Token:
    """Return a token, which is good for every server. Raises NoTokenError."""
    requests: Any = importlib.import_module("google.auth.transport.requests")
    request = _Watched(requests.Request(), timeout_s)
    path = os.environ.get(FILE_VARIABLE)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            credentials = _find_credentials(path)
            credentials.refresh(request)
    except Exception as error:  # noqa: BLE001  # an SDK may raise anything
        if path and request.answer is None and not _is_about_network(error):
            raise _unusable_file(path, error) from None
        # The SDK's texts may quote whole answers: they go no further.
        why = error.__cause__ if isinstance(error, _NotAnsweredError) else error
        raise no_token(asked(), request.answer, why or error) from None
    expiry = credentials.expiry.replace(tzinfo=UTC)
    expires_in_s = (expiry - datetime.now(UTC)).total_seconds()
    return to_token(credentials.token, expires_in_s)


def _find_credentials(path: str | None) -> Any:  # noqa: ANN401  # one of several
    if not path:
        compute_engine: Any = importlib.import_module("google.auth.compute_engine")
        return compute_engine.Credentials(scopes=SCOPES)
    # The SDK's own loader asks for the project, at another endpoint.
    told = json.loads(Path(path).read_bytes())
    module, maker = MAKERS[_kind(told)]
    kind: Any = importlib.import_module(module)
    return getattr(kind.Credentials, maker)(told, scopes=SCOPES)


def _kind(told: Mapping[str, Any]) -> str:
    """Return what a credentials file is; that of a program to run is none."""
    kind, source = str(told["type"]), told.get("credential_source", {})
    if str(source.get("environment_id", "")).startswith("aws"):
        return f"{kind} of AWS"
    return f"{kind} of a program" if "executable" in source else kind


def _is_about_network(error: Exception) -> bool:
    return isinstance(error, _NotAnsweredError | OSError)


def _unusable_file(path: str, error: Exception) -> NoTokenError:
    return NoTokenError(
        f'Google\'s credentials file "{path}" cannot be used ({type(error).__name__})',
        f"{FILE_VARIABLE} names the key file of a service account, or the "
        "configuration of a federated identity.",
        is_refused=True,
    )
