"""
A token through PgBouncer, in both modes: where it lets in, and where it is refused.

One that asks the server for the role's password passes a login on, as the pooler of
Azure's flexible server does; one with a list of its own has no token in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.connection.test_login_azure import FILES, app_service, container_app
from tests.fix_gate import Gate
from tests.fix_identity import Endpoints, Mint
from tests.fix_pgbouncer import Mode, PgBouncers
from tests.fix_postgres import Database


# Servers of their own, and an SDK to load: a loaded machine needs longer.
pytestmark = pytest.mark.timeout(60)
MODES: tuple[Mode, ...] = ("session", "transaction")
PASSES_ON = "SELECT rolname, rolpassword FROM pg_authid WHERE rolname = $1"


@dataclass(frozen=True, kw_only=True)
class Pooled:
    """A role's tokens, and what starts a pooler that stands before its database."""

    mint: Mint
    database: Database
    pgbouncer: PgBouncers
    environ: dict[str, str]

    def before(self, mode: Mode, **settings: str) -> dict[str, str]:
        """Start one that wants TLS, as its server does; return a gate's settings."""
        embedded = self.database.server.embedded
        assert embedded is not None
        pooler = self.pgbouncer(
            mode,
            self.database,
            server_tls_sslmode="require",
            client_tls_sslmode="require",
            client_tls_key_file=str(embedded.data / "server.key"),
            client_tls_cert_file=str(embedded.data / "server.crt"),
            **settings,
        )
        if "auth_query" not in settings:
            pooler.admit(self.mint.role)
        place = {"POSTGRES_HOST": pooler.host, "POSTGRES_PORT": str(pooler.port)}
        return {**self.environ, **place}


@pytest.fixture
def pooled(
    mint: Mint,
    endpoints: Endpoints,
    encrypted_database: Database,
    pgbouncer: PgBouncers,
) -> Pooled:
    """Return a container app whose database may stand after a pooler."""
    return Pooled(
        mint=mint,
        database=encrypted_database,
        pgbouncer=pgbouncer,
        environ=container_app(mint, endpoints(app_service(mint))),
    )


@pytest.mark.parametrize("mode", MODES)
def test_a_token_lets_in_through_a_pooler_that_passes_the_login_on(
    gate: Gate, pooled: Pooled, mode: Mode
) -> None:
    """One token, as without a pooler."""
    environ = pooled.before(mode, auth_user=pooled.database.user, auth_query=PASSES_ON)
    run = gate(env=environ, migrations=FILES)
    assert run.exit_code == 0, run.output
    assert run.verdict["applied"] == ["1_a.sql"]
    assert len(pooled.mint.issued) == 1


@pytest.mark.parametrize("method", ["scram-sha-256", "plain"])
@pytest.mark.parametrize("mode", MODES)
def test_a_token_is_refused_by_a_pooler_with_passwords_of_its_own(
    gate: Gate, pooled: Pooled, mode: Mode, method: str
) -> None:
    """However it asks for them; the last line says who has to take the token."""
    environ = pooled.before(mode, auth_type=method)
    run = gate("wait", env={**environ, "GATE_AUTH_GRACE": "0"})
    assert (run.exit_code, run.verdict["reason"]) == (1, "refused")
    assert "A pooler before the server has to pass tokens on." in run.verdict["hint"]
    assert pooled.mint.issued[0] not in run.output
