"""Waiting for a condition, in place of sleeping."""

from __future__ import annotations

import inspect
import time

from collections.abc import Callable


POLL_S = 0.02


def until(is_true: Callable[[], object], timeout_s: float = 20.0) -> None:
    """Poll until a condition holds."""
    deadline_s = time.monotonic() + timeout_s
    while not is_true():
        if time.monotonic() >= deadline_s:
            text = f"not true within {timeout_s:g} s: {_name(is_true)}"
            raise AssertionError(text)
        time.sleep(POLL_S)


def _name(is_true: Callable[[], object]) -> str:
    """Return the condition as it stands in the test."""
    try:
        return " ".join(inspect.getsource(is_true).split())
    except (OSError, TypeError):
        return repr(is_true)
