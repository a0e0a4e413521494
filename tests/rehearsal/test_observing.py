"""Questions between statements, where a file is more than one message."""

from __future__ import annotations

import pytest

from migration_gate.rehearsal.alone import IDENTITY, OTHERS
from migration_gate.rehearsal.holding import WAITS, ask_for_tables
from migration_gate.rehearsal.questions import CATALOGUE, question_about, questions
from migration_gate.rehearsal.sizes import SIZES
from migration_gate.statements import split
from tests.commands.test_status import answer
from tests.fix_gate import Gate
from tests.fix_postgres import Database
from tests.own_sql import unqualified
from tests.rehearsal.test_rehearse import BEFORE, FROM, found, statements


pytestmark = pytest.mark.server


def test_statements_alike_in_a_row_are_one_line(gate: Gate, database: Database) -> None:
    """However many messages they take: a dump has a million of them."""
    row = "INSERT INTO public.customers VALUES ({});\n"
    rows = [row.format(f"1000 + {n} /*{'x' * 1000}*/") for n in range(1500)]
    files = {
        "001_before.sql": BEFORE,
        "002_rows.sql": "ALTER TABLE public.customers ADD a int;\n"
        + "".join(rows)
        + "ALTER TABLE public.customers ALTER id TYPE bigint;",
    }
    run = gate("rehearse", "--json", *FROM, database=database, migrations=files)
    lines = list(statements(answer(run)).values())
    assert [(line["command"], line["rows"]) for line in lines[1:-1]] == [
        ("INSERT", line["statements"]) for line in lines[1:-1]
    ]
    assert sum(line["statements"] for line in lines) == 1502
    assert 3 <= len(lines) <= 4
    last = lines[-1]
    assert {finding["name"] for finding in last["findings"]} == {
        "changes-type",
        "rewrites-table",
        "blocks-reads",
    }
    assert [each["lock"] for each in last["relations"]] == ["AccessExclusive"]
    window = lines[0]["relations"][0]["window_ms"]
    assert window > sum(line["duration_ms"] for line in lines)


def test_a_lock_ends_with_the_block_that_took_it(
    gate: Gate, database: Database
) -> None:
    """Of a file with BEGIN and COMMIT of its own, and of one without a transaction."""
    files = {
        "001_before.sql": BEFORE,
        "002_blocks.sql": "BEGIN;\nALTER TABLE public.orders ADD a int;\nCOMMIT;\n"
        "BEGIN;\nSELECT pg_sleep(0.6);\nALTER TABLE public.orders ADD b int;\n"
        "COMMIT;\n",
        "003_units.sql": "-- gate: no-transaction\n"
        "ALTER TABLE public.orders ADD c int;\nSELECT pg_sleep(0.6);\n"
        "ALTER TABLE public.orders ADD d int;",
        "004_one.sql": "ALTER TABLE public.orders ADD e int;\nSELECT pg_sleep(0.6);",
    }
    run = gate("rehearse", "--json", *FROM, database=database, migrations=files)
    assert run.exit_code == 0, run.output
    said = answer(run)
    assert found(said) == {"004:1": {"long-transaction"}}
    lines = statements(said)
    assert lines["004:1"]["relations"][0]["window_ms"] > 600
    assert lines["002:2"]["relations"][0]["window_ms"] < 600


def test_an_attempt_that_is_repeated_is_told_once(
    gate: Gate, database: Database
) -> None:
    """Its locks were not free at first."""
    files = {
        "001_before.sql": BEFORE,
        "002_two.sql": "ALTER TABLE public.customers ADD a int;\n"
        "ALTER TABLE public.orders ADD a int;",
    }
    assert gate(database=database, migrations={"001_before.sql": BEFORE}).exit_code == 0
    with database.connect() as other:
        other.execute("BEGIN; LOCK TABLE public.orders")
        process = gate.start(
            *("rehearse", "--json", "--yes-it-is-disposable"),
            database=database,
            migrations=files,
            env={"GATE_DDL_LOCK_TIMEOUT": "200ms", "GATE_LOG_FORMAT": "json"},
        )
        while "migration.retry_scheduled" not in process.stderr:
            assert process.is_running
        other.execute("ROLLBACK")
    said = answer(process.wait())
    assert list(statements(said)) == ["002:1", "002:2"]
    assert [file["committed"] for file in said["files"]] == [True]


def test_what_one_file_reads_is_not_told_of_the_next(
    gate: Gate, database: Database
) -> None:
    """They share a message, and PostgreSQL's counters go on in it."""
    files = {
        "001_before.sql": BEFORE,
        "002_read.sql": "ALTER TABLE public.orders ADD CHECK (id > 0);",
        "003_add.sql": "ALTER TABLE public.orders ADD b int;",
        "004_read.sql": "ALTER TABLE public.orders ADD CHECK (id > 1) NOT VALID;\n"
        "CREATE CONSTRAINT TRIGGER t AFTER INSERT ON public.customers"
        " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.f();\n"
        "INSERT INTO public.customers VALUES (7777);",
        "005_add.sql": "ALTER TABLE public.orders ADD c int;",
    }
    files["001_before.sql"] += (
        "CREATE FUNCTION public.f() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM count(*) FROM public.orders; RETURN NULL; END';"
    )
    run = gate("rehearse", "--json", *FROM, database=database, migrations=files)
    assert run.exit_code == 0, run.output
    assert found(answer(run)).keys() == {"002:1"}


def test_what_goes_back_to_a_savepoint_is_as_it_was(
    gate: Gate, database: Database
) -> None:
    """What was rewritten in vain does not count as rewritten once more."""
    files = {
        "001_before.sql": BEFORE,
        "002_back.sql": "SAVEPOINT a;\n"
        "ALTER TABLE public.customers ALTER id TYPE bigint;\n"
        "ROLLBACK TO SAVEPOINT a;\n"
        "ALTER TABLE public.customers ADD n int;",
    }
    run = gate("rehearse", "--json", *FROM, database=database, migrations=files)
    assert run.exit_code == 0, run.output
    assert found(answer(run)) == {
        "002:2": {"rewrites-table", "blocks-reads", "changes-type"}
    }


@pytest.mark.parametrize("others", [0, 600])
def test_a_partition_that_is_detached_is_locked_in_the_second_transaction(
    gate: Gate, database: Database, others: int
) -> None:
    """Out of the sight of readers; also where there are too many tables to hold all."""
    if database.server.version < 140000:
        pytest.skip("PostgreSQL 14 and later")
    files = {
        "001_before.sql": "CREATE TABLE public.m (id int) PARTITION BY RANGE (id);"
        'CREATE TABLE public."M 1" PARTITION OF public.m'
        " FOR VALUES FROM (0) TO (100) PARTITION BY RANGE (id);"
        'CREATE TABLE public.m11 PARTITION OF public."M 1"'
        " FOR VALUES FROM (0) TO (50);"
        f"DO $$ BEGIN FOR n IN 1..{others} LOOP"
        " EXECUTE format('CREATE TABLE public.other_%s ()', n); END LOOP; END $$;",
        "002_inner.sql": 'ALTER TABLE public."M 1"'
        " DETACH PARTITION public.m11 CONCURRENTLY;",
        "003_outer.sql": 'ALTER TABLE public.m DETACH PARTITION public."M 1"'
        " CONCURRENTLY;",
    }
    run = gate("rehearse", "--json", *FROM, database=database, migrations=files)
    assert run.exit_code == 0, run.output
    locks = {
        place: {each["relation"]: each["lock"] for each in line["relations"]}
        for place, line in statements(answer(run)).items()
    }
    assert locks == {
        "002:1": {
            "public.M 1": "ShareUpdateExclusive",
            "public.m11": "AccessExclusive",
        },
        "003:1": {
            "public.m": "ShareUpdateExclusive",
            "public.M 1": "AccessExclusive",
        },
    }


def test_a_lock_that_nothing_holds_up_is_not_told_of_a_statement_alone(
    gate: Gate, database: Database
) -> None:
    """The weakest is seen only where it lasts, so no report tells of it."""
    files = {
        "001_before.sql": "CREATE TABLE public.m (id int);"
        "INSERT INTO public.m VALUES (1);"
        "CREATE TABLE public.read (id int);"
        "CREATE FUNCTION public.f(id int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM count(*) FROM public.read; PERFORM pg_sleep(0.1);"
        " RETURN id; END';",
        "002_index.sql": "CREATE INDEX CONCURRENTLY i ON public.m (public.f(id));",
    }
    run = gate("rehearse", "--json", *FROM, database=database, migrations=files)
    assert run.exit_code == 0, run.output
    (line,) = statements(answer(run)).values()
    assert {each["relation"]: each["lock"] for each in line["relations"]} == {
        "public.m": "ShareUpdateExclusive"
    }


def test_relations_are_told_in_one_order(gate: Gate, database: Database) -> None:
    """Two reports of one file differ in nothing but times; PostgreSQL has no order."""
    names = [f"m{number:02}" for number in range(30)]
    files = {
        "001_before.sql": "CREATE TABLE public.m (id int) PARTITION BY LIST (id);"
        + "".join(
            f"CREATE TABLE public.{name} PARTITION OF public.m FOR VALUES IN ({at});"
            for at, name in sorted(enumerate(names), key=lambda each: -each[0] % 7)
        ),
        "002_all.sql": "ALTER TABLE public.m ADD a int;",
        "003_alone.sql": "VACUUM FULL public.m;",
    }
    run = gate("rehearse", "--json", *FROM, database=database, migrations=files)
    lines = statements(answer(run))
    told = {
        place: [each["relation"].removeprefix("public.") for each in line["relations"]]
        for place, line in lines.items()
    }
    assert told == {"002:1": ["m", *names], "003:1": told["003:1"]}
    assert told["003:1"] == sorted(told["003:1"])


def test_rows_that_are_changed_inside_are_told_as_those_outside(
    gate: Gate, database: Database
) -> None:
    """In DO, a function, a string; by counters that go on from file to file."""
    table = "public.customers"
    files = {
        "001_before.sql": BEFORE
        + "CREATE FUNCTION public.f() RETURNS bigint LANGUAGE plpgsql AS"
        " 'BEGIN UPDATE public.orders SET note = 1; RETURN 1; END';"
        "CREATE TABLE public.empty (id int);",
        "002_inside.sql": f"UPDATE {table} SET id = id + 100;\n"
        f"DO $$ BEGIN UPDATE {table} SET id = id + 100; END $$;\n"
        "SELECT public.f();\n"
        f"DO $$ BEGIN EXECUTE 'DELETE FROM {table}'; END $$;\n"
        "DO $$ BEGIN DELETE FROM public.empty; END $$;",
        "003_not.sql": "DO $$ BEGIN UPDATE public.orders SET note = 2"
        " WHERE id = 7; END $$;\nSELECT count(*) FROM public.orders;\n"
        "INSERT INTO public.orders (id) VALUES (7) ON CONFLICT (id)"
        " DO UPDATE SET note = 3;",
        "004_big.sql": "INSERT INTO public.orders (customer)"
        " SELECT g FROM generate_series(1, 10000) g;\n"
        "DO $$ BEGIN UPDATE public.orders SET note = 4 WHERE id > 1000; END $$;",
    }
    run = gate("rehearse", "--json", *FROM, database=database, migrations=files)
    assert run.exit_code == 0, run.output
    said = answer(run)
    places = ["002:1", "002:2", "002:3", "002:4", "002:5", "004:2"]
    assert found(said) == {place: {"changes-many-rows"} for place in places}
    changed = {
        place: {
            each["relation"]: each["rows_changed"]
            for each in line["relations"]
            if each["rows_changed"]
        }
        for place, line in statements(said).items()
    }
    assert changed == {
        "002:1": {table: 10},
        "002:2": {table: 10},
        "002:3": {"public.orders": 1000},
        "002:4": {table: 10},
        "002:5": {},
        "003:1": {"public.orders": 1},
        "003:2": {},
        "003:3": {"public.orders": 1},
        "004:1": {},
        "004:2": {"public.orders": 10000},
    }
    (finding,) = statements(said)["002:3"]["findings"]
    assert finding["detail"] == "1000 rows of it were changed"


def test_nothing_that_is_asked_is_found_by_the_search_path(database: Database) -> None:
    """In the database that is rehearsed on, and in the real one."""
    (detach,) = split(b"ALTER TABLE m DETACH PARTITION m1 CONCURRENTLY")
    has_detached = database.server.version >= 140000
    with database.connect() as conn:
        asked = [text.decode() for text in questions(conn).values()]
        asked += [
            query.as_string(conn)
            for query in (
                *(question_about(1), CATALOGUE, SIZES, OTHERS, IDENTITY),
                WAITS.format(pid=1),
                *ask_for_tables(detach),
                *ask_for_tables(detach, detached_from=has_detached),
            )
        ]
        for text in asked:
            conn.execute(text)
    assert [fault for text in asked for fault in unqualified(text)] == []
