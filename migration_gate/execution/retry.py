"""
Try again while a migration's locks are not free, with growing, jittered pauses.
"""

from __future__ import annotations

import random
import time

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from migration_gate.connection.waits import (
    Halt,
    describe_sight,
    halting,
    pause,
)
from migration_gate.execution.watch import Watch
from migration_gate.files.migration import Migration
from migration_gate.report.errors import MigrationBlockedError
from migration_gate.report.events import MIGRATION_RETRY_SCHEDULED
from migration_gate.report.log import Log
from migration_gate.report.outcomes import LocksNotFreeError
from migration_gate.session.activity import PREPARED


FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 15.0

T = TypeVar("T")


def retry_while_locked(
    migration: Migration,
    watch: Watch,
    log: Log,
    attempt: Callable[[int], T],
    *,
    blocked: LocksNotFreeError | None = None,
) -> T:
    """
    Repeat an attempt until its locks are free, as long as GATE_DDL_RETRY_TIMEOUT.

    Args:
        migration: What is applied, or undone.
        attempt: Is told its number, from 1; leaves nothing when it fails.
        blocked: How the first attempt ended, where it was made already.

    Raises:
        MigrationBlockedError: The locks were never free.
    """
    started_s, number = time.monotonic(), 1
    line = None if blocked is None else blocked.error.line
    timeout_s = watch.held.settings.ddl_retry_timeout_s

    def halt() -> Halt:
        took_s, seen = time.monotonic() - started_s, (None, watch.attempt.blockers)
        words = f"had been tried for {took_s:.1f} s, at attempt {number}"
        at = f"{migration.file}:{line}" if line else migration.file
        return Halt(
            f"{at} {words}{describe_sight(seen)}",
            file=migration.file,
            line=line,
            left=watch.terms.left,
        )

    with halting(halt):
        while True:
            try:
                if blocked is None:
                    return attempt(number)
            except LocksNotFreeError as error:
                blocked = error
            line = blocked.error.line
            pause_s = _choose_pause(number)
            waited_s = time.monotonic() - started_s
            blockers = watch.attempt.blockers
            if waited_s + pause_s > timeout_s:
                hint = _hint(blockers, waited_s)
                raise MigrationBlockedError(blocked.error, hint=hint) from blocked
            log.emit(
                MIGRATION_RETRY_SCHEDULED,
                version=migration.version,
                attempt=number,
                wait_s=round(pause_s, 3),
                sqlstate=blocked.error.sqlstate,
                reason=blocked.error.error_message,
                blockers=list(blockers),
            )
            pause(pause_s)
            blocked = None
            number += 1


def _choose_pause(number: int) -> float:
    longest_s: float = min(FIRST_PAUSE_S * 2 ** (number - 1), LONGEST_PAUSE_S)
    return longest_s * random.uniform(0.5, 1.0)  # noqa: S311  # jitter


def _hint(blockers: Sequence[str], waited_s: float) -> str:
    who = f" Last in the way: {'; '.join(blockers)}." if blockers else ""
    ways = "Wait for less traffic, or end those sessions where nobody needs them"
    if any(PREPARED in blocker for blocker in blockers):
        ways = "End what is in the way"
    return (
        f"Its locks were not free in {waited_s:.0f} s.{who} {ways}, then start the "
        "gate again; GATE_DDL_RETRY_TIMEOUT sets how long it tries."
    )
