"""
The targets of a fleet as status and plan answer with them: lines, tables, JSON.
"""

from __future__ import annotations

import json

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final, Literal

from migration_gate.commands.answers import RecordedLine
from migration_gate.report.tables import table


NONE: Final = "(none)"
UNSEEN: Final = "?"
State = Literal["up to date", "behind", "refused"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetLine:
    """
    One target in the answer to status and plan.

    ``version`` is what was applied there last; ``pending`` is None where that is not
    known; ``reason`` why it is refused, why the last attempt at what is pending failed,
    or what is odd about its history; ``recorded`` what the next start records before it
    applies anything, or why it does not.
    """

    target: str
    state: State
    version: str | None
    pending: tuple[str, ...] | None
    reason: str | None
    recorded: tuple[RecordedLine, ...] = ()


def to_json(lines: Sequence[TargetLine]) -> str:
    """Return the lines as a JSON array."""
    return json.dumps([asdict(line) for line in lines], ensure_ascii=False, indent=2)


def describe_status(lines: Sequence[TargetLine]) -> str:
    """Return the tables that a person reads: of versions, then of who is behind."""
    counts = Counter((_newest(line), line.state) for line in lines)
    rows = [("TARGETS", "STATE", "LAST APPLIED")]
    rows += [
        (str(count), state, version)
        for (version, state), count in sorted(counts.items(), key=lambda item: -item[1])
    ]
    others = [("TARGET", "STATE", "LAST APPLIED", "PENDING", "WHY")]
    others += [
        (
            line.target,
            line.state,
            _newest(line),
            UNSEEN if line.pending is None else str(len(line.pending)),
            line.reason or "",
        )
        for line in lines
        if line.state != "up to date"
    ]
    odd: dict[str, list[str]] = {}
    for line in lines:
        if line.state == "up to date" and line.reason is not None:
            odd.setdefault(line.reason, []).append(line.target)
    look = [("TARGETS", "WORTH A LOOK", "FIRST OF THEM")]
    look += [(str(len(names)), reason, names[0]) for reason, names in odd.items()]
    more = [table(found) for found in (others, look) if found[1:]]
    return "\n\n".join([table(rows), *more])


def _newest(line: TargetLine) -> str:
    return UNSEEN if line.pending is None else line.version or NONE


def describe_missing(lines: Sequence[TargetLine]) -> str:
    """Return the table that a person reads: which targets lack what."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for line in lines:
        pending = UNSEEN if line.pending is None else ", ".join(line.pending) or NONE
        refused = line.reason or "" if line.state == "refused" else ""
        recorded = "" if line.pending is None else str(len(line.recorded))
        alike.setdefault((recorded, pending, refused), []).append(line.target)
    width = 1 if any(line.recorded for line in lines) else 0
    rows = [("TARGETS", *["TO RECORD"][:width], "PENDING", "REFUSED", "FIRST OF THEM")]
    rows += [
        (str(len(targets)), *[recorded][:width], *said, targets[0])
        for (recorded, *said), targets in alike.items()
    ]
    return table(rows)
