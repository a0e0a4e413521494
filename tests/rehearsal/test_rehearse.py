"""The command rehearse: what it tells, what it keeps from, and what it leaves."""

from __future__ import annotations

import json
import signal

from typing import Any, get_args

import pytest

from migration_gate.execution.message import OwnName
from migration_gate.execution.own_failure import DOING
from tests.commands.test_status import answer, log_of
from tests.fix_gate import Gate
from tests.fix_postgres import Database
from tests.polling import until
from tests.sleepers import is_sleeping


BEFORE = (
    "CREATE TABLE public.orders (id bigserial PRIMARY KEY, customer int, note text);"
    "CREATE TABLE public.customers (id int PRIMARY KEY);"
    "INSERT INTO public.customers SELECT generate_series(1, 10);"
    "INSERT INTO public.orders (customer) SELECT 1 + g % 10"
    " FROM generate_series(1, 1000) g;"
)
FILES = {
    "001_before.sql": BEFORE,
    "002_key.sql": "ALTER TABLE public.orders ADD a int;\n"
    "ALTER TABLE public.orders ADD FOREIGN KEY (customer) REFERENCES public.customers;",
    "003_alone.sql": "CREATE INDEX CONCURRENTLY orders_a ON public.orders (a);\n"
    "VACUUM FULL public.orders;",
}
FROM = ("--from", "002")


def statements(said: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the statements of a report by file and line."""
    return {
        f"{file['version'][:3]}:{line['line']}": line
        for file in said["files"]
        for line in file["statements"]
    }


def found(said: dict[str, Any]) -> dict[str, set[str]]:
    """Return the names of what was found, by file and line."""
    return {
        place: {finding["name"] for finding in line["findings"]}
        for place, line in statements(said).items()
        if line["findings"]
    }


@pytest.mark.server
def test_what_each_statement_did_to_what_others_use(
    gate: Gate, database: Database
) -> None:
    """Inside a transaction by its own session, outside by one that watches."""
    run = gate("rehearse", "--json", *FROM, database=database, migrations=FILES)
    assert run.exit_code == 0, run.output
    said = answer(run)
    assert found(said) == {
        "002:1": {"long-transaction"},
        "002:2": {"constraint-validated-at-once", "scans-table", "blocks-writes"},
        "003:2": {"rewrites-table", "blocks-reads"},
    }
    lines = statements(said)
    locks = {
        place: {each["relation"]: each["lock"] for each in line["relations"]}
        for place, line in lines.items()
    }
    assert locks == {
        "002:1": {"public.orders": "AccessExclusive"},
        "002:2": {
            "public.orders": None,
            "public.customers": "ShareRowExclusive",
        },
        "003:1": {"public.orders": "ShareUpdateExclusive"},
        "003:2": {"public.orders": "AccessExclusive"},
    }
    first = lines["002:1"]
    assert first["relations"][0]["window_ms"] > first["duration_ms"] > 0
    assert [line["in_transaction"] for line in lines.values()] == [
        True,
        True,
        False,
        False,
    ]


@pytest.mark.server
def test_what_is_locked_already_is_dropped_all_the_same(
    gate: Gate, database: Database
) -> None:
    """A statement need not take a lock to be told."""
    files = {
        "001_before.sql": BEFORE,
        "002_drop.sql": "ALTER TABLE public.orders ADD a int;\n"
        "ALTER TABLE public.orders DROP note;\n"
        "ALTER TABLE public.orders RENAME customer TO client;\n"
        "DROP TABLE public.orders;",
    }
    run = gate("rehearse", "--json", *FROM, database=database, migrations=files)
    assert found(answer(run)) == {
        "002:2": {"drops-column"},
        "002:3": {"renames"},
        "002:4": {"drops-table"},
    }


@pytest.mark.server
def test_it_leaves_what_migrate_leaves(gate: Gate, database: Database) -> None:
    """The same history; then nothing is pending, and there is nothing to tell."""
    gate("rehearse", database=database, migrations=FILES)
    assert gate("check", database=database, migrations=FILES).exit_code == 0
    again = gate("rehearse", "--json", database=database, migrations=FILES)
    assert (again.exit_code, answer(again)["files"]) == (0, [])


@pytest.mark.server
def test_what_the_same_run_has_made_is_nobodys(gate: Gate, database: Database) -> None:
    """Nobody can wait for a table that is not there before the deployment."""
    run = gate("rehearse", "--json", database=database, migrations=FILES)
    lines = [line for file in answer(run)["files"] for line in file["statements"]]
    assert len(lines) == 8
    assert [line for line in lines if line["findings"] or line["relations"]] == []


@pytest.mark.server
def test_a_database_with_other_clients_is_refused(
    gate: Gate, database: Database
) -> None:
    """Before anything is written, unless a person knows better."""
    with database.connect():
        run = gate("rehearse", database=database, migrations=FILES)
        assert (run.exit_code, log_of(run)[-1]["reason"]) == (1, "rehearsal")
        assert database.fetch("SELECT to_regclass('schema_migrations')") == [(None,)]
        known = gate(
            "rehearse",
            "--yes-it-is-disposable",
            database=database,
            migrations=FILES,
        )
    assert known.exit_code == 0, known.output


def test_a_database_with_other_tenants_is_refused(
    gate: Gate, database: Database
) -> None:
    """One schema of a fleet is no copy because nobody is connected."""
    database.execute("CREATE SCHEMA a; CREATE SCHEMA b")
    fleet = {"GATE_TARGETS": "schemas:SELECT n FROM (VALUES ('a'), ('b')) t (n)"}
    one = fleet | {"GATE_TARGET": "a"}
    files = {"001_a.sql": "CREATE TABLE a (id int);"}
    alone = gate("rehearse", database=database, migrations=files, env=one)
    assert alone.exit_code == 0, alone.output
    gate(database=database, migrations=files, env=fleet)
    files["002_b.sql"] = "CREATE TABLE b (id int);"
    run = gate("rehearse", database=database, migrations=files, env=one)
    assert (run.exit_code, log_of(run)[-1]["reason"]) == (1, "rehearsal")
    assert "another schema with a history" in log_of(run)[-1]["error_message"]
    assert database.fetch("SELECT to_regclass('a.b')") == [(None,)]
    word = ("rehearse", "--yes-it-is-disposable")
    known = gate(*word, database=database, migrations=files, env=one)
    assert known.exit_code == 0, known.output


def test_what_is_refused_closes_and_what_is_accepted_does_not(
    gate: Gate, database: Database
) -> None:
    """Who accepts a cause accepts what follows from it."""
    env = {"GATE_REHEARSE_REFUSE": "blocks-writes,long-transaction"}
    run = gate("rehearse", *FROM, database=database, migrations=FILES, env=env)
    verdict = log_of(run)[-1]
    assert (run.exit_code, verdict["reason"], verdict["version"]) == (
        1,
        "rehearsal",
        "002_key.sql",
    )
    accepted = {
        **FILES,
        "004_key.sql": "-- gate: accept constraint-validated-at-once few rows\n"
        "ALTER TABLE public.orders ADD CHECK (id > 0);",
    }
    env = {"GATE_REHEARSE_REFUSE": "scans-table,blocks-reads"}
    again = gate("rehearse", "--json", database=database, migrations=accepted, env=env)
    assert again.exit_code == 0, again.output
    findings = statements(answer(again))["004:2"]["findings"]
    assert {each["accepted"] for each in findings} == {"few rows"}
    assert len(findings) == 3


def test_a_failure_still_reports_what_was_seen(gate: Gate, database: Database) -> None:
    """The statements before it, of the file that failed too."""
    files = {
        **FILES,
        "004_bad.sql": "ALTER TABLE public.orders DROP COLUMN note;\nSELECT 1 / 0;",
    }
    run = gate("rehearse", "--json", *FROM, database=database, migrations=files)
    said = answer(run)
    assert (run.exit_code, log_of(run)[-1]["reason"]) == (1, "migration_failed")
    assert "004_bad.sql:2" in said["closed"]
    assert [file["committed"] for file in said["files"]] == [True, True, False]
    assert found(said)["004:1"] == {"drops-column"}


def test_what_a_rehearsal_alone_needs_is_told_as_what_it_is(
    gate: Gate, database: Database
) -> None:
    """A third connection, and that a question is answered."""
    role = database.role()
    database.execute(f"GRANT CREATE ON SCHEMA public TO {role.user}")
    database.execute(f"ALTER ROLE {role.user} CONNECTION LIMIT 2")
    files = {
        "001_t.sql": "CREATE TABLE t (id int);",
        "002_i.sql": "CREATE INDEX CONCURRENTLY i ON t (id);",
    }
    env = {"GATE_WAIT_TIMEOUT": "300ms"}
    run = gate("rehearse", "--json", database=role, migrations=files, env=env)
    assert (run.exit_code, log_of(run)[-1]["reason"]) == (1, "unreachable")
    assert "too many connections" in answer(run)["closed"]
    assert set(get_args(OwnName)) == set(DOING)


def test_a_signal_leaves_what_was_found(gate: Gate, database: Database) -> None:
    """What is under way is cancelled; the answers before it have come."""
    files = {
        **FILES,
        "004_slow.sql": "ALTER TABLE public.orders DROP COLUMN note;\n"
        "SELECT pg_sleep(60);",
    }
    # Who looks whether it sleeps is another client.
    options = ("rehearse", "--json", "--yes-it-is-disposable", *FROM)
    process = gate.start(*options, database=database, migrations=files)
    until(lambda: is_sleeping(database), timeout_s=15)
    process.signal(signal.SIGTERM)
    run = process.wait()
    said = answer(run)
    assert (run.exit_code, log_of(run)[-1]["reason"]) == (1, "interrupted")
    assert said["closed"]
    assert found(said)["004:1"] == {"drops-column"}


def test_no_text_of_a_file_is_logged(gate: Gate, database: Database) -> None:
    """Nor shown, but for the reasons that it gives."""
    files = {
        **FILES,
        "004_secret.sql": "-- gate: accept renames as agreed\n"
        "ALTER TABLE public.orders RENAME note TO n;"
        "DO $$ BEGIN PERFORM 'hunter2'; END $$;",
    }
    for form in ("--json", "--markdown", "--yes-it-is-disposable"):
        run = gate("rehearse", form, *FROM, database=database, migrations=files)
        assert run.exit_code == 0
        assert "hunter2" not in run.output
        assert "RENAME" not in run.output
    assert json.dumps(log_of(run)).count("as agreed") == 0
