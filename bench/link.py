"""
A link with latency between this machine and a network namespace: real packets, held.

netem does it where the kernel has it, with a pair of virtual interfaces; elsewhere the
lab's `delay`, if there is one. Clients run in the namespace, the server listens here.
"""

from __future__ import annotations

import subprocess
import time

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from bench.install import ROOT, Missing


HERE: Final = "10.199.0.1"
THERE: Final = "10.199.0.2"
NETWORK: Final = "10.199.0.0/30"
LAB: Final = ROOT.parent / "shared" / "lab" / "delay"
NAMESPACE: Final = "gate-bench"
NEAR_END, FAR_END = "gatebench0", "gatebench1"


@dataclass(frozen=True, slots=True)
class Link:
    """A link that is up: how it is made, and how a command is run at its far end."""

    kind: str
    prefix: tuple[str, ...]

    def set_rtt_ms(self, rtt_ms: float) -> None:
        """Change the round-trip time."""
        if self.kind == "netem":
            for where, end in (((), NEAR_END), (in_namespace(), FAR_END)):
                half = f"{rtt_ms / 2}ms"
                change = ("qdisc", "replace", "dev", end, "root", "netem", "delay")
                call(*where, "tc", *change, half)
        else:
            call(str(LAB), "set", str(rtt_ms))
        time.sleep(0.1)


def in_namespace() -> tuple[str, ...]:
    """Return what a command is prefixed with to run at the far end."""
    return ("ip", "netns", "exec", NAMESPACE)


def call(*command: str) -> None:
    """
    Run a command of the network's.

    Raises:
        Missing: It failed; the reason is what it said.
    """
    try:
        ended = subprocess.run(command, check=False, capture_output=True, text=True)
    except FileNotFoundError:
        raise Missing(f"there is no {command[0]} here") from None
    if ended.returncode:
        words = (ended.stderr or ended.stdout).strip().splitlines()
        raise Missing(f"{command[0]}: {(words or ['failed'])[-1]}")


@contextmanager
def up() -> Iterator[Link]:
    """
    Bring a link up, and take it down again.

    Raises:
        Missing: Neither way works here.
    """
    try:
        make_netem()
    except Missing as no_netem:
        remove_netem()
        if not LAB.exists():
            raise
        if lab_is_in_use():
            raise Missing("the lab's delayed link is in use") from no_netem
        call(str(LAB), "up", "0")
        try:
            yield Link("delay", (str(LAB), "run"))
        finally:
            call(str(LAB), "down")
    else:
        try:
            yield Link("netem", in_namespace())
        finally:
            remove_netem()


def make_netem() -> None:
    """Make the namespace, the pair of interfaces and their queues."""
    call("ip", "netns", "add", NAMESPACE)
    call(*("ip", "link", "add", NEAR_END, "type", "veth"), *("peer", "name", FAR_END))
    call("ip", "link", "set", FAR_END, "netns", NAMESPACE)
    for where, end, address in (
        ((), NEAR_END, HERE),
        (in_namespace(), FAR_END, THERE),
    ):
        call(*where, "ip", "address", "add", f"{address}/30", "dev", end)
        call(*where, "ip", "link", "set", end, "up")
        call(*where, *("tc", "qdisc", "add", "dev", end, "root", "netem"))
    call(*in_namespace(), "ip", "link", "set", "lo", "up")


def remove_netem() -> None:
    """Remove what `make_netem` made, or a part of it."""
    for command in (
        ("ip", "link", "del", NEAR_END),
        ("ip", "netns", "del", NAMESPACE),
    ):
        subprocess.run(command, check=False, capture_output=True)


def lab_is_in_use() -> bool:
    """Whether somebody else has brought the lab's link up."""
    ended = subprocess.run([LAB, "run", "true"], check=False, capture_output=True)
    return ended.returncode == 0
