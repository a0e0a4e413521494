"""
A fixed selection of what `make refusals` tries: statements and SQLSTATEs, all over.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.refusals import SCENARIOS, Campaign, Lab, refusals


# Prime, so that neither the states nor what lasts is met in step.
APART = 101


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Return a server with a proxy that refuses, and gates to start."""
    with Lab("test-refusals", tmp_path_factory.mktemp("refusals")) as made:
        yield made


@pytest.mark.thorough
@pytest.mark.timeout(240)
def test_a_refused_statement_is_told_as_what_it_is(lab: Lab) -> None:
    """Never as the gate's fault, a loss that is none, or a right that is there."""
    points = [point for scenario in SCENARIOS for point in lab.record(scenario)]
    campaign = Campaign([lab])
    chosen = refusals(points, every=APART)
    campaign.run(chosen)

    assert campaign.failures == []
    assert sum(score.right for score in campaign.scores.values()) > len(chosen) / 2
