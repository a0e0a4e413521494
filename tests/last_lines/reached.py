"""What keeps the gate from the database, or from a database that it can use."""

from __future__ import annotations

from contextlib import ExitStack, closing
from typing import Final

import trustme

from dev.postgres import HBA, find_free_port
from tests.fix_gate import Run
from tests.fix_postgres import Database
from tests.last_lines.stage import QUICK, A, Scenes, Stage


LOGIN_TRIGGER_MIN_VERSION: Final = 170000
LOGIN_TRIGGER: Final = """
CREATE FUNCTION closed() RETURNS event_trigger LANGUAGE plpgsql AS
  $$ BEGIN RAISE 'not at night, %', session_user; END $$;
CREATE EVENT TRIGGER closed ON login EXECUTE FUNCTION closed();
"""


def nothing_there(stage: Stage, **env: str) -> Run:
    """Nobody listens at this port."""
    away = stage.database.changed(port=str(find_free_port()))
    return stage.run(database=away, env=env)


def no_host(stage: Stage) -> Run:
    """The name is unknown."""
    return stage.run(database=stage.database.changed(host="db.invalid"))


def with_tls(stage: Stage, *, host: str = "127.0.0.1", own_ca: bool = False) -> Run:
    """The server has a certificate of a CA of its own, for 127.0.0.1."""
    server = stage.new_server("tls", tls=True)
    conninfo = stage.elsewhere(server).database.conninfo
    ca = server.folder / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(ca))
    parameters = {
        **{k: v for k, v in conninfo.items() if k != "password"},
        "host": host,
        "hostaddr": "127.0.0.1",
        "sslmode": "verify-full",
        "sslrootcert": str(server.ca if own_ca else ca),
    }
    url = " ".join(f"{key}={value}" for key, value in parameters.items())
    env = {**QUICK, "DATABASE_URL": url, "PGPASSWORD": conninfo["password"]}
    return stage.gate(migrations=dict(A), env=env)


def no_ca_file(stage: Stage) -> Run:
    """sslmode=verify-full, and no CA is named."""
    there = stage.elsewhere(stage.new_server("tls", tls=True)).database
    return stage.run(database=there.changed(sslmode="verify-full"))


def tls_not_offered(stage: Stage) -> Run:
    """sslmode=require, and the server has none."""
    return stage.run(database=stage.database.changed(sslmode="require"))


def no_hba_entry(stage: Stage) -> Run:
    """pg_hba.conf knows the superuser alone."""
    hba = tuple(line.replace(" all all ", " all postgres ") for line in HBA)
    there = stage.elsewhere(stage.new_server("hba", hba=hba))
    return there.run(database=there.login())


def only_tls(stage: Stage) -> Run:
    """pg_hba.conf lets in who uses TLS."""
    hba = (*HBA[:1], "hostssl all all 127.0.0.1/32 scram-sha-256")
    server = stage.new_server("hostssl", tls=True, hba=hba)
    there = stage.elsewhere(server).database
    return stage.run(database=there.changed(sslmode="disable"))


def not_in(stage: Stage, attributes: str) -> Run:
    """The role may not log in."""
    return stage.run(database=stage.login(attributes=attributes))


def no_right_to_connect(stage: Stage) -> Run:
    """CONNECT is not everybody's."""
    name = stage.database.name
    stage.database.execute(f"REVOKE CONNECT ON DATABASE {name} FROM PUBLIC")
    return stage.run(database=stage.login())


def no_connections_allowed(stage: Stage) -> Run:
    """The database is closed to all."""
    with closing(stage.database.server.connect()) as conn:
        conn.execute(f"ALTER DATABASE {stage.database.name} ALLOW_CONNECTIONS off")
    return stage.run()


def limited(stage: Stage, of: str, count: int) -> Run:
    """The role, or the database, may have so many connections."""
    app = stage.login("CREATE ON SCHEMA public")
    name = app.user if of == "ROLE" else app.name
    stage.database.execute(f"ALTER {of} {name} CONNECTION LIMIT {count}")
    return stage.run(database=app)


def too_many_connections(stage: Stage) -> Run:
    """Other sessions have all."""
    there = stage.elsewhere(stage.new_server("full", max_connections="5"))
    app = there.login()
    with ExitStack() as others:
        for _ in range(2):  # and three are kept for superusers
            others.enter_context(closing(app.connect()))
        return there.run(database=app)


def login_trigger(stage: Stage) -> Run:
    """An event trigger lets nobody in but superusers of another kind."""
    app = stage.login()
    stage.database.execute(LOGIN_TRIGGER)
    return stage.run(database=app)


def read_only(stage: Stage) -> Run:
    """The database only reads."""
    name = stage.database.name
    stage.database.execute(
        f"ALTER DATABASE {name} SET default_transaction_read_only = on"
    )
    return stage.run()


def standby(stage: Stage) -> Run:
    """It follows another server."""
    primary = stage.new_server("primary")
    return stage.elsewhere(stage.new_server("standby", standby_of=primary)).run()


def pgoptions(stage: Stage) -> Run:
    """PGOPTIONS has a parameter that the server does not know."""
    return stage.run(env={"PGOPTIONS": "-c nowhere_timeout=3"})


def without_password(stage: Stage) -> Run:
    """No password is given, and the server asks for one."""
    there = stage.database.conninfo
    env = {**QUICK, "PGHOST": there["host"], "PGPORT": there["port"]}
    env |= {"PGUSER": there["user"], "PGDATABASE": there["dbname"]}
    return stage.gate(migrations=dict(A), env=env)


def wrong_database(stage: Stage) -> Database:
    """Return a database that is not there."""
    return stage.databases.name()


SCENES: Final[Scenes] = {
    "no server": nothing_there,
    "no host": no_host,
    "wrong password": lambda s: s.run(database=s.database.changed(password="no")),
    "no password": without_password,
    "no role": lambda s: s.run(database=s.database.changed(user="nobody")),
    "disabled role": lambda s: not_in(s, "NOLOGIN"),
    "expired password": lambda s: not_in(s, "LOGIN VALID UNTIL '2020-01-01'"),
    "no database": lambda s: s.run(database=wrong_database(s)),
    "no right to connect": no_right_to_connect,
    "database closed": no_connections_allowed,
    "no pg_hba entry": no_hba_entry,
    "pg_hba wants TLS": only_tls,
    "TLS not offered": tls_not_offered,
    "no CA file": no_ca_file,
    "certificate of another CA": with_tls,
    "certificate of another host": lambda s: with_tls(
        s, host="db.example", own_ca=True
    ),
    "PGOPTIONS": pgoptions,
    "role's limit 0": lambda s: limited(s, "ROLE", 0),
    "role's limit 1": lambda s: limited(s, "ROLE", 1),
    "database's limit 0": lambda s: limited(s, "DATABASE", 0),
    "too many connections": too_many_connections,
    "login trigger": login_trigger,
    "read-only": read_only,
    "standby": standby,
    "GATE_TIMEOUT without a server": lambda s: nothing_there(
        s, GATE_TIMEOUT="2s", GATE_WAIT_TIMEOUT="30s"
    ),
}
