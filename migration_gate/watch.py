"""
Watch the run from the lock's connection: is the lock still held, and who is in the way.

Reads only.
"""

from __future__ import annotations

from migration_gate.messages import ConnectionLostError
from migration_gate.session import Session, translated_loss


BLOCKERS = """
SELECT a.pid, a.usename, a.application_name, a.state,
       extract(epoch FROM clock_timestamp() - coalesce(a.xact_start, a.query_start))::int
FROM pg_catalog.unnest(pg_catalog.pg_blocking_pids(%s)) AS blocker (pid)
LEFT JOIN pg_catalog.pg_stat_activity a USING (pid)
"""


class Watch:
    """
    What the gate's second connection sees of the first.

    ``blockers`` are the sessions last seen in the way, each as one short text.
    """

    def __init__(self, held: Session, worker_pid: int | None) -> None:
        self._held = held
        self._worker_pid = worker_pid
        self.blockers: tuple[str, ...] = ()

    def require_lock(self) -> None:
        """
        Make sure that the lock is still ours before anything more is sent.

        Raises:
            ConnectionLostError: The lock's connection is gone, and the lock with it.
        """
        if not self._held.is_alive:
            text = "the lock's connection was lost"
            raise ConnectionLostError(text)

    def tick(self) -> None:
        """Look who is in the way of the statement that runs."""
        if self._worker_pid is None or not self._held.is_alive:
            return
        with translated_loss():
            cursor = self._held.conn.execute(BLOCKERS, (self._worker_pid,))
            found = tuple(_describe(*row) for row in cursor)
        if found:
            self.blockers = found


def _describe(
    pid: int | None,
    user: str | None,
    application: str | None,
    state: str | None,
    since_s: int | None,
) -> str:
    """Say who it is, as far as the role may see it; never its query."""
    if pid is None:
        return "a prepared transaction or a session that has ended"
    words = [f"process {pid}"]
    if user:
        words.append(f"user {user}")
    if application:
        words.append(f"application {application}")
    if state:
        words.append(f"{state} for {since_s} s")
    return ", ".join(words)
