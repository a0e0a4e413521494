"""
What a rehearsal and squawk find in real projects' migrations, side by side.

`python -m tests.rehearsal.against_squawk DSN SQUAWK FOLDER...` rehearses each file of a
folder as a release of its own, in its turn, and lets squawk judge the same file: the
part of it that goes up. What both say is counted by name.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile

from collections import Counter
from pathlib import Path
from typing import Any, Final

import psycopg

from psycopg.conninfo import conninfo_to_dict

from migration_gate.files.folder import read_folder, read_scripts
from migration_gate.files.migration import Migration
from migration_gate.report.errors import MigrationFilesError
from tests.real_projects import HISTORY
from tests.rehearsal.table import ROOT


DATABASE: Final = "rehearsed"
# Of style, of types and of how files are written: not about what runs meanwhile.
STYLE: Final = frozenset(
    {
        "prefer-text-field",
        "prefer-bigint-over-int",
        "prefer-bigint-over-smallint",
        "prefer-identity",
        "prefer-timestamp-tz",
        "prefer-robust-stmts",
        "prefer-repack",
        "require-timeout-settings",
        "require-lock-timeout",
        "require-statement-timeout",
        "ban-char-field",
        "identifier-too-long",
        "transaction-nesting",
        "ban-uncommitted-transaction",
        "require-table-schema",
        "require-concurrent-partition-attach",
    }
)


def main() -> None:
    """Compare each folder, and print what was found."""
    dsn, squawk, *folders = sys.argv[1:]
    for folder in map(Path, folders):
        print(compare(dsn, squawk, folder))  # noqa: T201  # a report for a person


def compare(dsn: str, squawk: str, folder: Path) -> str:
    """Return what each of the two finds in a folder."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
        conn.execute(f"CREATE DATABASE {DATABASE}")
    ours: dict[str, set[str]] = {}
    theirs: dict[str, set[str]] = {}
    migrations = read_folder(folder, allow_empty=False)
    with tempfile.TemporaryDirectory() as written:
        for migration in migrations:
            name = f"{len(ours):04}_{migration.key.replace('/', '_')[:40]}.sql"
            text = read_up(folder, migration)
            path = Path(written, name)
            path.write_bytes(b"-- gate: one-way\n" + text)
            found = rehearse(dsn, written)
            if found is not None:
                ours[name] = found
                theirs[name] = judge(squawk, path)
            path.unlink()  # the history knows it: no need to read it again
    return describe(folder.name, ours, theirs)


def read_up(folder: Path, migration: Migration) -> bytes:
    """Return the part of a file that goes up."""
    try:
        (script,) = read_scripts(folder, [migration], HISTORY)
    except MigrationFilesError:
        return b"SELECT no_such_column;"
    return script.content[:]


def rehearse(dsn: str, folder: str) -> set[str] | None:
    """Return what is found of the one pending file; None where it fails."""
    place = conninfo_to_dict(dsn)
    ended = subprocess.run(
        [sys.executable, str(ROOT / "entrypoint.py"), "rehearse", "--json"],
        check=False,
        capture_output=True,
        env={
            "PATH": os.environ["PATH"],
            "POSTGRES_HOST": str(place["host"]),
            "POSTGRES_PORT": str(place["port"]),
            "POSTGRES_USER": str(place["user"]),
            "POSTGRES_PASSWORD": str(place["password"]),
            "POSTGRES_DB": DATABASE,
            "GATE_MIGRATIONS": folder,
        },
    )
    if ended.returncode:
        print(ended.stderr.decode().splitlines()[-1][:300], file=sys.stderr)  # noqa: T201
        return None
    said = json.loads(ended.stdout)
    return {
        f"{finding['name']}:{line['line'] - 1}"
        for file in said["files"]
        for line in file["statements"]
        for finding in line["findings"]
    }


def judge(squawk: str, path: Path) -> set[str]:
    """Return what squawk says of a file."""
    ended = subprocess.run(
        [squawk, "--reporter", "Json", "--assume-in-transaction", str(path)],
        check=False,
        capture_output=True,
    )
    said: list[dict[str, Any]] = json.loads(ended.stdout or b"[]")
    return {
        f"{each['rule_name']}:{each['line']}"
        for each in said
        if each["rule_name"] not in STYLE
    }


def describe(name: str, ours: dict[str, set[str]], theirs: dict[str, set[str]]) -> str:
    """Return the counts: files with findings, and findings by name."""
    both = sum(bool(ours[file] and theirs[file]) for file in ours)
    said = (
        f"{name}: {len(ours)} files; found in {sum(map(bool, ours.values()))}, "
        f"by squawk in {sum(map(bool, theirs.values()))}, by both in {both}"
    )
    lines = [said]
    for who, found in (("ours", ours), ("squawk", theirs)):
        counted = Counter(
            each.partition(":")[0] for names in found.values() for each in names
        )
        lines += [f"  {who} {rule}: {count}" for rule, count in counted.most_common()]
    lines += [
        f"  {file}: {sorted(found)} | {sorted(theirs[file])}"
        for file, found in ours.items()
        if bool(found) != bool(theirs[file])
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
