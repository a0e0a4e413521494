"""
Run the bench.

    .venv/bin/python -m bench [--case NAME]... [--peer NAME]... [--rounds N]
    .venv/bin/python -m bench --compare FIRST.json SECOND.json

Installs what peers it can, runs each and the gate on the same work in turn, prints a
table for each case, and leaves tables, raw samples and a plot in bench/results.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import platform
import re
import sys
import time

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from bench import cases, disk, link, measure, peers, plot, report, server
from bench.cases import Bench, Case, Result, Row
from bench.install import Missing
from bench.measure import BenchError, Sample
from dev.postgres import VERSION, ended_by_signals


RESULTS: Final = Path(__file__).with_name("results")
ROUNDS: Final = 3


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--case", action="append", default=[], help="a case's name, or its beginning")
    add("--peer", action="append", default=[], help="a part of a peer's name")
    add("--rounds", type=int, default=ROUNDS, help="turns of a peer in most cases")
    add("--output", type=Path, default=RESULTS, help="where the results go")
    add("--list", action="store_true", help="name the cases and end")
    add("--compare", nargs=2, type=Path, help="show two runs side by side")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> None:
    """Do what the command line asks for."""
    asked = parse(arguments)
    if asked.compare:
        runs = [read_results(file) for file in asked.compare]
        write_line(*report.goals_table(*runs), "", *report.ratios_table(*runs))
        return
    wanted = choose(cases.all_cases(), asked.case)
    if asked.list:
        write_line(*(f"{case.name:16} {case.title}" for case in wanted))
        return
    with ended_by_signals():
        run(asked, wanted)


def choose(known: Sequence[Case], names: Sequence[str]) -> list[Case]:
    """Return the cases of these names, or whose names begin so; all without any."""
    exact = {case.name for case in known}
    return [
        case
        for case in known
        if not names
        or case.name in names
        or any(n not in exact and case.name.startswith(n) for n in names)
    ]


def run(asked: argparse.Namespace, wanted: Sequence[Case]) -> None:
    """Measure the cases and write what was found."""
    measure.build_launcher()
    say("installing the peers")
    found, missing = peers.gather(asked.peer)
    versions = {peer.name: peer.version for peer in found}
    write_line(*(f"{name}: {version}" for name, version in versions.items()))
    write_line(*(f"{name}: not here: {why}" for name, why in missing.items()))
    with contextlib.ExitStack() as stack:
        far = None
        if any(case.rtt_ms for case in wanted):
            try:
                far = stack.enter_context(link.up())
            except Missing as why:
                missing["delayed link"] = why.reason
                say(f"no delayed link: {why.reason}")
        data = stack.enter_context(disk.place())
        started = stack.enter_context(server.started(data, far=far is not None))
        databases = stack.enter_context(contextlib.closing(server.Databases(started)))
        bench = Bench(
            databases=databases,
            data=data,
            link=far,
            peers=tuple(found),
            rounds=asked.rounds,
            say=say,
        )
        machine = describe_machine(databases, data, far)
        results: list[Result] = []
        name = ""
        for case in wanted:
            if case.rtt_ms and far is None:
                continue
            say(case.name)
            results.append(cases.run_case(bench, case))
            title = f"## {case.title}"
            write_line("", title, "", *report.to_table(results[-1]), "")
            # After each case: a run that is ended keeps what it has.
            name = write_results(asked.output, results, machine, versions, missing)
    write_line("## Goals", "", *report.goals_table(results))
    say(f"written: {asked.output / name}.json, .md, .svg")


def describe_machine(
    databases: server.Databases, data: Path, far: link.Link | None
) -> dict[str, str]:
    """Return what the numbers depend on."""
    cpuinfo = Path("/proc/cpuinfo").read_text("utf-8")
    model = re.search(r"^model name\s*: (.*)$", cpuinfo, re.MULTILINE)
    kib = Path("/proc/meminfo").read_text("utf-8").split()[1]
    load = os.getloadavg()[0]
    commit_ms = databases.measure_commit_ms()
    return {
        "date": datetime.now(tz=UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": f"{os.cpu_count()} x {model[1] if model else platform.machine()}",
        "memory": f"{int(kib) / 1024 / 1024:.0f} GiB",
        "kernel": platform.release(),
        "server": f"PostgreSQL {VERSION}, fsync on, {disk.describe(data)}",
        "one durable commit": f"{commit_ms:.2f} ms over one that is not flushed",
        "latency": far.kind if far else "none",
        "load when it began": f"{load:.1f}",
    }


def write_results(
    folder: Path,
    results: Sequence[Result],
    machine: dict[str, str],
    versions: dict[str, str],
    missing: dict[str, str],
) -> str:
    """Write DATE-MACHINE.json, .md and .svg; return what stands before the dot."""
    folder.mkdir(parents=True, exist_ok=True)
    date = machine["date"].replace(" UTC", "").replace(" ", "-").replace(":", "")
    name = f"{date}-{os.cpu_count()}x{platform.machine()}"
    raw = {
        "machine": machine,
        "versions": versions,
        "missing": missing,
        "results": [dataclasses.asdict(result) for result in results],
    }
    texts = {
        "json": json.dumps(raw, indent=1) + "\n",
        "md": report.to_markdown(results, machine, versions, missing),
        "svg": plot.to_svg(results, machine),
    }
    for ending, text in texts.items():
        (folder / f"{name}.{ending}").write_text(text, "utf-8")
    return name


def read_results(file: Path) -> list[Result]:
    """Read the results of an earlier run."""
    raw = json.loads(file.read_text("utf-8"))
    return [to_result(result) for result in raw["results"]]


def to_result(raw: dict[str, Any]) -> Result:
    """Return a result as it was before it was written."""
    rows = tuple(
        Row(**{**row, "samples": [Sample(**sample) for sample in row["samples"]]})
        for row in raw["rows"]
    )
    return Result(**{**raw, "rows": rows})


def write_line(*lines: str) -> None:
    """Write lines for the reader."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def say(text: str) -> None:
    """Tell how far the run is."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (BenchError, Missing) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
