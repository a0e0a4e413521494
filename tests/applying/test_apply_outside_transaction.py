"""Files with statements that PostgreSQL refuses in a transaction."""

from __future__ import annotations

import contextlib
import signal
import threading
import time

from collections.abc import Iterator

import pytest

from psycopg import Connection
from psycopg.rows import TupleRow

from tests.fix_gate import Gate, Run
from tests.fix_postgres import Database
from tests.fix_proxy import Message, Proxy
from tests.polling import until


TABLE = "CREATE TABLE t (id integer, name text);\nINSERT INTO t VALUES (1, 'a');\n"
INDEX = "CREATE INDEX CONCURRENTLY t_id ON t (id);\n"
PROGRESS = (
    "SELECT version, statement, state FROM schema_migrations_progress ORDER BY 1, 2"
)
INDEXES = (
    "SELECT c.relname, i.indisvalid FROM pg_index i JOIN pg_class c "
    "ON c.oid = i.indexrelid WHERE i.indrelid = 't'::regclass ORDER BY 1"
)
UNGRANTED = "SELECT FROM pg_locks WHERE NOT granted AND relation = 't'::regclass"
END_GATES = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE application_name LIKE 'migration-gate/%' AND datname = current_database()"
)


@contextlib.contextmanager
def open_transaction(database: Database) -> Iterator[Connection[TupleRow]]:
    """A foreign transaction that wrote to the table, as CONCURRENTLY waits for."""
    with contextlib.closing(database.connect()) as conn:
        conn.execute("BEGIN; INSERT INTO t VALUES (99, 'foreign')")
        yield conn


def wait_until_building(database: Database, timeout_s: float = 10) -> int:
    """Wait until the index waits for the foreign transaction; return the backend."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        rows = database.fetch(
            "SELECT pid FROM pg_stat_activity WHERE state = 'active' "
            "AND datname = current_database() AND wait_event_type = 'Lock' "
            "AND query LIKE '%CONCURRENTLY%' AND pid <> pg_backend_pid()"
        )
        if rows:
            return int(rows[0][0])
        time.sleep(0.02)
    pytest.fail("no index is being built")


def history(database: Database) -> list[str]:
    """Return the versions in the history."""
    query = "SELECT version FROM schema_migrations ORDER BY 1"
    return [row[0] for row in database.fetch(query)]


def ended(run: Run) -> tuple[int, str | None]:
    """Return exit code and reason."""
    return run.exit_code, run.verdict.get("reason")


@pytest.mark.server
def test_an_index_is_built_concurrently(gate: Gate, database: Database) -> None:
    """A file with CREATE INDEX CONCURRENTLY runs outside a transaction, by itself."""
    run = gate(database=database, migrations={"001_t.sql": TABLE, "002_i.sql": INDEX})

    assert ended(run) == (0, None)
    assert [e["in_transaction"] for e in run.all("migration.started")] == [True, False]
    assert database.fetch(INDEXES) == [("t_id", True)]
    assert history(database) == ["001_t.sql", "002_i.sql"]
    assert database.fetch(PROGRESS) == []


@pytest.mark.server
def test_every_kind_of_statement_runs_in_one_file(
    gate: Gate, database: Database
) -> None:
    """Settings, blocks, transactional statements and others mix in one file."""
    script = (
        "CREATE SCHEMA s; SET search_path = s;\n"
        "CREATE TABLE u (a integer);\n"
        "BEGIN; INSERT INTO u VALUES (1); SAVEPOINT x; INSERT INTO u VALUES (2);\n"
        "ROLLBACK TO x; COMMIT;\n"
        "CREATE UNIQUE INDEX CONCURRENTLY u_a ON u (a);\n"
        "COPY u FROM stdin;\n7\n\\.\n"
        "VACUUM ANALYZE u;\n"
        "REINDEX INDEX CONCURRENTLY u_a;\n"
        "DROP INDEX CONCURRENTLY u_a"
    )
    run = gate(database=database, migrations={"001_mixed.sql": script})

    assert ended(run) == (0, None)
    assert database.fetch("SELECT a FROM s.u ORDER BY 1") == [(1,), (7,)]
    assert run.one("migration.applied")["statement_count"] == 12
    assert history(database) == ["001_mixed.sql"]


@pytest.mark.server
def test_a_failing_statement_keeps_what_was_finished(
    gate: Gate, database: Database
) -> None:
    """A restart with the mended file goes on after the last finished statement."""
    start = "-- gate: no-transaction\nCREATE TABLE t (id integer);\n"
    bad = start + "INSERT INTO t VALUES (1);\nINSERT INTO t VALUES ('é', 1/0);\n"
    closed = gate(database=database, migrations={"001_t.sql": bad})
    progress = database.fetch(PROGRESS)
    mended = start + "INSERT INTO t VALUES (1);\nINSERT INTO t VALUES (2);\n"
    opened = gate(database=database, migrations={"001_t.sql": mended})

    assert ended(closed) == (1, "migration_failed")
    assert (closed.verdict["line"], closed.verdict["sqlstate"]) == (4, "42601")
    assert progress == [("001_t.sql", 1, "finished"), ("001_t.sql", 2, "finished")]
    assert ended(opened) == (0, None)
    assert database.fetch("SELECT id FROM t ORDER BY 1") == [(1,), (2,)]
    assert database.fetch(PROGRESS) == []


def test_an_edited_finished_statement_is_refused(
    gate: Gate, database: Database
) -> None:
    """What has run must stay as it was; the fault names its line."""
    start = "-- gate: no-transaction\nCREATE TABLE t (id integer);\n"
    gate(database=database, migrations={"001_t.sql": start + "SELECT 1/0;"})
    edited = start.replace("integer", "bigint") + "SELECT 1;"
    run = gate(database=database, migrations={"001_t.sql": edited})

    assert ended(run) == (1, "files")
    assert (run.verdict["file"], run.verdict["line"]) == ("001_t.sql", 2)
    assert history(database) == []


def test_what_has_run_in_part_is_never_begun_anew(
    gate: Gate, database: Database
) -> None:
    """Neither inside a transaction, nor under another name of the same migration."""
    done = "CREATE TABLE t (id integer);\nINSERT INTO t VALUES (1);\n"
    outside = f"-- gate: no-transaction\n{done}"
    gate(database=database, migrations={"001_t.sql": f"{outside}SELECT 1/0;"})
    inside = gate(database=database, migrations={"001_t.sql": done})
    renamed = gate(database=database, migrations={"001_t.up.sql": outside})

    assert ended(inside) == (1, "files")
    assert "would run inside one" in inside.verdict["error_message"]
    assert ended(renamed) == (0, None)
    assert database.fetch("SELECT id FROM t") == [(1,)]
    assert database.fetch(PROGRESS) == []


@pytest.mark.server
def test_a_failed_index_leaves_nothing_invalid(gate: Gate, database: Database) -> None:
    """A unique index that cannot be built is dropped, and built once the data is."""
    database.execute(TABLE + "INSERT INTO t VALUES (1, 'b')")
    files = {"001_i.sql": "CREATE UNIQUE INDEX CONCURRENTLY t_id ON t (id);"}
    closed = gate(database=database, migrations=files)
    left = database.fetch(INDEXES), database.fetch(PROGRESS)
    database.execute("DELETE FROM t WHERE name = 'b'")
    opened = gate(database=database, migrations=files)

    assert ended(closed) == (1, "migration_failed")
    assert closed.verdict["sqlstate"] == "23505"
    assert left == ([], [])
    assert ended(opened) == (0, None)
    assert database.fetch(INDEXES) == [("t_id", True)]


@pytest.mark.server
def test_an_index_waits_for_a_foreign_transaction(
    gate: Gate, database: Database
) -> None:
    """GATE_DDL_LOCK_TIMEOUT does not count: one build, however long the other takes."""
    database.execute(TABLE)
    with open_transaction(database) as foreign:
        process = gate.start(
            database=database,
            migrations={"001_i.sql": INDEX},
            env={"GATE_DDL_LOCK_TIMEOUT": "100ms"},
        )
        wait_until_building(database)
        threading.Timer(1.0, foreign.commit).start()
        run = process.wait()

    assert ended(run) == (0, None)
    assert database.fetch(INDEXES) == [("t_id", True)]
    assert run.all("migration.retry_scheduled") == []


@pytest.mark.server
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_gate_killed_while_it_builds_builds_again(
    gate: Gate, database: Database, number: signal.Signals
) -> None:
    """The invalid index that a killed gate left is dropped and built again."""
    database.execute(TABLE)
    files = {"001_i.sql": "SET search_path = public;\n" + INDEX}
    with open_transaction(database) as foreign:
        process = gate.start(database=database, migrations=files)
        wait_until_building(database)
        process.signal(number)
        killed = process.wait()
        progress = database.fetch(PROGRESS)
        foreign.commit()
    run = gate(database=database, migrations=files)

    assert killed.exit_code == (1 if number == signal.SIGTERM else -signal.SIGKILL)
    assert progress == [("001_i.sql", 1, "finished"), ("001_i.sql", 2, "started")]
    assert ended(run) == (0, None)
    assert database.fetch(INDEXES) == [("t_id", True)]
    assert database.fetch(PROGRESS) == []


@pytest.mark.server
def test_a_finished_index_whose_answer_was_lost_is_not_built_again(
    gate: Gate, database: Database, proxy: Proxy
) -> None:
    """A valid index that was not there before the attempt counts as done."""
    database.execute(TABLE)

    def is_built(message: Message) -> bool:
        return message.payload.startswith(b"CREATE INDEX\0")

    proxy.when(is_built, proxy.cut)
    before = set(database.fetch("SELECT oid FROM pg_class WHERE relname = 't_id'"))
    run = gate(database=proxy.through(database), migrations={"001_i.sql": INDEX})

    assert before == set()
    assert ended(run) == (0, None)
    assert database.fetch(INDEXES) == [("t_id", True)]
    assert history(database) == ["001_i.sql"]
    builds = [
        m
        for link in proxy.settled()
        for m in link.messages
        if m.sender == "client" and m.payload.startswith(b"CREATE INDEX CONCURRENTLY")
    ]
    assert len(builds) == 1


@pytest.mark.server
def test_an_invalid_index_of_somebody_else_is_never_dropped(
    gate: Gate, database: Database
) -> None:
    """IF NOT EXISTS must not hide an invalid index that was there before."""
    database.execute(TABLE)
    database.execute("CREATE INDEX t_id ON t (id)")
    database.execute(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 't_id'::regclass"
    )
    script = "CREATE INDEX CONCURRENTLY IF NOT EXISTS t_id ON t (id);"
    run = gate(database=database, migrations={"001_i/up.sql": script})

    assert ended(run) == (1, "migration_failed")
    assert run.verdict["error_message"] == 'index "public.t_id" exists and is invalid'
    assert run.verdict["file"] == "001_i/up.sql"
    assert "DROP INDEX CONCURRENTLY public.t_id;" in run.verdict["hint"]
    assert database.fetch(INDEXES) == [("t_id", False)]


@pytest.mark.server
def test_a_statement_that_cannot_be_judged_is_asked_about(
    gate: Gate, database: Database
) -> None:
    """An unfinished one of unnamed indexes closes the gate, until resolve answers."""
    database.execute(TABLE)
    files = {"001_i.sql": "CREATE INDEX CONCURRENTLY ON t (id);\nSELECT 1;"}
    with open_transaction(database) as foreign:
        process = gate.start(database=database, migrations=files)
        wait_until_building(database)
        process.kill()
        process.wait()
        foreign.commit()
    database.execute("CREATE INDEX somebodys ON t (id)")
    closed = gate(database=database, migrations=files)
    answered = gate(
        "resolve", "001_i", "--applied", database=database, migrations=files
    )
    opened = gate(database=database, migrations=files)

    assert ended(closed) == (1, "unresolved")
    assert "resolve 001_i.sql --applied" in closed.verdict["hint"]
    assert answered.exit_code == 0
    assert ended(opened) == (0, None)


@pytest.mark.server
def test_an_index_of_other_columns_is_not_taken_for_the_files(
    gate: Gate, database: Database
) -> None:
    """A build was cut before it began, and somebody has made another one since."""
    database.execute(TABLE)
    files = {"001_i.sql": "CREATE INDEX CONCURRENTLY ON t (id);"}
    with contextlib.closing(database.connect()) as other:
        other.execute("BEGIN; LOCK TABLE t IN SHARE UPDATE EXCLUSIVE MODE")
        process = gate.start(database=database, migrations=files)
        until(lambda: database.fetch(UNGRANTED))
        process.kill()
        process.wait()
        database.execute(END_GATES)
        until(lambda: not database.fetch(UNGRANTED))
    database.execute("CREATE INDEX somebodys ON t (name)")
    run = gate(database=database, migrations=files)

    assert ended(run) == (0, None)
    assert database.fetch(INDEXES) == [("somebodys", True), ("t_id_idx", True)]


@pytest.mark.server
def test_a_gate_waits_for_the_backend_of_an_earlier_run(
    gate: Gate, database: Database
) -> None:
    """While a killed gate's statement still runs, the next names it and waits."""
    database.execute(TABLE)
    with open_transaction(database) as foreign:
        first = gate.start(database=database, migrations={"001_i.sql": INDEX})
        backend = wait_until_building(database)
        database.execute(  # an orphan that does not notice, as on PostgreSQL 13
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            f"WHERE application_name LIKE 'migration-gate/%' AND pid <> {backend}"
            " AND datname = current_database()"
        )
        first.signal(signal.SIGSTOP)
        second = gate.start(database=database, migrations={"001_i.sql": INDEX})
        waiting = second.wait_for("lock.waiting")
        threading.Timer(0.2, foreign.commit).start()
        run = second.wait()
        first.kill()

    assert waiting["holder_pid"] == backend
    assert ended(run) == (0, None)
    assert database.fetch(INDEXES) == [("t_id", True)]


@pytest.mark.parametrize(
    ("script", "line"),
    [
        ("VACUUM;\nCREATE TEMP TABLE x (a integer);", 2),
        ("VACUUM;\nPREPARE p AS SELECT 1;", 2),
        ("BEGIN;\nVACUUM;\nCOMMIT;", 2),
        ("VACUUM;\nBEGIN;\nSELECT 1;", 2),
        ("VACUUM;\nCOMMIT;", 2),
        ("-- gate: transaction\nVACUUM;", 2),
        ("PREPARE TRANSACTION 'x';", 1),
        ("SELECT 1;\nROLLBACK;", 2),
    ],
)
def test_what_cannot_run_outside_is_refused_with_its_line(
    gate: Gate, database: Database, script: str, line: int
) -> None:
    """Nothing is touched, the history table included."""
    run = gate(database=database, migrations={"001_x.sql": script})

    assert ended(run) == (1, "files")
    assert (run.verdict["file"], run.verdict["line"]) == ("001_x.sql", line)
    assert database.fetch("SELECT to_regclass('schema_migrations')") == [(None,)]


@pytest.mark.server
def test_a_partition_is_detached_concurrently_after_a_kill(
    gate: Gate, database: Database
) -> None:
    """A pending detach is finalized."""
    if database.server.version < 140000:
        pytest.skip("DETACH PARTITION CONCURRENTLY came with PostgreSQL 14")
    database.execute(
        "CREATE TABLE t (id integer, name text) PARTITION BY RANGE (id);"
        "CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (100)"
    )
    files = {"001_d.sql": "ALTER TABLE t DETACH PARTITION t_1 CONCURRENTLY;"}
    with open_transaction(database) as foreign:
        process = gate.start(database=database, migrations=files)
        wait_until_building(database)
        process.kill()
        process.wait()
        foreign.commit()
    run = gate(database=database, migrations=files)

    assert ended(run) == (0, None)
    assert database.fetch("SELECT count(*) FROM pg_inherits") == [(0,)]


@pytest.mark.server
def test_gate_role_owns_what_an_outside_file_makes(
    gate: Gate, database: Database
) -> None:
    """Files run as GATE_ROLE, and what the gate makes is the same role's."""
    owner = database.role("owner", attributes="NOLOGIN")
    database.execute(f"GRANT ALL ON SCHEMA public TO {owner.user}")
    script = "CREATE TABLE t (id integer);\n" + INDEX
    run = gate(
        database=database,
        migrations={"001_t.sql": script},
        env={"GATE_ROLE": owner.user},
    )

    assert ended(run) == (0, None)
    assert database.fetch(
        "SELECT relname, relowner::regrole::text FROM pg_class "
        "WHERE relname IN ('t', 't_id', 'schema_migrations_progress') ORDER BY 1"
    ) == [
        ("schema_migrations_progress", owner.user),
        ("t", owner.user),
        ("t_id", owner.user),
    ]


ALONE = "-- gate: no-transaction\n"
FAILING = {
    "multi-byte": (ALONE + "SELECT 'é', nowhere;", 2, 13, "42703"),
    "several lines": (
        ALONE + "SELECT 1;\n\n  SELECT\n 'ü',\n  nowhere;",
        6,
        3,
        "42703",
    ),
    "behind settings": (
        *(ALONE + "SET a.b = 'é';\nSET c.d = 1;\nSELECT nowhere;", 4, 8, "42703"),
    ),
    "in a block": (
        *(ALONE + "BEGIN;\nSELECT 1;\nSELECT 1,\n nowhere;\nCOMMIT;", 5, 2, "42703"),
    ),
    "without a position": (ALONE + "SELECT 1;\n  SELECT 1/0;", 3, 3, "22012"),
    "alone": ("SELECT 1;\n CREATE INDEX CONCURRENTLY i ON é (a);", 2, 2, "42P01"),
    "alone, with a position": (ALONE + "VACUUM (FULL,\n  ü);", 3, 3, "42601"),
    "in the data of COPY": (
        "CREATE TABLE u (a integer);\nVACUUM;\nCOPY u FROM stdin;\n1\né\n\\.\n",
        *(5, 1, "22P02"),
    ),
    "in DO": (*(ALONE + "DO $$\nBEGIN\n  PERFORM 1/0;\nEND $$;", 2, 1, "22012"),),
    "at COMMIT": (
        ALONE + "CREATE TABLE u (a integer UNIQUE DEFERRABLE INITIALLY DEFERRED);\n"
        "INSERT INTO u VALUES (1), (1);",
        *(3, 1, "23505"),
    ),
}


@pytest.mark.server
@pytest.mark.parametrize(
    ("script", "line", "column", "sqlstate"), FAILING.values(), ids=FAILING
)
def test_an_error_has_its_place(  # noqa: PLR0913  # a row of the table, by name
    gate: Gate,
    database: Database,
    *,
    script: str,
    line: int,
    column: int,
    sqlstate: str,
) -> None:
    """Line and column count characters of the file."""
    run = gate(database=database, migrations={"001_x.sql": script})

    found = [run.verdict.get(key) for key in ("line", "column", "sqlstate")]
    assert found == [line, column, sqlstate]


def test_only_the_failing_statement_is_tried_again(
    gate: Gate, database: Database
) -> None:
    """Locks that are not free hold up one unit; what ran before it is not repeated."""
    database.execute(TABLE)
    script = (
        ALONE + "INSERT INTO t VALUES (2, 'b');\n"
        "ALTER TABLE t ADD COLUMN more text;\nINSERT INTO t VALUES (3, 'c');\n"
    )
    with open_transaction(database) as foreign:
        process = gate.start(
            database=database,
            migrations={"001_x.sql": script},
            env={"GATE_DDL_LOCK_TIMEOUT": "200ms"},
        )
        retry = process.wait_for("migration.retry_scheduled")
        seen = database.fetch(PROGRESS)
        foreign.rollback()
        run = process.wait()

    assert ended(run) == (0, None)
    assert retry["sqlstate"] in {"55P03", "57014"}
    assert seen == [("001_x.sql", 1, "finished")]
    assert database.fetch("SELECT id FROM t ORDER BY 1") == [(1,), (2,), (3,)]


def test_a_restart_has_the_settings_of_the_file(gate: Gate, database: Database) -> None:
    """SET in all its forms, before units in a transaction and before those alone."""
    owner = database.role("owner", attributes="NOLOGIN")
    database.execute(f"CREATE SCHEMA s AUTHORIZATION {owner.user};")
    script = (
        f"SET SESSION AUTHORIZATION DEFAULT;\nSET ROLE {owner.user};\n"
        "SELECT set_config('search_path', 's', false);\n"
        "SET work_mem = '7MB'; SET maintenance_work_mem = '7MB';\n"
        "SET LOCAL work_mem = '8MB';\n"
        "RESET maintenance_work_mem;\n"
        "CREATE TABLE t AS SELECT current_setting('work_mem') AS work_mem;\n"
        "CREATE INDEX CONCURRENTLY i ON t (work_mem);\n"
        "INSERT INTO t SELECT {};\n"
        "REINDEX INDEX CONCURRENTLY i;\n"
        "INSERT INTO t SELECT current_user || ' ' || current_setting('work_mem') || ' '"
        " || (current_setting('maintenance_work_mem') = '7MB');"
    )
    closed = gate(database=database, migrations={"001_x.sql": script.format("1/0")})
    opened = gate(database=database, migrations={"001_x.sql": script.format("'x'")})

    assert ended(closed) == (1, "migration_failed")
    assert closed.verdict["line"] == 9
    assert "what ran before it stays" in closed.verdict["hint"]
    assert ended(opened) == (0, None)
    assert database.fetch("SELECT work_mem FROM s.t") == [
        *(("7MB",), ("x",), (f"{owner.user} 7MB false",)),
    ]
    assert database.fetch(
        "SELECT relowner::regrole::text FROM pg_class WHERE relname IN ('t', 'i')"
    ) == [(owner.user,), (owner.user,)]


@pytest.mark.server
def test_only_its_own_leftover_is_dropped(gate: Gate, database: Database) -> None:
    """Not an invalid index of another name that came to the table meanwhile."""
    database.execute(TABLE)
    with open_transaction(database) as foreign:
        process = gate.start(database=database, migrations={"001_i.sql": INDEX})
        wait_until_building(database)
        process.kill()
        process.wait()
        foreign.commit()
    database.execute("CREATE INDEX theirs ON t (name)")
    database.execute(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'theirs'::regclass"
    )
    run = gate(database=database, migrations={"001_i.sql": INDEX})

    assert ended(run) == (0, None)
    assert database.fetch(INDEXES) == [("t_id", True), ("theirs", False)]


@pytest.mark.server
def test_a_procedure_that_commits_runs_outside(gate: Gate, database: Database) -> None:
    """It fails in a transaction; what it committed before an error is asked about."""
    database.execute(
        "CREATE TABLE t (id integer, name text);"
        "CREATE PROCEDURE p(stop boolean) LANGUAGE plpgsql AS $$ BEGIN "
        "INSERT INTO t VALUES (1, 'a'); COMMIT; "
        "IF stop THEN RAISE 'stopped'; END IF; END $$"
    )
    inside = gate(database=database, migrations={"001_x.sql": "CALL p(false);"})
    opened = gate(database=database, migrations={"001_x.sql": ALONE + "CALL p(false);"})
    failing = {
        "001_x.sql": ALONE + "CALL p(false);",
        "002_y.sql": ALONE + "CALL p(true)",
    }
    closed = gate(database=database, migrations=failing)
    asked = gate(database=database, migrations=failing)

    assert (inside.exit_code, inside.verdict["sqlstate"]) == (1, "2D000")
    assert "no-transaction" in inside.verdict["hint"]
    assert ended(opened) == (0, None)
    assert ended(closed) == (1, "migration_failed")
    assert "resolve 002_y.sql --applied" in closed.verdict["hint"]
    assert ended(asked) == (1, "unresolved")
    assert database.fetch("SELECT count(*) FROM t") == [(2,)]
