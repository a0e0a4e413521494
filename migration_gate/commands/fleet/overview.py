"""
An overview of a fleet: where each target stands; reads only.

Schemas of one database are looked at together, in few round trips, where that is
plainly enough; all other targets each by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, suppress
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

import psycopg

from migration_gate.commands.first_rows import not_recorded, plan_first_rows
from migration_gate.commands.fleet.crew import Crew
from migration_gate.commands.fleet.outcomes import Outcome
from migration_gate.commands.fleet.run import NAMES_SHOWN, at_once
from migration_gate.commands.fleet.targets import Listing, Target, to_target
from migration_gate.commands.last_failure import find_failures, incomplete
from migration_gate.commands.main import error_of
from migration_gate.commands.steps import (
    find_disagreements,
    looking_once,
    new_patience,
    plan_for,
)
from migration_gate.connection.asking import asking
from migration_gate.connection.connect import open_connection, use_first
from migration_gate.connection.limited import LimitedConnection, limited
from migration_gate.connection.not_ready import NotReadyError
from migration_gate.connection.spares import keep_or_close
from migration_gate.connection.wait import wait_for
from migration_gate.connection.waits import Stopped
from migration_gate.files.migration import AppliedMigration, Migration
from migration_gate.history.glance import glance
from migration_gate.history.many import Histories
from migration_gate.history.plain_rows import History, to_history_of
from migration_gate.planning.phases import in_phase
from migration_gate.planning.plan import Plan, make_plan
from migration_gate.report.errors import GateError
from migration_gate.report.events import Event
from migration_gate.report.log import Log
from migration_gate.report.verdict import Tally
from migration_gate.session.session import start_session
from migration_gate.settings.settings import HistoryTableName, Phase, Settings


if TYPE_CHECKING:
    from migration_gate.commands.answers import RecordedLine

LOOK_TIMEOUT_S: Final = 30.0
SCHEMAS_EACH: Final = 250
# Transactions hold locks on each table that they read, of a few ten thousand in all.
TABLES_AT_ONCE: Final = 256
TOGETHER: Final = "look at the histories of the targets"
# Each of them costs a connection, and most of many have the same reason.
EXPLAINED_MAX: Final = 100


class Sight(NamedTuple):
    """
    What one look at a target showed.

    ``plan`` is None where it could not be made, and ``error`` says why then; it may
    also say why the last attempt at what is pending failed. ``newest`` is the version
    that was applied last; ``recorded`` is what the next start records before it applies
    anything.
    """

    plan: Plan | None
    newest: str | None = None
    error: GateError | None = None
    recorded: tuple[RecordedLine, ...] = ()


class Asked(NamedTuple):
    """What targets are looked at for, and how."""

    settings: Settings
    listing: Listing
    migrations: Sequence[Migration]
    log: Log
    phase: Phase


class Lot(NamedTuple):
    """Some schemas, which are looked at together; ``name`` is that of the first."""

    name: str
    schemas: Sequence[str]


class Overview:
    """Looks at targets as often as it is asked to."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._crew = Crew(at_once(asked.settings, asked.listing), self._look_at)
        self._sights: dict[str, Sight] = {}
        self._explains = False

    def look(
        self, names: Sequence[str], *, explains: bool = False
    ) -> Mapping[str, Sight]:
        """
        Look at targets, and return what each look showed.

        Args:
            names: The targets.
            explains: What the next start records first is asked for too, and why the
                last attempt at what is pending failed.
        """
        self._explains = explains
        settings, listing = self._asked.settings, self._asked.listing
        seen = Glancer(self._asked).look(names)
        self._sights = dict(seen)
        targets = [
            to_target(settings, name, listing) for name in names if name not in seen
        ]
        if explains:
            behind = [name for name, sight in seen.items() if _is_behind(sight)]
            targets += [
                to_target(settings, name, listing) for name in behind[:EXPLAINED_MAX]
            ]
        self._crew.run(targets, lambda _: None, every=lambda: settings.heartbeat_s)
        return self._sights

    def _look_at(self, target: Target) -> Outcome:
        log = self._asked.log.for_target(target.name)
        try:
            self._sights[target.name] = self._see(target, log)
        except Stopped:
            return Outcome(target.name, "stopped")
        except GateError as error:
            self._sights[target.name] = Sight(None, error=error)
        except Exception as failure:  # noqa: BLE001  # one target's trouble is its own
            self._sights[target.name] = Sight(None, error=error_of(failure, log))
        return Outcome(target.name, "done")

    def _see(self, target: Target, log: Log) -> Sight:
        settings = target.settings._replace(auth_grace_s=0.0)
        patience = new_patience(settings, log, timeout_s=0)
        session = wait_for(lambda: start_session(settings, must_write=False), patience)
        with closing(session), looking_once():
            migrations = self._asked.migrations
            plan = plan_for(migrations, session)
            recorded: tuple[RecordedLine, ...] = ()
            if self._explains:
                plan, recorded = plan_first_rows(settings, migrations, session, plan)
            plan = in_phase(plan, self._asked.phase)
            failures = find_failures(session, plan)
            error: GateError | None = None
            if failures:
                error = incomplete(plan.pending, failures)
            elif recorded:
                error = not_recorded(recorded)
            return Sight(plan, _newest(session.seen.history), error, recorded)


def warn_of_targets(plans: Iterable[tuple[str, Plan]], log: Log, tally: Tally) -> None:
    """Warn once of what is odd about the histories of many targets, and name them."""
    alike: dict[tuple[Event, tuple[str, ...]], list[str]] = {}
    for name, plan in plans:
        for found in find_disagreements(plan).items():
            alike.setdefault(found, []).append(name)
    for (event, versions), names in alike.items():
        if len(names) == 1:
            log.for_target(names[0]).emit(event, versions=list(versions))
            continue
        more = len(names) - NAMES_SHOWN
        shown = names[:NAMES_SHOWN] + ([f"… {more} more"] if more > 0 else [])
        log.emit(event, versions=list(versions), targets=shown)
    warnings = [*tally.warnings, *(event.name for event, _ in alike)]
    tally.warnings = list(dict.fromkeys(warnings))


def _is_behind(sight: Sight) -> bool:
    return sight.plan is not None and bool(sight.plan.pending)


class Glancer:
    """
    Sees together, or at a glance, what is plainly to be seen of targets.

    Targets whose histories are alike have the same plan.
    """

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._crew = Crew(at_once(asked.settings, asked.listing), self._glance_at)
        self._known: dict[object, Sight] = {}
        self._seen: dict[str, Sight] = {}

    def look(self, names: Sequence[str]) -> Mapping[str, Sight]:
        """Return what is seen; a target of which nothing is needs a look of its own."""
        settings = self._asked.settings
        targets = settings.targets
        if not names:
            return {}
        if targets is not None and targets.kind == "schemas":
            return self._look_together(names)
        self._seen = {}
        self._crew.run(
            [to_target(settings, name, self._asked.listing) for name in names],
            lambda _: None,
            every=lambda: settings.heartbeat_s,
        )
        return self._seen

    def _look_together(self, names: Sequence[str]) -> Mapping[str, Sight]:
        settings = self._asked.settings
        lots = [
            Lot(names[at], names[at : at + SCHEMAS_EACH])
            for at in range(0, len(names), SCHEMAS_EACH)
        ]
        crew_size = min(self._crew.at_once, len(lots))
        histories = Histories(
            HistoryTableName(None, settings.history_table.table, is_target=True),
            settings.role,
        )
        work = partial(
            self._look_at_lot, histories=histories, each=TABLES_AT_ONCE // crew_size
        )
        errors: list[GateError] = []
        self._seen = {}
        # One that has waited in vain for the server has done so for all.
        Crew(crew_size, work).run(
            lots,
            lambda outcome: errors.extend(filter(None, [outcome.error])),
            may_begin=lambda: not errors,
            every=lambda: settings.heartbeat_s,
        )
        if errors:
            raise errors[0]
        return self._seen

    def _look_at_lot(self, lot: Lot, histories: Histories, each: int) -> Outcome:
        settings = self._asked.settings
        log = self._asked.log
        patience = new_patience(settings, log, settings.wait_timeout_s)

        def look(conn: LimitedConnection) -> None:
            is_full = settings.log_detail == "full"
            try:
                with asking(conn, TOGETHER, timeout_s=LOOK_TIMEOUT_S, full=is_full):
                    for schema, history in histories.look(conn, lot.schemas, each):
                        self._seen[schema] = self._judge(history.digest, history)
            except BaseException:
                conn.close()
                raise
            keep_or_close(conn, is_clean=True)

        try:
            wait_for(
                lambda: use_first(settings.database, look, until_s=patience.until_s),
                patience,
            )
        except Stopped:
            return Outcome(lot.name, "stopped")
        except GateError as error:
            return Outcome(lot.name, "failed", error)
        except Exception as failure:  # noqa: BLE001  # it is told by who waits for it
            return Outcome(lot.name, "failed", error_of(failure, log))
        return Outcome(lot.name, "done")

    def _glance_at(self, target: Target) -> Outcome:
        try:
            sight = self.glance_at(target)
        except Stopped:
            return Outcome(target.name, "stopped")
        if sight is not None:
            self._seen[target.name] = sight
        return Outcome(target.name, "done")

    def glance_at(self, target: Target, *, keeps: bool = False) -> Sight | None:
        """
        Glance at one target; whatever is odd about it is told by who looks.

        Args:
            target: Which one.
            keeps: Keep the connection for who looks next.

        Raises:
            Stopped: The run is to stop.
        """
        try:
            conn = open_connection(target.settings.database)
        except (NotReadyError, GateError):
            return None
        name, role = target.settings.history_table, target.settings.role
        try:
            with limited(conn), suppress(psycopg.Error):
                schema, rows = glance(conn, name, role)
                if not rows:
                    return None
                sight = self._judge(rows, to_history_of(rows))
                if sight.plan and sight.plan.pending:
                    conn.is_behind = schema, name.table
                return sight
        finally:
            if keeps:
                keep_or_close(conn, is_clean=True)
            else:
                conn.close()
        return None

    def _judge(self, key: object, history: History) -> Sight:
        known = self._known.get(key)
        if known is None:
            plan = make_plan(self._asked.migrations, history.rows, tool=history.tool)
            known = Sight(in_phase(plan, self._asked.phase), _newest(history.rows))
            self._known[key] = known
        return known


def _newest(history: Sequence[AppliedMigration]) -> str | None:
    return history[-1].version if history else None
