"""
Tell GitHub what a gate's log says: an annotation at its line, a summary, outputs.

Reads the log, one JSON object a line. Needs Python's standard library only.
"""

# ruff: noqa: INP001 -- a program, not a package

from __future__ import annotations

import json
import os
import sys

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TextIO


ESCAPES: Final = {"%": "%25", "\r": "%0D", "\n": "%0A"}
PROPERTY_ESCAPES: Final = {**ESCAPES, ":": "%3A", ",": "%2C"}
NOT_THERE: Final = "the gate said nothing: it was not started, or ended by force"


def main(
    folder: str, page: str, log: Iterable[str], environ: Mapping[str, str]
) -> None:
    """
    Write workflow commands to stdout, summary and outputs to GitHub's files.

    Args:
        page: The file with what the rehearsal found, which the summary shows.
    """
    events = list(read_events(log))
    verdict = events[-1] if events else {"event": "gate.closed", "message": NOT_THERE}
    for command in annotate(folder, events, verdict):
        print(command)  # noqa: T201 -- that is how GitHub is told
    with Path(environ["GITHUB_STEP_SUMMARY"]).open("a", encoding="utf-8") as file:
        summarize(events, verdict, file)
        found = Path(page).read_text("utf-8")
        file.write(f"\n{found}" if found else "")
    is_open = verdict["event"] == "gate.opened"
    with Path(environ["GITHUB_OUTPUT"]).open("a", encoding="utf-8") as file:
        file.write(f"verdict={'open' if is_open else 'closed'}\n")
        file.write(f"reason={verdict.get('reason', '')}\n")
        file.write(f"applied={verdict.get('applied_count', 0)}\n")


def read_events(log: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yield the events of a log; what is none of them is passed over."""
    for line in log:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and "event" in event:
            yield event


def annotate(
    folder: str, events: Iterable[Mapping[str, Any]], verdict: Mapping[str, Any]
) -> Iterator[str]:
    """Yield a command for each warning, and for what closed the gate."""
    for event in events:
        if event.get("level") == "warning":
            name = event["event"]
            yield f"::warning title={_escape(name, PROPERTY_ESCAPES)}::" + _escape(
                event["message"], ESCAPES
            )
    if verdict["event"] == "gate.opened":
        return
    place = {
        "title": "migration-gate",
        "file": find_file(folder, verdict.get("file")),
        "line": verdict.get("line"),
        "col": verdict.get("column"),
    }
    said = ",".join(
        f"{name}={_escape(str(value), PROPERTY_ESCAPES)}"
        for name, value in place.items()
        if value is not None
    )
    text = f"{verdict['message']}\n{verdict.get('hint', '')}".rstrip()
    yield f"::error {said}::{_escape(text, ESCAPES)}"


def find_file(folder: str, name: str | None) -> str | None:
    """Return the path of a migration from the repository's root, if it is clear."""
    if name is None:
        return None
    found = [path for path in Path(folder).rglob(Path(name).name) if path.is_file()]
    return str(found[0]) if len(found) == 1 else None


def summarize(
    events: Iterable[Mapping[str, Any]], verdict: Mapping[str, Any], file: TextIO
) -> None:
    """Write the verdict, and the migrations with their time."""
    mark = "✅" if verdict["event"] == "gate.opened" else "❌"
    file.write(f"### {mark} {_cell(verdict['message'])}\n\n")
    if verdict.get("hint"):
        file.write(f"{_cell(verdict['hint'])}\n\n")
    applied = [event for event in events if event["event"] == "migration.applied"]
    if applied:
        file.write("| migration | statements | took |\n| --- | --: | --: |\n")
    for event in applied:
        cells = (
            _cell(event["version"]),
            str(event["statement_count"]),
            f"{event['duration_ms']} ms",
        )
        file.write(f"| {' | '.join(cells)} |\n")


def _cell(text: str) -> str:
    """Return a text that is nothing but text in Markdown."""
    flat = " ".join(text.split())
    for sign in "\\`*_[]<>|":
        flat = flat.replace(sign, f"\\{sign}" if sign not in "<>`" else "'")
    return flat


def _escape(text: str, escapes: Mapping[str, str]) -> str:
    """Write a text as GitHub's workflow commands want it."""
    return "".join(escapes.get(sign, sign) for sign in text)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.stdin, os.environ)
