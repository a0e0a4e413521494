"""
What a run found, for people: tables in Markdown, and the goals with what was measured.
"""

from __future__ import annotations

import math

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

from bench.cases import Result, Row
from bench.measure import Sample, median
from bench.peers import FLOOR_EACH, GATE, GATE_VENV


SECONDS_FROM: Final = 0.5  # where the gate takes so long, times are not in ms
LOGIN_ROUND_TRIPS: Final = 4  # connect 1, startup 1, SCRAM 2
NOT_PEERS: Final = ("gate", "floor")
NUMBERS: Final[Mapping[str, str]] = {
    "round_trips": "round trips",
    "round_trips_each": "round trips a migration",
    "exit_0": "exit 0 (fewest)",
    "cpu_to_singles": "CPU / single runs",
    "longest_stall_s": "longest stall s",
    "stalled_s": "stalled in all s",
    "stalls": "stalls over 0.1 s",
    "after_release_s": "done after the release s",
}


def to_markdown(
    results: Sequence[Result],
    machine: Mapping[str, str],
    versions: Mapping[str, str],
    missing: Mapping[str, str],
) -> str:
    """Return the whole report."""
    lines = [f"# Bench of {machine['date']}", ""]
    lines += [f"- {name}: {value}" for name, value in machine.items()]
    lines += ["", "## Goals", "", *goals_table(results), ""]
    for result in results:
        lines += [f"## {result.title}", "", *to_table(result), ""]
    lines += ["## Who took part", "", "| peer | version |", "| --- | --- |"]
    lines += [f"| {name} | {version} |" for name, version in versions.items()]
    lines += [f"| {name} | not here: {why} |" for name, why in missing.items()]
    return "\n".join([*lines, ""])


def to_table(result: Result) -> Iterator[str]:
    """Return a case's rows, the fastest first, each against the gate as it ships."""
    measured = [row for row in result.rows if row.samples]
    measured.sort(key=wall)
    gate_s = find_gate_s(result)
    in_seconds = (gate_s or wall(measured[0])) >= SECONDS_FROM if measured else False
    unit, factor = ("s", 1.0) if in_seconds else ("ms", 1000.0)
    names = [name for name in NUMBERS if any(name in row.numbers for row in measured)]
    server = any(row.samples[0].server_cpu_s is not None for row in measured)
    heads = ["peer", "n", f"wall {unit}", "min", "max", f"CPU {unit}", "RSS MB"]
    heads += [f"server CPU {unit}"] if server else []
    heads += [*(NUMBERS[name] for name in names), "to the gate"]
    yield f"| {' | '.join(heads)} |"
    yield f"| --- |{' --: |' * (len(heads) - 1)}"
    for row in measured:
        walls = [sample.wall_s for sample in row.samples]
        cells = [row.peer, str(len(walls)), f"**{show(median(walls) * factor)}**"]
        cells += [show(min(walls) * factor), show(max(walls) * factor)]
        cells += [show(of(row, cpu) * factor), f"{of(row, memory):.1f}"]
        cells += [show(of(row, server_cpu) * factor)] if server else []
        cells += [show(row.numbers[n]) if n in row.numbers else "" for n in names]
        cells += [f"{median(walls) / gate_s:.2f}" if gate_s else ""]
        yield f"| {' | '.join(cells)} |"
    for row in result.rows:
        if row.fault:
            yield f"| {row.peer} | {one_line(row.fault)} |{' |' * (len(heads) - 2)}"


def show(value: float) -> str:
    """Return a number with three digits that mean something."""
    if value == 0 or abs(value) >= 100:  # noqa: PLR2004 -- three digits
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def one_line(text: str) -> str:
    """Return a text as a cell of a table."""
    return " ".join(text.replace("|", "/").split())


def of(row: Row, what: Callable[[Sample], float]) -> float:
    """Return the median of something over a row's samples."""
    return median([what(sample) for sample in row.samples])


def wall(row: Row) -> float:
    """Return a row's median time."""
    return of(row, lambda sample: sample.wall_s)


def cpu(sample: Sample) -> float:
    """Return the tool's CPU time."""
    return sample.cpu_s


def memory(sample: Sample) -> float:
    """Return the tool's peak memory."""
    return sample.rss_mb


def server_cpu(sample: Sample) -> float:
    """Return the server's CPU time."""
    return sample.server_cpu_s or 0.0


def find_gate_s(result: Result) -> float:
    """Return what ratios are to: the gate as it ships, else the clone's; 0 for none."""
    for name in (GATE, GATE_VENV):
        for row in result.rows:
            if row.peer == name and row.samples:
                return wall(row)
    return 0.0


class Found:
    """Looks up medians by case and peer; None where there is no such sample."""

    def __init__(self, results: Iterable[Result]) -> None:
        self._rows = {
            (result.case, row.peer): row
            for result in results
            for row in result.rows
            if row.samples
        }

    def row(self, case: str, peer: str) -> Row | None:
        """Return a row."""
        return self._rows.get((case, peer))

    def wall(self, case: str, peer: str) -> float | None:
        """Return a median time."""
        row = self.row(case, peer)
        return None if row is None else wall(row)

    def ratio(self, case: str, peer: str, other: str) -> float | None:
        """Return how many times longer one peer takes than another."""
        one, two = self.wall(case, peer), self.wall(case, other)
        return None if one is None or two is None else one / two

    def number(self, case: str, peer: str, name: str) -> float | None:
        """Return a number beside the samples."""
        row = self.row(case, peer)
        return None if row is None else row.numbers.get(name)

    def fastest_peer(self, case: str) -> str | None:
        """Return the fastest that is neither a gate nor a floor."""
        rows = [
            row
            for (name, peer), row in self._rows.items()
            if name == case and not peer.startswith(NOT_PEERS)
        ]
        return min(rows, key=wall).peer if rows else None

    def p95_s(self, case: str, peer: str) -> float | None:
        """Return the time that one run in twenty may take longer than."""
        row = self.row(case, peer)
        if row is None:
            return None
        walls = sorted(sample.wall_s for sample in row.samples)
        return walls[math.ceil(0.95 * len(walls)) - 1]

    def most_memory_mb(self, gate: str) -> float | None:
        """Return the most that a gate needs over the floor, the dumps apart."""
        over = []
        for (case, peer), row in self._rows.items():
            floor = self.row(case, FLOOR_EACH)
            if peer == gate and floor is not None:
                over.append(of(row, memory) - of(floor, memory))
        return max(over) if over else None


Value = Callable[[Found, str], float | None]


def per_file_us(found: Found, gate: str) -> float | None:
    """Return what one more applied file costs a start that finds nothing to do."""
    many, few = found.wall("noop-10000", gate), found.wall("noop-50", gate)
    return None if many is None or few is None else (many - few) / 9950 * 1e6


def fastest_to_gate(found: Found, gate: str) -> float | None:
    """Return the fastest peer's time for 1,000 in times of the gate's."""
    fastest = found.fastest_peer("apply-1000")
    return None if fastest is None else found.ratio("apply-1000", fastest, gate)


def after_login(found: Found, gate: str) -> float | None:
    """Return the round trips after login of a start that finds nothing to do."""
    counts = [
        found.number(f"noop-{count}", gate, "round_trips") for count in (50, 10000)
    ]
    known = [count for count in counts if count is not None]
    return max(known) - LOGIN_ROUND_TRIPS if known else None


# What is measured, how, and between which bounds it is to be.
GOALS: Final[Sequence[tuple[str, Value, float, float]]] = (
    (
        "1,000 applied: gate / floor, tx each; at most 1.1",
        lambda found, gate: found.ratio("apply-1000", gate, FLOOR_EACH),
        *(0, 1.1),
    ),
    (
        "1,000 applied: fastest peer / gate; above 1",
        fastest_to_gate,
        *(1, math.inf),
    ),
    (
        "200 applied at 20 ms: dbmate / gate; at least 15",
        lambda found, gate: found.ratio("apply-200-20ms", "dbmate", gate),
        *(15, math.inf),
    ),
    ("nothing pending: round trips after login; at most 2", after_login, 0, 2),
    (
        "nothing pending at 10 ms: dbmate / gate; above 1",
        lambda found, gate: found.ratio("noop-50-10ms", "dbmate", gate),
        *(1, math.inf),
    ),
    (
        "nothing pending at 20 ms: dbmate / gate; above 1",
        lambda found, gate: found.ratio("noop-50-20ms", "dbmate", gate),
        *(1, math.inf),
    ),
    ("nothing pending: µs for one more file; at most 40", per_file_us, -math.inf, 40),
    (
        "herd of 50: CPU / 50 single runs; at most 1.3",
        lambda found, gate: found.number("herd-50", gate, "cpu_to_singles"),
        *(0, 1.3),
    ),
    (
        "database late: median s; under 0.1",
        lambda found, gate: found.wall("late", gate),
        *(0, 0.1),
    ),
    (
        "database late: p95 s; under 0.2",
        lambda found, gate: found.p95_s("late", gate),
        *(0, 0.2),
    ),
    (
        "memory over the floor MB, the most of all cases but the dump; at most 10",
        lambda found, gate: found.most_memory_mb(gate),
        *(-math.inf, 10),
    ),
)


def goals_table(*runs: Sequence[Result]) -> Iterator[str]:
    """Return each goal and what each run measured, the runs side by side."""
    finds = [Found(results) for results in runs]
    heads = [
        f"{gate}{f', run {number}' if len(finds) > 1 else ''}"
        for gate in (GATE, GATE_VENV)
        for number in range(1, len(finds) + 1)
    ]
    yield f"| goal | {' | '.join(heads)} |"
    yield f"| --- |{' --: |' * len(heads)}"
    for words, value, low, high in GOALS:
        cells = []
        for gate in (GATE, GATE_VENV):
            for found in finds:
                measured = value(found, gate)
                cells.append(judge(measured, low, high))
        yield f"| {words} | {' | '.join(cells)} |"


def ratios_table(*runs: Sequence[Result]) -> Iterator[str]:
    """Return each peer's time in times of the gate's, the runs side by side."""
    finds = [Found(results) for results in runs]
    heads = [f"run {number}" for number in range(1, len(finds) + 1)]
    yield f"| case | peer | {' | '.join(heads)} |"
    yield f"| --- | --- |{' --: |' * len(heads)}"
    for result in runs[0]:
        measured = [row for row in result.rows if row.samples]
        for row in sorted(measured, key=wall):
            ratios = [found.ratio(result.case, row.peer, GATE) for found in finds]
            cells = ["" if ratio is None else f"{ratio:.2f}" for ratio in ratios]
            yield f"| {result.case} | {row.peer} | {' | '.join(cells)} |"


def judge(measured: float | None, low: float, high: float) -> str:
    """Return a value and whether it is where it is to be."""
    if measured is None:
        return "not measured"
    return show(measured) if low <= measured <= high else f"{show(measured)} **missed**"
