"""
Where folder and history disagree more than the settings allow. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Literal

from migration_gate.planning.plan import Plan
from migration_gate.report.errors import HistoryError


if TYPE_CHECKING:
    from migration_gate.planning.squashing import Half


DETAILED_MAX: Final = 3  # the last line is short


def require_agreement(
    plan: Plan,
    *,
    changed: Literal["refuse", "warn"],
    out_of_order: Literal["refuse", "apply"],
    ahead: Literal["refuse", "allow"],
) -> None:
    """
    Refuse a plan whose disagreements the settings do not allow.

    Raises:
        HistoryError: Lists every disagreement, not the first.
    """
    faults = [
        (
            (
                f'history row "{row}" differs from file "{version}" only in case, '
                "white space or the form of its accents"
            ),
            "Correct the row's version in the history, or the file's name.",
        )
        for row, version in plan.lookalikes
    ]
    faults += [_refuse_twin(row, version) for row, version in plan.twins]
    faults += [_refuse_half(half) for half in plan.halves]
    if changed == "refuse" and plan.changed:
        faults.append(_refuse_changes(plan))
    if out_of_order == "refuse" and plan.out_of_order:
        subject = _subject(plan.out_of_order)
        newest = f', "{plan.applied[-1].version}"' if plan.below_applied else ""
        faults.append(
            (
                f"{subject} added below the newest applied one{newest}: out of order",
                (
                    "Where no other database has it applied, give it the next free "
                    "number; else, where it does not need to run before those, set "
                    "GATE_OUT_OF_ORDER=apply for this start."
                ),
            )
        )
    if ahead == "refuse" and plan.unknown:
        names = listed(plan.unknown)
        faults.append(
            (
                f"the history has {names}, which no file here explains",
                (
                    "A newer image has applied it: start that one, or a later one. "
                    "Only where this version is known to work with that schema, as "
                    "after a deliberate return to it, set GATE_AHEAD=allow."
                ),
            )
        )
    if faults:
        raise HistoryError(
            "; ".join(fault for fault, _ in faults),
            hint=" ".join(remedy for _, remedy in faults),
        )


def _refuse_twin(row: str, version: str) -> tuple[str, str]:
    """Return what of a file that was renamed would happen, and what to do."""
    fault = (
        f'file "{version}" has the text of "{row}", which is applied and is not here: '
        "it would run once more"
    )
    remedy = (
        "Give the file its old name again; or, where it is renamed for good: "
        f"resolve {version} --applied, and once no older image starts any more, "
        f"resolve {row} --not-applied."
    )
    return fault, remedy


def _refuse_half(half: Half) -> tuple[str, str]:
    """Return what of a file that stands for others is not there, and what to do."""
    ends = f'ends at "{half.reached}"' if half.reached else "has none of it"
    return (
        (
            f'"{half.version}" stands for more than the history has: that {ends}, and '
            f'lacks "{half.missing}"'
        ),
        (
            f"Start the newest image that still ships {half.missing} first, then this "
            "one."
        ),
    )


def _refuse_changes(plan: Plan) -> tuple[str, str]:
    """Return what is wrong with files that were changed, and what to do."""
    subject, first = _subject(plan.changed), plan.changes[0]
    fault = f"{subject} changed after being applied"
    if len(plan.changes) == 1:
        fault += f": {first}"
    else:
        shown = plan.changes[:DETAILED_MAX]
        fault += ": " + "; ".join(f'"{c.file.version}" {c}' for c in shown)
    if plan.is_mostly_unknown:
        return fault, (
            f"{len(plan.unknown)} rows of the history are of no file here. Where they "
            "are another application's, it has applied a file of the same name, and "
            "this one's has not run: set GATE_HISTORY_TABLE to a table of this "
            "application's own. Else start the image that ships those files."
        )
    return fault, (
        f"See what was changed: git log -p -- '*{first.file.file}'. Restore the file "
        "as it was applied, and put the change in a new migration. Where it changes "
        f"nothing in the database: resolve {first.file.version} --applied, or "
        "GATE_CHANGED=warn for this start."
    )


def _subject(versions: Sequence[str]) -> str:
    verb = "was" if len(versions) == 1 else "were"
    noun = "migration" if len(versions) == 1 else "migrations"
    return f"{noun} {listed(versions)} {verb}"


def listed(names: Sequence[str], most: int = 10) -> str:
    """Return names for a message: so many, and how many more there are."""
    shown = ", ".join(f'"{name}"' for name in names[:most])
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return shown + more
