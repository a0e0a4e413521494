"""
The command rehearse: apply what is pending to a disposable database, and report.

The very run of ``migrate``, with questions of the gate's own between the statements.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Final, Literal

from migration_gate.applying.runs import Applier
from migration_gate.commands.migrate import apply_all
from migration_gate.commands.steps import load, new_patience, wait_for_history
from migration_gate.connection.connect import open_connection
from migration_gate.connection.limited import LimitedConnection
from migration_gate.connection.refusals import translated
from migration_gate.connection.wait import wait_for
from migration_gate.connection.waits import Stopped
from migration_gate.execution.observer import Observer
from migration_gate.execution.watch import Watch
from migration_gate.files.migration import Migration
from migration_gate.planning.naming import find_through
from migration_gate.planning.plan import Step
from migration_gate.rehearsal.alone import identity, require_alone
from migration_gate.rehearsal.facts import Sizes
from migration_gate.rehearsal.forms import describe, summary, to_markdown
from migration_gate.rehearsal.questions import questions, read_catalogue
from migration_gate.rehearsal.recorder import Recorder
from migration_gate.rehearsal.reports import Report, make_report, report_to_json
from migration_gate.rehearsal.sizes import read_sizes
from migration_gate.rehearsal.watching import Watcher
from migration_gate.report.errors import GateError, RehearsalError
from migration_gate.report.log import Log, write_line
from migration_gate.report.verdict import Tally
from migration_gate.settings.settings import Settings


STDOUT: Final = 1
Form = Literal["table", "json", "markdown"]


def rehearse(  # noqa: PLR0913  # the command's options, by name
    settings: Settings,
    log: Log,
    tally: Tally,
    *,
    form: Form,
    first: str | None,
    is_disposable: bool,
) -> None:
    """
    Apply what is pending, and say what each statement did to what was there before.

    Args:
        form: How the report is written.
        first: Where pending begins elsewhere: what comes before is applied, and nothing
            of it is told.
        is_disposable: A person's word, though others are connected.

    Raises:
        RehearsalError: The database is not one to rehearse on, or what was found is
            refused.
        GateError: What would close ``migrate``. What was seen before is reported.
    """
    migrations = load(settings, log, "rehearse")
    before = _find_before(migrations, first)
    with (
        closing(
            wait_for_history(settings, migrations, log, tally, creates=True)
        ) as session,
        session.translated("look who is connected"),
    ):
        if not is_disposable:
            require_alone(session.conn, settings.history_table)
        here, version = identity(session.conn), session.conn.info.server_version
    sizes = _read_sizes(settings, log, here)
    rehearsal = _Rehearsal(settings, before, version, sizes, log)
    try:
        apply_all(settings, migrations, log, tally, rehearsal.apply_steps)
    except (GateError, Stopped) as end:
        error = end.error if isinstance(end, Stopped) else end
        write_line(STDOUT, FORMS[form](rehearsal.report(error.message)))
        raise
    report = rehearsal.report()
    write_line(STDOUT, FORMS[form](report))
    tally.outcome = summary(report).rstrip(".")
    _require_none_refused(report)


FORMS: Final = {"table": describe, "json": report_to_json, "markdown": to_markdown}


@dataclass(slots=True)
class _Rehearsal:
    """
    One rehearsal, through however many connections.

    ``before`` are the versions that are not told of, ``server_version`` is as in
    170010 for 17.10, ``sizes`` are those of the real tables, where they are known.
    """

    settings: Settings
    before: frozenset[str]
    server_version: int
    sizes: Sizes | None
    log: Log
    _recorder: Recorder | None = None

    def report(self, closed: str | None = None) -> Report:
        """Return what was seen so far; ``closed`` is why it ended before its time."""
        version = self.server_version
        return make_report(
            () if self._recorder is None else self._recorder.transactions,
            server_version=f"{version // 10000}.{version % 10000}",
            sizes=self.sizes,
            refuse=self.settings.rehearse_refuse,
            closed=closed,
        )

    def apply_steps(self, applier: Applier, steps: Sequence[Step]) -> None:
        """Apply steps as ``migrate`` does, those that are told of under observation."""
        unseen = [step for step in steps if step.migration.version in self.before]
        if unseen:
            applier.apply_all(unseen)
        with self._observing(applier) as observer:
            worker = replace(applier.worker, observer=observer)
            watch = Watch(applier.held, worker, applier.log)
            observed = replace(applier, worker=worker, watch=watch)
            observed.apply_all([step for step in steps if step not in unseen])

    @contextmanager
    def _observing(self, applier: Applier) -> Iterator[Observer]:
        worker, table = applier.worker, applier.worker.table
        if self._recorder is None:
            with worker.translated("read the catalogue"):
                relations = {each.oid: each for each in read_catalogue(worker.conn)}
            progress = f"{table.name}_progress"
            own = frozenset({(table.schema, n) for n in (table.name, progress)})
            self._recorder = Recorder(relations, own)
        recorder = self._recorder

        def connect() -> LimitedConnection:
            settings, address = self.settings, applier.held.address
            patience = new_patience(settings, self.log, settings.wait_timeout_s)
            return wait_for(
                lambda: open_connection(
                    settings.database, until_s=patience.until_s, **address
                ),
                patience,
            )

        with closing(Watcher(recorder, connect)) as watcher:
            yield Observer(
                **questions(worker.conn),
                on_sent=recorder.on_sent,
                on_answer=recorder.on_answer,
                watching=watcher.watching,
            )


def _find_before(migrations: Sequence[Migration], first: str | None) -> frozenset[str]:
    """Return the versions that come before the one that a person names."""
    if first is None:
        return frozenset()
    return frozenset(each.version for each in find_through(first, migrations)[:-1])


def _read_sizes(settings: Settings, log: Log, here: tuple[str, int]) -> Sizes | None:
    """
    Read how large tables are in the real database, where one is named.

    Raises:
        RehearsalError: It is the very database that is rehearsed on.
    """
    database = settings.rehearse_sizes
    if database is None:
        return None
    patience = new_patience(settings._replace(database=database), log, timeout_s=0)
    try:
        conn = wait_for(lambda: open_connection(database), patience)
    except GateError as error:
        raise error.noted("named by GATE_REHEARSE_SIZES") from error
    with closing(conn), translated("read how large the real tables are"):
        if identity(conn) == here:
            raise RehearsalError(
                "the database to rehearse on is the one that GATE_REHEARSE_SIZES names",
                hint="A rehearsal applies files for real: give it an empty database, "
                "or a copy.",
            )
        return read_sizes(conn)


def _require_none_refused(report: Report) -> None:
    refused = report.refused()
    if not refused:
        return
    file, line, finding = refused[0]
    more = f" and {len(refused) - 1} more" if len(refused) > 1 else ""
    at = f" of {finding.relation}" if finding.relation else ""
    raise RehearsalError(
        f"{file.file}:{line.line}: {finding.name}{at}{more}: GATE_REHEARSE_REFUSE "
        "names what was found",
        hint=f"{finding.remedy} Or accept it in the file, with the reason: "
        f"-- gate: accept {finding.name} because …",
        file=file.file,
        line=line.line,
    )
