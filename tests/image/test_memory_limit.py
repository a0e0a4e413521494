"""With little memory a container applies any file, or says why not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest

from tests.fix_image import ContainerDatabase


pytestmark = [pytest.mark.docker, pytest.mark.thorough, pytest.mark.timeout(300)]
LIMIT: Final = ("--memory=96m", "--memory-swap=96m")
MAKE: Final = "CREATE UNLOGGED TABLE t (a int, b text);\n"


def statement() -> Iterator[str]:
    """Yield one INSERT of 21 MB."""
    yield f"{MAKE}INSERT INTO t VALUES (0, '')"
    yield from (f",\n({n}, '{'x' * 90}')" for n in range(1, 205_000))
    yield ";"


def string() -> Iterator[str]:
    """Yield a string of 30 MB."""
    yield f"{MAKE}INSERT INTO t VALUES (1, '"
    yield from ("x" * 1_000_000 for _ in range(30))
    yield "');"


def rows() -> Iterator[str]:
    """Yield a statement that returns five million rows."""
    yield f"{MAKE}SELECT n, repeat('x', 50) FROM generate_series(1, 5000000) n;"


def statements() -> Iterator[str]:
    """Yield a million statements."""
    yield MAKE
    yield from (f"INSERT INTO t VALUES ({n});\n" for n in range(1_000_000))


def copied() -> Iterator[str]:
    """Yield 200 MB of copied data."""
    yield f"{MAKE}COPY t FROM stdin;\n"
    yield from (f"{n}\t{'x' * 990}\n" for n in range(200_000))
    yield "\\.\n"


def error() -> Iterator[str]:
    """Yield one INSERT of 21 MB with an error at its end."""
    *begun, _ = statement()
    yield from begun
    yield ",\n(1, nosuch);"


FILES: Final[Mapping[str, Callable[[], Iterator[str]]]] = {
    "a statement of 21 MB": statement,
    "a string of 30 MB": string,
    "five million rows": rows,
    "a million statements": statements,
    "200 MB of copied data": copied,
    "an error in a statement of 21 MB": error,
}


@pytest.mark.parametrize("name", FILES)
def test_96_mib_are_enough(
    container_database: ContainerDatabase, tmp_path: Path, name: str
) -> None:
    """With a verdict at the end, and the place of an error."""
    folder = tmp_path / "migrations"
    folder.mkdir()
    with (folder / "001_large.sql").open("w", encoding="utf-8") as file:
        file.writelines(FILES[name]())
    tmp_path.chmod(0o755)
    ended = container_database.gate(options=LIMIT, migrations=folder, timeout_s=240)
    if FILES[name] is error:
        assert (ended.verdict["line"], ended.verdict["column"]) == (205_002, 5)
        assert ended.exit_code == 1
    else:
        assert ended.exit_code == 0, ended.stderr
