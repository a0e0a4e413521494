"""The bench: what it counts, measures and writes is what happened."""

from __future__ import annotations

import shutil
import sys

from pathlib import Path
from xml.etree import ElementTree as ET

import psycopg
import pytest

from bench import measure, plot, report, work
from bench.cases import Result, Row, all_cases, take_turns
from bench.measure import Command, Runner, Sample
from bench.peers import FLOOR_EACH, GATE, GATE_VENV, Peer
from bench.proxy import CountingProxy
from tests.fix_postgres import SharedServer


MACHINE = {"date": "2026-11-25 12:00 UTC", "processor": "2 x X", "server": "17"}
README = Path(report.__file__).with_name("README.md")
needs_compiler = pytest.mark.skipif(
    not (shutil.which("cc") or shutil.which("gcc")), reason="there is no C compiler"
)


def sample(wall_s: float) -> Sample:
    """Return a sample that took so long."""
    return Sample(exit_code=0, wall_s=wall_s, cpu_s=0.1, rss_mb=40.0, ended_s=1.0)


def result(case: str, count: int, walls: dict[str, float]) -> Result:
    """Return a case's rows, a sample each."""
    rows = tuple(
        Row(peer=name, samples=[sample(wall_s)]) for name, wall_s in walls.items()
    )
    return Result(case=case, title=case, count=count, rtt_ms=0, rows=rows)


@pytest.mark.postgres
def test_a_login_and_a_query_are_five_round_trips(server: SharedServer) -> None:
    """TCP, startup, two of SCRAM, one query: what the least possible start takes."""
    conninfo = server.conninfo
    with CountingProxy(conninfo["host"], int(conninfo["port"])) as proxy:
        address = {"host": proxy.host, "port": str(proxy.port), "sslmode": "disable"}
        made = psycopg.conninfo.make_conninfo(**{**conninfo, **address})
        with psycopg.connect(made, autocommit=True) as conn:
            conn.execute("SELECT 1")
            assert proxy.take() == 5
            conn.execute("SELECT 1")
            assert proxy.take() == 1


def test_two_runs_stand_side_by_side() -> None:
    """A peer that one of them did not have leaves its cell empty."""
    first = [result("noop-50", 50, {GATE: 0.1, "dbmate": 0.05, "tern": 0.2})]
    second = [result("noop-50", 50, {GATE: 0.2, "dbmate": 0.05})]
    assert list(report.ratios_table(first, second))[2:] == [
        "| noop-50 | dbmate | 0.50 | 0.25 |",
        f"| noop-50 | {GATE} | 1.00 | 1.00 |",
        "| noop-50 | tern | 2.00 |  |",
    ]


@needs_compiler
def test_the_launcher_reports_each_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code, time, CPU of children and a peak that is not the parent's."""
    monkeypatch.setattr(measure, "PROGRAM", tmp_path / "launch")
    monkeypatch.setattr(measure, "OUTPUT", tmp_path / "output")
    monkeypatch.setattr(measure, "CACHE", tmp_path)
    measure.build_launcher()
    naps = Command(arguments=("/bin/sh", "-c", "echo said; sleep 0.2; exit 3"))
    ended = Runner().run_many(naps, 3)
    assert [each.exit_code for each in ended] == [3, 3, 3]
    assert all(0.2 <= each.wall_s < 5 for each in ended)
    assert all(0.1 < each.rss_mb < 8 for each in ended)
    assert measure.last_output() == "said\nsaid\nsaid"
    work_loop = "x = bytearray(50 << 20)\nfor _ in range(3_000_000): pass"
    works = Runner().run(Command(arguments=(sys.executable, "-c", work_loop)))
    assert works.cpu_s > 0.01
    assert 50 < works.rss_mb < 100


@needs_compiler
def test_a_command_that_does_not_end_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peer that hangs costs its own row, not the run."""
    monkeypatch.setattr(measure, "PROGRAM", tmp_path / "launch")
    monkeypatch.setattr(measure, "OUTPUT", tmp_path / "output")
    monkeypatch.setattr(measure, "CACHE", tmp_path)
    measure.build_launcher()
    hangs = Command(arguments=("/bin/sleep", "60"))
    (ended,) = Runner(timeout_s=0.3).run_many(hangs, 1)
    assert ended.exit_code == measure.TIMEOUT_CODE


def test_peers_take_turns_and_a_slow_one_has_one() -> None:
    """A B C A B C; what is much slower than the gate, or fails, is not asked again."""
    walls = {GATE: 1.0, "quick": 0.5, "slow": 30.0}
    turns: list[str] = []

    def once(peer: Peer) -> Sample:
        turns.append(peer.name)
        return sample(walls[peer.name])

    peers = [
        Peer(name=name, version="", form=work.write_plain, start=never)
        for name in walls
    ]
    rows = take_turns(peers, 3, once)
    assert turns == [GATE, "quick", "slow", GATE, "quick", GATE, "quick"]
    assert [len(row.samples) for row in rows.values()] == [3, 3, 1]


def never(_folder: Path, _target: object) -> Command:
    """Start nothing."""
    raise AssertionError


def test_goals_are_judged_by_the_samples() -> None:
    """A ratio within its bound is shown, one beyond it is called missed."""
    walls = {GATE: 1.0, GATE_VENV: 1.2, FLOOR_EACH: 1.0, "dbmate": 1.1}
    table = list(report.goals_table([result("apply-1000", 1000, walls)]))
    floor, fastest = table[2], table[3]
    assert floor.endswith("at most 1.1 | 1.00 | 1.20 **missed** |")
    assert fastest.endswith("above 1 | 1.10 | 0.917 **missed** |")
    assert table[4].endswith("| not measured | not measured |")


def test_a_table_is_sorted_and_against_the_gate() -> None:
    """The fastest first; what failed says why."""
    found = result("noop-50", 50, {GATE: 0.1, "dbmate": 0.02})
    failed = Row(peer="tern", fault="exit code 1: no | such\nthing")
    with_fault = Result(
        case="noop-50", title="", count=50, rtt_ms=0, rows=(*found.rows, failed)
    )
    lines = list(report.to_table(with_fault))
    assert [line.split(" | ")[0] for line in lines[2:]] == [
        "| dbmate",
        f"| {GATE}",
        "| tern",
    ]
    assert lines[2].endswith("| 0.20 |")
    assert "exit code 1: no / such thing" in lines[4]


def test_the_plot_is_a_picture_of_the_medians() -> None:
    """Well-formed, with a line for each peer that has more than one point."""
    results = [
        result("apply-200", 200, {GATE: 0.5, "dbmate": 0.8}),
        result("apply-1000", 1000, {GATE: 2.0, "dbmate": 4.0, "yoyo": 12.0}),
    ]
    root = ET.fromstring(plot.to_svg(results, MACHINE))  # noqa: S314 -- our own
    space = {"svg": "http://www.w3.org/2000/svg"}
    assert len(root.findall(".//svg:polyline", space)) == 2
    words = [text.text for text in root.findall(".//svg:text", space)]
    assert {GATE, "dbmate"} <= set(words)
    assert "yoyo" not in words


def test_each_form_holds_every_migration(tmp_path: Path) -> None:
    """The same SQL for every tool, however its folder looks."""
    bodies = [work.body("small", number) for number in (1, 2, 3)]
    for writer in (
        *(work.write_plain, work.write_dbmate, work.write_goose, work.write_migrate),
        *(work.write_tern, work.write_flyway, work.write_liquibase),
        *(work.write_alembic, work.write_node_pg_migrate),
        *(work.write_graphile_migrate, work.write_sqitch),
    ):
        folder = tmp_path / writer.__name__
        folder.mkdir()
        writer(folder, bodies)
        files = [path for path in folder.rglob("*") if path.is_file()]
        text = "\n".join(path.read_text("utf-8") for path in files)
        for number in (1, 2, 3):
            assert text.count(f"CREATE TABLE small_{number:05d}") == 1, writer


def test_the_page_names_every_case() -> None:
    """README's table of cases is that of the code."""
    page = README.read_text("utf-8")
    for case in all_cases():
        name = case.name.removesuffix(f"-{case.rtt_ms:g}ms")
        assert f"`{name}`" in page, name
