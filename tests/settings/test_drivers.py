"""The URL that an application has already: what of it is understood, and how."""

from __future__ import annotations

import pytest

from migration_gate.settings.connection_string import (
    MalformedError,
    parse_connection_string,
)
from migration_gate.settings.database import (
    connection_parameters,
    database_settings,
    said_beside,
)
from migration_gate.settings.drivers import (
    PASSED_OVER,
    REFUSED,
    RENAMED,
    SESSION,
    TRANSLATED,
)
from migration_gate.settings.libpq import KEYWORDS
from migration_gate.settings.reading import Beside
from tests.driver_urls import FORMS, Form


FIVE = {"user": "u", "password": "p", "host": "h", "port": "5432", "database": "d"}
URL = "postgresql://u@h/d?"


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_a_url_of_another_program_is_understood(form: Form) -> None:
    """Where and how to log in, what is set in sessions, and what says nothing."""
    found = parse_connection_string(form.text.format(**FIVE))

    own = {"dbname" if key == "database" else key: value for key, value in FIVE.items()}
    assert found.parameters == {**own, **form.parameters}
    assert found.session == {k: v.format(**FIVE) for k, v in form.session.items()}
    assert set(found.passed_over) == set(form.passed_over)


@pytest.mark.parametrize("owner", PASSED_OVER)
def test_what_says_nothing_is_passed_over_in_any_case(owner: str) -> None:
    """With its name, as it is written, and without its value."""
    for key in PASSED_OVER[owner]:
        for name in (key, key.upper()):
            found = parse_connection_string(f"{URL}{name}=hunter2")
            assert "hunter2" not in repr(found)
            assert found.passed_over == (name,)


def test_no_parameter_means_two_things() -> None:
    """Nor is one of libpq's own understood otherwise."""
    names = [key.lower() for keys in PASSED_OVER.values() for key in keys]
    names += [*SESSION, *RENAMED, *TRANSLATED, *REFUSED]
    assert len(names) == len(set(names))
    assert not set(names) & KEYWORDS
    assert all(name == name.lower() for name in names)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("ssl=true", {"sslmode": "require"}),
        ("sslmode=verify-full&ssl=true", {"sslmode": "verify-full"}),
        ("ssl=no-verify", {"sslmode": "require"}),
        ("sslmode=no-verify", {"sslmode": "require"}),
        ("ssl_require=false", {}),
        ("sslaccept=strict", {"sslmode": "verify-full", "sslrootcert": "system"}),
        (
            "sslmode=require&sslaccept=strict&sslcert=/ca.pem",
            {"sslmode": "verify-full", "sslrootcert": "/ca.pem"},
        ),
        (
            "sslaccept=accept_invalid_certs&sslmode=require&sslcert=/ca.pem",
            {"sslmode": "require", "sslrootcert": "/ca.pem"},
        ),
        ("sslmode=disable&sslaccept=strict", {"sslmode": "disable"}),
        (
            "ssl=true&sslfactory=org.postgresql.ssl.NonValidatingFactory",
            {"sslmode": "require"},
        ),
        (
            "sslfactory=org.postgresql.ssl.DefaultJavaSSLFactory",
            {"sslmode": "verify-full", "sslrootcert": "system"},
        ),
        (
            "ssl-ca=/ca.pem&ssl-cert=/c&ssl-key=/k",
            {"sslrootcert": "/ca.pem", "sslcert": "/c", "sslkey": "/k"},
        ),
        (
            "targetServerType=preferSecondary",
            {"target_session_attrs": "prefer-standby"},
        ),
        ("loadBalanceHosts=true", {"load_balance_hosts": "random"}),
    ],
)
def test_words_for_tls_and_servers_become_libpqs(
    query: str, expected: dict[str, str]
) -> None:
    """A server that the application verifies is never verified less."""
    found = parse_connection_string(f"{URL}{query}").parameters

    assert found == {"user": "u", "host": "h", "dbname": "d"} | expected


def test_jdbcs_ssl_verifies_the_server() -> None:
    """Which libpq's does not; where sslmode is said, that decides."""
    at = "jdbc:postgresql://h/d?user=u&ssl=true"
    bare = at.removesuffix("=true")

    assert parse_connection_string(at).parameters["sslmode"] == "verify-full"
    assert parse_connection_string(bare).parameters["sslmode"] == "verify-full"
    said = parse_connection_string(f"{at}&sslmode=require").parameters
    assert said["sslmode"] == "require"


def test_jdbc_writes_a_space_as_a_plus() -> None:
    """In its parameters, the password among them."""
    url = "jdbc:postgresql://h/d?user=u&password=a+b%2Bc"

    assert parse_connection_string(url).parameters["password"] == "a b+c"


def test_jdbc_has_an_equals_sign_in_a_value() -> None:
    """Its own pages write options so; libpq's form wants it escaped."""
    query = "user=u&options=-c%20statement_timeout=9s"
    found = parse_connection_string(f"jdbc:postgresql://h/d?{query}")

    assert found.parameters["options"] == "-c statement_timeout=9s"
    with pytest.raises(MalformedError) as raised:
        parse_connection_string(f"postgresql://h/d?{query}")
    assert raised.value.remedy.startswith('Write a "=" inside a value as %3D.')


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (f"{URL}sslidentity=hunter2", "has a parameter sslidentity that names a file"),
        (f"{URL}socketFactory=hunter2", "has a parameter socketfactory that names a"),
        (f"{URL}sslinline=hunter2", "has a parameter sslinline that says"),
        (f"{URL}ssl=hunter2", "has a parameter ssl with a word that is not known"),
        (f"{URL}schema=app&swordfish=1", 'are not known: "swordfish"'),
        ("jdbc:mysql://h/d", 'has the scheme "jdbc"'),
        ("jdbc:postgresql:d", 'has no "//" after its scheme'),
        ("prisma://h/?api_key=hunter2", 'has the scheme "prisma"'),
        ("prisma+postgres://h/?api_key=hunter2", 'has the scheme "prisma"'),
    ],
)
def test_what_would_be_another_login_is_refused(text: str, rule: str) -> None:
    """With what to write in its place, and without its value."""
    with pytest.raises(MalformedError) as caught:
        parse_connection_string(text)

    assert rule in caught.value.rule
    assert "hunter2" not in f"{caught.value.rule} {caught.value.remedy}"


def test_the_form_of_net_is_refused_with_libpqs_words() -> None:
    """Those of the keys that it has, and none of their values."""
    text = (
        "Server=hunter2;Database=hunter2;Port=5432;User Id=hunter2;"
        "Password=hunter2;Ssl Mode=Require;Pooling=hunter2;"
    )

    with pytest.raises(MalformedError) as caught:
        parse_connection_string(text)

    assert caught.value.rule.startswith("is a connection string of .NET")
    assert (
        "Server is host, Database is dbname, Port is port, User Id is user, "
        "Password is password, Ssl Mode is sslmode;"
    ) in caught.value.remedy
    assert "hunter2" not in caught.value.remedy


def test_sessions_begin_with_what_the_url_sets_in_them() -> None:
    """Behind the options that there are, in a URL or in PGOPTIONS."""
    environ = {
        "DATABASE_URL": f"{URL}schema=Shop%20Front&TimeZone=UTC",
        "PGOPTIONS": "-c work_mem=8MB",
    }
    database, faults = database_settings(environ)
    assert faults == []
    assert database is not None

    parameters = connection_parameters(database, pytest.fail)

    assert parameters["options"] == (
        '-c work_mem=8MB -c search_path="Shop\\ Front" -c timezone=UTC'
    )


def test_sqlalchemys_hosts_have_their_ports() -> None:
    """Which libpq has beside them."""
    url = "postgresql+psycopg2://u:p@/d?host=a:1&host=b&host=c:3"

    found = parse_connection_string(url).parameters

    assert (found["host"], found["port"]) == ("a,b,c", "1,,3")


def test_an_empty_schema_is_none() -> None:
    """As a template leaves it."""
    found = parse_connection_string(f"{URL}schema=")

    assert (found.session, found.passed_over) == ({}, ("schema",))


def test_a_search_path_that_nobody_filled_in_is_a_fault() -> None:
    """As anywhere else."""
    _, faults = database_settings({"DATABASE_URL": f"{URL}search_path=${{SCHEMA}}"})

    (rule,) = [fault.rule for fault in faults]
    assert rule.startswith("has a parameter search_path that contains a $(…) or ${…}")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("x-migrations-table=Steps", '"Steps"'),
        (
            'x-migrations-table="audit"."steps"&x-migrations-table-quoted=1',
            '"audit"."steps"',
        ),
        ("sslmode=disable", ""),
    ],
)
def test_the_table_of_golang_migrate_is_told_by_its_url(
    query: str, expected: str
) -> None:
    """As that tool reads it: a name, or names that are quoted already."""
    database, _ = database_settings({"DATABASE_URL_FILE": "/url"})
    assert database is not None

    beside = said_beside(database, lambda _: f"{URL}{query}")

    assert beside.history_table == expected
    assert said_beside(database._replace(way="PG"), pytest.fail) == Beside()
