"""File names: their form, number, kind, order and spellings."""

from __future__ import annotations

import hashlib
import random

import pytest

from hypothesis import assume, given
from hypothesis import strategies as st

from migration_gate.files.migration import Migration, checksum, version_to_key
from migration_gate.files.names import FORM, Name, classify, is_repeatable


@pytest.mark.parametrize(
    ("name", "number", "base"),
    [
        ("001_init.sql", (1,), "001_init"),
        ("001_init.up.sql", (1,), "001_init"),
        ("001_init_up.sql", (1,), "001_init"),
        ("20251020160504_x.sql", (20251020160504,), "20251020160504_x"),
        ("0_x.sql", (0,), "0_x"),
        ("1.sql", (1,), "1"),
        ("001-init.sql", (1,), "001-init"),
        ("20260101-x.up.sql", (20260101,), "20260101-x"),
        ("2026-01-02-000003_x.sql", (20260102000003,), "2026-01-02-000003_x"),
        ("2026-01-02_x.sql", (2026,), "2026-01-02_x"),
        ("1_two words.sql", (1,), "1_two words"),
        ("1_Größe.up.sql", (1,), "1_Größe"),
        ("1_a.b.c.sql", (1,), "1_a.b.c"),
        ("1__x.sql", (1,), "1__x"),
        ("1_x.postgres.up.sql", (1,), "1_x.postgres"),
        ("9" * 30 + "_x.sql", (int("9" * 30),), "9" * 30 + "_x"),
        ("V1__x.sql", (1,), "V1__x"),
        ("V1.0__x.sql", (1,), "V1.0__x"),
        ("V1_10.02__two words.sql", (1, 10, 2), "V1_10.02__two words"),
        ("V0__x.sql", (0,), "V0__x"),
    ],
)
def test_a_migrations_name_has_a_number_and_words(
    name: str, number: tuple[int, ...], base: str
) -> None:
    """Zeros at the end of a version in parts do not count."""
    assert classify(name) == Name(kind="up", number=number, base=base)


@pytest.mark.parametrize(
    ("name", "number", "base"),
    [
        ("001_init.down.sql", (1,), ""),
        ("001_init_down.sql", (1,), "001_init"),
        ("001_init-down.sql", (1,), "001_init"),
        ("001_init.undo.sql", (1,), "001_init"),
        ("001_init_undo.sql", (1,), "001_init"),
        ("001_init.rollback.sql", (1,), "001_init"),
        ("001_init_rollback.sql", (1,), "001_init"),
        ("001_init_revert.sql", (1,), "001_init"),
        ("001_init_DOWN.sql", (1,), "001_init"),
        ("001_down.sql", (1,), "001"),
        ("U1.2__x.sql", (1, 2), ""),
        ("V1.2__x.undo.sql", (1, 2), "V1.2__x"),
    ],
)
def test_a_way_back_is_known_by_its_ending(
    name: str, number: tuple[int, ...], base: str
) -> None:
    """Or by Flyway's U; two forms pair by the number alone."""
    assert classify(name) == Name(kind="down", number=number, base=base)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("init.sql", FORM),
        ("001_.sql", FORM),
        ("v1_init.sql", FORM),
        ("v1__init.sql", FORM),
        ("V1_init.sql", FORM),
        ("V__init.sql", FORM),
        ("V1.__init.sql", FORM),
        ("1.5_init.sql", FORM),
        ("-1_init.sql", FORM),
        (" 1_init.sql", FORM),
        ("\u0661_arabic_digit.sql", FORM),
        ("001_line\nbreak.sql", FORM),
        ("001_bell\x07.sql", FORM),
        ("001_not_utf8_\udcff.sql", FORM),
        ("9" * 256 + ".sql", "name is longer than 255 characters"),
        ("R__.sql", "name is almost that of a repeatable migration, R__words.sql"),
        ("r__v.sql", "name is almost that of a repeatable migration, R__words.sql"),
        ("R_v.sql", "name is almost that of a repeatable migration, R__words.sql"),
        (
            "R__v.down.sql",
            "way back of a repeatable migration, and none is undone",
        ),
        ("beforeMigrate.sql", "callback of Flyway, which the gate does not call"),
        ("afterEachMigrate__x.sql", "callback of Flyway, which the gate does not call"),
        ("001_init.SQL", 'name does not end in ".sql"'),
        ("001_init.Sql", 'name does not end in ".sql"'),
        ("001_init.psql", 'name does not end in ".sql"'),
        ("001_init.pgsql", 'name does not end in ".sql"'),
        ("001_init.sql ", 'name does not end in ".sql"'),
        ("001_init.sql.gz", "compressed, and only plain SQL is read"),
        ("001_init.sql.j2", "template, and only plain SQL is read"),
        (
            "V1__x.sql.conf",
            "settings of Flyway's for one file, which are not read",
        ),
        ("001_x.mysql.sql", "migration for another database (mysql)"),
        ("001_x.sqlite3.up.sql", "migration for another database (sqlite3)"),
        ("001_x.mysql.down.sql", "migration for another database (mysql)"),
    ],
)
def test_a_name_that_could_be_meant_is_refused(name: str, problem: str) -> None:
    """Each has a remedy."""
    said = classify(name)

    assert (said.kind, said.problem) == ("refused", problem)
    assert said.remedy.endswith(".")


@pytest.mark.parametrize(
    ("name", "language"),
    [
        ("00001_x.go", "Go"),
        ("20260101000001_x.rb", "Ruby"),
        ("0001_initial.py", "Python"),
        ("1700000000_x.ts", "TypeScript"),
        ("V1__x.java", "Java"),
    ],
)
def test_a_migration_in_another_language_is_code(name: str, language: str) -> None:
    """By its number and its ending."""
    said = classify(name)

    assert (said.kind, said.problem) == (
        "code",
        f"migration in {language}, and only SQL is read",
    )


@pytest.mark.parametrize(
    "name",
    [
        *("_001_init.sql", ".001_init.sql", "_x.SQL", "..data", ".gitkeep"),
        *("README", "README.md", "LICENSE", "atlas.sum", "migration_lock.toml"),
        *("001_notes.txt", "001.json", "dbconfig.yaml", "sqitch.plan", "embed.go"),
        *("001_init.sql.bak", "001_init.sql~", "001_init.sql.swp", "001_init"),
        *("00001_x_test.go", "1_x.test.ts", "1_x.d.ts", "__init__.py", "env.py"),
    ],
)
def test_what_cannot_be_meant_is_ignored(name: str) -> None:
    """Companions of migrations, copies of editors, and what says so itself."""
    assert classify(name) == Name(kind="ignored")


NAMES = st.one_of(
    st.text(max_size=20),
    st.from_regex(
        r"(V|U|R|)[0-9._-]{0,5}[_-]{0,2}[a-z]{0,3}"
        r"([._-](up|down|undo|rollback|revert|mysql|pg))?\.(sql|SQL|go|md)",
        fullmatch=True,
    ),
)


@given(names=st.lists(NAMES, unique=True, max_size=8))
def test_every_name_is_something_and_migrations_have_one_order(
    names: list[str],
) -> None:
    """A total order: by number, then by bytes, the same for any order of looking."""
    said = {name: classify(name) for name in names}
    for name, each in said.items():
        assert (each.kind in {"refused", "code"}) == bool(each.problem)
        assert bool(each.problem) == bool(each.remedy)
        is_numbered = each.kind in {"up", "down"} and not is_repeatable(name)
        assert is_numbered == bool(each.number)
        assert each.kind not in {"up", "down"} or name.endswith(".sql")
        assert each.number == () or len(each.number) == 1 or each.number[-1] != 0
    ups = [
        Migration(version=n, number=s.number, key=version_to_key(n), checksum="")
        for n, s in said.items()
        if s.kind == "up"
    ]
    ordered = [m.version for m in sorted(ups, key=lambda m: m.order)]
    ups.reverse()
    assert ordered == [m.version for m in sorted(ups, key=lambda m: m.order)]
    assert len({m.order for m in ups}) == len(ups)


@given(
    stem=st.from_regex(
        r"([0-9]{1,4}|V[0-9]([._][0-9]){0,2}_)_[a-z]{1,4}", fullmatch=True
    )
)
def test_the_spellings_of_one_migration_have_one_number_and_base(stem: str) -> None:
    """And so does its way back, but for those that pair by the number alone."""
    assume(not stem.endswith("_up"))  # what is before that is the base
    plain, up = classify(f"{stem}.sql"), classify(f"{stem}.up.sql")
    assert plain.kind == "down" or plain == up
    assert version_to_key(f"{stem}.sql") == version_to_key(f"{stem}.up.sql")
    for ending in ("_down", ".undo", "_rollback", "_revert"):
        back = classify(f"{stem}{ending}.sql")
        assert (back.kind, back.number, back.base) == ("down", up.number, up.base)


def test_a_number_too_long_for_a_file_name_is_none() -> None:
    """A row of another program may hold more digits than Python turns to a number."""
    assert classify("9" * 5000 + "_x.sql").number == ()


@pytest.mark.parametrize("version", ["005_x", "005_x.sql", "005_x.up", "005_x.up.sql"])
def test_the_spellings_of_a_migration_share_a_key(version: str) -> None:
    """Endings that programs drop do not make another migration."""
    assert version_to_key(version) == "005_x"


@pytest.mark.parametrize("version", ["005_X", "5_x", "005_x.down.sql", "005_x.up.up"])
def test_other_versions_have_other_keys(version: str) -> None:
    """Case, zeros and a down file make another version."""
    assert version_to_key(version) != "005_x"


def test_the_order_is_by_number_then_by_bytes() -> None:
    """10 follows 9, and two of one number are in the byte order of their names."""
    names = ["9_z.sql", "10_B.sql", "10_a.sql", "010_a.sql", "10_é.sql", "100_a.sql"]
    migrations = [
        Migration(version=n, number=(int(n.partition("_")[0]),), key=n, checksum="")
        for n in names
    ]
    random.Random(7).shuffle(migrations)  # noqa: S311 - the same order each run
    assert [m.version for m in sorted(migrations, key=lambda m: m.order)] == [
        "9_z.sql",
        "010_a.sql",
        "10_B.sql",
        "10_a.sql",
        "10_é.sql",
        "100_a.sql",
    ]


def test_the_checksum_is_sha256_of_the_text() -> None:
    """Anyone can compute it with sha256sum."""
    assert checksum(b"SELECT 1;") == (
        "sha256:" + hashlib.sha256(b"SELECT 1;").hexdigest()
    )


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfSELECT 1;\nSELECT 2;",
        b"SELECT 1;\r\nSELECT 2;\r\n",
        b"SELECT 1;\rSELECT 2;",
        b"SELECT 1;\nSELECT 2; \t\n\n",
        b"\xef\xbb\xbfSELECT 1;\r\nSELECT 2;\r\n\r\n",
    ],
)
def test_a_checkout_elsewhere_is_not_a_change(content: bytes) -> None:
    """Byte order mark, line ends and white space at the end do not count."""
    assert checksum(content) == checksum(b"SELECT 1;\nSELECT 2;")


@pytest.mark.parametrize(
    "content",
    [
        b" SELECT 1;\nSELECT 2;",
        b"SELECT 1;\n\nSELECT 2;",
        b"SELECT 1; \nSELECT 2;",
        b"select 1;\nSELECT 2;",
    ],
)
def test_any_other_difference_is_a_change(content: bytes) -> None:
    """White space inside, and case, count."""
    assert checksum(content) != checksum(b"SELECT 1;\nSELECT 2;")


@given(
    text=st.text(),
    line_end=st.sampled_from(["\n", "\r\n", "\r"]),
    mark=st.sampled_from(["", "\ufeff"]),
)
def test_no_line_end_and_no_mark_changes_a_checksum(
    text: str, line_end: str, mark: str
) -> None:
    """For any text: what `git autocrlf` or an editor does to it does not count."""
    unix = text.replace("\r", "\n")
    other = unix.replace("\n", line_end)
    if not unix.startswith("\ufeff"):
        assert checksum((mark + other).encode()) == checksum(unix.encode())
