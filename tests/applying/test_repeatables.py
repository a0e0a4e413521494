"""Repeatable migrations: applied again when their text changes, by the newer image."""

from __future__ import annotations

import json

from contextlib import closing

import pytest

from tests.fix_gate import Gate, Run
from tests.fix_postgres import Database
from tests.history_tables import PLAIN, versions, why
from tests.polling import until


ONE = {"1_a.sql": "CREATE TABLE a (n int);"}
VIEW = "DROP VIEW IF EXISTS v; CREATE VIEW v AS SELECT {} AS n;"
LEFT = "history.repeatables_left"


def image(number: int, **others: str) -> dict[str, str]:
    """Return the files of an image whose view shows a number."""
    return {**ONE, "R__v.sql": VIEW.format(number), **others}


def shown(database: Database) -> int:
    """Return the number that the view shows."""
    return int(database.fetch("SELECT n FROM v")[0][0])


def applied(run: Run) -> list[str]:
    """Return what a run that opened has applied."""
    assert run.exit_code == 0, run.stdout
    found: list[str] = run.verdict["applied"]
    return found


def test_it_runs_after_all_numbered_ones_in_order_of_name(
    gate: Gate, database: Database
) -> None:
    """Once, and then no more."""
    files = {
        "R__b.sql": "CREATE OR REPLACE VIEW b AS SELECT * FROM a_view;",
        "R__a_view.sql": "CREATE OR REPLACE VIEW a_view AS SELECT n FROM a;",
        **ONE,
        "9_z.sql": "ALTER TABLE a ADD z int;",
    }
    in_order = ["1_a.sql", "9_z.sql", "R__a_view.sql", "R__b.sql"]
    run = gate(database=database, migrations=files)
    assert applied(run) == in_order
    assert run.all("files.shared_number") == []
    assert versions(database) == in_order
    again = gate(database=database, migrations=files)
    assert applied(again) == []
    assert again.names == [
        *("gate.started", "database.ready", "plan.made", "gate.opened")
    ]


@pytest.mark.server
def test_a_changed_text_is_applied_and_its_row_updated(
    gate: Gate, database: Database
) -> None:
    """In one transaction; the row keeps its id, and says when and how long."""
    query = (
        "SELECT id, checksum, superseded, duration_ms IS NULL, applied_at::text "
        "FROM schema_migrations WHERE version = 'R__v.sql'"
    )
    gate(database=database, migrations=image(1))
    ((number, first, none, *_, first_at),) = database.fetch(query)
    run = gate(database=database, migrations=image(2))
    assert applied(run) == ["R__v.sql"]
    assert run.one("plan.made")["pending"] == ["R__v.sql"]
    assert shown(database) == 2
    ((same, second, superseded, has_no_duration, second_at),) = database.fetch(query)
    assert (number, none, has_no_duration) == (same, None, False)
    assert superseded == f"{first[:23]}@1"
    assert first != second == run.one("migration.started")["checksum"]
    assert first_at < second_at


def test_a_changed_text_that_fails_leaves_the_old_one(
    gate: Gate, database: Database
) -> None:
    """The row too; the next start tries it again."""
    gate(database=database, migrations=image(1))
    before = database.fetch("SELECT * FROM schema_migrations ORDER BY id")
    broken = {**ONE, "R__v.sql": "DROP VIEW v;\nCREATE VIEW v AS SELECT nothing;"}
    for _ in range(2):
        run = gate(database=database, migrations=broken)
        assert (run.exit_code, run.verdict["file"]) == (1, "R__v.sql")
        assert (run.verdict["line"], run.verdict["column"]) == (2, 25)
        assert shown(database) == 1
        assert database.fetch("SELECT * FROM schema_migrations ORDER BY id") == before
    assert applied(gate(database=database, migrations=image(2))) == ["R__v.sql"]


def test_it_shares_a_message_with_others(gate: Gate, database: Database) -> None:
    """Numbered ones before it, changed and new ones beside it: each in its row."""
    gate(database=database, migrations=image(1))
    files = image(2, **{"2_b.sql": "CREATE TABLE b ();", "R__w.sql": "SELECT 1;"})
    assert applied(gate(database=database, migrations=files)) == [
        *("2_b.sql", "R__v.sql", "R__w.sql")
    ]
    assert shown(database) == 2
    assert versions(database) == ["1_a.sql", "2_b.sql", "R__v.sql", "R__w.sql"]


def test_one_that_fails_undoes_none_before_it(gate: Gate, database: Database) -> None:
    """Of the same message; and it is tried again though the numbered one is there."""
    gate(database=database, migrations=image(1))
    files = {"2_b.sql": "CREATE TABLE b ();", "R__v.sql": "SELECT nothing;"}
    run = gate(database=database, migrations={**ONE, **files})
    assert (run.exit_code, run.verdict["applied"]) == (1, ["2_b.sql"])
    assert shown(database) == 1
    mended = {**image(3), "2_b.sql": files["2_b.sql"]}
    assert applied(gate(database=database, migrations=mended)) == ["R__v.sql"]


def test_outside_a_transaction_it_is_applied_again_too(
    gate: Gate, database: Database
) -> None:
    """Each statement once a text; the progress is forgotten."""
    text = "-- gate: no-transaction\nINSERT INTO a VALUES ({0});\nVACUUM a;\n"
    for number in (1, 2):
        files = {**ONE, "R__fill.sql": text.format(number)}
        assert applied(gate(database=database, migrations=files))[-1:] == [
            "R__fill.sql"
        ]
    assert database.fetch("SELECT n FROM a ORDER BY n") == [(1,), (2,)]
    assert database.fetch("SELECT * FROM schema_migrations_progress") == []


def test_one_that_failed_half_way_begins_anew_with_another_text(
    gate: Gate, database: Database
) -> None:
    """What had run is the old text's: an edited one is another."""
    head = "-- gate: no-transaction\n"
    first = f"{head}INSERT INTO a VALUES (1);\nSELECT nothing;\n"
    run = gate(database=database, migrations={**ONE, "R__fill.sql": first})
    assert run.exit_code == 1
    second = f"{head}INSERT INTO a VALUES (2);\nSELECT 1;\n"
    files = {**ONE, "R__fill.sql": second}
    assert applied(gate(database=database, migrations=files)) == ["R__fill.sql"]
    assert database.fetch("SELECT n FROM a ORDER BY n") == [(1,), (2,)]


def test_what_ran_half_is_forgotten_where_another_text_runs_inside(
    gate: Gate, database: Database
) -> None:
    """The old text comes back, and is applied as a whole."""
    first = "-- gate: no-transaction\nINSERT INTO a VALUES (1);\nSELECT {};\n"
    texts = [first.format("nothing"), "INSERT INTO a VALUES (2);", first.format(1)]
    ends = [
        gate(database=database, migrations={**ONE, "R__fill.sql": text}).exit_code
        for text in texts
    ]
    assert ends == [1, 0, 0]
    assert database.fetch("SELECT n FROM a") == [(1,), (2,), (1,)]
    assert database.fetch("SELECT * FROM schema_migrations_progress") == []


def test_a_statement_whose_end_was_not_seen_is_not_forgotten(
    gate: Gate, database: Database
) -> None:
    """Whether the old text was applied, only a person can say."""
    text = "-- gate: no-transaction\nCREATE INDEX CONCURRENTLY late ON a (n);\n"
    gate(database=database, migrations=ONE)
    building = "SELECT FROM pg_stat_progress_create_index"
    with closing(database.connect()) as conn:
        conn.execute("BEGIN; LOCK TABLE a IN ROW EXCLUSIVE MODE")
        started = gate.start(database=database, migrations={**ONE, "R__i.sql": text})
        until(lambda: database.fetch(f"{building} WHERE datname = current_database()"))
        started.kill()
    edited = {**ONE, "R__i.sql": "INSERT INTO a VALUES (2);"}
    run = gate(database=database, migrations=edited)
    assert (run.exit_code, run.verdict["reason"]) == (1, "files")
    assert "would run inside one as a whole" in run.verdict["error_message"]
    assert database.fetch("SELECT n FROM a") == []


def test_two_images_that_restart_in_turn_do_not_flip(
    gate: Gate, database: Database
) -> None:
    """
    The older one leaves the newer text alone, and says so.

    Both have the same numbered files: only the history tells them apart.
    """
    seen = []
    for number in (1, 2, 1, 2, 1, 1, 2):
        run = gate(database=database, migrations=image(number))
        left = [versions for e in run.all(LEFT) for versions in e["versions"]]
        seen.append((number, applied(run)[-1:], left, shown(database)))
    assert seen == [
        (1, ["R__v.sql"], [], 1),
        (2, ["R__v.sql"], [], 2),
        (1, [], ["R__v.sql"], 2),
        (2, [], [], 2),
        (1, [], ["R__v.sql"], 2),
        (1, [], ["R__v.sql"], 2),
        (2, [], [], 2),
    ]
    assert gate(database=database, migrations=image(1)).verdict["warnings"] == [LEFT]
    check = gate("check", database=database, migrations=image(1))
    assert (check.exit_code, check.verdict["warnings"]) == (0, [LEFT])


def test_an_older_text_comes_back_in_an_image_with_a_new_number(
    gate: Gate, database: Database
) -> None:
    """It is newer than all that were here; the one that it replaces is older then."""
    for number in (1, 2):
        gate(database=database, migrations=image(number))
    back = image(1, **{"2_b.sql": "CREATE TABLE b ();"})
    assert applied(gate(database=database, migrations=back)) == ["2_b.sql", "R__v.sql"]
    assert shown(database) == 1
    beside = image(2, **{"2_b.sql": "CREATE TABLE b ();"})
    assert applied(gate(database=database, migrations=beside)) == []
    assert applied(gate(database=database, migrations=image(2))) == []
    assert applied(gate(database=database, migrations=back)) == []
    assert shown(database) == 1


def test_an_older_text_with_another_comment_is_a_new_one(
    gate: Gate, database: Database
) -> None:
    """Which is how one goes back without a numbered file."""
    for number in (1, 2):
        gate(database=database, migrations=image(number))
    back = {**ONE, "R__v.sql": f"-- Back, since …\n{VIEW.format(1)}"}
    assert applied(gate(database=database, migrations=back)) == ["R__v.sql"]
    assert shown(database) == 1
    assert applied(gate(database=database, migrations=image(2))) == []
    assert shown(database) == 1


def test_an_image_that_lacks_numbered_files_leaves_repeatables_alone(
    gate: Gate, database: Database
) -> None:
    """One that it has never applied too: all that it has may be old."""
    newer = {"2_b.sql": "CREATE TABLE b ();"}
    gate(database=database, migrations=image(2, **newer))
    run = gate(
        database=database, migrations={**image(7), "R__w.sql": "CREATE TABLE w ();"}
    )
    assert applied(run) == []
    assert run.one(LEFT)["versions"] == ["R__v.sql", "R__w.sql"]
    assert shown(database) == 2


def test_numbered_files_that_were_taken_out_make_no_image_older(
    gate: Gate, database: Database
) -> None:
    """They come before all that are left."""
    gate(database=database, migrations=image(1, **{"2_b.sql": "CREATE TABLE b ();"}))
    files = {"2_b.sql": "CREATE TABLE b ();", "R__v.sql": VIEW.format(2)}
    assert applied(gate(database=database, migrations=files)) == ["R__v.sql"]


def test_one_that_was_taken_out_is_no_news(gate: Gate, database: Database) -> None:
    """Nor is one that was renamed: the file of the new name runs, as it is new."""
    gate(database=database, migrations=image(1))
    files = {**ONE, "R__views.sql": VIEW.format(2)}
    run = gate(database=database, migrations=files, env={"GATE_AHEAD": "refuse"})
    assert applied(run) == ["R__views.sql"]
    assert run.verdict["warnings"] == []
    older = gate(database=database, migrations=image(1))
    assert applied(older) == []
    assert shown(database) == 2
    answer = gate("status", "--json", database=database, migrations=files)
    lines = [(line["version"], line["state"]) for line in json.loads(answer.stdout)]
    assert lines == [
        ("1_a.sql", "applied"),
        ("R__views.sql", "applied"),
        ("R__v.sql", "unknown"),
    ]


def test_gates_that_start_at_once_apply_a_text_once(
    gate: Gate, database: Database
) -> None:
    """The others wait, look again and find it done."""
    gate(database=database, migrations=image(1))
    text = f"SELECT pg_sleep(0.5); INSERT INTO a VALUES (1); {VIEW.format(2)}"
    files = {**ONE, "R__v.sql": text}
    running = [gate.start(database=database, migrations=files) for _ in range(3)]
    runs = [process.wait() for process in running]
    assert sorted(applied(run) for run in runs) == [[], [], ["R__v.sql"]]
    assert database.fetch("SELECT count(*) FROM a") == [(1,)]


def test_a_row_that_was_changed_meanwhile_is_looked_at_again(
    gate: Gate, database: Database
) -> None:
    """Its text is no more the one that the plan was made for."""
    gate(database=database, migrations=image(1))
    with database.connect() as other:
        other.execute("BEGIN; LOCK TABLE a")
        text = f"LOCK TABLE a; {VIEW.format(2)}"
        process = gate.start(
            database=database, migrations={**ONE, "R__u.sql": text, **image(2)}
        )
        process.wait_for("migration.started")
        other.execute(
            "UPDATE schema_migrations SET checksum = 'sha256:other' "
            "WHERE version = 'R__v.sql'"
        )
        other.execute("COMMIT")
    assert applied(process.wait()) == ["R__u.sql", "R__v.sql"]
    assert shown(database) == 2


def test_a_history_without_checksums_has_each_applied_once(
    gate: Gate, database: Database
) -> None:
    """What was applied is not known there, so that nothing tells of a change."""
    role = database.role("inserter")
    database.execute(
        f"{PLAIN} GRANT SELECT, INSERT ON schema_migrations TO {role.user};"
        f"GRANT USAGE ON SEQUENCE schema_migrations_id_seq TO {role.user};"
        f"GRANT USAGE, CREATE ON SCHEMA public TO {role.user}"
    )
    assert applied(gate(database=role, migrations=image(1))) == [
        *("1_a.sql", "R__v.sql")
    ]
    assert applied(gate(database=role, migrations=image(2))) == []
    assert shown(database) == 1


def test_a_role_that_may_not_update_is_told_before_anything_runs(
    gate: Gate, database: Database
) -> None:
    """The first application needs no UPDATE, and another one does."""
    gate(database=database, migrations=image(1))
    role = database.role("inserter")
    database.execute(
        f"GRANT SELECT, INSERT ON schema_migrations TO {role.user};"
        f"GRANT USAGE ON SEQUENCE schema_migrations_id_seq TO {role.user};"
        f"GRANT USAGE, CREATE ON SCHEMA public TO {role.user}"
    )
    run = gate(
        database=role,
        migrations=image(2, **{"2_b.sql": "CREATE TABLE b ();"}),
    )
    lacking = "lacks SELECT, INSERT, UPDATE"
    table = 'table "public.schema_migrations"'
    assert why(run) == (1, "refused", f"role {role.user} {lacking} on {table}")
    assert run.verdict["applied"] == []


def test_a_table_without_the_column_for_old_texts_is_refused(
    gate: Gate, database: Database
) -> None:
    """The hint is the statement that adds it."""
    gate(database=database, migrations=image(1))
    role = database.role("writer")
    database.execute(
        "ALTER TABLE schema_migrations DROP superseded;"
        f"GRANT ALL ON schema_migrations TO {role.user};"
        f"GRANT USAGE ON SEQUENCE schema_migrations_id_seq TO {role.user}"
    )
    run = gate(database=role, migrations=image(2))
    assert (run.exit_code, run.verdict["reason"]) == (1, "history")
    statement = "ALTER TABLE public.schema_migrations ADD COLUMN superseded text;"
    assert run.verdict["hint"] == f"Let its owner run: {statement}"
    database.execute(statement)
    database.execute(f"GRANT ALL ON SCHEMA public TO {role.user}")
    database.execute(f"ALTER VIEW v OWNER TO {role.user}")
    assert applied(gate(database=role, migrations=image(2))) == ["R__v.sql"]


def test_a_table_of_an_older_gate_gets_the_column(
    gate: Gate, database: Database
) -> None:
    """At the first write, as the other columns."""
    gate(database=database, migrations=image(1))
    database.execute("ALTER TABLE schema_migrations DROP superseded")
    assert applied(gate(database=database, migrations=image(2))) == ["R__v.sql"]
    assert applied(gate(database=database, migrations=image(1))) == []
