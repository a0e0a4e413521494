"""Which database the settings name, what libpq is told, and what is refused."""

from __future__ import annotations

import errno

from typing import TYPE_CHECKING, Any

import psycopg.pq
import pytest

from migration_gate.report.errors import SettingFault, SettingsError
from migration_gate.settings.connection_string import parse_connection_string
from migration_gate.settings.database import (
    connection_parameters,
    database_settings,
    doubts,
    empty_variables,
    shown,
)
from migration_gate.settings.libpq import (
    FILE_ITSELF,
    KEYWORDS,
    PG_VARIABLES,
    STRING_ITSELF,
)
from migration_gate.settings.sources import DatabaseSettings, PipeError, Source
from migration_gate.settings.spelling import closest


if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


ENCODE = (
    "Percent-encode the password (@ is %40, / is %2F, % is %25),"
    " or give it in POSTGRES_PASSWORD."
)


IN_DATABASE = 'has an "@" or a "/" in its database, perhaps of the password'
NOT_FILLED_IN = "contains a $(…) or ${…} that was not filled in"


def parameters_of(
    environ: Mapping[str, str], files: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the parameters of a faultless environment, files given as a mapping."""
    database, faults = database_settings(environ)
    assert faults == []
    assert database is not None
    return connection_parameters(database, (files or {}).__getitem__)


def faults_of(environ: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return name and rule of each fault that shows without a file."""
    _, faults = database_settings(environ)
    return [(fault.name, fault.rule) for fault in faults]


def faults_of_file(content: str | Exception) -> list[SettingFault]:
    """Return the faults of a password file with this content, or that fails so."""

    def read_file(path: str) -> str:
        assert path == "/run/secrets/password"
        if isinstance(content, Exception):
            raise content
        return content

    database, faults = database_settings(
        {"PGHOST": "h", "PGPASSWORD_FILE": "/run/secrets/password"}
    )
    assert faults == []
    assert database is not None
    with pytest.raises(SettingsError) as caught:
        connection_parameters(database, read_file)
    assert caught.value.__context__ is None
    return list(caught.value.faults)


def test_the_tables_are_those_of_libpq() -> None:
    """Every keyword and variable of the bundled libpq, and no other."""
    options = psycopg.pq.Conninfo.get_defaults()

    assert {option.keyword.decode() for option in options} == KEYWORDS
    assert {
        option.keyword.decode(): option.envvar.decode()
        for option in options
        if option.envvar
    } == PG_VARIABLES


def test_database_url_comes_first() -> None:
    """The variables of the ways that are not used are not judged."""
    environ = {
        "DATABASE_URL": "postgresql://u:p@h:1/d",
        "POSTGRES_HOST": "@@@",
        "POSTGRES_PORT": "x",
        "POSTGRES_PASSWORD": "unused",
        "POSTGRES_PASSWORD_FILE": "/unused",
        "POSTGRES_DATABASE": "x",
        "PGHOST": "a b",
        "PGHOST_FILE": "/unused",
        "PGPORT": "x",
    }

    assert parameters_of(environ) == {
        "user": "u",
        "password": "p",
        "host": "h",
        "port": "1",
        "dbname": "d",
    }


def test_postgres_host_comes_second() -> None:
    """Its variables are plain values."""
    environ = {
        "POSTGRES_HOST": "h",
        "POSTGRES_PORT": "1",
        "POSTGRES_USER": "u@x",
        "POSTGRES_PASSWORD": "p%20 '",
        "POSTGRES_DB": "d/e",
        "POSTGRES_SSL_MODE": "require",
        "PGPORT": "x",
        "PGHOST": "a b",
    }

    assert parameters_of(environ) == {
        "host": "h",
        "port": "1",
        "user": "u@x",
        "password": "p%20 '",
        "dbname": "d/e",
        "sslmode": "require",
    }


@pytest.mark.parametrize(
    ("name", "keyword", "value"),
    [
        ("PGHOST", "host", "h"),
        ("PGHOSTADDR", "hostaddr", "10.0.0.1"),
        ("PGSERVICE", "service", "s"),
    ],
)
def test_the_variables_of_libpq_come_third(name: str, keyword: str, value: str) -> None:
    """PGHOST, PGHOSTADDR or PGSERVICE; the user is libpq's own affair there."""
    assert parameters_of({name: value}) == {keyword: value}


def test_no_way_is_a_fault_that_names_the_three() -> None:
    """PGDATABASE alone names no server."""
    database, faults = database_settings({"PGDATABASE": "d", "DATABASE_URL": ""})

    assert database is None
    assert faults == [
        SettingFault(
            name="DATABASE_URL, POSTGRES_HOST or PGHOST",
            rule="must be set",
            remedy="Name the database in one of the three.",
        )
    ]


def test_no_way_suggests_the_name_that_was_meant() -> None:
    """Other programs' names for the same thing."""
    _, faults = database_settings({"POSTGRES_URL": "x", "PG_HOST": "y"})

    assert faults[0].remedy == (
        "POSTGRES_URL is set: did you mean DATABASE_URL?"
        " PG_HOST is set: did you mean PGHOST?"
    )


def test_libpq_variables_fill_in_what_is_open() -> None:
    """As they do for psql."""
    environ = {
        "DATABASE_URL": "postgresql://h",
        "PGHOST": "other",
        "PGUSER": "u",
        "PGDATABASE": "d",
        "PGPASSWORD": "p",
        "PGSSLMODE": "verify-full",
        "PGSSLROOTCERT": "/ca.pem",
        "PGOPTIONS": "-c search_path=a",
        "PGCONNECT_TIMEOUT": "3",
    }

    assert parameters_of(environ) == {
        "host": "h",
        "user": "u",
        "dbname": "d",
        "password": "p",
        "sslmode": "verify-full",
        "sslrootcert": "/ca.pem",
        "options": "-c search_path=a",
        "connect_timeout": "3",
    }


def test_what_a_url_says_of_the_connection_is_kept() -> None:
    """A user's timeout and keepalives are there for the connect step to respect."""
    url = "postgresql://u@h?connect_timeout=3&keepalives=0&tcp_user_timeout=9"

    assert parameters_of({"DATABASE_URL": url}) == {
        "user": "u",
        "host": "h",
        "connect_timeout": "3",
        "keepalives": "0",
        "tcp_user_timeout": "9",
    }


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u@h",
        "postgresql://u:@h",
        "user=u host=h",
        "user=u host=h password=",
        "postgresql://u@h?password=",
    ],
)
@pytest.mark.parametrize("name", ["POSTGRES_PASSWORD", "PGPASSWORD"])
def test_a_password_given_separately_completes_a_url(url: str, name: str) -> None:
    """An empty password is none."""
    environ = {"DATABASE_URL": url, name: "p"}
    by_file = {"DATABASE_URL": url, f"{name}_FILE": "/p"}

    expected = {"user": "u", "host": "h", "password": "p"}
    assert parameters_of(environ) == expected
    assert parameters_of(by_file, {"/p": "p\n"}) == expected


def test_postgres_password_comes_before_libpqs() -> None:
    """And a URL's own before both."""
    environ = {
        "DATABASE_URL": "postgresql://u@h",
        "POSTGRES_PASSWORD": "p",
        "PGPASSWORD": "q",
    }

    assert parameters_of(environ)["password"] == "p"
    environ["DATABASE_URL"] = "postgresql://u:r@h"
    assert parameters_of(environ)["password"] == "r"


def test_any_setting_can_be_in_a_file() -> None:
    """Read at each call, so that a rotated secret is picked up."""
    files = {"/url": "postgresql://u@h/d\n", "/password": "one"}
    database, faults = database_settings(
        {"DATABASE_URL_FILE": "/url", "PGPASSWORD_FILE": "/password"}
    )
    assert faults == []
    assert database == DatabaseSettings(
        way="DATABASE_URL",
        sources=(
            Source(name="DATABASE_URL", file="/url"),
            Source(name="PGPASSWORD", file="/password"),
        ),
    )
    assert connection_parameters(database, files.__getitem__)["password"] == "one"

    files["/password"] = "two"

    assert connection_parameters(database, files.__getitem__)["password"] == "two"


@pytest.mark.parametrize("name", sorted(PG_VARIABLES.values()))
def test_every_libpq_variable_has_a_file_form(name: str) -> None:
    """PGSSLMODE_FILE and the like."""
    keyword = {variable: keyword for keyword, variable in PG_VARIABLES.items()}[name]
    value = {"port": "1", "connect_timeout": "2", "sslmode": "require"}.get(keyword)
    value = value or {
        "sslnegotiation": "direct",
        "sslcertmode": "allow",
        "channel_binding": "prefer",
        "gssencmode": "disable",
        "target_session_attrs": "any",
        "load_balance_hosts": "random",
    }.get(keyword, "x")

    parameters = parameters_of(
        {"PGHOST": "h", f"{name}_FILE": "/f"}
        | ({"PGHOST": ""} if name == "PGHOST" else {}),
        {"/f": value},
    )

    assert parameters[keyword] == value


@pytest.mark.parametrize(
    ("content", "password"),
    [
        ("p", "p"),
        ("p\n", "p"),
        ("p\r\n", "p"),
        ("p\n\n", "p\n"),
        (" p ", " p "),
        ("p\r", "p\r"),
        ("a\nb\n", "a\nb"),
    ],
)
def test_one_newline_at_the_end_of_a_file_is_dropped(
    content: str, password: str
) -> None:
    """Editors and echo write one; everything else is the value's."""
    environ = {"PGHOST": "h", "PGPASSWORD_FILE": "/f"}

    assert parameters_of(environ, {"/f": content})["password"] == password


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        ("", "names a file that is empty"),
        ("\n", "names a file that is empty"),
        ("a\0b", "contains a NUL character"),
        ("\udcff", "is not UTF-8 text"),
        (FileNotFoundError(2, "s3cret"), "names a file that does not exist"),
        (IsADirectoryError(21, "s3cret"), "names a folder"),
        (PipeError("s3cret"), "names a pipe"),
        (OSError(errno.EIO, "s3cret"), "names a file that cannot be read"),
        (
            UnicodeDecodeError("utf-8", b"s3cret\xff", 6, 7, "invalid start byte"),
            "names a file that is not UTF-8 text",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_named_by_its_setting(
    content: str | Exception, rule: str
) -> None:
    """Neither its path nor its content is shown."""
    assert [(fault.name, fault.rule) for fault in faults_of_file(content)] == [
        ("PGPASSWORD_FILE", rule)
    ]


def test_an_unreadable_file_comes_with_the_remedy_for_compose() -> None:
    """Compose mounts file secrets with the owner and mode they have on the host."""
    assert faults_of_file(PermissionError(13, "s3cret")) == [
        SettingFault(
            name="PGPASSWORD_FILE",
            rule="names a file that cannot be read: permission denied",
            remedy="The gate does not run as root: make the file readable for its user"
            " (Compose does not apply uid, gid and mode to file secrets: mode 0444 on"
            " the host; Kubernetes: defaultMode or fsGroup).",
        )
    ]


def test_all_files_that_cannot_be_used_are_reported_together() -> None:
    """Not the first alone."""
    database, _ = database_settings(
        {"PGHOST": "h", "PGUSER_FILE": "/u", "PGPASSWORD_FILE": "/p"}
    )
    assert database is not None

    with pytest.raises(SettingsError) as caught:
        connection_parameters(database, lambda _: "")

    assert [fault.name for fault in caught.value.faults] == [
        "PGUSER_FILE",
        "PGPASSWORD_FILE",
    ]


def test_a_value_and_its_file_at_once_are_a_fault() -> None:
    """For each setting that is used."""
    environ = {
        "POSTGRES_HOST": "h",
        "POSTGRES_HOST_FILE": "/h",
        "POSTGRES_USER": "u",
        "POSTGRES_USER_FILE": "/u",
        "PGPASSWORD": "p",
        "PGPASSWORD_FILE": "/p",
        "PGPORT": "5432",
    }

    assert faults_of(environ) == [
        ("POSTGRES_HOST", "is set together with POSTGRES_HOST_FILE"),
        ("POSTGRES_USER", "is set together with POSTGRES_USER_FILE"),
        ("PGPASSWORD", "is set together with PGPASSWORD_FILE"),
    ]
    assert faults_of({"DATABASE_URL": "x", "DATABASE_URL_FILE": "/x"}) == [
        ("DATABASE_URL", "is set together with DATABASE_URL_FILE")
    ]


def test_a_url_in_a_file_is_judged_when_it_is_read() -> None:
    """The start cannot know it; the first attempt names the file form."""
    database, faults = database_settings({"DATABASE_URL_FILE": "/url"})
    assert faults == []
    assert database is not None

    with pytest.raises(SettingsError) as caught:
        connection_parameters(database, lambda _: "mysql://u:p@h/d")

    assert caught.value.message == (
        'DATABASE_URL_FILE has the scheme "mysql", not "postgresql"'
    )


@pytest.mark.parametrize("link", ["tcp://10.0.0.1:5432", "udp://10.0.0.1:5432"])
def test_a_service_link_is_not_the_users_port(link: str) -> None:
    """Kubernetes makes POSTGRES_PORT for a Service named postgres: 5432 then."""
    environ = {"POSTGRES_HOST": "h", "POSTGRES_USER": "u", "POSTGRES_PORT": link}
    links = {"POSTGRES_SERVICE_HOST": "x", "POSTGRES_PORT_5432_TCP_ADDR": "y"}

    assert parameters_of(environ | links)["port"] == "5432"
    by_file = environ | {"POSTGRES_PORT_FILE": "/port"}
    assert parameters_of(by_file, {"/port": "6432"})["port"] == "6432"


def test_a_service_comes_before_libpqs_variables() -> None:
    """They are left to libpq, which asks the service first; files have no other way."""
    environ = {
        "DATABASE_URL": "postgresql:///d",
        "PGSERVICE": "s",
        "PGHOST": "of the environment",
        "PGPORT": "x",
        "PGPASSWORD_FILE": "/p",
    }

    parameters = parameters_of(environ, {"/p": "p"})

    assert parameters == {"dbname": "d", "service": "s", "password": "p"}
    assert shown(parameters) == {
        "host": None,
        "port": None,
        "database": "d",
        "user": None,
    }


def test_a_user_is_required_where_the_gate_names_the_server() -> None:
    """The image has no system user that libpq could take instead."""
    assert faults_of({"DATABASE_URL": "postgresql://h/d"}) == [
        ("DATABASE_URL", "has no user")
    ]
    assert faults_of({"DATABASE_URL": "host=h user="}) == [
        ("DATABASE_URL", "has no user")
    ]
    assert faults_of({"POSTGRES_HOST": "h"}) == [("POSTGRES_USER", "is not set")]
    assert faults_of({"POSTGRES_HOST": "h", "PGUSER": "u"}) == []
    assert faults_of({"POSTGRES_HOST": "h", "PGUSER_FILE": "/u"}) == []
    assert faults_of({"POSTGRES_HOST": "h", "PGSERVICE": "s"}) == []


def test_a_host_is_required() -> None:
    """A Unix socket has to be asked for."""
    assert faults_of({"DATABASE_URL": "postgresql://u@/d"}) == [
        ("DATABASE_URL", "has no host")
    ]
    for given in ({"PGHOST": "h"}, {"PGHOSTADDR": "10.0.0.1"}, {"PGSERVICE": "s"}):
        assert faults_of({"DATABASE_URL": "postgresql://u@/d"} | given) == []
    assert faults_of({"DATABASE_URL": "postgresql://u@/d?host=/var/run"}) == []


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("POSTGRES_PORT", "x", "is not a number from 1 to 65535"),
        ("POSTGRES_PORT", "0", "is not a number from 1 to 65535"),
        ("POSTGRES_PORT", "65536", "is not a number from 1 to 65535"),
        ("POSTGRES_PORT", "5432 ", "is not a number from 1 to 65535"),
        ("POSTGRES_PORT", "1,2", "lists another number of ports than there are hosts"),
        ("POSTGRES_HOST", "postgres://u:p@h/d", "is a URL"),
        ("POSTGRES_HOST", "u:p@h", 'contains an "@" or a "/"'),
        ("POSTGRES_HOST", "h/d", 'contains an "@" or a "/"'),
        ("POSTGRES_HOST", "h\n", "contains white space"),
        ("POSTGRES_HOST", "h,[::1]", "has brackets around it"),
        ("POSTGRES_HOST", "h:5432", "contains a port"),
        ("POSTGRES_HOST", "h;user=u", "contains a semicolon and a key=value pair"),
        ("POSTGRES_USER", "u;pwd=p", "contains a semicolon and a key=value pair"),
        ("POSTGRES_USER", "u\n", "has white space around it"),
        ("POSTGRES_USER", "postgresql://u:p@h/d", STRING_ITSELF),
        ("POSTGRES_DB", "postgresql://u:p@h/d", STRING_ITSELF),
        ("PGDATABASE", "host=h password=p", STRING_ITSELF),
        ("PGSSLKEY", "-----BEGIN PRIVATE KEY-----\nMII", FILE_ITSELF),
        ("PGSSLCERT", "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t", FILE_ITSELF),
        (
            "DATABASE_URL",
            "postgresql://u@h/d?sslrootcert=-----BEGIN%20CERTIFICATE-----",
            f"has a parameter sslrootcert that {FILE_ITSELF}",
        ),
        ("POSTGRES_DB", " d", "has white space around it"),
        ("POSTGRES_HOST", "$(DB_HOST)", NOT_FILLED_IN),
        ("POSTGRES_HOST", "a,${DB_HOST:-db}", NOT_FILLED_IN),
        ("POSTGRES_PORT", "$(DB_PORT)", NOT_FILLED_IN),
        ("POSTGRES_USER", "${DB_USER}", NOT_FILLED_IN),
        ("POSTGRES_DB", "shop_$(STAGE)", NOT_FILLED_IN),
        ("POSTGRES_SSL_MODE", "${MODE}", NOT_FILLED_IN),
        ("POSTGRES_HOST", '"db"', "has quotes around it"),
        ("POSTGRES_HOST", "'db'", "has quotes around it"),
        ("POSTGRES_HOST", "/run/.s.PGSQL.5432", "names a socket, not its folder"),
        ("PGHOST", "/run/a,/b/.s.PGSQL.6", "names a socket, not its folder"),
        ("DATABASE_URL", "$(DATABASE_URL)", NOT_FILLED_IN),
        ("DATABASE_URL", "postgresql://u:p@$(HOST):5432/d", NOT_FILLED_IN),
        ("DATABASE_URL", "postgresql://u:p@${HOST:-db}:5432/d", NOT_FILLED_IN),
        ("DATABASE_URL", "postgresql://u:p@h:${PORT}/d", NOT_FILLED_IN),
        (
            "DATABASE_URL",
            "postgresql://$(USER):p@h/d",
            f"has a user that {NOT_FILLED_IN}",
        ),
        (
            "DATABASE_URL",
            "host=h user=${USER}",
            f"has a user that {NOT_FILLED_IN}",
        ),
        (
            "DATABASE_URL",
            "postgresql://u:p@%2Fcloudsql%2Fa:b:c/d",
            'has a ":" in the folder of its socket',
        ),
        (
            "DATABASE_URL",
            "postgresql://u:p@2001:db8::1/d",
            "has an IPv6 address without brackets, or two ports",
        ),
        ("POSTGRES_PASSWORD", "\udcff", "is not UTF-8 text"),
        (
            "POSTGRES_SSL_MODE",
            "on",
            "is not one of disable, allow, prefer, require, verify-ca, verify-full",
        ),
        ("PGCONNECT_TIMEOUT", "3s", "is not a whole number"),
        ("PGCONNECT_TIMEOUT", "2147483648", "is not a whole number"),
        ("PGLOADBALANCEHOSTS", "yes", "is not one of disable, random"),
        (
            "PGHOSTADDR",
            "10.0.0.1,10.0.0.2",
            "lists another number of addresses than there are hosts",
        ),
    ],
)
def test_a_value_that_breaks_a_rule_is_refused_by_rule(
    name: str, value: str, rule: str
) -> None:
    """The fault has the setting's own name."""
    environ = {"POSTGRES_HOST": "h", "POSTGRES_USER": "u"} | {name: value}
    if name == "PGHOST":
        environ = {name: value}

    assert faults_of(environ) == [(name, rule)]


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://u:$(PASS)@h/d",
        "postgresql://u:${PASS}@h/d",
        "host=h user=u password=$(PASS)",
        "postgresql://u:'p'@h/d",
        "postgresql://u@h/d?options=-c%20a.b%3D$(X)",
    ],
)
def test_a_password_may_hold_any_text(text: str) -> None:
    """What looks like a slip is told when the server refuses it, not before."""
    assert faults_of({"DATABASE_URL": text}) == []


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"password": "$(PASS)"}, "The password is a $(…) or ${…} that was not filled"),
        ({"password": "${PASS:?}"}, "The password is a $(…) or ${…} that was not"),
        ({"password": "'hunter2'"}, "The password has quotes around it"),
        (
            {"password": "hunter2\n"},
            "The password has white space or a line end around",
        ),
        ({"user": '"u"'}, "The user has quotes around it"),
        ({"dbname": "`d`", "password": "p"}, "The database has quotes around it"),
        ({"password": "pa$(x)ss", "user": "u", "dbname": "d"}, ""),
        ({"password": "'"}, ""),
        ({}, ""),
    ],
)
def test_what_of_a_refused_login_looks_like_a_slip_is_named(
    parameters: dict[str, str], said: str
) -> None:
    """By the kind of slip, and never with a piece of the value."""
    told = doubts(parameters)
    assert told.startswith(said)
    assert bool(told) == bool(said)
    assert "hunter2" not in told


@pytest.mark.parametrize(
    "environ",
    [
        {"POSTGRES_HOST": "h1,h2", "POSTGRES_PORT": "1,2"},
        {"POSTGRES_HOST": "h1,h2", "POSTGRES_PORT": "1"},
        {"POSTGRES_HOST": "h1,h2", "POSTGRES_PORT": ",2"},
        {"POSTGRES_HOST": "/var/run/postgresql"},
        {"POSTGRES_HOST": "@abstract"},
        {"POSTGRES_HOST": "::1"},
        {"POSTGRES_HOST": "h", "PGHOSTADDR": "10.0.0.1"},
    ],
)
def test_several_hosts_sockets_and_addresses_are_taken(environ: dict[str, str]) -> None:
    """As libpq takes them."""
    assert faults_of(environ | {"POSTGRES_USER": "u"}) == []


def test_ports_wait_for_the_file_that_names_the_hosts() -> None:
    """A list of ports is judged when its hosts are known."""
    environ = {
        "POSTGRES_HOST_FILE": "/h",
        "POSTGRES_PORT": "1,2",
        "POSTGRES_USER": "u",
    }

    assert parameters_of(environ, {"/h": "h1,h2"})["host"] == "h1,h2"
    database, _ = database_settings(environ)
    assert database is not None
    with pytest.raises(SettingsError, match="lists another number of ports"):
        connection_parameters(database, lambda _: "h1,h2,h3")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("POSTGRES_DATABASE", "POSTGRES_DB"),
        ("POSTGRES_USERNAME", "POSTGRES_USER"),
        ("POSTGRES_PASS", "POSTGRES_PASSWORD"),
        ("POSTGRES_PASWORD", "POSTGRES_PASSWORD"),
        ("POSTGRES_PASWORD_FILE", "POSTGRES_PASSWORD"),
        ("POSTGRES_SSLMODE", "POSTGRES_SSL_MODE"),
        ("POSTGRES_PROT", "POSTGRES_PORT"),
    ],
)
def test_a_slip_among_the_postgres_variables_is_suggested(
    name: str, meant: str
) -> None:
    """Where the proper one is missing and its way is in use, and only there."""
    environ = {"POSTGRES_HOST": "h", "PGUSER": "u", name: "x"}
    if meant == "POSTGRES_USER":
        environ |= {"PGUSER": "", "PGSERVICE": "s"}

    _, faults = database_settings(environ)

    assert faults == [
        SettingFault(
            name=name, rule="is not a setting", remedy=f"Did you mean {meant}?"
        )
    ]
    proper = {"POSTGRES_PORT": "1", "POSTGRES_SSL_MODE": "require"}.get(meant, "x")
    assert faults_of(environ | {meant: proper}) == []
    assert faults_of({"PGHOST": "h", name: "x"}) == []


def test_the_variables_of_the_postgres_image_are_no_slips() -> None:
    """One env_file may serve the server and the gate."""
    environ = {
        "POSTGRES_HOST": "h",
        "POSTGRES_USER": "u",
        "POSTGRES_PASSWORD_FILE": "/p",
        "POSTGRES_INITDB_ARGS": "--data-checksums",
        "POSTGRES_INITDB_WALDIR": "/wal",
        "POSTGRES_HOST_AUTH_METHOD": "trust",
        "POSTGRES_MULTIPLE_DATABASES": "a,b",
        "POSTGRES_SSL": "true",
        "POSTGRES_DBS": "",
    }

    assert faults_of(environ) == []


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("postgresql://u:p@ss@h/d", 'has two "@" before its path'),
        ("postgresql://u:p@ss@h?x=y", 'has two "@" before its path'),
        ("postgresql://u:pa/ss@h/d", IN_DATABASE),
        ("postgresql://u:12/34@h/d", IN_DATABASE),
        ("postgresql://u@h/d/", IN_DATABASE),
        (
            "postgresql://u:50%off@h/d",
            'has a "%" in its password that two hexadecimal digits do not follow',
        ),
        (
            "postgresql://u%:p@h/d",
            'has a "%" in its user that two hexadecimal digits do not follow',
        ),
        ("postgresql://u:%00@h/d", "has a %00 in its password"),
        (
            "postgresql://u:%E9@h/d",
            "has percent escapes in its password that are not UTF-8",
        ),
        (
            "postgresql://u:12/a?b@h/d",
            'does not have exactly one "=" in its first parameter',
        ),
        (
            "postgresql://u@h?a=b=c",
            'does not have exactly one "=" in its first parameter',
        ),
        (
            "postgresql://u@h?sslmode=allow&&",
            'does not have exactly one "=" in its second parameter',
        ),
        ("postgresql://u:p@h:54x/d", "has a port that is not a number from 1 to 65535"),
        (
            "postgresql://u:p@h:/d?port=x",
            "has a port that is not a number from 1 to 65535",
        ),
        ("postgresql://u@%20h", "has a host that contains white space"),
        ("postgresql://u@a%40h", 'has a host that contains an "@" or a "/"'),
        (
            "postgresql://u@[::1/d",
            "has an IPv6 address that is not written as [address]",
        ),
        ("postgresql://u@[]/d", "has an IPv6 address that is not written as [address]"),
        (
            "postgresql://u@[::1]x",
            "has an IPv6 address that is not written as [address]",
        ),
        ("postgresql://u@h/d\n", "has white space around it"),
        (" postgresql://u@h/d", "has white space around it"),
        ("postgresql://u:p w@h/d", "contains white space"),
        ('"postgresql://u@h/d"', "has quotes around it"),
        (" 'postgresql://u@h/d' ", "has quotes around it"),
        ('postgresql://u@h/d"', "has a quote at its end"),
        ("mysql://u@h/d", 'has the scheme "mysql", not "postgresql"'),
        ("jdbc:mysql://h/d", 'has the scheme "jdbc", not "postgresql"'),
        ("https://h", 'has the scheme "https", not "postgresql"'),
        ("swordfish://h", 'has a scheme other than "postgresql"'),
        ("Postgres://u@h/d", "has a scheme in upper case"),
        ("postgres:u@h/d", 'has no "//" after its scheme'),
        (
            "u:p@h/d",
            'does not begin with "postgresql://" and is no key=value string',
        ),
        ("nonsense", "is neither a URL nor a key=value string"),
        (
            "postgresql://u@h/d?schemas=public&pgbouncers=true&sslmode=require",
            'has parameters that are not known: "schemas", "pgbouncers"',
        ),
        (
            "postgresql://u@h/d?password=a&swordfish=1",
            "has parameters that are not known: the second",
        ),
        (
            "postgresql://u:p@ss?word=1@h/d",
            "has parameters that are not known: the first",
        ),
        (
            "postgresql://u@h/d?a%20b=1",
            "has parameters that are not known: the first",
        ),
        (
            "postgresql://u@h/d?sslmode=on",
            (
                "has a parameter sslmode that is not one of disable, allow, prefer,"
                " require, verify-ca, verify-full"
            ),
        ),
        (
            "host=h username=u databse=d swordfish=1 sixth=1 a=1",
            (
                "has keywords that are not known:"
                " the second (libpq's word is user),"
                " the third, the fourth, the fifth, the 6th"
            ),
        ),
        (
            "Host=h;Username=u",
            "is a connection string of .NET, which libpq does not read",
        ),
        (
            "host=h;password=p user=u",
            "has a host that contains a semicolon and a key=value pair",
        ),
        (
            "host=h user=u;password=p",
            "has a user that contains a semicolon and a key=value pair",
        ),
        (
            "user=u host=h dbname=d;Password=p",
            "has a database that contains a semicolon and a key=value pair",
        ),
        ("host=h user=u password=a b", 'has no "=" in its fourth key=value pair'),
        ("host=h password='a", "has a single quote that is not closed"),
        ("host=h password='a\\'", "has a single quote that is not closed"),
    ],
)
def test_a_malformed_connection_string_is_explained(text: str, rule: str) -> None:
    """By the part, and never with a piece of what the user wrote."""
    assert (("DATABASE_URL", rule)) in faults_of({"DATABASE_URL": text})


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://u:p@ss@h/d",
        "postgresql://u:p/ss@h/d",
        "postgresql://u:%zz@h/d",
        "postgresql://u:p#ss:x/y@h/d",
        "postgresql://u:p/s?s@h/d",
    ],
)
def test_what_a_raw_password_can_break_comes_with_its_remedy(text: str) -> None:
    """Percent-encode it, or give it elsewhere."""
    _, faults = database_settings({"DATABASE_URL": text})

    assert [fault.remedy for fault in faults] == [ENCODE]


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        ("postgres://", {}),
        ("postgresql+psycopg://u@h/d", {"user": "u", "host": "h", "dbname": "d"}),
        ("postgres+asyncpg://u@h", {"user": "u", "host": "h"}),
        ("postgresql://u:a:b?c#d@h", {"user": "u", "password": "a:b?c#d", "host": "h"}),
        ("postgresql://[::1]:1/d", {"host": "::1", "port": "1", "dbname": "d"}),
        ("postgresql://h1:1,h2:2/d", {"host": "h1,h2", "port": "1,2", "dbname": "d"}),
        ("postgresql://h1,h2", {"host": "h1,h2", "port": ","}),
        ("postgresql://%2Fvar%2Frun/d", {"host": "/var/run", "dbname": "d"}),
        ("postgresql:///d?host=/var/run", {"dbname": "d", "host": "/var/run"}),
        ("postgresql://h?ssl=true&", {"host": "h", "sslmode": "require"}),
        ("postgresql://h?requiressl=1", {"host": "h", "sslmode": "require"}),
        ("host=h requiressl=0", {"host": "h", "sslmode": "prefer"}),
        ("\n host = h\tport= 1 \n", {"host": "h", "port": "1"}),
        (r"password='a \'\\b' user=\ c\d", {"password": r"a '\b", "user": " cd"}),
        ("host=h user=", {"host": "h", "user": ""}),
        ("host=a host=b", {"host": "b"}),
        ("password=a\\", {"password": "a"}),
    ],
)
def test_a_connection_string_means_what_it_means_to_libpq(
    text: str, parameters: dict[str, str]
) -> None:
    """Rules that are easily missed; the properties compare with libpq itself."""
    assert parse_connection_string(text).parameters == parameters


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        (
            {"host": "h", "user": "u", "password": "p", "sslmode": "require"},
            {"host": "h", "port": "5432", "database": "u", "user": "u"},
        ),
        (
            {"host": "a,b", "port": "1,2", "dbname": "d"},
            {"host": "a,b", "port": "1,2", "database": "d", "user": None},
        ),
        (
            {"hostaddr": "10.0.0.1", "dbname": ""},
            {"host": "10.0.0.1", "port": "5432", "database": None, "user": None},
        ),
    ],
)
def test_four_fields_of_a_connection_are_shown(
    parameters: dict[str, str], expected: dict[str, str | None]
) -> None:
    """With what libpq takes where nothing is given."""
    assert shown(parameters) == expected


def test_empty_libpq_variables_are_found() -> None:
    """Libpq would take them as values."""
    environ = {"PGSSLMODE": "", "PGTZ": "", "PGHOST": "h", "GATE_ROLE": ""}

    assert empty_variables(environ) == ("PGSSLMODE", "PGTZ")


@pytest.mark.parametrize(
    ("word", "known", "expected"),
    [
        ("prot", ["port"], "port"),
        ("pot", ["port"], "port"),
        ("xort", ["port"], "port"),
        ("ptro", ["port"], None),
        ("passwrod", ["password", "port"], "password"),
        ("db", ["dbn"], None),
        ("timeouts", ["timeout", "timeoutss"], "timeout"),
        ("x", [], None),
    ],
)
def test_the_closest_known_word_is_found(
    word: str, known: list[str], expected: str | None
) -> None:
    """A swap of neighbours is one slip."""
    assert closest(word, known) == expected


def effective(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Return the options that libpq would connect with, its environment included."""
    conninfo = psycopg.conninfo.make_conninfo(**parameters)
    attempt = psycopg.pq.PGconn.connect_start(conninfo.encode())
    options = {
        option.keyword.decode(): option.val.decode()
        for option in attempt.info
        if option.val is not None
    }
    attempt.finish()
    return options


@pytest.mark.parametrize(
    "environ",
    [
        {"PGHOST": "/nowhere", "PGUSER": "u"},
        {"PGHOST": "/nowhere", "PGUSER": "u", "PGPORT": "1", "PGDATABASE": "d"},
        {
            "PGHOST": "/nowhere",
            "PGUSER": "u'\\",
            "PGSSLMODE": "allow",
            "PGPASSWORD": " ",
        },
        {"PGHOST": "/nowhere", "PGSERVICE": "s"},
        {"PGHOST": "/nowhere", "PGSERVICE": "s", "PGPORT": "1", "PGUSER": "u"},
        {"PGOPTIONS": "-c a=b", "PGSERVICE": "s", "PGDATABASE": "d"},
    ],
)
@pytest.mark.parametrize(
    "url",
    [
        None,
        "postgresql:///?host=/nowhere",
        "postgresql://u:p@/d?host=/nowhere&port=2",
        "host=/nowhere user=u sslmode=disable",
        "service=s user=u",
    ],
)
def test_variables_fill_in_as_libpq_lets_them(
    environ: dict[str, str],
    url: str | None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """The options in effect are those that libpq alone makes of the same settings."""
    services = tmp_path / "services.conf"
    services.write_text("[s]\nhost=/nowhere\nport=7\nuser=of_the_service\n")
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    expected = effective(psycopg.conninfo.conninfo_to_dict(url or ""))
    own = environ if url is None else environ | {"DATABASE_URL": url}
    database, _ = database_settings(own)
    assert database is not None

    parameters = connection_parameters(database, str)

    assert effective(parameters) == expected
