"""
A server that says no: each statement, refused in turn with each SQLSTATE.

    python -m tests.refusals [--scenario NAME]... [--state SQLSTATE]... [--all]
                             [--every N] [--labs N]

An undisturbed run of each scenario is recorded first. Then, for each statement that it
sent and each SQLSTATE, a run on a fresh database is refused that statement, once or
each time, and another start follows. A proxy has the server fail there, so that the
transaction is where it would be, and changes the words of the answer. Unless all are
wanted, what is alike is met in turn: SQLSTATEs that nothing in the gate asks for, and
statements that read as one before. Prints how many refusals were tried and told right;
exits 1 when one was not.
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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
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
from tests.fix_pgbouncer import PgBouncer
from tests.fix_postgres import Database, look_at
from tests.fix_proxy import Link, Message, Proxy, Sender
from tests.forks import Ended, Forker
from tests.refusal_stories import ALIKE, FATAL, STATES, judge_story


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
OWNER: Final = "refusals_owner"
LAST: Final = "004_last"
FILES: Final = {
    "001_log.sql": OF_FILE
    + (LOG + TABLE + note("001")).replace(";\n", f";\n{OF_FILE}"),
    "002_next.sql": OF_FILE + note("002"),
    "003_outside.sql": f"{OF_FILE}CREATE INDEX CONCURRENTLY t_name ON t (name);\n"
    f"{OF_FILE}{note('003')}",
    f"{LAST}.sql": OF_FILE + note("004"),
}
ALL_BUT_LAST: Final = {name: text for name, text in FILES.items() if LAST not in name}
WITHOUT_INDEX: Final = FILES | {
    "003_outside.sql": f"-- gate: no-transaction\n{OF_FILE}{note('003')}"
}
# So many of the SQLSTATEs that are alike meet a statement, and so many of all of them
# one that reads as another before it.
ALIKE_AT_ONCE: Final = 2
AGAIN_AT_ONCE: Final = 3
# After these the gate may go on, and meet the same again.
TRIED_AGAIN: Final = LOSSES | NOT_NOW | FATAL | {"22012", "23505", "42704", "42P07"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scenario:
    """
    What a gate is called with, in a database where these files are applied already.

    ``setup`` makes the database what it is before that. ``pooled`` puts a transaction
    pooler between proxy and server.
    """

    name: str
    files: Mapping[str, str] = field(default_factory=lambda: FILES)
    applied: Mapping[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    setup: str = ""
    pooled: bool = False


SCENARIOS: Final = (
    Scenario(name="migrate"),
    Scenario(
        name="role",
        env={"GATE_ROLE": OWNER},
        setup=f"GRANT ALL ON SCHEMA public TO {OWNER}",
    ),
    Scenario(name="pooled", files=WITHOUT_INDEX, pooled=True),
    Scenario(name="check", applied=FILES, command=("check",)),
    Scenario(name="status", applied=FILES, command=("status",)),
    Scenario(
        name="resolve",
        applied=ALL_BUT_LAST,
        command=("resolve", LAST, "--applied"),
    ),
)


BY_NAME: Final = {scenario.name: scenario for scenario in SCENARIOS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A statement, counted from 0 in its message and from 1 in its session."""

    scenario: Scenario
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
        name = self.point.scenario.name
        return f"{name}: {self.sqlstate} {how} at {whose}: {text}"


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

    def point_to(self, server: Server | PgBouncer) -> None:
        """Pass new connections on to a server, or to a pooler before it."""
        self._upstream = (server.host, server.port)

    def points(self, scenario: Scenario) -> Iterator[Point]:
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
                        scenario=scenario,
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
        self._expected: dict[Scenario, State] = {}
        self._templates: set[Scenario] = set()
        self._pooler: PgBouncer | None = None

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
            self._admin = stack.enter_context(closing(self._connect()))
            self._admin.execute(f"CREATE ROLE {OWNER}")
            self._shared = look_at(self.server.conninfo, self.server)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def record(self, scenario: Scenario) -> list[Point]:
        """Run undisturbed; return each statement that was sent."""
        with self._database(scenario) as database:
            self._aim(scenario)
            self.proxy.arm(None)
            ended = self._run(scenario, scenario.files, self.proxy.through(database))
            if ended.exit_code != 0:
                text = f"an undisturbed run ended with {ended.story}"
                raise NotSurvivedError(text)
            points = list(self.proxy.points(scenario))
            self._expected[scenario] = self._look(scenario, database)
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
        point = refusal.point
        scenario, expected = point.scenario, self._expected[point.scenario]
        with self._database(scenario) as database:
            self._aim(scenario)
            self.proxy.arm(refusal)
            ended = self._run(scenario, scenario.files, self.proxy.through(database))
            was_met = self.proxy.fired.is_set()
            self.proxy.arm(None)
            if was_met:
                judge_story(point.text, refusal.sqlstate, ended, is_file=point.is_file)
            with closing(database.connect()) as conn:
                wait_until_alone(conn, pooled=scenario.pooled)
            again = self._run(scenario, scenario.files, database)
            if again.exit_code != 0:
                text = f"another start ended with {again.story}"
                raise NotSurvivedError(text)
            found = self._look(scenario, database)
            if found != expected:
                text = f"there is {found} instead of {expected}"
                raise NotSurvivedError(text)
        return was_met

    def _aim(self, scenario: Scenario) -> None:
        """Let the proxy lead to the server, or to a pooler in front of it."""
        if not scenario.pooled:
            self.proxy.point_to(self.server)
            return
        if self._pooler is None:
            whole = Database(server=self._shared, conninfo=self.server.conninfo)
            folder = self._folder / "pooler" / "x"
            pooler = PgBouncer(folder, whole, {"pool_mode": "transaction"}, "*")
            self._hands.submit(pooler.__enter__).result()
            self._stack.push(pooler)
            self._pooler = pooler
        self.proxy.point_to(self._pooler)

    @contextlib.contextmanager
    def _database(self, scenario: Scenario) -> Iterator[Database]:
        """Make a database as the scenario begins: a copy of the first such one."""
        template = f"template_{scenario.name}"
        if scenario not in self._templates:
            self._admin.execute(f"CREATE DATABASE {template} TEMPLATE template0")
            first = self._named(template)
            if scenario.setup:
                first.execute(scenario.setup)
            if scenario.applied:
                self._run(replace(scenario, command=()), scenario.applied, first)
            self._templates.add(scenario)
        name = f"refusals_{next(self._numbers)}"
        self._admin.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        try:
            yield self._named(name)
        finally:
            self._admin.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def _named(self, name: str) -> Database:
        conninfo = {**self.server.conninfo, "dbname": name}
        return Database(server=self._shared, conninfo=conninfo)

    def _connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(**self.server.conninfo, autocommit=True)  # type: ignore[arg-type]  # all of them are texts

    def _run(
        self, scenario: Scenario, files: Mapping[str, str], database: Database
    ) -> Ended:
        folder = self._folder / f"files-{abs(hash(tuple(files.items())))}"
        if not folder.exists():
            write_migrations(folder, files)
        environ = {
            **database.environ(),
            **SETTINGS,
            **scenario.env,
            "GATE_MIGRATIONS": str(folder),
            "GATE_TERMINATION_LOG": str(self._folder / "termination-log"),
        }
        (ended,) = self._forker.run([environ], RUN_TIMEOUT_S, scenario.command)
        return ended

    def _look(self, scenario: Scenario, database: Database) -> State:
        """Return what is there, but for what the last failures were."""
        with closing(database.connect()) as conn:
            wait_until_alone(conn, pooled=scenario.pooled)
            schema = conn.execute(SCHEMA).fetchall()
            present = [
                name
                for name in CONTENTS
                if conn.execute("SELECT to_regclass(%s)", [name]).fetchone() != (None,)
            ]
            return State(
                [row for row in schema if "_failure" not in str(row)],
                {name: conn.execute(CONTENTS[name]).fetchall() for name in present},
            )


def refusals(
    points: Sequence[Point],
    states: Sequence[str] = STATES,
    every: int = 1,
    *,
    is_whole: bool = False,
) -> list[Refusal]:
    """
    Return each point with each state, once and lasting; of these each so-manieth.

    Args:
        is_whole: Of what is alike all, and not some in turn.
    """
    seen: set[tuple[Scenario, bytes]] = set()
    forms: set[bytes] = set()
    alike = itertools.cycle([state for state in states if state in ALIKE] or [None])
    turn = itertools.cycle(states)
    chosen = []
    for point in points:
        form = _form(point.text)
        # What lasts is the same for all that read alike.
        is_first = (point.scenario, form) not in seen
        if is_whole or form not in forms:
            met = [state for state in states if is_whole or state not in ALIKE]
            if not is_whole:
                met += filter(None, itertools.islice(alike, ALIKE_AT_ONCE))
        else:
            met = list(itertools.islice(turn, AGAIN_AT_ONCE))
        seen.add((point.scenario, form))
        forms.add(form)
        chosen += [
            Refusal(point=point, sqlstate=state, lasts=lasts)
            for state in dict.fromkeys(met)
            for lasts in (False, True)
            if not lasts or (is_first and (is_whole or state in TRIED_AGAIN))
        ]
    return chosen[::every]


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
    parser.add_argument("--scenario", action="append", choices=[*BY_NAME])
    parser.add_argument("--all", action="store_true", help="what is alike, too")
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
        points = []
        for name in wanted.scenario or BY_NAME:
            points += labs[0].record(BY_NAME[name])
        for lab in labs[1:]:
            lab.expect(labs[0])
        own = sum(not point.is_file for point in points)
        say(f"{len(points)} statements, {own} of them the gate's own")
        campaign = Campaign(labs)
        states = wanted.state or STATES
        is_whole = wanted.all or wanted.state is not None
        chosen = refusals(points, states, wanted.every, is_whole=is_whole)
        say(f"{len(chosen)} refusals")
        campaign.run(chosen)
        show(campaign)
    say(f"{len(campaign.failures)} not right, {time.monotonic() - started_s:.0f} s")
    return 1 if campaign.failures else 0


if __name__ == "__main__":
    sys.exit(main())
