"""
What a start of the gate costs when nothing is pending, and what each idea changes.

    bench/startup.py DSN [RUNS]

Needs root and a Docker engine: builds the image on each Python, and beside it a plain
one (`pip install` on the public base), unpacks them, and starts their processes in
turn on this machine, without the cost of a container, at real-time priority. The least
time of all runs is compared: other load only ever adds to it.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.13", "3.14", "3.15")
PYTHON = "/usr/local/bin/python3"
DOCKER = shutil.which("docker") or "docker"
RUNS = 20
# The public base, the locked packages and the gate, with byte code, as most images are.
PLAIN = """
FROM python:{version}-slim
COPY requirements/run.txt /run.txt
RUN pip install -q --no-deps --require-hashes -r /run.txt \\
    && python -m compileall -q /usr/local/lib/python{version} || true
COPY entrypoint.py /gate/
COPY migration_gate /gate/migration_gate
RUN python -m compileall -q /gate
"""
BARE = "import psycopg; psycopg.connect({dsn!r}).execute('select 1')"
IN_THE_IMAGE = "import sys; sys.path.insert(0, '/app')\n"
LAZY = ("-X", "lazy_imports=all")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A process to start: in which root, with which arguments."""

    name: str
    root: Path
    arguments: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one run took, in milliseconds."""

    wall_ms: float
    cpu_ms: float


def unpack(tag: str, folder: Path) -> Path:
    """Put an image's files into a folder."""
    folder.mkdir()
    container = run_docker("create", tag)
    archive = folder.with_suffix(".tar")
    run_docker("export", "--output", str(archive), container)
    run_docker("rm", container)
    shutil.unpack_archive(archive, folder, filter="fully_trusted")
    shutil.copytree(ROOT / "migrations", folder / "migrations", dirs_exist_ok=True)
    return folder


def run_docker(*arguments: str, text: str = "") -> str:
    """Run the client."""
    return subprocess.run(
        [DOCKER, *arguments], check=True, input=text, text=True, capture_output=True
    ).stdout.strip()


def build(version: str, folder: Path, dsn: str) -> list[Variant]:
    """Build both images on one Python and return what is to be measured."""
    base = f"PYTHON=python:{version}-slim"
    slim, plain = f"startup-bench:{version}", f"startup-bench:{version}-plain"
    run_docker("build", "-q", "--build-arg", base, "-t", slim, str(ROOT))
    dockerfile = folder / "Dockerfile"
    dockerfile.write_text(PLAIN.format(version=version))
    # The image's .dockerignore lets through what this one needs too.
    run_docker("build", "-q", "-f", str(dockerfile), "-t", plain, str(ROOT))
    image = unpack(slim, folder / version)
    other = unpack(plain, folder / f"{version}-plain")
    bare = BARE.format(dsn=dsn)
    entry = (PYTHON, "-E", "-S", "-X", "utf8")
    rows = {
        "bare driver, plain image": (other, (PYTHON, "-c", bare)),
        "gate, plain image": (other, (PYTHON, "/gate/entrypoint.py")),
        "bare driver, our image, no options": (image, (PYTHON, "-c", bare)),
        "bare driver, our image": (image, (*entry, "-c", IN_THE_IMAGE + bare)),
        "gate, our image": (image, (*entry, "/app/entrypoint.pyc")),
    }
    if version == "3.15":
        rows |= {
            "bare driver, our image, lazy": (
                image,
                (*entry, *LAZY, "-c", IN_THE_IMAGE + bare),
            ),
            "gate, our image, lazy": (image, (*entry, *LAZY, "/app/entrypoint.pyc")),
            "gate, plain image, lazy": (other, (PYTHON, *LAZY, "/gate/entrypoint.py")),
        }
    rows["interpreter alone"] = (image, (*entry, "-c", "pass"))
    return [
        Variant(name=f"{version} {name}", root=root, arguments=arguments)
        for name, (root, arguments) in rows.items()
    ]


def start(variant: Variant, environ: Mapping[str, str]) -> Cost:
    """Run one process to its end."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started_s = time.perf_counter()
    pid = os.fork()
    if not pid:
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
            os.chroot(variant.root)
            os.chdir("/")
            null = os.open("/null", os.O_WRONLY | os.O_CREAT)
            os.dup2(null, 1)
            os.execve(variant.arguments[0], variant.arguments, environ)  # noqa: S606
        finally:
            os._exit(127)
    _, status = os.waitpid(pid, 0)
    wall_s = time.perf_counter() - started_s
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if os.waitstatus_to_exitcode(status):
        sys.exit(f"{variant.name} failed: {status}")
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(wall_ms=wall_s * 1000, cpu_ms=cpu_s * 1000)


def main(dsn: str, runs: int) -> None:
    """Measure in random order, and print a row for each variant."""
    environ = {
        "DATABASE_URL": dsn,
        "GATE_MIGRATIONS": "/migrations",
        "PYTHONTZPATH": "/usr/share/zoneinfo",
        "PYTHONPATH": "/app",  # for the bare driver without options; -E leaves it out
    }
    with tempfile.TemporaryDirectory() as name:
        variants = [
            variant
            for version in PYTHONS
            for variant in build(version, Path(name), dsn)
        ]
        costs: dict[str, list[Cost]] = {variant.name: [] for variant in variants}
        for number in range(runs + 1):
            for variant in random.sample(variants, len(variants)):
                cost = start(variant, environ)
                if number:  # the first fills the page cache, and migrates
                    costs[variant.name].append(cost)
    print(f"{'':42} {'wall ms':>8} {'CPU ms':>8}")  # noqa: T201
    for variant in variants:
        each = costs[variant.name]
        wall_ms = min(cost.wall_ms for cost in each)
        cpu_ms = min(cost.cpu_ms for cost in each)
        print(f"{variant.name:42} {wall_ms:8.1f} {cpu_ms:8.1f}")  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1], int(*sys.argv[2:]) or RUNS)
