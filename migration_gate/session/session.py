"""
A connection and what the last look through it showed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING, Final

from psycopg import pq, sql

from migration_gate.connection.asking import asking
from migration_gate.connection.causes import READ_ONLY, STANDBY
from migration_gate.connection.connect import read_secret_file, use_first
from migration_gate.connection.dialing import address_of
from migration_gate.connection.limited import LimitedConnection, limited
from migration_gate.connection.not_ready import NotReadyError
from migration_gate.connection.refusals import NO_ANSWER, translated
from migration_gate.connection.simple_query import is_alive
from migration_gate.connection.waits import Sight, seen_by
from migration_gate.files.migration import Migration
from migration_gate.history.creation import Fill, ensure_history
from migration_gate.history.look import Look, look
from migration_gate.history.table import HistoryTable
from migration_gate.session.activity import find_wait, observe
from migration_gate.session.lock import (
    Holder,
    Keys,
    Trial,
    find_holder,
    let_go,
    lock_keys,
    try_before,
    try_lock,
)
from migration_gate.settings.environment import adopted_table
from migration_gate.settings.settings import HistoryTableName, Settings


if TYPE_CHECKING:
    from migration_gate.history.foreign import Foreign

LOOKING: Final = 'look at the history in database "{}" as role "{}"'


class Session:
    """
    A connection with its latest look; every method may raise what ``translated`` does.

    ``is_pooled`` tells that a pooler stands between: the process that the client was
    told of is not the one that answers. ``rivals`` are the locks of other tables that
    may be the history of these files too; while another gate has the one that is
    ``awaited``, this one gives way. ``trial`` is what came of the lock where it was
    tried before the first look; None once that is known.
    """

    __slots__ = (
        "_pid",
        "awaited",
        "conn",
        "is_over",
        "rivals",
        "seen",
        "settings",
        "trial",
    )

    def __init__(self, conn: LimitedConnection, settings: Settings, seen: Look) -> None:
        self.conn = conn
        self._pid = conn.info.backend_pid  # of one that is closed nobody is told it
        self.settings = settings
        self.seen = seen
        self.rivals: tuple[Keys, ...] = ()
        self.awaited: Keys | None = None
        self.trial: Trial | None = None
        self.is_over = False

    @property
    def is_pooled(self) -> bool:
        """Return whether a pooler answers in the server's name."""
        return self._pid != self.seen.backend_pid

    @property
    def only(self) -> str | None:
        """Return the schema that is a target of a fleet; None for a whole database."""
        name = self.settings.history_table
        return name.schema if name.is_target else None

    @property
    def path(self) -> str:
        """Return the search path that files begin with where a schema is the target."""
        first = sql.Identifier(self.only).as_string() if self.only else ""
        return ", ".join(filter(None, [first, self.seen.search_path]))

    @property
    def address(self) -> dict[str, str]:
        """Return the parameters that lead to the same server."""
        return address_of(self.conn.pgconn)

    @property
    def is_alive(self) -> bool:
        """
        Return whether the connection holds what it held, without a round trip.

        Through a pooler it is in a transaction, and an error in one ends its locks.
        """
        status = self.conn.pgconn.transaction_status
        return status != pq.TransactionStatus.INERROR and is_alive(self.conn)

    def translated(self, doing: str) -> AbstractContextManager[None]:
        """Turn the driver's errors into ours; see ``connection.refusals``."""
        return translated(doing, full=self.settings.log_detail == "full")

    @property
    def _is_idle(self) -> bool:
        return self.conn.pgconn.transaction_status != pq.TransactionStatus.ACTIVE

    def look_again(self) -> Look:
        """Look at the history as it is at this moment. Reads only."""
        with self.translated(_looking(self.conn)), limited(self.conn):
            name, role = self.settings.history_table, self.settings.role
            self.seen = look(self.conn, name, role)
        return self.seen

    def require_sole(
        self, applied: Sequence[Migration], pending: Sequence[Migration]
    ) -> None:
        """Refuse a table that is perhaps not the history; see ``require_sole``."""
        self.rivals = ()
        if not pending or not (self.seen.is_elsewhere or self.seen.others):
            return
        from migration_gate.history.sole import (  # noqa: PLC0415  # rarely needed
            require_sole,
        )

        seen = self.seen
        with self.translated("compare the histories"):
            schemas = require_sole(self.conn, seen, seen.name, applied, pending)
        self.rivals = tuple(lock_keys(schema, seen.name.table) for schema in schemas)

    def require_no_foreign(self, pending: Sequence[Migration]) -> None:
        """
        Refuse another tool's history where the gate has none of its own.

        With GATE_BASELINE only one that could be taken over, and says more.
        """
        if not pending or self.seen.history or self.settings.adopt.word == "none":
            return
        if self.settings.adopt.tool is not None:
            self.find_adopted()
            return
        if self.seen.is_bare:
            return
        from migration_gate.history.foreign import (  # noqa: PLC0415  # rarely needed
            require_no_foreign,
        )

        with self.translated("look for other tools' histories"):
            is_said = self.settings.baseline is not None
            require_no_foreign(
                self.conn, self.settings.role, only=self.only, only_adoptable=is_said
            )

    def find_adopted(self) -> Foreign | None:
        """Return the history that GATE_ADOPT names, where the gate has none."""
        adopt = self.settings.adopt
        if adopt.tool is None or self.seen.history:
            return None
        from migration_gate.history.foreign import (  # noqa: PLC0415  # rarely needed
            find_adopted,
        )
        from migration_gate.history.readers import (  # noqa: PLC0415  # rarely needed
            READERS,
        )

        reader = READERS[adopt.tool]
        named = adopted_table(self.settings, read_secret_file)
        with self.translated("look for other tools' histories"):
            found = find_adopted(
                self.conn, self.settings.role, reader.tool, named, only=self.only
            )
            if found is None:
                from migration_gate.history.hidden import (  # noqa: PLC0415
                    require_none_hidden,
                )

                if self.only is not None:
                    table = named.table if named else reader.table
                    named = HistoryTableName(self.only, table)
                require_none_hidden(self.conn, adopt.tool, reader, named)
            return found

    def keys(self) -> Keys:
        """Return the keys of the advisory locks of this history."""
        return lock_keys(self.seen.schema or "", self.seen.name.table)

    def try_lock(self) -> Trial:
        """Try once to take the gates' lock."""
        with self.translated("take the gates' lock"):
            return try_lock(self.conn, self.keys(), pooled=self.is_pooled)

    def try_lock_and_look(self) -> tuple[Trial, Look | None]:
        """
        Try once to take the lock, and look again behind that, in one round trip.

        No look comes with it through a pooler, nor where others' locks come first.
        What was done at the start already is not done once more.
        """
        trial, self.trial = self.trial, None
        if trial is not None:
            return trial, None if self.rivals else self.seen
        if self.is_pooled or self.rivals:
            return self.try_lock(), None
        trials: list[Trial] = []
        before = try_before(self.conn, self.keys(), trials.append)
        with self.translated("take the gates' lock"), limited(self.conn):
            name, role = self.settings.history_table, self.settings.role
            self.seen = look(self.conn, name, role, after=before)
        return trials[0], self.seen

    def gives_way(self) -> bool:
        """
        Let go of the lock that was just taken where another gate has a rival's.

        Each gate takes its own before it looks at others': of two, one at least sees
        that the other has it.
        """
        with self.translated("ask who holds the lock of another history"):
            held = (keys for keys in self.rivals if find_holder(self.conn, keys))
            self.awaited = next(held, None)
            if self.awaited is not None:
                let_go(self.conn, pooled=self.is_pooled)
        return self.awaited is not None

    def find_holder(self) -> Holder | None:
        """Return who holds the lock that is waited for. Reads only."""
        with self.translated("ask who holds the gates' lock"):
            return find_holder(self.conn, self.awaited or self.keys())

    @contextmanager
    def overseeing(self, conn: LimitedConnection) -> Iterator[None]:
        """See what another connection waits for, where that is reported."""
        # Through a pooler each transaction may have another backend.
        pid = None if self.is_pooled else conn.info.backend_pid

        def look() -> Sight:
            if pid is None or not self._is_idle:
                return None, ()
            with suppress(*NO_ANSWER), self.translated("watch"), limited(self.conn):
                seen = observe(self.conn, pid, pooled=False)
                if not seen.waits_for_lock:
                    return seen.waits_for, ()
                return seen.waits_for, find_wait(self.conn, pid).blockers
            return None, ()

        with seen_by(look):
            yield

    def close(self) -> None:
        """
        Give the connection up: a lock or transaction of its session ends with that.

        It is closed, or kept for the next target where that is in the same database.
        """
        self._end(is_held=False)

    def hand_on(self) -> None:
        """
        Give the connection up as ``close`` does, after a target that ended well.

        Where it is kept, the lock may be held until the next target is begun.
        """
        self._end(is_held=True)

    def _end(self, *, is_held: bool) -> None:
        if self.is_over:
            return
        self.is_over = True
        is_kept = self.only is not None and self.seen.is_shareable
        if not is_kept or self.conn.closed or self.is_pooled:
            self.conn.close()
        else:
            from migration_gate.connection.spares import (  # noqa: PLC0415  # a fleet's
                keep_or_close,
            )

            self.conn.history_table = self.seen.name.table
            keep_or_close(self.conn, is_held=is_held)


def start_session(
    settings: Settings,
    *,
    must_write: bool,
    may_be_standby: bool = False,
    locks: bool = False,
    until_s: float | None = None,
) -> Session:
    """
    Connect and look, once: at the first server that will do.

    Args:
        settings: Which servers, and which history.
        must_write: A server that can be written is looked for.
        may_be_standby: A hot standby will do, where no other server can be had.
        locks: The lock is wanted where it is known that something is to be done, and is
            tried in the same round trip where it is known which one it may be.
        until_s: When to give up, on the monotonic clock.

    Raises:
        SettingsError: A file cannot be read, or what it holds is malformed.
        NotReadyError: No server could be connected to that will do.
    """
    standbys: list[Session] = []

    def use(conn: LimitedConnection) -> Session:
        session = _start_on(conn, settings, locks=locks)
        if session.seen.is_writable or not must_write:
            return session
        if may_be_standby and session.seen.is_standby and not standbys:
            standbys.append(session)
        else:
            conn.close()
        raise not_writable(is_standby=session.seen.is_standby)

    try:
        return use_first(settings.database, use, until_s=until_s, may_be_held=locks)
    except NotReadyError:
        if standbys:
            return standbys.pop()
        raise
    finally:
        for standby in standbys:
            standby.conn.close()


def _start_on(conn: LimitedConnection, settings: Settings, *, locks: bool) -> Session:
    """
    Look, and try the lock with it where it is known which one that will be.

    Not through a pooler, whose next user would get the lock.
    """
    before = None
    trials: list[Trial] = []
    table = settings.history_table
    keys = _expect_keys(conn, table) if locks else None
    if keys is not None:
        before = try_before(
            conn, keys, trials.append, lets_go=conn.is_held, may_be_pooled=True
        )
        conn.is_held = False
    try:
        with asking(conn, _looking(conn), full=settings.log_detail == "full"):
            session = Session(
                conn, settings, look(conn, table, settings.role, after=before)
            )
            if trials and keys == session.keys():
                session.trial = trials[0]
            elif trials:
                let_go(conn, pooled=False)
    except BaseException:
        conn.close()
        raise
    return session


def _expect_keys(conn: LimitedConnection, name: HistoryTableName) -> Keys | None:
    """
    Return the keys that the history of a target has, most likely.

    None where nothing may be left to do: no lock is taken for that.
    """
    if not name.is_target:
        return lock_keys(*conn.is_behind) if conn.is_behind else None
    table = conn.history_table
    return lock_keys(name.schema, table) if name.schema and table is not None else None


def _looking(conn: LimitedConnection) -> str:
    return LOOKING.format(conn.info.dbname, conn.info.user)


def not_writable(*, is_standby: bool) -> NotReadyError:
    """Return the error for a database that only reads."""
    if is_standby:
        return NotReadyError(STANDBY, "the server is a hot standby")
    return NotReadyError(READ_ONLY, "the database is read-only")


def make_history(
    conn: LimitedConnection, session: Session, fill: Fill | None = None
) -> tuple[HistoryTable, str | None]:
    """Make the history table ours; see ``ensure_history``."""
    settings = session.settings
    with session.overseeing(conn):
        return ensure_history(
            conn,
            session.seen,
            settings.history_table,
            settings.role,
            full=settings.log_detail == "full",
            fill=fill,
        )
