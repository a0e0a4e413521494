"""
The connection that runs files, and how its own statements are written. A value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from psycopg import sql

from migration_gate.connection.limited import LimitedConnection
from migration_gate.connection.refusals import translated
from migration_gate.execution.message import Own, OwnName
from migration_gate.execution.observer import Observer
from migration_gate.history.table import HistoryTable
from migration_gate.settings.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Worker:
    """
    The connection that runs files, and what is the same for each of them.

    ``watches_client`` tells whether the server can notice that this client is gone.
    ``unlimited`` are the timeouts that the session's defaults leave off; none is known
    through a pooler, where each transaction may have another session.
    ``kept_settings`` are those that hold in this session against its defaults, which
    RESET ALL brings back.
    ``defaults`` is the hash of the defaults of role and database that it began with.
    ``is_presumed`` tells that it was asked for them when it began to serve the targets
    before, not for this one: the first file's transaction has to ask.
    ``observer`` is told what files do, where this is a rehearsal.
    ``variables`` are the values that files may ask for, and ``redact`` takes them out
    of what PostgreSQL says.
    """

    conn: LimitedConnection
    settings: Settings
    table: HistoryTable
    acting_role: str
    work_key: int
    watches_client: bool
    unlimited: frozenset[str]
    kept_settings: Mapping[str, str]
    defaults: str
    is_pooled: bool
    is_presumed: bool = False
    observer: Observer | None = None
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    redact: Callable[[Any], Any] = field(default=lambda said: said, repr=False)

    def translated(self, doing: str) -> AbstractContextManager[None]:
        """Turn the driver's errors into ours; see ``connection.refusals``."""
        return translated(doing, full=self.settings.log_detail == "full")


def own(worker: Worker, name: OwnName, statement: sql.Composable) -> Own:
    """Return a statement of the gate's own as it is sent."""
    return Own(name, statement.as_bytes(worker.conn))


def literal(worker: Worker, text: str) -> bytes:
    """Return a text as SQL has it."""
    return sql.Literal(text).as_bytes(worker.conn)
