"""
What an extra of the image costs, plain and with each: size, start-up, memory.

    .venv/bin/python -m bench.identities [RUNS]

Needs root and a Docker engine: builds the image without and with each extra, unpacks
them, and starts their processes in turn, once with a password and once with the
identity that the extra is for; endpoints and servers are those of the tests. Nothing is
pending. Prints medians.
"""

from __future__ import annotations

import os
import random
import shutil
import statistics
import sys
import tempfile
import time

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.startup import LAZY, PYTHON, ROOT, run_docker, unpack
from tests.identities import WAYS, Servers, Stage, servers, staged


RUNS: Final = 20
EXTRAS: Final = ("", "azure", "aws", "google", "azure aws google")
# One way in of each extra, which needs no file.
CHOSEN: Final = {
    "azure": "Azure, Container Apps and App Service",
    "aws": "AWS, ECS",
    "google": "Google, metadata server",
}
START: Final = (PYTHON, "-E", "-S", "-X", "utf8", *LAZY, "/app/entrypoint.pyc")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A start to measure: in which root, with which settings."""

    name: str
    root: Path
    environ: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one start took: milliseconds, and MiB at the most."""

    wall_ms: float
    cpu_ms: float
    memory_mib: float


def build(extra: str, folder: Path) -> tuple[Path, float]:
    """Build an image; return where it is unpacked, and its size in MB."""
    tag = f"extras-bench:{extra.replace(' ', '-') or 'plain'}"
    run_docker("build", "-q", "--build-arg", f"EXTRAS={extra}", "-t", tag, str(ROOT))
    size = float(run_docker("image", "inspect", "--format", "{{.Size}}", tag)) / 1e6
    return unpack(tag, folder / (extra.replace(" ", "-") or "plain")), size


def settings(stage: Stage, login: str) -> dict[str, str]:
    """Return a gate's settings, by password or by an identity, over TLS."""
    if login != "password":
        return WAYS[CHOSEN[login]].prepare(stage)[0]
    role = stage.mint().role
    embedded = role.server.embedded
    assert embedded is not None  # noqa: S101  # the tests' own server
    mode = {"POSTGRES_SSL_MODE": "verify-full", "PGSSLROOTCERT": str(embedded.ca)}
    return {**role.environ(), **mode}


def place(environ: Mapping[str, str], root: Path) -> dict[str, str]:
    """Copy the root certificate into a root, and name it there."""
    name = f"/{Path(environ['PGSSLROOTCERT']).parent.name}.pem"
    shutil.copyfile(environ["PGSSLROOTCERT"], root / name[1:])
    shutil.copyfile("/etc/hosts", root / "etc/hosts")
    return {
        **environ,
        "PGSSLROOTCERT": name,
        "GATE_MIGRATIONS": "/migrations",
        "GATE_WAIT_TIMEOUT": "5s",
        "PYTHONTZPATH": "/usr/share/zoneinfo",
    }


def start(variant: Variant) -> Cost:
    """Run one process to its end."""
    started_s = time.perf_counter()
    pid = os.fork()
    if not pid:
        try:
            os.chroot(variant.root)
            os.chdir("/")
            null = os.open("/null", os.O_WRONLY | os.O_CREAT)
            os.dup2(null, 1)
            os.execve(START[0], START, variant.environ)  # noqa: S606
        finally:
            os._exit(127)
    _, status, used = os.wait4(pid, 0)
    wall_s = time.perf_counter() - started_s
    if os.waitstatus_to_exitcode(status):
        sys.exit(f"{variant.name} failed: {status}")
    return Cost(
        wall_ms=wall_s * 1000,
        cpu_ms=(used.ru_utime + used.ru_stime) * 1000,
        memory_mib=used.ru_maxrss / 1024,
    )


def prepare(
    both: Servers, stack: ExitStack, roots: Mapping[str, Path]
) -> list[Variant]:
    """Return each image's starts."""
    return [
        Variant(
            name=f"{extra or 'none'} | {login}",
            root=root,
            environ=place(settings(stack.enter_context(staged(both)), login), root),
        )
        for extra, root in roots.items()
        for login in ("password", *extra.split())
    ]


def report(sizes: Mapping[str, float], costs: Mapping[str, Sequence[Cost]]) -> str:
    """Return the table."""
    rows = ["| `EXTRAS` | login | image, MB | wall ms | CPU ms | memory, MiB |"]
    rows.append("| --- | --- | --- | --- | --- | --- |")
    for name, each in costs.items():
        size = sizes[name.partition(" |")[0].replace("none", "")]
        wall_ms = statistics.median(cost.wall_ms for cost in each)
        cpu_ms = statistics.median(cost.cpu_ms for cost in each)
        memory = max(cost.memory_mib for cost in each)
        rows.append(
            f"| {name} | {size:.1f} | {wall_ms:.0f} | {cpu_ms:.0f} | {memory:.0f} |"
        )
    return "\n".join(rows)


def main(runs: int) -> None:
    """Measure in random order, and print a row for each image and login."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        built = {extra: build(extra, folder) for extra in EXTRAS}
        roots = {extra: root for extra, (root, _) in built.items()}
        variants = prepare(stack.enter_context(servers()), stack, roots)
        costs: dict[str, list[Cost]] = {variant.name: [] for variant in variants}
        for number in range(runs + 1):
            for variant in random.sample(variants, len(variants)):
                cost = start(variant)
                if number:  # the first fills the page cache, and migrates
                    costs[variant.name].append(cost)
    sizes = {extra: size for extra, (_, size) in built.items()}
    print(report(sizes, costs))  # noqa: T201


if __name__ == "__main__":
    main(int(*sys.argv[1:]) or RUNS)
