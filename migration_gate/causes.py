"""
Why a connection could not be had, and whether waiting helps. Pure.

psycopg gives no SQLSTATE for a failed connect, so the text tells, and it may be
translated: what is not recognised counts as "away", which waits. Facts and texts:
PostgreSQL's postinit.c and auth.c, libpq's fe-connect.c, PgBouncer's client.c.
"""

from __future__ import annotations

import re

from dataclasses import dataclass
from typing import Final, Literal


Kind = Literal["local", "refused", "away"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """
    One kind of failure.

    ``local`` cannot come right by waiting, ``refused`` may within a grace (a role or
    secret that is being made), ``away`` is waited for.
    """

    pattern: str
    kind: Kind
    reason: str
    remedy: str


UNKNOWN: Final = Cause(
    pattern="",
    kind="away",
    reason="unknown",
    remedy="Check that PostgreSQL runs at this address and can be reached from here.",
)
TLS_TRUST = (
    "Give the server's CA in sslrootcert (PGSSLROOTCERT), or sslrootcert=system for "
    "a public one, and the host name that is in its certificate."
)
CAUSES: Final = (
    Cause(
        pattern=r"root certificate file \".*\" does not exist|could not read root "
        r"certificate|sslrootcert",
        kind="local",
        reason="ca_file_missing",
        remedy="sslrootcert (PGSSLROOTCERT) names a file that is not here or cannot "
        "be read: mount it, or use sslrootcert=system.",
    ),
    Cause(
        pattern=r"certificate verify failed",
        kind="local",
        reason="certificate_untrusted",
        remedy=TLS_TRUST,
    ),
    Cause(
        pattern=r"server certificate for .* does not match host name",
        kind="local",
        reason="certificate_mismatch",
        remedy=TLS_TRUST,
    ),
    Cause(
        pattern=r"no password supplied",
        kind="local",
        reason="no_password",
        remedy="The server asks for a password: give it in POSTGRES_PASSWORD, "
        "PGPASSWORD or their _FILE.",
    ),
    Cause(
        pattern=r"could not (open|load|read) (certificate|private key) file|"
        r"private key file \".*\" (has group or world access|must be)",
        kind="local",
        reason="client_certificate",
        remedy="Check sslcert and sslkey: both must be readable, the key by its owner "
        "only.",
    ),
    Cause(
        pattern=r"invalid (\S+ value|connection option|integer value|URI)|"
        r"definition of service .* not found|service file .* not found|"
        r"weak sslmode|GSSAPI encryption required",
        kind="local",
        reason="parameter",
        remedy="Correct this connection parameter.",
    ),
    Cause(
        pattern=r"unrecognized configuration parameter|unsupported startup parameter|"
        r"invalid value for parameter|command-line options",
        kind="local",
        reason="startup_parameter",
        remedy="Take the setting out of PGOPTIONS or options=: the server or the "
        "pooler does not take it.",
    ),
    Cause(
        pattern=r"received invalid response to|expected authentication request",
        kind="refused",
        reason="not_postgresql",
        remedy="Something other than PostgreSQL listens there: check host and port.",
    ),
    Cause(
        pattern=r"server does not support SSL",
        kind="refused",
        reason="tls_not_offered",
        remedy="The server offers no TLS: turn it on there, or set "
        "POSTGRES_SSL_MODE=prefer.",
    ),
    Cause(
        pattern=r"no pg_hba\.conf entry.*no encryption|SSL required|"
        r"connection requires a valid client certificate|SSL connection is required",
        kind="refused",
        reason="tls_required",
        remedy="The server wants TLS: set POSTGRES_SSL_MODE=require, better "
        "verify-full.",
    ),
    Cause(
        pattern=r"no pg_hba\.conf entry|pg_hba\.conf rejects",
        kind="refused",
        reason="not_allowed",
        remedy="The server's pg_hba.conf or firewall rule allows this address, user "
        "and database no login: add it there.",
    ),
    Cause(
        pattern=r"password authentication failed|SASL authentication failed|"
        r"authentication failed|role \".*\" is not permitted to log in|"
        r"role \".*\" does not exist|no such user",
        kind="refused",
        reason="login_refused",
        remedy="Check user and password; a role may also be missing, expired or "
        "NOLOGIN.",
    ),
    Cause(
        pattern=r"database \".*\" does not exist|no such database",
        kind="refused",
        reason="no_database",
        remedy="Create the database, or set GATE_CREATE_DATABASE=true.",
    ),
    Cause(
        pattern=r"permission denied for database|database \".*\" is disabled|"
        r"is not currently accepting connections",
        kind="refused",
        reason="no_connect_right",
        remedy="GRANT CONNECT ON DATABASE to the role, and check that the database "
        "allows connections.",
    ),
    Cause(
        pattern=r"failed to resolve host|could not translate host name|"
        r"Name or service not known|Temporary failure in name resolution",
        kind="away",
        reason="host_unknown",
        remedy="Check the host name and the DNS of this network.",
    ),
    Cause(
        pattern=r"Connection refused",
        kind="away",
        reason="connection_refused",
        remedy="Nothing listens there: check host and port, and that PostgreSQL runs "
        "and listens on this network.",
    ),
    Cause(
        pattern=r"starting up|not yet accepting connections|in recovery mode|"
        r"consistent recovery state",
        kind="away",
        reason="starting_up",
        remedy="PostgreSQL is starting or recovering: look at its log.",
    ),
    Cause(
        pattern=r"shutting down",
        kind="away",
        reason="shutting_down",
        remedy="PostgreSQL is stopping: look at its log.",
    ),
    Cause(
        pattern=r"not accepting connections",
        kind="away",
        reason="standby_closed",
        remedy="The server is a standby that takes no connections: name the primary.",
    ),
    Cause(
        pattern=r"too many clients|remaining connection slots|too many connections|"
        r"no more connections allowed|Max client connections|MaxClients",
        kind="away",
        reason="too_many_connections",
        remedy="All connections are taken: close some, or raise max_connections or "
        "the role's or database's limit.",
    ),
    Cause(
        pattern=r"timeout expired|Connection timed out|Operation timed out",
        kind="away",
        reason="timeout",
        remedy="Nothing answers there: check host, port, firewall and security groups.",
    ),
    Cause(
        pattern=r"No route to host|Network is unreachable",
        kind="away",
        reason="no_route",
        remedy="Check the address and the network between here and the database.",
    ),
    Cause(
        pattern=r"No such file or directory",
        kind="away",
        reason="no_socket",
        remedy="There is no socket there: check the folder in host, and that "
        "PostgreSQL runs.",
    ),
    Cause(
        pattern=r"query_wait_timeout|server_login_retry|client_login_timeout|"
        r"pooler is|server login has been failing|bouncer config error",
        kind="away",
        reason="pooler",
        remedy="The pooler cannot reach PostgreSQL: look at its log, or name the "
        "server's own address.",
    ),
    Cause(
        pattern=r"closed the connection unexpectedly|Connection reset|EOF detected",
        kind="away",
        reason="closed_early",
        remedy="The connection was closed before the login: check what stands between "
        "(proxy, mesh, load balancer) and the server's log.",
    ),
    Cause(
        pattern=r"hot standby mode|session is read-only|session is not read-only",
        kind="away",
        reason="wrong_kind_of_server",
        remedy="target_session_attrs asks for another kind of server: name the "
        "primary.",
    ),
)
COMPILED: Final = tuple((re.compile(c.pattern, re.DOTALL), c) for c in CAUSES)
ORDER_OF_KINDS: Final = {"away": 0, "refused": 1, "local": 2}


def find_cause(text: str) -> Cause:
    """
    Tell what a failed connect's text means.

    With several hosts or addresses the text holds one failure of each: the one that
    waiting helps most decides.
    """
    failures = [line for line in text.splitlines() if line.startswith("- ")] or [text]
    causes = [_find_one(failure) for failure in failures]
    return min(causes, key=lambda cause: ORDER_OF_KINDS[cause.kind])


def _find_one(text: str) -> Cause:
    return next((c for pattern, c in COMPILED if pattern.search(text)), UNKNOWN)


def shorten_text(text: str) -> str:
    """Fold a failure's text to one line, without what psycopg puts in front."""
    first = text.split("Multiple connection attempts failed.")[0]
    first = first.split("\n\tIs the server running")[0]
    folded = " ".join(first.split())
    return folded.removeprefix("connection failed: ").removeprefix("connection is bad: ")
