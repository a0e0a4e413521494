"""Waiting for a condition, in place of sleeping."""

from __future__ import annotations

import time

from collections.abc import Callable


POLL_S = 0.02


def until(is_true: Callable[[], object], timeout_s: float = 10.0) -> None:
    """Poll until a condition holds."""
    deadline_s = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < deadline_s, "it does not come true"
        time.sleep(POLL_S)
