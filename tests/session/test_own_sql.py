"""Nothing that the gate itself asks or writes is found by the search path."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing

import pytest

from migration_gate.applying.catalogue import (
    class_name,
    object_exists,
    qualified_name,
)
from migration_gate.applying.indexes import (
    drop_index,
    is_busy,
    is_ours,
    new_indexes,
    note_create_index,
    note_reindex,
)
from migration_gate.session.activity import (
    find_phase,
    find_wait,
    find_workers,
    observe,
)
from migration_gate.statements import ConcurrentIndex
from tests.fix_gate import Gate, Run
from tests.fix_pgbouncer import PgBouncers
from tests.fix_postgres import Database
from tests.fix_proxy import Proxy
from tests.history.test_adopt import load
from tests.history_tables import PLAIN
from tests.own_sql import sent, unqualified
from tests.planted import plant, was_called


pytestmark = [pytest.mark.thorough, pytest.mark.timeout(120)]
INSIDE = {
    "1_a.sql": "CREATE TABLE public.a (n integer);"
    "CREATE INDEX IF NOT EXISTS j ON public.a (n);",
    "2_b.sql": "CREATE TABLE public.b (n integer);",
}
UNITS = {
    **INSIDE,
    "4_d.sql": "-- gate: no-transaction\nCREATE TABLE public.d (n integer);",
}
ALONE = {
    **UNITS,
    "3_c.sql": "CREATE INDEX CONCURRENTLY i ON public.a (n);"
    "REINDEX INDEX CONCURRENTLY public.i; REINDEX TABLE CONCURRENTLY public.a;"
    "DROP INDEX CONCURRENTLY public.i; VACUUM public.a;",
}
# Its table is held by another session for a while.
BLOCKED = {"5_e.sql": "ALTER TABLE public.a ADD m integer;"}
IMPATIENT = {"GATE_DDL_LOCK_TIMEOUT": "300ms", "GATE_HEARTBEAT": "1s"}


def run_everything(
    gate: Gate, database: Database, owner: Database, later: Mapping[str, str]
) -> None:
    """First run, pending, nothing pending, outside a transaction, each command."""
    blocked = {**later, **BLOCKED}
    soon = {"GATE_WAIT_TIMEOUT": "0s"}
    gate("check", database=database, migrations=INSIDE, env=soon)
    for files in (INSIDE, later):
        require_open(gate("wait", database=database, migrations=files))
        require_open(gate("plan", database=database, migrations=files))
        require_open(gate(database=database, migrations=files))
    with owner.connect() as other:
        other.execute("BEGIN; LOCK TABLE public.a IN ACCESS SHARE MODE")
        process = gate.start(database=database, migrations=blocked, env=IMPATIENT)
        process.wait_for("migration.retry_scheduled")
        other.execute("ROLLBACK")
    require_open(process.wait())
    failing = {**blocked, "9_z.sql": "SELECT pg_catalog.no_such_function();"}
    assert gate(database=database, migrations=failing).exit_code == 1
    assert gate("status", database=database, migrations=failing).exit_code == 1
    for command in (
        ("migrate",),
        ("check",),
        ("status",),
        ("resolve", "2_b", "--not-applied"),
        ("resolve", "2_b", "--applied"),
    ):
        require_open(gate(*command, database=database, migrations=blocked))


def require_open(run: Run) -> None:
    """Fail with all that a gate has written, unless it opened."""
    assert run.exit_code == 0, run.output


@pytest.mark.server
@pytest.mark.parametrize("pooled", [False, True], ids=["direct", "pooled"])
def test_every_name_that_is_sent_has_its_schema(
    gate: Gate, database: Database, pgbouncer: PgBouncers, *, pooled: bool
) -> None:
    """Operators too, as PostgreSQL's own parser reads them."""
    conninfo = database.conninfo
    port = int(conninfo["port"])
    if pooled:
        port = pgbouncer("transaction", database).port
    with Proxy(conninfo["host"], port) as proxy:
        through = proxy.through(database)
        run_everything(gate, through, database, UNITS if pooled else ALONE)
        texts = {text for link in proxy.settled() for text in sent(link)}
    assert len(texts) > 20
    assert {text: faults for text in texts if (faults := unqualified(text))} == {}


@pytest.mark.parametrize("is_planted", [False, True], ids=["parsed", "planted"])
def test_what_undoes_has_its_schemas_too(
    gate: Gate, database: Database, proxy: Proxy, *, is_planted: bool
) -> None:
    """Inside and outside a transaction, and when the first statement fails."""
    files = {
        "1_a.sql": "CREATE TABLE public.a (n integer);",
        "1_a.down.sql": "DROP TABLE public.a;",
        "2_i.sql": "CREATE INDEX CONCURRENTLY i ON public.a (n);",
        "2_i.down.sql": "DROP INDEX CONCURRENTLY public.i; SELECT 1;",
    }
    fails = {**files, "2_i.down.sql": "DROP INDEX CONCURRENTLY public.j;"}
    if is_planted:
        plant(database)
    require_open(gate(database=database, migrations=files))
    through = proxy.through(database)
    command = ("rollback", "--to", "0")

    assert gate(*command, database=through, migrations=fails).exit_code == 1
    require_open(gate(*command, "--dry-run", database=through, migrations=files))
    require_open(gate(*command, database=through, migrations=files))

    texts = {text for link in proxy.settled() for text in sent(link)}
    assert {text: faults for text in texts if (faults := unqualified(text))} == {}
    assert not (is_planted and was_called(database))


@pytest.mark.parametrize("is_planted", [False, True], ids=["parsed", "planted"])
def test_what_repeats_has_its_schemas_too(
    gate: Gate, database: Database, proxy: Proxy, *, is_planted: bool
) -> None:
    """Inside and outside a transaction, with variables, and by a person's word."""
    if is_planted:
        plant(database)
    through, env = proxy.through(database), {"GATE_VAR_n": "1"}
    for text in ("SELECT 1;", "SELECT :n;", "SELECT :'n';"):
        files = {
            "1_a.sql": "SELECT :'n';",
            "R__in.sql": text,
            "R__out.sql": f"-- gate: no-transaction\n{text}",
        }
        require_open(gate(database=through, migrations=files, env=env))
    said = ("resolve", "R__in", "--applied")
    require_open(gate(*said, database=through, migrations={"R__in.sql": "SELECT 2;"}))

    texts = {text for link in proxy.settled() for text in sent(link)}
    assert {text: faults for text in texts if (faults := unqualified(text))} == {}
    assert not (is_planted and was_called(database))


@pytest.mark.parametrize(
    "path",
    ["", pytest.param("public, pg_catalog", marks=pytest.mark.server)],
    ids=["default", "first"],
)
def test_nothing_that_is_planted_in_public_is_called(
    gate: Gate, database: Database, path: str
) -> None:
    """Its functions would run with the rights of the login role."""
    plant(database)
    if path:
        database.execute(f"ALTER DATABASE {database.name} SET search_path = {path}")
    run_everything(gate, database, database, ALONE)
    assert not was_called(database)


def test_nothing_planted_is_called_where_a_table_is_taken_over(
    gate: Gate, database: Database
) -> None:
    """A plain table, and a role that may only insert."""
    plant(database)
    database.execute(f"ALTER DATABASE {database.name} SET search_path = public")
    role = database.role("inserter")
    database.execute(
        f"{PLAIN} GRANT SELECT, INSERT ON public.schema_migrations TO {role.user};"
        f"GRANT USAGE ON SEQUENCE public.schema_migrations_id_seq TO {role.user};"
        f"GRANT CREATE ON SCHEMA public TO {role.user};"
    )
    require_open(gate(database=role, migrations=INSIDE))
    require_open(gate(database=database, migrations=ALONE))
    assert not was_called(database)


@pytest.mark.server
def test_what_is_rarely_asked_has_its_schemas_too(
    database: Database, proxy: Proxy
) -> None:
    """About other sessions, and about indexes that were left."""
    database.execute(
        "CREATE TABLE public.a (n integer); CREATE INDEX i ON public.a (n);"
    )
    with closing(proxy.through(database).connect()) as conn:
        for pooled in (False, True):
            observe(conn, 1, pooled=pooled)
            find_workers(conn, 1, pooled=pooled)
        find_phase(conn, 1)
        find_wait(conn, 1)
        before = note_create_index(conn, "public", "a")
        assert new_indexes(conn, before) == []
        for index in (
            ConcurrentIndex(action="reindex", schema="public", name="i"),
            ConcurrentIndex(action="reindex", table_schema="public", table="a"),
            ConcurrentIndex(action="reindex", schema="public"),
            ConcurrentIndex(action="reindex"),
        ):
            assert note_reindex(conn, index)["leftovers"] == []
        (oid,) = before["indexes"]
        index = ConcurrentIndex(action="create", table="a", columns=("n",))
        assert is_ours(conn, oid, index)
        assert not is_busy(conn, before)
        assert class_name(conn, oid) == "i"
        assert object_exists(conn, "DATABASE", database.name)
        qualified_name(conn, oid)
        drop_index(conn, oid)
    (link,) = proxy.settled()
    texts = set(sent(link))
    assert {text: faults for text in texts if (faults := unqualified(text))} == {}


TAKEN_OVER = {
    "golang-migrate": "golang-migrate",
    "goose": "goose-2",
    "flyway": "flyway-2",
    "sqlx": "sqlx",
    "prisma": "prisma",
    "atlas": "atlas",
    "refinery": "refinery",
    "graphile-migrate": "graphile-migrate-2",
    "drizzle": "drizzle",
    "liquibase": "liquibase-2",
    "yoyo": "yoyo-2",
}


@pytest.mark.parametrize("tool", ["none", *TAKEN_OVER])
def test_what_takes_over_has_its_schemas_too(
    gate: Gate, database: Database, proxy: Proxy, tool: str
) -> None:
    """Whatever becomes of the rows: they are read, and who is applying is asked."""
    plant(database)
    if tool in TAKEN_OVER:
        load(database, TAKEN_OVER[tool])
    through = proxy.through(database)
    env = {"GATE_ADOPT": tool, "GATE_BASELINE": "1", "GATE_CHANGED": "warn"}
    files = {"1_a.sql": "SELECT 1;", "2_b.sql": "SELECT 2;", "3_c.sql": "SELECT 3;"}
    for command in (("plan",), ("check",), ("migrate",), ("baseline", "2")):
        gate(
            *command,
            database=through,
            migrations=files,
            env={**env, "GATE_WAIT_TIMEOUT": "0s"},
        )

    texts = {text for link in proxy.settled() for text in sent(link)}
    assert {text: faults for text in texts if (faults := unqualified(text))} == {}
    assert not was_called(database)


def test_what_looks_over_a_fleet_has_its_schemas_too(
    gate: Gate, database: Database, proxy: Proxy
) -> None:
    """Many histories are read together, and each is looked for in its schema alone."""
    plant(database)
    listed = "SELECT n FROM unnest(ARRAY['a', 'b']) n"
    database.execute("CREATE SCHEMA a; CREATE SCHEMA b;")
    env = {"GATE_TARGETS": f"schemas:{listed}", "GATE_BASELINE": "1"}
    files = {"1_a.sql": "SELECT 1;", "2_b.sql": "SELECT 2;"}
    runs = [
        gate(database=proxy.through(database), migrations=files, env=env)
        for _ in range(2)
    ]
    assert runs[1].one("fleet.looked")["up_to_date_count"] == 2
    texts = {text for link in proxy.settled() for text in sent(link)} - {listed}
    assert {text: faults for text in texts if (faults := unqualified(text))} == {}
    assert not was_called(database)
