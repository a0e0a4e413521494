"""
Sign a token for RDS and Aurora with the credentials that AWS gives this workload.

By botocore, which asks STS, a container's or the instance's endpoint; the token itself
is a signed URL and asks nobody.
"""

from __future__ import annotations

import importlib
import os
import re

from collections.abc import Mapping
from typing import Any, Final

from migration_gate.connection.login.answers import (
    OK,
    Answer,
    Asked,
    NoTokenError,
    Token,
    no_token,
    read_answer,
    read_retry_after,
    to_token,
)
from migration_gate.report.errors import SettingFault, SettingsError


EXPIRES_S: Final = 900
REGION: Final = re.compile(r"\.([a-z0-9-]+)\.rds\.amazonaws\.com(?:\.cn)?$")
NOT_OK: Final = re.compile(r"non 200 response (\d{3})\b")
THROTTLED: Final = 429
# 400 to HTTP, and no refusal.
NOT_YET_CODES: Final = frozenset(
    {"IDPCommunicationError", "RequestLimitExceeded", "Throttling"}
    | {"ThrottlingException", "RequestThrottled", "TooManyRequestsException"}
)
ASKED: Final = Asked(
    "AWS",
    (
        "Give this workload a role: in EKS a Pod Identity association, or the service "
        "account's annotation eks.amazonaws.com/role-arn; in ECS taskRoleArn; in EC2 "
        "an instance profile, with a hop limit of 2 for containers."
    ),
    (
        "The role must trust this workload: its trust policy names the cluster's OIDC "
        "provider and system:serviceaccount:NAMESPACE:NAME, or pods.eks.amazonaws.com."
    ),
)


def asked() -> Asked:
    """Return who is asked; which of its endpoints, the SDK finds out."""
    return ASKED


def fetch(server: Mapping[str, str], timeout_s: float) -> Token:
    """Return a token for a server. Raises NoTokenError, SettingsError."""
    session = _make_session(_find_region(server), timeout_s)
    try:
        credentials = session.get_credentials()
        found = credentials and credentials.get_frozen_credentials()
    except Exception as error:  # noqa: BLE001  # an SDK may raise anything
        # The SDK's texts may quote whole answers: they go no further.
        raise _no_credentials(error) from None
    if not found:
        raise NoTokenError(
            "AWS gives this workload no credentials", ASKED.when_away, is_refused=False
        )
    return to_token(_sign(session, credentials, server), EXPIRES_S)


def _find_region(server: Mapping[str, str]) -> str:
    """Return the database's region, which its name tells."""
    named = REGION.search(server.get("host", ""))
    environ = os.environ
    region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
    found = named[1] if named else region
    if not found:
        fault = SettingFault(
            name="AWS_REGION",
            rule="is not set, and the host's name tells no region",
            remedy="Name the region of the database.",
        )
        raise SettingsError([fault])
    return found


def _make_session(region: str, timeout_s: float) -> Any:  # noqa: ANN401  # untyped
    """Return a session that asks each endpoint once."""
    session_module: Any = importlib.import_module("botocore.session")
    config: Any = importlib.import_module("botocore.config")
    credentials: Any = importlib.import_module("botocore.credentials")
    utils: Any = importlib.import_module("botocore.utils")

    class Once(utils.ContainerMetadataFetcher):  # type: ignore[misc]  # untyped
        RETRY_ATTEMPTS = 1
        SLEEP_TIME = 0
        TIMEOUT_SECONDS = timeout_s

    session = session_module.Session()
    environ = os.environ
    if not environ.get("AWS_DEFAULT_REGION"):
        session.set_config_variable("region", environ.get("AWS_REGION") or region)
    session.set_default_client_config(
        config.Config(
            connect_timeout=timeout_s,
            read_timeout=timeout_s,
            retries={"total_max_attempts": 1},
        )
    )
    session.get_component("credential_provider").insert_before(
        "container-role", credentials.ContainerProvider(fetcher=Once())
    )
    return session


def _sign(session: Any, credentials: Any, server: Mapping[str, str]) -> str:  # noqa: ANN401
    """Return the signed URL, as generate_db_auth_token makes it, without its scheme."""
    awsrequest: Any = importlib.import_module("botocore.awsrequest")
    model: Any = importlib.import_module("botocore.model")
    signers: Any = importlib.import_module("botocore.signers")
    region = _find_region(server)
    signer = signers.RequestSigner(
        model.ServiceId("RDS"),
        region,
        "rds-db",
        "v4",
        credentials,
        session.get_component("event_emitter"),
    )
    host, port = server["host"], server.get("port") or "5432"
    request = {
        "url_path": "/",
        "query_string": "",
        "headers": {},
        "body": {"Action": "connect", "DBUser": server["user"]},
        "method": "GET",
    }
    awsrequest.prepare_request_dict(request, f"https://{_bracket(host)}:{port}")
    url = signer.generate_presigned_url(
        operation_name="connect",
        request_dict=request,
        region_name=region,
        expires_in=EXPIRES_S,
        signing_name="rds-db",
    )
    return str(url).removeprefix("https://")


def _bracket(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _no_credentials(error: Exception) -> NoTokenError:
    """Return what an error of botocore's means."""
    exceptions: Any = importlib.import_module("botocore.exceptions")
    parsers: Any = importlib.import_module("botocore.parsers")
    answer = None
    if isinstance(error, exceptions.ClientError):
        told: Any = error
        code = str(told.response.get("Error", {}).get("Code", ""))
        metadata = told.response.get("ResponseMetadata", {})
        told_status = metadata.get("HTTPStatusCode", 0)
        status = THROTTLED if code in NOT_YET_CODES else told_status
        header = metadata.get("HTTPHeaders", {}).get("retry-after")
        again_in_s = read_retry_after(status, header)
        answer = Answer(status, find_code_word(code), again_in_s)
    elif isinstance(error, exceptions.CredentialRetrievalError):
        found = NOT_OK.search(str(error))
        answer = read_answer(int(found[1]), str(error)) if found else None
    elif isinstance(error, parsers.ResponseParserError | KeyError | TypeError):
        answer = Answer(OK)  # a page in its way, or another's answer
    elif not isinstance(
        error, exceptions.HTTPClientError | exceptions.ConnectionError | OSError
    ):
        return NoTokenError(
            f"AWS's credentials cannot be used as they are set "
            f"({type(error).__name__})",
            "Check the AWS_… variables: one is missing or malformed.",
            is_refused=True,
        )
    return no_token(ASKED, answer, error)


def find_code_word(code: str) -> str:
    """Return a code of AWS as it may be shown: a word, or nothing."""
    return code if re.fullmatch(r"[A-Za-z][A-Za-z0-9.]{1,63}", code) else ""
