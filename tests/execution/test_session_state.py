"""Nothing that a file leaves in its session reaches the next one."""

from __future__ import annotations

import pytest

from migration_gate.session.lock import lock_keys
from tests.fix_gate import Gate
from tests.fix_postgres import Database
from tests.history_tables import versions


pytestmark = pytest.mark.server
# What a file sees of its session; run first and after each file that leaves something.
WORK_KEY = lock_keys("public", "schema_migrations").work  # the gate's own lock
LOOK = """
CREATE TABLE {name} AS SELECT
    (SELECT pg_catalog.string_agg(s.name || '=' || s.setting, E'\\n' ORDER BY s.name)
     FROM pg_catalog.pg_settings s
     WHERE s.name NOT IN ('transaction_isolation', 'application_name')) AS settings,
    current_user::text AS who, session_user::text AS login,
    (SELECT count(*) FROM pg_catalog.pg_prepared_statements) AS prepared,
    (SELECT count(*) FROM pg_catalog.pg_cursors WHERE is_holdable) AS cursors,
    (SELECT count(*) FROM pg_catalog.pg_listening_channels()) AS channels,
    (SELECT count(*) FROM pg_catalog.pg_locks
     WHERE locktype = 'advisory' AND pid = pg_catalog.pg_backend_pid()
     AND (classid::int8 << 32) + objid::int8 <> {work_key}) AS locks,
    (SELECT count(*) FROM pg_catalog.pg_class c
     WHERE c.relnamespace = pg_catalog.pg_my_temp_schema()) AS temporary,
    pg_catalog.current_setting('my.own', true) AS own
"""
LEFTOVERS = {
    "settings": "SET work_mem = '7MB'; SET statement_timeout = '1h'; SET my.own = 'x';"
    "SET timezone = 'Asia/Tokyo'; SET check_function_bodies = off;",
    "search path": "CREATE SCHEMA other; SET search_path = other;"
    " SELECT pg_catalog.set_config('search_path', '', false);",
    "role": "SET ROLE other_role;",
    "session authorization": "SET SESSION AUTHORIZATION other_role;",
    "isolation": "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL"
    " SERIALIZABLE, READ ONLY;",
    "prepared statement": "PREPARE p AS SELECT 1;",
    "cursor": "DECLARE c CURSOR WITH HOLD FOR SELECT 1;",
    "listen": "LISTEN news; NOTIFY news;",
    "advisory lock": "SELECT pg_advisory_lock(1), pg_advisory_lock_shared(2);",
    "temporary table": "CREATE TEMPORARY TABLE look (x int);"
    "CREATE TEMPORARY SEQUENCE s; SELECT nextval('s');",
    "a temporary history": "CREATE TEMPORARY TABLE temp_one AS TABLE schema_migrations;"
    "ALTER TABLE temp_one RENAME TO schema_migrations;"
    "SET search_path = pg_temp, public;",
    "constraints": "SET CONSTRAINTS ALL DEFERRED;",
    "old strings": "SET escape_string_warning = off; SET backslash_quote = on;",
    "replication role": "SET session_replication_role = 'replica';",
    "row security": "SET row_security = off;",
    "messages": "SET client_min_messages = error; SET lc_messages = 'C';",
}


def test_every_file_starts_in_the_same_session(gate: Gate, database: Database) -> None:
    """Settings, role, path, prepared statements, cursors, listens, locks, tables."""
    other = database.role("other", attributes="NOLOGIN")
    files = {"000_look.sql": LOOK.format(work_key=WORK_KEY, name="public.look_000")}
    database.execute(f"GRANT ALL ON SCHEMA public TO {other.user}")
    for number, text in enumerate(LEFTOVERS.values(), 1):
        files[f"{number:03}_a.sql"] = text.replace("other_role", other.user)
        files[f"{number:03}_look.sql"] = LOOK.format(
            work_key=WORK_KEY, name=f"public.look_{number:03}"
        )
    run = gate(database=database, migrations=files)
    assert run.exit_code == 0, run.output
    assert versions(database) == sorted(files)
    (before,) = database.fetch("TABLE look_000")
    assert before[2:] == (database.user, 0, 0, 0, 0, 0, None)
    for number, name in enumerate(LEFTOVERS, 1):
        (after,) = database.fetch(f"TABLE look_{number:03}")
        own = after[-1] or None  # a placeholder stays known, with an empty value
        assert (name, *after[:-1], own) == (name, *before)


def test_gate_role_is_taken_anew_for_each_file(gate: Gate, database: Database) -> None:
    """Whatever an earlier one made of the session."""
    owner = database.role("owner", attributes="NOLOGIN")
    other = database.role("other", attributes="NOLOGIN")
    database.execute(f"GRANT CREATE ON SCHEMA public TO {owner.user}, {other.user}")
    look = "CREATE TABLE {} AS SELECT current_user::text AS who"
    run = gate(
        database=database,
        migrations={
            "1_a.sql": look.format("a"),
            "2_b.sql": f"SET SESSION AUTHORIZATION {other.user};",
            "3_c.sql": look.format("c"),
            "4_d.sql": f"RESET ROLE; SET ROLE {other.user};",
            "5_e.sql": look.format("e"),
        },
        env={"GATE_ROLE": owner.user},
    )
    assert run.exit_code == 0, run.output
    seen = database.fetch("TABLE a UNION ALL TABLE c UNION ALL TABLE e")
    assert seen == [(owner.user,)] * 3


SETTINGS = {
    "statement_timeout": "150ms",
    "lock_timeout": "1ms",
    "idle_in_transaction_session_timeout": "50ms",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "standard_conforming_strings": "off",
    "client_encoding": "LATIN1",
    "timezone": "Pacific/Chatham",
    "datestyle": "SQL, DMY",
    "intervalstyle": "sql_standard",
    "bytea_output": "escape",
    "extra_float_digits": "0",
    "search_path": "app, public",
    "check_function_bodies": "off",
    "xmloption": "document",
    "xmlbinary": "hex",
    "quote_all_identifiers": "on",
    "client_min_messages": "error",
    "row_security": "off",
    "transform_null_equals": "on",
    "enable_seqscan": "off",
}
NEWER = {
    "idle_session_timeout": (140000, "50ms"),
    "transaction_timeout": (170000, "50ms"),
}


@pytest.mark.parametrize("place", ["role", "database"])
def test_settings_of_role_and_database_break_nothing(
    gate: Gate, database: Database, place: str
) -> None:
    """Timeouts that would end a migration, another encoding, old strings, a role."""
    owner = database.role("owner", attributes="NOLOGIN")
    role = database.role("login")
    database.execute(
        f"CREATE SCHEMA app; GRANT {owner.user} TO {role.user};"
        f"GRANT ALL ON SCHEMA app, public TO {owner.user}, {role.user};"
    )
    settings = SETTINGS | {
        name: setting
        for name, (since, setting) in NEWER.items()
        if database.server.version >= since
    }
    target = f"{place} {role.user if place == 'role' else database.name}"
    with database.server.connect() as conn:
        for name, setting in settings.items():
            value = setting if name == "search_path" else f"'{setting}'"
            conn.execute(f"ALTER {target} SET {name} = {value}")
        if place == "role":
            conn.execute(f"ALTER ROLE {role.user} SET role = '{owner.user}'")
    files = {
        "1_a.sql": "CREATE TABLE a AS SELECT 'it''s \\ é ü'::text AS t;"
        "SELECT pg_sleep(0.2);",
        "2_b.sql": "SET standard_conforming_strings = on; SELECT 'a\\';"
        "CREATE TABLE b AS SELECT E'\\'x'::text AS t;",
        "3_c.sql": "CREATE TABLE c AS SELECT 'a\\'::text AS t; SELECT pg_sleep(0.2);",
    }
    run = gate(database=role, migrations=files)
    assert run.verdict["applied"] == list(files), run.output
    assert database.fetch(
        "TABLE app.a UNION ALL TABLE app.b UNION ALL TABLE app.c"
    ) == [
        ("it's \\ é ü",),
        ("'x",),
        ("a\\",),
    ]
    assert versions(database, "app.schema_migrations") == list(files)
    again = gate(database=role, migrations=files)
    assert again.verdict["applied"] == []


@pytest.mark.parametrize(
    "script",
    [
        "BEGIN ISOLATION LEVEL SERIALIZABLE;{}COMMIT;",
        "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE;{}",
        "BEGIN; SET LOCAL TRANSACTION ISOLATION LEVEL SERIALIZABLE;{}COMMIT;",
        "VACUUM; BEGIN; SET TRANSACTION ISOLATION LEVEL SERIALIZABLE;{}COMMIT;",
    ],
)
def test_a_file_chooses_the_modes_of_its_transaction(
    gate: Gate, database: Database, script: str
) -> None:
    """Though the gate's own statements come first in it."""
    look = (
        "CREATE TABLE {} AS SELECT current_setting('transaction_isolation') AS level;"
    )
    files = {"1_a.sql": script.format(look.format("a")), "2_b.sql": look.format("b")}
    run = gate(database=database, migrations=files)

    assert run.exit_code == 0, run.output
    assert database.fetch("TABLE a UNION ALL TABLE b") == [
        ("serializable",),
        ("read committed",),
    ]


@pytest.mark.parametrize(
    "text",
    [
        *("SET TRANSACTION READ ONLY;", "SET transaction_read_only = on;"),
        *("BEGIN READ ONLY; COMMIT;", "SET LOCAL transaction_read_only TO true;"),
    ],
)
def test_a_read_only_transaction_is_refused(
    gate: Gate, database: Database, text: str
) -> None:
    """It could not be recorded."""
    run = gate(database=database, migrations={"1_a.sql": f"\n{text}"})

    assert (run.exit_code, run.verdict["reason"], run.verdict["line"]) == (
        *(1, "files", 2),
    )
    assert "READ ONLY" in run.verdict["error_message"]
