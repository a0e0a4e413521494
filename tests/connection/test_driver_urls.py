"""The URL that an application has already leads the gate to the same place."""

from __future__ import annotations

import re

from contextlib import closing
from typing import Literal
from urllib.parse import quote

import pytest

from migration_gate.connection.connect import open_connection
from migration_gate.connection.not_ready import NotReadyError
from migration_gate.settings.database import database_settings
from tests.driver_urls import FORMS, Form
from tests.fix_gate import Gate
from tests.fix_pgbouncer import PgBouncers
from tests.fix_postgres import Database, NewServer, database_of


FILES = {"1_shop.sql": "CREATE TABLE shop (n integer);"}
WHERE = "SELECT relnamespace::regnamespace::text FROM pg_class WHERE relname = 'shop'"


def url(form: Form, database: Database) -> str:
    """Return a form for a database, encoded as its program wants it."""
    said = {**database.conninfo, "database": database.name}
    encode = encode_part if "://" in form.text else quote_value
    return form.text.format(**{key: encode(value) for key, value in said.items()})


def encode_part(text: str) -> str:
    """Percent-encode for any place of a URL."""
    return quote(text, safe="")


def with_query(database: Database) -> str:
    """Return a URL that parameters can be put behind."""
    return f"{database.url}{'&' if '?' in database.url else '?'}"


def quote_value(text: str) -> str:
    """Quote for a key=value string."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def here(text: str) -> str:
    """Ask for no TLS, which this server has not."""
    text = re.sub(
        r"(sslmode|channel_binding|ssl)=(require|verify-full|no-verify)", "", text
    )
    text = re.sub(r"(?<=[?&])ssl(_require)?=(true|True)", "ssl=prefer", text)
    return re.sub(r"sslrootcert=\S+", "", text).replace("&&", "&").replace("?&", "?")


@pytest.mark.parametrize(
    "form", [form for form in FORMS if not form.is_of_provider], ids=lambda f: f.name
)
def test_a_url_as_its_documentation_writes_it_connects(
    form: Form, database: Database
) -> None:
    """And the session has what the URL sets there, also after RESET ALL."""
    text = here(url(form, database))
    settings, faults = database_settings({"DATABASE_URL": text})
    assert faults == []
    assert settings is not None
    with closing(open_connection(settings)) as conn:
        conn.execute("RESET ALL")
        for name, value in form.session.items():
            (found,) = conn.execute(f"SHOW {name}".encode()).fetchall()[0]
            expected = value.format(user=database.user).replace("60s", "1min")
            assert found.replace(", ", ",") == expected


@pytest.mark.timeout(60)
def test_a_server_that_the_application_verifies_is_verified(
    new_server: NewServer,
) -> None:
    """By the roots that it names, or by the system's, which have not signed this."""
    server = new_server(tls=True)
    database = database_of(server)
    at = with_query(database)
    jdbc = (
        f"jdbc:postgresql://{server.host}:{server.port}/{database.name}"
        f"?user={database.user}&password={encode_part(database.password)}"
    )
    encrypted = {
        f"{at}sslmode=no-verify": True,
        f"{at}ssl=true": True,
        f"{at}ssl=false": False,
        f"{at}sslmode=require&sslaccept=strict&sslcert={server.ca}": True,
        f"{at}sslmode=require&sslaccept=accept_invalid_certs": True,
        f"{jdbc}&ssl=true&sslrootcert={server.ca}": True,
        f"{jdbc}&ssl=true&sslfactory=org.postgresql.ssl.NonValidatingFactory": True,
    }
    refused = (
        f"{at}sslmode=require&sslaccept=strict",
        f"{jdbc}&sslfactory=org.postgresql.ssl.DefaultJavaSSLFactory",
    )
    for text, is_encrypted in encrypted.items():
        settings, _ = database_settings({"DATABASE_URL": text})
        assert settings is not None
        with closing(open_connection(settings)) as conn:
            assert bool(conn.pgconn.ssl_in_use) == is_encrypted, text
    for text in refused:
        settings, _ = database_settings({"DATABASE_URL": text})
        assert settings is not None
        with pytest.raises(NotReadyError, match="certificate verify failed"):
            open_connection(settings)


def test_prismas_schema_is_where_tables_are_made(
    gate: Gate, database: Database
) -> None:
    """The history beside them; what says nothing to the gate is named once."""
    database.execute('CREATE SCHEMA "Shop Front"')
    query = "schema=Shop%20Front&connection_limit=hunter2&pool_timeout=2"

    run = gate(env={"DATABASE_URL": f"{with_query(database)}{query}"}, migrations=FILES)

    assert run.exit_code == 0
    assert run.one("settings.passed_over")["names"] == [
        "connection_limit",
        "pool_timeout",
    ]
    assert "hunter2" not in run.output
    assert database.fetch(WHERE) == [('"Shop Front"',)]
    assert database.fetch('SELECT version FROM "Shop Front".schema_migrations') == [
        ("1_shop.sql",)
    ]


def test_a_schema_that_is_not_there_is_named(gate: Gate, database: Database) -> None:
    """With what makes it."""
    url = f"{with_query(database)}schema=Shop%20Front"

    run = gate(env={"DATABASE_URL": url}, migrations=FILES)

    assert (run.exit_code, run.verdict["reason"]) == (1, "refused")
    assert run.verdict["hint"].startswith(
        'Where that is what is missing: CREATE SCHEMA "Shop Front". Otherwise GRANT'
    )


def test_a_url_of_jdbcs_serves_the_gate_too(gate: Gate, database: Database) -> None:
    """User and password among its parameters, its schema as search path."""
    database.execute("CREATE SCHEMA app")
    (form,) = [form for form in FORMS if form.name == "JDBC"]

    run = gate(env={"DATABASE_URL": url(form, database)}, migrations=FILES)

    assert run.exit_code == 0
    assert database.fetch(WHERE) == [("app",)]


def test_the_table_that_golang_migrates_url_names_is_taken_over(
    gate: Gate, database: Database
) -> None:
    """By the setting that names the tool, and no more."""
    database.execute(
        'CREATE SCHEMA audit; CREATE TABLE audit."Steps" '
        "(version bigint PRIMARY KEY, dirty boolean NOT NULL);"
        'INSERT INTO audit."Steps" VALUES (1, false)'
    )
    table = quote('"audit"."Steps"')
    query = f"x-migrations-table={table}&x-migrations-table-quoted=true"

    run = gate(
        env={
            "DATABASE_URL": f"{with_query(database)}{query}",
            "GATE_ADOPT": "golang-migrate",
        },
        migrations={**FILES, "2_two.sql": "CREATE TABLE two (n integer);"},
    )

    assert run.exit_code == 0
    assert run.one("history.adopted")["table"] == "audit.Steps"
    assert run.verdict["applied"] == ["2_two.sql"]


def test_a_parameter_that_postgresql_refuses_is_told_as_one_of_the_url(
    gate: Gate, database: Database
) -> None:
    """At once, and without its value."""
    run = gate(
        env={"DATABASE_URL": f"{with_query(database)}statement_timeout=hunter2"},
        migrations=FILES,
    )

    assert (run.exit_code, run.verdict["reason"]) == (1, "settings")
    assert "DATABASE_URL" in run.verdict["hint"]
    assert "hunter2" not in run.output


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_a_schema_that_holds_anyway_needs_no_leave_of_a_pooler(
    gate: Gate,
    database: Database,
    pgbouncer: PgBouncers,
    mode: Literal["session", "transaction"],
) -> None:
    """A pooler refuses to set a search path: nothing is to be set for public."""
    pooled = pgbouncer(mode, database).through(database)

    run = gate(
        env={"DATABASE_URL": f"{with_query(pooled)}schema=public&pgbouncer=true"},
        migrations=FILES,
    )
    assert run.exit_code == 0
    assert database.fetch(WHERE) == [("public",)]

    database.execute("CREATE SCHEMA app")
    closed = gate(
        env={"DATABASE_URL": f"{with_query(pooled)}schema=app&pgbouncer=true"},
        migrations=FILES,
    )
    assert (closed.exit_code, closed.verdict["reason"]) == (1, "settings")
    assert "ALTER ROLE" in closed.verdict["hint"]
