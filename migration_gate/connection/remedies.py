"""
What to do about a connection that could not be had, where that differs. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from migration_gate.connection.causes import CERTIFICATE_MISMATCH, Cause


# By the end of a host's name, as each provider's own pages say.
PROVIDERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        ".rds.amazonaws.com": "Amazon RDS: mount global-bundle.pem of "
        "https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem, and name "
        "it in PGSSLROOTCERT.",
        ".postgres.database.azure.com": "Azure: the CA is a public one, "
        "PGSSLROOTCERT=system.",
        ".neon.tech": "Neon: the CA is a public one, PGSSLROOTCERT=system.",
        ".supabase.co": "Supabase: mount the certificate of the project's database "
        "settings, and name it in PGSSLROOTCERT.",
        ".supabase.com": "Supabase: mount the certificate of the project's database "
        "settings, and name it in PGSSLROOTCERT.",
        ".aivencloud.com": "Aiven: mount the project's CA certificate of its console, "
        "and name it in PGSSLROOTCERT.",
    }
)
CLOUD_SQL: Final = (
    "Cloud SQL: mount the instance's server-ca.pem, and name it in PGSSLROOTCERT; "
    "where the host is not in the certificate, POSTGRES_SSL_MODE=verify-ca."
)
UNVERIFIED: Final = (
    "GATE_LOGIN sends a token only to a server that is verified, unless "
    "POSTGRES_SSL_MODE=require is said."
)
POOLED_LOGIN: Final = "A pooler before the server has to pass tokens on."
# What a refused token lacks, which the server does not say.
TOKEN_REMEDIES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "azure": "The user must be the name, in its letters' case, of the role that "
        "was made for this identity: as the server's Entra administrator, in database "
        "postgres, SELECT * FROM pgaadauth_create_principal('NAME', false, false).",
        "aws": "The role must have rds_iam (GRANT rds_iam TO the role), the identity "
        "rds-db:connect on arn:aws:rds-db:REGION:ACCOUNT:dbuser:RESOURCE_ID/ROLE, and "
        "host and port, which are signed, must be the endpoint's own; the clock may be "
        "5 minutes wrong.",
        "google": "The instance must have the flag cloudsql.iam_authentication, the "
        "identity roles/cloudsql.instanceUser and an IAM user of the instance; the "
        "user is a service account's address without .gserviceaccount.com.",
    }
)


def name_in_remedy(remedy: str, parameters: Mapping[str, str]) -> str:
    """Fill in user and database as SQL names them; libpq's defaults are not known."""
    from migration_gate.report.quoting import (  # noqa: PLC0415  # most need no remedy
        quote_name,
    )

    names = {
        "{user}": parameters.get("user"),
        "{database}": parameters.get("dbname") or parameters.get("user"),
    }
    for hole, name in names.items():
        remedy = remedy.replace(hole, quote_name(name) if name else "…")
    return remedy


def trust_remedy(cause: Cause, hosts: Sequence[str], login: str = "password") -> str:
    """Return what makes a server's certificate trusted, by its provider where known."""
    told = [cause.remedy] if login == "password" else [cause.remedy, UNVERIFIED]
    for host in () if cause is CERTIFICATE_MISMATCH else hosts:
        for end, remedy in PROVIDERS.items():
            if host.endswith(end):
                return " ".join([remedy, *told])
    return " ".join([CLOUD_SQL, *told] if login == "google" else told)
