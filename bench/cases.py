"""
The cases: what is measured, for whom, and how often.

Peers take turns (A B C A B C), so that what else the machine does meets all of them.
One that takes much longer than the gate has one turn: the run has to end.
"""

from __future__ import annotations

import dataclasses
import statistics

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench import dump, large, late, link, stall
from bench.measure import Runner, Sample, last_output
from bench.peers import FLOOR_EACH, GATE, GATE_VENV, GATES, Peer
from bench.proxy import CountingProxy
from bench.server import Databases, Target
from bench.work import Kind, folder_for, write_repeatable


SLOW_FACTOR: Final = 20.0
SLOW_S: Final = 2.5
HERD_MIGRATIONS: Final = 50
GO_TOOLS: Final = ("dbmate", "goose", "migrate", "tern")
FLOORS: Final = (FLOOR_EACH, "floor, 1 tx", "floor, pipelined")
INIT_CONTAINER: Final = "dbmate --wait --migration-lock"
POLLS_OFTEN: Final = "dbmate --wait, 100 ms"


@dataclass(slots=True, kw_only=True)
class Row:
    """One peer in one case: samples, or why there are none, and numbers beside them."""

    peer: str
    samples: list[Sample] = field(default_factory=list)
    numbers: dict[str, float] = field(default_factory=dict)
    fault: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The rows of a case, in the order of the peers."""

    case: str
    title: str
    count: int
    rtt_ms: float
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What a case needs: the server, the link, who takes part, and how often."""

    databases: Databases
    data: Path
    link: link.Link | None
    peers: tuple[Peer, ...]
    rounds: int
    say: Callable[[str], None]

    def runner(self, rtt_ms: float = 0) -> Runner:
        """Return what starts commands at a distance; without one, right here."""
        pid = self.databases.server.pid
        if not rtt_ms:
            return Runner(server_pid=pid)
        assert self.link is not None  # noqa: S101 -- cases without it are left out
        self.link.set_rtt_ms(rtt_ms)
        return Runner(prefix=self.link.prefix, server_pid=pid)

    def chosen(self, names: Sequence[str]) -> list[Peer]:
        """Return the peers of these names; all without any."""
        there = {peer.name for peer in self.peers}
        wanted = set(names or there)
        if GATE in wanted - there:
            wanted.add(GATE_VENV)  # without the image, the clone's stands for it
        return [peer for peer in self.peers if peer.name in wanted]

    def place(self, target: Target, rtt_ms: float) -> Target:
        """Return a database's address as it is seen from the other end."""
        return target.at(link.HERE, target.port) if rtt_ms else target


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Something to measure; `factor` says how many of the usual rounds it gets."""

    name: str
    title: str
    measure: Callable[[Bench, Case], Iterator[Row]]
    peers: tuple[str, ...] = ()
    kind: Kind = "small"
    count: int = 0
    rtt_ms: float = 0
    factor: float = 1.0

    def rounds(self, bench: Bench) -> int:
        """Return how many turns each peer has."""
        return max(1, round(bench.rounds * self.factor))


def take_turns(
    peers: Sequence[Peer],
    rounds: int,
    once: Callable[[Peer], Sample],
    *,
    all_turns: bool = False,
) -> dict[str, Row]:
    """Measure peers in alternation; one that fails, or is slow, has one turn."""
    rows = {peer.name: Row(peer=peer.name) for peer in peers}
    left = list(peers)
    for _ in range(rounds):
        for peer in left:
            sample, row = once(peer), rows[peer.name]
            if sample.exit_code:
                row.fault = f"exit code {sample.exit_code}: {last_output(160)}"
            else:
                row.samples.append(sample)
        gate_s = float("inf") if all_turns else find_gate_s(rows)
        limit_s = min(SLOW_FACTOR * gate_s, SLOW_S + gate_s)
        left = [peer for peer in left if may_go_on(rows[peer.name], limit_s)]
    return rows


def find_gate_s(rows: Mapping[str, Row]) -> float:
    """Return the gate's own time, as far as it is known."""
    gates = [
        row.samples[0].wall_s
        for row in rows.values()
        if row.samples and row.peer in GATES
    ]
    return min(gates, default=float("inf"))


def may_go_on(row: Row, limit_s: float) -> bool:
    """Whether a peer has another turn."""
    return not row.fault and row.samples[-1].wall_s <= limit_s


def nothing_pending(bench: Bench, case: Case) -> Iterator[Row]:
    """Measure whole processes that find everything applied."""
    peers = bench.chosen(case.peers)
    here, far = bench.runner(), bench.runner(case.rtt_ms)
    targets = {peer.name: bench.databases.make() for peer in peers}
    folders = {
        peer.name: folder_for(peer.form, case.kind, case.count) for peer in peers
    }
    failed = {}
    for peer in peers:
        target = targets[peer.name]
        applied = here.run(peer.start(folders[peer.name], target))
        if applied.exit_code:
            failed[peer.name] = f"exit code {applied.exit_code}: {last_output(160)}"
    bench.databases.settle()
    able = [peer for peer in peers if peer.name not in failed]

    def once(peer: Peer) -> Sample:
        target = bench.place(targets[peer.name], case.rtt_ms)
        return far.run(peer.start(folders[peer.name], target))

    for peer in able:  # fills caches; not counted
        once(peer)
    rows = take_turns(able, case.rounds(bench), once)
    for peer in peers:
        row = rows.get(peer.name) or Row(peer=peer.name, fault=failed[peer.name])
        if not row.fault and not case.rtt_ms:
            start = peer.start
            row.numbers["round_trips"] = count_round_trips(
                bench, targets[peer.name], folders[peer.name], start
            )
        bench.databases.drop(targets[peer.name])
        yield row


def count_round_trips(
    bench: Bench,
    target: Target,
    folder: Path,
    start: Callable[[Path, Target], Any],
) -> int:
    """Run a command once through the counting proxy."""
    with CountingProxy(target.host, target.port) as proxy:
        bench.runner().run(start(folder, target.at(proxy.host, proxy.port)))
        return proxy.take()


def repeat_all(bench: Bench, case: Case) -> Iterator[Row]:
    """Measure whole processes that find the text of every repeatable file changed."""
    runner = bench.runner(case.rtt_ms)
    first = folder_for(write_repeatable, "view", case.count)
    second = folder_for(write_repeatable, "view again", case.count)

    def once(peer: Peer) -> Sample:
        target = bench.databases.make()
        bench.say(f"{case.name}: {peer.name}")
        applied = bench.runner().run(peer.start(first, target))
        if applied.exit_code:
            return applied
        sample = runner.run(peer.start(second, bench.place(target, case.rtt_ms)))
        if not sample.exit_code:
            require_repeated(bench, target, case.count)
        bench.databases.drop(target)
        return sample

    yield from take_turns(bench.chosen(case.peers), case.rounds(bench), once).values()


def require_repeated(bench: Bench, target: Target, count: int) -> None:
    """Fail when a tool says that it is done and a view is as it was."""
    query = "SELECT count(*) FROM pg_views WHERE definition LIKE '%second%'"
    ((found,),) = bench.databases.ask(target, query)
    if found != count:
        raise AssertionError(f"{found} of {count} views are new")


FEW, MORE = 10, 110


def apply_all(bench: Bench, case: Case) -> Iterator[Row]:
    """Measure whole processes that apply everything to an empty database."""
    peers = bench.chosen(case.peers)
    runner = bench.runner(case.rtt_ms)

    def once(peer: Peer) -> Sample:
        folder = folder_for(peer.form, case.kind, case.count)
        target = bench.databases.make()
        place = bench.place(target, case.rtt_ms)
        bench.say(f"{case.name}: {peer.name}")
        sample = runner.run(peer.start(folder, place))
        if not sample.exit_code:
            require_applied(bench, target, case.count)
        return sample

    rows = take_turns(peers, case.rounds(bench), once)
    for peer in peers:
        row = rows[peer.name]
        if not row.fault and case.name == "apply-200":
            row.numbers["round_trips_each"] = round_trips_each(bench, peer)
        yield row


def undo_all(bench: Bench, case: Case) -> Iterator[Row]:
    """Measure what undoes everything that the same tool has applied."""
    peers = [peer for peer in bench.chosen(case.peers) if peer.back and peer.back_form]
    here, far = bench.runner(), bench.runner(case.rtt_ms)

    def once(peer: Peer) -> Sample:
        assert peer.back is not None  # noqa: S101 -- they are chosen so
        assert peer.back_form is not None  # noqa: S101
        folder = folder_for(peer.back_form, case.kind, case.count)
        target = bench.databases.make()
        bench.say(f"{case.name}: {peer.name}")
        applied = here.run(peer.start(folder, target))
        if applied.exit_code:
            return applied
        require_applied(bench, target, case.count)
        sample = far.run(peer.back(folder, bench.place(target, case.rtt_ms)))
        if not sample.exit_code:
            require_applied(bench, target, 0)
        return sample

    rows = take_turns(peers, case.rounds(bench), once)
    yield from (rows[peer.name] for peer in peers)


def round_trips_each(bench: Bench, peer: Peer) -> float:
    """Return the round trips of one more migration: of many less those of a few."""
    counts = []
    for count in (FEW, MORE):
        folder = folder_for(peer.form, "small", count)
        target = bench.databases.make()
        counts.append(count_round_trips(bench, target, folder, peer.start))
    return (counts[1] - counts[0]) / (MORE - FEW)


def require_applied(bench: Bench, target: Target, count: int) -> None:
    """Fail when a tool says that it is done and is not."""
    query = "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relname ~ '^small_'"
    ((found,),) = bench.databases.ask(target, query)
    if found != count:
        raise AssertionError(f"{found} of {count} tables are there")


def herd(bench: Bench, case: Case) -> Iterator[Row]:
    """Start many at once on an empty database, and the same number one by one."""
    runner = bench.runner()
    peers = bench.chosen(case.peers)
    rows = {peer.name: Row(peer=peer.name) for peer in peers}
    ratios: dict[str, list[float]] = {peer.name: [] for peer in peers}
    for _ in range(case.rounds(bench)):
        for peer in peers:
            bench.say(f"{case.name}: {peer.name}")
            together, opened, singles_cpu_s = run_herd(bench, runner, peer, case.count)
            row = rows[peer.name]
            row.samples.append(together)
            row.numbers["exit_0"] = min(opened, row.numbers.get("exit_0", opened))
            ratios[peer.name].append(together.cpu_s / singles_cpu_s)
    for row in rows.values():
        row.numbers["cpu_to_singles"] = statistics.median(ratios[row.peer])
        yield row


def run_herd(
    bench: Bench, runner: Runner, peer: Peer, count: int
) -> tuple[Sample, int, float]:
    """
    Return what a herd cost, how many ended well, and what as many singles cost.

    Singles are measured before and after the herd: what else the machine does comes in
    waves that are longer than a herd.
    """
    folder = folder_for(peer.form, "small", HERD_MIGRATIONS)
    alone, shared = bench.databases.make(), bench.databases.make()

    def run_later() -> list[float]:
        return [runner.run(peer.start(folder, alone)).cpu_s for _ in range(5)]

    first = runner.run(peer.start(folder, alone))
    before = run_later()
    each = runner.run_many(peer.start(folder, shared), count)
    later_s = statistics.median([*before, *run_later()])
    singles_cpu_s = first.cpu_s + (count - 1) * later_s
    require_applied(bench, shared, HERD_MIGRATIONS)
    first_s = min(sample.ended_s - sample.wall_s for sample in each)
    last_s = max(sample.ended_s for sample in each)
    together = Sample(
        exit_code=0,
        wall_s=last_s - first_s,
        cpu_s=sum(sample.cpu_s for sample in each),
        rss_mb=max(sample.rss_mb for sample in each),
        ended_s=last_s,
    )
    opened = sum(sample.exit_code == 0 for sample in each)
    return together, opened, singles_cpu_s


def comes_late(bench: Bench, case: Case) -> Iterator[Row]:
    """Measure from the moment the database accepts connections to the tool's end."""
    peers = [peer for peer in bench.chosen(case.peers) if peer.waits]
    with late.LateServer(bench.data) as server:
        folders = {}
        for peer in peers:
            folders[peer.name] = folder_for(peer.form, "small", HERD_MIGRATIONS)
            server.prepare(peer, folders[peer.name])

        def once(peer: Peer) -> Sample:
            bench.say(f"{case.name}: {peer.name}")
            sample = server.measure(peer, folders[peer.name])
            return dataclasses.replace(sample, server_cpu_s=None)

        rows = take_turns(peers, case.rounds(bench), once, all_turns=True)
        yield from rows.values()


def apply_dump(bench: Bench, case: Case) -> Iterator[Row]:
    """Apply one large file that pg_dump wrote."""
    runner = bench.runner()
    copies = case.name == "dump"
    peers = [p for p in bench.chosen(case.peers) if p.copies or not copies]

    def once(peer: Peer) -> Sample:
        folder = dump.folder_for(bench.databases, peer, copies=copies)
        target = bench.databases.make()
        bench.say(f"{case.name}: {peer.name}")
        sample = runner.run(peer.start(folder, target))
        if not sample.exit_code:
            query = "SELECT count(*) FROM public.measurement"
            ((rows,),) = bench.databases.ask(target, query)
            assert rows == dump.ROWS, rows  # noqa: S101 -- a bench of nothing
        bench.databases.drop(target)
        return sample

    yield from take_turns(peers, case.rounds(bench), once).values()


def apply_large(bench: Bench, case: Case) -> Iterator[Row]:
    """Apply one large file that no dump is."""
    runner = bench.runner()

    def once(peer: Peer) -> Sample:
        folder = large.folder_for(peer, case.name)
        target = bench.databases.make()
        bench.say(f"{case.name}: {peer.name}")
        sample = runner.run(peer.start(folder, target))
        bench.databases.drop(target)
        return sample

    yield from take_turns(bench.chosen(case.peers), case.rounds(bench), once).values()


def live_traffic(bench: Bench, case: Case) -> Iterator[Row]:
    """Measure what an application's queries suffer while a migration waits."""
    runner = bench.runner()
    traffic = stall.CHAIN if case.name == "stall-chain" else stall.ONE_READER
    for peer in bench.chosen(case.peers):
        bench.say(f"{case.name}: {peer.name}")
        sample, numbers = stall.measure(bench.databases, runner, peer, traffic)
        row = Row(peer=peer.name, numbers=numbers)
        if sample.exit_code:
            row.fault = f"exit code {sample.exit_code}: {last_output(160)}"
        else:
            row.samples.append(sample)
        yield row


NOOP_FAR_PEERS: Final = (*GATES, FLOOR_EACH, *GO_TOOLS, INIT_CONTAINER, "psql")
FAR_PEERS: Final = (*GATES, *FLOORS, "dbmate", "goose")
LONG_PEERS: Final = (*GATES, FLOOR_EACH, "dbmate", "goose")
MOST_PEERS: Final = (
    *(*GATES, *FLOORS, *GO_TOOLS, "flyway", "liquibase", "yoyo", "alembic"),
    *("node-pg-migrate", "graphile-migrate"),
)


def all_cases() -> list[Case]:
    """Return every case, in the order of the report."""
    # ANN401: what is left open are fields of Case.

    def noop(count: int, rtt_ms: float, **more: Any) -> Case:  # noqa: ANN401
        where = f", {rtt_ms:g} ms away" if rtt_ms else ""
        return Case(
            name=f"noop-{count}" + (f"-{rtt_ms:g}ms" if rtt_ms else ""),
            title=f"Nothing pending, {count:,} applied{where}",
            measure=nothing_pending,
            count=count,
            rtt_ms=rtt_ms,
            **more,
        )

    def applied(count: int, rtt_ms: float, **more: Any) -> Case:  # noqa: ANN401
        where = f", {rtt_ms:g} ms away" if rtt_ms else ""
        return Case(
            name=f"apply-{count}" + (f"-{rtt_ms:g}ms" if rtt_ms else ""),
            title=f"{count:,} small migrations applied{where}",
            measure=apply_all,
            count=count,
            rtt_ms=rtt_ms,
            **more,
        )

    return [
        noop(50, 0, factor=3),
        noop(50, 2, factor=3, peers=NOOP_FAR_PEERS),
        noop(50, 10, factor=5, peers=NOOP_FAR_PEERS),
        noop(50, 20, factor=3, peers=NOOP_FAR_PEERS),
        noop(1000, 0, factor=2, peers=LONG_PEERS, kind="trivial"),
        noop(10000, 0, factor=2, peers=LONG_PEERS, kind="trivial"),
        applied(200, 0, peers=(*MOST_PEERS, "sqitch", "psql")),
        applied(200, 2, factor=0.3, peers=FAR_PEERS),
        applied(200, 20, peers=FAR_PEERS),
        *(
            Case(
                name="repeat-200" + (f"-{rtt_ms}ms" if rtt_ms else ""),
                title="200 repeatable migrations whose text has changed"
                + (f", {rtt_ms} ms away" if rtt_ms else ""),
                measure=repeat_all,
                count=200,
                rtt_ms=rtt_ms,
                peers=(*GATES, "flyway"),
            )
            for rtt_ms in (0, 20)
        ),
        applied(1000, 0, factor=2, peers=MOST_PEERS),
        applied(10000, 0, factor=0.3, peers=(GATE, FLOOR_EACH, "dbmate")),
        *(
            Case(
                name="undo-200" + (f"-{rtt_ms:g}ms" if rtt_ms else ""),
                title="200 small migrations undone"
                + (f", {rtt_ms:g} ms away" if rtt_ms else ""),
                measure=undo_all,
                count=200,
                rtt_ms=rtt_ms,
                peers=(*GATES, "dbmate", "goose", "migrate"),
            )
            for rtt_ms in (0, 20)
        ),
        *(
            Case(
                name=f"herd-{count}",
                title=f"{count} at once, empty database, 50 small migrations",
                measure=herd,
                count=count,
                factor=1.5,
                peers=(*GATES, INIT_CONTAINER, "dbmate", "migrate", "tern"),
            )
            for count in (20, 50)
        ),
        Case(
            name="late",
            title="Database comes up 3 s late: from “accepts connections” to exit",
            measure=comes_late,
            factor=1.7,
            peers=(*GATES, INIT_CONTAINER, POLLS_OFTEN),
        ),
        Case(
            name="dump",
            title="A dump of 100 MB as a migration (COPY)",
            measure=apply_dump,
            factor=0.7,
            peers=(*GATES, "psql", "flyway"),
        ),
        Case(
            name="dump-inserts",
            title="The same as INSERTs of 100 rows",
            measure=apply_dump,
            factor=0.3,
            peers=(GATE, "dbmate", "goose", "migrate", "flyway"),
        ),
        *(
            Case(
                name=f"large-{name}",
                title=title,
                measure=apply_large,
                factor=0.3,
                peers=(GATE, "dbmate", "psql"),
            )
            for name, title in (
                ("statement", "One INSERT of 21 MB"),
                ("result", "A SELECT of five million rows"),
                ("count", "A million INSERTs in one file"),
            )
        ),
        Case(
            name="stall",
            title="Live traffic: ALTER TABLE behind a reader of 8 s",
            measure=live_traffic,
            peers=(GATE, "dbmate", "psql"),
        ),
        Case(
            name="stall-chain",
            title="Live traffic: four tables, readers of 1.5 to 6 s, lock_timeout 2 s",
            measure=live_traffic,
            peers=(GATE, "dbmate", "psql"),
        ),
    ]


def run_case(bench: Bench, case: Case) -> Result:
    """Measure one case."""
    bench.databases.settle()
    return Result(
        case=case.name,
        title=case.title,
        count=case.count,
        rtt_ms=case.rtt_ms,
        rows=tuple(case.measure(bench, case)),
    )
