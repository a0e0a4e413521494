"""The migrations folder: what is read, and every fault of it at once."""

from __future__ import annotations

import json
import os

from pathlib import Path

import pytest

from migration_gate.files.folder import check_texts, read_folder, read_scripts
from migration_gate.files.migration import Migration, checksum
from migration_gate.report.errors import MigrationFilesError
from migration_gate.settings.settings import HistoryTableName
from tests.fix_gate import Gate, write_migrations
from tests.fix_postgres import Database


HISTORY = HistoryTableName(schema=None, table="schema_migrations")


def versions(folder: Path) -> list[str]:
    """Return the migrations that are read."""
    return [each.version for each in read_folder(folder, allow_empty=True)]


def faults(folder: Path, *, allow_empty: bool = False) -> list[str]:
    """Return what is wrong with a folder."""
    with pytest.raises(MigrationFilesError) as caught:
        read_folder(folder, allow_empty=allow_empty)
    return [str(fault) for fault in caught.value.faults]


def test_migrations_are_read_in_order(tmp_path: Path) -> None:
    """Version, number, key and checksum of each; a down file is none."""
    write_migrations(
        tmp_path,
        {"10_c.sql": "3", "9_b.up.sql": "2", "9_b.down.sql": "-2", "1_a.sql": "1"},
    )
    assert read_folder(tmp_path, allow_empty=False) == (
        Migration(version="1_a.sql", number=(1,), key="1_a", checksum=checksum(b"1")),
        Migration(
            version="9_b.up.sql", number=(9,), key="9_b", checksum=checksum(b"2")
        ),
        Migration(
            version="10_c.sql", number=(10,), key="10_c", checksum=checksum(b"3")
        ),
    )


def test_what_is_no_migration_is_ignored(tmp_path: Path) -> None:
    """Companions, names that begin with . or _, and folders without SQL."""
    write_migrations(
        tmp_path,
        {
            "1_a.sql": "",
            "README.md": "",
            "atlas.sum": "",
            ".hidden.sql": "",
            "_draft.sql": "",
            "2_b.sql.swp": "",
        },
    )
    write_migrations(tmp_path / "meta", {"0_snapshot.json": ""})
    write_migrations(tmp_path / "..data", {"9_x.sql": ""})
    write_migrations(tmp_path / "_old", {"9_x.sql": ""})
    (tmp_path / "4_folder.sql").mkdir()
    assert versions(tmp_path) == ["1_a.sql"]


def test_nothing_that_could_be_meant_is_passed_over(tmp_path: Path) -> None:
    """Each with its name, also where an empty folder is allowed."""
    write_migrations(
        tmp_path,
        {
            "001_a.sql": "",
            "003_C.SQL": "",
            "004_d.sql.gz": "",
            "005_e.psql": "",
            "006_f.go": "",
            "007_g.mysql.sql": "",
            "008_h_test.go": "",
        },
    )
    write_migrations(tmp_path / "2026" / "q1", {"009_i.SQL": "", "seed.sql": ""})
    write_migrations(tmp_path / "sqlite", {"001_a.sql": "", "README.md": ""})
    expected = [
        '003_C.SQL: name does not end in ".sql"',
        "004_d.sql.gz: compressed, and only plain SQL is read",
        '005_e.psql: name does not end in ".sql"',
        "007_g.mysql.sql: migration for another database (mysql)",
        '2026/q1/009_i.SQL: name does not end in ".sql"',
        "2026/q1/seed.sql: name is not of the form NUMBER_words.sql",
        "sqlite/001_a.sql: migration for another database (sqlite)",
        "006_f.go: migration in Go, and only SQL is read",
    ]

    assert faults(tmp_path) == expected
    assert faults(tmp_path, allow_empty=True) == expected
    (tmp_path / "001_a.sql").unlink()
    assert faults(tmp_path, allow_empty=True) == expected


def test_folders_below_are_read(tmp_path: Path) -> None:
    """The history knows a file by its name alone, so it may be moved."""
    write_migrations(tmp_path, {"002_b.sql": "2"})
    write_migrations(tmp_path / "old" / "2025", {"001_a.sql": "1"})
    (tmp_path / "old" / "again").symlink_to(tmp_path)
    first, second = read_folder(tmp_path, allow_empty=False)

    assert (first.version, first.file) == ("001_a.sql", "old/2025/001_a.sql")
    assert (second.version, second.file) == ("002_b.sql", "002_b.sql")
    write_migrations(tmp_path / "new", {"001_a.sql": "1"})
    assert faults(tmp_path) == [
        'old/2025/001_a.sql: the same migration as "new/001_a.sql" in another folder'
    ]


def test_a_folder_may_be_a_migration(tmp_path: Path) -> None:
    """As Prisma, diesel, Hasura and Drizzle have them, whatever its name ends in."""
    write_migrations(
        tmp_path / "20230404095503_init", {"migration.sql": "1", "snapshot.json": ""}
    )
    write_migrations(
        tmp_path / "2019-02-26-002946_scale_down", {"up.sql": "2", "down.sql": "-2"}
    )
    write_migrations(tmp_path, {"migration_lock.toml": "", "1_a.sql": "0"})
    read = read_folder(tmp_path, allow_empty=False)

    assert [(each.version, each.file, each.number) for each in read] == [
        ("1_a.sql", "1_a.sql", (1,)),
        (
            "2019-02-26-002946_scale_down",
            "2019-02-26-002946_scale_down/up.sql",
            (20190226002946,),
        ),
        (
            "20230404095503_init",
            "20230404095503_init/migration.sql",
            (20230404095503,),
        ),
    ]


def test_what_stands_beside_a_folders_migration_is_a_fault(tmp_path: Path) -> None:
    """It would be passed over; so would one migration in two forms."""
    write_migrations(tmp_path / "001_a", {"up.sql": "", "seed.sql": "", "2_b.sql": ""})
    write_migrations(tmp_path / "002_b", {"up.sql": "", "migration.sql": ""})
    write_migrations(tmp_path / "003_c", {"up.sql": ""})
    write_migrations(tmp_path, {"003_c.sql": ""})
    write_migrations(tmp_path / "words", {"up.sql": ""})
    beside = "in the folder of a migration, beside its up.sql"

    assert faults(tmp_path) == [
        f"001_a/2_b.sql: {beside}",
        f"001_a/seed.sql: {beside}",
        f"002_b/migration.sql: {beside}",
        "words/up.sql: name is not of the form NUMBER_words.sql",
        '003_c/up.sql: the same migration as "003_c.sql" in another spelling',
    ]


def test_a_folder_of_ways_back_holds_no_migration(tmp_path: Path) -> None:
    """Known by their numbers, whatever their words."""
    write_migrations(tmp_path / "up", {"001_a.sql": ""})
    write_migrations(tmp_path / "down", {"001_drop_a.sql": ""})
    assert versions(tmp_path) == ["001_a.sql"]
    write_migrations(tmp_path / "Rollbacks", {"002_b.sql": ""})
    assert faults(tmp_path) == [
        "Rollbacks/002_b.sql: way back of a migration that is not there, by its name"
    ]


@pytest.mark.parametrize(
    ("text", "is_outside"),
    [
        ("run_in_transaction = false", True),
        ("run_in_transaction = true", False),
        ("", True),
    ],
)
def test_diesels_metadata_says_how_a_migration_runs(
    tmp_path: Path, text: str, *, is_outside: bool
) -> None:
    """A file without the key means no transaction."""
    write_migrations(tmp_path / "001_a", {"up.sql": "SELECT 1;", "metadata.toml": text})
    (migration,) = read_folder(tmp_path, allow_empty=False)
    (script,) = read_scripts(tmp_path, [migration], HISTORY)
    assert (migration.is_outside, script.in_transaction) == (is_outside, not is_outside)


def journal(*tags: str) -> str:
    """Return a journal as drizzle-kit writes it."""
    entries = [{"idx": idx, "when": 1, "tag": tag} for idx, tag in enumerate(tags)]
    return json.dumps({"version": "7", "dialect": "postgresql", "entries": entries})


def test_drizzles_journal_must_name_the_same_files_and_says_their_order(
    tmp_path: Path,
) -> None:
    """Drizzle goes by it, and by nothing else; a branch that was merged turns names."""
    write_migrations(tmp_path, {"0000_b.sql": "", "0001_a.sql": ""})
    path = tmp_path / "meta" / "_journal.json"
    write_migrations(path.parent, {path.name: journal("0000_b", "0001_a")})
    assert versions(tmp_path) == ["0000_b.sql", "0001_a.sql"]
    path.write_text(journal("0001_a", "0000_b"))
    assert versions(tmp_path) == ["0001_a.sql", "0000_b.sql"]
    path.write_text(journal("0000_b", "0002_c"))
    assert faults(tmp_path) == [
        "0001_a.sql: not in Drizzle's journal, so Drizzle leaves it out",
        "0002_c.sql: in Drizzle's journal, and not in the folder",
    ]
    path.write_text(journal("0000_b", "0001_a", "0001_a"))
    assert faults(tmp_path) == ["0001_a.sql: named twice in Drizzle's journal"]
    path.write_text("{}")
    assert faults(tmp_path) == [
        "meta/_journal.json: cannot be read as Drizzle's journal"
    ]


def test_flyways_conf_says_how_a_migration_runs(tmp_path: Path) -> None:
    """One key is known; one for no file, and what cannot be read, are faults."""
    write_migrations(
        tmp_path,
        {
            "V1__a.sql": "SELECT 1;",
            "V1__a.sql.conf": "# x\n\nexecuteInTransaction=false\n",
            "V2__b.sql": "SELECT 1;",
            "V2__b.sql.conf": "executeInTransaction = true",
        },
    )
    read = read_folder(tmp_path, allow_empty=False)
    assert [each.is_outside for each in read] == [True, False]
    write_migrations(
        tmp_path,
        {
            "V2__b.sql.conf": "shouldExecute=false",
            "V3__c.sql.conf": "",
            "V4__d.sql": "",
            "V4__d.sql.conf": b"\xff",
        },
    )
    write_migrations(tmp_path / "5_e", {"up.sql": "", "metadata.toml": "x ="})
    write_migrations(tmp_path / "6_f", {"up.sql": "", "up.sql.conf": ""})
    assert faults(tmp_path) == [
        "5_e/up.sql: its metadata.toml cannot be read",
        "6_f/up.sql.conf: in the folder of a migration, beside its up.sql",
        "V2__b.sql: its .conf has a setting that the gate does not know",
        "V3__c.sql.conf: settings of Flyway's for one file, which are not read",
        "V4__d.sql: its .conf cannot be read",
    ]


def test_a_folders_migration_is_applied_with_its_place(
    gate: Gate, database: Database, tmp_path: Path
) -> None:
    """The history has the folder's name; an error has the file's path."""
    folder = tmp_path / "files"
    write_migrations(folder / "001_a", {"up.sql": "CREATE TABLE a ();"})
    write_migrations(folder / "002_b", {"migration.sql": "\nSELECT 1/0;"})
    run = gate(database=database, migrations=folder)

    assert (run.verdict["version"], run.verdict["file"], run.verdict["line"]) == (
        "002_b",
        "002_b/migration.sql",
        2,
    )
    assert database.fetch("SELECT version FROM schema_migrations") == [("001_a",)]


def test_a_folder_of_code_alone_is_no_folder_of_migrations(tmp_path: Path) -> None:
    """Django's or Alembic's, by its language."""
    write_migrations(tmp_path, {"0001_initial.py": "", "__init__.py": ""})

    assert faults(tmp_path) == [
        f"{tmp_path}: no migration in the folder",
        "0001_initial.py: migration in Python, and only SQL is read",
    ]
    assert versions(tmp_path) == []


def test_a_way_back_is_no_migration(tmp_path: Path) -> None:
    """By its number and its words; golang-migrate's by its number alone."""
    write_migrations(
        tmp_path,
        {
            "001_a.sql": "",
            "001_a_down.sql": "",
            "001_a.undo.sql": "",
            "002_b_up.sql": "",
            "002_b_down.sql": "",
            "003_c.up.sql": "",
            "003_other.down.sql": "",
            "20260101_01_Xk3aB-a.sql": "",
            "20260101_01_Xk3aB-a.rollback.sql": "",
            "V1.0__x.sql": "",
            "U1__y.sql": "",
        },
    )
    assert versions(tmp_path) == [
        "001_a.sql",
        "V1.0__x.sql",
        "002_b_up.sql",
        "003_c.up.sql",
        "20260101_01_Xk3aB-a.sql",
    ]


def test_a_way_back_without_its_migration_is_a_fault(tmp_path: Path) -> None:
    """It may be a migration with an unlucky name, and may not."""
    write_migrations(
        tmp_path,
        {
            "001_a.up.sql": "",
            "001_b_down.sql": "",
            "002_scale_down.sql": "",
            "003_c.down.sql": "",
            "U4__d.sql": "",
        },
    )
    problem = "way back of a migration that is not there, by its name"
    names = ["001_b_down.sql", "002_scale_down.sql", "003_c.down.sql", "U4__d.sql"]

    assert faults(tmp_path) == [f"{name}: {problem}" for name in names]
    (tmp_path / "001_a.up.sql").unlink()
    assert faults(tmp_path, allow_empty=True) == [f"{n}: {problem}" for n in names]


def test_a_file_for_postgresql_alone_is_the_same_migration(tmp_path: Path) -> None:
    """As its own form beside one for all databases."""
    write_migrations(
        tmp_path, {"1_a.up.sql": "", "1_a.postgres.up.sql": "", "2_b.pg.sql": ""}
    )
    assert faults(tmp_path) == [
        '1_a.postgres.up.sql: the same migration as "1_a.up.sql" in another spelling'
    ]


def test_a_thousand_equal_faults_are_one_sentence(tmp_path: Path) -> None:
    """With the first names and a count."""
    write_migrations(tmp_path, {f"x{number:04}.sql": "" for number in range(1000)})
    with pytest.raises(MigrationFilesError) as caught:
        read_folder(tmp_path, allow_empty=False)

    assert str(caught.value) == (
        "x0000.sql, x0001.sql, x0002.sql, x0003.sql, x0004.sql and 995 more: "
        "name is not of the form NUMBER_words.sql"
    )


def test_a_config_map_is_read_through_its_links(tmp_path: Path) -> None:
    """Kubernetes mounts files as links to ..data, and that as a link to a folder."""
    stamp = "..2026_11_23_09_00_00.1234"
    write_migrations(tmp_path / stamp, {"1_a.sql": "SELECT 1;", "2_b.sql": ""})
    (tmp_path / "..data").symlink_to(stamp)
    for name in ("1_a.sql", "2_b.sql"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    assert versions(tmp_path) == ["1_a.sql", "2_b.sql"]
    assert read_folder(tmp_path, allow_empty=False)[0].checksum == checksum(
        b"SELECT 1;"
    )


def test_every_fault_is_reported_at_once(tmp_path: Path) -> None:
    """Names of another form, one migration twice, and a file that cannot be read."""
    write_migrations(
        tmp_path,
        {
            "init.sql": "",
            "7_x.sql": "",
            "7_x.up.sql": "",
            "v2_b.sql": "",
        },
    )
    (tmp_path / "9_gone.sql").symlink_to("nowhere.sql")
    assert faults(tmp_path) == [
        "init.sql: name is not of the form NUMBER_words.sql",
        "v2_b.sql: name is not of the form NUMBER_words.sql",
        '7_x.up.sql: the same migration as "7_x.sql" in another spelling',
        "9_gone.sql: cannot read the file: no such file or directory",
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_the_right_to_read_is_a_fault(tmp_path: Path) -> None:
    """As for the image's user and a file of mode 600."""
    write_migrations(tmp_path, {"1_a.sql": ""})
    (tmp_path / "1_a.sql").chmod(0)
    assert faults(tmp_path) == ["1_a.sql: cannot read the file: permission denied"]


def test_a_name_that_is_not_utf8_is_a_fault(tmp_path: Path) -> None:
    """It is shown with a mark where it cannot be."""
    (tmp_path / os.fsdecode(b"1_caf\xe9.sql")).touch()
    assert faults(tmp_path) == ["1_caf?.sql: name is not of the form NUMBER_words.sql"]


def test_a_folder_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    """So is a file in its place."""
    absent = tmp_path / "absent"
    assert faults(absent) == [
        f"{absent}: cannot read the folder: no such file or directory"
    ]
    absent.touch()
    assert faults(absent, allow_empty=True) == [
        f"{absent}: cannot read the folder: not a directory"
    ]


def test_an_empty_folder_is_a_fault_unless_allowed(tmp_path: Path) -> None:
    """Most often a wrong mount."""
    assert faults(tmp_path) == [f"{tmp_path}: no migration in the folder"]
    assert read_folder(tmp_path, allow_empty=True) == ()


def test_texts_are_checked_without_a_database(tmp_path: Path) -> None:
    """Encoding and directives, all files at once."""
    write_migrations(
        tmp_path,
        {
            "1_a.sql": "SELECT 1;",
            "2_b.sql": "SELECT 1;\nSELECT 'é';".encode("latin-1"),
            "3_c.sql": "SELECT 1;".encode("utf-16"),
            "4_d.sql": "-- one\n\n-- gate: fast\nSELECT 1;",
            "5_e.sql": b"SELECT 1;\nSELECT '\0';",
        },
    )
    migrations = read_folder(tmp_path, allow_empty=False)
    with pytest.raises(MigrationFilesError) as caught:
        check_texts(tmp_path, migrations)
    assert [str(fault) for fault in caught.value.faults] == [
        "2_b.sql:2: text is not UTF-8",
        "3_c.sql: text is UTF-16",
        "4_d.sql:3: unknown directive",
        "5_e.sql:2: text has a NUL byte",
    ]


def test_a_file_that_goes_or_changes_meanwhile_is_a_fault(tmp_path: Path) -> None:
    """What is applied is what was judged."""
    write_migrations(tmp_path, {"1_a.sql": "1", "2_b.sql": "2"})
    migrations = read_folder(tmp_path, allow_empty=False)
    (tmp_path / "1_a.sql").unlink()
    (tmp_path / "2_b.sql").write_text("SELECT 2;")
    with pytest.raises(MigrationFilesError) as caught:
        read_scripts(tmp_path, migrations, HISTORY)
    assert [str(fault) for fault in caught.value.faults] == [
        "1_a.sql: cannot read the file: no such file or directory",
        "2_b.sql: changed while the gate was running",
    ]
    with pytest.raises(MigrationFilesError, match=r"1_a\.sql: cannot read the file"):
        check_texts(tmp_path, migrations)


def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    """A pipe that nobody writes, a device without end, a link to itself."""
    os.mkfifo(tmp_path / "1_pipe.sql")
    (tmp_path / "2_zero.sql").symlink_to("/dev/zero")
    (tmp_path / "3_circle.sql").symlink_to("3_circle.sql")
    assert faults(tmp_path) == [
        "1_pipe.sql: cannot read the file: not a regular file",
        "2_zero.sql: cannot read the file: not a regular file",
        "3_circle.sql: cannot read the file: too many levels of symbolic links",
    ]
