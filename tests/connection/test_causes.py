"""What a failed connect's text means, and how it is told."""

from __future__ import annotations

import re

import pytest

from migration_gate.connection.causes import (
    BY_SQLSTATE,
    CAUSES,
    LOGIN_OR_HBA,
    UNKNOWN,
    Cause,
    find_cause,
    shorten_text,
    split_failures,
)


AT = 'connection to server at "10.0.0.5", port 5432 failed: '
# As libpq 18, PostgreSQL 13 to 18 and PgBouncer 1.18 to 1.25 say it.
TEXTS = {
    "ca_file_missing": [
        'root certificate file "/ca.pem" does not exist',
        'could not read root certificate file "/ca.pem": no certificate found',
    ],
    "certificate_untrusted": [AT + "SSL error: certificate verify failed"],
    "certificate_mismatch": [
        AT + 'server certificate for "a" does not match host name "b"',
        AT + 'server certificate for "a" (and 2 other names) does not match host name '
        '"b"',
    ],
    "no_password": [AT + "fe_sendauth: no password supplied"],
    "no_user": ["local user with ID 10001 does not exist"],
    "client_certificate": [
        'private key file "/k" has group or world access; file must have permissions',
        'certificate present, but not private key file "/k"',
        'could not open certificate file "/c": Permission denied',
    ],
    "parameter": [
        'invalid sslmode value: "bogus"',
        'invalid connection option "hst"',
        'invalid integer value "x" for connection option "keepalives"',
        'definition of service "x" not found',
        "GSSAPI encryption required but no credential cache",
    ],
    "startup_parameter": [
        AT + 'FATAL:  unrecognized configuration parameter "x"',
        AT + "FATAL:  unsupported startup parameter: options",
        AT + 'FATAL:  invalid value for parameter "work_mem": "lots"',
    ],
    "not_postgresql": [
        AT + "received invalid response to SSL negotiation: H",
        AT + "expected authentication request from server, but received H",
        AT + "SSL error: wrong version number",
    ],
    "tls_not_offered": [AT + "server does not support SSL, but SSL was required"],
    "client_certificate_refused": [
        AT + "FATAL:  connection requires a valid client certificate",
        AT + "SSL error: tlsv1 alert unknown ca",
    ],
    "tls_version": [AT + "SSL error: unsupported protocol"],
    "tls_required": [
        AT + "FATAL:  SSL required",
        AT + "ERROR:  connection is insecure (try using `sslmode=require`)",
    ],
    "not_allowed": [
        AT + 'FATAL:  no pg_hba.conf entry for host "h", user "u", database "d", '
        "no encryption",
        AT + 'FATAL:  no pg_hba.conf entry for host "h", user "u", database "d", '
        "SSL encryption",
        AT + 'FATAL:  pg_hba.conf rejects connection for host "h", user "u", database '
        '"d", no encryption',
    ],
    "authentication_method": [
        AT + "authentication method 7 not supported",
        "channel binding required, but SSL not in use",
    ],
    "login_refused": [
        AT + 'FATAL:  password authentication failed for user "u"',
        AT + 'FATAL:  PAM authentication failed for user "u"',
        AT + 'FATAL:  role "u" is not permitted to log in',
        AT + 'FATAL:  role "u" does not exist',
        AT + "FATAL:  Tenant or user not found",
    ],
    "no_database": [
        AT + 'FATAL:  database "d" does not exist',
        AT + "FATAL:  no such database: d",
    ],
    "no_connect_right": [
        AT + 'FATAL:  permission denied for database "d"\nDETAIL:  User does not have '
        "CONNECT privilege.",
        AT + 'FATAL:  database "d" is not currently accepting connections',
        AT + 'FATAL:  cannot connect to invalid database "d"',
        AT + 'FATAL:  database "d" is disabled',
    ],
    "template_in_use": [
        'source database "template1" is being accessed by other users\nDETAIL:  ...',
    ],
    "host_unknown": [
        "failed to resolve host 'h': [Errno -2] Name or service not known"
    ],
    "connection_refused": [AT + "Connection refused"],
    "starting_up": [
        AT + "FATAL:  the database system is starting up",
        AT + "FATAL:  the database system is not yet accepting connections\nDETAIL:  "
        "Consistent recovery state has not been yet reached.",
        AT + "FATAL:  the database system is in recovery mode",
    ],
    "standby_closed": [
        AT + "FATAL:  the database system is not accepting connections\nDETAIL:  Hot "
        "standby mode is disabled.",
    ],
    "shutting_down": [AT + "FATAL:  the database system is shutting down"],
    "pooler": [
        AT + "FATAL:  query_wait_timeout",
        AT + "FATAL:  server login has been failing, cached error: connect failed "
        "(server_login_retry)",
        AT + "FATAL:  pooler is shutting down",
        AT + "FATAL:  bouncer config error",
    ],
    "too_many_connections": [
        AT + "FATAL:  sorry, too many clients already",
        AT + "FATAL:  remaining connection slots are reserved for roles with the "
        "SUPERUSER attribute",
        AT + 'FATAL:  too many connections for role "u"',
        AT + "FATAL:  no more connections allowed (max_client_conn)",
    ],
    "timeout": ["connection timeout expired", AT + "Connection timed out"],
    "no_route": [AT + "No route to host", AT + "Network is unreachable"],
    "no_socket": [
        'connection to server on socket "/s" failed: No such file or directory',
        'connection to server on socket "/s" failed: Permission denied',
    ],
    "closed_early": [
        AT + "server closed the connection unexpectedly\n\tThis probably means the "
        "server terminated abnormally",
        AT + "could not receive data from server: Connection reset by peer",
    ],
    "wrong_kind_of_server": [AT + "session is read-only"],
    "unknown": [AT + "FATAL:  was ist das", "", "database locale is incompatible"],
}
CASES = [(reason, text) for reason, texts in TEXTS.items() for text in texts]


@pytest.mark.parametrize(("reason", "text"), CASES)
@pytest.mark.parametrize("start", ["connection failed: ", "connection is bad: ", ""])
def test_a_text_has_its_cause(reason: str, text: str, start: str) -> None:
    """What psycopg puts in front does not matter."""
    assert find_cause(start + text).reason == reason


def test_every_cause_has_a_text_and_a_remedy() -> None:
    """No pattern stands in the table that no test reaches."""
    assert {cause.reason for cause in CAUSES} == TEXTS.keys() - {"unknown"}
    for cause in (*CAUSES, *BY_SQLSTATE.values(), UNKNOWN):
        assert re.fullmatch(r"[A-Za-z].*[^.]\.", cause.remedy)


def two(first: str, second: str, *, host: str = "a") -> str:
    """Return what psycopg says of two attempts that failed."""
    return (
        f"connection failed: {second}\n"
        "Multiple connection attempts failed. All failures were:\n"
        f"- host: 'a', port: '5432', hostaddr: '::1': connection failed: {first}\n"
        f"- host: '{host}', port: '5432', hostaddr: '10.0.0.5': connection failed: "
        f"{second}"
    )


REFUSED = AT + "Connection refused"
WRONG = AT + 'FATAL:  password authentication failed for user "u"'
STARTING = AT + "FATAL:  the database system is starting up"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (two(REFUSED, WRONG), "login_refused"),
        (two(WRONG, REFUSED), "login_refused"),
        (two(STARTING, WRONG), "starting_up"),
        (two(REFUSED, REFUSED), "connection_refused"),
        (two(REFUSED, WRONG, host="b"), "connection_refused"),
        (two(WRONG, STARTING, host="b"), "starting_up"),
    ],
)
def test_of_several_failures_the_most_hopeful_decides(text: str, reason: str) -> None:
    """But an address where nobody listens says little beside one that answered."""
    assert find_cause(text).reason == reason


def test_a_refusal_with_and_without_tls_is_not_one_for_lack_of_tls() -> None:
    """sslmode=prefer tries both, and both failures stand in the text."""
    entry = 'FATAL:  no pg_hba.conf entry for host "h", user "u", database "d"'
    both = f"{AT}{entry}, SSL encryption\n{AT}{entry}, no encryption"
    (only,) = (c for c in CAUSES if "SSL encryption" in c.pattern)
    assert find_cause(both) is only
    assert find_cause(f"{AT}{entry}, no encryption") is not only


def test_a_text_is_told_in_one_line_and_each_failure_once() -> None:
    """What psycopg and libpq add for a person at a terminal is left out."""
    hint = "\n\tIs the server running on that host and accepting TCP/IP connections?"
    assert shorten_text(f"connection failed: {REFUSED}{hint}") == REFUSED
    folded = WRONG.replace("  ", " ")
    assert shorten_text(two(REFUSED + hint, WRONG)) == f"{REFUSED}; {folded}"
    assert shorten_text(two(REFUSED, REFUSED)) == REFUSED


def test_a_single_failure_belongs_to_no_host() -> None:
    """Only several attempts name their hosts."""
    assert split_failures("x\ny") == [("", "x\ny")]


@pytest.mark.parametrize("cause", BY_SQLSTATE.values(), ids=BY_SQLSTATE)
def test_a_sqlstate_means_what_a_text_can_mean(cause: Cause) -> None:
    """Both tables lead to the same causes, but for 28000, which is several of them."""
    assert cause in CAUSES or cause is LOGIN_OR_HBA
