"""
A fixed selection of what `make parameters` tries: defaults of a database or a role.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.parameters import Campaign, Lab


# Prime, so that neither the values nor the levels are met in step.
APART = 61


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Return a server, and gates to start."""
    with Lab("test-parameters", tmp_path_factory.mktemp("parameters")) as made:
        yield made


@pytest.mark.thorough
@pytest.mark.timeout(240)
def test_an_odd_default_changes_nothing_or_is_told_as_what_it_is(lab: Lab) -> None:
    """Applied, found complete, checked; or closed with the same word each time."""
    campaign = Campaign([lab])
    chosen = lab.trials()[::APART]
    campaign.run(chosen)

    assert campaign.failures == []
    assert campaign.tried > len(chosen) / 2
