"""What check waits for; it only looks, and holds no connection meanwhile."""

from __future__ import annotations

import re

from contextlib import closing

import pytest

from tests.ends import FILES, require_no_secret
from tests.fix_gate import Gate
from tests.fix_postgres import (
    Database,
    Databases,
    NewServer,
    SharedServer,
    database_of,
)
from tests.fix_proxy import Proxy
from tests.polling import until


# Servers of their own, and waiting: a loaded machine needs longer.
pytestmark = pytest.mark.timeout(60)
MORE = {**FILES, "002_more.sql": "CREATE TABLE more (id int);"}
SOON = {"GATE_WAIT_TIMEOUT": "1500ms", "GATE_AUTH_GRACE": "0"}
SESSIONS = """
SELECT count(*) FROM pg_stat_activity
WHERE application_name LIKE 'migration-gate/%' AND datname = current_database()
"""


def reader(database: Database) -> Database:
    """Return the database as a role that may read the history, and no more."""
    role = database.role()
    database.execute(f"GRANT USAGE ON SCHEMA public TO {role.user}")
    database.execute(f"GRANT SELECT ON schema_migrations TO {role.user}")
    return role


def test_it_opens_when_all_is_applied(gate: Gate, database: Database) -> None:
    """It applies nothing itself."""
    assert gate(database=database, migrations=FILES).exit_code == 0
    run = gate("check", database=reader(database), migrations=FILES)
    assert run.names == [
        "gate.started",
        "database.ready",
        "plan.made",
        "gate.opened",
    ]
    assert (run.exit_code, run.verdict["applied"]) == (0, [])


@pytest.mark.parametrize("history", ["none", "empty", "partial"])
def test_it_closes_when_not_all_is_applied_in_time(
    gate: Gate, database: Database, history: str
) -> None:
    """No table, no row and a row too few are all "not yet"."""
    if history != "none":
        gate(database=database, migrations=FILES)
    if history == "empty":
        database.execute("DELETE FROM schema_migrations")
    before = database.fetch("SELECT relname FROM pg_class ORDER BY 1")
    run = gate("check", database=database, env=SOON, migrations=MORE)
    assert (run.exit_code, run.verdict["reason"]) == (1, "incomplete")
    missing = list(MORE)[1:] if history == "partial" else list(MORE)
    names = ", ".join(f'"{name}"' for name in missing)
    told = re.escape(f"not applied: {names} ") + r"\(\d attempts? in \d s\)"
    assert re.fullmatch(told, run.verdict["error_message"])
    assert "runs migrate with these files" in run.verdict["hint"]
    assert run.names[:3] == [
        "gate.started",
        "database.ready",
        "database.retry_scheduled",
    ]
    retry = run.one("database.retry_scheduled")
    assert (retry["reason"], retry["error_message"]) == (
        "incomplete",
        f"not applied: {names}",
    )
    assert database.fetch("SELECT relname FROM pg_class ORDER BY 1") == before


def test_it_opens_soon_after_the_last_migration(gate: Gate, database: Database) -> None:
    """Another gate applies meanwhile."""
    process = gate.start("check", database=database, migrations=MORE)
    process.wait_for("database.retry_scheduled")
    assert gate(database=database, migrations=MORE).exit_code == 0
    run = process.wait()
    assert run.exit_code == 0
    assert run.names.count("database.ready") == 1


def test_it_holds_no_connection_between_looks(
    gate: Gate, database: Database, proxy: Proxy
) -> None:
    """Each look is a connection of its own: two queries where there is no table."""
    run = gate("check", database=proxy.through(database), env=SOON, migrations=FILES)
    assert run.exit_code == 1
    links = proxy.settled()
    assert 2 <= len(links) <= 8
    assert [link.asked for link in links] == ["QQX"] * len(links)
    until(lambda: database.fetch(SESSIONS) == [(0,)])  # the server takes a moment


def test_it_works_on_a_hot_standby(gate: Gate, new_server: NewServer) -> None:
    """Replicas of the application may read there."""
    primary = new_server()
    assert gate(database=database_of(primary), migrations=FILES).exit_code == 0
    standby = database_of(new_server(standby_of=primary))
    assert gate("check", database=standby, migrations=FILES).exit_code == 0


def test_a_read_only_role_is_enough(gate: Gate, database: Database) -> None:
    """default_transaction_read_only does not matter."""
    gate(database=database, migrations=FILES)
    role = reader(database)
    database.execute(f"ALTER ROLE {role.user} SET default_transaction_read_only = on")
    assert gate("check", database=role, migrations=FILES).exit_code == 0


@pytest.mark.parametrize(
    ("lacks", "grant"),
    [
        ("SELECT", "GRANT SELECT ON public.schema_migrations TO {role};"),
        ("USAGE", "GRANT USAGE ON SCHEMA public TO {role};"),
    ],
)
def test_a_missing_right_is_waited_for_and_then_named(
    gate: Gate, database: Database, lacks: str, grant: str
) -> None:
    """Within the grace the right may come; after it the GRANT is printed."""
    gate(database=database, migrations=FILES)
    role = database.role()
    if lacks == "USAGE":
        database.execute("REVOKE USAGE ON SCHEMA public FROM PUBLIC")
        database.execute(f"GRANT SELECT ON schema_migrations TO {role.user}")
    else:
        database.execute(f"GRANT USAGE ON SCHEMA public TO {role.user}")
    run = gate("check", database=role, env={"GATE_AUTH_GRACE": "0"}, migrations=FILES)
    assert (run.exit_code, run.verdict["reason"]) == (1, "refused")
    assert lacks in run.verdict["error_message"]
    assert re.search(r" \(1 attempt in \d s\)$", run.verdict["error_message"])
    expected = grant.format(role=role.user)
    assert run.verdict["hint"] == expected
    process = gate.start("check", database=role, migrations=FILES)
    assert process.wait_for("database.retry_scheduled")["reason"] == "no_right"
    database.execute(expected)
    late = process.wait()
    assert late.exit_code == 0
    require_no_secret(late, role.password)


def test_a_database_that_is_ahead_opens_with_a_warning(
    gate: Gate, database: Database
) -> None:
    """An older image after a rollback."""
    gate(database=database, migrations=MORE)
    env = {"GATE_AHEAD": "refuse"}
    run = gate("check", database=database, env=env, migrations=FILES)
    assert run.exit_code == 0
    assert run.one("history.unknown_versions")["versions"] == ["002_more.sql"]


def test_a_changed_file_opens_with_a_warning(gate: Gate, database: Database) -> None:
    """Refused by migrate; here it is not ours to judge."""
    gate(database=database, migrations=FILES)
    changed = {name: f"{text} -- changed" for name, text in FILES.items()}
    run = gate("check", database=database, migrations=changed)
    assert run.exit_code == 0
    assert run.one("history.changed_migrations")["versions"] == list(FILES)


def test_another_tools_table_closes_at_once(gate: Gate, database: Database) -> None:
    """No waiting makes it ours."""
    database.execute(
        "CREATE TABLE schema_migrations (version bigint PRIMARY KEY, dirty boolean);"
        "INSERT INTO schema_migrations VALUES (1, false)"
    )
    run = gate("check", database=database, migrations=FILES)
    assert (run.exit_code, run.verdict["reason"]) == (1, "history")
    assert "golang-migrate" in run.verdict["error_message"]
    assert run.all("database.retry_scheduled") == []


def test_wait_needs_no_more_than_connect(gate: Gate, database: Database) -> None:
    """No folder, no schema, no table."""
    role = database.role()
    database.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
    run = gate("wait", database=role)
    assert run.names == ["gate.started", "database.ready", "gate.opened"]
    assert run.exit_code == 0


@pytest.mark.server
def test_the_servers_version_is_told(
    gate: Gate, database: Database, server: SharedServer
) -> None:
    """As people write it."""
    run = gate("wait", database=database)
    major, minor = divmod(server.version, 10000)
    assert run.one("database.ready")["server_version"] == f"{major}.{minor}"


def test_a_table_that_is_dropped_meanwhile_is_waited_for(
    gate: Gate, database: Database
) -> None:
    """A database that is made anew under the waiting gate."""
    process = gate.start("check", database=database, migrations=FILES)
    process.wait_for("database.retry_scheduled")
    with closing(database.connect()) as conn:
        for _ in range(20):
            conn.execute(
                "CREATE TABLE schema_migrations (version text PRIMARY KEY, "
                "applied_at timestamp NOT NULL DEFAULT now())"
            )
            conn.execute("DROP TABLE schema_migrations")
    assert gate(database=database, migrations=FILES).exit_code == 0
    assert process.wait().exit_code == 0


def test_a_right_on_some_columns_is_waited_for_and_then_named(
    gate: Gate, database: Database
) -> None:
    """The checksum is read, too: SELECT on the rest is not enough."""
    gate(database=database, migrations=FILES)
    role = database.role()
    database.execute(f"GRANT USAGE ON SCHEMA public TO {role.user}")
    database.execute(
        f"GRANT SELECT (version, applied_at) ON schema_migrations TO {role.user}"
    )
    run = gate("check", database=role, env=SOON, migrations=FILES)
    assert (run.exit_code, run.verdict["reason"]) == (1, "refused")
    grant = f"GRANT SELECT ON public.schema_migrations TO {role.user};"
    assert run.verdict["hint"] == grant
    database.execute(grant)
    assert gate("check", database=role, migrations=FILES).exit_code == 0


def test_a_table_without_our_columns_is_enough(gate: Gate, database: Database) -> None:
    """Another program wrote its rows; a checksum is not there to be compared."""
    database.execute(
        "CREATE TABLE schema_migrations (id serial PRIMARY KEY, "
        "version varchar(255) NOT NULL UNIQUE, "
        "applied_at timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP)"
    )
    process = gate.start("check", database=reader(database), migrations=FILES)
    assert process.wait_for("database.retry_scheduled")["reason"] == "incomplete"
    database.execute("INSERT INTO schema_migrations (version) VALUES ('001_create')")
    assert process.wait().exit_code == 0


def test_a_standby_that_is_behind_is_waited_for(
    gate: Gate, new_server: NewServer
) -> None:
    """The gate opens there when the rows have arrived."""
    primary = new_server()
    standby = database_of(new_server(standby_of=primary))
    standby.execute("SELECT pg_wal_replay_pause()")
    assert gate(database=database_of(primary), migrations=FILES).exit_code == 0
    process = gate.start("check", database=standby, migrations=FILES)
    assert process.wait_for("database.retry_scheduled")["reason"] == "incomplete"
    standby.execute("SELECT pg_wal_replay_resume()")
    assert process.wait().exit_code == 0


def test_a_database_and_a_role_that_come_late_are_waited_for(
    gate: Gate, database: Database, databases: Databases
) -> None:
    """It is started before anything is made: each reason is told once."""
    late = databases.name()
    role = database.role(attributes="NOLOGIN").changed(dbname=late.name)
    process = gate.start("check", database=role, migrations=FILES)
    assert process.wait_for("database.retry_scheduled")["reason"] == "no_login"
    with closing(databases.server.connect()) as conn:
        conn.execute(f"ALTER ROLE {role.user} LOGIN")
        retry = process.wait_for("database.retry_scheduled", count=2)
        assert retry["reason"] == "no_database"
        conn.execute(f"CREATE DATABASE {late.name} TEMPLATE template0")
    assert gate(database=late, migrations=FILES).exit_code == 0
    late.execute(f"GRANT SELECT ON schema_migrations TO {role.user}")
    assert process.wait().exit_code == 0
