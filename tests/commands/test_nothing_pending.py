"""When everything is applied: no lock, no write, one connection and two queries."""

from __future__ import annotations

import re

import pytest

from tests.fix_gate import Gate
from tests.fix_postgres import Database
from tests.fix_proxy import Proxy
from tests.history_tables import PLAIN, TWO, traces


ROWS = "INSERT INTO schema_migrations (version) VALUES ('1_a'), ('2_b');"


@pytest.mark.parametrize("whose", ["ours", "plain"])
def test_one_connection_and_two_queries(
    gate: Gate, database: Database, proxy: Proxy, whose: str
) -> None:
    """Ours or the plain table: the catalogue is asked, then the rows; no write."""
    if whose == "ours":
        gate(database=database, migrations=TWO)
    else:
        database.execute(f"{PLAIN} {ROWS}")
    before = traces(database, "schema_migrations")
    database.execute(
        f"ALTER DATABASE {database.name} SET log_statement = 'all';"
        f"ALTER DATABASE {database.name} SET default_transaction_read_only = off"
    )
    run = gate(database=proxy.through(database), migrations=TWO)
    assert run.names == ["gate.started", "database.ready", "plan.made", "gate.opened"]
    (link,) = proxy.settled()
    assert (link.asked, link.round_trips) == ("QQX", 2)
    assert traces(database, "schema_migrations") == before
    if database.server.embedded is not None:
        log = database.log
        gates = [line for line in log.splitlines() if "migration-gate/" in line]
        assert len([line for line in gates if "statement:" in line]) == 2
        assert not re.search("advisory|INSERT INTO|UPDATE .* SET|BEGIN", "".join(gates))


def test_what_applies_and_other_commands_are_not_loaded(
    gate: Gate, database: Database
) -> None:
    """Nearly every start of a rollout ends without them."""
    gate(database=database, migrations=TWO)
    run = gate(database=database, migrations=TWO, env={"PYTHONVERBOSE": "1"})
    loaded = set(re.findall(r"^import '(\S+)' # ", run.stderr, re.MULTILINE))
    rooms: dict[str, set[str]] = {}
    for name in loaded:
        package, _, rest = name.partition(".")
        if package == "migration_gate" and rest:
            room, _, module = rest.partition(".")
            rooms.setdefault(room, set()).add(module)
    assert not rooms.keys() & {"applying", "execution"}
    assert rooms["commands"] == {"", "calls", "main", "migrate", "signals", "steps"}
    assert "argparse" not in loaded


@pytest.mark.thorough
def test_a_history_of_100_000_rows_is_no_burden(gate: Gate, database: Database) -> None:
    """In names that nothing here explains, sorted as they are made."""
    gate(database=database, migrations=TWO)
    database.execute(
        "INSERT INTO schema_migrations (version, applied_at, checksum) SELECT"
        " lpad(i::text, 9, '0') || '_x.sql', now(), 'sha256:' || repeat('0', 64)"
        " FROM generate_series(1000, 101000) AS i"
    )
    run = gate(database=database, migrations=TWO)
    assert run.exit_code == 0, run.output
    assert run.one("plan.made")["applied_count"] == 2
    assert run.one("history.unknown_versions")["versions"][-1].endswith(" more")
    assert max(map(len, run.stdout.splitlines())) < 16 * 1024
    assert run.verdict["duration_ms"] < 10_000


@pytest.mark.server
def test_a_role_that_may_only_read_opens_the_gate(
    gate: Gate, database: Database
) -> None:
    """SELECT on the history is all it needs."""
    gate(database=database, migrations=TWO)
    role = database.role("reader")
    database.execute(f"GRANT SELECT ON schema_migrations TO {role.user}")
    assert gate(database=role, migrations=TWO).verdict["applied"] == []


@pytest.mark.server
def test_a_lock_of_another_gate_is_not_waited_for(
    gate: Gate, database: Database
) -> None:
    """Even a table that others write in does not keep it closed."""
    gate(database=database, migrations=TWO)
    with database.connect() as writer:
        writer.execute("BEGIN; LOCK TABLE schema_migrations IN EXCLUSIVE MODE")
        run = gate(database=database, migrations=TWO)
    assert run.exit_code == 0
    assert "lock.waiting" not in run.names
