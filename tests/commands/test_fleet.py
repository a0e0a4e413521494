"""A fleet: one run over many schemas or databases, each with a history of its own."""

from __future__ import annotations

import json
import re
import signal

from collections.abc import Sequence
from pathlib import Path

import pytest

from psycopg import sql

from tests.commands.test_terminal import run_on_terminal
from tests.fix_gate import Gate, Run, write_migrations
from tests.fix_postgres import Database, Databases


FILES = {
    "001_orders.sql": "CREATE TABLE orders (id int);",
    "002_more.sql": "ALTER TABLE orders ADD COLUMN note text;",
}
TARGET_A = {"GATE_TARGET": "a"}
ODD_NAMES = (
    *("plain", "Capitals", "with space", 'quo"te', "it's", "per%cent", "dot.ted"),
    *("back\\slash", "-dash", "$dollar", "{}", "ü" * 31, "x" * 63),
)


def list_names(names: Sequence[str]) -> str:
    """Return a query that gives names in their order."""
    rows = sql.SQL(", ").join(
        sql.SQL("({}, {})").format(number, name) for number, name in enumerate(names)
    )
    return "SELECT name FROM (VALUES {}) t (at, name) ORDER BY at".replace(
        "{}", rows.as_string()
    )


def schemas(database: Database, names: Sequence[str]) -> dict[str, str]:
    """Make schemas, and return the setting that lists them."""
    for name in names:
        make = sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name))
        database.execute(make.as_string())
    return {"GATE_TARGETS": f"schemas:{list_names(names)}"}


def tables(database: Database, name: str = "orders") -> list[str]:
    """Return the schemas that have a table."""
    query = "SELECT schemaname::text FROM pg_tables WHERE tablename = %s ORDER BY 1"
    return [schema for (schema,) in database.fetch(query, [name])]


def history(database: Database, schema: str) -> list[str]:
    """Return the versions in the history of a schema."""
    query = sql.SQL("SELECT version::text FROM {} ORDER BY id").format(
        sql.Identifier(schema, "schema_migrations")
    )
    return [version for (version,) in database.fetch(query.as_string())]


def counts(run: Run) -> list[int]:
    """Return how many targets there are, are done, failed, left and gone."""
    names = ("target", "done", "failed", "left", "gone")
    return [run.verdict[f"{name}_count"] for name in names]


def test_each_schema_gets_every_file_and_a_history_of_its_own(
    gate: Gate, database: Database
) -> None:
    """Whatever its name is; a second start finds nothing to do."""
    env = schemas(database, ODD_NAMES)
    run = gate(database=database, migrations=FILES, env=env)
    assert (run.exit_code, counts(run)) == (0, [len(ODD_NAMES)] * 2 + [0, 0, 0])
    assert tables(database) == sorted(ODD_NAMES)
    for name in ODD_NAMES:
        assert history(database, name) == ["001_orders.sql", "002_more.sql"]
    again = gate(database=database, migrations=FILES, env=env)
    assert (again.exit_code, again.verdict["applied_count"]) == (0, 0)
    assert again.one("fleet.looked")["up_to_date_count"] == len(ODD_NAMES)
    assert "target.opened" not in again.names


def test_the_quick_look_passes_over_what_is_not_plain(
    gate: Gate, database: Database
) -> None:
    """A history that differs, is locked, planted or gone is looked at by itself."""
    names = [f"t{number}" for number in range(8)]
    env = schemas(database, names)
    assert gate(database=database, migrations=FILES, env=env).exit_code == 0
    database.execute("DELETE FROM t1.schema_migrations WHERE version LIKE '002%'")
    database.execute("ALTER TABLE t1.orders DROP COLUMN note")
    database.execute("DROP TABLE t2.schema_migrations, t2.orders")
    database.execute("UPDATE t3.schema_migrations SET checksum = 'other'")
    database.execute("CREATE RULE r AS ON INSERT TO t4.schema_migrations DO NOTHING")
    database.execute("UPDATE t5.schema_migrations SET version = '003_x' WHERE id = 2")
    database.execute("ALTER TABLE t5.orders DROP COLUMN note")
    run = gate(database=database, migrations=FILES, env=env)
    assert run.one("fleet.looked")["up_to_date_count"] == 3
    assert (run.exit_code, counts(run)) == (1, [8, 6, 2, 0, 0])
    assert sorted(run.verdict["failed"]) == ["t3: history", "t4: history"]
    assert run.verdict["applied_count"] == 1 + 2 + 1
    assert "history.unknown_versions" in run.names


def test_each_database_gets_every_file(gate: Gate, databases: Databases) -> None:
    """The list is asked of the configured one, which is not a target itself."""
    home, *targets = (databases.create() for _ in range(4))
    env = {"GATE_TARGETS": f"databases:{list_names([t.name for t in targets])}"}
    run = gate(database=home, migrations=FILES, env=env)
    assert (run.exit_code, counts(run)) == (0, [3, 3, 0, 0, 0])
    assert [tables(target) for target in targets] == [["public"]] * 3
    assert tables(home) == []
    assert run.verdict["applied"] == sorted(FILES)
    assert run.verdict["applied_count"] == 6


def test_a_file_lists_databases_and_connection_strings(
    gate: Gate, databases: Databases, tmp_path: Path
) -> None:
    """What a line does not say is as the configured database has it."""
    home, first, second = (databases.create() for _ in range(3))
    listed = tmp_path / "fleet.txt"
    listed.write_text(f"# two\n{first.name}\n\ndbname={second.name}\n", "utf-8")
    run = gate(database=home, migrations=FILES, env={"GATE_TARGETS": f"file:{listed}"})
    assert (run.exit_code, counts(run)) == (0, [2, 2, 0, 0, 0])
    assert [tables(target) for target in (first, second)] == [["public"]] * 2
    assert {event["target"] for event in run.all("target.opened")} == {
        *(first.name, second.name)
    }


def test_a_target_that_fails_stops_no_other(gate: Gate, database: Database) -> None:
    """The last line names it with its place, and counts; a restart does the rest."""
    env = schemas(database, ["a", "b", "c", "d"])
    database.execute("CREATE TABLE b.orders ()")
    database.execute("CREATE TABLE c.orders ()")
    run = gate(database=database, migrations=FILES, env=env)
    assert (run.exit_code, counts(run)) == (1, [4, 2, 2, 0, 0])
    assert sorted(run.verdict["failed"]) == [
        "b: 001_orders.sql:1:1 (42P07)",
        "c: 001_orders.sql:1:1 (42P07)",
    ]
    assert run.verdict["reason"] == "migration_failed"
    assert "2 of 4 targets done, 2 failed; first" in run.verdict["message"]
    assert {e["target"] for e in run.all("target.closed")} == {"b", "c"}
    database.execute("DROP TABLE b.orders, c.orders")
    again = gate(database=database, migrations=FILES, env=env)
    assert (again.exit_code, counts(again)) == (0, [4, 4, 0, 0, 0])
    assert again.verdict["applied_count"] == 4


def test_a_canary_that_fails_lets_no_other_begin(
    gate: Gate, database: Database
) -> None:
    """The first ones are alone."""
    env = schemas(database, ["a", "b", "c", "d"])
    database.execute("CREATE TABLE b.orders ()")
    run = gate(database=database, migrations=FILES, env=env | {"GATE_CANARIES": "2"})
    assert (run.exit_code, counts(run)) == (1, [4, 1, 1, 2, 0])
    assert tables(database) == ["a", "b"]
    assert "a canary failed" in run.verdict["message"]


@pytest.mark.parametrize(("limit", "failed"), [("0", 1), ("1", 2), ("25%", 3)])
def test_no_target_is_begun_when_too_many_have_failed(
    gate: Gate, database: Database, limit: str, failed: int
) -> None:
    """A number, or a share of all."""
    names = [f"t{number}" for number in range(8)]
    env = schemas(database, names)
    for name in names:
        database.execute(f"CREATE TABLE {name}.orders ()")
    env |= {"GATE_FAILURES_MAX": limit, "GATE_TARGETS_AT_ONCE": "1"}
    run = gate(database=database, migrations=FILES, env=env)
    assert (run.exit_code, counts(run)) == (1, [8, 0, failed, 8 - failed, 0])
    assert "more failed than GATE_FAILURES_MAX allows" in run.verdict["message"]


def test_the_last_line_is_short_however_many_fail(
    gate: Gate, database: Database
) -> None:
    """Below 2048 bytes, so that a pod's status shows it whole."""
    names = [f"{number:02}{'x' * 55}" for number in range(30)]
    env = schemas(database, names)
    files = {"001_long.sql": "SELECT 1;\nSELECT missing FROM nowhere;"}
    run = gate(database=database, migrations=files, env=env)
    assert counts(run) == [30, 0, 30, 0, 0]
    assert len(run.stdout.splitlines()[-1].encode()) < 2048
    assert run.verdict["failed"][-1].endswith("more")


def test_a_schema_that_is_not_there_is_not_made(gate: Gate, database: Database) -> None:
    """A tenant that was dropped does not come back."""
    env = schemas(database, ["a"])
    env = {"GATE_TARGETS": f"schemas:{list_names(['a', 'gone'])}"}
    run = gate(database=database, migrations=FILES, env=env)
    assert (run.exit_code, counts(run)) == (1, [2, 1, 1, 0, 0])
    assert run.verdict["failed"] == ["gone: history"]
    assert 'there is no schema "gone"' in run.verdict["message"]
    query = "SELECT FROM pg_namespace WHERE nspname = 'gone'"
    assert database.fetch(query) == []


@pytest.mark.parametrize(
    ("query", "rule"),
    [
        ("SELECT NULL::text", "gives no name in row 1"),
        ("SELECT 'a', 'b'", "does not give one column"),
        ("COPY (SELECT 'a') TO STDOUT", "does not give one column"),
        ("SELECT $1", "has a query with a parameter"),
        ("SELECT repeat('x', 64)", "longer than 63 bytes in row 1"),
        ("SELECT 1", "gives no name in row 1"),
        ("SELECT 'a'::text; SELECT 'b'::text", "has a query that PostgreSQL refuses"),
        ("SELEC 'a'", "has a query that PostgreSQL refuses: syntax error"),
        ("CREATE SCHEMA a", "has a query that writes"),
        ("SELECT 'a'::text WHERE false", "lists no target"),
        (
            "SELECT nspname FROM pg_namespace",
            "gives a schema that is PostgreSQL's own",
        ),
        (
            "SELECT 'information_schema'::text",
            "gives a schema that is PostgreSQL's own",
        ),
    ],
)
def test_a_list_that_can_be_none_closes_the_gate(
    gate: Gate, database: Database, query: str, rule: str
) -> None:
    """Before anything is begun."""
    run = gate(
        database=database, migrations=FILES, env={"GATE_TARGETS": f"schemas:{query}"}
    )
    assert (run.exit_code, run.verdict["reason"]) == (1, "settings")
    assert rule in run.verdict["message"]


def test_a_target_that_is_postgresqls_own_is_none(
    gate: Gate, database: Database
) -> None:
    """No list is asked for it, and a superuser could make tables there."""
    env = schemas(database, ["a"]) | {"GATE_TARGET": "information_schema"}
    run = gate(database=database, migrations=FILES, env=env)
    assert (run.exit_code, run.verdict["reason"]) == (1, "settings")
    said = "GATE_TARGET names a schema that is PostgreSQL's own"
    assert run.verdict["error_message"] == said


def test_what_a_list_reads_may_come(gate: Gate, database: Database) -> None:
    """Another gate makes the table of tenants at the same moment."""
    schemas(database, ["a"])
    env = {"GATE_TARGETS": "schemas:SELECT name FROM tenants"}
    process = gate.start(database=database, migrations=FILES, env=env)
    process.wait_for("database.retry_scheduled")
    database.execute("CREATE TABLE tenants AS SELECT 'a'::text AS name")
    run = process.wait()
    assert (run.exit_code, counts(run)) == (0, [1, 1, 0, 0, 0])


def test_what_a_list_may_not_read_is_told_as_its_query(
    gate: Gate, database: Database
) -> None:
    """With who asks and where, and not as a statement of the gate's own."""
    database.execute("CREATE TABLE tenants (name text)")
    login = database.role()
    env = {"GATE_TARGETS": "schemas:SELECT name FROM tenants", "GATE_AUTH_GRACE": "0"}
    run = gate(migrations=FILES, env=env | login.environ())
    assert (run.exit_code, run.verdict["reason"]) == (1, "settings")
    assert run.verdict["error_message"] == (
        "GATE_TARGETS has a query that PostgreSQL refuses: permission denied for "
        "table tenants (SQLSTATE 42501)"
    )
    asked = f'it is asked of database "{database.name}" as role "{login.user}".'
    assert run.verdict["hint"] == (
        f"Grant the role what it reads, or correct it: {asked}"
    )


def test_a_name_that_is_listed_twice_is_one_target(
    gate: Gate, database: Database
) -> None:
    """And a list of none opens where that is allowed, with a warning."""
    schemas(database, ["a"])
    env = {"GATE_TARGETS": "schemas:VALUES ('a'::text), ('a')"}
    run = gate(database=database, migrations=FILES, env=env)
    assert (run.exit_code, counts(run)) == (0, [1, 1, 0, 0, 0])
    env = {"GATE_TARGETS": "schemas:SELECT 'a'::text WHERE false"}
    env["GATE_ALLOW_EMPTY"] = "true"
    run = gate(database=database, migrations=FILES, env=env)
    assert (run.exit_code, run.verdict["warnings"]) == (0, ["fleet.empty"])


def test_a_stop_ends_all_that_is_under_way(gate: Gate, database: Database) -> None:
    """Within 5 s; the last line says how many are done and what was under way."""
    env = schemas(database, [f"t{number}" for number in range(6)])
    database.execute("CREATE TABLE t0.orders ()")
    files = {"001_long.sql": "SELECT pg_sleep(60);"}
    process = gate.start(
        database=database, migrations=files, env=env | {"GATE_TARGETS_AT_ONCE": "3"}
    )
    process.wait_for("migration.started", count=3)
    process.signal(signal.SIGTERM)
    run = process.wait(timeout=5)
    assert (run.exit_code, run.verdict["reason"]) == (1, "interrupted")
    assert counts(run) == [6, 0, 0, 6, 0]
    assert "0 of 6 targets done, 6 left; at work: t0, t1, t2" in run.verdict["message"]
    query = "SELECT FROM pg_stat_activity WHERE query ~ 'pg_sleep' AND state = 'active'"
    assert database.fetch(f"{query} AND pid <> pg_backend_pid()") == []


def test_the_time_that_is_over_ends_all_of_it(gate: Gate, database: Database) -> None:
    """GATE_TIMEOUT is of the whole run."""
    env = schemas(database, ["a", "b"])
    files = {"001_long.sql": "SELECT pg_sleep(60);"}
    run = gate(database=database, migrations=files, env=env | {"GATE_TIMEOUT": "2s"})
    assert (run.exit_code, run.verdict["reason"]) == (1, "deadline")
    assert counts(run) == [2, 0, 0, 2, 0]


def test_one_target_is_a_run_of_its_own(gate: Gate, database: Database) -> None:
    """With GATE_TARGET, any command is about that one."""
    env = schemas(database, ["a", "b"])
    run = gate(database=database, migrations=FILES, env=env | {"GATE_TARGET": "b"})
    assert (run.exit_code, run.verdict["applied_count"]) == (0, 2)
    assert tables(database) == ["b"]
    checked = gate(
        "check", database=database, migrations=FILES, env=env | {"GATE_TARGET": "b"}
    )
    assert checked.exit_code == 0


@pytest.mark.parametrize(
    "command", ["migrate", "check", "status", "plan", "rollback --to 001"]
)
def test_one_target_that_is_not_there_is_refused(
    gate: Gate, database: Database, command: str
) -> None:
    """By whatever only looks too: there is nothing that a wait would bring."""
    env = schemas(database, ["a"]) | {"GATE_TARGET": "no such"}
    run = gate(*command.split(), database=database, migrations=FILES, env=env)
    assert run.exit_code == 1
    assert 'closed: no such: there is no schema "no such". ' in run.stderr


def test_check_waits_for_all_of_them(gate: Gate, database: Database) -> None:
    """It only looks, and says how many are behind and which is the first."""
    env = schemas(database, ["a", "b", "c"])
    gate(database=database, migrations=FILES, env=env | {"GATE_TARGET": "b"})
    soon = env | {"GATE_WAIT_TIMEOUT": "1s"}
    run = gate("check", database=database, migrations=FILES, env=soon)
    assert (run.exit_code, run.verdict["reason"]) == (1, "incomplete")
    assert counts(run) == [3, 1, 2, 0, 0]
    assert "first a, and 1 alike: not applied: " in run.verdict["message"]
    waiting = gate.start("check", database=database, migrations=FILES, env=env)
    waiting.wait_for("database.retry_scheduled")
    assert gate(database=database, migrations=FILES, env=env).exit_code == 0
    run = waiting.wait()
    assert (run.exit_code, counts(run)) == (0, [3, 3, 0, 0, 0])


@pytest.mark.parametrize("kind", ["schemas", "databases"])
def test_status_and_plan_say_who_is_behind(
    gate: Gate, databases: Databases, kind: str
) -> None:
    """And why, for people and for programs."""
    home, *others = (databases.create() for _ in range(3))
    names = [other.name for other in others]
    if kind == "schemas":
        schemas(home, names)
        home.execute(f"CREATE TABLE {names[1]}.orders ()")
    else:
        others[1].execute("CREATE TABLE orders ()")
    env = {"GATE_TARGETS": f"{kind}:{list_names(names)}"}
    planned = gate("plan", "--json", database=home, migrations=FILES, env=env)
    assert [(t["state"], t["pending"]) for t in json.loads(planned.stdout)] == [
        ("behind", sorted(FILES))
    ] * 2
    gate(database=home, migrations=FILES, env=env)
    run = gate("status", "--json", database=home, migrations=FILES, env=env)
    done, behind = json.loads(run.stdout)
    assert done == {
        "target": names[0],
        "state": "up to date",
        "version": "002_more.sql",
        "pending": [],
        "reason": None,
        "recorded": [],
    }
    assert (behind["target"], behind["state"]) == (names[1], "behind")
    assert 'relation "orders" already exists' in behind["reason"]
    assert run.exit_code == 1
    told = gate("status", database=home, migrations=FILES, env=env)
    assert "1        behind      (none)" in told.stdout
    assert "1 of 2 targets done, 1 failed" in told.stderr
    told = gate("plan", database=home, migrations=FILES, env=env)
    assert "001_orders.sql, 002_more.sql" in told.stdout
    assert told.exit_code == 0


def test_a_plan_that_is_refused_counts_all_targets(
    gate: Gate, database: Database
) -> None:
    """Those that are up to date are done, and what migrate would do is left."""
    names = ["a", "b", "c", "d", "e", "f"]
    env = schemas(database, names) | {"GATE_CHANGED": "refuse"}
    for name in names[:4]:
        one = env | {"GATE_TARGET": name}
        assert gate(database=database, migrations=FILES, env=one).exit_code == 0
    database.execute("UPDATE b.schema_migrations SET checksum = 'sha256:0'")
    run = gate("plan", database=database, migrations=FILES, env=env)
    assert run.exit_code == 1
    said = "3 of 6 targets done, 1 failed, 2 left; first b: "
    assert f"Gate closed: {said}" in run.stderr


def test_what_could_not_be_looked_at_has_a_question_mark(
    gate: Gate, database: Database
) -> None:
    """Nobody knows what is pending there, or what was applied last."""
    schemas(database, ["a"])
    env = {"GATE_TARGETS": f"schemas:{list_names(['a', 'gone'])}"}
    gate(database=database, migrations=FILES, env=env)
    told = gate("status", database=database, migrations=FILES, env=env)
    row = told.stdout.splitlines()[-1].split(maxsplit=4)
    assert row[:4] == ["gone", "refused", "?", "?"]
    assert "1        refused     ?" in told.stdout
    told = gate("plan", database=database, migrations=FILES, env=env)
    assert told.stdout.splitlines()[-1].startswith("1        ?        there is no")
    run = gate("status", "--json", database=database, migrations=FILES, env=env)
    assert [line["pending"] for line in json.loads(run.stdout)] == [[], None]


def test_a_baseline_and_a_rollback_go_over_all_of_them(
    gate: Gate, database: Database
) -> None:
    """A second start does what the first has left, and no more."""
    env = schemas(database, ["a", "b"])
    files = {**FILES, "002_more.down.sql": "ALTER TABLE orders DROP COLUMN note;"}
    for schema in ("a", "b"):
        database.execute(f"CREATE TABLE {schema}.orders (id int)")
    command = ("baseline", "001", "--json")
    one = gate(*command, database=database, migrations=files, env=env | TARGET_A)
    assert one.exit_code == 0
    both = gate(*command, database=database, migrations=files, env=env)
    assert (both.exit_code, list(json.loads(both.stdout))) == (0, ["b"])
    assert gate(database=database, migrations=files, env=env).exit_code == 0
    refused = gate("rollback", database=database, migrations=files, env=env)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "has to name where it ends" in refused.stderr
    for undone in (["a", "b"], []):
        run = gate(
            *("rollback", "--to", "001", "--json"),
            database=database,
            migrations=files,
            env=env,
        )
        assert (run.exit_code, list(json.loads(run.stdout or "{}"))) == (0, undone)
    assert [history(database, schema) for schema in ("a", "b")] == [
        ["001_orders.sql"]
    ] * 2


def test_another_tools_history_in_a_schema_is_of_that_target_alone(
    gate: Gate, database: Database
) -> None:
    """It is refused, or taken over; those in other schemas are others' affair."""
    env = schemas(database, ["a", "b"])
    for schema in ("a", "public"):
        database.execute(
            f"CREATE TABLE {schema}.schema_migrations (version bigint PRIMARY KEY, "
            f"dirty boolean NOT NULL); "
            f"INSERT INTO {schema}.schema_migrations VALUES (1, false)"
        )
    database.execute("CREATE TABLE a.orders (id int)")
    run = gate(database=database, migrations=FILES, env=env)
    assert (run.exit_code, run.verdict["failed"]) == (1, ["a: history"])
    assert tables(database, "gate_schema_migrations") == []
    took = gate(
        *("adopt", "--from", "golang-migrate"),
        database=database,
        migrations=FILES,
        env=env | TARGET_A,
    )
    assert took.exit_code == 0
    assert gate(database=database, migrations=FILES, env=env).exit_code == 0
    assert tables(database, "gate_schema_migrations") == ["a"]


def test_a_person_watches_a_board(database: Database, tmp_path: Path) -> None:
    """One line is written over again and again; what goes wrong stays."""
    env = schemas(database, ["a", "b", "c"]) | database.environ()
    database.execute("CREATE TABLE b.made ()")
    files = {"001_slow.sql": "SELECT pg_sleep(0.8); CREATE TABLE made ();"}
    env["GATE_MIGRATIONS"] = str(write_migrations(tmp_path / "m", files))
    code, output = run_on_terminal(env=env | {"GATE_TARGETS_AT_ONCE": "1"})
    assert code == 1
    boards = re.findall(r"(\d) done, (\d) failed, (\d) running, (\d) left", output)
    assert {("0", "0", "1", "2"), ("1", "1", "1", "0")} <= set(boards)
    assert "b is not up to date: 001_slow.sql:1:" in output
    assert "Applied 001_slow.sql" not in output
    assert "2 of 3 targets done, 1 failed; first b: " in output
