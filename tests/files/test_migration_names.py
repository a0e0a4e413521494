"""File names: their form, number, kind, order and spellings."""

from __future__ import annotations

import hashlib
import random

import pytest

from hypothesis import given
from hypothesis import strategies as st

from migration_gate.files.migration import (
    FileName,
    Migration,
    checksum,
    parse_name,
    version_to_key,
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("001_init.sql", FileName(1, "001_init", "up")),
        ("001_init.up.sql", FileName(1, "001_init", "up")),
        ("001_init.down.sql", FileName(1, "001_init.down", "down")),
        ("20251020160504_x.sql", FileName(20251020160504, "20251020160504_x", "up")),
        ("0_x.sql", FileName(0, "0_x", "up")),
        ("1_two words.sql", FileName(1, "1_two words", "up")),
        ("1_Größe.up.sql", FileName(1, "1_Größe", "up")),
        ("1_a.b.c.sql", FileName(1, "1_a.b.c", "up")),
        ("1__x.sql", FileName(1, "1__x", "up")),
        ("9" * 30 + "_x.sql", FileName(int("9" * 30), "9" * 30 + "_x", "up")),
    ],
)
def test_a_name_is_a_number_words_and_an_ending(name: str, expected: FileName) -> None:
    """The parts of a name that is a migration's."""
    assert parse_name(name) == expected


@pytest.mark.parametrize(
    "name",
    [
        "init.sql",
        "_001_init.sql",
        "001-init.sql",
        "001.sql",
        "001_.sql",
        "v1_init.sql",
        "1.5_init.sql",
        "-1_init.sql",
        " 1_init.sql",
        "\u0661_arabic_digit.sql",
        "001_init.SQL",
        "001_init.sql.bak",
        "001_line\nbreak.sql",
        "001_bell\x07.sql",
        "001_not_utf8_\udcff.sql",
        "001_init",
    ],
)
def test_any_other_name_is_none(name: str) -> None:
    """A name of another form has no parts."""
    assert parse_name(name) is None


def test_a_number_too_long_for_a_file_name_is_none() -> None:
    """A row of another program may hold more digits than Python turns to a number."""
    assert parse_name("9" * 5000 + "_x.sql") is None


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
        Migration(version=n, number=int(n.partition("_")[0]), key=n, checksum="")
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
