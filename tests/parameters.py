"""
A database with odd defaults: each of PostgreSQL's parameters, in turn.

    python -m tests.parameters [--name PARAMETER]... [--every N] [--labs N]

Each parameter that a database or a role may have a default for is set, at either, to
both sides of what is true or false, to each word that it takes, to its least and its
greatest number, or to odd texts. Then three files are applied, and `migrate`, `check`
and `status` find nothing to do. What is there has to be what it is under PostgreSQL's
own defaults, or the gate closes, each time with the same word and never `internal`.
Prints how many were tried, and what closed the gate; exits 1 when one was not right.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
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
from typing import Any, Final, Literal, Self

import psycopg

from psycopg import sql

from dev.postgres import Server
from tests.faults import say
from tests.fix_gate import write_migrations
from tests.fix_postgres import Database, look_at
from tests.forks import Ended, Forker


Level = Literal["database", "role"]
LEVELS: Final[tuple[Level, ...]] = ("database", "role")
RUN_TIMEOUT_S: Final = 60.0
ROLE: Final = "gate"
SETTINGS: Final = MappingProxyType(
    {
        "GATE_WAIT_TIMEOUT": "10s",
        "GATE_AUTH_GRACE": "0s",
        "GATE_DDL_RETRY_TIMEOUT": "5s",
        "GATE_LOCK_WAIT_TIMEOUT": "5s",
        "GATE_TIMEOUT": "30s",
    }
)
FILES: Final = {
    "001_tables.sql": "CREATE TABLE t (id int PRIMARY KEY, name text, at timestamptz,"
    " is_it bool, amount float8, raw bytea, lasts interval);\n"
    "COPY t FROM stdin;\n"
    "1\ta\\\\b\t2020-01-02 03:04:05+00\tt\t0.1\t\\\\x00ff\t1 day 02:03:04\n\\.\n"
    "CREATE FUNCTION f(a int) RETURNS text LANGUAGE sql AS $$ SELECT name FROM t $$;",
    "002_rows.sql": "INSERT INTO t VALUES (2, 'c\\d', '2020-01-02 03:04:05+00', false,"
    " 1e-7, '\\x01', '1 year');\n"
    "CREATE VIEW v AS SELECT * FROM t WHERE name IS NOT NULL;\n"
    "UPDATE t SET amount = amount * 3 WHERE id IN (SELECT id FROM v);",
    "003_outside.sql": "CREATE INDEX CONCURRENTLY t_name ON t (name);\n"
    "INSERT INTO t (id) VALUES (3);",
}
LOOK: Final = (
    "SELECT id, name, at, is_it, amount, raw, lasts FROM public.t ORDER BY id",
    "SELECT version, checksum FROM public.schema_migrations ORDER BY version",
    """SELECT relname, relkind, reloptions, pg_get_userbyid(relowner) FROM pg_class
       WHERE relnamespace = 'public'::regnamespace ORDER BY relname""",
    "SELECT indisvalid FROM pg_index WHERE indexrelid = 'public.t_name'::regclass",
    "SELECT count(*) FROM pg_class WHERE relpersistence = 't'",
)
NAMES: Final = (
    "SELECT name, vartype, min_val, max_val, enumvals FROM pg_settings"
    " WHERE context IN ('user', 'superuser', 'backend', 'superuser-backend')"
    " ORDER BY name"
)
# What pg_settings does not show.
MORE: Final = {"role": ("gate_other",), "session_authorization": ("gate_other",)}
TEXTS: Final = {
    "application_name": ("", "a 'b' \"c\" é", "migration-gate/9.9"),
    "client_encoding": ("LATIN1", "SQL_ASCII", "EUC_JP", "SJIS", "WIN1252"),
    "createrole_self_grant": ("set, inherit",),
    "DateStyle": ("German, DMY", "SQL, MDY", "Postgres, YMD", "ISO, DMY"),
    "default_tablespace": ("", "nosuch"),
    "default_text_search_config": ("pg_catalog.german", "nosuch"),
    "dynamic_library_path": ("", "/nosuch"),
    "local_preload_libraries": ("nosuch",),
    "session_preload_libraries": ("nosuch", "auto_explain"),
    "restrict_nonsystem_relation_kind": (
        "view",
        "foreign-table",
        "view, foreign-table",
    ),
    "search_path": ("", '"$user"', "nosuch", "pg_temp, public", "other, public"),
    "temp_tablespaces": ("nosuch",),
    "TimeZone": ("America/St_Johns", "Pacific/Kiritimati", "<odd>-03:17"),
    "timezone_abbreviations": ("Australia",),
    "wal_consistency_checking": ("all",),
}
# That many seconds before each login, or so many locks that no connection is had.
LEFT_OUT: Final = frozenset({"post_auth_delay"})
# What PostgreSQL itself then refuses, so that no file could be applied by psql either,
# with the reasons that are right.
CLOSED: Final[dict[str, frozenset[str]]] = {
    "default_transaction_read_only": frozenset({"unreachable"}),
    "session_preload_libraries": frozenset({"refused", "unreachable"}),
    "local_preload_libraries": frozenset({"refused", "unreachable"}),
    # No schema that may be used, a role without rights; a file of these reads a view.
    "search_path": frozenset({"refused"}),
    "role": frozenset({"refused"}),
    "restrict_nonsystem_relation_kind": frozenset({"migration_failed"}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A parameter's default, of a database or a role."""

    name: str
    value: str
    level: Level

    def __str__(self) -> str:
        return f"{self.name} = '{self.value}' of the {self.level}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What three commands said, and what was there after them."""

    ends: tuple[tuple[int, str | None], ...]
    there: tuple[list[tuple[Any, ...]], ...] | None


class NotRightError(Exception):
    """A default changed what the gate does."""


class Lab:
    """A server, and gates to start."""

    def __init__(self, name: str, folder: Path) -> None:
        self.server = Server(name)
        self._folder = folder / name
        self._folder.mkdir()
        self._numbers = itertools.count(1)
        self._usual: Outcome | None = None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(self.server.close)
            self.server.start()
            self._forker = stack.enter_context(closing(Forker(self._folder)))
            write_migrations(self._folder / "migrations", FILES)
            with closing(self._admin()) as conn:
                conn.execute(f"CREATE ROLE {ROLE} LOGIN PASSWORD 'gate'")
                conn.execute("CREATE ROLE gate_other")
                conn.execute(f"GRANT gate_other TO {ROLE}")
            self._usual = self._measure(None)
            if self._usual.ends != ((0, None),) * 4:
                text = f"without any default it ends with {self._usual.ends}"
                raise NotRightError(text)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def trials(self) -> list[Trial]:
        """Return each parameter with each value, at each level."""
        with closing(self._admin()) as conn:
            rows = conn.execute(NAMES).fetchall()
        values = {row[0]: values_of(*row) for row in rows} | MORE
        return [
            Trial(name=name, value=value, level=level)
            for name, each in values.items()
            for value in each
            for level in LEVELS
            if name not in LEFT_OUT
        ]

    def attempt(self, trial: Trial) -> str:
        """
        Try a default; return the reason of a gate that closes, empty if it opens.

        Raises:
            NotRightError: It was not as without, and that was not PostgreSQL's no.
        """
        found = self._measure(trial)
        if found == self._usual:
            return ""
        reasons = {reason or "" for code, reason in found.ends if code == 1}
        reasons -= {"incomplete"}  # what `check` says where nothing was applied
        is_expected = reasons and reasons <= CLOSED.get(trial.name, frozenset())
        if not is_expected:
            text = f"{found.ends}: {self._last_word}"
            if {code for code, _ in found.ends} == {0}:
                text = f"there is {found.there}"
            raise NotRightError(text)
        return reasons.pop()

    def _measure(self, trial: Trial | None) -> Outcome:
        """Apply the files, look again, check and ask for the status."""
        with self._database(trial) as database:
            self._last_word = ""
            calls = (), (), ("check",), ("status",)
            ends = [self._run(database, arguments) for arguments in calls]
            is_applied = ends[0].exit_code == 0
            for ended in ends:
                if ended.exit_code and not self._last_word:
                    self._last_word = ended.story
            self._reset(database.name)
            there = self._look(database) if is_applied else None
            return Outcome(ends=tuple(ended.how for ended in ends), there=there)

    @contextlib.contextmanager
    def _database(self, trial: Trial | None) -> Iterator[Database]:
        name = f"parameters_{next(self._numbers)}"
        with closing(self._admin()) as conn:
            conn.execute(f"CREATE DATABASE {name} OWNER {ROLE} TEMPLATE template0")
            if trial is not None:
                whose = {"database": name, "role": ROLE}[trial.level]
                change = sql.SQL("ALTER {} {} SET {} = {}").format(
                    sql.SQL(trial.level.upper()),
                    sql.Identifier(whose),
                    sql.Identifier(trial.name),
                    sql.SQL(trial.value)
                    if trial.name == "search_path" and trial.value
                    else sql.Literal(trial.value),
                )
                conn.execute(change)
        conninfo = {
            **self.server.conninfo,
            "dbname": name,
            "user": ROLE,
            "password": "gate",
        }
        try:
            shared = look_at(self.server.conninfo, self.server)
            yield Database(server=shared, conninfo=conninfo)
        finally:
            self._reset(name)
            with closing(self._admin()) as conn:
                conn.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def _reset(self, name: str) -> None:
        with closing(self._admin()) as conn:
            conn.execute(f"ALTER DATABASE {name} RESET ALL")
            conn.execute(f"ALTER ROLE {ROLE} RESET ALL")

    def _admin(self) -> psycopg.Connection[Any]:
        return psycopg.connect(**self.server.conninfo, autocommit=True)  # type: ignore[arg-type]  # all of them are texts

    def _run(self, database: Database, arguments: Sequence[str]) -> Ended:
        environ = {
            **database.environ(),
            **SETTINGS,
            "GATE_MIGRATIONS": str(self._folder / "migrations"),
            "GATE_TERMINATION_LOG": str(self._folder / "termination-log"),
        }
        (ended,) = self._forker.run([environ], RUN_TIMEOUT_S, arguments)
        return ended

    def _look(self, database: Database) -> tuple[list[tuple[Any, ...]], ...]:
        conninfo = {**self.server.conninfo, "dbname": database.name}
        with closing(psycopg.connect(**conninfo)) as conn:  # type: ignore[arg-type]  # all of them are texts
            return tuple(conn.execute(query).fetchall() for query in LOOK)


def values_of(
    name: str,
    kind: str,
    least: str | None,
    greatest: str | None,
    words: Sequence[str] | None,
) -> tuple[str, ...]:
    """Return what a parameter is tried with."""
    if kind == "bool":
        return "on", "off"
    if kind == "enum":
        return tuple(words or ())
    if kind == "string":
        return TEXTS.get(name, ("C",) if name.startswith("lc_") else ("",))
    return tuple(dict.fromkeys((least or "0", greatest or "0")))


class Campaign:
    """Trials spread over several labs, and the score."""

    def __init__(self, labs: Sequence[Lab]) -> None:
        self._labs = labs
        self._guard = threading.Lock()
        self.tried = 0
        self.closed: Counter[tuple[str, str]] = Counter()
        self.refused: list[str] = []
        self.failures: list[str] = []

    def run(self, trials: Iterable[Trial]) -> None:
        """Try each on whichever lab is free."""
        queue = iter(trials)
        with ThreadPoolExecutor(len(self._labs)) as pool:
            for future in [pool.submit(self._work, lab, queue) for lab in self._labs]:
                future.result()

    def _work(self, lab: Lab, queue: Iterator[Trial]) -> None:
        while True:
            with self._guard:
                trial = next(queue, None)
            if trial is None:
                return
            self._try(lab, trial)

    def _try(self, lab: Lab, trial: Trial) -> None:
        reason, fault, refusal = "", None, None
        try:
            reason = lab.attempt(trial)
        except NotRightError as error:
            fault = str(error)
        except psycopg.Error as error:  # PostgreSQL does not take it
            refusal = f"{trial}: {str(error).splitlines()[0]}"
        except Exception as error:  # noqa: BLE001  # a trial, not the whole campaign
            fault = f"{type(error).__name__}: {error}"
        with self._guard:
            if refusal is not None:
                self.refused.append(refusal)
                return
            self.tried += 1
            if reason:
                self.closed[trial.name, reason] += 1
            if fault is not None:
                self.failures.append(f"{trial}: {fault}")
                say(f"NOT RIGHT: {self.failures[-1]}")


def main() -> int:
    """Run the campaign; return 1 where a default changed what the gate does."""
    parser = argparse.ArgumentParser(prog="python -m tests.parameters")
    parser.add_argument("--name", action="append", default=[])
    parser.add_argument("--every", type=int, default=1, help="of them, each Nth")
    parser.add_argument("--labs", type=int, default=os.cpu_count() or 1)
    wanted = parser.parse_args()
    started_s = time.monotonic()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        labs = [
            stack.enter_context(Lab(f"parameters-{n}", folder))
            for n in range(wanted.labs)
        ]
        trials = labs[0].trials()
        count = len({trial.name for trial in trials})
        chosen = [t for t in trials if not wanted.name or t.name in wanted.name]
        say(f"{count} parameters, {len(trials)} defaults")
        campaign = Campaign(labs)
        campaign.run(chosen[:: wanted.every])
    for line in campaign.refused:
        say(f"not taken by PostgreSQL: {line}")
    for (name, reason), times in sorted(campaign.closed.items()):
        say(f"closed: {name}, {reason}, {times} times")
    say(
        f"{campaign.tried} tried, {len(campaign.failures)} not right, "
        f"{time.monotonic() - started_s:.0f} s"
    )
    return 1 if campaign.failures else 0


if __name__ == "__main__":
    sys.exit(main())
