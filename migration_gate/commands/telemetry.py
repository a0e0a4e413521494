"""
Who follows a run from outside: the ids on each line of its log, and what is sent.

Loaded only where the environment names a trace or an endpoint.
"""

from __future__ import annotations

from collections.abc import Mapping

from migration_gate.report.telemetry import Telemetry
from migration_gate.settings.telemetry import telemetry_settings
from migration_gate.settings.tracing import trace_context


def follow(
    environ: Mapping[str, str], *, sends: bool, tells_words: bool
) -> tuple[Mapping[str, str], Telemetry | None]:
    """
    Return the ids of the span that the lines belong to, and what sends the run.

    Args:
        environ: The environment.
        sends: Whether the command is one to tell of.
        tells_words: Whether PostgreSQL's words hold no rows.
    """
    parent, telemetry = trace_context(environ), None
    wanted = telemetry_settings(environ) if sends else None
    if wanted is not None:
        telemetry = Telemetry(
            wanted.receivers,
            resource=wanted.resource,
            temporality=wanted.temporality,
            parent=parent,
            tells_words=tells_words,
            fault=wanted.fault,
        )
    is_own = telemetry is not None and telemetry.sends_trace
    span = telemetry.own if telemetry is not None and is_own else parent
    if span is None:
        return {}, telemetry
    return {"trace_id": span.trace_id, "span_id": span.span_id}, telemetry
