"""The command rollback: the newest migrations are undone, or nothing is."""

from __future__ import annotations

import json

from collections.abc import Mapping
from contextlib import closing

import pytest

from tests.fix_gate import Gate, Run
from tests.fix_pgbouncer import PgBouncers
from tests.fix_postgres import Database
from tests.fix_proxy import Message, Proxy
from tests.polling import until


FILES = {
    "001_a.sql": "CREATE TABLE a (n integer);",
    "001_a.down.sql": "DROP TABLE a;",
    "002_b.sql": "-- migrate:up\nCREATE TABLE b (n integer);\n"
    "-- migrate:down\nDROP TABLE b;\n",
    "003_c.up.sql": "CREATE TABLE c (n integer);",
    "003_c.down.sql": "DROP TABLE c;",
}
INDEX = {
    "001_t.sql": "CREATE TABLE t (n integer);",
    "002_i.sql": "CREATE INDEX CONCURRENTLY i ON t (n);",
    "002_i.down.sql": "DROP INDEX CONCURRENTLY i;",
}


def history(database: Database) -> list[str]:
    """Return the versions in the history."""
    query = "SELECT version FROM schema_migrations ORDER BY 1"
    return [row[0] for row in database.fetch(query)]


def tables(database: Database) -> list[str]:
    """Return the tables and indexes that are not the gate's."""
    query = (
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace "
        "AND relname NOT LIKE 'schema_migrations%' AND relkind IN ('r', 'i') ORDER BY 1"
    )
    return [row[0] for row in database.fetch(query)]


def progress(database: Database) -> list[tuple[str, int, str]]:
    """Return what is known of files that are done in part."""
    return database.fetch(
        "SELECT version, statement, state FROM schema_migrations_progress ORDER BY 1, 2"
    )


def apply(gate: Gate, database: Database, files: Mapping[str, str]) -> None:
    """Apply files."""
    run = gate(database=database, migrations=files)
    assert run.exit_code == 0, run.output


def roll_back(
    gate: Gate,
    database: Database,
    files: Mapping[str, str],
    *arguments: str,
    **settings: str,
) -> tuple[Run, dict[str, object]]:
    """Undo; return the run and its last line, which is on stderr."""
    run = gate(
        "rollback", *arguments, database=database, migrations=files, env=settings
    )
    return run, verdict(run)


def events(run: Run) -> list[dict[str, object]]:
    """Return the events of a command that answers on stdout."""
    return [json.loads(line) for line in run.stderr.splitlines() if line[:1] == "{"]


def verdict(run: Run) -> dict[str, object]:
    """Return the last event of a command that answers on stdout."""
    return events(run)[-1]


@pytest.mark.server
def test_the_newest_migration_is_undone(gate: Gate, database: Database) -> None:
    """One row and what it stands for are gone, the others stay."""
    apply(gate, database, FILES)

    run, last = roll_back(gate, database, FILES)

    assert (run.exit_code, last["undone"], last["applied"]) == (0, ["003_c.up.sql"], [])
    assert history(database) == ["001_a.sql", "002_b.sql"]
    assert tables(database) == ["a", "b"]


def test_all_after_a_migration_are_undone_newest_first(
    gate: Gate, database: Database
) -> None:
    """By files that go back and by parts of files; the named one stays."""
    apply(gate, database, FILES)

    run, last = roll_back(gate, database, FILES, "--to", "1")

    assert last["undone"] == ["003_c.up.sql", "002_b.sql"]
    assert history(database) == ["001_a.sql"]
    assert tables(database) == ["a"]
    undone = [e for e in events(run) if e["event"] == "migration.undone"]
    assert [(e["version"], e["file"]) for e in undone] == [
        ("003_c.up.sql", "003_c.down.sql"),
        ("002_b.sql", "002_b.sql"),
    ]


def test_zero_undoes_everything(gate: Gate, database: Database) -> None:
    """No migration has the number 0, so none stays; and they can be applied again."""
    apply(gate, database, FILES)

    run, _ = roll_back(gate, database, FILES, "--to", "0", "--json")

    assert [line["version"] for line in json.loads(run.stdout)] == [
        "003_c.up.sql",
        "002_b.sql",
        "001_a.sql",
    ]
    assert (history(database), tables(database)) == ([], [])
    apply(gate, database, FILES)
    assert tables(database) == ["a", "b", "c"]


def test_the_newest_is_the_one_that_was_applied_last(
    gate: Gate, database: Database
) -> None:
    """A file that came late leans on those with higher numbers."""
    late = {k: v for k, v in FILES.items() if not k.startswith("002")}
    apply(gate, database, late)
    apply(gate, database, FILES)

    _, last = roll_back(gate, database, FILES, "--to", "003_c")

    assert last["undone"] == ["002_b.sql"]
    assert tables(database) == ["a", "c"]


def test_a_dry_run_undoes_nothing(gate: Gate, database: Database) -> None:
    """It shows what would be undone, in order, and by which files."""
    apply(gate, database, FILES)

    run, last = roll_back(gate, database, FILES, "--to", "0", "--dry-run", "--json")

    assert [(line["version"], line["file"]) for line in json.loads(run.stdout)] == [
        ("003_c.up.sql", "003_c.down.sql"),
        ("002_b.sql", "002_b.sql"),
        ("001_a.sql", "001_a.down.sql"),
    ]
    assert last["message"] == "Gate open: 3 to undo, nothing was undone"
    assert tables(database) == ["a", "b", "c"]
    assert "lock.acquired" not in [event["event"] for event in events(run)]


def test_nothing_is_undone_where_nothing_is_after(
    gate: Gate, database: Database
) -> None:
    """The command can be given again; what reads its answer gets one."""
    apply(gate, database, FILES)

    run, last = roll_back(gate, database, FILES, "--to", "003_c", "--json")

    assert (run.exit_code, last["undone"], json.loads(run.stdout)) == (0, [], [])
    assert "nothing was to undo" in str(last["message"])


REFUSED = {
    "no way back": ({"002_b.sql": "CREATE TABLE b (n integer);"}, "no way back"),
    "empty": (
        {"002_b.sql": "CREATE TABLE b (n integer);", "002_b.down.sql": "-- nothing\n"},
        "way back without a statement",
    ),
    "two": (
        {**FILES, "002_b.down.sql": "DROP TABLE b;"},
        "and 002_b.down.sql undoes it too",
    ),
    "two files": (
        {
            "002_b.sql": "CREATE TABLE b (n integer);",
            "002_b.down.sql": "DROP TABLE b;",
            "002_b.undo.sql": "DROP TABLE b;",
        },
        "undoes the same migration as 002_b.undo.sql",
    ),
    "marked": (
        {
            "002_b.sql": "CREATE TABLE b (n integer);",
            "002_b.down.sql": "-- +goose Up\nDROP TABLE b;",
        },
        "mark of another tool in a file that goes back",
    ),
    "psql": (
        {
            "002_b.sql": "CREATE TABLE b (n integer);",
            "002_b.down.sql": "DROP TABLE b;\n\\gexec\n",
        },
        "002_b.down.sql:2: psql command",
    ),
}


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_nothing_is_undone_where_one_cannot_be(
    gate: Gate, database: Database, case: str
) -> None:
    """The newest could be undone, and stays; a dry run says the same."""
    added, problem = REFUSED[case]
    others = {k: v for k, v in FILES.items() if not k.startswith("002")}
    files = {**others, **added}
    apply(gate, database, files)

    run, last = roll_back(gate, database, files, "--to", "001_a")
    dry, same = roll_back(gate, database, files, "--to", "001_a", "--dry-run")

    assert (run.exit_code, dry.exit_code) == (1, 1)
    assert (last["reason"], last["undone"]) == ("files", [])
    assert problem in str(last["error_message"])
    assert last["hint"]
    assert same["error_message"] == last["error_message"]
    assert history(database) == ["001_a.sql", "002_b.sql", "003_c.up.sql"]
    assert tables(database) == ["a", "b", "c"]


@pytest.mark.server
def test_a_statement_whose_end_nobody_could_tell_is_refused(
    gate: Gate, database: Database
) -> None:
    """It cannot be in a transaction, and the catalogue would not tell its end."""
    files = {
        **FILES,
        "003_c.down.sql": "DROP TABLE c;\nALTER SUBSCRIPTION s ADD PUBLICATION p;",
    }
    apply(gate, database, files)

    run, last = roll_back(gate, database, files)

    assert (run.exit_code, last["reason"], last["line"]) == (1, "files", 2)
    assert "nothing would tell how far it came" in str(last["error_message"])
    assert "resolve 003_c.up.sql --not-applied" in str(last["hint"])
    assert tables(database) == ["a", "b", "c"]


@pytest.mark.server
def test_a_procedure_that_commits_undoes_nothing(
    gate: Gate, database: Database
) -> None:
    """It is not tried outside a transaction, as migrate would."""
    files = {
        "001_p.sql": "CREATE PROCEDURE p() LANGUAGE plpgsql AS 'BEGIN COMMIT; END';",
        "002_b.sql": "CREATE TABLE b (n integer);",
        "002_b.down.sql": "-- gate: no-transaction\nCALL p();",
    }
    apply(gate, database, files)

    run, last = roll_back(gate, database, files)

    assert (run.exit_code, last["sqlstate"]) == (1, "2D000")
    assert history(database) == ["001_p.sql", "002_b.sql"]
    assert progress(database) == []


def test_an_image_without_the_file_undoes_nothing(
    gate: Gate, database: Database
) -> None:
    """The older image does not know what the newer one has done."""
    apply(gate, database, FILES)
    older = {k: v for k, v in FILES.items() if not k.startswith("003")}

    run, last = roll_back(gate, database, older)

    assert (run.exit_code, last["reason"], last["version"]) == (
        1,
        "history",
        "003_c.up.sql",
    )
    assert 'cannot undo "003_c.up.sql": no file here explains it' in str(
        last["message"]
    )
    assert tables(database) == ["a", "b", "c"]


def test_a_changed_file_is_not_undone(gate: Gate, database: Database) -> None:
    """What leads back from it may not lead back from what was applied."""
    apply(gate, database, FILES)
    changed = {**FILES, "003_c.up.sql": "CREATE TABLE d (n integer);"}

    run, last = roll_back(gate, database, changed)
    other, _ = roll_back(gate, database, changed, GATE_CHANGED="warn")

    assert (run.exit_code, last["reason"]) == (1, "history")
    assert "changed after being applied" in str(last["message"])
    assert other.exit_code == 0
    assert tables(database) == ["a", "b"]


def test_one_that_fails_leaves_the_rest_applied(gate: Gate, database: Database) -> None:
    """What is undone stays undone, the rest stays, and the verdict says both."""
    files = {**FILES, "002_b.sql": "CREATE TABLE b (n integer);"}
    files["002_b.down.sql"] = "DROP TABLE b;\nDROP TABLE nowhere;\n"
    apply(gate, database, files)

    run, last = roll_back(gate, database, files, "--to", "0")

    assert run.exit_code == 1
    assert (last["reason"], last["undone"]) == ("migration_failed", ["003_c.up.sql"])
    place = [last[name] for name in ("version", "file", "line", "column", "sqlstate")]
    assert place == ["002_b.sql", "002_b.down.sql", 2, 1, "42P01"]
    assert '"003_c.up.sql" was undone before it and stays undone' in str(
        last["message"]
    )
    assert "the rest stays applied" in str(last["message"])
    assert "rollback" in str(last["hint"])
    assert history(database) == ["001_a.sql", "002_b.sql"]
    assert tables(database) == ["a", "b"]
    assert [line.split()[0] for line in run.stdout.splitlines()] == [
        "UNDONE",
        "003_c.up.sql",
    ]


def test_a_failed_rollback_is_shown_by_status_until_it_succeeds(
    gate: Gate, database: Database
) -> None:
    """Whoever looks afterwards reads why, and that it was a rollback."""
    files = {**FILES, "003_c.down.sql": "DROP TABLE nowhere;"}
    apply(gate, database, files)
    roll_back(gate, database, files)

    failed = gate("status", "--json", database=database, migrations=files)
    mended = {**FILES, "003_c.down.sql": "DROP TABLE c;"}
    roll_back(gate, database, mended)
    after = gate("status", "--json", database=database, migrations=FILES)

    (line,) = [li for li in json.loads(failed.stdout) if li["failure"]]
    assert (line["version"], line["state"]) == ("003_c.up.sql", "applied")
    assert "rollback: " in line["failure"]
    assert [li for li in json.loads(after.stdout) if li["failure"]] == []


@pytest.mark.server
def test_an_index_is_dropped_concurrently(gate: Gate, database: Database) -> None:
    """What PostgreSQL refuses in a transaction goes back outside of one."""
    apply(gate, database, INDEX)

    run, last = roll_back(gate, database, INDEX)

    assert (run.exit_code, last["undone"]) == (0, ["002_i.sql"])
    assert (history(database), tables(database)) == (["001_t.sql"], ["t"])
    assert progress(database) == []


@pytest.mark.server
def test_a_first_statement_that_fails_brings_the_row_back(
    gate: Gate, database: Database
) -> None:
    """Nothing is undone, so the row is what it was, to the last column."""
    files = {**INDEX, "002_i.down.sql": "DROP INDEX CONCURRENTLY nowhere;"}
    apply(gate, database, files)
    before = database.fetch("SELECT * FROM schema_migrations ORDER BY 1")

    run, last = roll_back(gate, database, files)

    assert (run.exit_code, last["reason"]) == (1, "migration_failed")
    assert database.fetch("SELECT * FROM schema_migrations ORDER BY 1") == before
    assert progress(database) == []
    assert gate(database=database, migrations=files).exit_code == 0


HALF = {
    "001_t.sql": "CREATE TABLE t (n integer);",
    "002_i.sql": "CREATE INDEX CONCURRENTLY i ON t (n);\nCREATE TABLE u (n integer);",
    "002_i.down.sql": "SET lock_timeout = '9s';\nDROP INDEX CONCURRENTLY i;\n"
    "DROP TABLE nowhere;",
}


def test_no_gate_opens_on_what_is_half_undone(gate: Gate, database: Database) -> None:
    """It says so, and the command goes on where it was."""
    apply(gate, database, HALF)
    failed, _ = roll_back(gate, database, HALF)

    closed = gate(database=database, migrations=HALF)
    check = gate(
        "check", database=database, migrations=HALF, env={"GATE_WAIT_TIMEOUT": "0s"}
    )
    status = gate("status", "--json", database=database, migrations=HALF)
    mended = {**HALF, "002_i.down.sql": HALF["002_i.down.sql"].replace("nowhere", "u")}
    run, last = roll_back(gate, database, mended)

    assert failed.exit_code == 1
    assert (closed.exit_code, closed.verdict["reason"]) == (1, "unresolved")
    assert "the rollback of" in closed.verdict["message"]
    assert check.exit_code == 1
    assert [li["state"] for li in json.loads(status.stdout)] == [
        "applied",
        "half undone",
    ]
    assert (run.exit_code, last["undone"]) == (0, ["002_i.sql"])
    assert (tables(database), progress(database)) == (["t"], [])
    apply(gate, database, mended)
    assert tables(database) == ["i", "t", "u"]


@pytest.mark.parametrize("word", ["--applied", "--not-applied"])
def test_a_person_says_what_became_of_the_half_undone(
    gate: Gate, database: Database, word: str
) -> None:
    """As a whole: all of it is there again, or none of it any more."""
    apply(gate, database, HALF)
    roll_back(gate, database, HALF)

    run = gate("resolve", "2", word, database=database, migrations=HALF)

    assert run.exit_code == 0, run.output
    assert progress(database) == []
    assert history(database) == ["001_t.sql", "002_i.sql"][: 1 + (word == "--applied")]


def test_a_file_whose_words_were_corrected_is_known_by_both_names(
    gate: Gate, database: Database
) -> None:
    """And by its number, where only that counts, also while it is half undone."""
    named = {
        "V1__t.sql": HALF["001_t.sql"],
        "V2__i.sql": HALF["002_i.sql"],
        "U2__i.sql": HALF["002_i.down.sql"],
    }
    apply(gate, database, named)
    files = {
        "V1__table.sql": named["V1__t.sql"],
        "V2__index.sql": named["V2__i.sql"],
        "U2__index.sql": named["U2__i.sql"],
    }
    for word in ("V1__t", "V1__table.sql", "1"):
        run, _ = roll_back(gate, database, files, "--to", word, "--dry-run", "--json")
        assert [each["version"] for each in json.loads(run.stdout)] == ["V2__index.sql"]
    failed, _ = roll_back(gate, database, files)
    closed = gate(database=database, migrations=files)
    assert (failed.exit_code, closed.verdict["reason"]) == (1, "unresolved")
    for word in ("V2__index", "V1__table"):
        said = ("resolve", word, "--not-applied")
        assert gate(*said, database=database, migrations=files).exit_code == 0
    assert (history(database), progress(database)) == ([], [])


GOOSE = """
CREATE TABLE goose_db_version (id serial PRIMARY KEY, version_id bigint NOT NULL,
    is_applied boolean NOT NULL, tstamp timestamp DEFAULT now());
INSERT INTO goose_db_version (version_id, is_applied)
SELECT n, true FROM generate_series(0, 2) n;
CREATE TABLE a (n integer); CREATE TABLE b (n integer);
"""


def test_what_another_tool_has_applied_is_undone(
    gate: Gate, database: Database
) -> None:
    """Once its history was taken over, by the files' own parts; its table stays."""
    database.execute(GOOSE)
    up_and_down = (
        "-- +goose Up\nCREATE TABLE {0} ();\n-- +goose Down\nDROP TABLE {0};\n"
    )
    files = {
        "00001_a.sql": up_and_down.format("a"),
        "00002_b.sql": up_and_down.format("b"),
    }
    adopt = {"GATE_ADOPT": "goose"}
    gate(database=database, migrations=files, env=adopt)

    run, last = roll_back(gate, database, files, **adopt)
    again = gate(database=database, migrations=files, env=adopt)

    assert (run.exit_code, last["undone"]) == (0, ["00002_b.sql"])
    assert database.fetch("SELECT count(*) FROM goose_db_version") == [(3,)]
    assert again.verdict["applied"] == ["00002_b.sql"]
    assert again.one("history.other_tool")["versions"] == ["00002_b.sql"]


def test_a_way_back_must_not_write_the_history(gate: Gate, database: Database) -> None:
    """Its own row goes with it; another one is not its to take."""
    files = {**FILES, "003_c.down.sql": "DROP TABLE c; DELETE FROM schema_migrations;"}
    apply(gate, database, files)

    run, last = roll_back(gate, database, files)
    own = "DROP TABLE c; DELETE FROM schema_migrations WHERE version LIKE '003%';"
    other, _ = roll_back(gate, database, {**FILES, "003_c.down.sql": own})

    assert (run.exit_code, last["reason"]) == (1, "history")
    assert "writes rows of it" in str(last["message"])
    assert other.exit_code == 0, other.output
    assert history(database) == ["001_a.sql", "002_b.sql"]


def test_the_next_image_brings_its_own_view(gate: Gate, database: Database) -> None:
    """The newer text may lean on what is undone, and was dropped on the way back."""
    table = {"001_t.sql": "CREATE TABLE t (n integer);"}
    older = {**table, "R__v.sql": "CREATE OR REPLACE VIEW v AS SELECT n FROM t;"}
    newer = {
        **table,
        "002_m.sql": "ALTER TABLE t ADD m integer;",
        "002_m.down.sql": "DROP VIEW v; ALTER TABLE t DROP m;",
        "R__v.sql": "CREATE OR REPLACE VIEW v AS SELECT n, m FROM t;",
    }
    apply(gate, database, older)
    apply(gate, database, newer)

    run, last = roll_back(gate, database, newer)
    again = gate(database=database, migrations=older)

    assert (run.exit_code, last["undone"]) == (0, ["002_m.sql"])
    assert again.verdict["applied"] == ["R__v.sql"]
    assert database.fetch("SELECT * FROM v") == []


def test_a_failed_rollback_keeps_the_rows_of_repeatable_ones(
    gate: Gate, database: Database
) -> None:
    """They went with the first statement, and come back with the row."""
    files = {**INDEX, "002_i.down.sql": "DROP INDEX CONCURRENTLY nowhere;"}
    files["R__v.sql"] = "CREATE OR REPLACE VIEW v AS SELECT n FROM t;"
    apply(gate, database, files)
    before = database.fetch("SELECT * FROM schema_migrations ORDER BY 1")

    run, _ = roll_back(gate, database, files)

    assert run.exit_code == 1
    assert database.fetch("SELECT * FROM schema_migrations ORDER BY 1") == before


def test_migrate_runs_nothing_that_goes_back(gate: Gate, database: Database) -> None:
    """Also not when it starts after a rollback: it applies again."""
    apply(gate, database, FILES)
    roll_back(gate, database, FILES)

    run = gate(database=database, migrations=FILES)

    assert run.verdict["applied"] == ["003_c.up.sql"]
    assert "undone" not in run.verdict
    assert tables(database) == ["a", "b", "c"]


def test_a_lost_answer_is_asked_of_the_history(
    gate: Gate, database: Database, proxy: Proxy
) -> None:
    """The row is gone: it is undone, and none after it is taken in its place."""
    apply(gate, database, FILES)

    def is_commit(message: Message) -> bool:
        return message.type == "C" and message.payload.startswith(b"COMMIT")

    proxy.when(is_commit, proxy.cut)
    run, last = roll_back(gate, proxy.through(database), FILES)

    assert (run.exit_code, last["undone"]) == (0, ["003_c.up.sql"])
    assert history(database) == ["001_a.sql", "002_b.sql"]
    assert tables(database) == ["a", "b"]


def test_what_was_applied_meanwhile_is_not_undone(
    gate: Gate, database: Database
) -> None:
    """The newest is another one than before the wait: a person looks again."""
    apply(gate, database, FILES)
    more = {
        **FILES,
        "004_d.sql": "ALTER TABLE a ADD m integer; CREATE TABLE d (n integer);",
        "004_d.down.sql": "DROP TABLE d;",
    }
    patient = {"GATE_DDL_LOCK_TIMEOUT": "60s"}
    with closing(database.connect()) as conn:
        conn.execute("BEGIN; LOCK TABLE a")
        migrating = gate.start(database=database, migrations=more, env=patient)
        migrating.wait_for("migration.started")
        rolling = gate.start("rollback", database=database, migrations=more)
        until(lambda: "rollback.planned" in rolling.stderr)

    last = verdict(rolling.wait())

    assert migrating.wait().exit_code == 0
    assert (last["exit_code"], last["reason"]) == (1, "history")
    assert "the history changed while this command waited" in str(last["message"])
    assert tables(database) == ["a", "b", "c", "d"]


def test_gates_wait_while_a_rollback_runs(gate: Gate, database: Database) -> None:
    """One that starts in between waits for its end, and applies again what is gone."""
    files = {**FILES, "003_c.down.sql": "DROP TABLE c; SELECT pg_sleep(1.5);"}
    apply(gate, database, files)
    more = {**files, "004_d.sql": "CREATE TABLE d (n integer);"}
    rolling = gate.start("rollback", database=database, migrations=files)
    wait_for_sleep(database)

    migrating = gate(database=database, migrations=more)

    assert rolling.wait().exit_code == 0
    assert migrating.verdict["applied"] == ["003_c.up.sql", "004_d.sql"]
    assert tables(database) == ["a", "b", "c", "d"]


def wait_for_sleep(database: Database) -> None:
    """Wait until a statement of a rollback sleeps."""
    query = (
        "SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep' "
        "AND datname = current_database()"
    )
    with closing(database.connect()) as conn:
        until(lambda: conn.execute(query).fetchone() is not None)


def test_a_rollback_goes_through_a_pooler(
    gate: Gate, database: Database, pgbouncer: PgBouncers
) -> None:
    """Each migration commits with the removal of its row."""
    apply(gate, database, FILES)
    pooled = pgbouncer("transaction", database).through(database)

    run, last = roll_back(gate, pooled, FILES, "--to", "0")

    assert (run.exit_code, len(list(last["undone"]))) == (0, 3), run.output  # type: ignore[call-overload]  # JSON
    assert (history(database), tables(database)) == ([], [])


@pytest.mark.server
def test_a_role_without_the_right_is_told_the_grant(
    gate: Gate, database: Database
) -> None:
    """To take a row out needs DELETE."""
    apply(gate, database, {**FILES, "003_c.down.sql": "SELECT 1;"})
    role = database.role("ops")
    database.execute(
        f"GRANT SELECT, INSERT, UPDATE ON schema_migrations TO {role.user}"
    )

    run, last = roll_back(gate, role, {**FILES, "003_c.down.sql": "SELECT 1;"})

    assert (run.exit_code, last["reason"]) == (1, "refused")
    assert "DELETE" in str(last["hint"])
    assert len(history(database)) == 3


def test_a_file_that_was_renamed_keeps_no_other_from_being_undone(
    gate: Gate, database: Database
) -> None:
    """It is refused where it would run once more, and here nothing is applied."""
    files = {
        "1_b.sql": "CREATE TABLE b ();",
        "2_x.sql": "CREATE TABLE x ();",
        "2_x.down.sql": "DROP TABLE x;",
    }
    assert gate(database=database, migrations=files).exit_code == 0
    files["1_c.sql"] = files.pop("1_b.sql")
    run = gate("rollback", database=database, migrations=files)
    assert run.exit_code == 0, run.output
    assert history(database) == ["1_b.sql"]
