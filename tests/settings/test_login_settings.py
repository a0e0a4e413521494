"""What goes with a login by an identity, and what does not: told at the start."""

from __future__ import annotations

import pytest

from migration_gate.report.errors import SettingsError
from migration_gate.settings.database import known_parameters
from migration_gate.settings.environment import from_environ
from migration_gate.settings.faults import TOO_WEAK


DATABASE = {
    "POSTGRES_HOST": "db.internal",
    "POSTGRES_USER": "app",
    "GATE_LOGIN": "azure",
}


def parameters(**environ: str) -> dict[str, str]:
    """Return what libpq is told."""
    return known_parameters(from_environ(DATABASE | environ).database)


def faults(environ: dict[str, str]) -> list[tuple[str, str]]:
    """Return the name and the rule of each fault."""
    with pytest.raises(SettingsError) as caught:
        from_environ(environ)
    return [(fault.name, fault.rule) for fault in caught.value.faults]


TLS = ("sslmode", "sslrootcert")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ("verify-full", "system")),
        ({"POSTGRES_SSL_MODE": "verify-full"}, ("verify-full", "system")),
        ({"PGSSLROOTCERT": "/ca.pem"}, ("verify-full", "/ca.pem")),
        (
            {"POSTGRES_SSL_MODE": "verify-ca", "PGSSLROOTCERT": "/ca.pem"},
            ("verify-ca", "/ca.pem"),
        ),
        ({"POSTGRES_SSL_MODE": "require"}, ("require", None)),
        ({"GATE_LOGIN": "password"}, (None, None)),
    ],
)
def test_the_server_is_verified_unless_less_is_asked_for(
    given: dict[str, str], expected: tuple[str | None, str | None]
) -> None:
    """By the roots of the system, where no others are named."""
    found = parameters(**given)
    assert tuple(found.get(keyword) for keyword in TLS) == expected


@pytest.mark.parametrize("mode", ["disable", "allow", "prefer"])
@pytest.mark.parametrize("login", ["azure", "aws", "google"])
def test_a_mode_that_may_send_a_token_in_clear_text_is_refused(
    mode: str, login: str
) -> None:
    """Wherever it is said; require has to be said too."""
    given = {"GATE_LOGIN": login}
    url = f"postgresql://app@db/shop?sslmode={mode}"
    assert faults({"DATABASE_URL": url, **given}) == [
        ("DATABASE_URL", f"has a parameter sslmode that {TOO_WEAK}")
    ]
    assert faults(DATABASE | given | {"PGSSLMODE": mode}) == [("PGSSLMODE", TOO_WEAK)]


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"POSTGRES_PASSWORD": "x"}, "POSTGRES_PASSWORD"),
        ({"POSTGRES_PASSWORD_FILE": "/x"}, "POSTGRES_PASSWORD_FILE"),
        ({"PGPASSWORD": "x"}, "PGPASSWORD"),
        ({"DATABASE_URL": "postgresql://app:x@db/shop"}, "DATABASE_URL"),
    ],
)
def test_a_password_beside_it_is_refused(given: dict[str, str], name: str) -> None:
    """One of the two is not meant, and nobody can tell which."""
    assert faults(DATABASE | given) == [
        (name, "holds a password, and GATE_LOGIN=azure logs in without one")
    ]


def test_a_service_or_no_user_is_refused() -> None:
    """The server's name and the user have to be known before libpq knows them."""
    given = {"GATE_LOGIN": "azure"}
    assert faults({"PGSERVICE": "shop", **given}) == [
        (
            "PGSERVICE",
            "names a service, which only libpq reads, beside GATE_LOGIN=azure",
        )
    ]
    assert faults({"PGHOST": "db", **given}) == [("PGUSER", "is not set")]


@pytest.mark.parametrize("host", ["/run/postgresql", "@socket", "one,/two"])
def test_aws_needs_the_name_of_a_host(host: str) -> None:
    """It is signed; the others may use a proxy's socket."""
    environ = {"PGHOST": host, "PGUSER": "app"}
    assert faults({**environ, "GATE_LOGIN": "aws"}) == [
        ("PGHOST", "names no host, and AWS signs the host's name into the token")
    ]
    from_environ({**environ, "GATE_LOGIN": "google"})
    in_file = {"PGHOST_FILE": "/run/host", "PGUSER": "app", "GATE_LOGIN": "aws"}
    assert from_environ(in_file).database.login == "aws"
    address = {"PGHOSTADDR": "10.0.0.1", "PGUSER": "app", "GATE_LOGIN": "aws"}
    assert [name for name, _ in faults(address)] == ["PGHOST"]


def test_a_login_that_nobody_has_is_refused() -> None:
    """With the words that are."""
    assert faults(DATABASE | {"GATE_LOGIN": "entra"}) == [
        ("GATE_LOGIN", "is not one of password, azure, aws, google")
    ]
