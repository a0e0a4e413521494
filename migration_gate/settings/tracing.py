"""
The trace that a run belongs to, as whoever started it says in TRACEPARENT. Pure.
"""

from __future__ import annotations

import re

from collections.abc import Mapping
from typing import Final

from migration_gate.report.otlp import TraceContext


SAMPLED: Final = 1

_TRACEPARENT: Final = re.compile(
    r"(?!ff)(?P<version>[0-9a-f]{2})-(?!0{32})(?P<trace_id>[0-9a-f]{32})"
    r"-(?!0{16})(?P<span_id>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})(?P<rest>-.*)?"
)


def trace_context(environ: Mapping[str, str]) -> TraceContext | None:
    """
    Read W3C's Trace Context from the environment; None where there is none.

    What is malformed counts as none, as the recommendation says.
    """
    match = _TRACEPARENT.fullmatch(environ.get("TRACEPARENT", "").strip())
    if match is None or (match["version"] == "00" and match["rest"]):
        return None
    return TraceContext(
        trace_id=match["trace_id"],
        span_id=match["span_id"],
        is_sampled=bool(int(match["flags"], 16) & SAMPLED),
        state=environ.get("TRACESTATE", "").strip(),
    )
