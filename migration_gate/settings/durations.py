"""
How a duration is written, in settings and in directives. Pure.
"""

from __future__ import annotations

import re

from typing import Final


UNITS_MS: Final = {"ms": 1, "s": 1_000, "": 1_000, "m": 60_000, "h": 3_600_000}
# PostgreSQL's timeouts are 32-bit numbers of milliseconds.
DURATION_MS_MAX: Final = 2**31 - 1


def parse_duration(text: str) -> float:
    """
    Return seconds; 0 is a duration.

    Raises:
        ValueError: with the rule that the text breaks.
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|)", text.strip())
    if match is None:
        raise ValueError("is not a duration")
    duration_ms = float(match[1]) * UNITS_MS[match[2]]
    if 0 < duration_ms < 1:
        raise ValueError("is shorter than a millisecond")
    if duration_ms > DURATION_MS_MAX:
        raise ValueError("is longer than 24 days")
    return duration_ms / 1000


def parse_positive_duration(text: str) -> float:
    """
    Return seconds, more than 0.

    Raises:
        ValueError: with the rule that the text breaks.
    """
    duration_s = parse_duration(text)
    if not duration_s:
        raise ValueError("is 0")
    return duration_s
