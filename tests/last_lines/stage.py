"""A gate in front of a database, for one scene."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from types import MappingProxyType
from typing import Final, NamedTuple, TypeAlias

from dev.postgres import HBA, Server
from tests.fix_gate import Files, Gate, Process, Run
from tests.fix_postgres import Database, Databases, database_of


A: Final = {"001_a.sql": "CREATE TABLE a (id int);"}
QUICK: Final = {
    "GATE_HEARTBEAT": "100ms",
    "GATE_WAIT_TIMEOUT": "1s",
    "GATE_AUTH_GRACE": "1s",
    "GATE_DDL_LOCK_TIMEOUT": "200ms",
    "GATE_DDL_RETRY_TIMEOUT": "1s",
    "GATE_LOCK_WAIT_TIMEOUT": "1s",
}


class Stage(NamedTuple):
    """A gate in front of a database, and what is closed after the scene."""

    gate: Gate
    database: Database
    databases: Databases
    stack: ExitStack

    def start(
        self,
        *argv: str,
        files: Files = A,
        database: Database | None = None,
        env: Mapping[str, str] = MappingProxyType({}),
    ) -> Process:
        """Start the gate."""
        there = database or self.database
        known = {**QUICK, **env}
        return self.gate.start(*argv, database=there, migrations=files, env=known)

    def run(
        self,
        *argv: str,
        files: Files = A,
        database: Database | None = None,
        env: Mapping[str, str] = MappingProxyType({}),
    ) -> Run:
        """Run the gate to its end."""
        return self.start(*argv, files=files, database=database, env=env).wait(60)

    def sql(self, text: str, **env: str) -> Run:
        """Apply one file, after a table `t` was made."""
        self.database.execute("CREATE TABLE t (id int UNIQUE, v text)")
        return self.run(files={"001_a.sql": "SELECT 1;\n" + text}, env=env)

    @contextmanager
    def busy(self, statement: str) -> Iterator[None]:
        """Have somebody in a transaction that has done a statement."""
        with closing(self.database.connect(application_name="report")) as other:
            other.execute("BEGIN")
            other.execute(statement)
            yield

    def login(self, *grants: str, attributes: str = "LOGIN") -> Database:
        """Return the database as a new role sees it that was granted this."""
        role = self.database.role("app", attributes=attributes)
        for grant in grants:
            self.database.execute(f"GRANT {grant} TO {role.user}")
        return role

    def new_server(
        self,
        name: str,
        *,
        tls: bool = False,
        hba: tuple[str, ...] = HBA,
        standby_of: Server | None = None,
        **settings: str,
    ) -> Server:
        """Return a server of the scene's own."""
        return self.stack.enter_context(
            Server(
                f"last-lines-{name}",
                settings=settings,
                tls=tls,
                hba=hba,
                standby_of=standby_of,
            )
        )

    def elsewhere(self, server: Server) -> Stage:
        """Return the stage in front of another server's database."""
        return self._replace(database=database_of(server))


Scene: TypeAlias = Callable[[Stage], Run]
Scenes: TypeAlias = Mapping[str, Scene]


def of_sql(text: str, **env: str) -> Scene:
    """Return the scene of one file's statement that fails."""
    return lambda stage: stage.sql(text, **env)
