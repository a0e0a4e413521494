"""
The targets of a fleet: asked of the configured database, or read from a file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import psycopg

from psycopg import pq, sql

from migration_gate.commands.fleet.lines import SETTING, fault, read_lines
from migration_gate.commands.steps import new_patience
from migration_gate.connection.asking import asking
from migration_gate.connection.causes import NO_ANSWER
from migration_gate.connection.connect import use_first
from migration_gate.connection.limited import LimitedConnection
from migration_gate.connection.not_ready import NotReadyError
from migration_gate.connection.qualified import qualified
from migration_gate.connection.wait import wait_for
from migration_gate.history.lasting import IS_LASTING
from migration_gate.report.errors import (
    ServerRefusedError,
    SettingFault,
    SettingsError,
)
from migration_gate.report.log import Log
from migration_gate.report.verdict import Tally
from migration_gate.settings.settings import (
    IDENTIFIER_BYTES_MAX,
    HistoryTableName,
    Settings,
)


LIST_TIMEOUT_S: Final = 30.0
# Several statements are one, too; time does not mend it.
SYNTAX_ERROR: Final = "42601"
NO_RIGHT: Final = "42501"
NO_ANSWER_TO_QUERY: Final = f"has a query without an answer within {LIST_TIMEOUT_S:g} s"
NOT_ONE_COLUMN: Final = "has a query that does not give one column"
READ_LESS: Final = "Let it read less, or end who locks what it reads."
GIVE_TEXT: Final = "A query gives the name as text, like nspname::text, and never NULL."
# PostgreSQL lets nobody else make a schema whose name begins so.
OWN_PREFIX: Final = "pg_"
OWN_SCHEMA: Final = "information_schema"
LEAVE_OUT_OWN: Final = (
    f"Let the query leave it out: nspname !~ '^{OWN_PREFIX}' "
    f"AND nspname <> '{OWN_SCHEMA}'."
)
CONNECTIONS_EACH: Final = 2
# What server, role and database have left; NULL where they set no limit. Of others'
# sessions one without privileges sees only where they are, and whose.
SERVER: Final = qualified(
    """
SELECT pg_catalog.pg_backend_pid(),
       pg_catalog.current_setting('max_connections')::pg_catalog.int4
       - pg_catalog.current_setting('superuser_reserved_connections')
         ::pg_catalog.int4
       - coalesce(pg_catalog.current_setting('reserved_connections', true), '0')
         ::pg_catalog.int4
       - pg_catalog.count(*),
       CASE WHEN role.rolconnlimit >= 0 AND NOT role.rolsuper THEN role.rolconnlimit
       - pg_catalog.count(*) FILTER (WHERE a.usesysid = role.oid) END,
       CASE WHEN home.datconnlimit >= 0 AND NOT role.rolsuper THEN home.datconnlimit
       - pg_catalog.count(*) FILTER (WHERE a.datid = home.oid) END
FROM pg_catalog.pg_stat_activity AS a
JOIN pg_catalog.pg_roles AS role ON role.rolname = session_user
JOIN pg_catalog.pg_database AS home ON home.datname = pg_catalog.current_database()
WHERE a.datid IS NOT NULL AND a.usesysid IS NOT NULL
  AND coalesce(a.backend_type, 'client backend') = 'client backend'
GROUP BY role.oid, role.rolconnlimit, role.rolsuper, home.oid, home.datconnlimit
"""
)
# In the order of the names; NULL for what is not there.
IDENTITIES: Final = qualified(
    """
SELECT made.oid
FROM pg_catalog.unnest(%s::pg_catalog.name[]) WITH ORDINALITY AS listed (name, place)
LEFT JOIN {catalogue} AS made ON made.{name} = listed.name
ORDER BY listed.place
"""
)
CATALOGUES: Final = {
    "schemas": ("pg_namespace", "nspname"),
    "databases": ("pg_database", "datname"),
}


class Target(NamedTuple):
    """One schema or database with a history of its own, and the settings for it."""

    name: str
    settings: Settings


class Listing(NamedTuple):
    """
    The names of all targets, in order, and what each of them needs to be reached.

    ``home`` is what the database said that was asked, None where none was. ``lines``
    are the parameters of each where a file lists them. ``room`` is how many connections
    there may be for them; None where nobody knows. ``identities`` tell a schema or
    database from another one of its name.
    """

    names: tuple[str, ...]
    home: Home | None = None
    lines: Mapping[str, Mapping[str, str]] = MappingProxyType({})
    room: int | None = None
    identities: Mapping[str, int | None] = MappingProxyType({})


class Home(NamedTuple):
    """
    What the configured database says of a session there.

    ``options`` are those that the session was started with. ``keeps`` tells that the
    sessions of a pooler may keep what files of one schema leave for those of another.
    """

    options: str
    is_pooled: bool
    keeps: bool = False


def list_targets(
    settings: Settings, log: Log, tally: Tally, *, so_far: str = ""
) -> Listing:
    """
    List the targets: wait for the database that is asked, where one is.

    Args:
        so_far: How far the fleet is, which a stop tells.

    Raises:
        SettingsError: The list cannot be read, or has what can be no name.
    """
    targets = settings.targets
    assert targets is not None  # noqa: S101  # what makes a run a fleet
    if targets.kind == "file":
        lines = read_lines(targets.source)
        return Listing(tuple(lines), lines=lines)
    return _ask(settings, log, tally, targets.source.encode(), so_far)


def find_target(settings: Settings, log: Log, tally: Tally) -> Target:
    """Return the one target that GATE_TARGET names."""
    targets, name = settings.targets, settings.target
    assert targets is not None and name is not None  # noqa: PT018, S101
    listing = Listing((name,))
    if targets.kind == "schemas":
        if _is_own(name):
            rule = "names a schema that is PostgreSQL's own"
            raise SettingsError([SettingFault("GATE_TARGET", rule)])
        listing = _ask(settings, log, tally, None)
    elif targets.kind == "file":
        listing = list_targets(settings, log, tally)
        if name not in listing.lines:
            raise fault("does not list what GATE_TARGET names")
    return to_target(settings, name, listing)


def to_target(settings: Settings, name: str, listing: Listing) -> Target:
    """Return the target of that name with its settings."""
    targets, home = settings.targets, listing.home
    assert targets is not None  # noqa: S101
    database = settings.database
    changed = settings._replace(waits_for_turn=True)
    if targets.kind == "databases":
        instead = {"dbname": name}
        if not settings.create_database:  # the list is of what is there
            changed = changed._replace(auth_grace_s=0.0)
    elif targets.kind == "file":
        instead = dict(listing.lines[name])
    else:
        assert home is not None  # noqa: S101  # it was asked
        instead = {}
        if not home.is_pooled:
            changed = changed._replace(options=home.options, shares_sessions=True)
        table = settings.history_table.table
        history_table = HistoryTableName(name, table, is_target=True)
        changed = changed._replace(history_table=history_table)
    database = database._replace(instead=tuple(instead.items()))
    return Target(name, changed._replace(database=database))


def _ask(
    settings: Settings, log: Log, tally: Tally, query: bytes | None, so_far: str = ""
) -> Listing:
    patience = new_patience(settings, log, settings.wait_timeout_s)
    patience.so_far = so_far

    def attempt() -> Listing:
        return use_first(
            settings.database,
            lambda conn: _list_on(conn, settings, query),
            until_s=patience.until_s,
        )

    try:
        listing = wait_for(attempt, patience)
    finally:
        tally.waited_s += patience.waited_s
    return listing


def _list_on(
    conn: LimitedConnection, settings: Settings, query: bytes | None
) -> Listing:
    is_full = settings.log_detail == "full"
    identities: Mapping[str, int | None] = {}
    with closing(conn):
        with asking(conn, "ask for the server's room", full=is_full):
            ((pid, *rooms),) = conn.execute(SERVER).fetchall()
            is_pooled = pid != conn.info.backend_pid
            keeps = is_pooled and _is_lasting(conn, settings)
        home = Home(conn.pgconn.options.decode(), is_pooled, keeps)
        names: tuple[str, ...] = ()
        if query is not None:
            with _asking_the_list(conn, is_full=is_full):
                names = _ask_names(conn, query)
            with asking(conn, "ask which targets are there", full=is_full):
                identities = _ask_identities(conn, settings, names)
    if settings.targets is not None and settings.targets.kind == "databases":
        rooms.pop()  # each of them has a limit of its own
    elif any(map(_is_own, names)):
        raise fault("gives a schema that is PostgreSQL's own", LEAVE_OUT_OWN)
    # The session that asked gives its place back.
    room = 1 + min(room for room in rooms if room is not None)
    return Listing(names, home, room=None if is_pooled else room, identities=identities)


@contextmanager
def _asking_the_list(conn: LimitedConnection, *, is_full: bool) -> Iterator[None]:
    """
    Say that it is the setting's query that PostgreSQL refuses, or does not answer.

    Raises:
        SettingsError: No wait makes it right.
        NotReadyError: It may come right, as a table that is made at the same time does.
    """
    doing = f"ask what {SETTING} says"
    try:
        with asking(conn, doing, timeout_s=LIST_TIMEOUT_S, full=is_full):
            yield
    except NotReadyError as refused:
        refusal = refused.error
        if refused.cause is NO_ANSWER:
            refused.error = fault(NO_ANSWER_TO_QUERY, READ_LESS)
        if isinstance(refusal, ServerRefusedError):
            said = refusal.said.get("error_message")
            grant = "Grant the role what it reads, or correct it"
            mend = grant if refusal.sqlstate == NO_RIGHT else "Correct it"
            error = fault(
                f"has a query that PostgreSQL refuses: {said} "
                f"(SQLSTATE {refusal.sqlstate})",
                f'{mend}: it is asked of database "{conn.info.dbname}" as role '
                f'"{conn.info.user}".',
            )
            if refusal.sqlstate == SYNTAX_ERROR:
                raise error from refused
            refused.error = error
        raise


def _is_lasting(conn: LimitedConnection, settings: Settings) -> bool:
    """Ask whether one schema's files could find what another's have left."""
    if settings.targets is None or settings.targets.kind != "schemas":
        return False
    ((is_lasting,),) = conn.execute(sql.SQL("SELECT {}").format(IS_LASTING)).fetchall()
    return bool(is_lasting)


def _ask_names(conn: psycopg.Connection[Any], query: bytes) -> tuple[str, ...]:
    conn.execute("BEGIN READ ONLY")
    # In the protocol that takes one statement, and no more.
    try:
        cursor = conn.execute(query, binary=True)
    except psycopg.errors.ReadOnlySqlTransaction:
        raise fault("has a query that writes", "Let it only read.") from None
    except psycopg.errors.ProtocolViolation:
        if conn.info.transaction_status != pq.TransactionStatus.INERROR:
            raise  # a pooler's, which has lost its server
        raise fault("has a query with a parameter", "Write its value.") from None
    except psycopg.ProgrammingError as error:
        if error.sqlstate is not None:
            raise
        raise fault(NOT_ONE_COLUMN) from None  # COPY
    if cursor.description is None or len(cursor.description) != 1:
        raise fault(NOT_ONE_COLUMN)
    rows = cursor.fetchall()
    conn.execute("ROLLBACK")
    return _to_names([row[0] for row in rows])


def _ask_identities(
    conn: psycopg.Connection[Any], settings: Settings, names: Sequence[str]
) -> dict[str, int | None]:
    targets = settings.targets
    assert targets is not None  # noqa: S101
    catalogue, name = CATALOGUES[targets.kind]
    query = IDENTITIES.format(
        catalogue=sql.Identifier("pg_catalog", catalogue), name=sql.Identifier(name)
    )
    rows = conn.execute(query, [list(names)]).fetchall()
    return dict(zip(names, (oid for (oid,) in rows), strict=True))


def _is_own(name: str) -> bool:
    """Tell a schema of PostgreSQL's own, in which a superuser may make tables."""
    return name == OWN_SCHEMA or name.startswith(OWN_PREFIX)


def _to_names(found: Sequence[object]) -> tuple[str, ...]:
    """Return each name once, in its order."""
    for number, name in enumerate(found, start=1):
        if not isinstance(name, str) or not name:
            raise fault(f"gives no name in row {number}", GIVE_TEXT)
        if len(name.encode()) > IDENTIFIER_BYTES_MAX:
            raise fault(f"gives a name longer than 63 bytes in row {number}")
    return tuple(dict.fromkeys(str(name) for name in found))
