"""A planted history neither opens the gate nor runs code as the gate."""

from __future__ import annotations

import re

import pytest

from tests.fix_gate import Gate
from tests.fix_postgres import Database
from tests.history_tables import ONE, PLAIN, tables, versions, why


pytestmark = pytest.mark.server
# What a planted object would run: it leaves a row that no one else may write.
SPY = """
CREATE TABLE spied (who text);
CREATE FUNCTION spy() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO spied VALUES (current_user);
    RETURN '1_a.sql';
END $$;
CREATE FUNCTION spy_trigger() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO spied VALUES (current_user);
    RETURN NEW;
END $$;
"""
ROW = "INSERT INTO schema_migrations (version) VALUES ('1_a.sql');"
PLANTED = {
    "view": (
        (
            "CREATE VIEW schema_migrations AS"
            " SELECT 1 AS id, spy()::varchar(255) AS version,"
            " now()::timestamp AS applied_at;"
        ),
        "it is not an ordinary table",
    ),
    "materialized view": (
        (
            "CREATE MATERIALIZED VIEW schema_migrations AS SELECT 1 AS id,"
            " '1_a.sql'::varchar(255) AS version, now()::timestamp AS applied_at;"
            "CREATE UNIQUE INDEX ON schema_migrations (version);"
        ),
        "it is not an ordinary table",
    ),
    "partitioned table": (
        (
            "CREATE TABLE schema_migrations"
            " (version text PRIMARY KEY, applied_at timestamp)"
            " PARTITION BY LIST (version);"
        ),
        "it is not an ordinary table",
    ),
    "foreign table": (
        (
            "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w;"
            "CREATE FOREIGN TABLE schema_migrations"
            " (version text, applied_at timestamp) SERVER s;"
        ),
        "it is not an ordinary table",
    ),
    "trigger": (
        (
            f"{PLAIN} CREATE TRIGGER t BEFORE INSERT ON schema_migrations FOR EACH ROW"
            " EXECUTE FUNCTION spy_trigger();"
        ),
        'it has trigger "t"',
    ),
    "rule": (
        (
            f"{PLAIN} CREATE RULE r AS ON INSERT TO schema_migrations"
            " DO ALSO SELECT spy();"
        ),
        'it has rule "r"',
    ),
    "unlogged": (
        f"{PLAIN} ALTER TABLE schema_migrations SET UNLOGGED;",
        "it is unlogged: a crash of the server empties it",
    ),
    "row security": (
        (
            f"{PLAIN} {ROW} ALTER TABLE schema_migrations ENABLE ROW LEVEL SECURITY;"
            "ALTER TABLE schema_migrations FORCE ROW LEVEL SECURITY;"
            "CREATE POLICY p ON schema_migrations USING (spy() IS NOT NULL);"
        ),
        "it has row security, which is forced on its owner too",
    ),
}


@pytest.mark.parametrize("kind", PLANTED)
def test_a_planted_table_is_refused_and_runs_nothing(
    gate: Gate, database: Database, kind: str
) -> None:
    """By its owner too: an ordinary table has no code of its own."""
    script, fault = PLANTED[kind]
    owner = database.role("app")
    database.execute(f"GRANT CREATE ON SCHEMA public TO {owner.user}; {SPY}{script}")
    if kind != "foreign table":
        kinds = {"view": "VIEW", "materialized view": "MATERIALIZED VIEW"}
        database.execute(
            f"ALTER {kinds.get(kind, 'TABLE')} schema_migrations"
            f" OWNER TO {owner.user}; GRANT ALL ON spied TO PUBLIC"
        )
    run = gate(database=owner, migrations=ONE)
    assert why(run) == (
        1,
        "history",
        f'table "public.schema_migrations" cannot be trusted as history: {fault}',
    )
    assert "drop it" not in run.verdict["hint"].lower()
    assert database.fetch("SELECT * FROM spied") == []
    assert "a" not in tables(database)


MENDED = ["trigger", "rule", "unlogged", "row security"]


@pytest.mark.parametrize("kind", MENDED)
def test_the_hint_is_the_statement_that_mends_it(
    gate: Gate, database: Database, kind: str
) -> None:
    """Run as it is by the owner, and the rows count."""
    owner = database.role("app")
    script, _ = PLANTED[kind]
    # Planted after the row.
    script = script.replace(ROW, "").replace(PLAIN, PLAIN + ROW)
    database.execute(
        f"GRANT CREATE ON SCHEMA public TO {owner.user}; {SPY}{script}"
        f"ALTER TABLE schema_migrations OWNER TO {owner.user};"
    )
    hint = gate(database=owner, migrations=ONE).verdict["hint"]
    (statement,) = re.findall(r"(?:DROP|ALTER) [^;]+;", hint)
    owner.execute(statement)
    run = gate(database=owner, migrations=ONE)
    assert (run.exit_code, run.verdict["applied"]) == (0, []), run.output


def test_a_foreign_key_by_which_deletes_reach_others_is_refused(
    gate: Gate, database: Database
) -> None:
    """GRANT ALL gives that right; before 18 their triggers run as who deletes."""
    owner, low = database.role("app"), database.role("low")
    database.execute(
        f"GRANT CREATE ON SCHEMA public TO {owner.user}, {low.user}; {SPY}"
        "GRANT ALL ON spied TO PUBLIC"
    )
    owner.execute(f"{PLAIN}{ROW} GRANT ALL ON schema_migrations TO {low.user}")
    low.execute(
        "CREATE TABLE follows (version varchar REFERENCES schema_migrations (version)"
        " ON DELETE CASCADE); INSERT INTO follows VALUES ('1_a.sql');"
        "CREATE TRIGGER t AFTER DELETE ON follows FOR EACH ROW"
        " EXECUTE FUNCTION spy_trigger()"
    )
    files = {**ONE, "1_a.down.sql": "SELECT 1;"}
    run = gate("rollback", database=owner, migrations=files)
    assert run.exit_code == 1
    assert f'reach table "public.follows" of role "{low.user}"' in run.output
    assert database.fetch("SELECT * FROM spied") == []
    (statement,) = re.findall(r"ALTER TABLE public.follows [^;]+;", run.stderr)[:1]
    database.execute(statement)
    assert gate("rollback", database=owner, migrations=files).exit_code == 0


def test_a_check_is_told_whose_gate_role_it_lacks(
    gate: Gate, database: Database
) -> None:
    """A role that only reads would own nothing by the ALTER."""
    owner, reader = database.role("owner", attributes="NOLOGIN"), database.role("app")
    database.execute(
        f"{PLAIN}{ROW} ALTER TABLE schema_migrations OWNER TO {owner.user};"
        f"GRANT SELECT ON schema_migrations TO {reader.user};"
    )
    hint = gate("check", database=reader, migrations=ONE).verdict["hint"]
    assert f"Where {owner.user} migrates, set GATE_ROLE={owner.user}." in hint
    env = {"GATE_ROLE": owner.user}
    assert gate("check", database=reader, migrations=ONE, env=env).exit_code == 0


@pytest.mark.parametrize("login", ["superuser", "ordinary role"])
def test_a_table_of_a_foreign_owner_is_refused_and_runs_nothing(
    gate: Gate, database: Database, login: str
) -> None:
    """Its row does not open the gate, its defaults do not run as the gate."""
    planter = database.role("planter")
    database.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
    planter.execute(
        f"{SPY} GRANT ALL ON spied TO PUBLIC; {PLAIN}"
        "ALTER TABLE schema_migrations ADD COLUMN x text DEFAULT spy();"
        "ALTER TABLE schema_migrations ADD CHECK (spy() IS NOT NULL) NOT VALID;"
        "GRANT ALL ON schema_migrations, schema_migrations_id_seq TO PUBLIC;"
    )
    database.execute("TRUNCATE spied")
    logged_in = database if login == "superuser" else database.role("app")
    run = gate(database=logged_in, migrations=ONE)
    assert why(run) == (
        1,
        "history",
        (
            'table "public.schema_migrations" cannot be trusted as history: it is '
            f'owned by role "{planter.user}"'
        ),
    )
    assert database.fetch("SELECT * FROM spied") == []
    # A view of the planter's is no better, and its function no more run.
    planter.execute(
        "DROP TABLE schema_migrations; CREATE VIEW schema_migrations AS SELECT"
        " spy()::varchar(255) AS version, now()::timestamp AS applied_at;"
        "GRANT ALL ON schema_migrations TO PUBLIC;"
    )
    for command in ("migrate", "check", "status"):
        run = gate(command, database=logged_in, migrations=ONE)
        assert run.exit_code == 1
        assert "it is not an ordinary table" in run.output
    assert database.fetch("SELECT * FROM spied") == []


OWNERS = ["login role", "member role", "indirect member", "GATE_ROLE", "database owner"]


@pytest.mark.parametrize("owner", [*OWNERS, "superuser"])
def test_the_table_of_a_trusted_owner_is_used(
    gate: Gate, database: Database, owner: str
) -> None:
    """Each of those that could do the gate's work itself."""
    login, other = database.role("login"), database.role("owner", attributes="NOLOGIN")
    names = {"login role": login.user, "superuser": database.user}
    name = names.get(owner, other.user)
    script = f"GRANT CREATE ON SCHEMA public TO {login.user}, {other.user}; {PLAIN}"
    if owner in {"member role", "GATE_ROLE"}:
        script += f"GRANT {other.user} TO {login.user};"
    if owner == "indirect member":
        middle = database.role("middle", attributes="NOLOGIN")
        script += (
            f"GRANT {other.user} TO {middle.user}; GRANT {middle.user} TO {login.user};"
        )
    if owner == "database owner":
        script += f"ALTER DATABASE {database.name} OWNER TO {other.user};"
    database.execute(
        f"{script} GRANT ALL ON schema_migrations TO {login.user};"
        f"GRANT ALL ON schema_migrations_id_seq TO {login.user};"
        f'ALTER TABLE schema_migrations OWNER TO "{name}";'
    )
    env = {"GATE_ROLE": other.user} if owner == "GATE_ROLE" else {}
    run = gate(database=login, migrations=ONE, env=env)
    assert run.verdict["applied"] == ["1_a.sql"], run.output
    assert versions(database) == ["1_a.sql"]


def test_a_temporary_table_of_another_session_is_not_seen(
    gate: Gate, database: Database
) -> None:
    """It hides nothing and opens nothing."""
    with database.connect() as other:
        other.execute(PLAIN.replace("CREATE", "CREATE TEMPORARY"))
        other.execute(ROW)
        run = gate(database=database, migrations=ONE)
    assert run.verdict["applied"] == ["1_a.sql"]
    assert versions(database, "public.schema_migrations") == ["1_a.sql"]
