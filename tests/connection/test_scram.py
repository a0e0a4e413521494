"""A fleet hashes a password for few of its logins; the keys are what the server has."""

from __future__ import annotations

import base64
import hashlib

from collections.abc import Iterator
from contextlib import closing

import pytest

from psycopg import pq, sql

from migration_gate.connection.connect import open_connection
from migration_gate.connection.limited import LimitedConnection
from migration_gate.connection.not_ready import NotReadyError
from migration_gate.connection.scram import Memory, derive
from migration_gate.connection.spares import keeping
from migration_gate.settings.environment import from_environ
from tests.fix_postgres import Database


pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(pq.version() < 180000, reason="this libpq takes no keys"),
]
SECRET = "SELECT rolpassword FROM pg_authid WHERE rolname = %s"


@pytest.fixture
def memory() -> Iterator[Memory]:
    """What the threads of a fleet would know of logins, in this one."""
    memory = Memory()
    with keeping(memory):
        yield memory


def log_in(database: Database) -> LimitedConnection:
    """Log in as the gate does."""
    settings = from_environ(database.environ() | {"GATE_MIGRATIONS": "/"})
    return open_connection(settings.database)


def uses_keys(database: Database) -> bool:
    """Log in, and return whether libpq was given keys."""
    with closing(log_in(database)) as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)
        given = {option.keyword: option.val for option in conn.pgconn.info}
        return given[b"scram_client_key"] is not None


def set_password(database: Database, role: Database, password: str) -> None:
    """Set a password, with a salt of its own."""
    alter = sql.SQL("ALTER ROLE {} PASSWORD {}")
    database.execute(alter.format(sql.Identifier(role.user), password).as_string())


def test_the_keys_are_those_that_the_server_has(database: Database) -> None:
    """As pg_authid has them: what proves to know the password, and what the server."""
    role = database.role("LOGIN", password="a b~!'\\")
    ((secret,),) = database.fetch(SECRET, [role.user])
    _, hashed, stored = secret.split("$")
    rounds, salt = hashed.split(":")
    keys = derive(role.password, base64.b64decode(salt), int(rounds))
    client_key = base64.b64decode(keys["scram_client_key"])
    proof = base64.b64encode(hashlib.sha256(client_key).digest()).decode()
    assert stored == f"{proof}:{keys['scram_server_key']}"


def test_a_login_is_hashed_until_two_were_alike(
    database: Database, memory: Memory
) -> None:
    """A server has one salt for a role; another role is another login."""
    assert memory is not None
    role, other = database.role("LOGIN"), database.role("LOGIN")
    assert [uses_keys(role) for _ in range(4)] == [False, False, True, True]
    assert not uses_keys(other)


def test_no_other_run_uses_keys(database: Database) -> None:
    """Only where many logins follow each other is it worth anything."""
    role = database.role("LOGIN")
    assert [uses_keys(role) for _ in range(3)] == [False, False, False]


def test_another_salt_ends_it(database: Database, memory: Memory) -> None:
    """As poolers have that know a password: nothing is refused for it."""
    assert memory is not None
    role = database.role("LOGIN")
    assert not uses_keys(role)
    set_password(database, role, role.password)
    assert [uses_keys(role) for _ in range(3)] == [False, False, False]


def test_keys_that_are_refused_are_forgotten(
    database: Database, memory: Memory
) -> None:
    """The password is set again meanwhile: the same login works, with the password."""
    assert memory is not None
    role = database.role("LOGIN")
    assert [uses_keys(role) for _ in range(3)] == [False, False, True]
    set_password(database, role, role.password)
    assert [uses_keys(role) for _ in range(2)] == [False, False]
    set_password(database, role, "another")
    with pytest.raises(NotReadyError, match="password authentication failed"):
        log_in(role)


@pytest.mark.parametrize("password", ["pässword", "\u2168", "a\u00adb", "tab\there"])
def test_what_is_made_alike_first_is_left_to_the_driver(
    database: Database, memory: Memory, password: str
) -> None:
    """It hashes another form of such a password."""
    assert memory is not None
    role = database.role("LOGIN", password=password)
    assert [uses_keys(role) for _ in range(3)] == [False, False, False]
