"""
A fixed selection of what `make faults` tries: each kind of fault, all over a run.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults import SCENARIOS, Campaign, Kind, Lab, Scenario, to_kind
from tests.fix_pgbouncer import find_program


# Prime, so that neither the rows of an answer nor the parts of a message are skipped
# in step. How many messages apart the points of a kind are:
APART: dict[Kind, int] = {
    "cut": 67,
    "cut both": 149,
    "cut twice": 101,
    "reset": 149,
    "freeze": 499,
    "SIGKILL": 97,
    "SIGTERM": 97,
    "terminate": 149,
    "restart": 293,
    "failover": 997,
    "away": 61,
}
# Of the notices, which come while a statement runs.
APART_WHILE_RUNNING: dict[Kind, int] = {
    "cut": 4,
    "cut twice": 5,
    "SIGKILL": 2,
    "SIGTERM": 4,
    "terminate": 5,
    "restart": 5,
    "failover": 11,
}
QUICK = [scenario for scenario in SCENARIOS if scenario.name != "opens slowly"]
(SLOW,) = [scenario for scenario in SCENARIOS if scenario not in QUICK]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Return a server with a proxy in front and gates to start."""
    with Lab("test-faults", tmp_path_factory.mktemp("faults")) as made:
        yield made


@pytest.mark.thorough
@pytest.mark.timeout(600)
@pytest.mark.parametrize("scenario", QUICK, ids=lambda scenario: scenario.name)
def test_every_kind_of_fault_is_survived(lab: Lab, scenario: Scenario) -> None:
    """After a fault at any message, each file is applied exactly once."""
    if scenario.pooled:
        find_program()
    recorded = lab.record(scenario)
    campaign = Campaign([lab])
    for kind, apart in APART.items():
        if kind in scenario.kinds:
            campaign.run(to_kind(recorded, kind, apart))

    assert campaign.failures == []
    met = len(to_kind(recorded, "SIGKILL", 1))
    assert sum(score.tried for score in campaign.scores.values()) > met / 16
    assert sum(score.missed for score in campaign.scores.values()) <= 1


@pytest.mark.thorough
@pytest.mark.timeout(240)
def test_a_fault_while_a_statement_runs_is_survived(lab: Lab) -> None:
    """The server may go on with it, and commit it, after the gate is gone."""
    recorded = [point for point in lab.record(SLOW) if point.type == "N"]
    campaign = Campaign([lab])
    for kind, apart in APART_WHILE_RUNNING.items():
        campaign.run(to_kind(recorded, kind, apart))

    assert campaign.failures == []
    assert len(recorded) > 8
    assert sum(score.tried for score in campaign.scores.values()) > len(recorded)
    assert sum(score.missed for score in campaign.scores.values()) <= 1
