"""Gates whose search paths differ share one history, also where both would make it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from migration_gate.history.creation import MAKE_LIMIT_S, MAKING_KEY
from migration_gate.session.lock import lock_keys
from tests.fix_gate import Gate, Process, Run
from tests.fix_pgbouncer import PgBouncers
from tests.fix_postgres import Database, Databases
from tests.fix_proxy import Message, Proxy
from tests.herd import Herd
from tests.history_tables import FULL, ONE, tables, why
from tests.session.test_lock import held


FILES = {
    f"{number}_x.sql": f"INSERT INTO public.calls VALUES ({number});"
    for number in range(1, 4)
}
CALLS = [(1,), (2,), (3,)]
HISTORIES = """
SELECT schemaname::text FROM pg_catalog.pg_tables
WHERE tablename = 'schema_migrations' ORDER BY 1
"""
# All at once, and what a herd may meet: each ends open, by one history.
ROUNDS = 50


class Pair:
    """Two login roles of one owner, each with a schema of its own in front."""

    def __init__(self, database: Database) -> None:
        self.owner = database.role("owner", attributes="NOLOGIN").user
        database.execute(
            f"ALTER DATABASE {database.name} OWNER TO {self.owner};"
            "CREATE TABLE public.calls (n integer);"
            f"ALTER TABLE public.calls OWNER TO {self.owner}"
        )
        self.env = {"GATE_ROLE": self.owner}
        self.first = self._login(database, "a")
        self.second = self._login(database, "b")

    def _login(self, database: Database, schema: str) -> Database:
        role = database.role(f"role_{schema}")
        database.execute(
            f"GRANT {self.owner} TO {role.user};"
            f"CREATE SCHEMA {schema} AUTHORIZATION {self.owner};"
            f"ALTER ROLE {role.user} SET search_path = {schema}"
        )
        return role


@pytest.fixture
def pair(database: Database) -> Pair:
    """Return two roles, in a database without a history."""
    return Pair(database)


@pytest.fixture
def herd(tmp_path: Path) -> Iterator[Herd]:
    """Return what starts many gates at the same moment."""
    with closing(Herd(tmp_path / "herd")) as made:
        yield made


def begins_to_make(message: Message) -> bool:
    """Whether it is the first message of the transaction that makes the table."""
    return message.type == "Q" and b"SET LOCAL lock_timeout = '10s'" in message.payload


def before_it_makes(
    proxy: Proxy, gate: Gate, database: Database, env: Mapping[str, str]
) -> list[Run]:
    """Let another gate run before the one behind the proxy makes the table."""
    runs: list[Run] = []

    def run() -> None:
        runs.append(gate(database=database, migrations=FILES, env=env))

    proxy.when(begins_to_make, run)
    return runs


@pytest.mark.server
def test_a_history_made_in_another_schema_meanwhile_is_the_history(
    gate: Gate, database: Database, proxy: Proxy, pair: Pair
) -> None:
    """One gate does everything while the other one is about to make its own table."""
    runs = before_it_makes(proxy, gate, pair.second, pair.env)
    through = proxy.through(pair.first)
    run = gate(database=through, migrations=FILES, env=pair.env)
    assert (runs[0].exit_code, runs[0].verdict["applied"]) == (0, list(FILES))
    assert (run.exit_code, run.verdict["applied"]) == (0, []), run.output
    assert database.fetch("TABLE calls") == CALLS
    assert database.fetch(HISTORIES) == [("b",)]


def test_gates_of_two_histories_take_turns(
    gate: Gate, database: Database, proxy: Proxy, pair: Pair
) -> None:
    """Where either may be that of the files; the second gate sees what is applied."""
    for schema in ("a", "b"):
        database.execute(
            f"SET search_path = {schema}; {FULL}"
            f"ALTER TABLE schema_migrations OWNER TO {pair.owner}"
        )
    others: list[Process] = []

    def start() -> None:
        others.append(gate.start(database=pair.second, migrations=FILES, env=pair.env))
        others[0].wait_for("lock.waiting")

    proxy.when(lambda message: b"INSERT INTO" in message.payload, start)
    through = proxy.through(pair.first)
    first = gate(database=through, migrations=FILES, env=pair.env)
    assert first.verdict["applied"] == list(FILES), first.output
    assert why(others[0].wait()) == (
        1,
        "history",
        (
            'two tables could be the history: "1_x.sql" is pending by'
            ' "b.schema_migrations", and applied by "a.schema_migrations"'
        ),
    )
    assert database.fetch("TABLE calls") == CALLS


def test_a_history_of_other_files_makes_no_gate_wait(
    gate: Gate, database: Database, pair: Pair
) -> None:
    """Its gates are another application's."""
    for schema, version in (("a", "1_x.sql"), ("b", "9_other.sql")):
        database.execute(
            f"SET search_path = {schema}; {FULL}"
            f"ALTER TABLE schema_migrations OWNER TO {pair.owner};"
            f"INSERT INTO schema_migrations (version) VALUES ('{version}')"
        )
    with held(database, lock_keys("b", "schema_migrations").lock):
        run = gate(database=pair.first, migrations=FILES, env=pair.env)
    assert run.verdict["applied"] == ["2_x.sql", "3_x.sql"], run.output
    assert run.all("lock.waiting") == []


@pytest.mark.server
def test_a_history_made_meanwhile_that_a_role_may_not_read_closes_its_gate(
    gate: Gate, database: Database, proxy: Proxy, pair: Pair
) -> None:
    """Without GATE_ROLE it belongs to the login role that was faster."""
    before_it_makes(proxy, gate, pair.second, {})
    run = gate(database=proxy.through(pair.first), migrations=FILES)
    exit_code, reason, message = why(run)
    assert (exit_code, reason) == (1, "history")
    assert message.startswith('table "b.schema_migrations" could be the history')
    assert database.fetch("TABLE calls") == CALLS


def test_a_word_for_a_migration_is_not_given_to_a_second_history(
    gate: Gate, database: Database, proxy: Proxy, pair: Pair
) -> None:
    """The command says that another gate was faster, and given again it is right."""
    before_it_makes(proxy, gate, pair.second, pair.env)
    word = ("resolve", "1_x", "--applied")
    run = gate(
        *word, database=proxy.through(pair.first), migrations=FILES, env=pair.env
    )
    assert why(run) == (
        1,
        "history",
        'another gate made the history, "b.schema_migrations", meanwhile',
    )
    assert (
        gate(*word, database=pair.first, migrations=FILES, env=pair.env).exit_code == 0
    )
    assert database.fetch(HISTORIES) == [("b",)]


def test_a_table_that_is_named_with_its_schema_waits_for_no_other(
    gate: Gate, database: Database
) -> None:
    """Applications that have a history each on purpose do not meet."""
    with database.connect() as other:
        other.execute("SELECT pg_advisory_lock(%s)", [MAKING_KEY])
        env = {"GATE_HISTORY_TABLE": "public.schema_migrations"}
        run = gate(database=database, migrations=ONE, env=env)
    assert (run.exit_code, tables(database)) == (0, ["a"])
    assert run.verdict["duration_ms"] < MAKE_LIMIT_S * 1000


@pytest.mark.thorough
@pytest.mark.timeout(300)
@pytest.mark.parametrize("pooled", [False, True], ids=["direct", "pooled"])
def test_gates_of_two_search_paths_at_once_make_one_history(
    databases: Databases, herd: Herd, pgbouncer: PgBouncers, *, pooled: bool
) -> None:
    """Fifty empty databases, three gates of each role, every file once."""
    for _ in range(ROUNDS):
        database = databases.create()
        pair = Pair(database)
        routes = [pair.first, pair.second]
        if pooled:
            pooler = pgbouncer("transaction", database)
            pooler.admit(*routes)
            routes[1] = pooler.through(pair.second)
        outcome = herd.run(database, FILES, routes * 3, **pair.env)
        assert outcome.hows == {(0, None): 6}, [e.story for e in outcome.ended]
        assert database.fetch("SELECT n FROM calls ORDER BY n") == CALLS
        assert len(database.fetch(HISTORIES)) == 1
