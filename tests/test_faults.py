"""
A fixed selection of what `make faults` tries: each kind of fault, all over a run.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults import SCENARIOS, Campaign, Kind, Lab, Scenario, to_kind


# Prime, so that neither the rows of an answer nor the parts of a message are skipped
# in step. How many messages apart the points of a kind are:
APART: dict[Kind, int] = {
    "cut": 29,
    "cut both": 101,
    "reset": 67,
    "freeze": 499,
    "SIGKILL": 37,
    "SIGTERM": 37,
    "terminate": 67,
    "restart": 151,
    "failover": 293,
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Return a server with a proxy in front and gates to start."""
    with Lab("test-faults", tmp_path_factory.mktemp("faults")) as made:
        yield made


@pytest.mark.timeout(120)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_every_kind_of_fault_is_survived(lab: Lab, scenario: Scenario) -> None:
    """After a fault at any message, each file is applied exactly once."""
    recorded = lab.record(scenario)
    campaign = Campaign([lab])
    for kind, apart in APART.items():
        campaign.run(to_kind(recorded, kind, apart))

    assert campaign.failures == []
    assert sum(score.tried for score in campaign.scores.values()) > len(recorded) / 15
    assert sum(score.missed for score in campaign.scores.values()) <= 1
