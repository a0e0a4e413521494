"""A report's forms: for a program, for a person, for a pull request."""

from __future__ import annotations

import json
import re

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest

from migration_gate.rehearsal.estimate import (
    BUILT_ROWS_PER_MS,
    SCANNED_BYTES_PER_MS,
    WRITTEN_BYTES_PER_MS,
)
from migration_gate.rehearsal.sizes import read_sizes
from tests.commands.test_status import answer, log_of
from tests.fix_gate import ROOT, Gate
from tests.fix_postgres import Database, Databases
from tests.log_schema import TYPES
from tests.project.pages import read, read_blocks
from tests.rehearsal.test_rehearse import FILES, FROM, found, statements


SCHEMA = json.loads((ROOT / "docs/rehearsal.schema.json").read_text("utf-8"))
SCREEN = 40  # lines
PAGE = "docs/rehearsal.md"


def find_faults(value: Any, schema: Mapping[str, Any], at: str = "") -> Iterator[str]:  # noqa: ANN401  # JSON
    """Yield what of a report its schema does not allow."""
    if "$ref" in schema:
        schema = SCHEMA["$defs"][schema["$ref"].removeprefix("#/$defs/")]
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if "object" in kinds:
        properties = schema["properties"]
        if value.keys() != properties.keys():
            yield f"{at}: {value.keys() ^ properties.keys()}"
        for name in value.keys() & properties.keys():
            yield from find_faults(value[name], properties[name], f"{at}.{name}")
        return
    is_one = "enum" not in schema or value in schema["enum"]
    is_one = is_one and ("const" not in schema or value == schema["const"])
    if not is_one or (kinds and not any(TYPES[kind](value) for kind in kinds)):
        yield f"{at}: {value!r}"
    if isinstance(value, int | float) and value < schema.get("minimum", value):
        yield f"{at}: {value!r}"
    for each in value if "array" in kinds else ():
        yield from find_faults(each, schema["items"], f"{at}[]")


@pytest.mark.server
def test_the_json_is_as_its_schema_says(gate: Gate, database: Database) -> None:
    """With findings, without a transaction, with a reason, and when it fails."""
    files = {
        **FILES,
        "004_last.sql": "-- gate: accept renames as agreed\n"
        "ALTER TABLE public.orders RENAME note TO n;\nSELECT 1 / 0;",
    }
    run = gate("rehearse", "--json", *FROM, database=database, migrations=files)
    said = answer(run)
    assert list(find_faults(said, SCHEMA)) == []
    assert len(list(find_faults({**said, "format": 2, "more": 1}, SCHEMA))) == 2


def test_a_page_of_a_good_file_fits_a_screen(gate: Gate, database: Database) -> None:
    """What was found comes first; the statements are folded."""
    files = {**FILES, "002_key.sql": "ALTER TABLE public.orders ADD a int;"}
    files.pop("003_alone.sql")
    run = gate("rehearse", "--markdown", *FROM, database=database, migrations=files)
    assert run.exit_code == 0, run.output
    page = run.stdout
    assert page.startswith("### Rehearsal: 1 file, 1 statement, 0 findings.\n")
    assert len(page.splitlines()) < SCREEN
    assert "Nothing that is used elsewhere is held up, rewritten or lost." in page
    folded = page[page.index("<details>") : page.index("</details>")]
    assert "| `002_key.sql:1` | ALTER TABLE |" in folded
    assert "`002_key.sql:1`" not in page.replace(folded, "")


def test_a_page_tells_what_was_found_first(gate: Gate, database: Database) -> None:
    """A row a statement and table, causes before what follows from them."""
    run = gate("rehearse", "--markdown", *FROM, database=database, migrations=FILES)
    head, _, _ = run.stdout.partition("<details>")
    rows = [line for line in head.splitlines() if line.startswith("| `")]
    assert [re.split(r" \| ", row.strip("| ")) for row in rows] == [
        ["`002_key.sql:1`", "public.orders", "long-transaction"],
        [
            "`002_key.sql:2`",
            "public.customers",
            "constraint-validated-at-once<br>scans-table<br>blocks-writes",
        ],
        [
            "`002_key.sql:2`",
            "public.orders",
            "constraint-validated-at-once<br>scans-table",
        ],
        ["`003_alone.sql:2`", "public.orders", "rewrites-table<br>blocks-reads"],
    ]
    assert "- **constraint-validated-at-once**: " in head


@pytest.mark.server
def test_real_sizes_tell_how_long_and_keep_small_tables_quiet(
    gate: Gate, databases: Databases
) -> None:
    """Of each table that is there; what is not known may be large."""
    database, real = databases.create(), databases.create()
    real.execute(
        "CREATE TABLE orders (id int, filler text);"
        "INSERT INTO orders SELECT g, repeat('x', 500)"
        " FROM generate_series(1, 80000) g;"
        "CREATE TABLE customers (id int);"
        "ANALYZE"
    )
    env = {"GATE_REHEARSE_SIZES": real.url}
    files = {
        **FILES,
        "004_all.sql": "UPDATE public.customers SET id = id;\n"
        "UPDATE public.orders SET note = 'x';",
    }
    run = gate(
        "rehearse", "--json", *FROM, database=database, migrations=files, env=env
    )
    said = answer(run)
    assert found(said) == {
        "002:1": {"long-transaction"},
        "002:2": {"constraint-validated-at-once", "scans-table", "blocks-writes"},
        "003:2": {"rewrites-table", "blocks-reads"},
        "004:2": {"changes-many-rows"},
    }
    lines = statements(said)
    assert [each["relation"] for each in lines["002:2"]["findings"]] == [
        "public.customers",  # waits as long as the other is read
        "public.orders",
        "public.orders",
    ]
    (orders,) = lines["003:2"]["relations"]
    assert 40e6 < orders["real_bytes"] < 60e6
    assert (orders["real_rows"], 1000 < orders["rough_ms"] < 2000) == (80000, True)
    assert real.url not in run.output
    shown = gate("rehearse", database=databases.create(), migrations=FILES, env=env)
    assert shown.exit_code == 0


@pytest.mark.server
def test_the_real_database_is_only_read(gate: Gate, databases: Databases) -> None:
    """By a role that may do nothing there; and it is never the one to rehearse on."""
    database, real = databases.create(), databases.create()
    role = real.role("LOGIN")
    role.execute("SET default_transaction_read_only = off")
    env = {"GATE_REHEARSE_SIZES": role.url}
    run = gate("rehearse", *FROM, database=database, migrations=FILES, env=env)
    assert run.exit_code == 0, run.output
    assert real.fetch("SELECT count(*) FROM pg_class WHERE oid >= 16384") == [(0,)]
    with real.connect() as conn:
        read_sizes(conn)
        kept = conn.execute("SELECT name FROM pg_settings WHERE source = 'session'")
        assert kept.fetchall() == []  # a pooler gives the session to the application
    real.execute("REVOKE EXECUTE ON FUNCTION pg_table_size(regclass) FROM PUBLIC")
    run = gate("rehearse", *FROM, database=database, migrations=FILES, env=env)
    assert "could not read how large the real tables are" in run.output
    env = {"GATE_REHEARSE_SIZES": real.url}
    same = gate(
        "rehearse", "--yes-it-is-disposable", database=real, migrations=FILES, env=env
    )
    assert (same.exit_code, log_of(same)[-1]["reason"]) == (1, "rehearsal")
    with pytest.raises(psycopg.errors.UndefinedTable):
        real.fetch("SELECT * FROM schema_migrations")


def test_the_real_database_may_be_named_in_a_file(
    gate: Gate, databases: Databases, tmp_path: Path
) -> None:
    """As a secret is mounted; one that is not there is told by its setting."""
    database, real = databases.create(), databases.create()
    secret = tmp_path / "sizes"
    env = {"GATE_REHEARSE_SIZES_FILE": str(secret), "GATE_AUTH_GRACE": "0"}
    options = ("rehearse", "--json", *FROM)
    run = gate(*options, database=database, migrations=FILES, env=env)
    assert run.exit_code == 1
    assert "GATE_REHEARSE_SIZES_FILE names a file that does not exist" in run.output
    secret.write_text(f"{real.url}\n", "utf-8")
    run = gate(*options, database=database, migrations=FILES, env=env)
    assert (run.exit_code, answer(run)["sizes_known"]) == (0, True)
    assert real.url not in run.output


@pytest.mark.server
def test_the_example_is_what_a_rehearsal_answers(
    gate: Gate, database: Database
) -> None:
    """But for the times, and for how wide they make the columns."""
    (text,) = (b for b in read_blocks(PAGE, "sql") if b.startswith("-- Purpose"))
    (shown,) = (b for b in read_blocks(PAGE, "text") if b.startswith("WHERE"))
    files = {
        path.name: path.read_text("utf-8") for path in (ROOT / "migrations").iterdir()
    }
    run = gate(
        *("rehearse", *FROM),
        database=database,
        migrations={**files, "005_currency.sql": text},
    )
    assert [*map(without_times, run.stdout.splitlines())] == [
        *map(without_times, shown.splitlines())
    ]


def without_times(line: str) -> str:
    """Return a line of a table with one blank between words, and no time."""
    return " ".join(re.sub(r"[\d.]+ m?s\b", "TIME", line).split())


def test_the_rates_are_those_of_the_code() -> None:
    """Bytes and rows a millisecond, as the page says them for a second."""
    rates = (
        f"{SCANNED_BYTES_PER_MS // 1000} MB a second to read, "
        f"{WRITTEN_BYTES_PER_MS // 1000} MB a second to write, half a million rows"
    )
    assert rates in read(PAGE)
    assert BUILT_ROWS_PER_MS * 1000 == 500_000
