"""
An overview of a fleet: which targets are plainly up to date, seen in few round trips.

What is not seen here is looked at by itself, on the path of one run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing

from migration_gate.commands.steps import new_patience
from migration_gate.connection.connect import LimitedConnection, asking, use_first
from migration_gate.connection.wait import wait_for
from migration_gate.files.migration import Migration
from migration_gate.history.many import look_at_many
from migration_gate.planning.phases import in_phase
from migration_gate.planning.plan import Plan, make_plan
from migration_gate.report.log import Log
from migration_gate.settings.settings import HistoryTableName, Phase, Settings


LOOK_TIMEOUT_S = 30.0


def look_over(
    settings: Settings,
    names: Sequence[str],
    migrations: Sequence[Migration],
    log: Log,
    phase: Phase,
) -> Mapping[str, Plan]:
    """
    Return the plans of those targets whose histories are plainly to be seen.

    Targets whose histories are alike have the same plan.
    """
    targets = settings.targets
    if targets is None or targets.kind != "schemas" or not names:
        return {}
    patience = new_patience(settings, log, settings.wait_timeout_s)

    def look(conn: LimitedConnection) -> dict[str, Plan]:
        plans: dict[str, Plan] = {}
        found = {}
        is_full = settings.log_detail == "full"
        doing = "look at the histories of the targets"
        with closing(conn), asking(conn, doing, timeout_s=LOOK_TIMEOUT_S, full=is_full):
            table, role = settings.history_table.table, settings.role
            name = HistoryTableName(None, table, is_target=True)
            for schema, history in look_at_many(conn, name, names, role):
                if history.digest not in plans:
                    plan = make_plan(migrations, history.rows, tool=history.tool)
                    plans[history.digest] = in_phase(plan, phase)
                found[schema] = plans[history.digest]
        return found

    return wait_for(
        lambda: use_first(settings.database, look, until_s=patience.until_s), patience
    )
