"""
The table of statements in docs/rehearsal.md, measured: what each locks and does.

`python -m tests.rehearsal.table DSN...` asks a server of each version, and writes
`statements.json` and the page anew. The tests compare both with the server they run on.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

import psycopg

from psycopg.conninfo import conninfo_to_dict

from tests.rehearsal.cases import CASES, TABLES, Case


ROOT: Final = Path(__file__).resolve().parents[2]
DATA: Final = Path(__file__).with_name("statements.json")
PAGE: Final = ROOT / "docs" / "rehearsal.md"
HEAD: Final = "| statement | locks | does | findings |"
FIRST: Final = 100  # the number of the first case's file

# What a statement did: locks by relation, work by relation, names of findings.
Seen: TypeAlias = dict[str, Any]


def to_key(case: Case) -> str:
    """Return what names a case: the statement, and what is there before it."""
    return f"{case.sql}, {case.where}" if case.where else case.sql


def select(version: int) -> list[tuple[int, Case]]:
    """Return the cases that a version has, numbered."""
    return [
        (number, case)
        for number, case in enumerate(CASES, FIRST)
        if case.since <= version
    ]


def write_files(version: int) -> dict[str, str]:
    """Return a file that makes everything, and one for each statement."""
    files, before = {}, []
    for number, case in select(version):
        schema = f"c{number}"
        path = f"SET search_path = {schema};\n"
        before.append(f"CREATE SCHEMA {schema};\n{path}{TABLES}{case.setup}\n")
        files[f"{number}_case.sql"] = f"{path}{case.sql};\n"
    return {"001_before.sql": "\n".join(before), **files}


def read_report(report: Mapping[str, Any], version: int) -> dict[str, Seen]:
    """Return what each case did, by its key."""
    lines = {file["version"]: file["statements"][-1] for file in report["files"]}
    return {
        to_key(case): _read(lines[f"{number}_case.sql"], f"c{number}.")
        for number, case in select(version)
    }


def _read(line: Mapping[str, Any], schema: str) -> Seen:
    relations = sorted(line["relations"], key=lambda each: str(each["relation"]))
    work = {
        each["relation"].removeprefix(schema): [
            word
            for word in ("rewritten", "scanned", "index_built")
            if each[word] and not (word == "scanned" and each["rewritten"])
        ]
        for each in relations
    }
    return {
        "locks": {
            each["relation"].removeprefix(schema): each["lock"]
            for each in relations
            if each["lock"]
        },
        "does": {name: words for name, words in work.items() if words},
        "findings": sorted({finding["name"] for finding in line["findings"]}),
    }


def measure(dsn: str) -> tuple[int, dict[str, Seen]]:
    """Rehearse every case on a server, in a database of its own."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        version = conn.info.server_version // 10000
        conn.execute("DROP DATABASE IF EXISTS statements")
        conn.execute("CREATE DATABASE statements")
        try:
            with tempfile.TemporaryDirectory() as folder:
                for name, text in write_files(version).items():
                    Path(folder, name).write_text(text, "utf-8")
                said = _rehearse(conninfo_to_dict(dsn), folder)
        finally:
            conn.execute("DROP DATABASE statements")
    return version, read_report(said, version)


def _rehearse(conninfo: Mapping[str, Any], folder: str) -> Any:  # noqa: ANN401  # JSON
    gate = [sys.executable, str(ROOT / "entrypoint.py"), "rehearse", "--json"]
    names = {"host": "HOST", "port": "PORT", "user": "USER", "password": "PASSWORD"}
    environ = {f"POSTGRES_{v}": str(conninfo[k]) for k, v in names.items()}
    environ |= {"POSTGRES_DB": "statements", "GATE_MIGRATIONS": folder}
    ended = subprocess.run(
        [*gate, "--from", str(FIRST)],
        check=False,
        capture_output=True,
        env={"PATH": os.environ["PATH"], **environ},
    )
    if ended.returncode:
        sys.exit(ended.stderr.decode())
    return json.loads(ended.stdout)


def render(measured: Mapping[str, Mapping[str, Seen]]) -> str:
    """Return the table of the page: a row a case, more where versions differ."""
    rows = [HEAD, "| --- | --- | --- | --- |"]
    for case in CASES:
        by_version = {
            v: seen[to_key(case)]
            for v, seen in measured.items()
            if to_key(case) in seen
        }
        outcomes: list[tuple[list[str], Seen]] = []
        for version, seen in by_version.items():
            same = [versions for versions, other in outcomes if other == seen]
            if same:
                same[0].append(version)
            else:
                outcomes.append(([version], seen))
        for versions, seen in outcomes:
            is_all = len(versions) == len(measured)
            which = "" if is_all else f" ({', '.join(versions)})"
            rows.append(f"| {_title(case)}{which} | {_cells(seen)} |")
    return "\n".join(rows)


def _title(case: Case) -> str:
    return f"`{case.sql}`" + (f", {case.where}" if case.where else "")


def _cells(seen: Seen) -> str:
    locks = "<br>".join(f"{name} {mode}" for name, mode in seen["locks"].items())
    does = "<br>".join(
        f"{name} {', '.join(word.replace('_', ' ') for word in words)}"
        for name, words in seen["does"].items()
    )
    findings = "<br>".join(f"`{name}`" for name in seen["findings"])
    return f"{locks} | {does} | {findings}"


def main() -> None:
    """Measure, and write what was measured."""
    measured = dict(sorted((str(v), s) for v, s in map(measure, sys.argv[1:])))
    text = json.dumps(measured, ensure_ascii=False, indent=1)
    DATA.write_text(f"{text}\n", "utf-8")
    before, _, rest = PAGE.read_text("utf-8").partition(HEAD)
    _, _, after = rest.partition("\n\n")
    PAGE.write_text(f"{before}{render(measured)}\n\n{after}", "utf-8")


if __name__ == "__main__":
    main()
