"""
A server that says no: each statement, refused in turn with each SQLSTATE.

    python -m tests.refusals [--state SQLSTATE]... [--every N] [--labs N]

An undisturbed run is recorded first. Then, for each statement that it sent and each
SQLSTATE, a run on a fresh database is refused that statement, once or each time, and
another start follows. A proxy has the server fail there, so that the transaction is
where it would be, and changes the words of the answer. Prints how many refusals were
tried and told right; exits 1 when one was not.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import re
import socket
import sys
import tempfile
import threading
import time

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Self

import psycopg

from dev.postgres import Server
from migration_gate.connection.refusals import LOSSES, NOT_NOW
from migration_gate.statements import split
from tests.faults import (
    CONTENTS,
    LOG,
    SCHEMA,
    TABLE,
    NotSurvivedError,
    State,
    note,
    say,
    wait_until_alone,
)
from tests.fix_gate import write_migrations
from tests.fix_postgres import Database, look_at
from tests.fix_proxy import Link, Message, Proxy, Sender
from tests.forks import Ended, Forker


# One of each class that can meet a statement, and of what the gate tells apart.
STATES: Final = (
    *("08006", "0A000", "21000", "22012", "23505", "23514", "25006", "25P02"),
    *("28000", "2BP01", "39P03", "40001", "40003", "40P01", "42501", "42601", "42704"),
    *("42P01", "42P07", "53100", "53200", "53400", "54000", "55000", "55006", "55P03"),
    *("57014", "57P01", "57P03", "57P05", "58030", "F0000", "HV000", "P0001"),
    *("XX000", "XX001"),
)
FATAL: Final = frozenset({"57P01", "57P05", "XX001"})
# What is there already is somebody else's work, and what is gone was removed: they
# have stories of their own, where the gate asks for it.
EXPLAINED: Final = frozenset({"22012", "23505", "42704", "42P01", "42P07"})
OF_FILE: Final = "/* file */"
FAILS: Final = b"SELECT 1/0"
RUN_TIMEOUT_S: Final = 30.0
SETTINGS: Final = MappingProxyType(
    {
        "GATE_WAIT_TIMEOUT": "1s",
        "GATE_AUTH_GRACE": "0s",
        "GATE_DDL_RETRY_TIMEOUT": "1s",
        "GATE_LOCK_WAIT_TIMEOUT": "5s",
        "GATE_TIMEOUT": "20s",
    }
)
FILES: Final = {
    "001_log.sql": OF_FILE
    + (LOG + TABLE + note("001")).replace(";\n", f";\n{OF_FILE}"),
    "002_next.sql": OF_FILE + note("002"),
    "003_outside.sql": f"{OF_FILE}CREATE INDEX CONCURRENTLY t_name ON t (name);\n"
    f"{OF_FILE}{note('003')}",
    "004_last.sql": OF_FILE + note("004"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A statement, counted from 0 in its message and from 1 in its session."""

    session: int
    message: int
    statement: int
    text: bytes
    is_file: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What a statement is refused with; ``lasts`` refuses each one like it."""

    point: Point
    sqlstate: str
    lasts: bool

    def __str__(self) -> str:
        text = " ".join(self.point.text.decode(errors="replace").split())[:90]
        how = "each time" if self.lasts else "once"
        whose = "the file's" if self.point.is_file else "the gate's own"
        return f"{self.sqlstate} {how} at {whose}: {text}"


class Refuser(Proxy):
    """A proxy that has one statement fail, with a SQLSTATE of its choice."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self.fired = threading.Event()
        self._refusal: Refusal | None = None
        self._counts: Counter[int] = Counter()
        self._refusing: set[Link] = set()
        self._skipping: set[Link] = set()

    def arm(self, refusal: Refusal | None) -> None:
        """Count sessions and messages from now on, and refuse at the point."""
        self.cut()
        self.settled()
        self.links.clear()
        self._counts.clear()
        self._refusing.clear()
        self.fired.clear()
        self._refusal = refusal

    def points(self) -> Iterator[Point]:
        """Yield each statement that was sent."""
        for session, link in enumerate(self.settled()):
            number = 0
            for message in link.messages:
                if message.sender != "client" or message.type not in {"Q", "P"}:
                    continue
                number += 1
                for index, (start, end) in enumerate(_statements(message)):
                    text = _text(message)[start:end]
                    yield Point(
                        session=session,
                        message=number,
                        statement=index,
                        text=text,
                        is_file=OF_FILE.encode() in text,
                    )

    def _pass_on(
        self, link: Link, sender: Sender, chunk: bytes, sink: socket.socket
    ) -> None:
        ready = bytearray()
        for message, whole in link.read(sender, chunk):
            if message is None:
                ready += whole
            elif sender == "client":
                ready += self._change_question(link, message, whole)
            elif message.type == "E" and link in self._refusing:
                self._refusing.discard(link)
                assert self._refusal is not None
                sqlstate = self._refusal.sqlstate
                self._send(sender, bytes(ready) + _to_error(sqlstate), sink)
                ready.clear()
                if sqlstate in FATAL:
                    link.end()
                    return
            else:
                ready += whole
        self._send(sender, bytes(ready), sink)

    def _change_question(self, link: Link, message: Message, whole: bytes) -> bytes:
        if message.type not in {"Q", "P"} or self._refusal is None:
            return whole
        session = self.links.index(link)
        self._counts[session] += 1
        start = self._find(self._refusal, session, message)
        if start is None:
            return whole
        self.fired.set()
        self._refusing.add(link)
        if message.type == "P":
            name, rest = message.payload.split(b"\0", 1)
            _, rest = rest.split(b"\0", 1)
            return _frame(b"P", name + b"\0" + FAILS + b"\0" + rest)
        return _frame(b"Q", _text(message)[:start] + FAILS + b"\0")

    def _find(self, refusal: Refusal, session: int, message: Message) -> int | None:
        """Return where in the message the statement to refuse begins."""
        point, pieces = refusal.point, _statements(message)
        if not refusal.lasts:
            here = (session, self._counts[session])
            if self.fired.is_set() or here != (point.session, point.message):
                return None
            return pieces[point.statement][0]
        for start, end in pieces:
            if _form(_text(message)[start:end]) == _form(point.text):
                return start
        return None


def _text(message: Message) -> bytes:
    if message.type == "P":
        return message.payload.split(b"\0", 2)[1]
    return message.payload.rstrip(b"\0")


def _statements(message: Message) -> list[tuple[int, int]]:
    text = _text(message)
    if message.type == "P":
        return [(0, len(text))]
    return [(piece.start, piece.end) for piece in split(text) if piece.tokens]


def _form(text: bytes) -> bytes:
    """Return a statement without what differs from one to the next."""
    return re.sub(rb"\d+|'[^']*'", b"#", b" ".join(text.split()))


def _frame(kind: bytes, payload: bytes) -> bytes:
    return kind + (len(payload) + 4).to_bytes(4, "big") + payload


def _to_error(sqlstate: str) -> bytes:
    severity = "FATAL" if sqlstate in FATAL else "ERROR"
    fields = {"S": severity, "V": severity, "C": sqlstate, "M": f"no, by {sqlstate}"}
    payload = b"".join(f"{k}{v}\0".encode() for k, v in fields.items())
    return _frame(b"E", payload + b"\0")


class Lab:
    """A server, a proxy before it, and what starts gates: one refusal at a time."""

    def __init__(self, name: str, folder: Path) -> None:
        self._name = name
        self._folder = folder / name
        self._folder.mkdir()
        self._stack = ExitStack()
        self._numbers = itertools.count(1)
        self._hands = ThreadPoolExecutor(1)
        self._expected: State | None = None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self._hands)
            self.server = Server(self._name, settings={"autovacuum": "off"})
            # A server ends with the thread that started it.
            stack.callback(self.server.close)
            self._hands.submit(self.server.start).result()
            self.proxy = stack.enter_context(
                Refuser(self.server.host, self.server.port)
            )
            self._forker = stack.enter_context(closing(Forker(self._folder)))
            write_migrations(self._folder / "migrations", FILES)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def record(self) -> list[Point]:
        """Run undisturbed; return each statement that was sent."""
        with self._database() as database:
            self.proxy.arm(None)
            ended = self._run(self.proxy.through(database))
            if ended.exit_code != 0:
                text = f"an undisturbed run ended with {ended.story}"
                raise NotSurvivedError(text)
            points = list(self.proxy.points())
            self._expected = self._look(database)
        return points

    def expect(self, other: Lab) -> None:
        """Expect what another one recorded."""
        self._expected = other._expected

    def attempt(self, refusal: Refusal) -> bool:
        """
        Refuse, start once more, and compare; tell whether the statement was sent.

        Raises:
            NotSurvivedError: The story was wrong, or something was left.
        """
        with self._database() as database:
            self.proxy.arm(refusal)
            ended = self._run(self.proxy.through(database))
            was_met = self.proxy.fired.is_set()
            self.proxy.arm(None)
            if was_met:
                judge_story(refusal, ended)
            with closing(database.connect()) as conn:
                wait_until_alone(conn, pooled=False)
            again = self._run(database)
            if again.exit_code != 0:
                text = f"another start ended with {again.story}"
                raise NotSurvivedError(text)
            found = self._look(database)
            if found != self._expected:
                text = f"there is {found} instead of {self._expected}"
                raise NotSurvivedError(text)
        return was_met

    @contextlib.contextmanager
    def _database(self) -> Iterator[Database]:
        name = f"refusals_{next(self._numbers)}"
        with closing(self._admin()) as conn:
            conn.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        shared = look_at(self.server.conninfo, self.server)
        conninfo = {**self.server.conninfo, "dbname": name}
        try:
            yield Database(server=shared, conninfo=conninfo)
        finally:
            with closing(self._admin()) as conn:
                conn.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def _admin(self) -> psycopg.Connection[Any]:
        return psycopg.connect(**self.server.conninfo, autocommit=True)  # type: ignore[arg-type]  # all of them are texts

    def _run(self, database: Database) -> Ended:
        environ = {
            **database.environ(),
            **SETTINGS,
            "GATE_MIGRATIONS": str(self._folder / "migrations"),
            "GATE_TERMINATION_LOG": str(self._folder / "termination-log"),
        }
        (ended,) = self._forker.run([environ], RUN_TIMEOUT_S)
        return ended

    def _look(self, database: Database) -> State:
        """Return what is there, but for what the last failures were."""
        with closing(database.connect()) as conn:
            wait_until_alone(conn, pooled=False)
            names = [name for name in CONTENTS if name != "app.u"]
            schema = conn.execute(SCHEMA).fetchall()
            return State(
                [row for row in schema if "_failure" not in str(row)],
                {name: conn.execute(CONTENTS[name]).fetchall() for name in names},
            )


def judge_story(refusal: Refusal, ended: Ended) -> None:
    """
    Require that the run went on, or that its last line says what was refused.

    Raises:
        NotSurvivedError: It says something else.
    """
    verdict, sqlstate = ended.verdict, refusal.sqlstate
    reason = verdict.get("reason")
    message = str(verdict.get("error_message", ""))
    is_named = sqlstate in message or verdict.get("sqlstate") == sqlstate
    story = None
    if ended.exit_code not in {0, 1} or not verdict:
        story = "it has no verdict"
    elif ended.exit_code == 0:
        return
    elif reason in {"internal", "deadline", None}:
        story = f"it is {reason}"
    elif reason == "unreachable" and sqlstate not in LOSSES | FATAL | NOT_NOW:
        story = "it tells of a lost connection"
    elif "lost" in message and sqlstate not in LOSSES | FATAL:
        story = "it tells of a loss"
    elif "lacks" in message or "may not" in message:
        story = "it tells of a right that is there"
    elif not is_named and sqlstate not in EXPLAINED:
        story = "it does not name what was refused"
    elif reason == "migration_failed" and not refusal.point.is_file:
        is_commit = refusal.point.text.strip().startswith(COMMIT_WORDS)
        story = None if is_commit else "it blames a file"
    if story is not None:
        text = f"{story}: {ended.story}"
        raise NotSurvivedError(text)


# What the file has deferred fails there.
COMMIT_WORDS: Final = (b"COMMIT", b"SET CONSTRAINTS ALL IMMEDIATE")


def refusals(
    points: Sequence[Point], states: Sequence[str], every: int = 1
) -> list[Refusal]:
    """Return each point with each state, once and lasting; of these each so-manieth."""
    chosen = [
        Refusal(point=point, sqlstate=state, lasts=lasts)
        for point in points
        for state in states
        for lasts in (False, True)
        # What lasts is the same for all that read alike.
        if not lasts or _is_first(points, point)
    ]
    return chosen[::every]


def _is_first(points: Sequence[Point], point: Point) -> bool:
    alike = (p for p in points if _form(p.text) == _form(point.text))
    return next(alike) is point


@dataclass(slots=True)
class Score:
    """What became of the refusals of one SQLSTATE."""

    tried: int = 0
    right: int = 0
    missed: int = 0


class Campaign:
    """Refusals spread over several labs, and the score."""

    def __init__(self, labs: Sequence[Lab]) -> None:
        self._labs = labs
        self._guard = threading.Lock()
        self.scores: dict[str, Score] = {}
        self.failures: list[str] = []

    def run(self, chosen: Iterable[Refusal]) -> None:
        """Try each refusal on whichever lab is free."""
        queue = iter(chosen)
        with ThreadPoolExecutor(len(self._labs)) as pool:
            for future in [pool.submit(self._work, lab, queue) for lab in self._labs]:
                future.result()

    def _work(self, lab: Lab, queue: Iterator[Refusal]) -> None:
        while True:
            with self._guard:
                refusal = next(queue, None)
            if refusal is None:
                return
            self._try(lab, refusal)

    def _try(self, lab: Lab, refusal: Refusal) -> None:
        fault, was_met = None, False
        try:
            was_met = lab.attempt(refusal)
        except NotSurvivedError as error:
            fault = str(error)
        except Exception as error:  # noqa: BLE001  # a refusal, not the whole campaign
            fault = f"{type(error).__name__}: {error}"
        with self._guard:
            score = self.scores.setdefault(refusal.sqlstate, Score())
            if fault is None and not was_met:
                score.missed += 1
                return
            score.tried += 1
            score.right += fault is None
            if fault is not None:
                self.failures.append(f"{refusal}: {fault}")
                say(f"NOT TOLD RIGHT: {self.failures[-1]}")


def show(campaign: Campaign) -> None:
    """Print the table."""
    say("SQLSTATE    tried     right  missed")
    everything = Score()
    for state, score in sorted(campaign.scores.items()):
        say(f"{state:<10} {score.tried:>6} {score.right:>9} {score.missed:>7}")
        everything.tried += score.tried
        everything.right += score.right
        everything.missed += score.missed
    say(
        f"in all     {everything.tried:>6} {everything.right:>9} {everything.missed:>7}"
    )


def main() -> int:
    """Run the campaign; return 1 where a refusal was not told right."""
    parser = argparse.ArgumentParser(prog="python -m tests.refusals")
    parser.add_argument("--state", action="append", choices=STATES)
    parser.add_argument("--every", type=int, default=1, help="of them, each Nth")
    parser.add_argument("--labs", type=int, default=2 * (os.cpu_count() or 1))
    wanted = parser.parse_args()
    started_s = time.monotonic()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        labs = [
            stack.enter_context(Lab(f"refusals-{n}", folder))
            for n in range(wanted.labs)
        ]
        points = labs[0].record()
        for lab in labs[1:]:
            lab.expect(labs[0])
        own = sum(not point.is_file for point in points)
        say(f"{len(points)} statements, {own} of them the gate's own")
        campaign = Campaign(labs)
        campaign.run(refusals(points, wanted.state or STATES, wanted.every))
        show(campaign)
    say(f"{len(campaign.failures)} not right, {time.monotonic() - started_s:.0f} s")
    return 1 if campaign.failures else 0


if __name__ == "__main__":
    sys.exit(main())
