"""Waiting for a condition, in place of sleeping."""

from __future__ import annotations

import inspect
import time

from collections.abc import Callable


# A look may cost a connection, and others need the machine: of what takes long the
# pauses are a tenth.
POLL_S = 0.02
POLL_MAX_S = 0.2


def until(is_true: Callable[[], object], timeout_s: float = 20.0) -> None:
    """Poll until a condition holds."""
    started_s = time.monotonic()
    while not is_true():
        waited_s = time.monotonic() - started_s
        if waited_s >= timeout_s:
            text = f"not true within {timeout_s:g} s: {_name(is_true)}"
            raise AssertionError(text)
        time.sleep(min(max(waited_s / 10, POLL_S), POLL_MAX_S))


def _name(is_true: Callable[[], object]) -> str:
    """Return the condition as it stands in the test."""
    try:
        return " ".join(inspect.getsource(is_true).split())
    except (OSError, TypeError):
        return repr(is_true)
