"""What happens to the history while the gate runs."""

from __future__ import annotations

import threading

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager

import pytest

from tests.fix_gate import Gate, Process
from tests.fix_postgres import Database
from tests.fix_proxy import Message, Proxy
from tests.history_tables import tables, versions, why
from tests.polling import until


pytestmark = pytest.mark.timeout(60)

# The second file waits until the test lets it go on.
HELD = {
    "1_a.sql": "CREATE TABLE a ();",
    "2_b.sql": "SELECT pg_advisory_xact_lock_shared(7); CREATE TABLE b ();",
    "3_c.sql": "CREATE TABLE c ();",
}
ENV = {"GATE_DDL_LOCK_TIMEOUT": "60s"}
CHANGE_WAITS = """
SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
WHERE relation = 'schema_migrations'::regclass AND NOT granted
  AND datname = current_database()
"""
WAITS = """
SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
WHERE locktype = 'advisory' AND objid = 7 AND NOT granted
  AND datname = current_database()
"""


BUILDS = """
SELECT count(*) FROM pg_stat_activity
WHERE query LIKE 'CREATE INDEX CONCURRENTLY%' AND wait_event_type = 'Lock'
  AND datname = current_database()
"""


@contextmanager
def held(
    gate: Gate, database: Database, files: Mapping[str, str] = HELD
) -> Iterator[Process]:
    """Give a gate that is in the middle of its second file, or of these."""
    with closing(database.connect()) as other:
        other.execute("SELECT pg_advisory_lock(7)")
        process = gate.start(database=database, migrations=files, env=ENV)
        until(lambda: database.fetch(WAITS) == [(1,)])
        yield process


def test_a_row_deleted_meanwhile_is_applied_by_the_next_start(
    gate: Gate, database: Database
) -> None:
    """The run goes on with what it has planned; the row's absence counts later."""
    with held(gate, database) as process:
        assert versions(database) == ["1_a.sql"]
        database.execute("DELETE FROM schema_migrations")
    run = process.wait()
    assert run.verdict["applied"] == list(HELD)
    assert versions(database) == ["2_b.sql", "3_c.sql"]
    database.execute("DROP TABLE a")
    assert gate(database=database, migrations=HELD).verdict["applied"] == ["1_a.sql"]


def test_a_row_added_meanwhile_is_believed(gate: Gate, database: Database) -> None:
    """Its file is not applied, and not reported as applied by this gate."""
    with held(gate, database) as process:
        database.execute("INSERT INTO schema_migrations (version) VALUES ('3_c.sql')")
    run = process.wait()
    assert (run.exit_code, run.verdict["applied"]) == (0, ["1_a.sql", "2_b.sql"])
    assert tables(database) == ["a", "b"]
    assert sorted(versions(database)) == sorted(HELD)


def test_a_row_of_another_gates_file_is_no_matter(
    gate: Gate, database: Database
) -> None:
    """A newer image is ahead."""
    with held(gate, database) as process:
        database.execute("INSERT INTO schema_migrations (version) VALUES ('9_z.sql')")
    assert process.wait().verdict["applied"] == list(HELD)


@pytest.mark.server
@pytest.mark.parametrize(
    "surprise",
    [
        "DROP TABLE schema_migrations",
        "ALTER TABLE schema_migrations RENAME TO elsewhere",
        "ALTER TABLE schema_migrations DROP COLUMN version",
    ],
    ids=["dropped", "renamed", "altered"],
)
def test_a_table_that_is_gone_closes_the_gate(
    gate: Gate, database: Database, surprise: str
) -> None:
    """No further file is applied; the reason says what to look at."""
    change = threading.Thread(target=database.execute, args=(surprise,))
    with held(gate, database) as process:
        change.start()
        # The file's own row is being written: the change comes right behind it.
        until(lambda: database.fetch(CHANGE_WAITS) == [(1,)])
    run = process.wait()
    change.join()
    assert (run.exit_code, run.verdict["reason"]) == (1, "history"), run.output
    assert run.verdict["applied"] == ["1_a.sql", "2_b.sql"]
    assert "schema_migrations" in run.verdict["error_message"]
    assert tables(database) in (["a", "b"], ["a", "b", "elsewhere"])


OUTSIDE = {
    "1_a.sql": "-- gate: no-transaction\nCREATE TABLE a ();\n"
    "SELECT pg_advisory_xact_lock_shared(7);\nCREATE TABLE b ();\nVACUUM;"
}
BUILT = {"1_a.sql": "CREATE TABLE a (n int);", "2_b.sql": "SELECT 1;"}
BUILDING = {**BUILT, "3_c.sql": "CREATE INDEX CONCURRENTLY i ON a (n);"}
SECURE = """
ALTER TABLE schema_migrations ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY
"""
BRING_BACK = "Bring the table back as it was"


@pytest.mark.server
@pytest.mark.parametrize(
    ("surprise", "what"),
    [
        ("DROP TABLE schema_migrations", "is gone"),
        ("ALTER TABLE schema_migrations RENAME TO elsewhere", "is gone"),
        ("ALTER SCHEMA public RENAME TO elsewhere", "is gone"),
        (SECURE, "has row security"),
    ],
    ids=["dropped", "renamed", "schema renamed", "secured"],
)
def test_what_others_do_to_the_history_is_not_blamed_on_a_file_outside(
    gate: Gate, database: Database, surprise: str, what: str
) -> None:
    """Outside a transaction no row of the history keeps it as it is."""
    role = database.role("migrator")
    database.execute(f"ALTER SCHEMA public OWNER TO {role.user}")
    with held(gate, role, OUTSIDE) as process:
        database.execute(surprise)
    run = process.wait()
    exit_code, reason, message = why(run)
    assert (exit_code, reason) == (1, "history"), run.output
    assert message == (
        f'table "public.schema_migrations" {what}: another session altered, dropped or '
        "renamed it meanwhile"
    )
    assert BRING_BACK in run.verdict["hint"]


@pytest.mark.parametrize(
    "surprise",
    [
        pytest.param("DROP TABLE schema_migrations_progress", marks=pytest.mark.server),
        "ALTER TABLE schema_migrations_progress RENAME TO elsewhere",
        "ALTER TABLE schema_migrations_progress DROP state",
    ],
    ids=["dropped", "renamed", "altered"],
)
def test_progress_that_others_take_away_is_named(
    gate: Gate, database: Database, surprise: str
) -> None:
    """While a statement runs that PostgreSQL refuses in a transaction."""
    gate(database=database, migrations=BUILT)
    with closing(database.connect()) as other:
        other.execute("BEGIN; INSERT INTO a VALUES (1)")
        process = gate.start(database=database, migrations=BUILDING)
        until(lambda: database.fetch(BUILDS) == [(1,)])
        database.execute(surprise)
        other.execute("ROLLBACK")
    run = process.wait()
    assert (run.exit_code, run.verdict["reason"]) == (1, "history"), run.output
    assert "schema_migrations_progress meanwhile" in run.verdict["hint"]


@pytest.mark.parametrize(
    ("surprise", "was", "head"),
    [
        (
            "DROP TABLE schema_migrations",
            "dropped or renamed",
            "-- gate: no-transaction\n",
        ),
        ("TRUNCATE schema_migrations", "emptied", ""),
    ],
)
def test_a_history_that_is_lost_is_not_filled_anew_by_the_same_run(
    gate: Gate, database: Database, surprise: str, was: str, head: str
) -> None:
    """A file that changes the defaults makes the run look again."""
    files = {
        **HELD,
        "3_c.sql": f"ALTER DATABASE {database.name} SET work_mem = '5MB';"
        "SELECT pg_advisory_xact_lock_shared(8);",
        "4_d.sql": f"{head}CREATE TABLE d ();",
    }
    change = threading.Thread(target=database.execute, args=(surprise,))
    with closing(database.connect()) as other:
        other.execute("SELECT pg_advisory_lock(8)")
        with held(gate, database, files) as process:
            pass
        until(lambda: database.fetch(WAITS.replace("= 7", "= 8")) == [(1,)])
        change.start()
        until(lambda: database.fetch(CHANGE_WAITS) == [(1,)])
        other.execute("SELECT pg_advisory_unlock_all()")
    run = process.wait()
    change.join()
    assert why(run) == (
        1,
        "history",
        (
            "the history has lost all 3 rows since this run began: another session has"
            f" {was} it"
        ),
    )
    assert tables(database) == ["a", "b"]


def test_an_answer_lost_at_commit_is_found_in_the_history(
    gate: Gate, database: Database, proxy: Proxy
) -> None:
    """The server has committed and the gate never hears of it: nothing is repeated."""
    database.execute("CREATE TABLE calls (what text)")
    files = {
        "1_a.sql": "INSERT INTO calls VALUES ('1');",
        "2_b.sql": "INSERT INTO calls VALUES ('2');",
    }
    gate(database=database, migrations={"1_a.sql": files["1_a.sql"]})
    proxy.when(is_commit, proxy.cut)
    run = gate(database=proxy.through(database), migrations=files)
    assert run.verdict["applied"] == ["2_b.sql"], run.output
    assert len(run.all("database.ready")) == 2
    assert len(run.all("migration.applied")) == 1
    assert database.fetch("TABLE calls") == [("1",), ("2",)]


def test_a_commit_that_never_arrived_is_made_up_for(
    gate: Gate, database: Database, proxy: Proxy
) -> None:
    """The same seen from the gate; here the message did not reach the server."""
    database.execute("CREATE TABLE calls (what text)")
    text = "INSERT INTO calls VALUES ('1');"
    proxy.when(lambda m: m.type == "Q" and b"COMMIT" in m.payload, proxy.cut)
    run = gate(database=proxy.through(database), migrations={"1_a.sql": text})
    assert run.verdict["applied"] == ["1_a.sql"], run.output
    assert len(run.all("database.ready")) == 2
    assert database.fetch("TABLE calls") == [("1",)]


def is_commit(message: Message) -> bool:
    """Whether it is the server's answer to a COMMIT."""
    return message.sender == "server" and message.payload == b"COMMIT\0"
