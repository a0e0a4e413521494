"""
A fixed selection of what `make refusals` tries: statements and SQLSTATEs, all over.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.refusals import BY_NAME, SCENARIOS, Campaign, Lab, refusals


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


@pytest.mark.timeout(60)
@pytest.mark.parametrize("sqlstate", ["57P01", "25006"])
def test_a_command_that_asks_once_says_that_the_connection_was_lost(
    lab: Lab, sqlstate: str
) -> None:
    """Each of its statements may be the one that meets it, and none is tried again."""
    points = lab.record(BY_NAME["status"])
    campaign = Campaign([lab])
    campaign.run(refusals(points, [sqlstate], every=3, is_whole=True))

    assert campaign.failures == []
    assert campaign.scores[sqlstate].right
