"""
Take over another tool's history: the command adopt, and migrate's first start.

Writes only the gate's own table, under the lock; the other tool's is read.
"""

from __future__ import annotations

import time

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing, suppress
from functools import partial
from typing import Final, NamedTuple

from migration_gate.commands.answers import AdoptedLine, describe_adopted, to_json
from migration_gate.commands.recording import by_hand, has_rows, record_first
from migration_gate.commands.steps import load, wait_for_history
from migration_gate.connection.connect import read_secret_file
from migration_gate.connection.limited import limited
from migration_gate.connection.refusals import NO_ANSWER
from migration_gate.connection.waits import pause
from migration_gate.files.folder import read_file
from migration_gate.files.migration import AppliedMigration, ForeignRow, Migration
from migration_gate.files.tool_checksums import TOOL_CHECKSUMS, running_checksums
from migration_gate.files.tool_facts import read_change_sets, read_journal
from migration_gate.history.adopting import read_foreign
from migration_gate.history.busy import Busy, find_busy
from migration_gate.history.foreign import Foreign, iter_foreign
from migration_gate.history.look import require_readable
from migration_gate.history.readers import READERS
from migration_gate.planning.adoption import (
    BEFORE_UNDERSCORE,
    Adopted,
    DoubtError,
    Known,
    Refused,
    find_grown,
    map_rows,
)
from migration_gate.planning.changesets import to_file_rows
from migration_gate.planning.plan import make_plan
from migration_gate.report.errors import (
    HistoryError,
    LockTimeoutError,
    MigrationFilesError,
    SettingFault,
    SettingsError,
)
from migration_gate.report.events import ADOPTED, OTHER_TOOL, TOOL_WAITING
from migration_gate.report.log import Log
from migration_gate.report.outcomes import ConnectionLostError
from migration_gate.report.verdict import Tally
from migration_gate.session.session import Session
from migration_gate.session.turn import take_turn
from migration_gate.settings.environment import adopted_table
from migration_gate.settings.settings import ADOPTED_TOOLS, Adopt, Settings


TOOL_POLL_S: Final = 0.25


def adopt(
    settings: Settings, log: Log, tally: Tally, *, tool: str | None, as_json: bool
) -> None:
    """
    Take over another tool's history, and apply nothing.

    Raises:
        SettingsError: No tool is named.
        HistoryError: There is none, or a doubt is left; or the gate has its own.
    """
    if tool is not None and tool != settings.adopt.tool:
        settings = settings._replace(adopt=Adopt(tool))
    if settings.adopt.tool is None:
        fault = SettingFault(
            name="GATE_ADOPT",
            rule="names no tool, and neither does --from",
            remedy=f"The tools are: {', '.join(ADOPTED_TOOLS)}.",
        )
        raise SettingsError([fault])
    migrations = load(settings, log, "adopt")
    with (
        by_hand(),
        closing(wait_for_history(settings, migrations, log, tally)) as session,
    ):
        adopted = None
        if not session.seen.history:
            adopted = take_over(settings, migrations, session, log, tally)
    if session.seen.history or adopted == ():
        raise has_rows("another one is not taken over")
    if adopted is None:
        raise HistoryError(
            f"{settings.adopt.tool} has no history with rows in this database",
            hint="Check that this is the database, and that the role sees the tool's "
            "table; one with another name is told by GATE_ADOPT=TOOL:schema.table.",
        )
    lines = make_lines(adopted)
    log.answer(to_json(lines) if as_json else describe_adopted(lines))
    tally.outcome = f"{len(adopted)} taken over, nothing was applied"


def take_over(
    settings: Settings,
    migrations: Sequence[Migration],
    session: Session,
    log: Log,
    tally: Tally,
) -> tuple[Adopted, ...] | None:
    """
    Record what the tool that GATE_ADOPT names has applied; None where it has nothing.

    Whatever is refused is refused before the lock is taken, unless the tool is applying
    at this moment: then its end is waited for first. What is returned is empty where
    another gate was faster; but for None, the session is closed after it.

    Raises:
        HistoryError: A doubt is left.
        LockTimeoutError: The tool did not come to its end.
        AlreadyAppliedError: Another program has just made the history.
    """
    require_readable(session.seen)
    session.require_sole((), migrations)
    found = session.find_adopted()
    if found is None or (
        _find_busy(session, found) is None
        and not find_adopted(settings, migrations, session).adopted
    ):
        return None
    with take_turn(session, lambda seen: bool(seen.history), log, tally) as held:
        if held.seen.history:
            return ()
        _wait_for_tool(held, log)
        table, adopted = find_adopted(settings, migrations, held)
        if adopted:
            record_first(held, to_history(settings, adopted), log)
            log.emit(
                ADOPTED,
                tool=settings.adopt.word,
                table=table,
                row_count=len(adopted),
                inferred=[a.migration.version for a in adopted if a.is_inferred],
                versions=[a.migration.version for a in adopted],
            )
        return adopted


def _find_busy(session: Session, found: Foreign) -> Busy | None:
    tool = session.settings.adopt.word
    with session.translated(f"ask whether {tool} is applying"), limited(session.conn):
        return find_busy(session.conn, tool, found)


def _wait_for_tool(held: Session, log: Log) -> None:
    """Wait until the tool that GATE_ADOPT names is not applying any more."""
    settings, started_s = held.settings, time.monotonic()
    logged_s = float("-inf")
    while (found := held.find_adopted()) and (busy := _find_busy(held, found)):
        now = time.monotonic()
        if now - started_s > settings.lock_wait_timeout_s:
            raise _still_at_work(settings, busy)
        if now - logged_s >= settings.heartbeat_s:
            logged_s = now
            log.emit(
                TOOL_WAITING,
                tool=settings.adopt.word,
                waited_s=round(now - started_s, 3),
                holder_pid=busy.pid,
                holder_application=busy.application,
            )
        pause(TOOL_POLL_S)
        if not held.is_alive:
            text = "the lock's connection was lost"
            raise ConnectionLostError(text)


def _still_at_work(settings: Settings, busy: Busy) -> LockTimeoutError:
    tool = settings.adopt.word
    who = "its lock is a row of a table" if busy.pid is None else f"process {busy.pid}"
    return LockTimeoutError(
        f"{tool} was still applying, by its lock, after "
        f"{settings.lock_wait_timeout_s:g} s: {who}",
        hint="Nothing was taken over. Let it come to its end, or end it; where it is "
        f"gone, and left its lock, release that by {tool}'s own command.",
    )


class FoundAdopted(NamedTuple):
    """Another tool's table, empty where it has none; what counts as applied by it."""

    table: str
    adopted: tuple[Adopted, ...]


def find_adopted(
    settings: Settings, migrations: Sequence[Migration], session: Session
) -> FoundAdopted:
    """
    Map the rows of the tool that GATE_ADOPT names to files. Reads only.

    Raises:
        HistoryError: A doubt is left.
    """
    found = session.find_adopted()
    tool = settings.adopt.tool
    if found is None or tool is None:
        return FoundAdopted("", ())
    rows, labels = _read_rows(settings, migrations, session, found, tool)
    adopted = map_rows(
        tool,
        migrations,
        rows,
        known=Known(_find_checksums(settings, migrations, tool, rows), labels),
        changed=settings.changed,
    )
    return FoundAdopted(f"{found.schema}.{found.table}", adopted)


def _read_rows(
    settings: Settings,
    migrations: Sequence[Migration],
    session: Session,
    found: Foreign,
    tool: str,
) -> tuple[Sequence[ForeignRow], Mapping[str, str] | None]:
    """Return a tool's rows, and what it knows files by where those do not tell."""
    with session.translated("read another tool's history"):
        rows = read_foreign(session.conn, tool, found)
    if tool == "liquibase":
        change_sets = read_change_sets(settings.migrations, migrations)
        return to_file_rows(change_sets, rows), None
    if tool == "drizzle":
        return rows, read_journal(settings.migrations)
    return rows, None


def _find_checksums(
    settings: Settings,
    migrations: Sequence[Migration],
    tool: str,
    rows: Sequence[ForeignRow],
) -> Callable[[Migration], Collection[str]] | None:
    """Return what gives the checksums that a tool may have recorded of a file."""
    read = partial(read_file, settings.migrations)
    if tool == "atlas":
        ordered = sorted(migrations, key=lambda each: each.version.encode())
        held = {row.version for row in rows}
        applied = [m for m in ordered if BEFORE_UNDERSCORE.of_file(m) in held]
        sums = [
            running_checksums((each.version, read(each)) for each in files)
            for files in (ordered, applied)
        ]
        return lambda each: [s[each.version] for s in sums if each.version in s]
    compute = TOOL_CHECKSUMS.get(tool)
    return None if compute is None else lambda each: compute(each.version, read(each))


def warn_of_growth(migrations: Sequence[Migration], session: Session, log: Log) -> None:
    """Report what another tool has applied since the gate has its own history."""
    settings, conn = session.settings, session.conn
    if settings.adopt.word == "none":
        return
    seen, named = session.seen, adopted_table(settings, read_secret_file)
    if seen.is_bare and named is None:
        return
    pending = make_plan(migrations, seen.history, tool=seen.tool).pending
    doing = "look for other tools' histories"
    quiet = (*NO_ANSWER, MigrationFilesError)
    with suppress(*quiet), session.translated(doing), limited(conn):
        for found in iter_foreign(conn, settings.role, named, only=session.only):
            for tool, reader in READERS.items():
                if reader.tool != found.tool or found.count is None:
                    continue
                rows, labels = _read_rows(settings, migrations, session, found, tool)
                versions = find_grown(tool, pending, rows, labels)
                if versions:
                    log.emit(
                        OTHER_TOOL,
                        tool=tool,
                        table=f"{found.schema}.{found.table}",
                        row_count=found.count,
                        newest=found.newest,
                        versions=list(versions),
                    )


def to_history(
    settings: Settings, adopted: Sequence[Adopted]
) -> list[tuple[AppliedMigration, str]]:
    """Return the rows of our history, each with its origin."""
    return [each.to_history(settings.adopt.word) for each in adopted]


def make_lines(adopted: Sequence[Adopted]) -> tuple[AdoptedLine, ...]:
    """Return a line for each file that counts as applied."""
    return tuple(map(_to_line, adopted))


def make_doubtful_lines(error: DoubtError) -> tuple[AdoptedLine, ...]:
    """Return a line for each file of what is not taken over, then for lone rows."""
    lines = [(each.migration.order, _to_line(each)) for each in error.adopted]
    lines += [
        (each.migration.order, _to_refused(each))
        for each in error.refused
        if each.migration is not None
    ]
    lines.sort(key=lambda pair: pair[0])
    lost = [_to_refused(each) for each in error.refused if each.migration is None]
    return (*(line for _, line in lines), *lost)


def _to_line(each: Adopted) -> AdoptedLine:
    return AdoptedLine(
        version=each.migration.version,
        row=each.row.version,
        applied_at=each.row.applied_at or None,
        inferred=each.is_inferred,
        verified=each.is_verified,
    )


def _to_refused(each: Refused) -> AdoptedLine:
    return AdoptedLine(
        version=each.migration.version if each.migration else "",
        row=each.row.version,
        applied_at=each.row.applied_at or None,
        inferred=False,
        verified=False,
        refused=each.why,
    )
