"""
Before and after a deployment: which of what is pending a run is asked for. Pure.
"""

from __future__ import annotations

from migration_gate.planning.agreement import listed
from migration_gate.planning.plan import Plan
from migration_gate.report.errors import IncompleteError
from migration_gate.settings.settings import Phase


def in_phase(plan: Plan, phase: Phase) -> Plan:
    """
    Return a plan with what of it belongs to a phase; with all, it stays as it is.

    What waits for the deployment is held back before it; what should have come before
    is overdue after it.
    """
    if phase == "all":
        return plan
    after = tuple(m for m in plan.pending if m.is_after)
    before = tuple(m for m in plan.pending if not m.is_after)
    pending = before if phase == "before" else after
    versions = {migration.version for migration in pending}
    return plan._replace(
        pending=pending,
        held_back=after if phase == "before" else (),
        overdue=before if phase == "after" else (),
        out_of_order=tuple(v for v in plan.out_of_order if v in versions),
    )


def asked_of(phase: Phase) -> Phase:
    """Return what has to be applied where a phase is over: all, or all but its rest."""
    return "before" if phase == "before" else "all"


def require_first_phase(plan: Plan) -> None:
    """
    Refuse to run what waits for the deployment while something before it is pending.

    Raises:
        IncompleteError: Lists all of that.
    """
    if plan.overdue:
        names = listed([migration.version for migration in plan.overdue])
        raise IncompleteError(
            f"not applied: {names}, which come before the deployment",
            hint="GATE_PHASE=after runs only what comes after it: run migrate with "
            "GATE_PHASE=before and these files first, then roll the application out.",
        )
