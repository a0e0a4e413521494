"""Of schemas that are looked at together, the odd ones are found among the others."""

from __future__ import annotations

import json

from contextlib import closing
from pathlib import Path

import pytest

from migration_gate.history.many import Histories
from migration_gate.settings.settings import HistoryTableName
from tests.commands.test_fleet import FILES, counts, schemas
from tests.fix_gate import Gate
from tests.fix_postgres import Database, NewServer, database_of


pytestmark = pytest.mark.timeout(60)

SPY = """
CREATE TABLE public.spied (who text); GRANT ALL ON public.spied TO PUBLIC;
CREATE FUNCTION public.spy() RETURNS text LANGUAGE plpgsql AS $$
BEGIN INSERT INTO public.spied VALUES (current_user); RETURN '001_orders.sql'; END $$;
CREATE FUNCTION public.spy_trigger() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM public.spy(); RETURN NEW; END $$;
"""
TABLE = "schema_migrations"
# What is done to the history of a schema of this name, and what is said of it then.
REFUSED = {
    "owner": (f"ALTER TABLE {TABLE} OWNER TO {{other}}", "owned by"),
    "trigger": (
        (
            f"CREATE TRIGGER t BEFORE INSERT ON {TABLE} FOR EACH ROW"
            " EXECUTE FUNCTION public.spy_trigger()"
        ),
        'it has trigger "t"',
    ),
    "rule": (
        f"CREATE RULE r AS ON UPDATE TO {TABLE} DO ALSO SELECT public.spy()",
        'it has rule "r"',
    ),
    "policy": (
        (
            f"ALTER TABLE {TABLE} ENABLE ROW LEVEL SECURITY;"
            f"ALTER TABLE {TABLE} FORCE ROW LEVEL SECURITY;"
            f"CREATE POLICY p ON {TABLE} USING (public.spy() IS NOT NULL)"
        ),
        "it has row security",
    ),
    "view": (
        (
            f"ALTER TABLE {TABLE} RENAME TO away; CREATE VIEW {TABLE} AS"
            " SELECT public.spy() AS version, now()::timestamp AS applied_at"
        ),
        "it is not an ordinary table",
    ),
    "type": (
        f"ALTER TABLE {TABLE} ALTER COLUMN duration_ms TYPE text",
        'its column "duration_ms" is of type text',
    ),
    "needed": (
        (
            f"ALTER TABLE {TABLE} ADD COLUMN more int NOT NULL DEFAULT 1;"
            f"ALTER TABLE {TABLE} ALTER COLUMN more DROP DEFAULT"
        ),
        'its column "more" is neither nullable nor has a default',
    ),
    "twice": (
        f"ALTER TABLE {TABLE} DROP CONSTRAINT {TABLE}_version_key",
        'its column "version" is not unique',
    ),
    "partly": (
        (
            f"ALTER TABLE {TABLE} DROP CONSTRAINT {TABLE}_version_key;"
            f"CREATE UNIQUE INDEX ON {TABLE} (version) WHERE id > 0"
        ),
        'its column "version" is not unique',
    ),
    "unlogged": (f"ALTER TABLE {TABLE} SET UNLOGGED", "it is unlogged"),
    "hidden": (f"REVOKE SELECT ON {TABLE} FROM {{app}}", "lacks SELECT"),
    "closed": ("REVOKE USAGE ON SCHEMA closed FROM {app}", "lacks USAGE"),
    "a column": (
        (
            f"REVOKE SELECT ON {TABLE} FROM {{app}};"
            f"GRANT SELECT (id, version, applied_at) ON {TABLE} TO {{app}}"
        ),
        "lacks SELECT",
    ),
}
FINE = {
    "more": f"ALTER TABLE {TABLE} ADD COLUMN more int",
    "order": f"ALTER TABLE {TABLE} DROP COLUMN duration_ms;"
    f"ALTER TABLE {TABLE} ADD COLUMN duration_ms bigint",
    "less": f"ALTER TABLE {TABLE} DROP COLUMN superseded",
    "granted": f"GRANT SELECT ON {TABLE} TO PUBLIC",
    "by column": f"GRANT SELECT (version) ON {TABLE} TO PUBLIC",
    "indexed": f"CREATE INDEX ON {TABLE} (applied_at)",
    "second": f"CREATE TABLE gate_{TABLE} (LIKE {TABLE} INCLUDING ALL)",
    "like that": f'CREATE INDEX "gate_{TABLE}" ON {TABLE} (applied_at)',
}


def alter(database: Database, names: dict[str, str]) -> None:
    """Run each statement in the schema of its name, as a superuser."""
    for schema, statement in names.items():
        database.execute(f'SET search_path = "{schema}"; {statement}')


@pytest.mark.server
def test_each_odd_one_is_judged_by_itself(gate: Gate, database: Database) -> None:
    """Wherever it stands between those that are plain, and none runs its code."""
    app, other = database.role("app"), database.role("other")
    odd = {
        name: statement.format(app=app.user, other=other.user)
        for name, (statement, _) in REFUSED.items()
    }
    plain = [f"plain{number}" for number in range(len(odd) + len(FINE))]
    mixed = [n for pair in zip(plain, [*odd, *FINE], strict=True) for n in pair]
    env = schemas(database, mixed) | {"GATE_ROLE": database.user}
    assert gate(database=database, migrations=FILES, env=env).exit_code == 0
    for name in mixed:
        database.execute(
            f'GRANT USAGE ON SCHEMA "{name}" TO {app.user};'
            f'GRANT SELECT ON "{name}".{TABLE} TO {app.user}'
        )
    database.execute(SPY)
    alter(database, odd | FINE)
    run = gate("status", "--json", database=app, migrations=FILES, env=env)
    lines = {line["target"]: line for line in json.loads(run.stdout)}
    states = {name: line["state"] for name, line in lines.items()}
    assert states == dict.fromkeys(mixed, "up to date") | dict.fromkeys(odd, "refused")
    for name, (_, why) in REFUSED.items():
        assert why in lines[name]["reason"], name
    assert database.fetch("SELECT * FROM public.spied") == []
    run = gate(database=database, migrations=FILES, env=env)
    seen = run.one("fleet.looked")["up_to_date_count"]
    assert counts(run)[:2] == [len(mixed), len(mixed) - len(run.verdict["failed"])]
    # Four are odd only to a role that is no superuser.
    assert seen == len(plain) + len(FINE) + 4
    assert database.fetch("SELECT * FROM public.spied") == []


def test_a_thousand_schemas_are_looked_at_on_some_connections(
    gate: Gate, database: Database
) -> None:
    """Whatever lot they are in, who is behind is found."""
    names = [f"t{number:04}" for number in range(1000)]
    env = schemas(database, ["t0000"])
    assert gate(database=database, migrations=FILES, env=env).exit_code == 0
    copy = (
        "DO $$ BEGIN FOR n IN 1..999 LOOP EXECUTE pg_catalog.format("
        "'CREATE SCHEMA %1$I; CREATE TABLE %1$I.schema_migrations"
        " (LIKE t0000.schema_migrations INCLUDING ALL); INSERT INTO"
        " %1$I.schema_migrations SELECT * FROM t0000.schema_migrations',"
        " 't' || pg_catalog.lpad(n::text, 4, '0')); COMMIT; END LOOP; END $$"
    )
    database.execute(copy)
    behind = names[3::83]
    for name in behind:
        database.execute(f"DELETE FROM {name}.{TABLE} WHERE version LIKE '002%'")
        database.execute(f"CREATE TABLE {name}.orders (id int)")
    env = {
        "GATE_TARGETS": "schemas:SELECT nspname FROM pg_namespace"
        " WHERE nspname ~ '^t[0-9]' ORDER BY 1"
    }
    run = gate("status", "--json", database=database, migrations=FILES, env=env)
    lines = json.loads(run.stdout)
    assert [line["target"] for line in lines] == names
    assert [n["target"] for n in lines if n["state"] == "behind"] == behind
    run = gate(database=database, migrations=FILES, env=env)
    assert (run.exit_code, counts(run)[:2]) == (0, [1000, 1000])
    assert run.one("fleet.looked")["up_to_date_count"] == 1000 - len(behind)
    assert run.verdict["applied_count"] == len(behind)


def test_a_damaged_history_is_one_targets_trouble(
    gate: Gate, new_server: NewServer
) -> None:
    """The others are done, however the server fails at it."""
    home = database_of(new_server())
    names = [f"t{number}" for number in range(6)]
    env = schemas(home, names) | {"GATE_WAIT_TIMEOUT": "1s"}
    assert gate(database=home, migrations=FILES, env=env).exit_code == 0
    home.execute("CHECKPOINT")
    ((path,),) = home.fetch(
        "SELECT pg_catalog.concat(current_setting('data_directory'), '/',"
        " pg_relation_filepath('t3.schema_migrations'))"
    )
    Path(path).rename(f"{path}.away")
    run = gate(database=home, migrations=FILES, env=env)
    assert counts(run) == [6, 5, 1, 0, 0]
    assert run.verdict["failed"] == ["t3: 58P01"]


@pytest.mark.server
def test_one_that_is_locked_between_the_questions_is_not_waited_for(
    gate: Gate, database: Database
) -> None:
    """All other threads would wait for its rows too."""
    env = schemas(database, ["a", "b"])
    assert gate(database=database, migrations=FILES, env=env).exit_code == 0
    database.execute(f"DELETE FROM b.{TABLE} WHERE id = 1")
    name = HistoryTableName(None, TABLE, is_target=True)
    with closing(database.connect()) as conn, closing(database.connect()) as other:
        conn.execute("SET statement_timeout = '10s'")
        # As long ones are: of small ones the rows come at once.
        large = "UPDATE pg_class SET relpages = 100 WHERE relname = %s"
        conn.execute(large, [TABLE])
        seen = Histories(name, None).look(conn, ["a", "b"], 250)
        assert next(seen)[0] == "a"
        other.execute(f"BEGIN; LOCK TABLE b.{TABLE}")
        assert list(seen) == []
