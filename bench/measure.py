"""
Run a command and measure it: time, CPU, memory, and the server's CPU.

Everything goes through `launch`, a program of a few kilobytes; see there for why.
"""

from __future__ import annotations

import os
import shutil
import signal
import statistics
import subprocess
import time

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.install import CACHE


SOURCE: Final = Path(__file__).with_name("launch.c")
PROGRAM: Final = CACHE / "launch"
OUTPUT: Final = CACHE / "output.log"
TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")
TIMEOUT_CODE: Final = 124
SETTLE_S: Final = 0.05


class BenchError(Exception):
    """The bench cannot do its work; says what is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What is started: arguments, environment, and where."""

    arguments: tuple[str, ...]
    environ: Mapping[str, str] = field(default_factory=dict)
    folder: Path = Path("/")
    root: Path = Path("/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What one start of a command cost; `ended_s` is on the monotonic clock."""

    exit_code: int
    wall_s: float
    cpu_s: float
    rss_mb: float
    ended_s: float
    server_cpu_s: float | None = None


def build_launcher() -> None:
    """Compile `launch.c`, unless it was done before."""
    if PROGRAM.exists() and PROGRAM.stat().st_mtime > SOURCE.stat().st_mtime:
        return
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise BenchError("bench/launch.c needs a C compiler: there is no cc here")
    CACHE.mkdir(parents=True, exist_ok=True)
    subprocess.run([compiler, "-O2", "-o", str(PROGRAM), str(SOURCE)], check=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """
    Starts commands, here or at a distance.

    `prefix` is what the launcher itself is started with, so that its cost is not
    measured; `server_pid` is the postmaster's, 0 where its CPU is not asked for.
    """

    prefix: tuple[str, ...] = ()
    server_pid: int = 0
    timeout_s: float = 300.0

    def start(self, command: Command, *, count: int = 1) -> subprocess.Popen[str]:
        """Start a command, `count` times at once, without waiting for it."""
        PROGRAM.parent.mkdir(parents=True, exist_ok=True)
        return subprocess.Popen(
            [
                *self.prefix,
                *(str(PROGRAM), str(count), str(OUTPUT), str(command.root)),
                *command.arguments,
            ],
            env=dict(command.environ),
            cwd=command.folder,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def finish(self, process: subprocess.Popen[str]) -> list[Sample]:
        """Wait for the end of all its starts; those that take too long are killed."""
        try:
            output, _ = process.communicate(timeout=self.timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return [
                Sample(
                    exit_code=TIMEOUT_CODE,
                    wall_s=self.timeout_s,
                    cpu_s=0.0,
                    rss_mb=0.0,
                    ended_s=0.0,
                )
            ]
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        return [parse_line(line) for line in output.splitlines()]

    def run_many(self, command: Command, count: int) -> list[Sample]:
        """Start a command `count` times at once and wait for all."""
        OUTPUT.unlink(missing_ok=True)
        return self.finish(self.start(command, count=count))

    def run(self, command: Command) -> Sample:
        """Run a command once."""
        before_s = read_tree_cpu_s(self.server_pid)
        (sample,) = self.run_many(command, 1)
        if self.server_pid:
            time.sleep(SETTLE_S)  # its backend has to end and be counted
        after_s = read_tree_cpu_s(self.server_pid)
        server_cpu_s = after_s - before_s if self.server_pid else None
        return Sample(
            exit_code=sample.exit_code,
            wall_s=sample.wall_s,
            cpu_s=sample.cpu_s,
            rss_mb=sample.rss_mb,
            ended_s=sample.ended_s,
            server_cpu_s=server_cpu_s,
        )


def parse_line(line: str) -> Sample:
    """Read one line of the launcher's."""
    code, started_ns, ended_ns, cpu_us, rss_kb = map(int, line.split())
    return Sample(
        exit_code=code,
        wall_s=(ended_ns - started_ns) / 1e9,
        cpu_s=cpu_us / 1e6,
        rss_mb=rss_kb / 1024,
        ended_s=ended_ns / 1e9,
    )


def read_tree_cpu_s(pid: int) -> float:
    """Return the CPU time of a process, its living children and its dead ones."""
    if not pid:
        return 0.0
    ticks = sum(read_stat(pid)[11:15])
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            stat = read_stat(int(path.name))
            if stat and stat[1] == pid:
                ticks += sum(stat[11:13])
    return ticks * TICK_S


def read_stat(pid: int) -> list[int]:
    """Return the numbers of /proc/PID/stat after the state; none if it is gone."""
    try:
        text = Path("/proc", str(pid), "stat").read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return []
    fields = text.rpartition(")")[2].split()
    return [0, *map(int, fields[1:])]


def last_output(limit: int = 400) -> str:
    """Return the end of what the last command printed."""
    try:
        return OUTPUT.read_text("utf-8", "replace").strip()[-limit:]
    except OSError:
        return ""


def median(values: Sequence[float]) -> float:
    """Return the middle value; 0 of none."""
    return statistics.median(values) if values else 0.0
