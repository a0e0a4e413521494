"""What a failed connect's text means, and how it is told."""

from __future__ import annotations

import re

import pytest

from migration_gate.connection import causes
from migration_gate.connection.causes import (
    BY_SQLSTATE,
    CAUSES,
    LOGIN_OR_HBA,
    TLS_TRUST,
    UNKNOWN,
    Cause,
)
from migration_gate.connection.not_ready import decide
from migration_gate.connection.remedies import name_in_remedy, trust_remedy
from migration_gate.connection.texts import find_cause, shorten_text
from tests.ends import cause


AT = 'connection to server at "10.0.0.5", port 5432 failed: '
# As libpq 18, PostgreSQL 13 to 18 and PgBouncer 1.18 to 1.25 say it.
TEXTS = {
    "disk_full": [
        AT + "FATAL:  could not write init file: No space left on device",
    ],
    "code_at_login": [
        AT + "FATAL:  card 4111\nCONTEXT:  PL/pgSQL function watch() line 1 at RAISE",
        AT + 'FATAL:  column "a" does not exist\nLINE 1: SELECT a\n               ^\n'
        "QUERY:  SELECT a\nCONTEXT:  PL/pgSQL function watch() line 2 at EXECUTE",
    ],
    "ca_file_missing": [
        'root certificate file "/ca.pem" does not exist',
        'could not read root certificate file "/ca.pem": no certificate found',
    ],
    "certificate_untrusted": [AT + "SSL error: certificate verify failed"],
    "certificate_mismatch": [
        AT + 'server certificate for "a" does not match host name "b"',
        AT + "host name must be specified for a verified SSL connection",
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
        'syntax error in service file "/s", line 7',
        "invalid SCRAM client key",
        AT + 'could not parse network address "db": Name or service not known',
        'require_auth method "md5" is specified more than once',
        AT + 'requirepeer specifies "a", but actual peer user name is "b"',
        "invalid SSL protocol version range",
        AT + 'server only supports protocol version 3.0, but "min_protocol_version" '
        "was set to 3.2",
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
        AT + "server did not request an SSL certificate",
    ],
    "login_refused": [
        AT + 'FATAL:  password authentication failed for user "u"',
        AT + 'FATAL:  PAM authentication failed for user "u"',
        AT + 'FATAL:  role "u" does not exist',
        AT + "FATAL:  Tenant or user not found",
    ],
    "no_login": [AT + 'FATAL:  role "u" is not permitted to log in'],
    "no_database": [
        AT + 'FATAL:  database "d" does not exist',
        AT + "FATAL:  no such database: d",
    ],
    "no_connect_right": [
        AT + 'FATAL:  permission denied for database "d"\nDETAIL:  User does not have '
        "CONNECT privilege.",
    ],
    "database_closed": [
        AT + 'FATAL:  database "d" is not currently accepting connections',
    ],
    "database_invalid": [AT + 'FATAL:  cannot connect to invalid database "d"'],
    "database_disabled": [AT + 'FATAL:  database "d" is disabled'],
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
        AT + "FATAL:  no more connections allowed (max_client_conn)",
    ],
    "limit_of_role": [AT + 'FATAL:  too many connections for role "u"'],
    "limit_of_database": [AT + 'FATAL:  too many connections for database "d"'],
    "timeout": ["connection timeout expired", AT + "Connection timed out"],
    "no_route": [AT + "No route to host", AT + "Network is unreachable"],
    "no_ipv6": [
        AT.replace("10.0.0.5", "2001:db8::1") + "Network is unreachable",
        AT.replace('"10.0.0.5"', '"h" (::1)') + "Cannot assign requested address",
    ],
    "no_socket": [
        'connection to server on socket "/s" failed: No such file or directory',
        'connection to server on socket "/s" failed: Permission denied',
    ],
    "closed_early": [
        AT + "server closed the connection unexpectedly\n\tThis probably means the "
        "server terminated abnormally",
        AT + "could not receive data from server: Connection reset by peer",
        AT + "SSL error: unexpected eof while reading",
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


def test_what_code_raises_at_the_login_is_not_told() -> None:
    """Its words may be made of rows; the function is named."""
    (raised, _) = TEXTS["code_at_login"]
    assert shorten_text(raised) == (
        f"{AT}FATAL: code in the database raised an error at the login "
        "(PL/pgSQL function watch() line 1)"
    )
    assert "SELECT" not in shorten_text(TEXTS["code_at_login"][1])


def test_every_cause_has_a_text_and_a_remedy() -> None:
    """No pattern stands in the table that no test reaches."""
    assert {known.reason for known in CAUSES} == TEXTS.keys() - {"unknown"}
    for known in (*CAUSES, *BY_SQLSTATE.values(), UNKNOWN):
        assert re.fullmatch(r"[A-Za-z].*[^.][.;]", known.remedy)


REFUSED = AT + "Connection refused"
WRONG = AT + 'FATAL:  password authentication failed for user "u"'


@pytest.mark.parametrize(
    ("failures", "reason"),
    [
        ([("a", "connection_refused"), ("a", "login_refused")], "login_refused"),
        ([("a", "login_refused"), ("a", "connection_refused")], "login_refused"),
        ([("a", "starting_up"), ("a", "login_refused")], "starting_up"),
        ([("a", "connection_refused")] * 2, "connection_refused"),
        ([("a", "connection_refused"), ("b", "login_refused")], "connection_refused"),
        ([("a", "login_refused"), ("b", "starting_up")], "starting_up"),
        ([("a", "hot_standby"), ("b", "login_refused")], "login_refused"),
        ([("a", "hot_standby"), ("b", "connection_refused")], "connection_refused"),
        ([("a", "hot_standby"), ("b", "hot_standby")], "hot_standby"),
        ([("a", "wrong_kind_of_server"), ("b", "host_unknown")], "host_unknown"),
        ([("a", "timeout"), ("a", "hot_standby")], "hot_standby"),
        ([("a", "no_ipv6"), ("a", "timeout")], "timeout"),
        ([("a", "no_ipv6"), ("a", "no_ipv6")], "no_ipv6"),
    ],
)
def test_of_several_failures_the_most_hopeful_decides(
    failures: list[tuple[str, str]], reason: str
) -> None:
    """But what nobody answers at, and a standby, say little beside another answer."""
    found = [(host, cause(reason)) for host, reason in failures]
    assert found[decide(found)][1].reason == reason


def test_a_refusal_with_and_without_tls_is_not_one_for_lack_of_tls() -> None:
    """sslmode=prefer tries both, and both failures stand in the text."""
    entry = 'FATAL:  no pg_hba.conf entry for host "h", user "u", database "d"'
    both = f"{AT}{entry}, SSL encryption\n{AT}{entry}, no encryption"
    (only,) = (c for c in CAUSES if "SSL encryption" in c.pattern)
    assert find_cause(both) is only
    assert find_cause(f"{AT}{entry}, no encryption") is not only


@pytest.mark.parametrize(
    "lacks_tls",
    [
        AT + 'FATAL:  no pg_hba.conf entry for host "h", user "u", database "d", '
        "no encryption",
        AT + "FATAL:  SSL required",
    ],
)
def test_a_wrong_password_is_not_one_for_lack_of_tls(lacks_tls: str) -> None:
    """Where a server lets in with TLS alone, sslmode=prefer is refused twice."""
    assert find_cause(f"{WRONG}\n{lacks_tls}").reason == "login_refused"
    assert find_cause(f"{lacks_tls}\n{WRONG}").reason == "login_refused"


def test_a_client_certificate_is_no_reason_where_tls_is_not_needed() -> None:
    """With sslmode=prefer the attempt without TLS says more; alone it decides."""
    certificate = AT + 'could not open certificate file "/c": Permission denied'
    starting = AT + "FATAL:  the database system is starting up"
    assert find_cause(f"{certificate}\n{starting}").reason == "starting_up"
    assert find_cause(f"{certificate}\n{WRONG}").reason == "login_refused"
    assert find_cause(certificate).reason == "client_certificate"


def test_a_failure_with_and_without_tls_is_told_once() -> None:
    """sslmode=prefer tries both, and both failures are often the same."""
    unknown = AT + 'FATAL:  unrecognized configuration parameter "x"'
    assert shorten_text(f"{unknown}\n{unknown}") == unknown.replace("  ", " ")


def test_what_libpq_advises_is_not_to_weaken() -> None:
    """To verify no certificate is one of the ways out that it names."""
    text = (
        f'{AT}root certificate file "/ca.pem" does not exist\nEither provide the file, '
        "use the system's trusted roots with sslrootcert=system, or change sslmode to "
        "disable server certificate verification."
    )
    assert shorten_text(text) == f'{AT}root certificate file "/ca.pem" does not exist'


def test_a_remedy_names_role_and_database_as_sql_does() -> None:
    """So that it can be pasted; what libpq would choose is left open."""
    remedy = cause("no_connect_right").remedy
    told = name_in_remedy(remedy, {"user": "u", "dbname": 'my "d"'})
    assert told.endswith('GRANT CONNECT ON DATABASE "my ""d""" TO u;')
    assert name_in_remedy(remedy, {}).endswith("GRANT CONNECT ON DATABASE … TO …;")


def test_a_text_is_told_in_one_line() -> None:
    """What libpq adds for a person at a terminal is left out."""
    hint = "\n\tIs the server running on that host and accepting TCP/IP connections?"
    assert shorten_text(f"connection failed: {REFUSED}{hint}") == REFUSED
    assert shorten_text(WRONG) == WRONG.replace("  ", " ")


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("shop.abc.eu-west-1.rds.amazonaws.com", "global-bundle.pem"),
        ("shop.postgres.database.azure.com", "PGSSLROOTCERT=system"),
        ("db.example.com", "or name its CA in sslrootcert"),
    ],
)
def test_what_makes_a_server_trusted_is_its_providers_bundle(
    host: str, said: str
) -> None:
    """Which CA has signed is known by the name; no remedy asks for less."""
    remedy = trust_remedy(cause("certificate_untrusted"), [host])
    assert said in remedy.removesuffix(TLS_TRUST) or said in TLS_TRUST


def test_no_remedy_weakens_what_was_asked_for() -> None:
    """Not to verify, or not to encrypt, is never the way out."""
    weak = r"=(disable|allow|prefer)\b(?! where no client)"
    for known in [c for c in vars(causes).values() if isinstance(c, Cause)] + [*CAUSES]:
        assert not re.search(weak, known.remedy), known.remedy


@pytest.mark.parametrize("known", BY_SQLSTATE.values(), ids=BY_SQLSTATE)
def test_a_sqlstate_means_what_a_text_can_mean(known: Cause) -> None:
    """Both tables lead to the same causes, but for 28000, which is several of them."""
    assert known in CAUSES or known is LOGIN_OR_HBA
