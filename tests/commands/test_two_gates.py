"""Many gates at once: each migration once, and whatever happens to one of them."""

from __future__ import annotations

import pytest

from tests.fix_gate import Gate
from tests.fix_postgres import Database
from tests.history_tables import versions
from tests.polling import until
from tests.sleepers import end_sleepers, is_sleeping


@pytest.mark.timeout(60)
def test_every_migration_is_applied_once(gate: Gate, database: Database) -> None:
    """By one gate or another; all of them open."""
    database.execute("CREATE TABLE calls (version text)")
    files = {
        f"{number}_x.sql": f"INSERT INTO calls VALUES ('{number}');"
        "SELECT pg_sleep(0.02);"
        for number in range(1, 8)
    }
    processes = [gate.start(database=database, migrations=files) for _ in range(5)]
    runs = [process.wait(50) for process in processes]
    assert [run.exit_code for run in runs] == [0] * 5
    assert database.fetch("SELECT version FROM calls ORDER BY 1") == [
        (str(number),) for number in range(1, 8)
    ]
    applied = [version for run in runs for version in run.verdict["applied"]]
    assert sorted(applied) == sorted(versions(database)) == sorted(files)


def test_a_killed_gate_is_followed_by_the_next(gate: Gate, database: Database) -> None:
    """What was committed is not repeated, what was not is applied."""
    files = {
        "1_a.sql": "CREATE TABLE a ();",
        "2_b.sql": "CREATE TABLE b (); SELECT pg_sleep(60) WHERE current_setting("
        "'my.slow', true) = 'yes';",
    }
    database.execute(f"ALTER DATABASE {database.name} SET my.slow = 'yes'")
    first = gate.start(database=database, migrations=files)
    first.wait_for("migration.started", count=2)
    until(lambda: is_sleeping(database))
    database.execute(f"ALTER DATABASE {database.name} RESET my.slow")
    second = gate.start(database=database, migrations=files)
    second.wait_for("lock.waiting")
    first.kill()
    end_sleepers(database)
    run = second.wait()
    assert run.verdict["applied"] == ["2_b.sql"]
    assert versions(database) == ["1_a.sql", "2_b.sql"]


def test_gates_with_different_files_share_a_history(
    gate: Gate, database: Database
) -> None:
    """An older and a newer image at the same time."""
    files = {f"{number}_x.sql": f"CREATE TABLE t{number} ();" for number in range(1, 5)}
    older = {name: text for name, text in files.items() if name < "3"}
    processes = [
        gate.start(database=database, migrations=shipped)
        for shipped in (older, files) * 2
    ]
    runs = [process.wait() for process in processes]
    assert [run.exit_code for run in runs] == [0] * 4
    assert sorted(versions(database)) == sorted(files)


def test_a_row_that_comes_while_the_gate_applies_is_believed(
    gate: Gate, database: Database
) -> None:
    """Another program, without our lock, was faster: the gate looks again."""
    gate(database=database, migrations={"0_z.sql": "SELECT 1;"})
    with database.connect() as other:
        other.execute("BEGIN")
        other.execute("INSERT INTO schema_migrations (version) VALUES ('1_a.sql')")
        process = gate.start(
            database=database,
            migrations={
                "0_z.sql": "SELECT 1;",
                "1_a.sql": "CREATE TABLE a ();",
                "2_b.sql": "CREATE TABLE b ();",
            },
        )
        process.wait_for("migration.started")
        other.execute("COMMIT")
        run = process.wait()
    assert run.verdict["applied"] == ["2_b.sql"], run.output
    assert database.fetch("SELECT to_regclass('a'), to_regclass('b')::text") == [
        (None, "b")
    ]
