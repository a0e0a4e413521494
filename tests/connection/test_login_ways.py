"""Each way to log in without a password, in each scene of `tests.identities`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.identities import SCENES, WAYS, Servers, herd, play, servers


pytestmark = [pytest.mark.thorough, pytest.mark.timeout(240)]
LATE_S = 1.0
# A scene that takes long is played on one way of each provider.
LONG = {"Azure, AKS", "AWS, EKS with IRSA", "Google, federation"}
GATES = 20


@pytest.fixture(scope="module")
def both() -> Iterator[Servers]:
    """Start a server that knows tokens, and one that trusts who stands before it."""
    with servers() as started:
        yield started


@pytest.mark.parametrize(
    ("way", "scene"),
    [
        (way, scene)
        for way in WAYS
        for scene in SCENES
        if scene not in {"quoting", "faulty"} or way in LONG
    ],
)
def test_each_way_in_ends_as_it_must(both: Servers, way: str, scene: str) -> None:
    """Whatever happens on it, and nothing secret is printed."""
    row, is_good = play(both, way, scene, LATE_S)
    assert is_good, row


def test_many_gates_get_in_by_one_endpoint_that_throttles(both: Servers) -> None:
    """Each asks until it is answered, and each migration runs once."""
    row, is_good = herd(both, GATES)
    assert is_good, row
